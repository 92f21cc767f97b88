//! Cores inside tokio-uring runtimes of their own. That such cores keep every other promise too is shown by all other
//! tests, with `RINGPOST_TEST_HOST=tokio-uring`.

mod common;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::echo::{Echo, Echoing, echo_once, on_core, until};
use common::scene::{DISTANCES, Scene, at_hosted};
use common::{LIMIT, bounded, builder, config, end, eventually, seen_from};
use ringpost::{CallContext, Config, Endpoint, Handle, HandlerError, Handlers, Host, Idle, RpcEnv, message};
use serde::{Deserialize, Serialize};
use tokio::task::yield_now;

/// Waits by tokio's clock, for this many milliseconds.
#[derive(Serialize, Deserialize, Clone)]
struct Nap(u64);
message!(Nap as "hosting.Nap" => u64);

/// Is passed on to a tokio task and comes back from there.
#[derive(Serialize, Deserialize, Clone)]
struct Detour(u64);
message!(Detour as "hosting.Detour" => u64);

/// Is written to a file, and read from there.
#[derive(Serialize, Deserialize, Clone)]
struct Store(Bytes);
message!(Store as "hosting.Store" => Bytes);

/// Uses what the runtime offers.
struct Guest;

impl Endpoint for Guest {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask::<Nap>().ask::<Detour>().ask::<Store>();
    }
}

impl Handle<Nap> for Guest {
    async fn handle(&mut self, Nap(milliseconds): Nap, _: &mut CallContext) -> Result<u64, HandlerError> {
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        Ok(milliseconds)
    }
}

impl Handle<Detour> for Guest {
    async fn handle(&mut self, Detour(number): Detour, _: &mut CallContext) -> Result<u64, HandlerError> {
        let (there, mut comes) = tokio::sync::mpsc::channel(1);
        let (back, returns) = tokio::sync::oneshot::channel();
        let seen = Rc::new(Cell::new(0));
        let noted = seen.clone();
        tokio::task::spawn_local(async move {
            noted.set(comes.recv().await.unwrap());
            let _ = back.send(());
        });
        there.send(number).await.unwrap();
        returns.await.unwrap();
        Ok(seen.get())
    }
}

impl Handle<Store> for Guest {
    async fn handle(&mut self, Store(bytes): Store, _: &mut CallContext) -> Result<Bytes, HandlerError> {
        by_a_file(bytes).await.map_err(|error| HandlerError::new(error.to_string()))
    }
}

/// Writes to a file and reads from it, by the runtime's ring.
async fn by_a_file(bytes: Bytes) -> std::io::Result<Bytes> {
    let path = scratch();
    let file = tokio_uring::fs::File::create(&path).await?;
    let length = bytes.len();
    file.write_all_at(bytes, 0).await.0?;
    file.close().await?;
    let file = tokio_uring::fs::File::open(&path).await?;
    let (read, buffer) = file.read_exact_at(vec![0; length], 0).await;
    read?;
    file.close().await?;
    tokio_uring::fs::remove_file(&path).await?;
    Ok(buffer.into())
}

/// A name that no other file has.
fn scratch() -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("ringpost-hosting-{}-{number}", std::process::id()))
}

/// An env whose cores live in runtimes.
fn hosted(name: &str, cores: usize, idle: Idle) -> RpcEnv {
    let config = Config { idle, ..config() };
    builder(name, cores, config).host(Host::TokioUring).bind("127.0.0.1:0").start().unwrap()
}

const IDLES: [Idle; 3] = [Idle::Park, Idle::Spin, Idle::Adaptive { spin_max: Duration::from_micros(50) }];

/// Plays with runtimes on one side, on the other, and on both.
fn with_guests(play: impl Fn(&Scene)) {
    let (alone, hosted) = (Host::Thread, Host::TokioUring);
    for hosts in [[alone, hosted], [hosted, alone], [hosted, hosted]] {
        DISTANCES.into_iter().for_each(|distance| at_hosted(distance, config(), hosts, &play));
    }
}

#[test]
fn hosted_cores_and_others_ask_each_other() {
    bounded(|| {
        with_guests(|scene| {
            let echo = scene.place("echo", || Echoing);
            let payload = Bytes::from_static(b"guest");
            for outcome in scene.outcomes(&echo, Echo { payload: payload.clone() }) {
                assert_eq!(outcome.unwrap(), payload);
            }
            scene.run(move || async move {
                let all: Vec<_> = (0..200).map(|i| ringpost::spawn(echo_once(echo.clone(), i, 1000))).collect();
                for one in all {
                    one.await.unwrap().unwrap();
                }
            });
            eventually(&scene.asking, "the end of all asks", |now| now.pending_asks == 0);
        });
    });
}

#[test]
fn handlers_await_timers_channels_and_local_tasks_of_tokio() {
    bounded(|| {
        for distance in DISTANCES {
            at_hosted(distance, config(), [Host::TokioUring; 2], |scene| {
                let guest = scene.place("guest", || Guest);
                assert_eq!(scene.outcomes(&guest, Nap(2)).map(Result::unwrap), [2; 3]);
                assert_eq!(scene.outcomes(&guest, Detour(7)).map(Result::unwrap), [7; 3]);
            });
        }
    });
}

#[test]
fn handlers_read_and_write_files_by_the_runtime_s_ring() {
    bounded(|| {
        for idle in IDLES {
            let env = hosted("files", 2, idle);
            let guest = env.register_on(1, "guest", || Guest).unwrap();
            for length in [1, 4096, 100_000] {
                let bytes = common::echo::payload(length, length as usize);
                assert!(guest.ask_blocking(Store(bytes.clone())).unwrap() == bytes, "{length} bytes, {idle:?}");
            }
            end(&env);
        }
    });
}

#[test]
fn a_core_that_is_busy_without_end_lets_the_runtime_s_other_tasks_timers_and_files_go_on() {
    bounded(|| {
        for idle in IDLES {
            let env = hosted("busy", 1, idle);
            let (stop, polls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
            let (until, counted) = (stop.clone(), polls.clone());
            let busy = env.spawn_on(0, move || busily(until, counted)).unwrap();
            common::echo::until("the core is busy", || polls.load(Ordering::Relaxed) > 0);
            let before = polls.load(Ordering::Relaxed);
            let others = env.spawn_on(0, || async {
                let turns = tokio::task::spawn_local(async {
                    for _ in 0..1000 {
                        yield_now().await;
                    }
                });
                turns.await.unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
                by_a_file(Bytes::from_static(b"busy")).await.unwrap()
            });
            assert_eq!(common::echo::within(others.unwrap()).unwrap(), "busy");
            assert!(polls.load(Ordering::Relaxed) > before, "the core went on too");
            stop.store(true, Ordering::Relaxed);
            busy.join().unwrap();
            end(&env);
        }
    });
}

/// Is ready to go on at once, always, until told to stop.
async fn busily(stop: Arc<AtomicBool>, polls: Arc<AtomicU64>) {
    poll_fn(|cx| {
        polls.fetch_add(1, Ordering::Relaxed);
        if stop.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[test]
fn a_tokio_task_that_is_busy_without_end_lets_the_core_go_on() {
    bounded(|| {
        for idle in IDLES {
            let env = hosted("served", 1, idle);
            let echo = env.register("echo", || Echoing).unwrap();
            let (stop, turns) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
            let (until_stopped, counted) = (stop.clone(), turns.clone());
            on_core(&env, move || async move {
                tokio::task::spawn_local(async move {
                    while !until_stopped.load(Ordering::Relaxed) {
                        counted.fetch_add(1, Ordering::Relaxed);
                        yield_now().await;
                    }
                });
            });
            let client = builder("client", 1, config()).start().unwrap();
            let remote = seen_from(&client, &echo);
            for seed in 0..50 {
                common::echo::echo_blocking(&echo, seed, 100).unwrap();
                common::echo::echo_blocking(&remote, seed, 100).unwrap();
            }
            let before = turns.load(Ordering::Relaxed);
            until("the task has another turn", || turns.load(Ordering::Relaxed) > before);
            stop.store(true, Ordering::Relaxed);
            end(&client);
            end(&env);
        }
    });
}

#[test]
fn tasks_of_the_runtime_end_with_the_env() {
    bounded(|| {
        struct Flag(Arc<AtomicBool>);
        impl Drop for Flag {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let env = hosted("leaving", 1, Idle::Park);
        let dropped = Arc::new(AtomicBool::new(false));
        let flag = Flag(dropped.clone());
        on_core(&env, move || async move {
            tokio::task::spawn_local(async move {
                let _flag = flag;
                std::future::pending::<()>().await;
            });
        });
        end(&env);
        assert!(dropped.load(Ordering::Relaxed));
    });
}

#[test]
fn a_hard_end_drops_handlers_that_use_the_runtime() {
    bounded(|| {
        let env = hosted("hard", 1, Idle::Park);
        let guest = env.register("guest", || Guest).unwrap();
        let nap = guest.ask(Nap(LIMIT.as_millis() as u64 * 10));
        eventually(&env, "the nap", |now| now.pending_asks == 1);
        let listening = env.spawn_on(0, || async {
            // Never completes: it is in the runtime's ring when the end comes.
            let socket = tokio_uring::net::UdpSocket::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
            socket.recv_from(vec![0; 16]).await.0.unwrap();
        });
        common::turn(&env);
        env.shutdown(Duration::ZERO);
        assert!(env.await_termination_within(LIMIT).unwrap());
        assert_eq!(common::kind(&common::echo::within(nap).unwrap_err()), "Stopped");
        assert!(matches!(listening.unwrap().join(), Err(ringpost::JoinError::Stopped)));
    });
}

#[test]
fn the_end_of_an_env_can_be_awaited_by_any_executor() {
    bounded(|| {
        for host in [Host::Thread, Host::TokioUring] {
            let env = builder("ending", 2, config()).host(host).start().unwrap();
            let mut end = Box::pin(env.terminated());
            let (mut looks, began) = (0, Instant::now());
            common::echo::within(poll_fn(|cx| {
                looks += 1;
                let ended = end.as_mut().poll(cx);
                // A thread may be unparked by what it has waited for before, so it may look once more in between.
                assert!(looks > 1 || ended.is_pending(), "nobody has shut it down");
                env.shutdown(LIMIT);
                ended
            }));
            assert!(began.elapsed() < LIMIT, "nobody woke it when the env had ended");
            assert!(env.await_termination_within(Duration::ZERO).unwrap());
            common::echo::within(env.terminated());
        }
    });
}

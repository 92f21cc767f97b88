//! An env of one core inside a tokio runtime that is there already.

mod common;

use std::future::Future;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use common::echo::{Echo, Echoing, Hang, Hanging, echo_blocking, echo_once, host, refer, within};
use common::{LIMIT, bounded, config, kind, server};
use ringpost::{
    AskError, Builder, EndpointRef, Error, JoinError, LookupError, RegisterError, RpcEnv, SpawnError, StartError,
};
use tokio::task::{LocalSet, spawn_blocking, spawn_local};

/// An env to be, without cores.
fn local(name: &str) -> Builder {
    RpcEnv::builder(name).config(config()).bind("127.0.0.1:0")
}

/// Runs a test's future in a tokio-uring runtime on this thread.
fn in_uring(test: impl Future<Output = ()>) {
    tokio_uring::start(async { tokio::time::timeout(LIMIT, test).await.expect("the test hangs") });
}

/// Registers the endpoints `echo` and `hang`.
async fn furnish(env: &RpcEnv) -> (EndpointRef, EndpointRef) {
    let echo = env.register_async("echo", || Echoing).await.unwrap();
    (echo, env.register_async("hang", || Hanging).await.unwrap())
}

async fn shut_down(env: RpcEnv) {
    env.shutdown(LIMIT);
    env.terminated().await;
}

#[test]
fn tasks_of_the_hosting_thread_and_all_others_ask() {
    bounded(|| {
        in_uring(async {
            let env = local("local").start_local().unwrap();
            let (echo, _) = furnish(&env).await;
            // A foreign task on the very thread, alone and many at once.
            echo_once(echo.clone(), 1, 100).await.unwrap();
            let tasks: Vec<_> = (0..100).map(|seed| spawn_local(echo_once(echo.clone(), seed, 1000))).collect();
            for task in tasks {
                task.await.unwrap().unwrap();
            }
            // A task on the core.
            let own = echo.clone();
            env.spawn_on(0, move || async move { ringpost::spawn(echo_once(own, 2, 100)).await })
                .unwrap()
                .await
                .unwrap()
                .unwrap()
                .unwrap();
            // A thread that blocks, another executor, and another env.
            let there = echo.clone();
            spawn_blocking(move || {
                echo_blocking(&there, 3, 100).unwrap();
                futures::executor::block_on(echo_once(there.clone(), 4, 100)).unwrap();
                let client = common::client(1);
                echo_blocking(&common::seen_from(&client, &there), 5, 100_000).unwrap();
                common::end(&client);
            })
            .await
            .unwrap();
            let workers = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
            let tasks: Vec<_> = (0..50).map(|seed| workers.spawn(echo_once(echo.clone(), seed, 100))).collect();
            for task in tasks {
                task.await.unwrap().unwrap();
            }
            workers.shutdown_background();
            shut_down(env).await;
        });
    });
}

#[test]
fn an_ask_of_a_foreign_task_that_is_dropped_is_given_up() {
    bounded(|| {
        in_uring(async {
            let env = local("local").start_local().unwrap();
            let (_, hang) = furnish(&env).await;
            let asked = hang.ask_within(Hang, Duration::from_millis(5)).await;
            assert!(matches!(asked, Err(AskError::Timeout { .. })), "{asked:?}");
            drop(hang.ask(Hang));
            while env.snapshot().total().pending_asks > 0 {
                env.spawn_on(0, || async {}).unwrap().await.unwrap();
                tokio::task::yield_now().await;
            }
            env.shutdown(Duration::ZERO);
            env.terminated().await;
        });
    });
}

#[test]
fn calls_that_would_block_the_hosting_thread_are_refused() {
    bounded(|| {
        in_uring(async {
            let env = local("local").start_local().unwrap();
            let (echo, _) = furnish(&env).await;
            let message = || Echo { payload: Bytes::new() };
            let asked = echo.ask_blocking(message());
            assert!(matches!(asked, Err(AskError::BlockingOnCore)), "{asked:?}");
            let registered = env.register("late", || Echoing);
            assert!(matches!(registered, Err(RegisterError::BlockingOnCore)), "{registered:?}");
            let found = env.lookup_blocking(&common::uri(&env, "echo"));
            assert!(matches!(found, Err(LookupError::BlockingOnCore)), "{found:?}");
            let joined = env.spawn_on(0, || async {}).unwrap().join();
            assert!(matches!(joined, Err(JoinError::BlockingOnCore)), "{joined:?}");
            assert!(matches!(env.await_termination(), Err(Error::AwaitOnCore)));
            // Between turns the thread is no core: what belongs to a core is refused too.
            let spawned = ringpost::spawn(async {}).await;
            assert!(matches!(spawned, Err(JoinError::NotStarted(SpawnError::NotOnCore))), "{spawned:?}");
            env.lookup(&common::uri(&env, "echo")).await.unwrap();
            shut_down(env.clone()).await;
            // Now it is a thread like any other.
            assert!(env.await_termination_within(LIMIT).unwrap());
            let remote = server(1);
            host(&remote);
            drop(remote);
        });
    });
}

#[test]
fn the_runtime_goes_on_and_takes_another_env() {
    bounded(|| {
        in_uring(async {
            for round in 0..3 {
                let env = local("again").start_local().unwrap();
                let (echo, _) = furnish(&env).await;
                echo_once(echo.clone(), round, 100).await.unwrap();
                shut_down(env).await;
                assert_eq!(kind(&echo.ask(Echo { payload: Bytes::new() }).await.unwrap_err()), "Stopped");
            }
        });
    });
}

#[test]
fn two_envs_share_a_thread_and_talk() {
    bounded(|| {
        in_uring(async {
            let (one, other) = (local("one").start_local().unwrap(), local("other").start_local().unwrap());
            let (echo, _) = furnish(&one).await;
            let (own, remote) = (echo.clone(), refer(&other, "echo", &one));
            echo_once(remote.clone(), 1, 100_000).await.unwrap();
            let asked = other.spawn_on(0, move || async move {
                echo_once(own, 2, 100).await.unwrap();
                echo_once(remote, 3, 100).await.unwrap();
            });
            asked.unwrap().await.unwrap();
            shut_down(other).await;
            echo_once(echo, 4, 100).await.unwrap();
            shut_down(one).await;
        });
    });
}

#[test]
fn any_current_thread_runtime_with_local_tasks_will_do() {
    bounded(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let env = local("plain").start_local().unwrap();
            let (echo, _) = furnish(&env).await;
            echo_once(echo, 1, 100).await.unwrap();
            shut_down(env).await;
        });
    });
}

#[test]
fn without_a_fitting_runtime_it_is_an_error_that_says_so() {
    bounded(|| {
        let refused = || {
            let error = local("nowhere").start_local().unwrap_err();
            assert!(matches!(error, StartError::NoRuntime { .. }), "{error}");
            error.to_string()
        };
        assert!(refused().contains("no reactor running"), "{}", refused());
        let new = tokio::runtime::Builder::new_current_thread;
        let (none, all) = (new().build().unwrap(), new().enable_all().build().unwrap());
        assert!(LocalSet::new().block_on(&none, async { refused() }).contains("timers are disabled"));
        assert!(all.block_on(async { refused() }).contains("LocalSet"));
        // Nothing is left behind, so this thread may block.
        let env = server(1);
        host(&env);
        echo_blocking(&env.endpoint_ref(&common::uri(&env, "echo")).unwrap(), 1, 10).unwrap();
        common::end(&env);
    });
}

#[test]
fn an_env_ends_hard_with_the_runtime_that_it_lives_in() {
    bounded(|| {
        let (tell, told) = channel();
        let (drop_it, dropped) = channel::<()>();
        let hosting = thread::spawn(move || {
            let runtime = tokio_uring::Runtime::new(&tokio_uring::builder()).unwrap();
            runtime.block_on(async {
                let env = local("short").start_local().unwrap();
                let (echo, hang) = furnish(&env).await;
                // In the runtime's ring when that goes.
                let received = env.spawn_on(0, || async {
                    let socket = tokio_uring::net::UdpSocket::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
                    socket.recv_from(vec![0; 16]).await.0.is_ok()
                });
                echo_once(echo.clone(), 1, 100).await.unwrap();
                tell.send((env, echo, hang, received.unwrap())).unwrap();
                spawn_blocking(move || dropped.recv_timeout(LIMIT).unwrap()).await.unwrap();
            });
            drop(runtime);
        });
        let (env, echo, hang, received) = told.recv_timeout(LIMIT).unwrap();
        let client = common::client(1);
        let (waiting, remote) = (hang.ask(Hang), refer(&client, "hang", &env).ask(Hang));
        echo_blocking(&refer(&client, "echo", &env), 2, 100).unwrap();
        drop_it.send(()).unwrap();
        assert_eq!(kind(&within(waiting).unwrap_err()), "Stopped");
        assert_eq!(kind(&within(remote).unwrap_err()), "Disconnected");
        assert!(matches!(received.join(), Err(JoinError::Stopped)));
        assert!(env.await_termination_within(LIMIT).unwrap());
        assert_eq!(kind(&echo_blocking(&echo, 3, 100).unwrap_err()), "Stopped");
        hosting.join().unwrap();
        common::end(&client);
    });
}

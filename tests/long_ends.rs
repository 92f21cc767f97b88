//! What ends with connections, in large numbers, ends over many turns: everything else on the core goes on in between.

mod common;

use std::cell::Cell;
use std::future::poll_fn;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::mpsc::channel;
use std::task::Poll;
use std::time::Duration;

use common::raw::{self, RawPeer, hello, request};
use common::{LIMIT, bounded, builder, client, config, end, eventually, kind, server, serving};
use ringpost::net::reader::Incoming;
use ringpost::wire::frame::Frame;
use ringpost::{
    CallContext, Config, Endpoint, HandleDeferred, HandlerError, Handlers, Replier, RpcEnv, message, spawn,
};
use serde::{Deserialize, Serialize};

/// Nobody answers this.
#[derive(Serialize, Deserialize)]
struct Never;
message!(Never as "long_ends.Never" => ());

/// Asks that end together.
const ASKS: usize = 20_000;
/// What may end between two turns of another task, at most: what a core ends in a turn, and the tasks that it runs in one.
const BETWEEN: usize = 2_000;

thread_local! {
    /// What has ended on this core, and since its ticker had its turn.
    static ENDED: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

/// Something has ended on this core.
fn one_has_ended() {
    ENDED.with(|ended| ended.set((ended.get().0 + 1, ended.get().1 + 1)));
}

/// Lets everything else on the core have its turn.
async fn yield_turn() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Has a turn whenever it can until so many have ended on this core; the most that ended between two turns.
async fn ticker(all: usize) -> usize {
    let mut most = 0;
    loop {
        let (ended, since) = ENDED.with(|ended| ended.replace((ended.get().0, 0)));
        most = most.max(since);
        if ended == all {
            return most;
        }
        yield_turn().await;
    }
}

#[test]
fn the_asks_that_a_lost_connection_takes_along_end_over_many_turns() {
    bounded(|| {
        let (listener, at) = raw::listener();
        let env = client(1);
        let nobody = env.endpoint_ref(&format!("ringpost://nobody@{at}")).unwrap();
        let ticking = env.spawn_on(0, move || async move {
            for _ in 0..ASKS {
                let ask = nobody.ask(Never);
                drop(spawn(async move {
                    assert_eq!(kind(&ask.await.unwrap_err()), "Disconnected");
                    one_has_ended();
                }));
            }
            ticker(ASKS).await
        });
        let mut peer = RawPeer::over(listener.accept().unwrap().0);
        peer.stream.write_all(&hello()).unwrap();
        peer.next(|incoming| assert!(matches!(incoming, Incoming::Hello(_))));
        for _ in 0..ASKS {
            peer.next(|incoming| assert!(matches!(incoming, Incoming::Frame(Frame::Request { .. }))));
        }
        // All tasks have had their first turn, and wait.
        env.spawn_on(0, || async {}).unwrap().join().unwrap();
        drop(peer);
        let most = ticking.unwrap().join().unwrap();
        assert!(most <= BETWEEN, "{most} asks ended between two turns of another task");
        eventually(&env, "the end of all asks", |now| now.pending_asks == 0);
        end(&env);
    });
}

#[test]
fn asks_whose_time_is_up_together_end_over_many_turns() {
    bounded(|| {
        let (listener, at) = raw::listener();
        let env = builder("impatient", 1, Config { ask_timeout: Duration::from_secs(1), ..config() }).start().unwrap();
        let nobody = env.endpoint_ref(&format!("ringpost://nobody@{at}")).unwrap();
        let ticking = env.spawn_on(0, move || async move {
            for _ in 0..ASKS {
                let ask = nobody.ask(Never);
                drop(spawn(async move {
                    assert_eq!(kind(&ask.await.unwrap_err()), "Timeout");
                    one_has_ended();
                }));
            }
            ticker(ASKS).await
        });
        let most = ticking.unwrap().join().unwrap();
        assert!(most <= BETWEEN, "{most} asks ended between two turns of another task");
        eventually(&env, "the end of all asks", |now| now.pending_asks == 0 && now.timeouts == ASKS as u64);
        end(&env);
        drop(listener);
    });
}

/// Keeps its askers waiting until they are gone.
struct Patient;

impl Endpoint for Patient {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_deferred::<Never>();
    }
}

impl HandleDeferred<Never> for Patient {
    fn handle(&mut self, _: Never, mut replier: Replier<()>, _: &mut CallContext) -> Result<(), HandlerError> {
        drop(spawn(async move {
            replier.cancelled().await;
            one_has_ended();
        }));
        Ok(())
    }
}

fn address(env: &RpcEnv) -> SocketAddr {
    env.address().unwrap().to_string().parse().unwrap()
}

/// Asks this many times, in one go.
fn ask_patient(env: &RpcEnv, count: usize) -> RawPeer {
    let mut peer = RawPeer::greet(address(env));
    let mut bytes = Vec::new();
    for id in 1..=count as u64 {
        request(&mut bytes, id, "patient", &Never);
    }
    peer.stream.write_all(&bytes).unwrap();
    peer
}

#[test]
fn the_deferred_asks_of_a_lost_connection_end_over_many_turns() {
    bounded(|| {
        let env = server(1);
        env.register("patient", || Patient).unwrap();
        let peer = ask_patient(&env, ASKS);
        eventually(&env, "the asks", |now| now.deferred == ASKS as u64);
        let ticking = env.spawn_on(0, || ticker(ASKS)).unwrap();
        // All tasks have had their first turn, and wait.
        env.spawn_on(0, || async {}).unwrap().join().unwrap();
        drop(peer);
        let most = ticking.join().unwrap();
        assert!(most <= BETWEEN, "{most} asks ended between two turns of another task");
        eventually(&env, "the end of all asks", |now| now.deferred == 0);
        end(&env);
    });
}

#[test]
fn a_shutdown_amid_a_long_end_leaves_nothing_behind() {
    bounded(|| {
        let env = serving(1, Config { ask_timeout: LIMIT, ..config() });
        env.register("patient", || Patient).unwrap();
        let peer = ask_patient(&env, ASKS);
        eventually(&env, "the asks", |now| now.deferred == ASKS as u64);
        let (ended, of_core) = channel();
        let watching = env.spawn_on(0, move || async move {
            while ENDED.with(Cell::get).0 == 0 {
                yield_turn().await;
            }
            ended.send(()).unwrap();
            ticker(ASKS).await
        });
        drop(peer);
        of_core.recv_timeout(LIMIT).unwrap();
        end(&env);
        drop(watching);
    });
}

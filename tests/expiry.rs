//! Work whose time has passed is dropped wherever it waits: it is not sent, not decoded and not handled.

mod common;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::echo::until;
use common::gate::{Event, Gate, pass};
use common::raw::{self, RawPeer, hello, request, request_within};
use common::scene::{Distance, Scene, at, at_every_distance};
use common::{LIMIT, bounded, builder, config, end, eventually, serving, turn};
use futures::executor::block_on;
use ringpost::net::reader::Incoming;
use ringpost::wire::failure::FailureCode;
use ringpost::wire::frame::{Frame, RequestHead};
use ringpost::{
    AskError, CallContext, Config, CoreSnapshot, Endpoint, EndpointRef, Handle, HandleSync, HandlerError, Handlers,
    RpcEnv, message,
};
use serde::{Deserialize, Deserializer, Serialize};

/// Waits at a gate: suspended, or with the whole core if that is set.
#[derive(Serialize, Deserialize, Clone)]
struct Wait(u64, bool);
message!(Wait as "expiry.Wait" => ());

/// Answered with this many bytes.
#[derive(Serialize, Deserialize)]
struct Fetch(usize);
message!(Fetch as "expiry.Fetch" => Bytes);

/// How many [`Watched`] with the same number were decoded so far, and how many handled.
#[derive(Serialize, Deserialize)]
struct Seen(u64);
message!(Seen as "expiry.Seen" => (usize, usize));

/// Its number is noted when it is decoded.
#[derive(Serialize, Clone)]
struct Watched(u64);
message!(Watched as "expiry.Watched" => ());

static DECODED: Mutex<Vec<u64>> = Mutex::new(Vec::new());

impl<'de> Deserialize<'de> for Watched {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Watched, D::Error> {
        let number = u64::deserialize(deserializer)?;
        DECODED.lock().unwrap().push(number);
        Ok(Watched(number))
    }
}

#[derive(Default)]
struct Worker {
    handled: Vec<u64>,
}

impl Endpoint for Worker {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask::<Wait>().ask_sync::<Fetch>().ask_sync::<Watched>().ask_sync::<Seen>();
    }
}

impl Handle<Wait> for Worker {
    async fn handle(&mut self, wait: Wait, _: &mut CallContext) -> Result<(), HandlerError> {
        if wait.1 {
            block_on(pass(wait.0));
        } else {
            pass(wait.0).await;
        }
        Ok(())
    }
}

impl HandleSync<Fetch> for Worker {
    fn handle(&mut self, fetch: Fetch, _: &mut CallContext) -> Result<Bytes, HandlerError> {
        Ok(vec![7; fetch.0].into())
    }
}

impl HandleSync<Watched> for Worker {
    fn handle(&mut self, watched: Watched, _: &mut CallContext) -> Result<(), HandlerError> {
        self.handled.push(watched.0);
        Ok(())
    }
}

impl HandleSync<Seen> for Worker {
    fn handle(&mut self, seen: Seen, _: &mut CallContext) -> Result<(usize, usize), HandlerError> {
        let count = |all: &[u64]| all.iter().filter(|number| **number == seen.0).count();
        Ok((count(&DECODED.lock().unwrap()), count(&self.handled)))
    }
}

const SHORT: Duration = Duration::from_millis(40);
const SHORT_US: Option<u32> = Some(40_000);

/// A message that no other test watches.
fn watched() -> Watched {
    static NEXT: Mutex<u64> = Mutex::new(0);
    let mut next = NEXT.lock().unwrap();
    *next += 1;
    Watched(*next)
}

/// Waits until the deadline of everything that was sent before has passed.
fn let_it_expire() {
    let end = Instant::now() + SHORT + SHORT / 2;
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        thread::park_timeout(left);
    }
}

#[track_caller]
fn untouched(worker: &EndpointRef, watched: &Watched) {
    let seen = worker.ask_blocking(Seen(watched.0)).unwrap();
    assert_eq!(seen, (0, 0), "it was decoded and handled so often");
}

#[track_caller]
fn timed_out(outcome: &Result<(), AskError>) {
    assert!(matches!(outcome, Err(AskError::Timeout { .. })), "{outcome:?}");
}

fn address(env: &RpcEnv) -> SocketAddr {
    env.address().unwrap().to_string().parse().unwrap()
}

/// A peer by hand, whose asks nobody cancels, and a worker at the env that it talks to.
fn with_raw(config: Config, play: impl Fn(&RpcEnv, &EndpointRef, RawPeer)) {
    let env = serving(1, config);
    let worker = env.register("worker", Worker::default).unwrap();
    play(&env, &worker, RawPeer::connect_narrow(address(&env)));
    end(&env);
}

#[track_caller]
fn expect_expired(peer: &mut RawPeer, id: u64) {
    peer.next(|incoming| match incoming {
        Incoming::Frame(Frame::Failure { request, failure, .. }) => {
            assert_eq!((request, failure.code), (id, FailureCode::Expired));
        }
        other => panic!("{other:?}"),
    });
}

#[track_caller]
fn expect_reply(peer: &mut RawPeer, id: u64) {
    peer.next(|incoming| {
        let Incoming::Frame(Frame::Reply { request, .. }) = incoming else { panic!("{incoming:?}") };
        assert_eq!(request, id);
    });
}

#[test]
fn an_ask_that_expires_in_the_inbox_is_not_decoded() {
    bounded(|| {
        with_raw(config(), |env, worker, mut peer| {
            let (mut gate, watched) = (Gate::new(), watched());
            let mut bytes = hello();
            request(&mut bytes, 1, "worker", &Wait(gate.id, false));
            request_within(&mut bytes, 2, "worker", &watched, SHORT_US);
            peer.stream.write_all(&bytes).unwrap();
            gate.expect(Event::Entered);
            eventually(env, "it waits", |now| now.inbox_messages == 1);
            let_it_expire();
            gate.open();
            assert!(peer.next(|incoming| matches!(incoming, Incoming::Hello(_))));
            expect_reply(&mut peer, 1);
            expect_expired(&mut peer, 2);
            untouched(worker, &watched);
            eventually(env, "the count", |now| now.expired == 1);
        });
    });
}

#[test]
fn an_ask_that_expires_while_its_sender_does_not_read_is_not_decoded() {
    // More than the sockets of both sides take.
    const MUCH: usize = 8 << 20;
    bounded(|| {
        let limits = Config { outbox_bytes: 1 << 10, max_frame: MUCH as u32 + 100, ..config() };
        with_raw(limits, |env, worker, mut peer| {
            let watched = watched();
            // All of it arrives at once, and what is behind the first ask is kept until its answer has been read.
            let mut bytes = hello();
            request(&mut bytes, 1, "worker", &Fetch(MUCH));
            request_within(&mut bytes, 2, "worker", &watched, SHORT_US);
            request_within(&mut bytes, 3, "worker", &Fetch(1), Some(20_000_000));
            peer.stream.write_all(&bytes).unwrap();
            eventually(env, "it stops reading", |now| now.reads_paused == 1);
            let_it_expire();
            assert!(peer.next(|incoming| matches!(incoming, Incoming::Hello(_))));
            expect_reply(&mut peer, 1);
            expect_expired(&mut peer, 2);
            expect_reply(&mut peer, 3);
            untouched(worker, &watched);
            eventually(env, "the count", |now| now.expired == 1);
        });
    });
}

#[test]
fn an_ask_that_expires_in_a_lane_is_neither_queued_nor_decoded() {
    bounded(|| {
        for distance in [Distance::Lane, Distance::PeerLane] {
            at(distance, config(), |scene| {
                let worker = scene.place("worker", Worker::default);
                let (mut gate, watched) = (Gate::new(), watched());
                let running = worker.ask(Wait(gate.id, true));
                gate.expect(Event::Entered);
                let passed = || scene.answering.snapshot().total().requests_passed;
                let (there, message) = (worker.clone(), watched.clone());
                timed_out(&scene.run(move || async move { there.ask_within(message, SHORT).await }));
                // A peer counts the time from when the ask arrives there, which may be late.
                until("it is in the lane", || distance == Distance::Lane || passed() == 2);
                let_it_expire();
                gate.open();
                block_on(running).unwrap();
                untouched(&worker, &watched);
                // The cancellation came behind it, and found nothing.
                eventually(&scene.answering, "the count", |now| (now.expired, now.cancelled) == (1, 0));
            });
        }
    });
}

/// Blocks the core that asks of this thread go through.
fn block_entry(scene: &Scene) -> (Gate, ringpost::JoinHandle<()>) {
    let core = if scene.distance == Distance::Lane { 1 } else { 0 };
    let gate = Gate::new();
    let id = gate.id;
    let blocked = scene.asking.spawn_on(core, move || async move { block_on(pass(id)) }).unwrap();
    gate.expect(Event::Entered);
    (gate, blocked)
}

/// What has left a core.
fn asks(now: &CoreSnapshot) -> u64 {
    now.asks_local + now.asks_lane + now.asks_peer
}

#[test]
fn an_ask_that_expires_before_its_core_takes_it_is_not_sent() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let (worker, watched) = (scene.place("worker", Worker::default), watched());
            worker.ask_blocking(Seen(0)).unwrap();
            let before = eventually(&scene.asking, "the start", |_| true);
            let (mut gate, blocked) = block_entry(scene);
            let late = worker.ask_within(watched.clone(), SHORT);
            let_it_expire();
            gate.open();
            let outcome = block_on(late);
            timed_out(&outcome);
            let text = outcome.unwrap_err().to_string();
            assert!(text.contains("worker") && text.contains("the timeout given to ask_within"), "{text}");
            blocked.join().unwrap();
            let total = eventually(&scene.asking, "its end", |now| (now.timeouts, now.pending_asks) == (1, 0));
            assert_eq!(asks(&total), asks(&before), "it did not leave");
            untouched(&worker, &watched);
        });
    });
}

#[test]
fn the_time_that_an_ask_waits_for_its_core_is_told_to_the_peer() {
    const LONG: Duration = Duration::from_secs(10);
    bounded(|| {
        let (listener, at) = raw::listener();
        let env = builder("client", 1, config()).start().unwrap();
        let worker = env.endpoint_ref(&format!("ringpost://worker@{at}")).unwrap();
        let mut peer = greeted(&worker, &listener);
        let gate = Gate::new();
        let id = gate.id;
        let blocked = env.spawn_on(0, move || async move { block_on(pass(id)) }).unwrap();
        gate.expect(Event::Entered);
        let mut gate = gate;
        let asking = worker.ask_within(Seen(7), LONG);
        let_it_expire();
        gate.open();
        blocked.join().unwrap();
        assert!(next_request(&mut peer, &Seen(7)) <= (LONG - SHORT).as_micros() as u32);
        drop(asking);
        end_all(env);
    });
}

#[test]
fn an_ask_that_is_dropped_before_its_core_takes_it_is_not_sent() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let (worker, watched) = (scene.place("worker", Worker::default), watched());
            worker.ask_blocking(Seen(0)).unwrap();
            let before = eventually(&scene.asking, "the start", |_| true);
            let (mut gate, blocked) = block_entry(scene);
            drop(worker.ask(watched.clone()));
            gate.open();
            blocked.join().unwrap();
            let total = eventually(&scene.asking, "its end", |now| (now.cancelled, now.pending_asks) == (1, 0));
            assert_eq!(asks(&total), asks(&before), "it did not leave");
            untouched(&worker, &watched);
        });
    });
}

/// The next request that arrives is this one; how many microseconds it has left.
#[track_caller]
fn next_request<M: ringpost::Message>(peer: &mut RawPeer, message: &M) -> u32 {
    let payload = |message: &M| {
        let mut bytes = Vec::new();
        ringpost::wire::codec::encode(message, &mut bytes).unwrap();
        bytes
    };
    peer.next(|incoming| match incoming {
        Incoming::Frame(Frame::Request { head: RequestHead { message: id, deadline_us, .. }, payload: bytes }) => {
            assert_eq!((id, bytes), (M::ID, &payload(message)[..]), "another request than the expected one");
            deadline_us.unwrap()
        }
        other => panic!("{other:?}"),
    })
}

/// A server by hand that has said its hello to whoever has this ref.
fn greeted(worker: &EndpointRef, listener: &std::net::TcpListener) -> RawPeer {
    let knock = worker.ask_within(Seen(0), LIMIT);
    let mut peer = RawPeer::over(listener.accept().unwrap().0);
    peer.next(|incoming| assert!(matches!(incoming, Incoming::Hello(_))));
    peer.stream.write_all(&hello()).unwrap();
    next_request(&mut peer, &Seen(0));
    drop(knock);
    peer.next(|incoming| assert!(matches!(incoming, Incoming::Frame(Frame::Cancel { .. }))));
    peer
}

/// Ends an env whose peer does not answer.
fn end_all(env: RpcEnv) {
    env.shutdown(Duration::ZERO);
    assert!(env.await_termination_within(LIMIT).unwrap());
}

#[test]
fn an_ask_that_ends_before_there_is_a_connection_is_not_sent() {
    bounded(|| {
        let (listener, at) = raw::listener();
        let env = builder("client", 1, config()).start().unwrap();
        let worker = env.endpoint_ref(&format!("ringpost://worker@{at}")).unwrap();
        let dropped = worker.ask(Seen(1));
        let late = worker.ask_within(Watched(0), SHORT);
        let kept = worker.ask(Seen(2));
        // All three have been made; nothing says that the short one still waits.
        turn(&env);
        drop(dropped);
        timed_out(&block_on(late));
        eventually(&env, "their slots are free", |now| now.pending_asks == 1);
        let mut peer = RawPeer::over(listener.accept().unwrap().0);
        peer.next(|incoming| assert!(matches!(incoming, Incoming::Hello(_))));
        peer.stream.write_all(&hello()).unwrap();
        let left = next_request(&mut peer, &Seen(2));
        assert!(
            left <= (LIMIT - SHORT).as_micros() as u32,
            "the time that it waited is not its own: {left} us are left"
        );
        drop(kept);
        end_all(env);
    });
}

#[test]
fn an_ask_that_ends_behind_a_slow_send_is_not_sent() {
    // More than the sockets of both sides take.
    const MUCH: usize = 12 << 20;
    #[derive(Serialize, Deserialize)]
    struct Load(Bytes);
    message!(Load as "expiry.Load" => ());
    bounded(|| {
        let (listener, at) = raw::listener();
        let env = builder("client", 1, Config { outbox_bytes: 2 * MUCH, ..config() }).start().unwrap();
        let worker = env.endpoint_ref(&format!("ringpost://worker@{at}")).unwrap();
        let mut peer = greeted(&worker, &listener);
        let load = Load(vec![7; MUCH].into());
        let first = worker.ask(Load(load.0.clone()));
        // Once it is under way, and stuck, the next ones wait behind it.
        eventually(&env, "it is under way", |now| now.bytes_out > MUCH as u64);
        let late = worker.ask_within(Watched(0), SHORT);
        let kept = worker.ask(Seen(2));
        timed_out(&block_on(late));
        turn(&env);
        next_request(&mut peer, &load);
        let left = next_request(&mut peer, &Seen(2));
        assert!(
            left <= (LIMIT - SHORT).as_micros() as u32,
            "the time that it waited is not its own: {left} us are left"
        );
        drop((first, kept));
        end_all(env);
    });
}

//! Much at once: what waits is bounded, and nobody waits for ever.

mod common;

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::echo::{Echo, Echoing, alone, cut, dialler, echo_blocking, payload, refer, serve, within};
use common::gate::{Event, Gate, pass};
use common::memory::{Counting, Watch};
use common::scene::{Distance, at};
use common::{LIMIT, bounded, builder, config, eventually, seen_from, turn};
use futures::executor::block_on;
use ringpost::{
    AskError, CallContext, Config, CoreSnapshot, Endpoint, Handle, HandleSync, HandlerError, Handlers, SendError,
    message,
};
use serde::{Deserialize, Serialize};

#[global_allocator]
static COUNTING: Counting = Counting;

/// Waits at a gate: suspended, or with the whole core if that is set.
#[derive(Serialize, Deserialize)]
struct Wait(u64, bool);
message!(Wait as "backlog.Wait" => ());

/// Answered with this many bytes.
#[derive(Serialize, Deserialize)]
struct Fetch(usize);
message!(Fetch as "backlog.Fetch" => Bytes);

/// One-way.
#[derive(Serialize, Deserialize)]
struct Note(u32);
message!(Note as "backlog.Note");

/// Answered with the size of what it brings.
#[derive(Serialize, Deserialize)]
struct Load(Bytes);
message!(Load as "backlog.Load" => usize);

/// One-way, and dropped.
#[derive(Serialize, Deserialize)]
struct Dump(Bytes);
message!(Dump as "backlog.Dump");

struct Store;

impl Endpoint for Store {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask::<Wait>().ask_sync::<Fetch>().ask_sync::<Load>().send_sync::<Dump>();
    }
}

impl Handle<Wait> for Store {
    async fn handle(&mut self, wait: Wait, _: &mut CallContext) -> Result<(), HandlerError> {
        if wait.1 {
            block_on(pass(wait.0));
        } else {
            pass(wait.0).await;
        }
        Ok(())
    }
}

impl HandleSync<Fetch> for Store {
    fn handle(&mut self, fetch: Fetch, _: &mut CallContext) -> Result<Bytes, HandlerError> {
        Ok(payload(fetch.0 as u64, fetch.0))
    }
}

impl HandleSync<Load> for Store {
    fn handle(&mut self, load: Load, _: &mut CallContext) -> Result<usize, HandlerError> {
        Ok(load.0.len())
    }
}

impl HandleSync<Dump> for Store {
    fn handle(&mut self, _: Dump, _: &mut CallContext) -> Result<(), HandlerError> {
        Ok(())
    }
}

/// Tells which notes have reached it.
struct Notes(Sender<u32>);

impl Endpoint for Notes {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.send_sync::<Note>().ask_sync::<Fetch>();
    }
}

impl HandleSync<Note> for Notes {
    fn handle(&mut self, note: Note, _: &mut CallContext) -> Result<(), HandlerError> {
        // The test may have ended.
        let _ = self.0.send(note.0);
        Ok(())
    }
}

impl HandleSync<Fetch> for Notes {
    fn handle(&mut self, _: Fetch, _: &mut CallContext) -> Result<Bytes, HandlerError> {
        Ok(Bytes::new())
    }
}

#[test]
fn two_nodes_that_both_have_much_to_send_never_wait_for_each_other() {
    const THREADS: u64 = 4;
    const ECHOES: u64 = 6;
    // Far more than both sockets and both outboxes take, so that each side is full while the other writes.
    const SIZE: usize = 8 << 20;
    let _alone = alone();
    bounded(|| {
        let small = Config { outbox_bytes: 64 << 10, ..config() };
        let server = serve("127.0.0.1:0", small.clone());
        let client = dialler(small);
        let echo = refer(&client, "echo", &server);
        echo_blocking(&echo, 0, 10).unwrap();
        let asker = |number: u64| {
            let (echo, payload) = (echo.clone(), payload(number, SIZE));
            thread::spawn(move || {
                let end = Instant::now() + LIMIT;
                let mut left = ECHOES;
                while left > 0 {
                    assert!(Instant::now() < end, "thread {number} has {left} echoes left");
                    match echo.ask_blocking(Echo { payload: payload.clone() }) {
                        Ok(answer) => {
                            assert!(answer == payload, "the answer has other bytes");
                            left -= 1;
                        }
                        // Our own outbox is full; the core needs its CPU to empty it.
                        Err(AskError::Overloaded { queue, .. }) => {
                            assert!(queue.contains("outbox"), "{queue}");
                            thread::park_timeout(Duration::from_millis(1));
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        };
        let askers: Vec<_> = (1..=THREADS).map(asker).collect();
        askers.into_iter().for_each(|asker| asker.join().unwrap());
        echo_blocking(&echo, 1, 1000).unwrap();
        let there = eventually(&server, "all is answered", |c| c.handled == THREADS * ECHOES + 2);
        assert!(there.reads_paused > 0, "the server never had too much to send: the test is too easy");
        let here = eventually(&client, "no ask is left", |c| c.pending_asks == 0);
        assert_eq!((here.reads_paused, here.dialled, here.timeouts, there.slow_peers_closed), (0, 1, 0, 0));
        cut([client, server]);
    });
}

#[test]
fn large_replies_that_queued_behind_a_suspended_handler_all_arrive() {
    const ASKS: usize = 64;
    const SIZE: usize = 1 << 20;
    let _alone = alone();
    for distance in [Distance::Peer, Distance::PeerLane] {
        // Together they are above what may wait for a peer that does not read.
        let limits = Config { outbox_bytes: 1 << 20, max_frame: 2 << 20, ..config() };
        bounded(move || {
            at(distance, limits, |scene| {
                let store = scene.place("store", || Store);
                let mut gate = Gate::new();
                let waiting = store.ask(Wait(gate.id, false));
                gate.expect(Event::Entered);
                let asks: Vec<_> = (0..ASKS).map(|number| store.ask(Fetch(SIZE + number))).collect();
                eventually(&scene.answering, "all asks wait", |c| c.inbox_messages == ASKS as u64);
                gate.open();
                within(waiting).unwrap();
                for (number, ask) in asks.into_iter().enumerate() {
                    let size = SIZE + number;
                    assert!(within(ask).unwrap() == payload(size as u64, size), "reply {number} has other bytes");
                }
                let end = eventually(&scene.answering, "the end", |c| c.inbox_messages == 0);
                assert_eq!(end.slow_peers_closed, 0);
                assert_eq!(end.requests_passed > 0, distance == Distance::PeerLane);
                assert_eq!(scene.asking.snapshot().total().dialled, 1, "it is the same connection");
            });
        });
    }
}

#[test]
fn a_one_way_message_reaches_the_new_holder_of_a_name_once_the_peer_has_told_that_the_old_one_is_gone() {
    let _alone = alone();
    bounded(|| {
        for distance in [Distance::Peer, Distance::PeerLane] {
            at(distance, config(), |scene| {
                let (tell_old, told_old) = channel();
                let (tell_new, told_new) = channel();
                let probe =
                    seen_from(&scene.asking, &scene.answering.register_on(scene.core, "probe", || Store).unwrap());
                let own = scene.answering.register_on(scene.core, "notes", move || Notes(tell_old)).unwrap();
                let notes = seen_from(&scene.asking, &own);
                // The asker learns the id.
                notes.ask_blocking(Fetch(0)).unwrap();
                notes.send(Note(1)).unwrap();
                assert_eq!(told_old.recv_timeout(LIMIT), Ok(1));
                let before = eventually(&scene.answering, "the first holder", |_| true);
                assert!(scene.answering.stop(&own));
                eventually(&scene.answering, "its end", |c| c.endpoints == before.endpoints - 1);
                let other_core = 1 - scene.core;
                scene.answering.register_on(other_core, "notes", move || Notes(tell_new)).unwrap();
                // It still goes to the old id.
                notes.send(Note(2)).unwrap();
                eventually(&scene.answering, "the note to nobody", |c| {
                    c.unknown_endpoint == before.unknown_endpoint + 1
                });
                // What tells so is on its way, and comes before the answer to what is asked now.
                turn(&scene.answering);
                turn(&scene.answering);
                probe.ask_blocking(Fetch(1)).unwrap();
                for number in 3..6 {
                    notes.send(Note(number)).unwrap();
                    assert_eq!(told_new.recv_timeout(LIMIT), Ok(number));
                }
                let end = eventually(&scene.answering, "no other", |_| true);
                assert_eq!(end.unknown_endpoint, before.unknown_endpoint + 1, "one note was lost, and counted");
                assert!(told_old.try_recv().is_err() && told_new.try_recv().is_err());
            });
        }
    });
}

#[test]
fn a_message_for_a_name_that_nobody_has_is_counted_at_the_receiver() {
    let _alone = alone();
    bounded(|| {
        let server = serve("127.0.0.1:0", config());
        let client = dialler(config());
        let nobody = refer(&client, "nobody", &server);
        let ask = nobody.ask_blocking(Fetch(1));
        assert!(matches!(ask, Err(AskError::NoEndpoint { .. })), "{ask:?}");
        nobody.send(Note(1)).unwrap();
        echo_blocking(&refer(&client, "echo", &server), 1, 10).unwrap();
        let end = eventually(&server, "what has arrived", |c| c.handled == 1);
        assert_eq!(end.unknown_endpoint, 2);
        cut([client, server]);
    });
}

/// Whether the endpoint's core is blocked, or only its handler is suspended.
fn flood(blocked: bool) {
    const ASKS: usize = 400;
    const SIZE: usize = 64 << 10;
    const HELD: usize = 4 * SIZE;
    let limits = Config { inbox_bytes: HELD, outbox_bytes: 2 << 20, ..config() };
    at(Distance::PeerLane, limits, |scene| {
        let store = scene.place("store", || Store);
        store.ask_blocking(Fetch(1)).unwrap();
        // On the core that owns the connection: it is served throughout.
        let near = scene.answering.register_on(1 - scene.core, "near", || Echoing).unwrap();
        let near = seen_from(&scene.asking, &near);
        let mut gate = Gate::new();
        let waiting = store.ask(Wait(gate.id, blocked));
        gate.expect(Event::Entered);
        let load = Bytes::from(vec![7; SIZE]);
        let watch = Watch::begin();
        let mut asks = Vec::new();
        for round in 0..ASKS / 10 {
            asks.extend((0..10).map(|_| store.ask(Load(load.clone()))));
            // After its answer, all that came before has been taken in or refused, so our outbox never fills up.
            echo_blocking(&near, round as u64, 10).unwrap();
        }
        let grown = watch.growth();
        assert!(grown < ASKS * SIZE / 3, "{grown} bytes were taken for {} that came", ASKS * SIZE);
        gate.open();
        within(waiting).unwrap();
        let mut taken = 0;
        for ask in asks {
            match within(ask) {
                Ok(size) => {
                    assert_eq!(size, SIZE);
                    taken += 1;
                }
                Err(AskError::Overloaded { queue, .. }) => {
                    // A lane to a core that runs is emptied into the inbox, now and then a moment too late.
                    let inbox = queue.contains("the inbox of store") && !blocked;
                    assert!(inbox || queue.contains("the lane from core"), "{queue}");
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert!((1..=HELD / SIZE).contains(&taken), "{taken} were taken");
        let end = eventually(&scene.answering, "all is handled", |c| c.inbox_messages == 0);
        assert_eq!(end.overloaded(), (ASKS - taken) as u64, "each refusal is counted");
        // There is room again, for one that is larger than all that may wait too.
        assert_eq!(store.ask_blocking(Load(Bytes::from(vec![7; 2 * HELD]))).unwrap(), 2 * HELD);
        assert_eq!(store.ask_blocking(Load(load)).unwrap(), SIZE);
    });
}

#[test]
fn a_flood_of_large_requests_for_a_suspended_handler_on_another_core_is_refused() {
    let _alone = alone();
    bounded(|| flood(false));
}

#[test]
fn a_flood_of_large_requests_for_another_core_that_is_blocked_is_refused() {
    let _alone = alone();
    bounded(|| flood(true));
}

#[test]
fn a_flood_of_large_one_way_messages_for_a_suspended_handler_is_dropped_and_counted() {
    const SENDS: usize = 400;
    const SIZE: usize = 64 << 10;
    const HELD: usize = 4 * SIZE;
    let _alone = alone();
    bounded(|| {
        for distance in [Distance::Peer, Distance::PeerLane] {
            at(distance, Config { inbox_bytes: HELD, outbox_bytes: 2 << 20, ..config() }, |scene| {
                let store = scene.place("store", || Store);
                let near = scene.answering.register("near", || Echoing).unwrap();
                let near = seen_from(&scene.asking, &near);
                let mut gate = Gate::new();
                let waiting = store.ask(Wait(gate.id, false));
                gate.expect(Event::Entered);
                let load = Bytes::from(vec![7; SIZE]);
                let watch = Watch::begin();
                for round in 0..SENDS / 10 {
                    (0..10).for_each(|_| store.send(Dump(load.clone())).unwrap());
                    echo_blocking(&near, round as u64, 10).unwrap();
                }
                let refused = |c: &CoreSnapshot| c.overloaded_inbox + c.overloaded_lane;
                let all = |c: &CoreSnapshot| refused(c) + c.inbox_messages == SENDS as u64;
                let waits = eventually(&scene.answering, "all have arrived", all).inbox_messages;
                assert!((1..=(HELD / SIZE) as u64).contains(&waits), "{waits} wait");
                let grown = watch.growth();
                assert!(grown < SENDS * SIZE / 3, "{grown} bytes were taken for {} that came", SENDS * SIZE);
                let before = scene.answering.snapshot().total().handled;
                gate.open();
                within(waiting).unwrap();
                let end = eventually(&scene.answering, "all is handled", |c| c.inbox_messages == 0);
                assert_eq!((end.handled - before, refused(&end)), (waits, SENDS as u64 - waits));
            });
        }
    });
}

#[test]
fn a_lane_that_is_full_refuses_and_the_refused_message_may_send_when_it_is_dropped() {
    /// Sends one more when it is dropped.
    #[derive(Serialize, Deserialize)]
    struct Insistent(Option<ringpost::EndpointRef>);
    message!(Insistent as "backlog.Insistent");

    impl Drop for Insistent {
        fn drop(&mut self) {
            if let Some(to) = self.0.take() {
                // It is refused as well.
                let _ = to.send(Note(0));
            }
        }
    }

    let _alone = alone();
    bounded(|| {
        at(Distance::Lane, Config { lane_messages: 1, lane_overflow: 1, ..config() }, |scene| {
            let store = scene.place("store", || Store);
            let mut gate = Gate::new();
            let waiting = store.ask(Wait(gate.id, true));
            gate.expect(Event::Entered);
            let there = store.clone();
            let refused = scene.run(move || async move {
                let outcomes = (0..20).map(|_| there.send(Insistent(Some(there.clone()))));
                outcomes.filter(|sent| matches!(sent, Err(SendError::Overloaded { .. }))).count()
            });
            assert!(refused >= 17, "{refused} of 20 were refused");
            gate.open();
            within(waiting).unwrap();
            assert_eq!(store.ask_blocking(Fetch(3)).unwrap().len(), 3);
        });
    });
}

#[test]
fn an_env_ends_although_a_lane_was_full_when_its_shutdown_began() {
    let _alone = alone();
    bounded(|| {
        let limits = Config { lane_messages: 1, lane_overflow: 8, drain: 2 * LIMIT, ..config() };
        let env = builder("both", 2, limits).start().unwrap();
        let (tell, told) = channel();
        let (tell_near, told_near) = channel();
        let notes = env.register_on(1, "notes", move || Notes(tell)).unwrap();
        let store = env.register_on(1, "store", || Store).unwrap();
        env.register_on(0, "near", move || Notes(tell_near)).unwrap();
        let mut gate = Gate::new();
        let waiting = store.ask(Wait(gate.id, true));
        gate.expect(Event::Entered);
        let sent = env.spawn_on(0, move || async move { (0..3).all(|number| notes.send(Note(number)).is_ok()) });
        assert_eq!(sent.unwrap().join(), Ok(true));
        env.shutdown(2 * LIMIT);
        // The sending core has begun to end: its endpoint is gone.
        assert_eq!(told_near.recv_timeout(LIMIT), Err(RecvTimeoutError::Disconnected));
        gate.open();
        assert!(env.await_termination_within(LIMIT / 2).unwrap(), "{env:?} does not end");
        drop(waiting);
        // What was under way may have come too late, but in order.
        let arrived: Vec<_> = told.try_iter().collect();
        assert!(arrived.is_sorted(), "{arrived:?}");
    });
}

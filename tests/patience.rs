//! Asks and sends that wait for room: what was refused is tried again until there is room, and handled once.

mod common;

use std::future::Future;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use common::gate::{Event, Gate, pass};
use common::scene::{Distance, Scene, at, at_every_distance};
use common::{LIMIT, bounded, builder, config, eventually};
use futures::executor::block_on;
use futures::future::join_all;
use ringpost::{
    AskError, Asking, CallContext, Config, CoreSnapshot, Endpoint, EndpointRef, Handle, HandleSync, HandlerError,
    Handlers, SendError, message, protocol,
};
use serde::{Deserialize, Serialize};

/// Waits at a gate: suspended, or with the whole core if that is set.
#[derive(Serialize, Deserialize, Clone)]
struct Wait(u64, bool);
message!(Wait as "patience.Wait" => ());

/// How many of them were handled before.
#[derive(Serialize, Deserialize, Clone)]
struct Count;
message!(Count as "patience.Count" => u32);

/// One-way.
#[derive(Serialize, Deserialize, Clone)]
struct Note(u32);
message!(Note as "patience.Note");

struct WorkerApi;
protocol!(WorkerApi: Count, Note);

struct Worker {
    counted: u32,
    notes: Sender<u32>,
}

impl Endpoint for Worker {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask::<Wait>().ask_sync::<Count>().send_sync::<Note>();
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

impl HandleSync<Count> for Worker {
    fn handle(&mut self, _: Count, _: &mut CallContext) -> Result<u32, HandlerError> {
        self.counted += 1;
        Ok(self.counted - 1)
    }
}

impl HandleSync<Note> for Worker {
    fn handle(&mut self, note: Note, _: &mut CallContext) -> Result<(), HandlerError> {
        // The test may have ended.
        let _ = self.notes.send(note.0);
        Ok(())
    }
}

fn worker(scene: &Scene) -> EndpointRef {
    let (notes, _) = channel();
    scene.place("worker", || Worker { counted: 0, notes })
}

/// A worker with one ask in its handler, and one more in its inbox, which has room for no other.
fn full(scene: &Scene) -> (EndpointRef, [Gate; 2], [Asking<()>; 2]) {
    let worker = worker(scene);
    let gates = [Gate::new(), Gate::new()];
    let first = worker.ask_within(Wait(gates[0].id, false), LIMIT);
    gates[0].expect(Event::Entered);
    let second = worker.ask_within(Wait(gates[1].id, false), LIMIT);
    eventually(&scene.answering, "it waits", |now| now.inbox_messages == 1);
    (worker, gates, [first, second])
}

fn open(gates: [Gate; 2], asks: [Asking<()>; 2]) {
    for (mut gate, ask) in gates.into_iter().zip(asks) {
        gate.open();
        block_on(ask).unwrap();
    }
}

const ROOM_FOR_ONE: fn() -> Config = || Config { inbox_messages: 1, ..config() };

#[test]
fn a_patient_ask_waits_for_room_in_the_inbox_wherever_it_is() {
    bounded(|| {
        at_every_distance(ROOM_FOR_ONE(), |scene| {
            let (worker, gates, asks) = full(scene);
            let patient = worker.patient();
            let there = patient.clone();
            let on_core = scene.asking.spawn_on(0, move || async move { there.ask(Count).await }).unwrap();
            let awaited = patient.ask(Count);
            let blocking = thread::spawn(move || patient.ask_blocking(Count));
            // Each was refused more than once, and two of them have a place at a core.
            let refused = |now: &CoreSnapshot| now.overloaded_inbox >= 9;
            let awaiting = thread::spawn(move || block_on(awaited));
            eventually(&scene.answering, "they are refused", refused);
            eventually(&scene.asking, "they wait", |now| now.waiting == 2);
            open(gates, asks);
            let mut counts = [on_core.join().unwrap(), awaiting.join().unwrap(), blocking.join().unwrap()];
            counts.sort_by_key(|count| *count.as_ref().unwrap());
            assert_eq!(counts, [Ok(0), Ok(1), Ok(2)], "each was handled once");
            let total = eventually(&scene.asking, "nobody waits", |now| (now.waiting, now.pending_asks) == (0, 0));
            assert_eq!(total.timeouts, 0);
        });
    });
}

/// What counts the refusals of a queue, at which distances it is on the way, and its smallest size.
type Queue = (fn(&CoreSnapshot) -> u64, &'static [Distance], Config);

#[test]
fn many_patient_asks_all_come_through_the_smallest_queues_once_each() {
    const COUNT: usize = 24;
    // From a peer or another core, an idle endpoint handles messages where they arrive: no inbox is needed.
    let queues: [Queue; 4] = [
        (|now| now.overloaded_inbox, &[Distance::Local], ROOM_FOR_ONE()),
        (|now| now.overloaded_pending, &[Distance::Local, Distance::PeerLane], Config { pending_asks: 1, ..config() }),
        (
            |now| now.overloaded_lane,
            &[Distance::Lane, Distance::PeerLane],
            Config { lane_messages: 1, lane_overflow: 0, ..config() },
        ),
        (|now| now.overloaded_outbox, &[Distance::Peer, Distance::PeerLane], Config { outbox_bytes: 40, ..config() }),
    ];
    bounded(move || {
        for (refused, distances, config) in queues {
            for distance in distances {
                at(*distance, config.clone(), |scene| {
                    let patient = worker(scene).patient();
                    let there = patient.clone();
                    let from_core = scene.run(move || join_all((0..COUNT).map(move |_| there.ask(Count))));
                    let from_here = block_on(join_all((0..COUNT).map(|_| patient.ask(Count))));
                    let mut counts: Vec<_> = from_core.into_iter().chain(from_here).map(Result::unwrap).collect();
                    counts.sort_unstable();
                    assert!(counts.into_iter().eq(0..2 * COUNT as u32), "each was handled once");
                    let mut total = eventually(&scene.asking, "nobody waits", |now| now.waiting == 0);
                    if distance.is_remote() {
                        total += eventually(&scene.answering, "the count", |_| true);
                    }
                    assert!(refused(&total) > 0, "nothing was refused: the test is too easy");
                });
            }
        }
    });
}

#[test]
fn a_patient_ask_from_a_thread_waits_for_room_in_the_injector() {
    bounded(|| {
        for distance in [Distance::Local, Distance::Peer] {
            at(distance, Config { injected: 2, ..config() }, |scene| {
                let worker = worker(scene);
                let gate = Gate::new();
                let id = gate.id;
                let blocked = scene.asking.spawn_on(0, move || async move { block_on(pass(id)) }).unwrap();
                gate.expect(Event::Entered);
                let mut gate = gate;
                let taken = [worker.ask(Count), worker.ask(Count)];
                let (patient, blocking) = (worker.patient(), worker.patient());
                let awaiting = thread::spawn(move || block_on(patient.ask(Count)));
                let blocking = thread::spawn(move || blocking.ask_blocking(Count));
                let end = Instant::now() + LIMIT;
                while scene.asking.snapshot().total().overloaded_injector < 5 {
                    assert!(Instant::now() < end, "they are not refused");
                    thread::yield_now();
                }
                assert_eq!(scene.asking.snapshot().total().waiting, 1, "a thread that blocks needs no place");
                gate.open();
                blocked.join().unwrap();
                assert_eq!(taken.map(|ask| block_on(ask).unwrap()), [0, 1]);
                let mut counts = [awaiting, blocking].map(|thread| thread.join().unwrap().unwrap());
                counts.sort_unstable();
                assert_eq!(counts, [2, 3]);
                // The last jobs that waited have run by then.
                while scene.asking.snapshot().total().waiting > 0 {
                    assert!(Instant::now() < end, "somebody still waits");
                    thread::yield_now();
                }
            });
        }
    });
}

#[test]
fn a_patient_ask_that_finds_no_room_in_time_names_the_queue_and_who_set_the_time() {
    const SHORT: Duration = Duration::from_millis(80);
    bounded(|| {
        at_every_distance(Config { ask_timeout: SHORT, ..ROOM_FOR_ONE() }, |scene| {
            let (worker, gates, asks) = full(scene);
            for own in [false, true] {
                let limit = if own { SHORT / 2 } else { SHORT };
                let (patient, there) = (worker.patient(), worker.patient());
                let began = Instant::now();
                let on_core = scene.run(move || async move {
                    if own { there.ask_within(Count, limit).await } else { there.ask(Count).await }
                });
                assert!(began.elapsed() >= limit, "it ended after {:?}", began.elapsed());
                let outcomes = match own {
                    true => [block_on(patient.ask_within(Count, limit)), patient.ask_blocking_within(Count, limit)],
                    false => [block_on(patient.ask(Count)), patient.ask_blocking(Count)],
                };
                for outcome in [on_core].into_iter().chain(outcomes) {
                    let error = outcome.unwrap_err();
                    let text = error.to_string();
                    let AskError::Timeout { after, setting, .. } = error else { panic!("{text}") };
                    assert_eq!(after, limit);
                    assert_eq!(setting.contains("Config::ask_timeout"), !own, "{text}");
                    assert!(text.contains("no room in the inbox of worker (Config::inbox_messages)"), "{text}");
                }
            }
            open(gates, asks);
            eventually(&scene.asking, "nobody waits", |now| (now.waiting, now.pending_asks) == (0, 0));
            assert_eq!(worker.ask_blocking_within(Count, LIMIT).unwrap(), 0, "none of them was handled");
        });
    });
}

#[test]
fn a_typed_ref_waits_for_room_as_the_untyped_does() {
    bounded(|| {
        at(Distance::PeerLane, ROOM_FOR_ONE(), |scene| {
            let (worker, gates, asks) = full(scene);
            let typed = worker.typed::<WorkerApi>().patient();
            let there = typed.clone();
            let on_core = scene.asking.spawn_on(0, move || async move { there.ask(Count).await }).unwrap();
            let late = typed.ask_blocking_within(Count, Duration::from_millis(30)).unwrap_err();
            assert!(late.to_string().contains("no room in the inbox of worker"), "{late}");
            open(gates, asks);
            assert_eq!(on_core.join().unwrap(), Ok(0));
            assert_eq!(typed.ask_blocking(Count), Ok(1));
            block_on(typed.send(Note(1))).unwrap();
        });
    });
}

#[test]
fn a_patient_ask_that_is_dropped_is_not_made_any_more() {
    bounded(|| {
        at_every_distance(ROOM_FOR_ONE(), |scene| {
            let (worker, gates, asks) = full(scene);
            let (dropped, told) = futures::channel::oneshot::channel::<()>();
            let there = worker.patient();
            let task = scene.asking.spawn_on(0, move || async move {
                let waiting = Box::pin(there.ask(Count));
                futures::future::select(waiting, told).await;
            });
            eventually(&scene.asking, "it waits", |now| now.waiting == 1);
            dropped.send(()).unwrap();
            task.unwrap().join().unwrap();
            eventually(&scene.asking, "its place is free", |now| now.waiting == 0);
            open(gates, asks);
            eventually(&scene.asking, "no ask is left", |now| now.pending_asks == 0);
            assert_eq!(worker.ask_blocking(Count).unwrap(), 0, "it was not handled");
        });
    });
}

#[test]
fn those_who_wait_for_room_are_bounded_too() {
    bounded(|| {
        at_every_distance(Config { waiting: 1, ..ROOM_FOR_ONE() }, |scene| {
            let (worker, gates, asks) = full(scene);
            let there = worker.patient();
            let first = scene.asking.spawn_on(0, move || async move { there.ask(Count).await }).unwrap();
            eventually(&scene.asking, "it waits", |now| now.waiting == 1);
            let there = worker.patient();
            let refused = scene.run(move || async move { there.ask(Count).await });
            let Err(AskError::Overloaded { queue, .. }) = &refused else { panic!("{refused:?}") };
            assert!(queue.contains("at core 0 (Config::waiting)"), "{queue}");
            eventually(&scene.asking, "it is counted", |now| now.overloaded_waiting == 1);
            open(gates, asks);
            assert_eq!(first.join().unwrap(), Ok(0));
        });
    });
}

#[test]
fn a_patient_ask_ends_with_its_env() {
    bounded(|| {
        let env = builder("client", 1, ROOM_FOR_ONE()).start().unwrap();
        let (notes, _) = channel();
        let worker = env.register("worker", || Worker { counted: 0, notes }).unwrap();
        let gates = [Gate::new(), Gate::new()];
        let running = worker.ask(Wait(gates[0].id, false));
        gates[0].expect(Event::Entered);
        let queued = worker.ask(Wait(gates[1].id, false));
        let patient = worker.patient();
        let waiting = thread::spawn(move || block_on(patient.ask(Count)));
        eventually(&env, "it waits", |now| now.waiting == 1);
        env.shutdown(Duration::ZERO);
        let outcome = waiting.join().unwrap();
        assert!(matches!(outcome, Err(AskError::Stopped { .. })), "{outcome:?}");
        assert!(env.await_termination_within(LIMIT).unwrap());
        drop((running, queued));
    });
}

/// Sends notes that find no room until the gate is open, then all of them.
fn notes_come_through<Fut>(distance: Distance, limits: Config, send: impl Fn(&Scene, EndpointRef, Vec<Note>) -> Fut)
where
    Fut: Future<Output = Vec<Result<(), SendError>>>,
{
    const COUNT: u32 = 8;
    at(distance, limits, |scene| {
        let (tell, told) = channel();
        let worker = scene.place("worker", || Worker { counted: 0, notes: tell });
        let mut gate = Gate::new();
        let running = worker.ask(Wait(gate.id, distance != Distance::Local));
        gate.expect(Event::Entered);
        let sending = send(scene, worker.clone(), (0..COUNT).map(Note).collect());
        gate.open();
        for sent in block_on(sending) {
            sent.unwrap();
        }
        block_on(running).unwrap();
        let mut arrived: Vec<_> = (0..COUNT).map(|_| told.recv_timeout(LIMIT).unwrap()).collect();
        arrived.sort_unstable();
        assert!(arrived.into_iter().eq(0..COUNT), "each arrived once");
        let total = eventually(&scene.asking, "nobody waits", |now| now.waiting == 0);
        assert!(total.overloaded() > 0, "nothing was refused: the test is too easy");
        assert_eq!((total.sends_lost, told.try_recv().is_err()), (0, true));
    });
}

#[test]
fn patient_sends_wait_for_room_in_this_env_and_arrive_once_each() {
    let full = |now: &CoreSnapshot| now.overloaded() > 0;
    let from_core = move |scene: &Scene, to: EndpointRef, notes: Vec<Note>| {
        let to = to.patient();
        let send = move || join_all(notes.into_iter().map(move |note| to.send(note)));
        let sending = scene.asking.spawn_on(0, send).unwrap();
        let end = Instant::now() + LIMIT;
        while !full(&scene.asking.snapshot().total()) {
            assert!(Instant::now() < end, "nothing is refused");
            thread::yield_now();
        }
        async move { sending.await.unwrap() }
    };
    let from_thread = move |scene: &Scene, to: EndpointRef, notes: Vec<Note>| {
        let to = to.patient();
        let sending = thread::spawn(move || block_on(join_all(notes.into_iter().map(|note| to.send(note)))));
        eventually(&scene.asking, "they are refused", full);
        async move { sending.join().unwrap() }
    };
    let blocking = move |scene: &Scene, to: EndpointRef, notes: Vec<Note>| {
        let to = to.patient();
        let sending = thread::spawn(move || notes.into_iter().map(|note| to.send_blocking(note)).collect::<Vec<_>>());
        eventually(&scene.asking, "they are refused", full);
        async move { sending.join().unwrap() }
    };
    bounded(move || {
        notes_come_through(Distance::Local, ROOM_FOR_ONE(), from_core);
        notes_come_through(Distance::Local, ROOM_FOR_ONE(), from_thread);
        notes_come_through(Distance::Local, ROOM_FOR_ONE(), blocking);
        notes_come_through(Distance::Lane, Config { lane_messages: 1, lane_overflow: 0, ..config() }, from_core);
    });
}

#[test]
fn a_patient_send_that_finds_no_room_in_time_fails_with_the_refusal() {
    const SHORT: Duration = Duration::from_millis(50);
    bounded(|| {
        at(Distance::Local, ROOM_FOR_ONE(), |scene| {
            let (worker, gates, asks) = full(scene);
            let (patient, there) = (worker.patient(), worker.patient());
            let on_core = scene.run(move || async move { there.send_within(Note(1), SHORT).await });
            let awaited = block_on(patient.send_within(Note(2), SHORT));
            let blocked = patient.send_blocking_within(Note(3), SHORT);
            let refused = scene.run(move || std::future::ready(patient.send_blocking(Note(4))));
            assert_eq!(refused, Err(SendError::BlockingOnCore));
            for outcome in [on_core, awaited, blocked] {
                let Err(SendError::Overloaded { queue, .. }) = &outcome else { panic!("{outcome:?}") };
                assert!(queue.contains("the inbox of worker (Config::inbox_messages)"), "{queue}");
            }
            open(gates, asks);
        });
    });
}

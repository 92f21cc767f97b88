//! Every queue is bounded: what does not fit is refused at once, by an error that names the queue and its setting, and
//! counted; and there is room again. The outbox is tested in `pressure.rs`, connections that come in `connections.rs`.

mod common;

use std::fmt::Debug;
use std::time::Duration;

use common::echo::{echo_blocking, refer, serve, until};
use common::gate::{Event, Gate, pass};
use common::scene::{Distance, Scene, at, at_every_distance};
use common::{bounded, builder, client, config, end, eventually, kind};
use futures::executor::block_on;
use futures::future::join_all;
use ringpost::{
    Ask, AskError, Asking, CallContext, Config, CoreSnapshot, Endpoint, EndpointRef, Handle, HandleSync, HandlerError,
    Handlers, JoinError, RpcEnv, SendError, SpawnError, message,
};
use serde::{Deserialize, Serialize};

/// Waits at a gate: suspended, or with the whole core if that is set.
#[derive(Serialize, Deserialize, Clone)]
struct Wait(u64, bool);
message!(Wait as "bounds.Wait" => ());

/// How many messages were handled before.
#[derive(Serialize, Deserialize, Clone)]
struct Count;
message!(Count as "bounds.Count" => u32);

/// 1,024 bytes as a value, 1,280 when encoded; answered like [`Count`].
#[derive(Serialize, Deserialize, Clone)]
struct Large([[u64; 32]; 4]);
message!(Large as "bounds.Large" => u32);

const LARGE: Large = Large([[u64::MAX; 32]; 4]);
/// Takes two of them.
const TWO_LARGE: usize = 3000;

/// One-way.
#[derive(Serialize, Deserialize, Clone)]
struct Note;
message!(Note as "bounds.Note");

/// One-way, and large.
#[derive(Serialize, Deserialize, Clone)]
struct LargeNote(Large);
message!(LargeNote as "bounds.LargeNote");

#[derive(Default)]
struct Worker {
    handled: u32,
}

impl Endpoint for Worker {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask::<Wait>().ask_sync::<Count>().ask_sync::<Large>().send_sync::<Note>().send_sync::<LargeNote>();
    }
}

impl Handle<Wait> for Worker {
    async fn handle(&mut self, wait: Wait, _: &mut CallContext) -> Result<(), HandlerError> {
        self.handled += 1;
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
        self.handled += 1;
        Ok(self.handled - 1)
    }
}

impl HandleSync<Large> for Worker {
    fn handle(&mut self, _: Large, context: &mut CallContext) -> Result<u32, HandlerError> {
        HandleSync::<Count>::handle(self, Count, context)
    }
}

impl HandleSync<Note> for Worker {
    fn handle(&mut self, _: Note, _: &mut CallContext) -> Result<(), HandlerError> {
        self.handled += 1;
        Ok(())
    }
}

impl HandleSync<LargeNote> for Worker {
    fn handle(&mut self, _: LargeNote, _: &mut CallContext) -> Result<(), HandlerError> {
        self.handled += 1;
        Ok(())
    }
}

/// An endpoint whose handler waits at the gate.
fn waiting(scene: &Scene, blocked: bool) -> (EndpointRef, Gate, Asking<()>) {
    let worker = scene.place("worker", Worker::default);
    // The asker learns where it is.
    assert_eq!(worker.ask_blocking(Count).unwrap(), 0);
    let gate = Gate::new();
    let running = worker.ask(Wait(gate.id, blocked));
    gate.expect(Event::Entered);
    (worker, gate, running)
}

/// Makes asks on the asking core, all in one turn.
fn asks<M: Ask + Clone>(scene: &Scene, to: &EndpointRef, message: &M, count: usize) -> Vec<Asking<M::Reply>> {
    let (to, message) = (to.clone(), message.clone());
    scene.run(move || async move { (0..count).map(|_| to.ask(message.clone())).collect() })
}

/// The error says which queue is full, and which setting bounds it.
#[track_caller]
fn overloaded<T: Debug>(outcome: Result<T, AskError>, queue: &str, setting: &str) {
    let error = outcome.unwrap_err();
    assert_eq!(kind(&error), "Overloaded", "{error}");
    let text = error.to_string();
    assert!(text.contains(queue) && text.contains(setting), "{text}");
}

#[test]
fn an_idle_endpoint_needs_no_inbox_for_what_another_core_or_a_peer_sends() {
    bounded(|| {
        for distance in [Distance::Lane, Distance::Peer, Distance::PeerLane] {
            at(distance, Config { inbox_messages: 1, ..config() }, |scene| {
                let worker = scene.place("worker", Worker::default);
                let counts = scene.run(move || join_all((0..24).map(move |_| worker.ask(Count))));
                assert!(
                    counts.into_iter().map(Result::unwrap).eq(0..24),
                    "in order, and none refused, at {distance:?}"
                );
            });
        }
    });
}

#[test]
fn a_full_inbox_refuses_at_once_and_names_itself() {
    bounded(|| {
        at_every_distance(Config { inbox_messages: 1, ..config() }, |scene| {
            let (worker, mut first, running) = waiting(scene, false);
            let mut second = Gate::new();
            let queued = worker.ask(Wait(second.id, false));
            // From this same thread, so it comes after the second one.
            overloaded(worker.ask_blocking(Count), "the inbox of worker", "Config::inbox_messages");
            for outcome in scene.outcomes(&worker, Count) {
                overloaded(outcome, "the inbox of worker", "Config::inbox_messages");
            }
            assert!(second.is_untouched());
            first.open();
            block_on(running).unwrap();
            second.open();
            block_on(queued).unwrap();
            assert_eq!(worker.ask_blocking(Count).unwrap(), 3, "there is room again");
            let total = eventually(&scene.answering, "the count", |_| true);
            assert_eq!((total.overloaded_inbox, total.overloaded()), (4, 4));
        });
    });
}

#[test]
fn the_bytes_of_an_inbox_are_bounded_values_included() {
    bounded(|| {
        at_every_distance(Config { inbox_bytes: TWO_LARGE, ..config() }, |scene| {
            let (worker, mut gate, running) = waiting(scene, false);
            let queued: Vec<_> = (1..=2)
                .map(|count| {
                    let ask = worker.ask(LARGE);
                    eventually(&scene.answering, "it waits", |now| now.inbox_messages == count);
                    ask
                })
                .collect();
            overloaded(worker.ask_blocking(LARGE), "the inbox of worker", "Config::inbox_bytes");
            // A small one fits beside them.
            let small = worker.ask(Count);
            eventually(&scene.answering, "it waits", |now| now.inbox_messages == 3);
            gate.open();
            block_on(running).unwrap();
            for (number, ask) in (2..).zip(queued) {
                assert_eq!(block_on(ask).unwrap(), number);
            }
            assert_eq!(block_on(small).unwrap(), 4);
            assert_eq!(worker.ask_blocking(LARGE).unwrap(), 5, "there is room again");
            assert_eq!(eventually(&scene.answering, "the count", |_| true).overloaded_inbox, 1);
        });
    });
}

#[test]
fn a_send_to_a_full_inbox_of_the_same_core_is_refused() {
    bounded(|| {
        let refused = |sent: Result<(), SendError>, setting: &str| {
            let Err(SendError::Overloaded { queue, .. }) = &sent else { panic!("{sent:?}") };
            assert!(queue.contains("the inbox of worker") && queue.contains(setting), "{queue}");
        };
        at(Distance::Local, Config { inbox_messages: 1, ..config() }, |scene| {
            let worker = scene.place("worker", Worker::default);
            let [first, second] = scene.run(move || async move { [worker.send(Note), worker.send(Note)] });
            first.unwrap();
            refused(second, "Config::inbox_messages");
            eventually(&scene.asking, "the count", |now| now.overloaded_inbox == 1);
        });
        at(Distance::Local, Config { inbox_bytes: TWO_LARGE, ..config() }, |scene| {
            let worker = scene.place("worker", Worker::default);
            let send = move || async move { [(); 3].map(|()| worker.send(LargeNote(LARGE))) };
            let [first, second, third] = scene.run(send);
            first.and(second).unwrap();
            refused(third, "Config::inbox_bytes");
            eventually(&scene.asking, "the count", |now| now.overloaded_inbox == 1);
        });
    });
}

#[test]
fn the_table_of_pending_asks_is_bounded_and_has_room_again() {
    bounded(|| {
        at_every_distance(Config { pending_asks: 2, ..config() }, |scene| {
            let worker = scene.place("worker", Worker::default);
            let gates = [Gate::new(), Gate::new()];
            let (there, ids) = (worker.clone(), [gates[0].id, gates[1].id]);
            let (asks, refused) = scene.run(move || async move {
                let asks = ids.map(|id| there.ask(Wait(id, false)));
                (asks, there.ask(Count).await)
            });
            overloaded(refused, "the table of pending asks of core 0", "Config::pending_asks");
            drop(asks);
            let there = worker.clone();
            // In the turn in which the asks are given up, or after it: never before.
            assert!(scene.run(move || async move { there.ask(Count).await }).unwrap() <= 2);
            let total = eventually(&scene.asking, "the end of all asks", |now| now.pending_asks == 0);
            assert_eq!((total.overloaded_pending, total.overloaded()), (1, 1));
        });
    });
}

/// Fills a lane to a core that is blocked, and sees one more ask refused.
fn full_lane<M: Ask<Reply = u32> + Clone>(limits: Config, message: M, room: usize, setting: &str) {
    for distance in [Distance::Lane, Distance::PeerLane] {
        at(distance, limits.clone(), |scene| {
            let (worker, mut gate, running) = waiting(scene, true);
            let mut taken = asks(scene, &worker, &message, room + 1);
            overloaded(block_on(taken.pop().unwrap()), "the lane from core", setting);
            gate.open();
            block_on(running).unwrap();
            for (number, ask) in taken.into_iter().enumerate() {
                assert_eq!(block_on(ask).unwrap(), number as u32 + 2);
            }
            let all = asks(scene, &worker, &message, room).into_iter().map(|ask| block_on(ask).unwrap());
            assert_eq!(all.count(), room, "there is room again");
            let total = eventually(&scene.answering, "the count", |_| true);
            assert_eq!((total.overloaded_lane, total.overloaded()), (1, 1));
        });
    }
}

#[test]
fn a_full_lane_refuses_at_once_and_names_itself() {
    bounded(|| full_lane(Config { lane_messages: 2, lane_overflow: 2, ..config() }, Count, 4, "Config::lane_overflow"));
}

#[test]
fn the_bytes_of_a_lane_are_bounded_values_included() {
    bounded(|| full_lane(Config { inbox_bytes: TWO_LARGE, ..config() }, LARGE, 2, "Config::inbox_bytes"));
}

#[test]
fn a_cancellation_that_finds_its_lane_full_is_counted_and_its_work_is_done_in_vain() {
    bounded(|| {
        let limits = Config { lane_messages: 1, lane_overflow: 0, ..config() };
        for distance in [Distance::Lane, Distance::PeerLane] {
            at(distance, limits.clone(), |scene| {
                let (worker, mut gate, running) = waiting(scene, true);
                let unwanted = asks(scene, &worker, &Count, 1);
                // One core is blocked, and takes no turn. At a peer the first two have crossed the lane too.
                let in_lane = |now: CoreSnapshot| now.asks_lane == 1 || now.requests_passed == 3;
                until("it is in the lane", || in_lane(scene.answering.snapshot().total()));
                drop(unwanted);
                until("it is counted", || scene.answering.snapshot().total().cancels_lost == 1);
                gate.open();
                block_on(running).unwrap();
                // The lane has room a little later.
                let next = worker.patient();
                let handled = scene.run(move || async move { next.ask(Count).await });
                assert_eq!(handled, Ok(3), "nobody could tell that it was not wanted");
            });
        }
    });
}

/// Fills the injector of a core that is blocked, and sees one more ask and one more send refused.
fn full_injector(limits: &Config, fill: impl Fn(&EndpointRef) -> bool, setting: &str) {
    let server = serve("127.0.0.1:0", limits.clone());
    server.register("worker", Worker::default).unwrap();
    let near = builder("near", 1, limits.clone()).start().unwrap();
    let here = near.register("worker", Worker::default).unwrap();
    let far = refer(&near, "worker", &server);
    for (round, worker) in (1..).zip([here, far]) {
        assert_eq!(worker.ask_blocking(Count).unwrap(), 0);
        let mut gate = Gate::new();
        let id = gate.id;
        let blocked = near.spawn_on(0, move || async move { block_on(pass(id)) }).unwrap();
        gate.expect(Event::Entered);
        assert!(fill(&worker), "there is room at first");
        overloaded(worker.ask_blocking(LARGE), "the injector of core 0", setting);
        let sent = worker.send(LargeNote(LARGE)).unwrap_err().to_string();
        assert!(sent.contains("the injector of core 0") && sent.contains(setting), "{sent}");
        let refused = near.snapshot().total().overloaded_injector;
        assert_eq!(refused, 2 * round, "it is seen although the core is blocked");
        gate.open();
        blocked.join().unwrap();
        let sent = |now: CoreSnapshot| now.sends_local + now.sends_peer;
        until("what waited has left", || sent(near.snapshot().total()) == 2 * round);
        assert_eq!(worker.ask_blocking(LARGE).unwrap(), 3, "there is room again");
    }
    assert_eq!(near.snapshot().total().overloaded(), 4);
    end(&near);
    end(&server);
}

#[test]
fn a_full_injector_refuses_at_once_and_names_itself() {
    bounded(|| {
        let fill = |worker: &EndpointRef| (0..2).all(|_| worker.send(Note).is_ok());
        full_injector(&Config { injected: 2, ..config() }, fill, "Config::injected");
    });
}

#[test]
fn the_bytes_of_an_injector_are_bounded_messages_included() {
    bounded(|| {
        let fill = |worker: &EndpointRef| (0..2).all(|_| worker.send(LargeNote(LARGE)).is_ok());
        full_injector(&Config { injected_bytes: TWO_LARGE, ..config() }, fill, "Config::injected_bytes");
    });
}

#[test]
fn tasks_are_bounded_and_there_is_room_again() {
    bounded(|| {
        // The built-in endpoint is one of them.
        let env = builder("client", 1, Config { tasks: 3, ..config() }).start().unwrap();
        let mut gates = [Gate::new(), Gate::new()];
        let run = |id| env.spawn_on(0, move || pass(id)).unwrap();
        let tasks: Vec<_> = gates.iter().map(|gate| run(gate.id)).collect();
        gates.iter().for_each(|gate| gate.expect(Event::Entered));
        let refused = env.spawn_on(0, || async {}).unwrap().join().unwrap_err();
        assert!(matches!(refused, JoinError::NotStarted(SpawnError::Full { core: 0 })), "{refused:?}");
        assert!(refused.to_string().contains("Config::tasks"), "{refused}");
        let refused = env.register("worker", Worker::default).unwrap_err().to_string();
        assert!(refused.contains("Config::tasks"), "{refused}");
        gates.iter_mut().for_each(Gate::open);
        tasks.into_iter().for_each(|task| task.join().unwrap());
        env.register("worker", Worker::default).unwrap();
        assert_eq!(eventually(&env, "the count", |_| true).tasks_refused, 2);
        end(&env);
    });
}

#[test]
fn a_core_opens_no_connection_above_its_limit_until_another_has_closed() {
    bounded(|| {
        let servers = [serve("127.0.0.1:0", config()), serve("127.0.0.1:0", config())];
        let limits = Config { connections: 1, backoff_first: Duration::from_millis(1), ..config() };
        let client = builder("client", 1, limits).start().unwrap();
        let [first, second] = [0, 1].map(|at: usize| refer(&client, "echo", &servers[at]));
        echo_blocking(&first, 1, 10).unwrap();
        overloaded(echo_blocking(&second, 1, 10), "the table of connections of core 0", "Config::connections");
        let total = eventually(&client, "the count", |_| true);
        assert_eq!((total.connections_refused, total.connections, total.pending_asks), (1, 1, 0));
        echo_blocking(&first, 2, 10).unwrap();
        drop(first);
        eventually(&client, "its end", |now| now.connections == 0);
        echo_blocking(&second, 2, 10).unwrap();
        end(&client);
        servers.iter().for_each(end);
    });
}

#[test]
fn a_frame_above_the_receivers_limit_is_not_sent_and_counted() {
    bounded(|| {
        let narrow = || Config { max_frame: 4096, ..config() };
        let counted = |env: &RpcEnv| eventually(env, "the count", |_| true).frames_too_large;
        let server = serve("127.0.0.1:0", narrow());
        let asker = client(1);
        let echo = refer(&asker, "echo", &server);
        // Before and after the receiver has told its limit.
        for count in 1..=2 {
            assert_eq!(kind(&echo_blocking(&echo, 1, 5000).unwrap_err()), "Unsendable");
            assert_eq!(counted(&asker), count);
        }
        let (wide, small) = (serve("127.0.0.1:0", config()), builder("small", 1, narrow()).start().unwrap());
        assert_eq!(kind(&echo_blocking(&refer(&small, "echo", &wide), 1, 5000).unwrap_err()), "BadReply");
        assert_eq!(counted(&wide), 1);
        let none = |total: &CoreSnapshot| (total.protocol_errors, total.pending_asks) == (0, 0);
        [server, asker, wide, small].iter().for_each(|env| {
            eventually(env, "no harm", none);
            end(env);
        });
    });
}

//! Endpoints with a thread of their own, which may block.

mod common;

use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use common::echo::until;
use common::gate::{Event, Gate, pass};
use common::raw::RawPeer;
use common::scene::at_every_distance;
use common::worker::{Block, Note, Number, OwnRef, Panic, Relay, Step, Talk, Worker, isolate, unseen, when_free};
use common::{LIMIT, bounded, builder, client, config, end, seen_from, server, serving, uri};
use futures::executor::block_on;
use ringpost::{
    AskError, CallContext, Config, Endpoint, EndpointContext, Error, HandleSync, HandlerError, Handlers, Peer,
    RegisterError, SendError, SpawnError, message,
};
use serde::{Deserialize, Serialize};

#[test]
fn while_it_blocks_others_are_served_and_asks_to_it_time_out() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let blocking = isolate(scene, "blocking", unseen);
            let other = isolate(scene, "other", unseen);
            let near = scene.place("near", unseen);
            let mut gate = Gate::new();
            let waits = blocking.ask(Block(gate.id));
            gate.expect(Event::Entered);
            for quick in [&near, &other] {
                let outcomes = scene.outcomes(quick, Number(1));
                assert!(outcomes.iter().all(|outcome| *outcome == Ok(1)), "{outcomes:?}");
            }
            let late = blocking.ask_blocking_within(Number(2), Duration::from_millis(20));
            assert!(matches!(late, Err(AskError::Timeout { .. })), "{late:?}");
            let there = blocking.clone();
            let late = scene.run(move || async move { there.ask_within(Number(3), Duration::from_millis(20)).await });
            assert!(matches!(late, Err(AskError::Timeout { .. })), "{late:?}");
            let snapshot = scene.answering.snapshot();
            assert_eq!((snapshot.cores.len(), snapshot.isolated.len()), (scene.answering.core_count(), 2));
            gate.open();
            block_on(waits).unwrap();
            assert_eq!(blocking.ask_blocking(Number(4)), Ok(4));
        });
    });
}

#[test]
fn it_sends_and_asks_to_any_place_and_blocks_for_the_answers() {
    bounded(|| {
        let (env, far) = (server(2), server(1));
        let talker = env.register_isolated("talker", unseen).unwrap();
        let place = |name: &str| {
            let (tell, told) = channel();
            let endpoint = match name {
                "core 0" => env.register_on(0, "zero", || Worker(tell)),
                "core 1" => env.register_on(1, "one", || Worker(tell)),
                "isolated" => env.register_isolated("isolated", || Worker(tell)),
                "peer" => far.register("peer", || Worker(tell)).map(|own| seen_from(&env, &own)),
                _ => far.register_isolated("isolated", || Worker(tell)).map(|own| seen_from(&env, &own)),
            };
            (endpoint.unwrap(), told)
        };
        for name in ["core 0", "core 1", "isolated", "peer", "peer's isolated"] {
            let (to, told) = place(name);
            assert_eq!(talker.ask_blocking(Talk(to)), Ok(90), "{name}");
            assert!(matches!(told.recv_timeout(LIMIT), Ok(Step::Start(_))));
            // In the order in which they were sent, however that was.
            for number in 0..90 {
                assert_eq!(told.recv_timeout(LIMIT), Ok(Step::Number(number)), "{name}");
            }
        }
        end(&env);
        end(&far);
    });
}

#[test]
fn a_peer_that_looks_it_up_reaches_it() {
    bounded(|| {
        let (env, other) = (server(2), client(1));
        let mut worker = env.register_isolated("worker", unseen).unwrap();
        let found = other.lookup_blocking(uri(&env, "worker").as_str()).unwrap();
        assert_eq!(found.ask_blocking(Number(1)), Ok(1));
        // The next holder of the name is on another thread, or on a core.
        for name in ["isolated", "on a core"] {
            assert!(env.stop(&worker));
            worker = match name {
                "isolated" => env.register_isolated("worker", unseen).unwrap(),
                _ => env.register("worker", unseen).unwrap(),
            };
            until(name, || found.ask_blocking(Number(2)) == Ok(2));
        }
        end(&other);
        end(&env);
    });
}

#[test]
fn what_its_handler_asks_for_ends_with_the_call_that_it_handles() {
    bounded(|| {
        let config = Config { ask_timeout: LIMIT * 100, ..config() };
        at_every_distance(config, |scene| {
            let relay = isolate(scene, "relay", unseen);
            let own = scene.answering.register("inner", unseen).unwrap();
            let outer = LIMIT.as_millis() as u64;
            if scene.distance.is_remote() {
                let left = relay.ask_blocking_within(Relay(own.clone()), LIMIT).unwrap();
                assert!(left.iter().all(|left| *left <= outer), "{left:?}");
            }
            let near = scene.answering.endpoint_ref_of("relay", &relay);
            let left = near.ask_blocking_within(Relay(own), LIMIT).unwrap();
            assert!(left.iter().all(|left| *left <= outer), "{left:?}");
        });
    });
}

#[test]
fn messages_to_it_arrive_in_order_and_answers_leave_before_it_blocks() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let (tell, told) = channel();
            let endpoint = isolate(scene, "endpoint", || Worker(tell));
            let mut gate = Gate::new();
            let (there, id) = (endpoint.clone(), gate.id);
            let (answered, blocked) = scene.run(move || async move {
                let first = there.ask(Number(0));
                for number in (1..200).step_by(2) {
                    there.send(Note(number)).unwrap();
                    // Nobody awaits it, and all the same it is handled: it is on its way already.
                    drop(ringpost::spawn(there.ask(Number(number + 1))));
                }
                let last = there.ask(Number(201));
                let blocked = ringpost::spawn(there.ask(Block(id)));
                (first.await.is_ok() && last.await.is_ok(), blocked)
            });
            assert!(answered, "although the next handler blocks");
            gate.expect(Event::Entered);
            gate.open();
            blocked.join().unwrap().unwrap();
            assert!(matches!(told.recv_timeout(LIMIT), Ok(Step::Start(_))));
            for number in 0..202 {
                assert_eq!(told.recv_timeout(LIMIT), Ok(Step::Number(number)));
            }
        });
    });
}

/// Does what blocks, and what a core would refuse.
struct Bold;

#[derive(Serialize, Deserialize, Clone)]
struct Dare(String);
message!(Dare as "isolated.Dare" => ());

impl Endpoint for Bold {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<Dare>();
    }
}

impl HandleSync<Dare> for Bold {
    fn handle(&mut self, dare: Dare, context: &mut CallContext) -> Result<(), HandlerError> {
        let (env, cores) = (context.env(), context.env().core_count());
        assert!(context.core() >= cores, "it is on none of the cores");
        let found = env.lookup_blocking(&dare.0).unwrap();
        assert_eq!(found.ask_blocking(Number(1)).unwrap(), 1);
        assert_eq!(env.spawn_on(0, || async { 2 }).unwrap().join(), Ok(2));
        drop(ringpost::spawn(async {}));
        let per_core = env.register_per_core("per-core", |_| unseen()).unwrap();
        for key in 0..8 {
            assert_eq!(per_core.by_key(key).ask_blocking(Number(4)).unwrap(), 4);
        }
        assert_eq!(per_core.ask_blocking(Number(5)).unwrap(), 5);
        let isolated = env.register_isolated("isolated", unseen).unwrap();
        assert_eq!(isolated.ask_blocking(Number(6)).unwrap(), 6);
        // It waits for itself, and no longer than it said.
        let own = context.myself().ask_blocking_within(dare, Duration::from_millis(20));
        assert!(matches!(own, Err(AskError::Timeout { .. })), "{own:?}");
        let nowhere = env.register_on(cores, "nowhere", unseen);
        assert!(matches!(nowhere, Err(RegisterError::NoSuchCore { .. })), "{nowhere:?}");
        assert!(matches!(env.spawn_on(cores, || async {}), Err(SpawnError::NoSuchCore { .. })));
        let wait = env.await_termination_within(LIMIT);
        assert!(matches!(wait, Err(Error::AwaitOnCore)), "{wait:?}");
        Ok(())
    }
}

#[test]
fn what_blocks_is_allowed_there() {
    bounded(|| {
        let (env, far) = (server(2), server(1));
        far.register("worker", unseen).unwrap();
        let bold = env.register_isolated("bold", || Bold).unwrap();
        bold.ask_blocking(Dare(uri(&far, "worker"))).unwrap();
        end(&env);
        end(&far);
    });
}

#[test]
fn its_life_is_that_of_any_endpoint_and_its_thread_serves_the_next() {
    bounded(|| {
        at_every_distance(Config { isolated: 1, ..config() }, |scene| {
            let (tell, told) = channel();
            let tell_too = tell.clone();
            let first = isolate(scene, "worker", || Worker(tell));
            let Ok(Step::Start(thread)) = told.recv_timeout(LIMIT) else { panic!("no start") };
            let mut gate = Gate::new();
            let blocked = first.ask(Block(gate.id));
            gate.expect(Event::Entered);
            let queued = first.ask(Number(1));
            // Over the same way, and answered without the endpoint: what was sent before has arrived.
            common::turn(&scene.asking);
            common::turn(&scene.answering);
            let own = scene.answering.endpoint_ref_of("worker", &first);
            if scene.distance.is_remote() {
                common::eventually(&scene.answering, "the queued message", |now| now.requests_in >= 2);
            }
            assert!(scene.answering.stop(&own));
            assert!(!scene.answering.stop(&own), "once");
            gate.open();
            block_on(blocked).unwrap();
            assert_eq!(block_on(queued), Ok(1));
            for step in [Step::Number(1), Step::Stop, Step::Drop] {
                assert_eq!(told.recv_timeout(LIMIT), Ok(step));
            }
            let late = first.ask_blocking(Number(2));
            assert!(matches!(late, Err(AskError::Stopped { .. } | AskError::NoEndpoint { .. })), "{late:?}");
            // Its place is free when its turn has ended.
            let next = when_free(&scene.answering, move || Worker(tell_too.clone())).unwrap();
            assert_eq!(told.recv_timeout(LIMIT), Ok(Step::Start(thread)));
            assert_eq!(next.ask_blocking(Number(3)), Ok(3));
        });
    });
}

#[test]
fn there_are_as_many_as_the_configuration_allows() {
    bounded(|| {
        let env = serving(1, Config { isolated: 2, ..config() });
        let first = env.register_isolated("first", unseen).unwrap();
        env.register_isolated("second", unseen).unwrap();
        let third = env.register_isolated("third", unseen);
        assert!(matches!(third, Err(RegisterError::TooManyIsolated { max: 2, .. })), "{third:?}");
        assert!(third.unwrap_err().to_string().contains("Config::isolated"));
        let taken = env.register_isolated("second", unseen);
        assert!(taken.is_err());
        env.stop(&first);
        until("there is room again", || env.register_isolated("third", unseen).is_ok());
        end(&env);
        let none = client(1);
        end(&none);
        assert!(matches!(none.register_isolated("late", unseen), Err(RegisterError::Stopped { .. })));
        let refused = builder("none", 1, Config { isolated: 0, ..config() }).start().unwrap();
        let none = refused.register_isolated("none", unseen);
        assert!(matches!(none, Err(RegisterError::TooManyIsolated { max: 0, .. })), "{none:?}");
        end(&refused);
        let problem = builder("many", 1, Config { isolated: u16::MAX, ..config() }).start().unwrap_err();
        assert!(problem.to_string().contains("isolated"), "{problem}");
    });
}

struct Failing(bool);

impl Endpoint for Failing {
    fn handlers(handlers: &mut Handlers<Self>) {
        let _ = handlers;
    }

    async fn on_start(&mut self, _: &EndpointContext) -> Result<(), HandlerError> {
        if self.0 { panic!("no milk") } else { Err(HandlerError::new("no coffee")) }
    }
}

#[test]
fn failures_and_panics_are_told_and_survived() {
    bounded(|| {
        at_every_distance(Config { isolated: 1, ..config() }, |scene| {
            let env = &scene.answering;
            for panics in [false, true] {
                let failed = when_free(env, move || Failing(panics));
                assert!(matches!(failed, Err(RegisterError::Failed { .. })), "{failed:?}");
            }
            let failed = when_free(env, || -> Worker { panic!("no sugar") });
            assert!(matches!(failed, Err(RegisterError::Failed { .. })), "{failed:?}");
            let own = when_free(env, unseen).unwrap();
            let worker = if scene.distance.is_remote() { seen_from(&scene.asking, &own) } else { own };
            for outcome in scene.outcomes(&worker, Panic) {
                assert!(matches!(outcome, Err(AskError::Handler { .. })), "{outcome:?}");
            }
            assert_eq!(worker.ask_blocking(Number(1)), Ok(1));
        });
    });
}

#[test]
fn a_shutdown_waits_for_it_until_its_deadline_and_no_longer() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let (tell, told) = channel();
            let worker = isolate(scene, "worker", || Worker(tell));
            let _idle = isolate(scene, "idle", unseen);
            let mut gate = Gate::new();
            let blocked = worker.ask(Block(gate.id));
            gate.expect(Event::Entered);
            scene.answering.shutdown(Duration::from_millis(50));
            assert!(scene.answering.await_termination_within(LIMIT).unwrap());
            let outcome = block_on(blocked);
            let gone = matches!(outcome, Err(AskError::Stopped { .. } | AskError::Disconnected { .. }));
            assert!(gone, "{outcome:?}");
            assert!(!told.try_iter().any(|step| step == Step::Drop), "it blocks");
            gate.open();
            until("its thread ends when it returns", || told.try_iter().any(|step| step == Step::Drop));
        });
    });
}

#[test]
fn a_shutdown_lets_it_finish_what_is_queued() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let (tell, told) = channel();
            let worker = isolate(scene, "worker", || Worker(tell));
            let mut gate = Gate::new();
            let blocked = worker.ask(Block(gate.id));
            gate.expect(Event::Entered);
            let queued = worker.ask(Number(1));
            common::turn(&scene.asking);
            if scene.distance.is_remote() {
                common::eventually(&scene.answering, "the queued message", |now| now.requests_in >= 2);
            }
            scene.answering.shutdown(LIMIT);
            assert!(!scene.answering.await_termination_within(Duration::from_millis(20)).unwrap(), "it blocks");
            gate.open();
            assert!(scene.answering.await_termination_within(LIMIT).unwrap());
            if scene.distance.is_remote() {
                assert_eq!((block_on(blocked), block_on(queued)), (Ok(()), Ok(1)));
            } else {
                drop((blocked, queued));
            }
            let steps: Vec<_> = told.try_iter().skip(1).collect();
            assert_eq!(steps, [Step::Number(1), Step::Stop, Step::Drop]);
        });
    });
}

#[test]
fn what_waits_for_it_is_bounded_and_its_senders_are_told() {
    bounded(|| {
        let config = Config { lane_messages: 4, inbox_messages: 4, ..config() };
        at_every_distance(config, |scene| {
            let worker = isolate(scene, "worker", unseen);
            let mut gate = Gate::new();
            let blocked = worker.ask(Block(gate.id));
            gate.expect(Event::Entered);
            // Those that find room wait; the others are told at once.
            let there = worker.clone();
            let mut waiting: Vec<_> =
                scene.run(move || async move { (0..20).map(|number| there.ask(Number(number))).collect() });
            for ask in waiting.drain(4..) {
                let refused = block_on(ask);
                let named = matches!(&refused, Err(AskError::Overloaded { queue, .. }) if queue.contains("Config::lane_messages"));
                assert!(named, "{refused:?}");
            }
            let there = worker.clone();
            let sent = scene.run(move || async move { there.send(Note(0)) });
            match scene.distance.is_remote() {
                true => assert_eq!(sent, Ok(()), "its fate is not told"),
                false => assert!(matches!(sent, Err(SendError::Overloaded { .. })), "{sent:?}"),
            }
            common::eventually(&scene.answering, "all refusals", |now| now.overloaded_lane == 17);
            gate.open();
            block_on(blocked).unwrap();
            for (number, ask) in waiting.into_iter().enumerate() {
                assert_eq!(block_on(ask), Ok(number as u32));
            }
        });
    });
}

#[test]
fn connections_that_end_while_it_blocks_leave_a_bounded_trace() {
    bounded(|| {
        let config = Config { lane_messages: 4, lane_overflow: 4, connections: 8, ..config() };
        let env = serving(1, config);
        let worker = env.register_isolated("worker", unseen).unwrap();
        let mut gate = Gate::new();
        let blocked = worker.ask(Block(gate.id));
        gate.expect(Event::Entered);
        let at = env.address().unwrap().to_string().parse().unwrap();
        for _ in 0..100 {
            drop(RawPeer::greet(at));
            common::eventually(&env, "its end", |now| now.connections == 0);
        }
        gate.open();
        block_on(blocked).unwrap();
        // Whatever waits goes into the lane ahead of these.
        for number in 0..100 {
            until("there is room", || worker.ask_blocking(Number(number)).is_ok());
        }
        let received = || env.snapshot().isolated[0].lane_received;
        until("the asks are counted", || received() > 100);
        assert!(received() < 101 + 4 + 4 + 8 + 10, "{} were received", received());
        end(&env);
    });
}

/// Blocks, and tells when it hears of a connection.
struct Listener(Sender<String>);

impl Endpoint for Listener {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<Block>().events();
    }

    async fn on_connected(&mut self, peer: &Peer) {
        self.0.send(peer.name().to_owned()).unwrap();
    }
}

impl HandleSync<Block> for Listener {
    fn handle(&mut self, block: Block, _: &mut CallContext) -> Result<(), HandlerError> {
        block_on(pass(block.0));
        Ok(())
    }
}

#[test]
fn what_did_not_fit_into_its_lane_while_it_blocked_follows_when_there_is_room() {
    bounded(|| {
        let config = Config { lane_messages: 4, ..config() };
        let env = serving(1, config);
        let (tell, told) = channel();
        let listener = env.register_isolated("listener", move || Listener(tell)).unwrap();
        let mut gate = Gate::new();
        let blocked = listener.ask(Block(gate.id));
        gate.expect(Event::Entered);
        let at = env.address().unwrap().to_string().parse().unwrap();
        let _peers: Vec<_> = (0..20).map(|_| RawPeer::greet(at)).collect();
        gate.open();
        block_on(blocked).unwrap();
        for _ in 0..20 {
            assert_eq!(told.recv_timeout(LIMIT).unwrap(), "raw");
        }
        end(&env);
    });
}

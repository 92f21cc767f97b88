//! From `register` to `on_stop`: what an endpoint goes through, and who is told what.

mod common;

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use common::gate::{Event, Gate, pass};
use common::{LIMIT, bounded, client, end, eventually, seen_from, server, turn};
use futures::executor::block_on;
use ringpost::{
    AskError, CallContext, Endpoint, EndpointContext, Handle, HandleSync, HandlerError, Handlers, NameError,
    RegisterError, RpcEnv, message,
};
use serde::{Deserialize, Serialize};

/// Does its part, after a gate if one is given.
#[derive(Serialize, Deserialize)]
struct Work(u32, Option<u64>);
message!(Work as "lifecycle.Work" => u32);

/// What happens to endpoints, in order, with the core on which it does.
#[derive(Debug, PartialEq, Eq, Clone)]
enum Step {
    Start,
    Work(u32),
    Stop,
    Drop,
}

/// Tells all that happens to it.
struct Told {
    core: usize,
    tell: Sender<(usize, Step)>,
    start: Start,
}

#[derive(Clone, Copy, PartialEq)]
enum Start {
    Well,
    /// After this gate.
    Slowly(u64),
    Badly,
    /// After this gate.
    SlowlyAndBadly(u64),
    WithPanic,
}

impl Told {
    fn new(core: usize, tell: &Sender<(usize, Step)>, start: Start) -> Told {
        Told { core, tell: tell.clone(), start }
    }

    fn tell(&self, step: Step) {
        // The test may have ended.
        let _ = self.tell.send((self.core, step));
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.tell(Step::Drop);
    }
}

impl Endpoint for Told {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask::<Work>();
    }

    async fn on_start(&mut self, _: &EndpointContext) -> Result<(), HandlerError> {
        if let Start::Slowly(gate) | Start::SlowlyAndBadly(gate) = self.start {
            pass(gate).await;
        }
        self.tell(Step::Start);
        match self.start {
            Start::Badly | Start::SlowlyAndBadly(_) => Err(HandlerError::new("no coffee")),
            Start::WithPanic => panic!("no milk"),
            _ => Ok(()),
        }
    }

    async fn on_stop(&mut self) {
        self.tell(Step::Stop);
    }
}

impl Handle<Work> for Told {
    async fn handle(&mut self, work: Work, _: &mut CallContext) -> Result<u32, HandlerError> {
        if let Some(gate) = work.1 {
            pass(gate).await;
        }
        self.tell(Step::Work(work.0));
        Ok(work.0)
    }
}

fn next(told: &Receiver<(usize, Step)>) -> Step {
    told.recv_timeout(LIMIT).unwrap().1
}

fn nothing_more(told: &Receiver<(usize, Step)>) {
    assert!(told.try_recv().is_err());
}

#[test]
fn on_start_comes_before_the_first_message_and_on_stop_once_after_the_last() {
    bounded(|| {
        let (env, other) = (server(2), client(1));
        let (tell, told) = channel();
        let (mut start, mut work) = (Gate::new(), Gate::new());
        let (id, there) = (start.id, env.clone());
        let registering =
            std::thread::spawn(move || there.register("told", move || Told::new(0, &tell, Start::Slowly(id))).unwrap());
        start.expect(Event::Entered);
        // The name is known while `on_start` still runs: messages wait.
        let far = other.endpoint_ref(&common::uri(&env, "told")).unwrap();
        let mut asks: Vec<_> = (0..3).map(|number| far.ask(Work(number, None))).collect();
        eventually(&env, "three messages that wait", |now| now.requests_in == 3);
        start.open();
        let near = registering.join().unwrap();
        asks.push(near.ask(Work(3, Some(work.id))));
        asks.push(near.ask(Work(4, None)));
        work.expect(Event::Entered);
        // What is queued now is handled before `on_stop`; what comes from now on is refused.
        assert!(env.stop(&near));
        assert!(!env.stop(&near), "once");
        turn(&env);
        let late = near.ask_blocking(Work(5, None));
        assert!(matches!(late, Err(AskError::Stopped { .. } | AskError::NoEndpoint { .. })), "{late:?}");
        let late = far.ask_blocking(Work(5, None));
        assert!(matches!(late, Err(AskError::Stopped { .. } | AskError::NoEndpoint { .. })), "{late:?}");
        work.open();
        for (number, ask) in asks.into_iter().enumerate() {
            assert_eq!(block_on(ask).unwrap(), number as u32);
        }
        let steps: Vec<_> = (0..8).map(|_| next(&told)).collect();
        let works = (0..5).map(Step::Work);
        let all: Vec<_> = [Step::Start].into_iter().chain(works).chain([Step::Stop, Step::Drop]).collect();
        assert_eq!(steps, all);
        end(&other);
        end(&env);
        nothing_more(&told);
    });
}

#[test]
fn an_endpoint_that_does_not_start_is_not_registered_and_the_registrant_is_told_why() {
    bounded(|| {
        let env = server(2);
        let (tell, told) = channel();
        let before = eventually(&env, "the start", |_| true).endpoints;
        for (start, text, panicked) in [(Start::Badly, "no coffee", false), (Start::WithPanic, "no milk", true)] {
            let tell = tell.clone();
            let refused = env.register("told", move || Told::new(0, &tell, start)).unwrap_err();
            let RegisterError::Failed { name, error } = refused else { panic!("{refused:?}") };
            assert_eq!((&*name, error.text(), error.is_panic()), ("told", text, panicked));
            assert_eq!((next(&told), next(&told)), (Step::Start, Step::Drop), "no on_stop without a start");
        }
        let refused = env.register::<Told>("told", || panic!("no cups")).unwrap_err();
        assert!(refused.to_string().contains("factory"), "it was no handler: {refused}");
        let RegisterError::Failed { error, .. } = refused else { panic!("{refused:?}") };
        assert_eq!((error.text(), error.is_panic()), ("no cups", true));
        eventually(&env, "their end", |now| now.endpoints == before);
        // The name is free again, and an id is not used up by each failure.
        let well = env.register("told", move || Told::new(0, &tell, Start::Well)).unwrap();
        assert_eq!(well.ask_blocking(Work(1, None)).unwrap(), 1);
        end(&env);
    });
}

#[test]
fn messages_that_wait_for_an_endpoint_that_fails_to_start_are_refused() {
    bounded(|| {
        let (env, other) = (server(1), client(1));
        let (tell, _told) = channel();
        let mut start = Gate::new();
        let (id, there) = (start.id, env.clone());
        let registering =
            std::thread::spawn(move || there.register("told", move || Told::new(0, &tell, Start::SlowlyAndBadly(id))));
        start.expect(Event::Entered);
        let ask = other.endpoint_ref(&common::uri(&env, "told")).unwrap().ask(Work(1, None));
        eventually(&env, "the message", |now| now.requests_in == 1);
        start.open();
        let refused = block_on(ask);
        assert!(matches!(refused, Err(AskError::Stopped { .. })), "{refused:?}");
        eventually(&env, "the refusal is counted", |now| now.unknown_endpoint == 1);
        assert!(matches!(registering.join().unwrap(), Err(RegisterError::Failed { .. })));
        end(&other);
        end(&env);
    });
}

#[test]
fn endpoints_are_placed_evenly_and_failed_registrations_do_not_count() {
    bounded(|| {
        let env = server(2);
        for start in [None, Some(Start::Badly), None, Some(Start::WithPanic), None] {
            let (tell, _told) = channel();
            let make = move || Told::new(0, &tell, start.unwrap_or_else(|| panic!("no cups")));
            env.register_on(0, "failing", make).unwrap_err();
        }
        turn(&env);
        for (name, core) in [("first", 0), ("second", 1), ("third", 0), ("fourth", 1)] {
            let placed = env.register(name, || Where).unwrap();
            assert_eq!(placed.ask_blocking(AskWhere).unwrap(), core, "{name}");
        }
        end(&env);
    });
}

#[test]
fn one_instance_that_does_not_start_stops_all_of_them() {
    bounded(|| {
        let env = server(2);
        let before = eventually(&env, "the start", |_| true).endpoints;
        for start in [Some(Start::Badly), None] {
            let (tell, told) = channel();
            let make = move |core| match (core, start) {
                (0, _) => Told::new(core, &tell, Start::Well),
                (_, Some(start)) => Told::new(core, &tell, start),
                (_, None) => panic!("no cups"),
            };
            let refused = env.register_per_core("told", make);
            assert!(matches!(refused, Err(RegisterError::Failed { .. })), "{refused:?}");
            let healthy: Vec<_> = std::iter::from_fn(|| told.recv_timeout(LIMIT).ok())
                .filter_map(|(core, step)| (core == 0).then_some(step))
                .take(3)
                .collect();
            assert_eq!(healthy, [Step::Start, Step::Stop, Step::Drop]);
            eventually(&env, "the end of all instances", |now| now.endpoints == before);
        }
        let (tell, _told) = channel();
        env.register_per_core("told", move |core| Told::new(core, &tell, Start::Well)).unwrap();
        end(&env);
    });
}

#[test]
fn a_name_has_one_holder_and_a_ref_to_an_earlier_one_neither_reaches_nor_stops_the_next() {
    bounded(|| {
        let (env, other) = (server(2), client(1));
        let (tell, told) = channel();
        let make = |core: usize| {
            let tell = tell.clone();
            move || Told::new(core, &tell, Start::Well)
        };
        let first = env.register_on(0, "told", make(0)).unwrap();
        for again in [env.register("told", make(9)), env.register("endpoint-verifier", make(9))] {
            assert!(matches!(again, Err(RegisterError::Name(NameError::Taken(_)))), "{again:?}");
        }
        let none = env.register("a name", make(9));
        assert!(matches!(none, Err(RegisterError::Name(NameError::Invalid(_)))), "{none:?}");
        let none = env.register_on(2, "b", make(9));
        assert!(matches!(none, Err(RegisterError::NoSuchCore { core: 2, cores: 2 })), "{none:?}");

        let far = seen_from(&other, &first);
        assert_eq!(far.ask_blocking(Work(1, None)).unwrap(), 1);
        assert!(!other.stop(&far), "a peer's endpoint is its own");
        assert!(env.stop(&first));
        let second = env.register_on(1, "told", make(1)).unwrap();
        assert_ne!(first, second);
        assert!(!env.stop(&first));
        let gone = first.ask_blocking(Work(2, None));
        assert!(matches!(gone, Err(AskError::NoEndpoint { .. } | AskError::Stopped { .. })), "{gone:?}");
        assert_eq!(second.ask_blocking(Work(3, None)).unwrap(), 3);
        // From afar a ref means whoever has the name; the first ask after the change tells that the id is old.
        let _ = far.ask_blocking(Work(4, None));
        assert_eq!(far.ask_blocking(Work(5, None)).unwrap(), 5);
        end(&other);
        end(&env);
        let on_second: Vec<_> = told.try_iter().filter(|(core, _)| *core == 1).map(|(_, step)| step).collect();
        assert!(on_second.contains(&Step::Work(3)) && on_second.contains(&Step::Work(5)), "{on_second:?}");
        assert!(!on_second.contains(&Step::Work(2)));
    });
}

/// Has two handlers for one message id.
struct Clashing;

/// Another type with the name and version of [`Work`].
#[derive(Serialize, Deserialize)]
struct OtherWork;
message!(OtherWork as "lifecycle.Work" => ());

impl Endpoint for Clashing {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<Work>().ask_sync::<OtherWork>();
    }
}

impl HandleSync<Work> for Clashing {
    fn handle(&mut self, work: Work, _: &mut CallContext) -> Result<u32, HandlerError> {
        Ok(work.0)
    }
}

impl HandleSync<OtherWork> for Clashing {
    fn handle(&mut self, _: OtherWork, _: &mut CallContext) -> Result<(), HandlerError> {
        Ok(())
    }
}

#[test]
fn two_messages_with_one_id_are_found_when_the_endpoint_is_registered() {
    bounded(|| {
        let env = client(1);
        let refused = env.register("clashing", || Clashing).unwrap_err().to_string();
        assert!(refused.contains("same id") && refused.contains("lifecycle.Work"), "{refused}");
        end(&env);
    });
}

/// Tells where it is.
struct Where;

#[derive(Serialize, Deserialize)]
struct AskWhere;
message!(AskWhere as "lifecycle.Where" => usize);

impl Endpoint for Where {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<AskWhere>();
    }
}

impl HandleSync<AskWhere> for Where {
    fn handle(&mut self, _: AskWhere, context: &mut CallContext) -> Result<usize, HandlerError> {
        Ok(context.core())
    }
}

#[test]
fn a_key_always_means_the_same_core_and_keys_spread() {
    bounded(|| {
        let (env, other) = (server(2), client(2));
        let here = env.register_per_core("where", |_| Where).unwrap();
        let far = seen_from(&other, &here);
        let owners = |endpoint: &ringpost::EndpointRef| -> BTreeMap<u64, usize> {
            (0..200).map(|key| (key, endpoint.by_key(key).ask_blocking(AskWhere).unwrap())).collect()
        };
        let owned = owners(&here);
        let on_first = owned.values().filter(|core| **core == 0).count();
        assert!((60..=140).contains(&on_first), "{on_first} of 200 keys on core 0");
        assert_eq!(owned, owners(&far), "and from another env");
        for core in 0..2 {
            let (near, from) = (here.clone(), env.clone());
            let own = env.spawn_on(core, move || async move {
                let _kept = from;
                let own = near.ask(AskWhere).await.unwrap();
                let keyed: Vec<_> = futures::future::join_all((0..200).map(|k| near.by_key(k).ask(AskWhere))).await;
                (own, keyed.into_iter().map(Result::unwrap).collect::<Vec<_>>())
            });
            let (own, keyed) = own.unwrap().join().unwrap();
            assert_eq!(own, core, "without a key it is the asker's own core");
            assert_eq!(keyed, owned.values().copied().collect::<Vec<_>>());
        }
        end(&other);
        end(&env);
    });
}

#[test]
fn what_would_block_a_core_is_refused_there() {
    bounded(|| {
        let env = client(1);
        let there = env.clone();
        let outcome = env.spawn_on(0, move || async move {
            (
                there.register("where", || Where).map(|_| ()),
                there.register_per_core("where", |_| Where).map(|_| ()),
                there.await_termination(),
                there.await_termination_within(Duration::from_secs(1)).map(|_| ()),
                there.spawn_on(0, || async {}).unwrap().join(),
            )
        });
        let (one, per_core, end_of, end_for, join) = outcome.unwrap().join().unwrap();
        assert!(matches!(one, Err(RegisterError::BlockingOnCore)), "{one:?}");
        assert!(matches!(per_core, Err(RegisterError::BlockingOnCore)), "{per_core:?}");
        assert!(matches!(end_of, Err(ringpost::Error::AwaitOnCore)), "{end_of:?}");
        assert!(matches!(end_for, Err(ringpost::Error::AwaitOnCore)), "{end_for:?}");
        assert_eq!(join, Err(ringpost::JoinError::BlockingOnCore));
        end(&env);
    });
}

#[test]
fn an_endpoint_may_hold_an_env_and_drop_the_last_handle_on_its_own_core() {
    bounded(|| {
        struct Holder(#[expect(dead_code, reason = "held, and dropped with the endpoint")] RpcEnv);
        impl Endpoint for Holder {
            fn handlers(_: &mut Handlers<Self>) {}
        }
        let (inner, outer) = (client(1), client(1));
        let (tell, told) = channel();
        inner.register("told", move || Told::new(0, &tell, Start::Well)).unwrap();
        let holder = outer.register("holder", move || Holder(inner)).unwrap();
        assert!(outer.stop(&holder));
        assert_eq!((next(&told), next(&told), next(&told)), (Step::Start, Step::Stop, Step::Drop));
        end(&outer);
    });
}

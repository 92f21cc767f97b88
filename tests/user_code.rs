//! User code that misbehaves stays its own affair: any callback may panic, the right one is told, and the env serves on.

mod common;

use std::sync::mpsc::{Sender, channel};

use common::echo::within;
use common::gate::{Event, Gate, pass};
use common::{LIMIT, bounded, client, end, eventually, kind, seen_from, server, uri};
use futures::executor::block_on;
use ringpost::{
    AskError, CallContext, Endpoint, EndpointContext, EndpointRef, HandleSync, HandlerError, Handlers, JoinError,
    RegisterError, message,
};
use serde::{Deserialize, Serialize, Serializer};

/// Answered at once.
#[derive(Serialize, Deserialize)]
struct Ping();
message!(Ping as "user_code.Ping" => u32);

/// Fails with this text.
#[derive(Serialize, Deserialize)]
struct Fail(String);
message!(Fail as "user_code.Fail" => ());

/// Waits at a gate in its first `on_error`, with its whole core, and panics then.
#[derive(Default)]
struct Subject {
    on_error: Option<u64>,
}

impl Endpoint for Subject {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<Ping>().ask_sync::<Fail>();
    }

    fn on_error(&mut self, _: &HandlerError) {
        if let Some(gate) = self.on_error.take() {
            block_on(pass(gate));
            panic!("on_error panics");
        }
    }
}

impl HandleSync<Ping> for Subject {
    fn handle(&mut self, _: Ping, _: &mut CallContext) -> Result<u32, HandlerError> {
        Ok(7)
    }
}

impl HandleSync<Fail> for Subject {
    fn handle(&mut self, fail: Fail, _: &mut CallContext) -> Result<(), HandlerError> {
        Err(HandlerError::new(fail.0))
    }
}

/// Panics where it is told to.
struct Clumsy(At, Option<Sender<String>>);

#[derive(Clone, Copy, PartialEq, Debug)]
enum At {
    Start,
    Stop,
    LateStop,
}

impl Endpoint for Clumsy {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<Ping>();
    }

    fn on_start(&mut self, _: &EndpointContext) -> impl Future<Output = Result<(), HandlerError>> {
        assert!(self.0 != At::Start, "clumsy");
        std::future::ready(Ok(()))
    }

    fn on_stop(&mut self) -> impl Future<Output = ()> {
        assert!(self.0 != At::Stop, "clumsy");
        let late = self.0 == At::LateStop;
        async move { assert!(!late, "clumsy") }
    }

    fn on_error(&mut self, error: &HandlerError) {
        if let Some(tell) = &self.1 {
            let _ = tell.send(error.text().to_owned());
        }
        panic!("clumsy in on_error too");
    }
}

impl HandleSync<Ping> for Clumsy {
    fn handle(&mut self, _: Ping, _: &mut CallContext) -> Result<u32, HandlerError> {
        Ok(7)
    }
}

struct NoHandlers;

impl Endpoint for NoHandlers {
    fn handlers(_: &mut Handlers<Self>) {
        panic!("clumsy")
    }
}

#[test]
fn a_panic_on_the_way_to_life_refuses_the_registration_and_nothing_else() {
    bounded(|| {
        let env = server(2);
        for core in [0, 1] {
            let before = eventually(&env, "it runs", |_| true).endpoints;
            for refused in [
                env.register_on(core, "clumsy", || Clumsy(At::Start, None)),
                env.register_on::<Clumsy>(core, "clumsy", || panic!("clumsy")),
                env.register_on(core, "clumsy", || NoHandlers),
                env.register_per_core::<Clumsy>("clumsy", |_| panic!("clumsy")),
                env.register_per_core("clumsy", move |on| Clumsy(if on == core { At::Start } else { At::Stop }, None)),
            ] {
                let Err(RegisterError::Failed { name, error }) = refused else { panic!("{refused:?}") };
                assert_eq!((&*name, error.text(), error.is_panic()), ("clumsy", "clumsy", true));
            }
            eventually(&env, "nothing is left of them", |now| now.endpoints == before);
            let well = env.register_on(core, "clumsy", Subject::default).unwrap();
            assert_eq!(well.ask_blocking(Ping()).unwrap(), 7, "the name is free and the core serves");
            env.stop(&well);
        }
        end(&env);
    });
}

#[test]
fn a_panic_in_on_stop_is_told_to_on_error_and_the_endpoint_ends_all_the_same() {
    bounded(|| {
        let env = server(1);
        for at in [At::Stop, At::LateStop] {
            let (tell, told) = channel();
            let before = eventually(&env, "it runs", |_| true).endpoints;
            let clumsy = env.register("clumsy", move || Clumsy(at, Some(tell))).unwrap();
            let own = env.endpoint_ref(&uri(&env, "clumsy")).unwrap();
            assert!(env.stop(&clumsy));
            assert_eq!(told.recv_timeout(LIMIT).as_deref(), Ok("clumsy"), "{at:?}");
            eventually(&env, "its end", |now| now.endpoints == before);
            assert_eq!(kind(&own.ask_blocking(Ping()).unwrap_err()), "NoEndpoint");
        }
        // One more ends with its env.
        env.register("clumsy", || Clumsy(At::Stop, None)).unwrap();
        end(&env);
    });
}

#[test]
fn on_error_runs_after_the_asker_was_answered_and_its_panic_harms_nobody() {
    bounded(|| {
        let env = server(1);
        let mut gate = Gate::new();
        let id = gate.id;
        let failing = env.register("failing", move || Subject { on_error: Some(id) }).unwrap();
        let asking = failing.ask(Fail("no tea".into()));
        // The core is held in on_error, and the answer is here.
        gate.expect(Event::Entered);
        let answer = within(asking);
        let Err(AskError::Handler { error, .. }) = answer else { panic!("{answer:?}") };
        assert_eq!((error.text(), error.is_panic()), ("no tea", false));
        gate.open();
        gate.expect(Event::Passed);
        assert_eq!(failing.ask_blocking(Ping()).unwrap(), 7);
        end(&env);
    });
}

#[test]
fn a_panic_of_a_task_comes_out_of_its_handle_and_its_core_serves_on() {
    bounded(|| {
        let env = client(2);
        for core in [0, 1] {
            let at_once = env.spawn_on::<_, std::future::Ready<()>>(core, || panic!("clumsy")).unwrap();
            assert_eq!(at_once.join(), Err(JoinError::Panicked("clumsy".into())));
            let inner = env.spawn_on(core, || async {
                drop(ringpost::spawn(async { panic!("nobody looks") }));
                ringpost::spawn(async { panic!("clumsy") }).await
            });
            assert_eq!(inner.unwrap().join().unwrap(), Err::<(), _>(JoinError::Panicked("clumsy".into())));
            let subject = env.register_on(core, &format!("subject-{core}"), Subject::default).unwrap();
            assert_eq!(subject.ask_blocking(Ping()).unwrap(), 7);
        }
        end(&env);
    });
}

/// Asks somebody else while it is encoded.
#[derive(Deserialize)]
struct Chatty(EndpointRef);
message!(Chatty as "user_code.Chatty" => u32);

impl Serialize for Chatty {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        drop(ringpost::spawn(self.0.ask(Ping())));
        self.0.serialize(serializer)
    }
}

#[test]
fn a_message_that_asks_while_it_is_encoded_is_answered_all_the_same() {
    bounded(|| {
        let (env, far) = (server(1), server(1));
        let near = env.register("near", Subject::default).unwrap();
        let to = seen_from(&env, &far.register("far", Subject::default).unwrap());
        for _ in 0..3 {
            let (to, near) = (to.clone(), near.clone());
            let answer = env.spawn_on(0, move || async move { to.ask(Chatty(near)).await }).unwrap().join().unwrap();
            assert_eq!(kind(&answer.unwrap_err()), "UnknownMessage");
        }
        eventually(&env, "the end of all asks", |now| now.pending_asks == 0);
        end(&far);
        end(&env);
    });
}

#[test]
fn a_message_that_asks_a_peer_while_it_is_encoded_cannot_be_sent_and_harms_nobody() {
    bounded(|| {
        let (env, far) = (server(1), server(1));
        let to = seen_from(&env, &far.register("far", Subject::default).unwrap());
        for _ in 0..3 {
            let far = to.clone();
            let asked = move || async move { (far.ask(Chatty(far.clone())).await, far.ask(Ping()).await) };
            let (answer, next) = env.spawn_on(0, asked).unwrap().join().unwrap();
            assert_eq!(kind(&answer.unwrap_err()), "Unsendable");
            assert_eq!(next.unwrap(), 7);
        }
        eventually(&env, "the end of all asks", |now| now.pending_asks == 0);
        end(&far);
        end(&env);
    });
}

/// A panic that panics again when it is dropped.
struct Twice;

impl Drop for Twice {
    fn drop(&mut self) {
        // A panic while another unwinds would abort the process.
        if !std::thread::panicking() {
            panic!("the drop of a panic panics");
        }
    }
}

/// Panics so in its handler.
struct Bursting;

impl Endpoint for Bursting {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<Ping>();
    }
}

impl HandleSync<Ping> for Bursting {
    fn handle(&mut self, _: Ping, _: &mut CallContext) -> Result<u32, HandlerError> {
        std::panic::panic_any(Twice)
    }
}

#[test]
fn a_panic_that_panics_when_it_is_dropped_is_one_panic() {
    bounded(|| {
        let env = client(1);
        let bursting = env.register_on(0, "bursting", || Bursting).unwrap();
        let here = bursting.clone();
        let on_its_core = within(env.spawn_on(0, move || async move { here.ask(Ping()).await }).unwrap()).unwrap();
        for outcome in [on_its_core, bursting.ask_blocking(Ping()), bursting.ask_blocking(Ping())] {
            assert!(matches!(&outcome, Err(AskError::Handler { error, .. }) if error.is_panic()), "{outcome:?}");
        }
        let task = env.spawn_on(0, || async { std::panic::panic_any(Twice) }).unwrap();
        assert!(matches!(within(task), Err(JoinError::Panicked(_))));
        eventually(&env, "nobody waits", |now| now.pending_asks == 0);
        end(&env);
    });
}

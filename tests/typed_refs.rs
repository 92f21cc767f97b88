//! Refs that know what their endpoint accepts.

mod common;

use std::collections::HashSet;
use std::rc::Rc;

use common::scene::at_every_distance;
use common::{bounded, client, config, end, kind, seen_from, server, uri};
use futures::executor::block_on;
use ringpost::{
    CallContext, Endpoint, EndpointRef, HandleSync, HandlerError, Handlers, Protocol, RegisterError, TypedRef, message,
    protocol,
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Clone)]
struct Add(u32);
message!(Add as "typed.Add", version 3 => u32);

#[derive(Serialize, Deserialize, Clone)]
struct Reset;
message!(Reset as "typed.Reset");

/// Answered with the endpoint's own ref, typed.
#[derive(Serialize, Deserialize, Clone)]
struct Introduce;
message!(Introduce as "typed.Introduce" => TypedRef<CounterApi>);

/// Has the receiver count on another endpoint.
#[derive(Serialize, Deserialize, Clone)]
struct CountOn(TypedRef<CounterApi>);
message!(CountOn as "typed.CountOn" => u32);

/// No value of it can be made, and it is neither `Send` nor anything else.
struct CounterApi(#[expect(dead_code, reason = "it takes Send and Sync from the protocol")] Rc<()>, Never);
enum Never {}
protocol!(CounterApi: Add, Reset, Introduce);

struct CallerApi;
protocol!(CallerApi: CountOn);

#[derive(Default)]
struct Counter(u32);

impl Endpoint for Counter {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.implements::<CounterApi>().ask_sync::<Add>().send_sync::<Reset>().ask_sync::<Introduce>();
    }
}

impl HandleSync<Add> for Counter {
    fn handle(&mut self, add: Add, _: &mut CallContext) -> Result<u32, HandlerError> {
        self.0 += add.0;
        Ok(self.0)
    }
}

impl HandleSync<Reset> for Counter {
    fn handle(&mut self, _: Reset, _: &mut CallContext) -> Result<(), HandlerError> {
        self.0 = 0;
        Ok(())
    }
}

impl HandleSync<Introduce> for Counter {
    fn handle(&mut self, _: Introduce, context: &mut CallContext) -> Result<TypedRef<CounterApi>, HandlerError> {
        Ok(context.myself().typed())
    }
}

struct Calling;

impl Endpoint for Calling {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.implements::<CallerApi>().ask::<CountOn>();
    }
}

impl ringpost::Handle<CountOn> for Calling {
    async fn handle(&mut self, count: CountOn, _: &mut CallContext) -> Result<u32, HandlerError> {
        count.0.send(Reset)?;
        Ok(count.0.ask(Add(2)).await?)
    }
}

/// Forgets a message of its protocol.
struct Forgetful;

impl Endpoint for Forgetful {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.implements::<CallerApi>().implements::<CounterApi>().ask::<CountOn>().ask_sync::<Introduce>();
        handlers.send_sync::<Reset>();
    }
}

impl ringpost::Handle<CountOn> for Forgetful {
    async fn handle(&mut self, _: CountOn, _: &mut CallContext) -> Result<u32, HandlerError> {
        Ok(0)
    }
}

impl HandleSync<Introduce> for Forgetful {
    fn handle(&mut self, _: Introduce, context: &mut CallContext) -> Result<TypedRef<CounterApi>, HandlerError> {
        Ok(context.myself().typed())
    }
}

impl HandleSync<Reset> for Forgetful {
    fn handle(&mut self, _: Reset, _: &mut CallContext) -> Result<(), HandlerError> {
        Ok(())
    }
}

#[test]
fn a_typed_ref_does_what_the_untyped_does() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let untyped = scene.place("counter", Counter::default);
            let counter = untyped.typed::<CounterApi>();
            assert_eq!(block_on(counter.ask(Add(1))), Ok(1));
            assert_eq!(block_on(counter.ask_within(Add(1), common::LIMIT)), Ok(2));
            assert_eq!(counter.ask_blocking(Add(1)), Ok(3));
            assert_eq!(counter.ask_blocking_within(Add(1), common::LIMIT), Ok(4));
            counter.send(Reset).unwrap();
            assert_eq!(counter.by_key(7).ask_blocking(Add(1)), Ok(1));
            assert_eq!(counter.untyped(), &untyped);
            assert_eq!(EndpointRef::from(counter), untyped);
        });
    });
}

#[test]
fn a_typed_ref_travels_in_messages_and_replies() {
    bounded(|| {
        let (env, other) = (server(2), server(1));
        let counter = env.register_on(1, "counter", Counter::default).unwrap().typed::<CounterApi>();
        let calling = env.register_on(0, "calling", || Calling).unwrap();
        assert_eq!(calling.typed::<CallerApi>().ask_blocking(CountOn(counter.clone())), Ok(2));
        let far = seen_from(&other, &calling).typed::<CallerApi>();
        assert_eq!(far.ask_blocking(CountOn(counter.clone())), Ok(2));
        let seen = seen_from(&other, counter.untyped()).typed::<CounterApi>();
        let told = seen.ask_blocking(Introduce).unwrap();
        assert_eq!(told, seen, "the reply's ref is the receiver's own");
        assert_eq!(told.ask_blocking(Add(1)), Ok(3));
        end(&other);
        end(&env);
    });
}

#[test]
#[expect(clippy::mutable_key_type, reason = "what changes in an env is no part of its refs' identity")]
fn typed_refs_are_equal_and_shown_as_the_untyped() {
    bounded(|| {
        let env = server(1);
        let one = env.register("one", Counter::default).unwrap().typed::<CounterApi>();
        let two = env.register("two", Counter::default).unwrap().typed::<CounterApi>();
        let refs: HashSet<_> = [one.clone(), two.clone(), one.clone(), one.by_key(1), one.by_key(1)].into();
        assert_eq!(refs.len(), 3);
        assert_ne!(one, two);
        assert_eq!(one.to_string(), uri(&env, "one"));
        assert_eq!(format!("{one:?}"), format!("{:?}", one.untyped()));
        let patient: HashSet<_> =
            [one.patient(), two.patient(), one.by_key(1).patient(), one.patient().by_key(1)].into();
        assert_eq!(patient.len(), 3);
        assert_eq!(one.patient().to_string(), one.to_string());
        end(&env);
    });
}

#[test]
fn an_endpoint_that_does_not_speak_the_protocol_answers_unknown_message() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let calling = scene.place("calling", || Calling).typed::<CounterApi>();
            for outcome in scene.outcomes(calling.untyped(), Add(1)) {
                assert_eq!(kind(&outcome.unwrap_err()), "UnknownMessage");
            }
        });
    });
}

#[test]
fn an_endpoint_that_lacks_a_handler_for_its_protocol_is_not_registered() {
    bounded(|| {
        let env = client(2);
        let refused = env.register("forgetful", || Forgetful).unwrap_err();
        let RegisterError::Failed { error, .. } = &refused else { panic!("{refused}") };
        let text = error.to_string();
        assert!(text.contains("CounterApi") && text.contains("\"typed.Add\" v3"), "{text}");
        env.register("forgetful", || Calling).expect("the name is free");
        assert_eq!(CounterApi::MESSAGES.len(), 3);
        end(&env);
    });
}

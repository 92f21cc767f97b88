//! The same asks have the same outcomes on the same core, on another core, and in another process.

mod common;

use std::time::Duration;

use common::process::{Process, serve_until_told};
use common::{bounded, builder, config, end, kind};
use ringpost::{
    Ask, AskError, CallContext, Config, Endpoint, EndpointRef, Handle, HandleDeferred, HandleShared, HandleSync,
    HandlerError, Handlers, Replier, RpcEnv, message, wire_error,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

/// Answered with its text.
#[derive(Serialize, Deserialize)]
struct Echo(String);
message!(Echo as "contract.Echo" => String);

/// Answered with an error of this text.
#[derive(Serialize, Deserialize)]
struct Fail(String);
message!(Fail as "contract.Fail" => ());

/// The handler panics with this text.
#[derive(Serialize, Deserialize)]
struct Panic(String);
message!(Panic as "contract.Panic" => ());

/// Answered with an error of a type that both sides know.
#[derive(Serialize, Deserialize)]
struct Overdraw(i64);
message!(Overdraw as "contract.Overdraw" => ());

#[derive(Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{missing} cents are missing")]
struct Missing {
    missing: i64,
}
wire_error!(Missing as "contract.Missing");

/// Answered by another thread, after the handler has returned; or never, if that is asked for.
#[derive(Serialize, Deserialize)]
struct Later(bool);
message!(Later as "contract.Later" => u64);

/// Answered beside others.
#[derive(Serialize, Deserialize)]
struct Beside(u64);
message!(Beside as "contract.Beside" => u64);

/// Answered with who the endpoint takes itself for.
#[derive(Serialize, Deserialize)]
struct Myself;
message!(Myself as "contract.Myself" => EndpointRef);

/// Answered with so many bytes.
#[derive(Serialize, Deserialize)]
struct Fill(usize);
message!(Fill as "contract.Fill" => Vec<u8>);

/// Never answered.
#[derive(Serialize, Deserialize)]
struct Hang;
message!(Hang as "contract.Hang" => ());

/// Nobody handles it.
#[derive(Serialize, Deserialize)]
struct Unknown;
message!(Unknown as "contract.Unknown", version 7 => ());

/// Answered with [`Rude`].
#[derive(Serialize, Deserialize)]
struct BeRude;
message!(BeRude as "contract.BeRude" => Rude);

/// Refuses to be written and to be read; harmless where it is moved.
struct Rude;
message!(Rude as "contract.Rude" => ());

impl Serialize for Rude {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(ser::Error::custom("rude"))
    }
}

impl<'de> Deserialize<'de> for Rude {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Rude, D::Error> {
        Err(de::Error::custom("rude"))
    }
}

/// Answered, and then the endpoint stops itself.
#[derive(Serialize, Deserialize)]
struct Retire;
message!(Retire as "contract.Retire" => ());

struct Subject;

impl Endpoint for Subject {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<Echo>().ask_sync::<Fail>().ask_sync::<Panic>().ask_sync::<Fill>().ask::<Hang>();
        handlers.ask_sync::<Overdraw>().ask_deferred::<Later>().ask_shared::<Beside>().ask_sync::<Myself>();
        handlers.ask_sync::<BeRude>().ask_sync::<Rude>().ask_sync::<Retire>();
    }
}

impl HandleSync<Echo> for Subject {
    fn handle(&mut self, echo: Echo, _: &mut CallContext) -> Result<String, HandlerError> {
        Ok(echo.0)
    }
}

impl HandleSync<Fail> for Subject {
    fn handle(&mut self, fail: Fail, _: &mut CallContext) -> Result<(), HandlerError> {
        Err(HandlerError::new(fail.0))
    }
}

impl HandleSync<Overdraw> for Subject {
    fn handle(&mut self, overdraw: Overdraw, _: &mut CallContext) -> Result<(), HandlerError> {
        Err(HandlerError::typed(Missing { missing: overdraw.0 }))
    }
}

impl HandleDeferred<Later> for Subject {
    fn handle(&mut self, later: Later, replier: Replier<u64>, _: &mut CallContext) -> Result<(), HandlerError> {
        std::thread::spawn(move || {
            if later.0 {
                replier.reply(7)
            }
        });
        Ok(())
    }
}

impl HandleShared<Beside> for Subject {
    async fn handle(&self, beside: Beside, _: &mut CallContext) -> Result<u64, HandlerError> {
        Ok(beside.0)
    }
}

impl HandleSync<Myself> for Subject {
    fn handle(&mut self, _: Myself, context: &mut CallContext) -> Result<EndpointRef, HandlerError> {
        Ok(context.myself())
    }
}

impl HandleSync<Panic> for Subject {
    fn handle(&mut self, panic: Panic, _: &mut CallContext) -> Result<(), HandlerError> {
        std::panic::panic_any(panic.0)
    }
}

impl HandleSync<Fill> for Subject {
    fn handle(&mut self, fill: Fill, _: &mut CallContext) -> Result<Vec<u8>, HandlerError> {
        Ok(vec![7; fill.0])
    }
}

impl Handle<Hang> for Subject {
    async fn handle(&mut self, _: Hang, _: &mut CallContext) -> Result<(), HandlerError> {
        std::future::pending().await
    }
}

impl HandleSync<BeRude> for Subject {
    fn handle(&mut self, _: BeRude, _: &mut CallContext) -> Result<Rude, HandlerError> {
        Ok(Rude)
    }
}

impl HandleSync<Rude> for Subject {
    fn handle(&mut self, _: Rude, _: &mut CallContext) -> Result<(), HandlerError> {
        Ok(())
    }
}

impl HandleSync<Retire> for Subject {
    fn handle(&mut self, _: Retire, context: &mut CallContext) -> Result<(), HandlerError> {
        context.stop();
        Ok(())
    }
}

fn limits() -> Config {
    Config { inbox_messages: 4, max_frame: 64 << 10, ..config() }
}

/// Not a test: the answering process of the test below.
#[test]
#[ignore = "the other process of the test"]
fn answering_process() {
    let env = builder("answering", 2, limits()).bind("127.0.0.1:0").start().unwrap();
    env.register_on(1, "subject", || Subject).unwrap();
    env.register_on(1, "mortal", || Subject).unwrap();
    serve_until_told(&env);
    env.shutdown(Duration::ZERO);
    env.await_termination().unwrap();
}

/// An outcome without what names the place.
fn outcome<R>(answer: Result<R, AskError>) -> String {
    let Err(error) = &answer else { return "a reply".into() };
    let detail = match error {
        AskError::Handler { error, .. } => match error.downcast::<Missing>() {
            None => error.to_string(),
            missing => format!("{error}, as {missing:?}"),
        },
        AskError::Timeout { after, setting, .. } => format!("{after:?}, {setting}"),
        AskError::UnknownMessage { message, .. } => message.split(':').next().unwrap_or_default().to_owned(),
        AskError::Unsendable { reason, .. } | AskError::BadReply { reason, .. } => reason.to_string(),
        _ => String::new(),
    };
    format!("{}: {detail}", kind(error))
}

async fn of<M: Ask>(to: &EndpointRef, message: M) -> String {
    outcome(to.ask(message).await)
}

/// Asks one after the other, and how each ended.
async fn play(subject: EndpointRef, mortal: EndpointRef) -> Vec<(&'static str, String)> {
    let brief = Duration::from_millis(20);
    let mut outcomes = vec![
        ("a reply", of(&subject, Echo("hello".into())).await),
        ("an error of the handler", of(&subject, Fail("no money".into())).await),
        ("a panic of the handler", of(&subject, Panic("no idea".into())).await),
        ("an error of a type", of(&subject, Overdraw(5)).await),
        ("a reply from elsewhere", of(&subject, Later(true)).await),
        ("no reply at all", of(&subject, Later(false)).await),
        ("a reply beside others", of(&subject, Beside(1)).await),
        ("a ref to itself", outcome(subject.ask(Myself).await.map(|to| assert_eq!(to, subject)))),
        ("a message that nobody handles", of(&subject, Unknown).await),
        ("no answer in time", outcome(subject.ask_within(Hang, brief).await)),
    ];
    // When the other endpoint of that core has answered, one is being handled; with the fifth, four wait: the inbox is
    // full.
    let mut hanging: Vec<_> = (0..4).map(|_| subject.ask(Hang)).collect();
    mortal.ask(Echo("now?".into())).await.unwrap();
    hanging.push(subject.ask(Hang));
    outcomes.push(("a full inbox", of(&subject, Echo("too much".into())).await));
    drop(hanging);
    outcomes.push(("room again", of(&subject, Echo("hello".into())).await));
    outcomes.push(("its last reply", of(&mortal, Retire).await));
    let mut last = of(&mortal, Echo("anybody?".into())).await;
    while last.starts_with("Stopped") {
        last = of(&mortal, Echo("anybody?".into())).await;
    }
    outcomes.push(("an endpoint that has stopped", last));
    outcomes
}

fn played(env: &RpcEnv, subject: &EndpointRef, mortal: &EndpointRef) -> Vec<(&'static str, String)> {
    let (subject, mortal) = (subject.clone(), mortal.clone());
    env.spawn_on(0, move || play(subject, mortal)).unwrap().join().unwrap()
}

#[test]
fn an_ask_ends_in_the_same_way_here_on_another_core_and_in_another_process() {
    bounded(|| {
        let other = Process::start("answering_process", &[]);
        let env = builder("asking", 2, limits()).start().unwrap();
        let expected = [
            ("a reply", "a reply"),
            ("an error of the handler", "Handler: no money"),
            ("a panic of the handler", "Handler: the handler panicked: no idea"),
            ("an error of a type", "Handler: 5 cents are missing, as Some(Missing { missing: 5 })"),
            ("a reply from elsewhere", "a reply"),
            ("no reply at all", "NeverReplied: "),
            ("a reply beside others", "a reply"),
            ("a ref to itself", "a reply"),
            ("a message that nobody handles", "UnknownMessage: contract.Unknown v7"),
            ("no answer in time", "Timeout: 20ms, the timeout given to ask_within"),
            ("a full inbox", "Overloaded: "),
            ("room again", "a reply"),
            ("its last reply", "a reply"),
            ("an endpoint that has stopped", "NoEndpoint: "),
        ]
        .map(|(what, outcome)| (what, outcome.to_owned()));
        for core in 0..2 {
            let subject = env.register_on(core, &format!("subject{core}"), || Subject).unwrap();
            let mortal = env.register_on(core, &format!("mortal{core}"), || Subject).unwrap();
            assert_eq!(played(&env, &subject, &mortal), expected, "on core {core}");
        }
        let there = |name: &str| env.endpoint_ref(&other.uri(name)).unwrap();
        assert_eq!(played(&env, &there("subject"), &there("mortal")), expected, "in another process");
        // What only messages that travel as bytes can meet.
        let subject = there("subject");
        let only_there =
            async |to: EndpointRef| [of(&to, Rude).await, of(&to, BeRude).await, of(&to, Fill(80 << 10)).await];
        let outcomes = env.spawn_on(0, move || async move { only_there(subject).await }).unwrap().join().unwrap();
        let kinds = outcomes.map(|outcome| outcome.split(':').next().unwrap().to_owned());
        assert_eq!(kinds, ["Unsendable", "BadReply", "BadReply"]);
        end(&env);
    });
}

//! An ask has the same outcome, and an error the same variant, however far the endpoint is.

mod common;

use std::time::Duration;

use common::scene::{Distance, Scene, at, at_every_distance};
use common::{bounded, config, eventually, kind};
use ringpost::{
    AskError, CallContext, Config, Endpoint, EndpointRef, Handle, HandleSync, HandlerError, Handlers, SendError,
    message,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

/// Says back what it is told.
#[derive(Serialize, Deserialize, Clone)]
struct Echo(Vec<u8>);
message!(Echo as "calls.Echo" => Vec<u8>);

/// Answers with a string of this many bytes.
#[derive(Serialize, Deserialize, Clone)]
struct Fill(usize);
message!(Fill as "calls.Fill" => String);

/// Fails with this text.
#[derive(Serialize, Deserialize, Clone)]
struct Fail(String);
message!(Fail as "calls.Fail" => ());

/// Panics with this text: at once, or after a suspension if that is set.
#[derive(Serialize, Deserialize, Clone)]
struct Panic(String, bool);
message!(Panic as "calls.Panic" => ());

/// How often `on_error` was called, and what it was told last.
#[derive(Serialize, Deserialize, Clone)]
struct Errors;
message!(Errors as "calls.Errors" => (usize, String));

/// Nobody handles it.
#[derive(Serialize, Deserialize, Clone)]
struct Nothing;
message!(Nothing as "calls.Nothing", version 3 => ());

/// As the endpoint knows it.
#[derive(Serialize, Deserialize)]
struct Shape {
    number: u32,
    text: String,
}
message!(Shape as "calls.Shape" => u32);

/// As another program knows it, by mistake: the same name and version, but other fields.
#[derive(Serialize, Deserialize, Clone)]
struct OtherShape {
    text: String,
}
message!(OtherShape as "calls.Shape" => u32);

/// As another program knows it, by mistake: the same fields, but another reply.
#[derive(Serialize, Deserialize, Clone)]
struct OtherReply {
    number: u32,
    text: String,
}
message!(OtherReply as "calls.Shape" => (String, String));

/// A one-way message.
#[derive(Serialize, Deserialize, Clone)]
struct Note(Vec<u8>);
message!(Note as "calls.Note");

#[derive(Default)]
struct Subject {
    errors: usize,
    last: String,
}

impl Endpoint for Subject {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<Echo>().ask_sync::<Fill>().ask::<Fail>().ask::<Panic>().ask_sync::<Errors>();
        handlers.ask_sync::<Shape>().send_sync::<Note>().ask_sync::<Rude>();
    }

    fn on_error(&mut self, error: &HandlerError) {
        self.errors += 1;
        self.last = error.to_string();
    }
}

impl HandleSync<Echo> for Subject {
    fn handle(&mut self, echo: Echo, _: &mut CallContext) -> Result<Vec<u8>, HandlerError> {
        Ok(echo.0)
    }
}

impl HandleSync<Fill> for Subject {
    fn handle(&mut self, fill: Fill, _: &mut CallContext) -> Result<String, HandlerError> {
        Ok("x".repeat(fill.0))
    }
}

impl Handle<Fail> for Subject {
    async fn handle(&mut self, fail: Fail, _: &mut CallContext) -> Result<(), HandlerError> {
        Err(HandlerError::new(fail.0))
    }
}

impl Handle<Panic> for Subject {
    async fn handle(&mut self, panic: Panic, _: &mut CallContext) -> Result<(), HandlerError> {
        if panic.1 {
            yield_once().await;
        }
        std::panic::panic_any(panic.0)
    }
}

impl HandleSync<Errors> for Subject {
    fn handle(&mut self, _: Errors, _: &mut CallContext) -> Result<(usize, String), HandlerError> {
        Ok((self.errors, self.last.clone()))
    }
}

impl HandleSync<Shape> for Subject {
    fn handle(&mut self, shape: Shape, _: &mut CallContext) -> Result<u32, HandlerError> {
        Ok(shape.number + shape.text.len() as u32)
    }
}

impl HandleSync<Note> for Subject {
    fn handle(&mut self, _: Note, _: &mut CallContext) -> Result<(), HandlerError> {
        Ok(())
    }
}

/// Suspends, and is resumed by its own core.
async fn yield_once() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return std::task::Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

/// A message that panics or refuses wherever its name says, when it travels as bytes.
#[derive(Clone, Debug)]
struct Rude(String);
message!(Rude as "calls.Rude" => Rude);

impl Serialize for Rude {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_str() {
            "refuses to be written" => Err(ser::Error::custom("I refuse")),
            "panics when written" => panic!("I panic"),
            text => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for Rude {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Rude, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "refuses to be read" => Err(de::Error::custom("I refuse")),
            "panics when read" => panic!("I panic"),
            text => Ok(Rude(text.to_owned())),
        }
    }
}

impl HandleSync<Rude> for Subject {
    /// Answers with what the part behind a `:` says.
    fn handle(&mut self, rude: Rude, _: &mut CallContext) -> Result<Rude, HandlerError> {
        Ok(Rude(rude.0.split(':').next_back().unwrap_or_default().to_owned()))
    }
}

fn subject(scene: &Scene) -> EndpointRef {
    scene.place("subject", Subject::default)
}

#[test]
fn a_reply_arrives_whatever_its_size() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let subject = subject(scene);
            for size in [0, 1, 127, 128, 129, 5000, 70_000, 1 << 20] {
                let bytes: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
                for outcome in scene.outcomes(&subject, Echo(bytes.clone())) {
                    assert!(outcome.unwrap() == bytes, "{size} bytes");
                }
            }
        });
    });
}

#[test]
fn a_handlers_error_comes_with_its_text_and_its_endpoint_and_on_error_is_told() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let subject = subject(scene);
            for outcome in scene.outcomes(&subject, Fail("out of stamps".into())) {
                let Err(AskError::Handler { target, error }) = outcome else { panic!("{outcome:?}") };
                assert!(target.contains("subject"), "{target}");
                assert_eq!((error.text(), error.is_panic()), ("out of stamps", false));
            }
            assert_eq!(subject.ask_blocking(Errors).unwrap(), (3, "out of stamps".into()));
        });
    });
}

#[test]
fn a_handlers_panic_is_an_error_of_its_ask_and_the_endpoint_lives_on() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let subject = subject(scene);
            for suspend in [false, true] {
                for outcome in scene.outcomes(&subject, Panic("oops".into(), suspend)) {
                    let Err(AskError::Handler { error, .. }) = outcome else { panic!("{outcome:?}") };
                    assert_eq!((error.text(), error.is_panic()), ("oops", true));
                }
            }
            assert_eq!(subject.ask_blocking(Errors).unwrap(), (6, "the handler panicked: oops".into()));
        });
    });
}

#[test]
fn an_endpoint_that_has_stopped_or_never_was_is_no_endpoint() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let subject = subject(scene);
            subject.ask_blocking(Errors).unwrap();
            let own = scene.answering.register_on(scene.core, "other", Subject::default).unwrap();
            let at_answering = if scene.distance.is_remote() {
                scene.answering.endpoint_ref(&subject.uri()).unwrap()
            } else {
                subject.clone()
            };
            let before = eventually(&scene.answering, "the start", |_| true).endpoints;
            assert!(scene.answering.stop(&at_answering));
            eventually(&scene.answering, "the stop", |now| now.endpoints == before - 1);
            for outcome in scene.outcomes(&subject, Errors) {
                let Err(AskError::NoEndpoint { target }) = outcome else { panic!("{outcome:?}") };
                assert!(!target.is_empty());
            }
            own.ask_blocking(Errors).unwrap();
        });
        at(Distance::Peer, config(), |scene| {
            let uri = format!("ringpost://nobody@{}", scene.answering.address().unwrap());
            for outcome in scene.outcomes(&scene.asking.endpoint_ref(&uri).unwrap(), Errors) {
                let Err(AskError::NoEndpoint { target }) = outcome else { panic!("{outcome:?}") };
                assert_eq!(format!("ringpost://{target}"), uri);
            }
        });
    });
}

#[test]
fn an_unknown_message_is_named_with_its_version() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            for outcome in scene.outcomes(&subject(scene), Nothing) {
                let Err(AskError::UnknownMessage { target, message }) = outcome else { panic!("{outcome:?}") };
                assert!(target.contains("subject") && message.contains("calls.Nothing v3"), "{target} {message}");
                assert!(message.contains("calls.Echo v1"), "it says what is handled: {message}");
            }
        });
    });
}

#[test]
fn a_message_with_other_fields_is_undecodable_and_harms_nobody_else() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let subject = subject(scene);
            for text in ["", "a", "a longer text than before"] {
                for outcome in scene.outcomes(&subject, OtherShape { text: text.into() }) {
                    let Err(AskError::Undecodable { target, reason }) = outcome else { panic!("{outcome:?}") };
                    assert!(target.contains("subject") && !reason.is_empty(), "{target} {reason}");
                }
            }
            assert_eq!(subject.ask_blocking(Echo(vec![7])).unwrap(), [7]);
            assert_eq!(scene.asking.snapshot().total().protocol_errors, 0);
        });
    });
}

#[test]
fn a_reply_with_other_fields_is_an_undecodable_reply_and_the_connection_stays() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let subject = subject(scene);
            for outcome in scene.outcomes(&subject, OtherReply { number: 5, text: "abc".into() }) {
                // Inside one env the two message types themselves are told apart, before anything is handled.
                match (outcome, scene.distance.is_remote()) {
                    (Err(AskError::UndecodableReply { target, reason }), true) => {
                        assert!(target.contains("subject") && !reason.is_empty(), "{target} {reason}");
                    }
                    (Err(AskError::Undecodable { .. }), false) => {}
                    (other, _) => panic!("{other:?}"),
                }
            }
            assert_eq!(subject.ask_blocking(Echo(vec![7])).unwrap(), [7]);
            if scene.distance.is_remote() {
                let total = eventually(&scene.asking, "the end of all asks", |now| now.pending_asks == 0);
                assert_eq!((total.dialled, total.connections), (1, 1));
            }
        });
    });
}

#[test]
fn a_message_above_the_receivers_limit_is_unsendable_before_and_after_the_connection_is_there() {
    bounded(|| {
        at_every_distance(Config { max_frame: 8192, ..config() }, |scene| {
            let subject = subject(scene);
            for outcome in scene.outcomes(&subject, Echo(vec![7; 9000])) {
                match (outcome, scene.distance.is_remote()) {
                    (Err(AskError::Unsendable { target, reason }), true) => {
                        assert!(target.contains("subject") && reason.contains("max_frame"), "{target} {reason}");
                    }
                    // No frame is made inside an env.
                    (Ok(bytes), false) => assert_eq!(bytes.len(), 9000),
                    (other, _) => panic!("{other:?}"),
                }
            }
            if scene.distance.is_remote() {
                let (note, there) = (Note(vec![0; 9000]), subject.clone());
                let sent = scene.run(move || async move { there.send(note) });
                assert!(matches!(sent, Err(SendError::Unsendable { .. })), "{sent:?}");
                let late = common::client(1);
                let outcome = common::seen_from(&late, &subject).ask_blocking(Echo(vec![7; 9000]));
                let Err(AskError::Unsendable { target, reason }) = outcome else { panic!("{outcome:?}") };
                assert!(reason.contains("max_frame") && reason.contains("8192"), "{reason}");
                assert!(target.contains("subject"), "{target}");
                common::end(&late);
            }
            assert_eq!(subject.ask_blocking(Echo(vec![7; 7000])).unwrap().len(), 7000);
        });
    });
}

#[test]
fn a_reply_above_the_askers_limit_is_a_bad_reply() {
    bounded(|| {
        at_every_distance(Config { max_frame: 8192, ..config() }, |scene| {
            let subject = subject(scene);
            for outcome in scene.outcomes(&subject, Fill(9000)) {
                match (outcome, scene.distance.is_remote()) {
                    (Err(AskError::BadReply { target, reason }), true) => {
                        assert!(target.contains("subject") && reason.contains("max_frame"), "{target} {reason}");
                    }
                    (Ok(text), false) => assert_eq!(text.len(), 9000),
                    (other, _) => panic!("{other:?}"),
                }
            }
            assert_eq!(subject.ask_blocking(Fill(7000)).unwrap().len(), 7000);
        });
    });
}

/// What becomes of an ask over the wire whose message or reply refuses, or panics, on its way.
const RUDE: [(&str, &str); 8] = [
    ("refuses to be written", "Unsendable"),
    ("refuses to be read", "Undecodable"),
    ("polite:refuses to be written", "BadReply"),
    ("polite:refuses to be read", "UndecodableReply"),
    ("panics when written", "Unsendable"),
    ("panics when read", "Undecodable"),
    ("polite:panics when written", "BadReply"),
    ("polite:panics when read", "UndecodableReply"),
];

#[test]
fn a_serialiser_that_refuses_or_panics_fails_its_own_ask_only() {
    bounded(|| {
        for distance in [Distance::Peer, Distance::PeerLane] {
            at(distance, Config { ask_timeout: Duration::from_secs(3), ..config() }, |scene| {
                let subject = subject(scene);
                for (text, expected) in RUDE {
                    let outcome = subject.ask_blocking(Rude(text.into()));
                    let outcome = outcome.map(|reply| reply.0).map_err(|error| kind(&error));
                    assert_eq!(outcome, Err(expected.to_owned()), "{text}");
                    assert_eq!(subject.ask_blocking(Echo(vec![7])).unwrap(), [7], "after {text}");
                }
            });
        }
    });
}

#[test]
fn ask_blocking_on_a_core_is_an_error_at_once() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let subject = subject(scene);
            let there = subject.clone();
            let outcome = scene.run(move || async move {
                [
                    there.ask_blocking(Errors).map(|_| ()),
                    there.ask_blocking_within(Errors, Duration::from_secs(1)).map(|_| ()),
                ]
            });
            assert_eq!(outcome, [Err(AskError::BlockingOnCore), Err(AskError::BlockingOnCore)]);
            assert_eq!(eventually(&scene.answering, "nothing", |_| true).handled, handled_by_scene(scene));
        });
    });
}

/// What the scene itself has asked: where a connection lives.
fn handled_by_scene(scene: &Scene) -> u64 {
    u64::from(scene.distance.is_remote())
}

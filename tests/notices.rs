//! A message that goes wrong leaves a trace: a counter, `on_error`, and a line of log with the endpoint and the sender.

mod common;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use common::echo::alone;
use common::gate::{Event, Gate, pass};
use common::log;
use common::log::Line;
use common::scene::{Distance, Scene, at_every_distance};
use common::{LIMIT, bounded, config, eventually, kind};
use ringpost::{
    CallContext, Config, Endpoint, EndpointRef, Handle, HandleShared, HandleSync, HandlerError, Handlers, message,
};
use serde::{Deserialize, Serialize};
use tracing::Level;

/// Answered, if it is an ask.
#[derive(Serialize, Deserialize, Clone)]
struct Question(u32);
message!(Question as "notices.Question" => u32);

/// What a sender with other definitions takes a question for.
#[derive(Serialize, Deserialize, Clone)]
struct QuestionOneWay(u32);
message!(QuestionOneWay as "notices.Question");

/// Taken, if it is one-way.
#[derive(Serialize, Deserialize, Clone)]
struct Note(u32);
message!(Note as "notices.Note");

#[derive(Serialize, Deserialize, Clone)]
struct NoteAsked(u32);
message!(NoteAsked as "notices.Note" => ());

/// Waits at the gate; handled beside others.
#[derive(Serialize, Deserialize, Clone)]
struct Linger(u64);
message!(Linger as "notices.Linger" => ());

#[derive(Serialize, Deserialize, Clone)]
struct LingerOneWay(u64);
message!(LingerOneWay as "notices.Linger");

/// Nobody handles it.
#[derive(Serialize, Deserialize, Clone)]
struct Stranger;
message!(Stranger as "notices.Stranger");

#[derive(Serialize, Deserialize, Clone)]
struct StrangerAsked;
message!(StrangerAsked as "notices.StrangerAsked" => ());

/// Waits at the gate, and keeps its endpoint.
#[derive(Serialize, Deserialize, Clone)]
struct Hold(u64);
message!(Hold as "notices.Hold");

/// Fails, by a panic if it says so.
#[derive(Serialize, Deserialize, Clone)]
struct Fail(bool);
message!(Fail as "notices.Fail" => ());

/// What a sender with other definitions takes a [`Fail`] for.
#[derive(Serialize, Deserialize, Clone)]
struct FailOfOthers(String);
message!(FailOfOthers as "notices.Fail" => ());

struct Subject(Sender<String>);

impl Endpoint for Subject {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<Question>().send_sync::<Note>().send::<Hold>().ask_sync::<Fail>();
        handlers.ask_shared::<Linger>().concurrency(2);
    }

    fn on_error(&mut self, error: &HandlerError) {
        let _ = self.0.send(error.to_string());
    }
}

impl HandleSync<Question> for Subject {
    fn handle(&mut self, Question(number): Question, _: &mut CallContext) -> Result<u32, HandlerError> {
        Ok(number)
    }
}

impl HandleSync<Note> for Subject {
    fn handle(&mut self, _: Note, _: &mut CallContext) -> Result<(), HandlerError> {
        Ok(())
    }
}

impl Handle<Hold> for Subject {
    async fn handle(&mut self, Hold(gate): Hold, _: &mut CallContext) -> Result<(), HandlerError> {
        pass(gate).await;
        Ok(())
    }
}

impl HandleShared<Linger> for Subject {
    async fn handle(&self, Linger(gate): Linger, _: &mut CallContext) -> Result<(), HandlerError> {
        pass(gate).await;
        Ok(())
    }
}

impl HandleSync<Fail> for Subject {
    fn handle(&mut self, Fail(panics): Fail, _: &mut CallContext) -> Result<(), HandlerError> {
        if panics { panic!("as asked") } else { Err(HandlerError::new("no money")) }
    }
}

fn place(scene: &Scene) -> (EndpointRef, Receiver<String>) {
    let (tell, told) = channel();
    (scene.place("subject", move || Subject(tell)), told)
}

/// How the log names the sender: the asking env, or core 0 of the same one.
fn sender(scene: &Scene) -> &'static str {
    if scene.distance.is_remote() { "peer=\"asker\" (" } else { "peer=core 0 " }
}

/// The lines with this text, each of which names the endpoint, its env and the sender.
fn lines(scene: &Scene, what: &str) -> Vec<Line> {
    let lines: Vec<_> = log::take_lines().into_iter().filter(|line| line.text.contains(what)).collect();
    let node = if scene.distance.is_remote() { "node=\"server\"" } else { "node=\"both\"" };
    for line in &lines {
        assert_eq!(line.target, "ringpost::endpoint", "{line:?}");
        for part in [node, "endpoint=\"subject\"", sender(scene)] {
            assert!(line.text.contains(part), "{part} in {line:?}");
        }
    }
    lines
}

#[track_caller]
fn expect_lines(scene: &Scene, what: &str, level: Level, part: &str) {
    let lines = lines(scene, what);
    assert!(!lines.is_empty(), "no line says {what:?}");
    for line in lines {
        assert!(line.level == level && line.text.contains(part), "{part} in {line:?}");
    }
}

/// Sends from the asking core, so that the log can name it.
fn send<M: ringpost::OneWay + Clone>(scene: &Scene, to: &EndpointRef, message: M, times: usize) {
    let to = to.clone();
    scene.run(move || async move { (0..times).for_each(|_| to.send(message.clone()).unwrap()) });
}

#[test]
fn a_message_that_nobody_handles_is_counted_told_to_on_error_and_warned_of() {
    let _alone = alone();
    bounded(|| {
        at_every_distance(config(), |scene| {
            log::keep_debug();
            let began = Instant::now();
            let (subject, told) = place(scene);
            assert_eq!(subject.ask_blocking(Question(7)), Ok(7));
            let before = eventually(&scene.answering, "a look", |_| true);
            assert_eq!(before.unknown_messages, 0);
            send(scene, &subject, Stranger, 20);
            for _ in 0..20 {
                let error = told.recv_timeout(LIMIT).unwrap();
                assert!(error.starts_with("no handler for message id 0x"), "{error}");
                assert!(error.contains("it handles: notices.Question v1, notices.Note v1"), "{error}");
            }
            let there = subject.clone();
            let asked = scene.run(move || async move { there.ask(StrangerAsked).await });
            assert_eq!(kind(&asked.unwrap_err()), "UnknownMessage");
            told.recv_timeout(LIMIT).unwrap();
            let after = eventually(&scene.answering, "all are counted", |now| now.unknown_messages == 21);
            assert_eq!(after.handled, before.handled, "none of them was handled");
            let lines = lines(scene, "nobody handles a message");
            let most = 1 + began.elapsed().as_secs() as usize;
            assert!((1..=most).contains(&lines.len()), "at most one a second: {lines:?}");
            assert!(lines.iter().all(|line| line.level == Level::WARN && line.text.contains("it handles: ")));
        });
    });
}

/// An endpoint with a handler for each of these messages, which does nothing.
macro_rules! wide {
    ($($name:ident as $wire:literal),*) => {
        $(
            #[derive(Serialize, Deserialize)]
            struct $name;
            message!($name as $wire);
            impl HandleSync<$name> for Wide {
                fn handle(&mut self, _: $name, _: &mut CallContext) -> Result<(), HandlerError> {
                    Ok(())
                }
            }
        )*
        struct Wide;
        impl Endpoint for Wide {
            fn handlers(handlers: &mut Handlers<Self>) {
                handlers$(.send_sync::<$name>())*;
            }
        }
    };
}

wide!(
    W0 as "wide.0", W1 as "wide.1", W2 as "wide.2", W3 as "wide.3", W4 as "wide.4", W5 as "wide.5", W6 as "wide.6",
    W7 as "wide.7", W8 as "wide.8", W9 as "wide.9"
);

#[test]
fn whoever_asks_what_nobody_handles_is_told_eight_handlers_at_most() {
    let _alone = alone();
    bounded(|| {
        at_every_distance(config(), |scene| {
            let wide = scene.place("wide", || Wide);
            let refused = scene.run(move || async move { wide.ask(StrangerAsked).await }).unwrap_err().to_string();
            let named = "wide.0 v1, wide.1 v1, wide.2 v1, wide.3 v1, wide.4 v1, wide.5 v1, wide.6 v1, wide.7 v1";
            assert!(refused.ends_with(&format!("it handles: {named} and 2 more")), "{refused}");
        });
    });
}

#[test]
fn a_message_in_the_other_kind_of_request_is_one_that_nobody_handles() {
    let _alone = alone();
    bounded(|| {
        at_every_distance(config(), |scene| {
            log::keep_debug();
            let (subject, told) = place(scene);
            send(scene, &subject, QuestionOneWay(1), 1);
            let error = told.recv_timeout(LIMIT).unwrap();
            assert_eq!(error, "no handler for notices.Question v1 as a one-way message; here it is an ask");
            let there = subject.clone();
            let asked = scene.run(move || async move { there.ask(NoteAsked(1)).await }).unwrap_err();
            assert_eq!(kind(&asked), "UnknownMessage");
            assert!(asked.to_string().ends_with("notices.Note v1 as an ask; here it is a one-way message"), "{asked}");
            told.recv_timeout(LIMIT).unwrap();
            // While others are in flight `on_error` waits, since it needs the endpoint alone.
            let mut gate = Gate::new();
            let lingering = subject.ask(Linger(gate.id));
            gate.expect(Event::Entered);
            let never = Gate::new();
            send(scene, &subject, LingerOneWay(never.id), 1);
            eventually(&scene.answering, "it is refused", |now| now.unknown_messages == 3);
            assert!(told.try_recv().is_err() && never.is_untouched());
            gate.open();
            common::echo::within(lingering).unwrap();
            assert!(told.recv_timeout(LIMIT).unwrap().contains("notices.Linger v1 as a one-way message"));
            assert_eq!(subject.ask_blocking(Question(7)), Ok(7), "it serves on");
        });
    });
}

#[test]
fn the_first_one_way_message_that_a_full_inbox_drops_is_warned_of() {
    let _alone = alone();
    bounded(|| {
        at_every_distance(Config { inbox_messages: 2, ..config() }, |scene| {
            log::keep_debug();
            let (subject, _told) = place(scene);
            let mut gate = Gate::new();
            send(scene, &subject, Hold(gate.id), 1);
            gate.expect(Event::Entered);
            let there = subject.clone();
            let refused = scene.run(move || async move { (0..6).filter(|n| there.send(Note(*n)).is_err()).count() });
            if scene.distance == Distance::Local {
                assert_eq!(refused, 4, "its sender is told");
            } else {
                assert_eq!(refused, 0);
                eventually(&scene.answering, "four are dropped", |now| now.overloaded_inbox == 4);
                expect_lines(scene, "a one-way message is dropped", Level::WARN, "Config::inbox_messages");
            }
            gate.open();
        });
    });
}

#[test]
fn an_error_of_a_handler_is_logged_for_debugging_and_a_panic_or_an_undecodable_message_as_a_warning() {
    let _alone = alone();
    bounded(|| {
        at_every_distance(config(), |scene| {
            log::keep_debug();
            let (subject, _told) = place(scene);
            let ask = |message: Fail| {
                let there = subject.clone();
                scene.run(move || async move { there.ask(message).await }).unwrap_err()
            };
            assert_eq!(kind(&ask(Fail(false))), "Handler");
            expect_lines(scene, "a handler failed", Level::DEBUG, "no money");
            assert_eq!(kind(&ask(Fail(true))), "Handler");
            expect_lines(scene, "a handler panicked", Level::WARN, "message_type=\"notices.Fail\"");
            let there = subject.clone();
            let undecodable = scene.run(move || async move { there.ask(FailOfOthers("wide".into())).await });
            assert_eq!(kind(&undecodable.unwrap_err()), "Undecodable");
            expect_lines(scene, "could not be decoded", Level::WARN, "message_type=\"notices.Fail\"");
            let counted = eventually(&scene.answering, "it is counted", |now| now.undecodable_messages == 1);
            // The scene has asked where it is, if it has a peer.
            assert_eq!(counted.handled, 2 + u64::from(scene.distance.is_remote()));
        });
    });
}

/// The calls of `tracing` in a file of the library, each with what follows it.
fn log_calls(source: &str) -> impl Iterator<Item = &str> {
    let levels = ["error!(", "warn!(", "info!(", "debug!(", "trace!("];
    let calls = source.split("tracing::").skip(1);
    calls.filter_map(move |call| levels.iter().find_map(|level| call.strip_prefix(level))).map(str::trim_start)
}

/// Has each call of `tracing` in the library judged; true if it is as it should be.
fn check_calls(folder: &std::path::Path, judge: fn(&str) -> bool) -> usize {
    let mut calls = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            calls += check_calls(&path, judge);
            continue;
        }
        let source = std::fs::read_to_string(&path).unwrap();
        for call in log_calls(&source) {
            let call = call.split_once(");").expect("a call ends").0;
            assert!(judge(call), "{}: {call}", path.display());
            calls += 1;
        }
    }
    calls
}

fn library() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

#[test]
fn every_line_of_the_log_has_a_target_that_the_guide_names() {
    let has_target = |call: &str| {
        let targets = ["env", "core", "connection", "endpoint"].map(|name| format!("target: \"ringpost::{name}\","));
        call.starts_with("target: TARGET,") || targets.iter().any(|target| call.starts_with(target))
    };
    assert!(check_calls(&library(), has_target) > 20, "the calls are found");
}

#[test]
fn every_line_of_the_log_that_names_a_peer_does_it_by_one_field_as_it_is_shown() {
    let names_peer = |call: &str| {
        let rest = call.replace("peer = %peer", "").replace("peer = %", "");
        let others = ["peer", "%peer", "?peer", "teller", "?event", "%sender", "%remote", "remote"];
        !rest.split([',', ' ', '\n']).any(|word| others.contains(&word))
    };
    assert!(check_calls(&library(), names_peer) > 20, "the calls are found");
}

//! The trace of each ask and each one-way message.

mod common;

use std::fmt::{self, Write};
use std::sync::Mutex;

use common::echo::{Echoing, Note, cut, echo_blocking};
use common::{bounded, client, eventually, seen_from, serving};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

static EVENTS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps the events with the target of the trace.
struct Keeper;

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = write!(self.0, "{}={value:?} ", field.name());
    }
}

impl Subscriber for Keeper {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "ringpost::rpc"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        assert_eq!(*event.metadata().level(), Level::TRACE);
        let mut line = Line(String::new());
        event.record(&mut line);
        EVENTS.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn count(parts: &[&str]) -> usize {
    EVENTS.lock().unwrap().iter().filter(|line| parts.iter().all(|part| line.contains(part))).count()
}

#[test]
fn each_message_is_traced_where_it_is_asked_and_where_it_is_handled() {
    tracing::subscriber::set_global_default(Keeper).unwrap();
    bounded(|| {
        let (env, asking) = (serving(2, common::config()), client(1));
        let near = env.register_on(0, "echo", || Echoing).unwrap();
        let far = seen_from(&asking, &near);
        let there = near.clone();
        let echo = common::echo::Echo { payload: bytes::Bytes::new() };
        let (here, elsewhere) = (echo.clone(), echo);
        env.spawn_on(0, move || async move { near.ask(here).await }).unwrap().join().unwrap().unwrap();
        env.spawn_on(1, move || async move { there.ask(elsewhere).await }).unwrap().join().unwrap().unwrap();
        echo_blocking(&far, 1, 10).unwrap();
        far.send(Note { payload: bytes::Bytes::new() }).unwrap();
        eventually(&env, "the note has arrived", |now| now.handled >= 4);

        let (echo, note) = ("message_type=\"test.Echo\"", "message_type=\"test.Note\"");
        let to = format!("to=\"echo@{}\"", env.address().unwrap());
        assert_eq!(count(&["message=asked", echo, &to]), 3);
        assert_eq!(count(&["message=asked", echo, &to, "core=1"]), 1);
        assert_eq!(count(&["message=sent", note, &to]), 1);
        // From a peer: over a connection of this core, or passed on by the other one.
        let handled = ["message=handled", "endpoint=\"echo\"", "core=0"];
        let from = |origin| count(&[handled.as_slice(), &["message_type=test.Echo", origin]].concat());
        assert_eq!([from("from=Here"), from("from=Core(1)"), from("from=P")], [1, 1, 1]);
        assert_eq!(count(&[handled.as_slice(), &["message_type=test.Note", "from=P"]].concat()), 1);
        cut([asking, env]);
    });
}

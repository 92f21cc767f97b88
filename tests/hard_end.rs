//! An env that ends by the deadline of its shutdown says what it leaves undone.

mod common;

use std::time::Duration;

use common::echo::{alone, within};
use common::gate::{Event, Gate, pass};
use common::log::{self, Line};
use common::{LIMIT, bounded, client, end, eventually, seen_from, server, uri};
use ringpost::{CallContext, Endpoint, Handle, HandleSync, HandlerError, Handlers, message};
use serde::{Deserialize, Serialize};
use tracing::Level;

/// Waits at a gate.
#[derive(Serialize, Deserialize)]
struct Wait(u64);
message!(Wait as "hard.Wait" => ());

#[derive(Serialize, Deserialize)]
struct Ping;
message!(Ping as "hard.Ping" => ());

struct Worker;

impl Endpoint for Worker {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask::<Wait>().ask_sync::<Ping>();
    }
}

impl Handle<Wait> for Worker {
    async fn handle(&mut self, wait: Wait, _: &mut CallContext) -> Result<(), HandlerError> {
        pass(wait.0).await;
        Ok(())
    }
}

impl HandleSync<Ping> for Worker {
    fn handle(&mut self, _: Ping, _: &mut CallContext) -> Result<(), HandlerError> {
        Ok(())
    }
}

fn hard_ends() -> Vec<Line> {
    log::take_lines().into_iter().filter(|line| line.text.contains("the deadline of the shutdown")).collect()
}

#[test]
fn a_shutdown_that_ends_by_its_deadline_warns_once_of_what_was_left() {
    let _alone = alone();
    bounded(|| {
        let (env, other) = (server(2), client(1));
        let near = env.register_on(1, "worker", || Worker).unwrap();
        env.register_on(0, "idle", || Worker).unwrap();
        let far = seen_from(&other, &near);
        let gate = Gate::new();
        let running = near.ask(Wait(gate.id));
        gate.expect(Event::Entered);
        let queued = [far.ask(Ping), far.ask(Ping)];
        eventually(&env, "the queue", |now| now.inbox_messages == 2);
        log::keep();
        env.shutdown(Duration::from_millis(300));
        assert!(env.await_termination_within(LIMIT).unwrap());
        let told = hard_ends();
        let [line] = &told[..] else { panic!("{told:?}") };
        assert_eq!((line.level, line.target), (Level::WARN, "ringpost::env"));
        for part in ["env=\"server\"", "endpoints=worker on core 1 ", "core 1: 2 inbox_messages", "1 connections"] {
            assert!(line.text.contains(part), "{part} in {line:?}");
        }
        assert!(!line.text.contains("idle") && !line.text.contains("verifier"), "they have ended: {line:?}");
        assert!(within(running).is_err());
        queued.into_iter().for_each(|ask| assert!(within(ask).is_err()));
        end(&other);
    });
}

#[test]
fn a_shutdown_that_ends_in_time_warns_of_nothing() {
    let _alone = alone();
    bounded(|| {
        let (env, other) = (server(2), client(1));
        env.register_on(0, "worker", || Worker).unwrap();
        let worker = other.endpoint_ref(&uri(&env, "worker")).unwrap();
        assert_eq!(worker.ask_blocking(Ping), Ok(()));
        log::keep();
        end(&env);
        end(&other);
        assert_eq!(hard_ends().len(), 0);
    });
}

//! An ask that ends early, by its timeout or because nobody wants it any more, leaves nothing behind on either side.

mod common;

use std::time::{Duration, Instant};

use common::gate::{Event, Gate, pass};
use common::scene::{Scene, at_every_distance};
use common::{bounded, config, eventually};
use futures::executor::block_on;
use ringpost::{AskError, CallContext, Config, Endpoint, Handle, HandleSync, HandlerError, Handlers, message};
use serde::{Deserialize, Serialize};

/// Waits at a gate.
#[derive(Serialize, Deserialize)]
struct Wait(u64);
message!(Wait as "giving_up.Wait" => ());

/// How many messages were handled before.
#[derive(Serialize, Deserialize)]
struct Count;
message!(Count as "giving_up.Count" => u32);

#[derive(Default)]
struct Worker {
    handled: u32,
}

impl Endpoint for Worker {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask::<Wait>().ask_sync::<Count>();
    }
}

impl Handle<Wait> for Worker {
    async fn handle(&mut self, wait: Wait, _: &mut CallContext) -> Result<(), HandlerError> {
        self.handled += 1;
        pass(wait.0).await;
        Ok(())
    }
}

impl HandleSync<Count> for Worker {
    fn handle(&mut self, _: Count, _: &mut CallContext) -> Result<u32, HandlerError> {
        self.handled += 1;
        Ok(self.handled - 1)
    }
}

const SHORT: Duration = Duration::from_millis(40);

/// Both sides have forgotten the asks, and the answering side has counted this many as given up.
fn nothing_is_left(scene: &Scene, cancelled: u64) {
    eventually(&scene.asking, "the end of all asks", |now| now.pending_asks == 0);
    let total = eventually(&scene.answering, "the cancellation", |now| now.cancelled == cancelled);
    assert_eq!(total.expired, 0);
}

#[test]
fn a_timeout_names_the_endpoint_the_time_and_the_setting_and_stops_the_handler() {
    bounded(|| {
        at_every_distance(Config { ask_timeout: SHORT, ..config() }, |scene| {
            let worker = scene.place("worker", Worker::default);
            for (own, limit) in [(false, SHORT), (true, SHORT * 2)] {
                let gates = [Gate::new(), Gate::new()];
                let ids = [gates[0].id, gates[1].id];
                let began = Instant::now();
                let there = worker.clone();
                let on_core = scene.run(move || async move {
                    if own { there.ask_within(Wait(ids[0]), limit).await } else { there.ask(Wait(ids[0])).await }
                });
                assert!(began.elapsed() >= limit, "after {:?}", began.elapsed());
                let outside = match own {
                    true => worker.ask_blocking_within(Wait(ids[1]), limit),
                    false => worker.ask_blocking(Wait(ids[1])),
                };
                for (outcome, gate) in [on_core, outside].into_iter().zip(&gates) {
                    let Err(AskError::Timeout { target, after, setting }) = outcome else { panic!("{outcome:?}") };
                    assert!(target.contains("worker"), "{target}");
                    assert_eq!(after, limit);
                    assert_eq!(setting.contains("Config::ask_timeout"), !own, "{setting}");
                    gate.expect(Event::Entered);
                    gate.expect(Event::Dropped);
                }
            }
            nothing_is_left(scene, 4);
            assert_eq!(worker.ask_blocking_within(Count, common::LIMIT).unwrap(), 4, "the endpoint lives on");
        });
    });
}

#[test]
#[expect(clippy::async_yields_async, reason = "the ask itself leaves its core")]
fn a_dropped_ask_frees_its_slot_at_once_and_its_handler_is_stopped() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let worker = scene.place("worker", Worker::default);
            // The very first ask of this ref, whose name no reply has resolved yet.
            let gate = Gate::new();
            let (there, id) = (worker.clone(), gate.id);
            let ask = scene.run(move || async move { there.ask(Wait(id)) });
            gate.expect(Event::Entered);
            assert_eq!(eventually(&scene.asking, "the ask", |_| true).pending_asks, 1);
            // Its core made it; this thread drops it.
            drop(ask);
            gate.expect(Event::Dropped);
            nothing_is_left(scene, 1);
            assert_eq!(worker.ask_blocking(Count).unwrap(), 1);

            // Made and dropped by the core; made and dropped by a thread.
            let gate = Gate::new();
            let (there, id) = (worker.clone(), gate.id);
            let ask = scene.run(move || async move { there.ask(Wait(id)) });
            gate.expect(Event::Entered);
            scene.run(move || async move { drop(ask) });
            gate.expect(Event::Dropped);
            nothing_is_left(scene, 2);
            let gate = Gate::new();
            let ask = worker.ask(Wait(gate.id));
            gate.expect(Event::Entered);
            drop(ask);
            gate.expect(Event::Dropped);
            nothing_is_left(scene, 3);
            assert_eq!(worker.ask_blocking(Count).unwrap(), 4);
        });
    });
}

#[test]
fn a_queued_ask_that_nobody_wants_any_more_is_never_handled() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let worker = scene.place("worker", Worker::default);
            assert_eq!(worker.ask_blocking(Count).unwrap(), 0);
            let mut gate = Gate::new();
            let running = worker.ask(Wait(gate.id));
            gate.expect(Event::Entered);
            let (dropped, late) = (Gate::new(), Gate::new());
            let unwanted = worker.ask(Wait(dropped.id));
            eventually(&scene.answering, "it is queued", |now| now.inbox_messages == 1);
            drop(unwanted);
            let outcome = worker.ask_blocking_within(Wait(late.id), SHORT);
            assert!(matches!(outcome, Err(AskError::Timeout { .. })), "{outcome:?}");
            let kept = worker.ask(Count);
            eventually(&scene.answering, "both cancellations", |now| now.cancelled == 2);
            gate.open();
            block_on(running).unwrap();
            assert_eq!(block_on(kept).unwrap(), 2);
            assert!(dropped.is_untouched() && late.is_untouched());
            nothing_is_left(scene, 2);
        });
    });
}

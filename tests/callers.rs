//! Asks from anywhere: plain threads, other executors, other threads than the one that asked; and refs that travel.

mod common;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::mpsc::channel;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use common::gate::{Event, Gate, pass};
use common::scene::at_every_distance;
use common::{bounded, client, config, end, eventually, seen_from, server};
use futures::executor::block_on;
use ringpost::{AskError, CallContext, Endpoint, EndpointRef, Handle, HandlerError, Handlers, RpcEnv, message};
use serde::{Deserialize, Serialize};

/// Answers with twice the number, through a gate if one is given.
#[derive(Serialize, Deserialize, Clone)]
struct Double(u64, Option<u64>);
message!(Double as "callers.Double" => u64);

struct Doubler;

impl Endpoint for Doubler {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask::<Double>();
    }
}

impl Handle<Double> for Doubler {
    async fn handle(&mut self, double: Double, _: &mut CallContext) -> Result<u64, HandlerError> {
        if let Some(gate) = double.1 {
            pass(gate).await;
        }
        Ok(double.0 * 2)
    }
}

/// Many asks at once, each checked.
async fn many(doubler: EndpointRef) -> Result<(), AskError> {
    let asks: Vec<_> = (0..300).map(|number| doubler.ask(Double(number, None))).collect();
    for (number, ask) in asks.into_iter().enumerate() {
        assert_eq!(ask.await?, number as u64 * 2);
    }
    Ok(())
}

#[test]
fn plain_threads_ask_and_await_alike() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let doubler = scene.place("doubler", || Doubler);
            thread::scope(|threads| {
                for number in 0..4 {
                    let doubler = &doubler;
                    threads.spawn(move || {
                        for round in 0..50 {
                            assert_eq!(doubler.ask_blocking(Double(number * round, None)).unwrap(), number * round * 2);
                        }
                        block_on(many(doubler.clone())).unwrap();
                    });
                }
            });
            eventually(&scene.asking, "the end of all asks", |now| now.pending_asks == 0);
        });
    });
}

#[test]
fn a_multi_threaded_tokio_runtime_asks() {
    bounded(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
        at_every_distance(config(), |scene| {
            let doubler = scene.place("doubler", || Doubler);
            runtime.block_on(async {
                let tasks: Vec<_> = (0..8).map(|_| tokio::spawn(many(doubler.clone()))).collect();
                for task in tasks {
                    task.await.unwrap().unwrap();
                }
                // Its own timeout drops the ask, and the handler is stopped.
                let gate = Gate::new();
                let ask = doubler.ask(Double(1, Some(gate.id)));
                assert!(tokio::time::timeout(Duration::from_millis(40), ask).await.is_err());
                gate.expect(Event::Entered);
                gate.expect(Event::Dropped);
            });
            eventually(&scene.asking, "the end of all asks", |now| now.pending_asks == 0);
        });
    });
}

#[cfg(feature = "tokio-uring")]
#[test]
fn a_tokio_uring_runtime_asks() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let doubler = scene.place("doubler", || Doubler);
            tokio_uring::start(async {
                many(doubler.clone()).await.unwrap();
                let tasks: Vec<_> = (0..4).map(|_| tokio_uring::spawn(many(doubler.clone()))).collect();
                for task in tasks {
                    task.await.unwrap().unwrap();
                }
                assert_eq!(doubler.ask_blocking(Double(4, None)).unwrap(), 8, "its thread is no core of an env");
            });
        });
    });
}

#[test]
#[expect(clippy::async_yields_async, reason = "the ask itself leaves its core")]
fn an_ask_made_on_a_core_can_be_awaited_elsewhere() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let doubler = scene.place("doubler", || Doubler);
            // The answer comes before or after the ask has moved, which its core has polled before or not.
            for (polled, answered) in [(false, false), (true, false), (false, true), (true, true)] {
                let mut gate = Gate::new();
                let (there, id) = (doubler.clone(), gate.id);
                let ask = scene.run(move || async move {
                    let mut ask = there.ask(Double(21, Some(id)));
                    if polled {
                        poll_fn(|cx| Poll::Ready(Pin::new(&mut ask).poll(cx).is_pending())).await;
                    }
                    ask
                });
                gate.expect(Event::Entered);
                if answered {
                    gate.open();
                    gate.expect(Event::Passed);
                    assert_eq!(block_on(ask).unwrap(), 42);
                } else {
                    let waiting = thread::spawn(move || block_on(ask));
                    gate.open();
                    assert_eq!(waiting.join().unwrap().unwrap(), 42);
                }
            }
            eventually(&scene.asking, "the end of all asks", |now| now.pending_asks == 0);
        });
    });
}

#[test]
fn an_ask_made_elsewhere_can_be_awaited_on_a_core() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let doubler = scene.place("doubler", || Doubler);
            let mut gate = Gate::new();
            let ask = doubler.ask(Double(21, Some(gate.id)));
            let (polling, polled) = channel();
            let waiting = scene.asking.spawn_on(0, move || async move {
                polling.send(()).unwrap();
                ask.await
            });
            polled.recv_timeout(common::LIMIT).unwrap();
            gate.open();
            assert_eq!(waiting.unwrap().join().unwrap().unwrap(), 42);
        });
    });
}

/// Passes an ask on to the endpoint that it names, and answers with a ref to it.
#[derive(Serialize, Deserialize)]
struct Via {
    to: EndpointRef,
    number: u64,
}
message!(Via as "callers.Via" => (u64, EndpointRef));

struct Relay;

impl Endpoint for Relay {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask::<Via>();
    }
}

impl Handle<Via> for Relay {
    async fn handle(&mut self, via: Via, _: &mut CallContext) -> Result<(u64, EndpointRef), HandlerError> {
        Ok((via.to.ask(Double(via.number, None)).await?, via.to))
    }
}

#[test]
fn refs_travel_in_messages_and_replies() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let relay = scene.place("relay", || Relay);
            // The endpoint that is meant lives with the relay, or somewhere else.
            let third = server(1);
            let elsewhere = third.register("doubler", || Doubler).unwrap();
            let here = scene.place("doubler", || Doubler);
            for to in [here, seen_from(&scene.asking, &elsewhere)] {
                let (there, named) = (relay.clone(), to.clone());
                let travelled = scene.run(move || async move { there.ask(Via { to: named, number: 4 }).await });
                let (number, back) = travelled.unwrap();
                assert_eq!((number, back.ask_blocking(Double(5, None)).unwrap()), (8, 10));
                assert_eq!(back.uri(), to.uri());
                assert_eq!(back, to);
            }
            end(&third);
        });
    });
}

#[test]
fn a_key_travels_with_its_ref() {
    bounded(|| {
        let (env, other) = (server(2), server(1));
        let relay = other.register("relay", || Relay).unwrap();
        let everywhere = env.register_per_core("everywhere", |_| Doubler).unwrap();
        let near = seen_from(&env, &relay);
        for key in 0..4 {
            let to = everywhere.by_key(key);
            let named = Via { to: to.clone(), number: key };
            let (number, back) = near.ask_blocking(named).unwrap();
            assert_eq!((number, back == to, back == everywhere), (key * 2, true, false));
        }
        end(&other);
        end(&env);
    });
}

#[test]
fn a_reply_with_a_ref_reaches_a_thread_that_is_no_core() {
    bounded(|| {
        let (env, other) = (server(1), client(1));
        let relay = seen_from(&other, &env.register("relay", || Relay).unwrap());
        let to = seen_from(&other, &env.register("doubler", || Doubler).unwrap());
        let (number, back) = relay.ask_blocking(Via { to, number: 3 }).unwrap();
        assert_eq!((number, back.ask_blocking(Double(1, None)).unwrap()), (6, 2));
        end_all(&[other, env]);
    });
}

fn end_all(envs: &[RpcEnv]) {
    envs.iter().for_each(end);
}

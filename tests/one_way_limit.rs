//! The handler of a one-way message, which nobody gives up, ends by a limit of its own.

mod common;

use std::time::Duration;

use common::gate::{Event, Gate, pass};
use common::scene::at_every_distance;
use common::{LIMIT, bounded, client, config, end, eventually, seen_from, server};
use ringpost::{CallContext, Config, Endpoint, Handle, HandleShared, HandleSync, HandlerError, Handlers, message};
use serde::{Deserialize, Serialize};

/// Waits at the gate, and keeps its endpoint.
#[derive(Serialize, Deserialize, Clone)]
struct Hold(u64);
message!(Hold as "limit.Hold");

/// Waits at the gate, beside others.
#[derive(Serialize, Deserialize, Clone)]
struct Linger(u64);
message!(Linger as "limit.Linger");

/// The same as an ask.
#[derive(Serialize, Deserialize, Clone)]
struct Stay(u64);
message!(Stay as "limit.Stay" => ());

#[derive(Serialize, Deserialize, Clone)]
struct Ping;
message!(Ping as "limit.Ping" => ());

struct Subject;

impl Endpoint for Subject {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.send::<Hold>().send_shared::<Linger>().ask::<Stay>().ask_sync::<Ping>().concurrency(2);
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

impl Handle<Stay> for Subject {
    async fn handle(&mut self, Stay(gate): Stay, _: &mut CallContext) -> Result<(), HandlerError> {
        pass(gate).await;
        Ok(())
    }
}

impl HandleSync<Ping> for Subject {
    fn handle(&mut self, _: Ping, _: &mut CallContext) -> Result<(), HandlerError> {
        Ok(())
    }
}

fn short() -> Config {
    Config { one_way_timeout: Duration::from_millis(50), ..config() }
}

#[test]
fn a_one_way_message_whose_handler_never_ends_gives_its_endpoint_back() {
    bounded(|| {
        at_every_distance(short(), |scene| {
            let subject = scene.place("subject", || Subject);
            for round in 1..=2 {
                let held = Gate::new();
                subject.send(Hold(held.id)).unwrap();
                held.expect(Event::Entered);
                held.expect(Event::Dropped);
                assert_eq!(subject.ask_blocking(Ping), Ok(()), "in round {round}");
            }
            let lingering = [Gate::new(), Gate::new()];
            lingering.iter().for_each(|gate| subject.send(Linger(gate.id)).unwrap());
            lingering.iter().for_each(|gate| gate.expect(Event::Entered));
            lingering.iter().for_each(|gate| gate.expect(Event::Dropped));
            assert_eq!(subject.ask_blocking(Ping), Ok(()));
            eventually(&scene.answering, "all four are counted", |now| now.one_way_timeouts == 4);
        });
    });
}

#[test]
fn the_limit_is_for_one_way_messages_alone_and_for_each_anew() {
    bounded(|| {
        at_every_distance(short(), |scene| {
            let subject = scene.place("subject", || Subject);
            let mut stayed = Gate::new();
            let asking = subject.ask_within(Stay(stayed.id), LIMIT);
            stayed.expect(Event::Entered);
            // Another endpoint's handler has begun later and is over meanwhile.
            let other = scene.place("other", || Subject);
            let held = Gate::new();
            other.send(Hold(held.id)).unwrap();
            held.expect(Event::Entered);
            held.expect(Event::Dropped);
            stayed.open();
            stayed.expect(Event::Passed);
            common::echo::within(asking).unwrap();
        });
    });
}

#[test]
fn by_default_a_one_way_message_is_handled_to_the_end_though_its_sender_has_gone() {
    bounded(|| {
        assert_eq!(Config::default().one_way_timeout, Duration::from_secs(60));
        let (env, sender) = (server(2), client(1));
        let subject = seen_from(&sender, &env.register_on(0, "subject", || Subject).unwrap());
        let mut gates = [Gate::new(), Gate::new()];
        gates.iter().for_each(|gate| subject.send(Linger(gate.id)).unwrap());
        gates.iter().for_each(|gate| gate.expect(Event::Entered));
        end(&sender);
        eventually(&env, "the connection has ended", |now| now.connections == 0);
        gates.iter_mut().for_each(Gate::open);
        gates.iter().for_each(|gate| gate.expect(Event::Passed));
        end(&env);
    });
}

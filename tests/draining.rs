//! While an env shuts down it says so, to everybody and of every endpoint: whoever asks may turn to another node.

mod common;

use std::sync::mpsc::{Receiver, Sender, channel};

use common::echo::within;
use common::gate::{Event, Gate, pass};
use common::scene::{Scene, at_every_distance};
use common::{LIMIT, bounded, client, config, end, kind, turn};
use ringpost::{
    AskError, CallContext, Endpoint, EndpointRef, Handle, HandleSync, HandlerError, Handlers, LookupError, message,
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Clone)]
struct Ping;
message!(Ping as "draining.Ping" => ());

/// Waits at the gate.
#[derive(Serialize, Deserialize, Clone)]
struct Wait(u64);
message!(Wait as "draining.Wait" => ());

/// Tells when it is dropped.
struct Worker(Sender<()>);

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

impl Endpoint for Worker {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<Ping>().ask::<Wait>();
    }
}

impl HandleSync<Ping> for Worker {
    fn handle(&mut self, _: Ping, _: &mut CallContext) -> Result<(), HandlerError> {
        Ok(())
    }
}

impl Handle<Wait> for Worker {
    async fn handle(&mut self, Wait(gate): Wait, _: &mut CallContext) -> Result<(), HandlerError> {
        pass(gate).await;
        Ok(())
    }
}

fn worker(scene: &Scene, name: &str) -> (EndpointRef, Receiver<()>) {
    let (tell, told) = channel();
    (scene.place(name, move || Worker(tell)), told)
}

#[track_caller]
fn expect_stopped(scene: &Scene, endpoint: &EndpointRef) {
    for outcome in scene.outcomes(endpoint, Ping) {
        assert_eq!(kind(&outcome.unwrap_err()), "Stopped", "{endpoint}");
    }
    let found = scene.asking.lookup_blocking(&endpoint.uri());
    assert!(matches!(&found, Err(LookupError::Ask { error: AskError::Stopped { .. }, .. })), "{found:?}");
}

#[test]
fn an_env_that_drains_says_stopped_of_every_endpoint() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let (busy, _) = worker(scene, "busy");
            let (idle, ended) = worker(scene, "idle");
            assert_eq!(idle.ask_blocking(Ping), Ok(()));
            let mut gate = Gate::new();
            let waiting = busy.ask(Wait(gate.id));
            gate.expect(Event::Entered);
            scene.answering.shutdown(LIMIT);
            ended.recv_timeout(LIMIT).unwrap();
            turn(&scene.answering);
            expect_stopped(scene, &busy);
            expect_stopped(scene, &idle);
            if scene.distance.is_remote() {
                // Nobody had this name, and the name of the other was never asked for over this connection.
                let address = scene.answering.address().unwrap();
                expect_stopped(scene, &scene.asking.endpoint_ref(&format!("ringpost://nobody@{address}")).unwrap());
                expect_stopped(scene, &scene.asking.endpoint_ref(&format!("ringpost://where@{address}")).unwrap());
            }
            gate.open();
            within(waiting).unwrap();
        });
    });
}

#[test]
fn a_lookup_at_an_env_that_drains_names_what_was_looked_up_and_that_the_env_shuts_down() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let (busy, _) = worker(scene, "busy");
            let mut gate = Gate::new();
            let waiting = busy.ask(Wait(gate.id));
            gate.expect(Event::Entered);
            scene.answering.shutdown(LIMIT);
            turn(&scene.answering);
            let text = scene.asking.lookup_blocking(&busy.uri()).unwrap_err().to_string();
            let env = scene.answering.address().map_or("both".into(), |address| format!("the env at {address}"));
            assert_eq!(text, format!("cannot look up {}: {env} is shutting down", busy.uri()));
            gate.open();
            within(waiting).unwrap();
        });
    });
}

#[test]
fn nothing_is_left_to_stop_once_the_env_shuts_down() {
    bounded(|| {
        let env = client(2);
        let (tell, _told) = channel();
        let busy = env.register_on(1, "busy", move || Worker(tell)).unwrap();
        let mut gate = Gate::new();
        let waiting = busy.ask(Wait(gate.id));
        gate.expect(Event::Entered);
        env.shutdown(LIMIT);
        assert!(!env.stop(&busy), "the shutdown has stopped it");
        gate.open();
        within(waiting).unwrap();
        end(&env);
        assert!(!env.stop(&busy), "the env has ended");
    });
}

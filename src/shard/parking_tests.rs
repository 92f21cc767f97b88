//! No core parks while it owes a step that no event brings about.

use std::cell::Cell;
use std::net::TcpListener;
use std::rc::Rc;
use std::time::Duration;

use super::node::Node;
use super::stage::{Act, Stage, node};
use crate::RpcEnv;

/// No test waits for it.
const FOREVER: Duration = Duration::from_secs(3600);

fn is_over(node: &Node) -> bool {
    node.all_reached(super::node::Ending::Clear)
}

/// A handler on another core than that of its caller's connection shuts its env down, and answers.
fn shut_down_by_a_handler(seed: u64, isolated: bool) {
    let stage = Rc::new(Stage::default());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (server, client) = (node("server", 2), node("client", 1));
    let mut cores = vec![stage.core(&server, 0, Some(listener)), stage.core(&server, 1, None)];
    if isolated {
        cores.push(stage.core(&server, 2, None));
    }
    let last = *cores.last().unwrap();
    let (on_stage, owner) = (stage.clone(), cores[0]);
    stage.actor(last, move |_, env| {
        env.shutdown(FOREVER);
        // The owner of the connection hears of it before it has the answer.
        (0..seed % 8).for_each(|_| _ = on_stage.turn(owner));
    });
    let asking = stage.core(&client, 0, None);
    let answered = Rc::new(Cell::new(None));
    // The ref keeps the connection open: its end would be an event.
    let _kept = stage.on(asking, || {
        let actor = RpcEnv::inside(client.clone()).endpoint_ref(&format!("ringpost://actor@{address}")).unwrap();
        let (kept, answered) = (actor.clone(), answered.clone());
        drop(crate::spawn(async move { answered.set(Some(actor.ask(Act(7)).await)) }));
        kept
    });
    let all: Vec<_> = cores.iter().copied().chain([asking]).collect();
    let ended = stage.turn_until(&all, seed, || cores.iter().all(|&core| stage.has_ended(core)));
    assert!(ended, "seed {seed}: every core sleeps, and none of them has ended");
    assert!(is_over(&server));
    stage.turn_until(&[asking], 1, || answered.take().is_some_and(|answer| answer == Ok(7)));
}

#[test]
fn a_shutdown_needs_no_timer_in_whatever_order_its_cores_take_turns() {
    (0..60).for_each(|seed| shut_down_by_a_handler(seed, false));
}

#[test]
fn a_shutdown_with_an_isolated_endpoint_needs_no_timer_either() {
    (0..60).for_each(|seed| shut_down_by_a_handler(seed, true));
}

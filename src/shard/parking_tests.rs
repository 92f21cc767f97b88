//! No core parks while it owes a step or a wake-up that no event brings about.

use std::cell::{Cell, RefCell};
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use super::config::Config;
use super::core::{Core, Step};
use super::node::{Injected, Node};
use super::stage::{Act, Drive, Stage, Tell, Turn, node};
use crate::executor::idle::{Idle, IdleState, SpinFor};
use crate::ring::{Capabilities, Feature, RingWaker};
use crate::{EndpointRef, RpcEnv};

/// No test waits for it.
const FOREVER: Duration = Duration::from_secs(3600);
const DRIVES: [Drive; 2] = [Drive::Alone, Drive::Hosted];

fn is_over(node: &Node) -> bool {
    node.all_reached(super::node::Ending::Clear)
}

/// A handler on another core than that of its caller's connection shuts its env down, and answers.
fn shut_down_by_a_handler(seed: u64, drive: Drive, isolated: bool) {
    let stage = Rc::new(Stage::new(drive));
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
    assert!(ended, "seed {seed}, {drive:?}: every core sleeps, and none of them has ended");
    assert!(is_over(&server));
    stage.turn_until(&[asking], 1, || answered.take().is_some_and(|answer| answer == Ok(7)));
}

#[test]
fn a_shutdown_needs_no_timer_in_whatever_order_its_cores_take_turns() {
    for seed in 0..32 {
        DRIVES.iter().for_each(|&drive| shut_down_by_a_handler(seed, drive, false));
    }
}

#[test]
fn a_shutdown_with_an_isolated_endpoint_needs_no_timer_either() {
    for seed in 0..32 {
        DRIVES.iter().for_each(|&drive| shut_down_by_a_handler(seed, drive, true));
    }
}

#[test]
fn a_core_that_parked_is_woken_by_others_while_one_that_owes_it_a_wake_blocks() {
    for (isolated, drive) in [(true, Drive::Alone), (false, Drive::Alone), (false, Drive::Hosted)] {
        let stage = Rc::new(Stage::new(drive));
        let server = node("server", 2);
        let asking = stage.core(&server, 0, None);
        let mut answering = stage.core(&server, 1, None);
        if isolated {
            answering = stage.core(&server, 2, None);
        }
        let (on_stage, there, woken) = (stage.clone(), server.clone(), Arc::new(AtomicBool::new(false)));
        let (was_woken, to_wake) = (woken.clone(), woken.clone());
        let actor = stage.actor(answering, move |number, _| match number {
            // Behind an answer: the asker handles that, asks once more and sleeps, all before this turn ends.
            2 => while on_stage.turn(asking) == Turn::Awake {},
            // Blocks until its asker has done something for another thread.
            3 => {
                let woken = to_wake.clone();
                there.cores[0].inject_always(Injected::Job(Box::new(move |_| woken.store(true, SeqCst))));
                let woken = || to_wake.load(SeqCst);
                assert!(on_stage.turn_until(&[asking], 1, woken), "isolated {isolated}, {drive:?}: core 0 sleeps");
            }
            _ => {}
        });
        stage.on(asking, || {
            let first = actor.ask(Act(1));
            actor.send(Tell(2)).unwrap();
            drop(crate::spawn(async move {
                first.await.unwrap();
                actor.ask(Act(3)).await.unwrap();
            }));
        });
        while stage.turn(asking) == Turn::Awake {}
        for _ in 0..100 {
            stage.turn(answering);
        }
        assert!(was_woken.load(SeqCst), "the scene was not played to its end");
    }
}

#[test]
fn an_answer_of_an_earlier_turn_arrives_although_the_next_handler_blocks() {
    for drive in DRIVES {
        let stage = Rc::new(Stage::new(drive));
        let server = node("server", 2);
        let (asking, answering) = (stage.core(&server, 0, None), stage.core(&server, 1, None));
        let (answered, blocked) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
        let next = Rc::new(RefCell::new(None::<EndpointRef>));
        let (on_stage, is_answered, was_blocked, there) =
            (stage.clone(), answered.clone(), blocked.clone(), next.clone());
        let actor = stage.actor(answering, move |number, _| match number {
            0 => {}
            // The next ask arrives while this turn goes on, and then the asker sleeps.
            1 => {
                let actor = there.take().unwrap();
                on_stage.on(asking, || drop(crate::spawn(async move { actor.ask(Act(2)).await })));
                on_stage.wake(asking);
                while on_stage.turn(asking) == Turn::Awake {}
            }
            _ => {
                assert!(on_stage.turn_until(&[asking], 1, || is_answered.get()), "{drive:?}: core 0 sleeps");
                was_blocked.set(true);
            }
        });
        next.replace(Some(actor.clone()));
        stage.on(asking, || {
            let answered = answered.clone();
            drop(crate::spawn(async move {
                // The lanes are new to their receivers once.
                actor.ask(Act(0)).await.unwrap();
                answered.set(actor.ask(Act(1)).await.is_ok());
            }));
        });
        assert!(stage.turn_until(&[asking, answering], 1, || blocked.get()), "the scene was not played to its end");
    }
}

#[test]
fn a_core_whose_wake_by_message_failed_is_woken_by_other_means() {
    let stage = Stage::new(Drive::Alone);
    let config = Config { idle: Idle::Park, ..Config::default() };
    let capabilities = Capabilities::probe().unwrap().without(Feature::SyncMsgRing);
    let server = Node::new("server".into(), config, 2, capabilities);
    let asking = stage.core(&server, 0, None);
    let answering = stage.core_woken_by(&server, 1, None, RingWaker::without_messages);
    let actor = stage.actor(answering, |_, _| {});
    while stage.turn(answering) == Turn::Awake {}
    // The lanes are new to their receivers once, which wakes them as other threads do.
    for number in 0..2 {
        let (actor, answered) = (actor.clone(), Rc::new(Cell::new(false)));
        let is_answered = answered.clone();
        stage.on(asking, || drop(crate::spawn(async move { answered.set(actor.ask(Act(number)).await.is_ok()) })));
        stage.wake(asking);
        assert!(stage.turn_until(&[asking, answering], 1, || is_answered.get()), "ask {number}: core 1 sleeps");
        while stage.turn(answering) == Turn::Awake || stage.turn(asking) == Turn::Awake {}
    }
    assert!(stage.with(asking, |core| core.ring.stats().failed_wakes) > 0, "no wake has failed");
}

#[test]
fn a_core_that_begins_to_spin_has_issued_its_wakes() {
    let rests: [fn(&mut Core); 2] = [|core| core.rest().unwrap(), |core| _ = core.doze().unwrap()];
    for rest in rests {
        let stage = Stage::new(Drive::Alone);
        let server = node("server", 2);
        let (asking, answering) = (stage.core(&server, 0, None), stage.core(&server, 1, None));
        let actor = stage.actor(answering, |_, _| {});
        // The lanes are new to their receivers once.
        let (first, answered) = (actor.clone(), Rc::new(Cell::new(false)));
        let is_answered = answered.clone();
        stage.on(asking, || drop(crate::spawn(async move { answered.set(first.ask(Act(0)).await.is_ok()) })));
        assert!(stage.turn_until(&[asking, answering], 1, || is_answered.get()));
        while stage.turn(answering) == Turn::Awake || stage.turn(asking) == Turn::Awake {}
        assert!(server.cores[1].park.is_parked());
        stage.with(asking, |core| {
            core.rouse().unwrap();
            // Long rests have taught it not to spin; this one is short, however slow the machine is.
            core.idle = IdleState::new(Idle::default());
            (0..10).for_each(|_| core.idle.learn(1_000_000_000));
            core.resting = Some(u64::MAX);
            drop(crate::spawn(async move { actor.ask(Act(1)).await }));

            assert_eq!(core.step().unwrap(), Step::Idle);
            assert_ne!(core.idle.spin_for(), SpinFor::No, "the step has taught it to spin");
            // The next turn may run code that blocks.
            core.shard.door().inject_always(Injected::Job(Box::new(|_| ())));
            rest(core);
        });
        assert!(!server.cores[1].park.is_parked(), "nobody has woken the receiver");
        assert!(!stage.shard(asking).owes_wakes());
    }
}

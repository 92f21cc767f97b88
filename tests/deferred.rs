//! Answers that come later than their handler returns, from wherever they are found.

mod common;

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use common::echo::within;
use common::scene::{Distance, Scene, at, at_every_distance};
use common::{LIMIT, bounded, builder, config, end, eventually, kind, seen_from, serving};
use ringpost::{
    AskError, CallContext, Caller, Config, Endpoint, EndpointRef, HandleDeferred, HandleSync, HandlerError, Handlers,
    Replier, message, wire_error,
};
use serde::{Deserialize, Serialize};

/// To be answered with the number, in this way.
#[derive(Serialize, Deserialize, Clone)]
struct Later(u32, How);
message!(Later as "deferred.Later" => u32);

#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
enum How {
    /// In the handler.
    AtOnce,
    /// By a task of the core.
    Task,
    /// By another thread.
    Thread,
    /// The replier goes to the test.
    Test,
    /// The endpoint keeps it until it is asked to answer.
    Keep,
    /// Dropped in the handler.
    Drop,
    /// Dropped on another thread.
    DropElsewhere,
    /// The handler fails, and drops the replier as it does.
    Fail,
    /// The handler fails after it has given the replier to the test.
    FailAndGive,
    /// The handler answers, then fails.
    ReplyAndFail,
    Panic,
    /// The replier fails on another thread.
    FailElsewhere,
}

/// Answers what is kept.
#[derive(Serialize, Deserialize, Clone)]
struct Release;
message!(Release as "deferred.Release" => usize);

#[derive(Debug, Serialize, Deserialize, PartialEq, thiserror::Error)]
#[error("too late for {0}")]
struct TooLate(u32);
wire_error!(TooLate as "deferred.TooLate");

struct Patient {
    give: Sender<Replier<u32>>,
    errors: Sender<String>,
    kept: HashMap<u32, Replier<u32>>,
}

impl Endpoint for Patient {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_deferred::<Later>().ask_sync::<Release>();
    }

    fn on_error(&mut self, error: &HandlerError) {
        let _ = self.errors.send(error.text().to_owned());
    }
}

impl HandleDeferred<Later> for Patient {
    fn handle(&mut self, later: Later, replier: Replier<u32>, context: &mut CallContext) -> Result<(), HandlerError> {
        assert!(context.is_ask() && context.remaining() > Some(Duration::ZERO));
        let number = later.0;
        match later.1 {
            How::AtOnce => replier.reply(number),
            How::Task => drop(ringpost::spawn(async move { replier.reply(number) })),
            How::Thread => drop(thread::spawn(move || replier.reply(number))),
            How::Test => self.give.send(replier)?,
            How::Keep => drop(self.kept.insert(number, replier)),
            How::Drop => drop(replier),
            How::DropElsewhere => drop(thread::spawn(move || drop(replier))),
            How::Fail => return Err(HandlerError::typed(TooLate(number))),
            How::FailAndGive => {
                self.give.send(replier)?;
                return Err(HandlerError::typed(TooLate(number)));
            }
            How::ReplyAndFail => {
                replier.reply(number);
                return Err(HandlerError::new("after all"));
            }
            How::Panic => panic!("patience is over"),
            How::FailElsewhere => drop(thread::spawn(move || replier.fail(HandlerError::typed(TooLate(number))))),
        }
        Ok(())
    }
}

impl HandleSync<Release> for Patient {
    fn handle(&mut self, _: Release, _: &mut CallContext) -> Result<usize, HandlerError> {
        let kept = self.kept.drain();
        Ok(kept.map(|(number, replier)| replier.reply(number)).count())
    }
}

struct Placed {
    to: EndpointRef,
    given: Receiver<Replier<u32>>,
    errors: Receiver<String>,
}

impl Placed {
    fn given(&self) -> Replier<u32> {
        self.given.recv_timeout(LIMIT).unwrap()
    }
}

fn place(scene: &Scene, name: &str) -> Placed {
    let ((give, given), (tell, errors)) = (channel(), channel());
    let to = scene.place(name, move || Patient { give, errors: tell, kept: HashMap::new() });
    Placed { to, given, errors }
}

fn none_left(scene: &Scene) {
    eventually(&scene.answering, "no ask is deferred any more", |now| now.deferred == 0);
}

#[test]
fn a_reply_reaches_its_asker_from_wherever_it_comes() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let patient = place(scene, "patient");
            for how in [How::AtOnce, How::Task, How::Thread] {
                for outcome in scene.outcomes(&patient.to, Later(7, how)) {
                    assert_eq!(outcome.unwrap(), 7, "{how:?}");
                }
            }
            let asking = patient.to.ask(Later(8, How::Test));
            let replier = patient.given();
            assert!(!replier.is_cancelled() && replier.remaining() > Some(Duration::ZERO));
            match replier.caller() {
                Caller::Core(_) => assert!(!scene.distance.is_remote()),
                caller => assert!(scene.distance.is_remote(), "{caller:?}"),
            }
            replier.reply(8);
            assert_eq!(within(asking).unwrap(), 8);
            none_left(scene);
        });
    });
}

#[test]
fn the_endpoint_goes_on_while_replies_are_deferred() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let patient = place(scene, "patient");
            let asking: Vec<_> = (0..3).map(|number| patient.to.ask(Later(number, How::Keep))).collect();
            eventually(&scene.answering, "three are deferred", |now| now.deferred == 3);
            assert_eq!(patient.to.ask_blocking(Release).unwrap(), 3);
            for (number, asking) in asking.into_iter().enumerate() {
                assert_eq!(within(asking).unwrap(), number as u32);
            }
            none_left(scene);
        });
    });
}

#[test]
fn a_dropped_replier_is_an_error_at_once() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let patient = place(scene, "patient");
            for how in [How::Drop, How::DropElsewhere] {
                for outcome in scene.outcomes(&patient.to, Later(7, how)) {
                    let Err(AskError::NeverReplied { target }) = outcome else { panic!("{how:?}: {outcome:?}") };
                    assert!(target.contains("patient"), "{target}");
                }
            }
            // What the endpoint keeps goes with it.
            let kept = patient.to.ask(Later(1, How::Keep));
            eventually(&scene.answering, "it is deferred", |now| now.deferred == 1);
            stop(scene, &patient.to);
            assert_eq!(kind(&within(kept).unwrap_err()), "NeverReplied");
            none_left(scene);
        });
    });
}

fn stop(scene: &Scene, endpoint: &EndpointRef) {
    let own = scene.answering.endpoint_ref(&endpoint.uri()).unwrap();
    assert!(scene.answering.stop(&own));
}

#[test]
fn an_error_of_the_handler_or_of_the_replier_goes_to_the_asker() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let patient = place(scene, "patient");
            for how in [How::Fail, How::FailElsewhere, How::FailAndGive] {
                for outcome in scene.outcomes(&patient.to, Later(7, how)) {
                    assert_eq!(outcome.unwrap_err().downcast::<TooLate>(), Some(TooLate(7)), "{how:?}");
                    match how {
                        // The handler knows best what it told its replier.
                        How::FailElsewhere => assert!(patient.errors.try_recv().is_err()),
                        _ => assert_eq!(patient.errors.recv_timeout(LIMIT).unwrap(), "too late for 7"),
                    }
                }
            }
            patient.given.try_iter().for_each(|replier| replier.reply(9));
            for outcome in scene.outcomes(&patient.to, Later(7, How::Panic)) {
                let Err(AskError::Handler { error, .. }) = outcome else { panic!("{outcome:?}") };
                assert_eq!((error.text(), error.is_panic()), ("patience is over", true));
                assert_eq!(patient.errors.recv_timeout(LIMIT).unwrap(), "patience is over");
            }
            for outcome in scene.outcomes(&patient.to, Later(7, How::ReplyAndFail)) {
                assert_eq!(outcome.unwrap(), 7, "the first answer counts");
                assert_eq!(patient.errors.recv_timeout(LIMIT).unwrap(), "after all");
            }
            none_left(scene);
        });
    });
}

#[test]
fn a_replier_learns_that_its_asker_gave_up_and_leaves_nothing_behind() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let patient = place(scene, "patient");
            // Dropped on a thread, dropped on a core, and timed out.
            let dropped = patient.to.ask(Later(1, How::Test));
            let mut first = patient.given();
            drop(dropped);
            within(first.cancelled());
            assert!(first.is_cancelled());

            let (to, (drop_it, dropping)) = (patient.to.clone(), futures::channel::oneshot::channel::<()>());
            let on_core = scene.asking.spawn_on(0, move || async move {
                let asking = to.ask(Later(2, How::Test));
                let _ = dropping.await;
                drop(asking);
            });
            let mut second = patient.given();
            drop(drop_it);
            on_core.unwrap().join().unwrap();
            within(second.cancelled());

            let late = patient.to.ask_blocking_within(Later(3, How::Test), Duration::from_millis(300));
            assert_eq!(kind(&late.unwrap_err()), "Timeout");
            let mut timed_out = patient.given();
            within(timed_out.cancelled());

            // One that is never used holds nothing either.
            let forgotten = patient.to.ask(Later(4, How::Test));
            std::mem::forget(patient.given());
            drop(forgotten);
            none_left(scene);
            let before = eventually(&scene.answering, "a look", |_| true).replies_late;
            first.reply(1);
            timed_out.reply(3);
            eventually(&scene.answering, "both are counted", |now| now.replies_late == before + 2);
            assert_eq!(patient.to.ask_blocking(Later(5, How::AtOnce)).unwrap(), 5);
        });
    });
}

#[test]
fn a_replier_learns_that_its_askers_connection_has_ended() {
    bounded(|| {
        for distance in [Distance::Peer, Distance::PeerLane] {
            at(distance, config(), |scene| {
                let patient = place(scene, "patient");
                let asking = patient.to.ask(Later(1, How::Test));
                let mut replier = patient.given();
                scene.asking.shutdown(Duration::ZERO);
                within(replier.cancelled());
                assert_eq!(kind(&within(asking).unwrap_err()), "Stopped");
                none_left(scene);
                replier.reply(1);
            });
        }
    });
}

#[test]
fn a_replier_works_on_after_its_endpoint_and_until_the_shutdown_is_over() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let patient = place(scene, "patient");
            let before = eventually(&scene.answering, "a look", |_| true).endpoints;
            let [first, second] = [1, 2].map(|number| patient.to.ask(Later(number, How::Test)));
            let [one, two] = [patient.given(), patient.given()];
            stop(scene, &patient.to);
            eventually(&scene.answering, "its end", |now| now.endpoints < before);
            one.reply(1);
            assert_eq!(within(first).unwrap(), 1);
            // A shutdown waits for it, as for a handler.
            scene.answering.shutdown(LIMIT);
            assert!(!scene.answering.await_termination_within(Duration::from_millis(5)).unwrap());
            two.reply(2);
            assert_eq!(within(second).unwrap(), 2);
            assert!(scene.answering.await_termination_within(LIMIT).unwrap());
        });
    });
}

#[test]
fn an_ask_that_is_deferred_beyond_the_shutdown_is_stopped() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let patient = place(scene, "patient");
            let asking = patient.to.ask(Later(1, How::Test));
            let mut replier = patient.given();
            scene.answering.shutdown(Duration::from_millis(5));
            let error = kind(&within(asking).unwrap_err());
            let lucky = error == "Stopped" || (scene.distance == Distance::PeerLane && error == "Disconnected");
            assert!(lucky, "{error}");
            within(replier.cancelled());
            assert!(scene.answering.await_termination_within(LIMIT).unwrap());
            replier.reply(1);
        });
    });
}

#[test]
fn deferred_asks_are_bounded_and_the_next_one_is_overloaded_at_once() {
    bounded(|| {
        at_every_distance(Config { deferred: 2, ..config() }, |scene| {
            let patient = place(scene, "patient");
            let held: Vec<_> = [1, 2].map(|number| patient.to.ask(Later(number, How::Keep))).into();
            eventually(&scene.answering, "two are deferred", |now| now.deferred == 2);
            for outcome in scene.outcomes(&patient.to, Later(3, How::AtOnce)) {
                let Err(AskError::Overloaded { queue, .. }) = outcome else { panic!("{outcome:?}") };
                assert!(queue.contains("Config::deferred"), "{queue}");
            }
            eventually(&scene.answering, "they are counted", |now| now.overloaded_deferred == 3);
            assert_eq!(patient.to.ask_blocking(Release).unwrap(), 2);
            held.into_iter().for_each(|asking| assert!(within(asking).is_ok()));
            assert_eq!(patient.to.ask_blocking(Later(3, How::AtOnce)).unwrap(), 3, "there is room again");
        });
    });
}

#[test]
fn askers_of_several_nodes_with_the_same_request_ids_get_their_own_answers() {
    bounded(|| {
        let server = serving(2, config());
        let ((give, given), (tell, _errors)) = (channel(), channel());
        let own = server.register("patient", move || Patient { give, errors: tell, kept: HashMap::new() }).unwrap();
        let clients: Vec<_> = (0..4).map(|_| builder("asker", 1, config()).start().unwrap()).collect();
        let refs: Vec<_> = clients.iter().map(|client| seen_from(client, &own)).collect();
        let asks: Vec<_> = (0..).zip(&refs).map(|(number, to)| to.ask(Later(number, How::Test))).collect();
        let repliers: Vec<_> = (0..4).map(|_| given.recv_timeout(LIMIT).unwrap()).collect();
        // Each is told another number, so an answer that went astray would be missing.
        let callers: Vec<_> = repliers.iter().map(|replier| format!("{:?}", replier.caller())).collect();
        let distinct: std::collections::HashSet<_> = callers.iter().collect();
        assert_eq!(distinct.len(), 4);
        for (number, replier) in (100..).zip(repliers) {
            replier.reply(number);
        }
        let mut answers: Vec<_> = asks.into_iter().map(|ask| within(ask).unwrap()).collect();
        answers.sort_unstable();
        assert_eq!(answers, [100, 101, 102, 103]);
        clients.iter().for_each(end);
        end(&server);
    });
}

#[test]
fn a_replier_of_an_isolated_endpoint_works_as_any_other() {
    bounded(|| {
        let env = serving(1, config());
        let ((give, given), (tell, _errors)) = (channel(), channel());
        let make = move || Patient { give, errors: tell, kept: HashMap::new() };
        let patient = env.register_isolated("patient", make).unwrap();
        for how in [How::AtOnce, How::Task, How::Thread] {
            assert_eq!(patient.ask_blocking(Later(7, how)).unwrap(), 7, "{how:?}");
        }
        let [first, second, dropped] = [1, 2, 3].map(|number| patient.ask(Later(number, How::Test)));
        let [one, two, mut three] = [(); 3].map(|()| given.recv_timeout(LIMIT).unwrap());
        drop(dropped);
        within(three.cancelled());
        one.reply(1);
        assert_eq!(within(first).unwrap(), 1);
        assert!(env.stop(&patient));
        two.reply(2);
        assert_eq!(within(second).unwrap(), 2);
        end(&env);
    });
}

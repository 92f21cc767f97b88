//! An ask that a handler makes is wanted no longer than the handler's own answer.

mod common;

use std::io::Write;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use common::echo::within;
use common::gate::{Event, Gate, pass};
use common::raw::{RawPeer, hello, listener, request_within};
use common::scene::{Distance, Scene, at_every_distance};
use common::{LIMIT, bounded, client, config, end, eventually, kind, server};
use ringpost::net::reader::Incoming;
use ringpost::wire::failure::{Failure, FailureCode};
use ringpost::wire::frame::{Frame, write_failure};
use ringpost::{
    AskError, CallContext, Config, Endpoint, EndpointRef, Handle, HandleShared, HandleSync, HandlerError, Handlers,
    message,
};
use serde::{Deserialize, Serialize};

const INHERITED: &str = "the deadline of the call that was being handled";
const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);
/// Long enough for a message to reach its handler on a busy machine.
const QUITE_SHORT: Duration = Duration::from_millis(200);

/// Answered with what remains.
#[derive(Serialize, Deserialize, Clone)]
struct Remaining;
message!(Remaining as "deadlines.Remaining" => Duration);

/// Answered with what remains to an ask that the handler makes, with this limit of its own.
#[derive(Serialize, Deserialize, Clone)]
struct Pass(Own, Option<u64>);
message!(Pass as "deadlines.Pass" => Duration);

/// The same beside others.
#[derive(Serialize, Deserialize, Clone)]
struct PassShared(Own, Option<u64>);
message!(PassShared as "deadlines.PassShared" => Duration);

/// The same, told to the test.
#[derive(Serialize, Deserialize, Clone)]
struct PassNote;
message!(PassNote as "deadlines.PassNote");

/// The same, by a task of the handler.
#[derive(Serialize, Deserialize, Clone)]
struct PassByTask;
message!(PassByTask as "deadlines.PassByTask" => Duration);

type Own = Option<Duration>;

/// Leaves an ask that is never answered to a task, and never answers.
#[derive(Serialize, Deserialize, Clone)]
struct Hang(Own);
message!(Hang as "deadlines.Hang" => ());

/// Works until the asker has given up, then asks.
#[derive(Serialize, Deserialize, Clone)]
struct TooLong;
message!(TooLong as "deadlines.TooLong" => ());

/// Fails as soon as the asker has given up.
#[derive(Serialize, Deserialize, Clone)]
struct FailLate;
message!(FailLate as "deadlines.FailLate" => ());

/// Fails with what an ask that is never answered ends with.
#[derive(Serialize, Deserialize, Clone)]
struct Rely;
message!(Rely as "deadlines.Rely" => ());

/// Never answered.
#[derive(Serialize, Deserialize, Clone)]
struct Never;
message!(Never as "deadlines.Never" => ());

struct Inner;

impl Endpoint for Inner {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<Remaining>().ask::<Never>();
    }
}

impl HandleSync<Remaining> for Inner {
    fn handle(&mut self, _: Remaining, context: &mut CallContext) -> Result<Duration, HandlerError> {
        Ok(context.remaining().unwrap())
    }
}

impl Handle<Never> for Inner {
    async fn handle(&mut self, _: Never, _: &mut CallContext) -> Result<(), HandlerError> {
        std::future::pending().await
    }
}

struct Middle {
    inner: EndpointRef,
    passed: Sender<Duration>,
    failed: Sender<(AskError, Duration)>,
}

impl Endpoint for Middle {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask::<Pass>().ask_shared::<PassShared>().send::<PassNote>().ask::<PassByTask>();
        handlers.ask::<Hang>().ask::<TooLong>().concurrency(8);
    }
}

async fn remaining(inner: &EndpointRef, own: Own) -> Result<Duration, HandlerError> {
    Ok(match own {
        Some(own) => inner.ask_within(Remaining, own).await?,
        None => inner.ask(Remaining).await?,
    })
}

impl Handle<Pass> for Middle {
    async fn handle(&mut self, own: Pass, _: &mut CallContext) -> Result<Duration, HandlerError> {
        if let Some(gate) = own.1 {
            pass(gate).await;
        }
        remaining(&self.inner, own.0).await
    }
}

impl HandleShared<PassShared> for Middle {
    async fn handle(&self, own: PassShared, _: &mut CallContext) -> Result<Duration, HandlerError> {
        if let Some(gate) = own.1 {
            pass(gate).await;
        }
        remaining(&self.inner, own.0).await
    }
}

impl Handle<PassNote> for Middle {
    async fn handle(&mut self, _: PassNote, context: &mut CallContext) -> Result<(), HandlerError> {
        assert_eq!(context.remaining(), None);
        self.passed.send(remaining(&self.inner, None).await?)?;
        Ok(())
    }
}

impl Handle<PassByTask> for Middle {
    async fn handle(&mut self, _: PassByTask, _: &mut CallContext) -> Result<Duration, HandlerError> {
        let inner = self.inner.clone();
        ringpost::spawn(async move { remaining(&inner, None).await }).await?
    }
}

impl Handle<Hang> for Middle {
    async fn handle(&mut self, own: Hang, _: &mut CallContext) -> Result<(), HandlerError> {
        let asking = match own.0 {
            Some(own) => self.inner.ask_within(Never, own),
            None => self.inner.ask(Never),
        };
        let failed = self.failed.clone();
        // The handler is dropped when its asker gives up, which must not end this.
        drop(ringpost::spawn(async move {
            let error = asking.await.unwrap_err();
            let _ = failed.send((error, Duration::ZERO));
        }));
        std::future::pending().await
    }
}

impl Handle<TooLong> for Middle {
    async fn handle(&mut self, _: TooLong, context: &mut CallContext) -> Result<(), HandlerError> {
        while context.remaining() > Some(Duration::ZERO) {
            std::hint::spin_loop();
        }
        let began = Instant::now();
        let error = self.inner.ask_within(Never, MINUTE).await.unwrap_err();
        self.failed.send((error, began.elapsed()))?;
        Ok(())
    }
}

struct Chain {
    middle: EndpointRef,
    passed: Receiver<Duration>,
    failed: Receiver<(AskError, Duration)>,
}

/// The middle is at the scene's distance from the asker, and asks an endpoint beside it.
fn chain(scene: &Scene) -> Chain {
    let ((pass, passed), (fail, failed)) = (channel(), channel());
    let other = scene.answering.core_count() - 1 - scene.core;
    let inner = scene.answering.register_on(other, "inner", || Inner).unwrap();
    let middle = scene.place("middle", move || Middle { inner, passed: pass, failed: fail });
    Chain { middle, passed, failed }
}

#[test]
fn an_ask_of_a_handler_ends_with_the_call_that_it_handles() {
    bounded(|| {
        at_every_distance(Config { ask_timeout: HOUR, ..config() }, |scene| {
            let middle = chain(scene).middle;
            for own in [None, Some(2 * HOUR)] {
                let inherited = middle.ask_blocking_within(Pass(own, None), MINUTE).unwrap();
                assert!(inherited <= MINUTE, "{inherited:?}");
                let mut gate = Gate::new();
                let asking = middle.ask_within(Pass(own, Some(gate.id)), MINUTE);
                gate.expect(Event::Entered);
                gate.open();
                let inherited = within(asking).unwrap();
                assert!(inherited <= MINUTE, "after a suspension too: {inherited:?}");
            }
            let own = middle.ask_blocking_within(Pass(Some(MINUTE), None), HOUR).unwrap();
            assert!(own <= MINUTE, "its own limit still holds: {own:?}");
        });
    });
}

#[test]
fn handlers_side_by_side_inherit_each_its_own_deadline() {
    bounded(|| {
        at_every_distance(Config { ask_timeout: 3 * HOUR, ..config() }, |scene| {
            let middle = chain(scene).middle;
            let mut gates = [Gate::new(), Gate::new()];
            let short = middle.ask_within(PassShared(None, Some(gates[0].id)), MINUTE);
            let long = middle.ask_within(PassShared(None, Some(gates[1].id)), HOUR);
            gates.iter().for_each(|gate| gate.expect(Event::Entered));
            gates.iter_mut().for_each(Gate::open);
            let (short, long) = (within(short).unwrap(), within(long).unwrap());
            assert!(short <= MINUTE && long > MINUTE && long <= HOUR, "{short:?} {long:?}");
        });
    });
}

#[test]
fn tasks_and_handlers_of_one_way_messages_inherit_nothing() {
    bounded(|| {
        at_every_distance(Config { ask_timeout: HOUR, ..config() }, |scene| {
            let chain = chain(scene);
            let by_task = chain.middle.ask_blocking_within(PassByTask, MINUTE).unwrap();
            assert!(by_task > MINUTE, "{by_task:?}");
            chain.middle.send(PassNote).unwrap();
            let noted = chain.passed.recv_timeout(LIMIT).unwrap();
            assert!(noted > MINUTE, "{noted:?}");
        });
    });
}

#[test]
fn an_ask_that_ends_with_its_handlers_call_says_so() {
    bounded(|| {
        at_every_distance(Config { ask_timeout: HOUR, ..config() }, |scene| {
            let chain = chain(scene);
            for own in [None, Some(MINUTE)] {
                let outer = chain.middle.ask_blocking_within(Hang(own), QUITE_SHORT);
                assert_eq!(kind(&outer.unwrap_err()), "Timeout");
                let (error, _) = chain.failed.recv_timeout(LIMIT).unwrap();
                let AskError::Timeout { target, after, setting } = error else { panic!("{error:?}") };
                assert!(target.contains("inner") && after <= QUITE_SHORT, "{target} {after:?}");
                assert_eq!(setting, INHERITED);
            }
        });
    });
}

#[test]
fn an_ask_for_which_no_time_is_left_fails_at_once_and_does_not_leave() {
    bounded(|| {
        at_every_distance(Config { ask_timeout: HOUR, ..config() }, |scene| {
            let chain = chain(scene);
            let before = eventually(&scene.answering, "a look", |_| true).asks_lane;
            // The answer may be quicker than the asker's timer, which waits for the same core.
            let _ = chain.middle.ask_blocking_within(TooLong, QUITE_SHORT);
            let (error, took) = chain.failed.recv_timeout(LIMIT).unwrap();
            let AskError::Timeout { after, setting, .. } = error else { panic!("{error:?}") };
            assert_eq!((after, setting), (Duration::ZERO, INHERITED));
            assert!(took < LIMIT);
            assert_eq!(eventually(&scene.answering, "a look", |_| true).asks_lane, before);
        });
    });
}

/// Fails at the deadline of what it is asked.
struct Failing {
    inner: EndpointRef,
    tell: Sender<&'static str>,
}

impl Endpoint for Failing {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<FailLate>().ask::<Rely>();
    }

    fn on_error(&mut self, _: &HandlerError) {
        let _ = self.tell.send("failed");
    }
}

impl HandleSync<FailLate> for Failing {
    fn handle(&mut self, _: FailLate, context: &mut CallContext) -> Result<(), HandlerError> {
        while context.remaining() > Some(Duration::ZERO) {
            std::hint::spin_loop();
        }
        Err(HandlerError::new("too late"))
    }
}

impl Handle<Rely> for Failing {
    async fn handle(&mut self, _: Rely, _: &mut CallContext) -> Result<(), HandlerError> {
        let _ = self.tell.send("entered");
        Ok(self.inner.ask(Never).await?)
    }
}

fn failing(scene: &Scene) -> (EndpointRef, Receiver<&'static str>) {
    let (tell, told) = channel();
    let other = scene.answering.core_count() - 1 - scene.core;
    let inner = scene.answering.register_on(other, "inner", || Inner).unwrap();
    (scene.place("failing", move || Failing { inner, tell }), told)
}

#[track_caller]
fn expect_timeout(outcome: Result<(), AskError>) {
    let Err(AskError::Timeout { target, after, .. }) = outcome else { panic!("{outcome:?}") };
    assert!(target.contains("failing") && after == QUITE_SHORT, "{target} {after:?}");
}

#[test]
fn a_failure_at_the_deadline_never_hides_the_timeout() {
    bounded(|| {
        at_every_distance(Config { ask_timeout: HOUR, ..config() }, |scene| {
            let (failing, _told) = failing(scene);
            let there = failing.clone();
            expect_timeout(scene.run(move || async move { there.ask_within(FailLate, QUITE_SHORT).await }));
            let there = failing.clone();
            expect_timeout(scene.run(move || async move { there.ask_within(Rely, QUITE_SHORT).await }));
            expect_timeout(failing.ask_blocking_within(FailLate, QUITE_SHORT));
            expect_timeout(failing.ask_blocking_within(Rely, QUITE_SHORT));
        });
    });
}

#[test]
fn a_failure_that_is_seen_before_the_askers_timer_fires_is_a_timeout_too() {
    bounded(|| {
        at_every_distance(Config { ask_timeout: HOUR, ..config() }, |scene| {
            if scene.distance == Distance::Local {
                return; // The asker's core is the handler's, which is to work while the asker's does not.
            }
            let (failing, told) = failing(scene);
            let asking = scene.asking.spawn_on(0, move || async move { failing.ask_within(Rely, QUITE_SHORT).await });
            assert_eq!(told.recv_timeout(LIMIT), Ok("entered"));
            let (release, released) = channel();
            let blocked = scene.asking.spawn_on(0, move || async move { released.recv_timeout(LIMIT) });
            assert_eq!(told.recv_timeout(LIMIT), Ok("failed"));
            // The answer has left its core, and the core that owns the connection.
            let first = usize::from(scene.distance == Distance::Lane);
            for core in (first..2).chain(first..2) {
                scene.answering.spawn_on(core, || async {}).unwrap().join().unwrap();
            }
            release.send(()).unwrap();
            blocked.unwrap().join().unwrap().unwrap();
            expect_timeout(asking.unwrap().join().unwrap());
        });
    });
}

#[test]
fn a_peer_is_told_expired_by_a_handler_that_fails_after_the_deadline() {
    bounded(|| {
        let env = server(1);
        let inner = env.register("inner", || Inner).unwrap();
        let (tell, _told) = channel();
        env.register("failing", move || Failing { inner, tell }).unwrap();
        let mut peer = RawPeer::greet(env.address().unwrap().to_string().parse().unwrap());
        let mut bytes = Vec::new();
        request_within(&mut bytes, 7, "failing", &FailLate, Some(40_000));
        peer.stream.write_all(&bytes).unwrap();
        peer.next(|incoming| match incoming {
            Incoming::Frame(Frame::Failure { request, failure, .. }) => {
                assert_eq!((request, failure.code as u16, failure.text), (7, 9, ""));
            }
            other => panic!("{other:?}"),
        });
        end(&env);
    });
}

#[test]
fn the_askers_own_clock_says_when_its_time_is_up() {
    bounded(|| {
        let (listener, address) = listener();
        let env = client(1);
        let far = env.endpoint_ref(&format!("ringpost://hasty@{address}")).unwrap();
        let (began, asking) = (Instant::now(), far.ask_within(Never, QUITE_SHORT));
        let mut peer = RawPeer::over(listener.accept().unwrap().0);
        peer.stream.write_all(&hello()).unwrap();
        peer.next(|incoming| assert!(matches!(incoming, Incoming::Hello(_)), "{incoming:?}"));
        let id = peer.next(|incoming| match incoming {
            Incoming::Frame(Frame::Request { head, .. }) => head.request,
            other => panic!("{other:?}"),
        });
        let mut bytes = Vec::new();
        write_failure(&mut bytes, id, None, &Failure::new(FailureCode::Expired, ""));
        peer.stream.write_all(&bytes).unwrap();
        assert_eq!(kind(&within(asking).unwrap_err()), "Timeout");
        assert!(began.elapsed() >= QUITE_SHORT, "never early");
        eventually(&env, "it is counted as a timeout", |now| (now.timeouts, now.replies_in) == (1, 1));
        end(&env);
    });
}

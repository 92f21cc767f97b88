//! Wakers are anybody's: they may give asks up when they are dropped, and panic when they are used, and nobody else notices.

mod common;

use std::cell::RefCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use common::echo::{Hang, Hanging, cut, on_core, until, within};
use common::{bounded, client, end, eventually};
use ringpost::{
    AskError, Asking, CallContext, Endpoint, EndpointRef, HandleSync, HandlerError, Handlers, RpcEnv, message, sleep,
    spawn,
};
use serde::{Deserialize, Serialize};

/// An env of one core with an endpoint that never answers.
fn stage() -> (RpcEnv, EndpointRef) {
    let env = client(1);
    let hang = env.register_on(0, "hang", || Hanging).unwrap();
    (env, hang)
}

fn look<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

/// The last to hold an ask, which goes with it.
struct Holds(#[expect(dead_code, reason = "it is only dropped")] Mutex<Asking<()>>);

impl Wake for Holds {
    fn wake(self: Arc<Self>) {}
}

/// An ask that was looked at with a waker that holds another, and nobody else has that waker.
fn asked(hang: &EndpointRef) -> Asking<()> {
    let mut ask = hang.ask(Hang);
    let waker = Waker::from(Arc::new(Holds(Mutex::new(hang.ask(Hang)))));
    assert!(look(&mut ask, &waker).is_pending());
    ask
}

#[test]
fn a_waker_may_give_an_ask_up_when_its_own_is_given_up() {
    bounded(|| {
        let (env, hang) = stage();
        on_core(&env, move || async move { drop(asked(&hang)) });
        eventually(&env, "the end of both", |now| (now.pending_asks, now.cancelled) == (0, 2));
        cut([env]);
    });
}

#[test]
fn a_waker_may_give_an_ask_up_when_another_takes_its_place() {
    bounded(|| {
        let (env, hang) = stage();
        on_core(&env, move || async move {
            let mut ask = asked(&hang);
            assert!(look(&mut ask, Waker::noop()).is_pending());
        });
        eventually(&env, "the end of both", |now| (now.pending_asks, now.cancelled) == (0, 2));
        cut([env]);
    });
}

#[test]
fn a_waker_may_give_an_ask_up_when_its_own_moves_to_another_thread() {
    bounded(|| {
        let (env, hang) = stage();
        let mut ask = on_core(&env, move || std::future::ready(asked(&hang)));
        assert!(look(&mut ask, Waker::noop()).is_pending());
        eventually(&env, "the end of the other", |now| (now.pending_asks, now.cancelled) == (1, 1));
        drop(ask);
        eventually(&env, "the end of both", |now| (now.pending_asks, now.cancelled) == (0, 2));
        cut([env]);
    });
}

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("a waker panics");
    }
}

fn panics() -> Waker {
    Arc::new(Panics).into()
}

#[test]
fn a_waker_that_panics_at_the_end_of_an_ask_keeps_no_other_from_its_end() {
    const LIMIT: Duration = Duration::from_millis(10);
    bounded(|| {
        let (env, hang) = stage();
        let ended = on_core(&env, move || async move {
            let mut ask = hang.ask_within(Hang, LIMIT);
            assert!(look(&mut ask, &panics()).is_pending());
            [hang.ask_within(Hang, LIMIT).await, ask.await]
        });
        assert!(ended.iter().all(|ended| matches!(ended, Err(AskError::Timeout { .. }))), "{ended:?}");
        cut([env]);
    });
}

#[test]
fn a_waker_that_panics_at_the_end_of_a_sleep_or_on_another_thread_harms_nobody() {
    const WHILE: Duration = Duration::from_millis(10);
    bounded(|| {
        let (env, hang) = stage();
        on_core(&env, || async {
            let mut early = sleep(WHILE);
            assert!(look(&mut early, &panics()).is_pending());
            sleep(WHILE).await.unwrap();
            early.await.unwrap();
        });
        let mut ask = hang.ask_within(Hang, WHILE);
        assert!(look(&mut ask, &panics()).is_pending());
        assert!(matches!(within(hang.ask_within(Hang, WHILE)), Err(AskError::Timeout { .. })));
        let mut outcome = None;
        until("the ask has ended", || {
            let Poll::Ready(ended) = look(&mut ask, Waker::noop()) else { return false };
            outcome = Some(ended);
            true
        });
        assert!(matches!(outcome, Some(Err(AskError::Timeout { .. }))), "{outcome:?}");
        cut([env]);
    });
}

/// Starts a task and answers.
#[derive(Serialize, Deserialize)]
struct Start;
message!(Start as "wakers.Start" => ());

/// Answered.
#[derive(Serialize, Deserialize)]
struct Ping;
message!(Ping as "wakers.Ping" => ());

struct Starting;

impl Endpoint for Starting {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<Start>().ask_sync::<Ping>();
    }
}

thread_local! {
    static STARTED: RefCell<u32> = const { RefCell::new(0) };
}

impl HandleSync<Start> for Starting {
    fn handle(&mut self, _: Start, _: &mut CallContext) -> Result<(), HandlerError> {
        drop(spawn(async { STARTED.with_borrow_mut(|started| *started += 1) }));
        Ok(())
    }
}

impl HandleSync<Ping> for Starting {
    fn handle(&mut self, _: Ping, _: &mut CallContext) -> Result<(), HandlerError> {
        Ok(())
    }
}

#[test]
fn wakers_that_panic_on_the_short_path_do_not_close_it() {
    bounded(|| {
        let env = client(1);
        let starting = env.register_on(0, "starting", || Starting).unwrap();
        let at_once = on_core(&env, move || async move {
            for started in 1..=20 {
                let mut ask = starting.ask(Start);
                catch_unwind(AssertUnwindSafe(|| look(&mut ask, &panics()))).unwrap_err();
                ask.await.unwrap();
                // It was queued before this one.
                spawn(async {}).await.unwrap();
                STARTED.with_borrow(|all| assert_eq!(*all, started));
            }
            matches!(look(&mut starting.ask(Ping), Waker::noop()), Poll::Ready(Ok(())))
        });
        assert!(at_once);
        eventually(&env, "nobody waits", |now| now.pending_asks == 0);
        end(&env);
    });
}

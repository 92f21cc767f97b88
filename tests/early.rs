//! The short path: an ask of an idle endpoint of the same core is handled when its answer is awaited. Nobody pays for it
//! with order, fairness or a promise of the long path.

mod common;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use common::echo::{Hang, Hanging, on_core, within};
use common::{LIMIT, bounded, client, end, eventually};
use ringpost::{
    AskError, Asking, CallContext, Endpoint, EndpointRef, Handle, HandleSync, HandlerError, Handlers, RpcEnv, message,
    spawn,
};
use serde::{Deserialize, Serialize};

/// Noted; answered with all that was noted so far.
#[derive(Serialize, Deserialize)]
struct Add(u32);
message!(Add as "early.Add" => Vec<u32>);

/// Noted.
#[derive(Serialize, Deserialize)]
struct Note(u32);
message!(Note as "early.Note");

/// Fails.
#[derive(Serialize, Deserialize)]
struct Fail;
message!(Fail as "early.Fail" => ());

#[derive(Default)]
struct Journal {
    noted: Vec<u32>,
    errors: Rc<Cell<u32>>,
}

impl Endpoint for Journal {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<Add>().send_sync::<Note>().ask_sync::<Fail>();
    }

    fn on_error(&mut self, _: &HandlerError) {
        self.errors.set(self.errors.get() + 1);
        self.noted.push(self.errors.get() * 100);
    }
}

impl HandleSync<Add> for Journal {
    fn handle(&mut self, Add(number): Add, _: &mut CallContext) -> Result<Vec<u32>, HandlerError> {
        self.noted.push(number);
        Ok(self.noted.clone())
    }
}

impl HandleSync<Note> for Journal {
    fn handle(&mut self, Note(number): Note, _: &mut CallContext) -> Result<(), HandlerError> {
        self.noted.push(number);
        Ok(())
    }
}

impl HandleSync<Fail> for Journal {
    fn handle(&mut self, _: Fail, _: &mut CallContext) -> Result<(), HandlerError> {
        Err(HandlerError::new("as asked"))
    }
}

/// An env of one core with a journal.
fn stage() -> (RpcEnv, EndpointRef) {
    let env = client(1);
    let journal = env.register_on(0, "journal", Journal::default).unwrap();
    (env, journal)
}

fn is_ready<R: 'static>(ask: Asking<R>) -> bool {
    matches!(pin!(ask).poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(_)))
}

#[test]
fn the_answer_of_an_idle_endpoint_of_the_same_core_is_there_at_the_first_look() {
    bounded(|| {
        let (env, journal) = stage();
        assert!(on_core(&env, move || async move { is_ready(journal.ask(Add(1))) }));
        end(&env);
    });
}

#[test]
fn what_a_core_sends_arrives_in_order_whatever_is_awaited_first() {
    bounded(|| {
        let (env, journal) = stage();
        let there = journal.clone();
        let asked = on_core(&env, move || async move {
            let (first, second) = (there.ask(Add(1)), there.ask(Add(2)));
            let second = second.await.unwrap();
            [first.await.unwrap(), second]
        });
        assert_eq!(asked, [vec![1], vec![1, 2]]);
        let sent = on_core(&env, move || async move {
            let ask = journal.ask(Add(3));
            journal.send(Note(4)).unwrap();
            [ask.await.unwrap(), journal.ask(Add(5)).await.unwrap()]
        });
        assert_eq!(sent, [vec![1, 2, 3], vec![1, 2, 3, 4, 5]]);
        end(&env);
    });
}

#[test]
fn an_ask_that_is_dropped_before_it_is_awaited_is_never_handled() {
    bounded(|| {
        let (env, journal) = stage();
        let noted = on_core(&env, move || async move {
            drop(journal.ask(Add(1)));
            journal.ask(Add(2)).await.unwrap()
        });
        assert_eq!(noted, [2]);
        eventually(&env, "the end of both", |now| (now.cancelled, now.handled, now.pending_asks) == (1, 1, 0));
        end(&env);
    });
}

#[test]
fn an_ask_may_be_awaited_in_another_turn_by_another_task_and_on_another_thread() {
    bounded(|| {
        let (env, journal) = stage();
        let there = journal.clone();
        let by_task = on_core(&env, move || async move {
            let ask = there.ask(Add(1));
            spawn(ask).await.unwrap().unwrap()
        });
        let ask = on_core(&env, move || std::future::ready(journal.ask(Add(2))));
        assert_eq!((by_task, within(ask).unwrap()), (vec![1], vec![1, 2]));
        end(&env);
    });
}

#[test]
fn an_ask_that_nobody_awaits_yet_is_handled_all_the_same() {
    bounded(|| {
        let (env, journal) = stage();
        let kept = on_core(&env, move || std::future::ready(journal.ask(Add(1))));
        eventually(&env, "it is handled", |now| now.handled == 1);
        drop(kept);
        end(&env);
    });
}

#[test]
fn an_ask_is_sent_before_a_stop_that_comes_after_it() {
    bounded(|| {
        let (env, journal) = stage();
        let inside = env.clone();
        let answer = on_core(&env, move || async move {
            let ask = journal.ask(Add(1));
            assert!(inside.stop(&journal));
            ask.await
        });
        assert_eq!(answer.unwrap(), [1]);
        end(&env);
    });
}

#[test]
fn a_failure_is_told_to_its_endpoint_once_and_before_the_asker_goes_on() {
    bounded(|| {
        let (env, journal) = stage();
        let noted = on_core(&env, move || async move {
            assert!(matches!(journal.ask(Fail).await, Err(AskError::Handler { .. })));
            journal.ask(Add(1)).await.unwrap()
        });
        assert_eq!(noted, [100, 1]);
        end(&env);
    });
}

thread_local! {
    static ORDER: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
}

/// Says that it is there, starts a task, answers.
struct Starting;

impl Endpoint for Starting {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<Fail>().ask::<Add>();
    }
}

fn start_task() {
    ORDER.with_borrow_mut(|order| order.push("handler"));
    drop(spawn(async { ORDER.with_borrow_mut(|order| order.push("task")) }));
}

impl HandleSync<Fail> for Starting {
    fn handle(&mut self, _: Fail, _: &mut CallContext) -> Result<(), HandlerError> {
        start_task();
        Ok(())
    }
}

impl Handle<Add> for Starting {
    async fn handle(&mut self, _: Add, _: &mut CallContext) -> Result<Vec<u32>, HandlerError> {
        start_task();
        Ok(Vec::new())
    }
}

#[test]
fn what_a_handler_has_woken_runs_before_its_asker_goes_on() {
    bounded(|| {
        let env = client(1);
        let starting = env.register_on(0, "starting", || Starting).unwrap();
        let order = on_core(&env, move || async move {
            starting.ask(Fail).await.unwrap();
            ORDER.with_borrow_mut(|order| order.push("sync"));
            starting.ask(Add(1)).await.unwrap();
            ORDER.with_borrow_mut(|order| order.push("async"));
            ORDER.take()
        });
        assert_eq!(order, ["handler", "task", "sync", "handler", "task", "async"]);
        end(&env);
    });
}

#[test]
fn a_handler_overtakes_no_task_that_is_ready() {
    bounded(|| {
        let env = client(1);
        let starting = env.register_on(0, "starting", || Starting).unwrap();
        let order = on_core(&env, move || async move {
            let ready = spawn(async { ORDER.with_borrow_mut(|order| order.push("ready")) });
            starting.ask(Fail).await.unwrap();
            ready.await.unwrap();
            ORDER.take()
        });
        assert_eq!(order[..2], ["ready", "handler"]);
        end(&env);
    });
}

#[test]
fn a_task_that_asks_without_end_lets_everything_else_go_on() {
    bounded(|| {
        let (env, journal) = stage();
        let stop = Arc::<AtomicBool>::default();
        let stopped = stop.clone();
        let (begin, begun) = channel();
        let task = env.spawn_on(0, move || async move {
            begin.send(()).unwrap();
            while !stopped.load(Ordering::Relaxed) {
                journal.ask(Fail).await.unwrap_err();
            }
        });
        begun.recv_timeout(LIMIT).unwrap();
        // On the very core that is busy.
        env.spawn_on(0, move || async move { stop.store(true, Ordering::Relaxed) }).unwrap().join().unwrap();
        task.unwrap().join().unwrap();
        end(&env);
    });
}

#[test]
fn a_task_that_is_answered_without_end_lets_everything_else_go_on() {
    bounded(|| {
        let env = client(1);
        let echo = env.register_on(0, "echo", || common::echo::Echoing).unwrap();
        let stop = Arc::<AtomicBool>::default();
        let stopped = stop.clone();
        let (begin, begun) = channel();
        let task = env.spawn_on(0, move || async move {
            begin.send(()).unwrap();
            while !stopped.load(Ordering::Relaxed) {
                echo.ask(common::echo::Echo { payload: Default::default() }).await.unwrap();
            }
        });
        begun.recv_timeout(LIMIT).unwrap();
        env.spawn_on(0, move || async move { stop.store(true, Ordering::Relaxed) }).unwrap().join().unwrap();
        task.unwrap().join().unwrap();
        end(&env);
    });
}

/// One of a chain of endpoints, answered with the number of those behind it.
struct Link(Option<EndpointRef>);

#[derive(Serialize, Deserialize)]
struct Follow;
message!(Follow as "early.Follow" => u32);

impl Endpoint for Link {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask::<Follow>();
    }
}

impl Handle<Follow> for Link {
    async fn handle(&mut self, _: Follow, _: &mut CallContext) -> Result<u32, HandlerError> {
        // Handlers that were called by each other without end would not fit on the stack.
        std::hint::black_box([0u8; 48 << 10]);
        match &self.0 {
            Some(next) => Ok(next.ask(Follow).await? + 1),
            None => Ok(0),
        }
    }
}

#[test]
fn a_long_chain_of_handlers_that_await_each_other_needs_no_deep_stack() {
    const LINKS: u32 = 2000;
    bounded(|| {
        let env = client(1);
        let mut next = None;
        for link in 0..=LINKS {
            next = Some(env.register_on(0, &format!("link-{link}"), || Link(next)).unwrap());
        }
        let first = next.unwrap();
        assert_eq!(on_core(&env, move || async move { first.ask(Follow).await }).unwrap(), LINKS);
        end(&env);
    });
}

/// Asks somebody who never answers, has a task await it, and tells what came of it.
struct Front(EndpointRef, Sender<AskError>);

impl Endpoint for Front {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<Fail>();
    }
}

impl HandleSync<Fail> for Front {
    fn handle(&mut self, _: Fail, context: &mut CallContext) -> Result<(), HandlerError> {
        assert!(context.is_ask() && context.remaining().is_some_and(|left| left < LIMIT));
        let (ask, tell) = (self.0.ask(Hang), self.1.clone());
        drop(spawn(async move { tell.send(ask.await.unwrap_err()).unwrap() }));
        Ok(())
    }
}

#[test]
fn what_a_handler_asks_for_ends_with_its_call_also_on_the_short_path() {
    bounded(|| {
        let env = client(1);
        let (tell, told) = channel();
        let hang = env.register_on(0, "hang", || Hanging).unwrap();
        let front = env.register_on(0, "front", move || Front(hang, tell)).unwrap();
        on_core(&env, move || async move { front.ask_within(Fail, Duration::from_millis(20)).await }).unwrap();
        let error = told.recv_timeout(LIMIT).unwrap();
        assert!(
            matches!(&error, AskError::Timeout { setting, .. } if setting.contains("deadline of the call")),
            "{error}"
        );
        end(&env);
    });
}

#[test]
fn asks_end_in_the_order_of_their_deadlines_and_never_early() {
    bounded(|| {
        let env = client(1);
        let hang = env.register_on(0, "hang", || Hanging).unwrap();
        let ended = on_core(&env, move || async move {
            let log = Rc::<RefCell<Vec<u64>>>::default();
            let tasks = [30, 10, 40, 20].map(|limit| {
                let (hang, log) = (hang.clone(), log.clone());
                spawn(async move {
                    let limit_of = Duration::from_millis(limit);
                    let began = Instant::now();
                    assert!(matches!(hang.ask_within(Hang, limit_of).await, Err(AskError::Timeout { .. })));
                    assert!(began.elapsed() >= limit_of);
                    log.borrow_mut().push(limit);
                })
            });
            for task in tasks {
                task.await.unwrap();
            }
            log.take()
        });
        assert_eq!(ended, [10, 20, 30, 40]);
        end(&env);
    });
}

/// Asks a journal, and keeps the ask.
#[derive(Serialize, Deserialize)]
struct Begin(EndpointRef);
message!(Begin as "early.Begin" => ());

#[derive(Default)]
struct Keeping(Vec<Asking<()>>);

impl Endpoint for Keeping {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<Begin>();
    }
}

impl HandleSync<Begin> for Keeping {
    fn handle(&mut self, Begin(telling): Begin, _: &mut CallContext) -> Result<(), HandlerError> {
        self.0.push(telling.ask(Tell));
        Ok(())
    }
}

/// Tells a channel.
#[derive(Serialize, Deserialize)]
struct Tell;
message!(Tell as "early.Tell" => ());

struct Telling(Sender<()>);

impl Endpoint for Telling {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<Tell>();
    }
}

impl HandleSync<Tell> for Telling {
    fn handle(&mut self, _: Tell, _: &mut CallContext) -> Result<(), HandlerError> {
        self.0.send(()).map_err(|error| HandlerError::new(error.to_string()))
    }
}

#[test]
fn an_ask_of_a_handler_that_runs_outside_of_any_task_needs_no_further_turn() {
    bounded(|| {
        let env = client(2);
        let (tell, told) = channel();
        let telling = env.register_on(0, "telling", || Telling(tell)).unwrap();
        let keeping = env.register_on(0, "keeping", Keeping::default).unwrap();
        // It comes over a lane, and is handled as it is read.
        let asked = env.spawn_on(1, move || async move { keeping.ask(Begin(telling)).await }).unwrap();
        within(asked).unwrap().unwrap();
        told.recv_timeout(LIMIT / 2).expect("handled though nobody awaits it");
        env.shutdown(Duration::ZERO);
        assert!(env.await_termination_within(LIMIT).unwrap());
    });
}

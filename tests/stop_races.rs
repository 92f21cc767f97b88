//! Stopping races with messages, and each of them is accounted for.

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread;

use common::scene::{Scene, at_every_distance};
use common::{bounded, config, eventually, seen_from};
use ringpost::{
    AskError, CallContext, Endpoint, EndpointRef, Handle, HandlerError, Handlers, RegisterError, SendError, message,
};
use serde::{Deserialize, Serialize};

/// Holders of the name, one after the other.
const HOLDERS: usize = 40;

#[derive(Serialize, Deserialize, Clone)]
struct Question;
message!(Question as "races.Question" => ());

#[derive(Serialize, Deserialize, Clone)]
struct Note;
message!(Note as "races.Note");

/// What the endpoints have handled, and what the senders know.
#[derive(Default)]
struct Tally {
    asks_handled: AtomicU64,
    notes_handled: AtomicU64,
    asks_answered: AtomicU64,
    asks_refused: AtomicU64,
    notes_sent: AtomicU64,
    notes_refused: AtomicU64,
    stopped: AtomicU64,
    done: AtomicBool,
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::SeqCst);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::SeqCst)
}

struct Holder(Arc<Tally>);

impl Endpoint for Holder {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask::<Question>().send::<Note>();
    }

    async fn on_stop(&mut self) {
        add(&self.0.stopped);
    }
}

impl Handle<Question> for Holder {
    async fn handle(&mut self, _: Question, _: &mut CallContext) -> Result<(), HandlerError> {
        add(&self.0.asks_handled);
        // Messages gather behind it, for the stop to find.
        pause().await;
        Ok(())
    }
}

impl Handle<Note> for Holder {
    async fn handle(&mut self, _: Note, _: &mut CallContext) -> Result<(), HandlerError> {
        add(&self.0.notes_handled);
        Ok(())
    }
}

/// Lets others of this core go first.
async fn pause() {
    let mut waited = false;
    std::future::poll_fn(|cx| match std::mem::replace(&mut waited, true) {
        true => Poll::Ready(()),
        false => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}

/// The refs that the senders use: the first holder's, and the newest's.
struct Refs {
    first: EndpointRef,
    newest: Mutex<EndpointRef>,
}

impl Refs {
    fn pick(&self, turn: u64) -> EndpointRef {
        if turn.is_multiple_of(3) { self.first.clone() } else { self.newest.lock().unwrap().clone() }
    }
}

fn send(to: &EndpointRef, tally: &Tally) {
    match to.send(Note) {
        Ok(()) => add(&tally.notes_sent),
        Err(SendError::Stopped { .. } | SendError::NoEndpoint { .. }) => add(&tally.notes_refused),
        Err(other) => panic!("{other}"),
    }
}

fn note_outcome(outcome: Result<(), AskError>, tally: &Tally) {
    match outcome {
        Ok(()) => add(&tally.asks_answered),
        Err(AskError::Stopped { .. } | AskError::NoEndpoint { .. }) => add(&tally.asks_refused),
        Err(other) => panic!("{other}"),
    }
}

/// Sends and asks until the last holder has been there.
async fn talk(refs: Arc<Refs>, tally: Arc<Tally>) {
    let mut turn = 0;
    while !tally.done.load(Ordering::SeqCst) {
        turn += 1;
        let to = refs.pick(turn);
        send(&to, &tally);
        let asking = to.ask(Question);
        send(&to, &tally);
        note_outcome(asking.await, &tally);
        // A refusal may be there at once, and this core has others to serve.
        pause().await;
    }
}

fn race(scene: &Scene, isolated: bool) {
    let tally = Arc::<Tally>::default();
    let register = || loop {
        let held = tally.clone();
        let own = match isolated {
            true => scene.answering.register_isolated("holder", || Holder(held)),
            false => scene.answering.register_on(scene.core, "holder", || Holder(held)),
        };
        match own {
            Ok(own) => return own,
            // Those before are not all at their end.
            Err(RegisterError::TooManyIsolated { .. }) => thread::yield_now(),
            Err(other) => panic!("{other}"),
        }
    };
    let seen = |own: &EndpointRef| if scene.distance.is_remote() { seen_from(&scene.asking, own) } else { own.clone() };
    let mut own = register();
    let refs = Arc::new(Refs { first: seen(&own), newest: Mutex::new(seen(&own)) });
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let (refs, tally) = (refs.clone(), tally.clone());
            thread::spawn(move || futures::executor::block_on(talk(refs, tally)))
        })
        .collect();
    let tasks: Vec<_> = (0..scene.asking.core_count())
        .map(|core| {
            let (refs, tally) = (refs.clone(), tally.clone());
            scene.asking.spawn_on(core, move || talk(refs, tally)).unwrap()
        })
        .collect();
    let mut answered = 0;
    for _ in 0..HOLDERS {
        // Each of them has been seen to work.
        common::echo::until("asks are answered", || get(&tally.asks_answered) > answered);
        assert!(scene.answering.stop(&own));
        assert!(!scene.answering.stop(&own), "once");
        own = register();
        *refs.newest.lock().unwrap() = seen(&own);
        answered = get(&tally.asks_answered);
    }
    tally.done.store(true, Ordering::SeqCst);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    tasks.into_iter().for_each(|task| task.join().unwrap());
    account(scene, &tally);
    assert!(scene.answering.stop(&own));
    common::echo::until("all have stopped", || get(&tally.stopped) == HOLDERS as u64 + 1);
}

/// Whatever was sent was handled or refused, and either is counted.
fn account(scene: &Scene, tally: &Tally) {
    assert_eq!(get(&tally.asks_handled), get(&tally.asks_answered), "what was handled was answered");
    let remote = scene.distance.is_remote();
    let lost_there = if remote { eventually(&scene.asking, "a look", |_| true).sends_lost } else { 0 };
    eventually(&scene.answering, "the account of every message", |now| {
        // The asks that were refused are counted together with the notes that were.
        let refused = now.unknown_endpoint + lost_there + if remote { 0 } else { now.sends_lost };
        let sent = get(&tally.notes_sent) + get(&tally.asks_refused);
        get(&tally.notes_handled) + refused == sent
    });
}

#[test]
fn whatever_is_sent_while_an_endpoint_stops_is_handled_or_refused_and_counted() {
    bounded(|| at_every_distance(config(), |scene| race(scene, false)));
}

#[test]
fn the_same_holds_for_an_isolated_endpoint() {
    bounded(|| at_every_distance(config(), |scene| race(scene, true)));
}

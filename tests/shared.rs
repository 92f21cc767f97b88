//! Handlers of one endpoint that are in flight side by side.

mod common;

use std::cell::{Cell, RefCell};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use common::echo::within;
use common::gate::{Event, Gate, pass};
use common::scene::{Distance, Scene, at_every_distance};
use common::{LIMIT, bounded, builder, config, end, eventually, kind, server};
use ringpost::{
    AskError, CallContext, Config, Endpoint, EndpointRef, HandleShared, HandleSync, HandlerError, Handlers, message,
};
use serde::{Deserialize, Serialize};

/// Waits at a gate beside others; answered with how many are in flight when it begins.
#[derive(Serialize, Deserialize, Clone)]
struct Wait(u64);
message!(Wait as "shared.Wait" => usize);

/// Does not wait; then does as it is told.
#[derive(Serialize, Deserialize, Clone)]
enum Quick {
    Answer,
    Fail,
    Panic,
    /// After a gate.
    PanicLate(u64),
}
message!(Quick as "shared.Quick" => ());

/// Needs the endpoint for itself; answered with how many are in flight.
#[derive(Serialize, Deserialize, Clone)]
struct Alone;
message!(Alone as "shared.Alone" => usize);

#[derive(Serialize, Deserialize, Clone)]
struct Note(u64);
message!(Note as "shared.Note");

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Alone,
    /// `on_error`, with how many are in flight.
    Error(String, usize),
    /// `on_stop`, with how many are in flight.
    Stop(usize),
}

/// Allows this many at a time; 0 says nothing about it.
struct Library<const K: usize> {
    readers: Cell<usize>,
    /// Borrowed for a moment by all of them.
    visits: RefCell<Vec<u64>>,
    tell: Sender<Step>,
}

impl<const K: usize> Library<K> {
    fn new(tell: &Sender<Step>) -> Library<K> {
        Library { readers: Cell::new(0), visits: RefCell::default(), tell: tell.clone() }
    }
}

struct Reader<'a>(&'a Cell<usize>);

impl<'a> Reader<'a> {
    fn enter(readers: &'a Cell<usize>) -> Reader<'a> {
        readers.set(readers.get() + 1);
        Reader(readers)
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl<const K: usize> Endpoint for Library<K> {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_shared::<Wait>().ask_shared::<Quick>().send_shared::<Note>().ask_sync::<Alone>();
        if K > 0 {
            handlers.concurrency(K);
        }
    }

    fn on_error(&mut self, error: &HandlerError) {
        let _ = self.tell.send(Step::Error(error.text().to_owned(), self.readers.get()));
    }

    async fn on_stop(&mut self) {
        let _ = self.tell.send(Step::Stop(self.readers.get()));
    }
}

impl<const K: usize> HandleShared<Wait> for Library<K> {
    async fn handle(&self, wait: Wait, context: &mut CallContext) -> Result<usize, HandlerError> {
        assert!(context.is_ask());
        let _reader = Reader::enter(&self.readers);
        self.visits.borrow_mut().push(wait.0);
        let readers = self.readers.get();
        pass(wait.0).await;
        Ok(readers)
    }
}

impl<const K: usize> HandleShared<Quick> for Library<K> {
    async fn handle(&self, quick: Quick, _: &mut CallContext) -> Result<(), HandlerError> {
        let _reader = Reader::enter(&self.readers);
        match quick {
            Quick::Answer => Ok(()),
            Quick::Fail => Err(HandlerError::new("no such book")),
            Quick::Panic => panic!("fire"),
            Quick::PanicLate(gate) => {
                pass(gate).await;
                panic!("late fire")
            }
        }
    }
}

impl<const K: usize> HandleShared<Note> for Library<K> {
    async fn handle(&self, note: Note, _: &mut CallContext) -> Result<(), HandlerError> {
        let _reader = Reader::enter(&self.readers);
        pass(note.0).await;
        Ok(())
    }
}

impl<const K: usize> HandleSync<Alone> for Library<K> {
    fn handle(&mut self, _: Alone, _: &mut CallContext) -> Result<usize, HandlerError> {
        let _ = self.tell.send(Step::Alone);
        Ok(self.readers.get())
    }
}

fn place<const K: usize>(scene: &Scene) -> (EndpointRef, Receiver<Step>) {
    let (tell, told) = channel();
    (scene.place("library", move || Library::<K>::new(&tell)), told)
}

fn gates<const N: usize>() -> [Gate; N] {
    std::array::from_fn(|_| Gate::new())
}

/// Sees to it that everything sent so far has reached the endpoint's inbox.
fn queued(scene: &Scene, messages: u64) {
    eventually(&scene.answering, "messages that wait", |now| now.inbox_messages == messages);
}

#[test]
fn as_many_handlers_as_allowed_are_in_flight_and_end_in_any_order() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let (library, _told) = place::<3>(scene);
            let mut gates = gates::<5>();
            let mut asks: Vec<_> = gates.iter().map(|gate| Some(library.ask(Wait(gate.id)))).collect();
            gates[..3].iter().for_each(|gate| gate.expect(Event::Entered));
            queued(scene, 2);
            assert!(gates[3..].iter().all(Gate::is_untouched), "the limit holds");
            for (at, seen) in [(1, 2), (3, 3), (0, 1), (4, 3), (2, 3)] {
                gates[at].open();
                gates[at].expect(Event::Passed);
                assert_eq!(within(asks[at].take().unwrap()).unwrap(), seen, "ask {at}");
                if at < 3 && at != 2 {
                    gates[if at == 1 { 3 } else { 4 }].expect(Event::Entered);
                }
            }
            eventually(&scene.answering, "no task is left", |now| now.tasks == now.endpoints);
        });
    });
}

#[test]
fn what_needs_the_endpoint_alone_waits_for_it_and_nobody_overtakes() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let (library, told) = place::<8>(scene);
            let mut gates = gates::<3>();
            let first = library.ask(Wait(gates[0].id));
            let second = library.ask(Wait(gates[1].id));
            let alone = library.ask(Alone);
            let third = library.ask(Wait(gates[2].id));
            gates[..2].iter().for_each(|gate| gate.expect(Event::Entered));
            queued(scene, 2);
            gates[0].open();
            assert_eq!(within(first).unwrap(), 1);
            assert!(gates[2].is_untouched() && told.try_recv().is_err());
            gates[1].open();
            assert_eq!(within(second).unwrap(), 2);
            assert_eq!(within(alone).unwrap(), 0, "it is alone");
            gates[2].expect(Event::Entered);
            gates[2].open();
            assert_eq!(within(third).unwrap(), 1);
        });
    });
}

#[test]
fn one_at_a_time_is_the_default() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let (library, told) = place::<0>(scene);
            let mut gates = gates::<2>();
            let asks: Vec<_> = gates.iter().map(|gate| library.ask(Wait(gate.id))).collect();
            gates[0].expect(Event::Entered);
            queued(scene, 1);
            assert!(gates[1].is_untouched());
            gates.iter_mut().for_each(Gate::open);
            asks.into_iter().for_each(|ask| assert_eq!(within(ask).unwrap(), 1));
            assert_eq!(kind(&library.ask_blocking(Quick::Fail).unwrap_err()), "Handler");
            assert_eq!(told.recv_timeout(LIMIT), Ok(Step::Error("no such book".into(), 0)));
            assert_eq!(library.ask_blocking(Alone).unwrap(), 0);
        });
    });
}

#[test]
fn an_error_or_a_panic_goes_to_its_asker_at_once_and_to_on_error_alone() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let (library, told) = place::<4>(scene);
            let [mut gate, mut late] = gates();
            let waiting = library.ask(Wait(gate.id));
            gate.expect(Event::Entered);
            let failing = library.ask(Quick::PanicLate(late.id));
            late.expect(Event::Entered);
            let outcome = library.ask_blocking(Quick::Fail);
            let Err(AskError::Handler { error, .. }) = outcome else { panic!("{outcome:?}") };
            assert_eq!((error.text(), error.is_panic()), ("no such book", false));
            late.open();
            let outcome = within(failing);
            let Err(AskError::Handler { error, .. }) = outcome else { panic!("{outcome:?}") };
            assert_eq!((error.text(), error.is_panic()), ("late fire", true));
            assert!(told.try_recv().is_err(), "one is still in flight");
            // Others wait for what on_error has to hear.
            let next = library.ask(Quick::Answer);
            queued(scene, 1);
            gate.open();
            within(waiting).unwrap();
            assert_eq!(told.recv_timeout(LIMIT), Ok(Step::Error("no such book".into(), 0)));
            assert_eq!(told.recv_timeout(LIMIT), Ok(Step::Error("late fire".into(), 0)));
            within(next).unwrap();
            for outcome in scene.outcomes(&library, Quick::Panic) {
                let Err(AskError::Handler { error, .. }) = outcome else { panic!("{outcome:?}") };
                assert_eq!((error.text(), error.is_panic()), ("fire", true));
            }
        });
    });
}

#[test]
fn a_dropped_ask_ends_its_own_handler_only() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let (library, _told) = place::<2>(scene);
            let [dropped, mut kept, mut next] = gates();
            let giving_up = library.ask(Wait(dropped.id));
            dropped.expect(Event::Entered);
            let keeping = library.ask(Wait(kept.id));
            kept.expect(Event::Entered);
            let waiting = library.ask(Wait(next.id));
            // One that waits for its turn goes as well.
            let in_vain = library.ask(Quick::Answer);
            queued(scene, 2);
            drop(in_vain);
            queued(scene, 1);
            drop(giving_up);
            dropped.expect(Event::Dropped);
            next.expect(Event::Entered);
            assert!(kept.is_untouched());
            next.open();
            kept.open();
            assert_eq!((within(waiting).unwrap(), within(keeping).unwrap()), (2, 2));
            eventually(&scene.answering, "both are counted", |now| now.cancelled == 2);
            let [never] = gates();
            let late = library.ask_blocking_within(Wait(never.id), Duration::from_millis(5));
            assert_eq!(kind(&late.unwrap_err()), "Timeout");
            assert_eq!(library.ask_blocking(Alone).unwrap(), 0);
        });
    });
}

#[test]
fn a_stop_waits_for_all_in_flight_and_what_is_queued() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let (library, told) = place::<2>(scene);
            let mut gates = gates::<3>();
            let asks: Vec<_> = gates.iter().map(|gate| library.ask(Wait(gate.id))).collect();
            gates[..2].iter().for_each(|gate| gate.expect(Event::Entered));
            queued(scene, 1);
            let own = scene.answering.endpoint_ref(&library.uri()).unwrap();
            assert!(scene.answering.stop(&own));
            gates[0].open();
            gates[2].expect(Event::Entered);
            gates[2].open();
            assert!(told.try_recv().is_err());
            gates[1].open();
            asks.into_iter().for_each(|ask| assert!(within(ask).is_ok()));
            assert_eq!(told.recv_timeout(LIMIT), Ok(Step::Stop(0)));
        });
    });
}

#[test]
fn the_end_of_the_env_drops_all_in_flight() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let (library, told) = place::<3>(scene);
            let gates = gates::<3>();
            let asks: Vec<_> = gates[..2].iter().map(|gate| library.ask(Wait(gate.id))).collect();
            gates[..2].iter().for_each(|gate| gate.expect(Event::Entered));
            library.send(Note(gates[2].id)).unwrap();
            gates[2].expect(Event::Entered);
            scene.answering.shutdown(Duration::ZERO);
            gates.iter().for_each(|gate| gate.expect(Event::Dropped));
            for ask in asks {
                let error = kind(&within(ask).unwrap_err());
                let wanted = if scene.distance.is_remote() { "Disconnected" } else { "Stopped" };
                assert!(error == wanted || (scene.distance != Distance::Local && error == "NeverReplied"), "{error}");
            }
            assert!(told.try_recv().is_err(), "no on_stop at the hard end");
        });
    });
}

#[test]
fn a_limit_of_none_is_refused_at_the_registration() {
    bounded(|| {
        struct Closed;
        impl Endpoint for Closed {
            fn handlers(handlers: &mut Handlers<Self>) {
                handlers.concurrency(0);
            }
        }
        let env = server(1);
        let refused = env.register("closed", || Closed).unwrap_err().to_string();
        assert!(refused.contains("its concurrency is 0"), "{refused}");
        end(&env);
    });
}

#[test]
fn handlers_in_flight_count_as_tasks_and_the_next_is_overloaded_at_once() {
    bounded(|| {
        // The built-in endpoint, this one, and two more.
        let env = builder("small", 1, Config { tasks: 4, ..config() }).start().unwrap();
        let (tell, _told) = channel();
        let library = env.register("library", move || Library::<9>::new(&tell)).unwrap();
        let mut gates = gates::<2>();
        let asks: Vec<_> = gates.iter().map(|gate| library.ask(Wait(gate.id))).collect();
        gates.iter().for_each(|gate| gate.expect(Event::Entered));
        let outcome = library.ask_blocking(Quick::Answer);
        let Err(AskError::Overloaded { queue, .. }) = outcome else { panic!("{outcome:?}") };
        assert!(queue.contains("Config::tasks"), "{queue}");
        gates.iter_mut().for_each(Gate::open);
        asks.into_iter().for_each(|ask| assert!(within(ask).is_ok()));
        library.ask_blocking(Quick::Answer).unwrap();
        eventually(&env, "it is counted", |now| now.tasks_refused == 1);
        end(&env);
    });
}

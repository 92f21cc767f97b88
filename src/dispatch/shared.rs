//! Handlers of one endpoint that are in flight side by side.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;

use super::call::Origin;
use super::handling::Handling;
use crate::executor::key::WakeKey;
use crate::wire::failure::HandlerError;

/// The `&self` handlers of an endpoint that have begun and not ended.
///
/// They are the readers of a lock without overtaking: messages begin in the order of their arrival, a shared one while
/// fewer than the limit are in flight, any other one when none is. Each that suspends is a task of its own, so that its
/// wakes poll only it; the endpoint has its next turn when one ends.
#[derive(Debug)]
pub struct InFlight {
    limit: usize,
    count: Cell<usize>,
    serial: Cell<u64>,
    /// By their serial numbers, as they are suspended in the order in which they begin. The oldest ends first as a rule.
    suspended: RefCell<VecDeque<Suspended>>,
    /// What `on_error` is to be told, alone.
    errors: RefCell<Vec<HandlerError>>,
    endpoint: Waker,
    handling: Handling,
}

#[derive(Debug)]
struct Suspended {
    serial: u64,
    origin: Origin,
    request: u64,
    task: WakeKey,
}

/// A handler's place among those in flight. Its drop, whichever way the handler ends, makes room for the next.
#[derive(Debug)]
pub struct Flight {
    all: Rc<InFlight>,
    serial: u64,
    deadline: u64,
}

impl InFlight {
    /// None yet, of up to `limit`; `endpoint` gets the endpoint its turn, `handling` is the core's.
    pub fn new(limit: usize, endpoint: Waker, handling: Handling) -> Rc<InFlight> {
        Rc::new(InFlight {
            limit,
            count: Cell::new(0),
            serial: Cell::new(0),
            suspended: RefCell::default(),
            errors: RefCell::default(),
            endpoint,
            handling,
        })
    }

    /// Whether the next message may be handled now.
    pub fn may_begin(&self, shared: bool) -> bool {
        let count = self.count.get();
        // What the endpoint is to be told needs it alone.
        self.errors.borrow().is_empty() && (count == 0 || (shared && count < self.limit))
    }

    /// Whether no handler is in flight.
    pub fn is_empty(&self) -> bool {
        self.count.get() == 0
    }

    /// A handler begins, of a call with this deadline.
    pub fn begin(self: &Rc<Self>, deadline: u64) -> Flight {
        self.count.set(self.count.get() + 1);
        self.serial.set(self.serial.get() + 1);
        Flight { all: self.clone(), serial: self.serial.get(), deadline }
    }

    /// The handler with this number waits as this task.
    pub fn suspend(&self, serial: u64, (origin, request): (Origin, u64), task: WakeKey) {
        self.suspended.borrow_mut().push_back(Suspended { serial, origin, request, task });
    }

    /// The task of the handler of this call.
    pub fn task_of(&self, origin: Origin, request: u64) -> Option<WakeKey> {
        let suspended = self.suspended.borrow();
        suspended.iter().find(|one| one.origin == origin && one.request == request).map(|one| one.task)
    }

    /// The asks of this origin whose handlers wait.
    pub fn requests_of(&self, origin: Origin) -> Vec<u64> {
        let suspended = self.suspended.borrow();
        suspended.iter().filter(|one| one.origin == origin && one.request != 0).map(|one| one.request).collect()
    }

    /// What the endpoint is still to be told of.
    pub fn take_errors(&self) -> Vec<HandlerError> {
        self.errors.take()
    }
}

impl Flight {
    /// Which handler of its endpoint this is.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// Where the core is told whose handler is polled, and the deadline that it is told.
    pub fn deadline(&self) -> (Handling, u64) {
        (self.all.handling.clone(), self.deadline)
    }

    /// The handler failed: the endpoint is told when it is alone.
    pub fn failed(&self, error: HandlerError) {
        self.all.errors.borrow_mut().push(error);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.all.count.set(self.all.count.get() - 1);
        let mut suspended = self.all.suspended.borrow_mut();
        if let Ok(at) = suspended.binary_search_by_key(&self.serial, |one| one.serial) {
            suspended.remove(at);
        }
        drop(suspended);
        self.all.endpoint.wake_by_ref();
    }
}

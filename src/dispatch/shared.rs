//! Handlers of one endpoint that are in flight side by side.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;

use super::call::{Call, NO_DEADLINE, Origin};
use super::handling::Handling;
use super::suspended::{FlightKey, Suspended};
use crate::executor::key::WakeKey;
use crate::wire::failure::HandlerError;
use crate::wire::frame::EndpointId;

/// The `&self` handlers of an endpoint that have begun and not ended.
///
/// They are the readers of a lock without overtaking: messages begin in the order of their arrival, a shared one while
/// fewer than the limit are in flight, any other one when none is. Each that suspends is a task of its own, so that its
/// wakes poll only it; the endpoint has its next turn when one ends.
#[derive(Debug)]
pub struct InFlight {
    limit: usize,
    count: Cell<usize>,
    /// Those of all endpoints of the core.
    suspended: Suspended,
    /// Its own of one-way messages, in the order in which they were suspended.
    one_way: RefCell<VecDeque<OneWay>>,
    /// What `on_error` is to be told, alone.
    errors: RefCell<Vec<HandlerError>>,
    endpoint: Waker,
    handling: Handling,
}

/// A suspended handler of a one-way message, which nobody gives up.
#[derive(Clone, Copy, Debug)]
pub(super) struct OneWay {
    pub(super) key: FlightKey,
    pub(super) task: WakeKey,
    pub(super) origin: Origin,
    /// When it is dropped, in nanoseconds of the core's clock.
    pub(super) over: u64,
}

/// A handler's place among those in flight. Its drop, whichever way the handler ends, makes room for the next.
#[derive(Debug)]
pub struct Flight {
    all: Rc<InFlight>,
    key: FlightKey,
    deadline: u64,
}

impl InFlight {
    /// None yet, of up to `limit`; `endpoint` gets the endpoint its turn, the rest is the core's.
    pub(super) fn new(limit: usize, endpoint: Waker, suspended: Suspended, handling: Handling) -> Rc<InFlight> {
        let (count, one_way, errors) = (Cell::new(0), RefCell::default(), RefCell::default());
        Rc::new(InFlight { limit, count, suspended, one_way, errors, endpoint, handling })
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

    /// A handler of this endpoint begins.
    pub(super) fn begin(self: &Rc<Self>, call: &Call, endpoint: EndpointId) -> Flight {
        self.count.set(self.count.get() + 1);
        let key = self.suspended.borrow_mut().begin(call, endpoint);
        Flight { all: self.clone(), key, deadline: call.deadline }
    }

    /// A handler of a one-way message is suspended.
    pub(super) fn limit_one_way(&self, handler: OneWay) {
        self.one_way.borrow_mut().push_back(handler);
    }

    /// The handlers of one-way messages that are over at the time `now`.
    pub(super) fn overdue(&self, now: u64) -> Vec<OneWay> {
        self.one_way.borrow().iter().copied().filter(|handler| handler.over <= now).collect()
    }

    /// When the next of them is over, or `NO_DEADLINE`.
    pub(super) fn next_overdue(&self) -> u64 {
        self.one_way.borrow().iter().map(|handler| handler.over).min().unwrap_or(NO_DEADLINE)
    }

    /// The endpoint is to be told of this when it is alone.
    pub fn tell_later(&self, error: HandlerError) {
        self.errors.borrow_mut().push(error);
    }

    /// What the endpoint is still to be told of.
    pub fn take_errors(&self) -> Vec<HandlerError> {
        self.errors.take()
    }
}

impl Flight {
    /// Which handler of its core this is.
    pub(super) fn key(&self) -> FlightKey {
        self.key
    }

    /// Where the core is told whose handler is polled, and the deadline that it is told.
    pub fn deadline(&self) -> (Handling, u64) {
        (self.all.handling.clone(), self.deadline)
    }

    /// The handler failed: the endpoint is told when it is alone.
    pub fn failed(&self, error: HandlerError) {
        self.all.tell_later(error);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.all.count.set(self.all.count.get() - 1);
        self.all.suspended.borrow_mut().end(self.key);
        // As few as its endpoint lets be in flight, and the oldest ends first as a rule.
        let mut one_way = self.all.one_way.borrow_mut();
        if let Some(at) = one_way.iter().position(|handler| handler.key == self.key) {
            one_way.remove(at);
        }
        drop(one_way);
        self.all.endpoint.wake_by_ref();
    }
}

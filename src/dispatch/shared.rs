//! Handlers of one endpoint that are in flight side by side.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

use super::call::Call;
use super::handling::Handling;
use super::suspended::{FlightKey, Suspended};
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
    /// What `on_error` is to be told, alone.
    errors: RefCell<Vec<HandlerError>>,
    endpoint: Waker,
    handling: Handling,
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
        let (count, errors) = (Cell::new(0), RefCell::default());
        Rc::new(InFlight { limit, count, suspended, errors, endpoint, handling })
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
        self.all.endpoint.wake_by_ref();
    }
}

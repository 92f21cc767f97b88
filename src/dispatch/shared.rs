//! Handlers of one endpoint that are in flight side by side.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;

use super::call::{Call, NO_DEADLINE, Origin};
use super::handling::Handling;
use super::suspended::{FlightKey, Suspended};
use crate::executor::key::WakeKey;
use crate::executor::steps::Steps;
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
    /// Its own of one-way messages, in the order in which they were suspended and are over. Those that ended stay until
    /// they are the first, or many.
    one_way: RefCell<VecDeque<OneWay>>,
    /// What `on_error` is to be told, alone.
    errors: RefCell<Vec<HandlerError>>,
    endpoint: Waker,
    handling: Handling,
    steps: Steps,
}

/// Handlers of one-way messages that are too few to look for those that have ended.
const FEW_ONE_WAY: usize = 64;

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
        Rc::new(InFlight { limit, count, suspended, one_way, errors, endpoint, handling, steps: Steps::new() })
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
        self.suspended.borrow_mut().limit(handler.key, handler.over);
        let mut one_way = self.one_way.borrow_mut();
        if one_way.len() >= FEW_ONE_WAY + 2 * self.count.get() {
            one_way.retain(|handler| self.is_suspended(handler));
        }
        one_way.push_back(handler);
    }

    /// The handlers of one-way messages that are over at the time `now`, the first `most` of them.
    pub(super) fn overdue(&self, now: u64, most: usize) -> Vec<OneWay> {
        let one_way = self.one_way.borrow();
        let over = one_way.iter().take_while(|handler| handler.over <= now);
        over.filter(|handler| self.is_suspended(handler)).take(most).copied().collect()
    }

    /// When the next of them is over, or `NO_DEADLINE`.
    pub(super) fn next_overdue(&self) -> u64 {
        let mut one_way = self.one_way.borrow_mut();
        while let Some(first) = one_way.front() {
            if self.is_suspended(first) {
                return first.over;
            }
            one_way.pop_front();
        }
        NO_DEADLINE
    }

    fn is_suspended(&self, handler: &OneWay) -> bool {
        self.steps.add(1);
        self.suspended.borrow().is_limited(handler.key, handler.task, handler.over)
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

#[cfg(test)]
mod tests {
    use super::*;

    const ONE_WAY: Call = Call { origin: Origin::Here, request: 0, deadline: NO_DEADLINE, resolved: None, near: true };

    fn endpoint() -> Rc<InFlight> {
        InFlight::new(100_000, Waker::noop().clone(), Suspended::default(), Handling::default())
    }

    /// The handler of a one-way message that begins, and is suspended until `over`.
    fn suspend(all: &Rc<InFlight>, over: u64) -> Flight {
        let flight = all.begin(&ONE_WAY, EndpointId(9));
        let (key, task) = (flight.key(), WakeKey::new(0, flight.key(), (over % 1000) as u32));
        all.suspended.borrow_mut().suspend(key, Some(task));
        all.limit_one_way(OneWay { key, task, origin: Origin::Here, over });
        flight
    }

    #[test]
    fn the_end_of_a_one_way_message_looks_at_no_other_in_whatever_order_they_end() {
        for newest_first in [false, true] {
            let all = endpoint();
            let mut flights: VecDeque<_> = (1..=10_000).map(|over| suspend(&all, over)).collect();
            while let Some(flight) = if newest_first { flights.pop_back() } else { flights.pop_front() } {
                drop(flight);
                let first = if newest_first { 1 } else { 10_001 - flights.len() as u64 };
                assert_eq!(all.next_overdue(), if flights.is_empty() { NO_DEADLINE } else { first });
            }
            let steps = all.steps.taken();
            assert!(steps <= 3 * 10_000, "{steps} steps");
        }
    }

    #[test]
    fn one_way_messages_that_have_ended_do_not_gather_beside_one_that_waits() {
        let all = endpoint();
        let waits = suspend(&all, 1);
        (2..=10_000).for_each(|over| drop(suspend(&all, over)));
        let kept = all.one_way.borrow().len();
        assert!(kept <= 100, "{kept} are kept");
        let steps = all.steps.taken();
        assert!(steps <= 2 * 10_000, "{steps} steps");
        assert_eq!((all.overdue(10_000, 9).len(), all.next_overdue()), (1, 1));
        drop(waits);
        assert_eq!((all.overdue(10_000, 9).len(), all.next_overdue()), (0, NO_DEADLINE));
    }

    #[test]
    fn the_first_that_are_over_come_first_and_no_more_than_are_wanted() {
        let all = endpoint();
        let mut flights: Vec<_> = [3, 3, 5, 7, 9].map(|over| suspend(&all, over)).into();
        drop(flights.remove(1));
        let over = |now, most| all.overdue(now, most).iter().map(|handler| handler.over).collect::<Vec<_>>();
        assert_eq!((over(2, 9), over(8, 9), over(8, 2)), (vec![], vec![3, 5, 7], vec![3, 5]));
    }
}

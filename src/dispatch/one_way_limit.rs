//! The time limit of handlers of one-way messages.
//!
//! Nobody waits for such a handler, so nobody gives it up: neither a deadline nor the end of a connection. One that
//! waits for ever would keep its endpoint, or its place among those in flight, for ever.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;

use super::call::{NO_DEADLINE, Origin};
use super::dispatcher::{Dispatcher, contain};
use super::notices::sender;
use super::reply_path::ReplyPath;
use super::slot::{Phase, Slot};
use crate::executor::rate_limit::{RateLimit, RateLimits};
use crate::wire::frame::EndpointId;

/// Handlers that are ended, and endpoints that are looked at for them, in one turn of the core.
const ENDED_PER_TURN: usize = 256;

/// The endpoints of a core that have a suspended handler of a one-way message, by the time at which to look at them.
///
/// An endpoint is in here once, and stays until it is looked at: a handler that ends in time takes nothing out.
#[derive(Debug)]
pub(super) struct OneWayLimit {
    /// `Config::one_way_timeout` in nanoseconds, `NO_DEADLINE` for none.
    limit: u64,
    due: RefCell<BinaryHeap<Reverse<(u64, u64)>>>,
    next: Cell<u64>,
    log: RateLimit,
}

impl OneWayLimit {
    pub(super) fn new(limit: u64, limits: &RateLimits) -> OneWayLimit {
        let log = limits.single("the handler of a one-way message took too long and is dropped");
        OneWayLimit { limit, due: RefCell::default(), next: Cell::new(NO_DEADLINE), log }
    }

    fn look_at(&self, id: EndpointId, at: u64) {
        self.due.borrow_mut().push(Reverse((at, id.0)));
        self.next.set(self.next.get().min(at));
    }

    fn pop(&self, now: u64) -> Option<EndpointId> {
        let mut due = self.due.borrow_mut();
        due.peek().filter(|Reverse((at, _))| *at <= now)?;
        due.pop().map(|Reverse((_, id))| EndpointId(id))
    }
}

impl Dispatcher {
    /// When the handler of a one-way message that suspends now is over; its endpoint will be looked at.
    pub(super) fn limit_one_way(&self, slot: &Slot, now: u64) -> u64 {
        let at = now.saturating_add(self.one_way.limit);
        if at != NO_DEADLINE && !slot.watched.replace(true) {
            self.one_way.look_at(slot.id, at);
        }
        at
    }

    /// When [`end_overdue`](Self::end_overdue) has something to do at the earliest.
    #[inline]
    pub fn next_overdue(&self) -> Option<u64> {
        Some(self.one_way.next.get()).filter(|&at| at != NO_DEADLINE)
    }

    /// Drops the handlers of one-way messages whose time is up; true if any endpoint was looked at.
    #[inline]
    pub fn end_overdue(&self, now: u64, path: &Rc<dyn ReplyPath>) -> bool {
        let due = self.one_way.next.get() <= now;
        if due {
            self.look_for_overdue(now, path);
        }
        due
    }

    #[cold]
    fn look_for_overdue(&self, now: u64, path: &Rc<dyn ReplyPath>) {
        let mut left = ENDED_PER_TURN;
        while left > 0
            && let Some(id) = self.one_way.pop(now)
        {
            left -= 1;
            let Some(slot) = self.find(id) else { continue };
            left = left.saturating_sub(self.end_overdue_of(&slot, now, left + 1, path));
            match slot.next_overdue() {
                NO_DEADLINE => slot.watched.set(false),
                at => self.one_way.look_at(id, at.max(now + 1)),
            }
            contain(|| drop(slot));
        }
        let next = self.one_way.due.borrow().peek().map_or(NO_DEADLINE, |Reverse((at, _))| *at);
        self.one_way.next.set(next);
    }

    /// Returns how many handlers beside others it has ended: at most `most`.
    fn end_overdue_of(&self, slot: &Slot, now: u64, most: usize, path: &Rc<dyn ReplyPath>) -> usize {
        let overdue = slot.in_flight.as_ref().map_or_else(Vec::new, |all| all.overdue(now, most));
        for handler in &overdue {
            self.executor.abort(handler.task);
            self.note_overdue(slot, handler.origin, now, path);
        }
        if slot.phase.get() == Phase::Busy
            && slot.overdue_at.get() <= now
            && let Ok(mut cell) = slot.cell.try_borrow_mut()
        {
            contain(|| cell.clear());
            drop(cell);
            slot.phase.set(Phase::Idle);
            let current = slot.current.get();
            self.end_current(slot);
            if let Some((origin, _)) = current {
                self.note_overdue(slot, origin, now, path);
            }
            self.executor.wake(slot.key);
        }
        overdue.len()
    }

    fn note_overdue(&self, slot: &Slot, origin: Origin, now: u64, path: &Rc<dyn ReplyPath>) {
        self.count(|stats| stats.one_way_overdue += 1);
        if let Some(untold) = self.one_way.log.allow(now) {
            let (node, endpoint, peer) = (path.env_name(), &*slot.name, sender(origin, &**path));
            tracing::warn!(
                target: "ringpost::endpoint", node,
                endpoint,
                peer = %peer,
                untold,
                "the handler of a one-way message took too long and is dropped (Config::one_way_timeout)"
            );
        }
    }
}

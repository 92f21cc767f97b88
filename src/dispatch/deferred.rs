//! Asks whose handler has left the answer to a [`Replier`](super::replier::Replier).

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use slab::Slab;

use super::call::{Call, NO_DEADLINE, Origin};
use crate::executor::catch::wake;
use crate::executor::steps::Steps;

/// What a core and the replier of one ask share.
#[derive(Debug)]
pub struct Deferred {
    call: Call,
    /// Nobody waits for the answer any more.
    over: AtomicBool,
    /// Who awaits that.
    waker: Mutex<Option<Waker>>,
}

impl Deferred {
    /// The ask.
    pub fn call(&self) -> &Call {
        &self.call
    }

    /// Whether the asker is known to have given up.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Ready once the asker has given up; whoever polled last is woken.
    pub fn poll_over(&self, cx: &mut Context<'_>) -> Poll<()> {
        // Wakers are foreign code: this one is cloned, and the one before dropped, outside of the lock.
        let mine = cx.waker().clone();
        let before = self.waker().replace(mine);
        drop(before);
        if self.is_over() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn end(&self) {
        self.over.store(true, Ordering::Release);
        let waker = self.waker().take();
        // Foreign code, so not under the lock.
        if let Some(waker) = waker {
            wake(waker);
        }
    }

    fn waker(&self) -> std::sync::MutexGuard<'_, Option<Waker>> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The deferred asks of a core that are still to be answered.
///
/// Whoever takes an ask out answers it: the replier, or the core in its stead. So each has one answer, whatever a
/// replier that comes late still says. An ask whose asker has given up leaves the table, even if its replier is never
/// used.
///
/// The asks of one connection are linked to each other, and deadlines are in a heap, so that neither the end of a
/// connection nor a full table looks at the asks of others.
#[derive(Debug)]
pub struct Deferrals {
    table: RefCell<Table>,
    limit: usize,
    refused: Cell<u64>,
    late: Cell<u64>,
}

#[derive(Debug, Default)]
struct Table {
    asks: Slab<Entry>,
    by_ask: HashMap<(Origin, u64), u32>,
    /// The ask of each connection that was deferred last.
    by_connection: HashMap<Origin, u32>,
    /// When asks expire, and their places and serial numbers: those that were answered stay until then, or until they
    /// are many.
    deadlines: BinaryHeap<Reverse<(u64, u32, u64)>>,
    serial: u64,
    steps: Steps,
}

#[derive(Debug)]
struct Entry {
    deferred: Arc<Deferred>,
    serial: u64,
    /// Its handler has not returned: if it fails, its error is the answer, though the replier may be gone by then.
    handling: bool,
    /// The replier was dropped meanwhile.
    dropped: bool,
    /// The asks of its connection that were deferred next before and after it.
    before: u32,
    after: u32,
}

const NONE: u32 = u32::MAX;
/// Deadlines that are too few to look for those of asks that were answered.
const FEW_DEADLINES: usize = 64;

impl Table {
    fn find(&mut self, deferred: &Arc<Deferred>) -> Option<(u32, &mut Entry)> {
        let place = *self.by_ask.get(&key(&deferred.call))?;
        let entry = self.asks.get_mut(place as usize)?;
        Arc::ptr_eq(&entry.deferred, deferred).then_some((place, entry))
    }

    fn insert(&mut self, deferred: Arc<Deferred>) {
        let call = deferred.call;
        self.serial += 1;
        let mut entry =
            Entry { deferred, serial: self.serial, handling: true, dropped: false, before: NONE, after: NONE };
        let place = self.asks.vacant_key() as u32;
        if is_connection(call.origin)
            && let Some(before) = self.by_connection.insert(call.origin, place)
        {
            entry.before = before;
            self.asks[before as usize].after = place;
        }
        self.asks.insert(entry);
        self.by_ask.insert(key(&call), place);
        if call.deadline != NO_DEADLINE {
            if self.deadlines.len() >= FEW_DEADLINES + 2 * self.asks.len() {
                self.steps.add(self.deadlines.len());
                let asks = &self.asks;
                self.deadlines.retain(|Reverse((_, place, serial))| is_at(asks, *place, *serial));
            }
            self.deadlines.push(Reverse((call.deadline, place, self.serial)));
        }
    }

    fn remove(&mut self, place: u32) -> Option<Arc<Deferred>> {
        self.steps.add(1);
        let Entry { deferred, before, after, .. } = self.asks.try_remove(place as usize)?;
        self.by_ask.remove(&key(&deferred.call));
        if let Some(entry) = self.asks.get_mut(before as usize) {
            entry.after = after;
        }
        match self.asks.get_mut(after as usize) {
            Some(entry) => entry.before = before,
            None if !is_connection(deferred.call.origin) => {}
            None if before == NONE => drop(self.by_connection.remove(&deferred.call.origin)),
            None => drop(self.by_connection.insert(deferred.call.origin, before)),
        }
        Some(deferred)
    }

    /// The place of an ask whose deadline has passed.
    fn next_expired(&mut self, now: u64) -> Option<u32> {
        while let Some(&Reverse((deadline, place, serial))) = self.deadlines.peek()
            && (deadline <= now || !is_at(&self.asks, place, serial))
        {
            self.steps.add(1);
            self.deadlines.pop();
            if is_at(&self.asks, place, serial) {
                return Some(place);
            }
        }
        None
    }
}

fn is_at(asks: &Slab<Entry>, place: u32, serial: u64) -> bool {
    asks.get(place as usize).is_some_and(|entry| entry.serial == serial)
}

fn is_connection(origin: Origin) -> bool {
    matches!(origin, Origin::Peer(_) | Origin::Passed { .. })
}

impl Deferrals {
    /// An empty table for up to `limit` asks.
    pub fn new(limit: usize) -> Deferrals {
        Deferrals { table: RefCell::default(), limit, refused: Cell::new(0), late: Cell::new(0) }
    }

    /// Whether one more ask may be deferred now; counted if not.
    pub fn make_room(&self, now: u64) -> bool {
        if self.len() >= FIRST_SWEEP.min(self.limit) {
            self.sweep(now);
        }
        let room = self.len() < self.limit;
        if !room {
            self.refused.set(self.refused.get() + 1);
        }
        room
    }

    /// Enters an ask whose handler is about to run.
    pub fn open(&self, call: Call) -> Arc<Deferred> {
        let deferred = Arc::new(Deferred { call, over: AtomicBool::new(false), waker: Mutex::default() });
        // A peer may use an id again before it has the answer, which can only be that to its last ask then.
        self.cancel(call.origin, call.request);
        self.table.borrow_mut().insert(deferred.clone());
        deferred
    }

    /// Forgets asks whose deadline has passed and whose cancellation was lost. One new ask does not pay for all of them.
    fn sweep(&self, now: u64) {
        for _ in 0..SWEPT_AT_ONCE {
            let Some(place) = self.table.borrow_mut().next_expired(now) else { return };
            self.end(place);
        }
    }

    /// Takes an ask out that nobody waits for any more, and tells its replier. Wakers are foreign code: nothing is
    /// borrowed.
    fn end(&self, place: u32) -> bool {
        let ended = self.table.borrow_mut().remove(place);
        if let Some(deferred) = &ended {
            deferred.end();
        }
        ended.is_some()
    }

    /// The handler has returned. True if its replier is gone without an answer.
    pub fn handled(&self, deferred: &Arc<Deferred>) -> bool {
        match self.table.borrow_mut().find(deferred) {
            Some((_, entry)) => {
                entry.handling = false;
                entry.dropped
            }
            None => false,
        }
    }

    /// The replier is gone without an answer. True if the asker is to be told now.
    pub fn dropped(&self, deferred: &Arc<Deferred>) -> bool {
        if let Some((_, entry)) = self.table.borrow_mut().find(deferred)
            && entry.handling
        {
            entry.dropped = true;
            return false;
        }
        self.take(deferred)
    }

    /// Takes an ask out to answer it; false if it has been answered, or nobody waits any more.
    pub fn take(&self, deferred: &Arc<Deferred>) -> bool {
        let mut table = self.table.borrow_mut();
        let found = table.find(deferred).map(|(place, _)| place);
        match found {
            Some(place) => drop(table.remove(place)),
            None => self.late.set(self.late.get() + 1),
        }
        found.is_some()
    }

    /// The asker has given up; true if its ask was deferred and open.
    pub fn cancel(&self, origin: Origin, request: u64) -> bool {
        if self.is_empty() {
            return false;
        }
        let place = self.table.borrow().by_ask.get(&(origin, request)).copied();
        place.is_some_and(|place| self.end(place))
    }

    /// Nobody waits any longer for the asks of this connection: ends one of them, if there is one.
    pub fn end_one_of(&self, origin: Origin) -> bool {
        let place = self.table.borrow().by_connection.get(&origin).copied();
        place.is_some_and(|place| self.end(place))
    }

    /// Takes out all that are left; nobody can answer them any more but who calls this.
    pub fn end_all(&self) -> Vec<Arc<Deferred>> {
        let Table { asks, .. } = self.table.take();
        let all: Vec<_> = asks.into_iter().map(|(_, entry)| entry.deferred).collect();
        all.iter().for_each(|deferred| deferred.end());
        all
    }

    /// Asks that are still to be answered.
    pub fn len(&self) -> usize {
        self.table.borrow().asks.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Asks that were refused since too many were deferred already.
    pub fn refused(&self) -> u64 {
        self.refused.get()
    }

    /// Answers that came when nobody waited any more.
    pub fn late(&self) -> u64 {
        self.late.get()
    }
}

fn key(call: &Call) -> (Origin, u64) {
    (call.origin, call.request)
}

/// Asks that are too few to look for those that have expired.
const FIRST_SWEEP: usize = 64;
/// Expired asks that one new ask ends.
const SWEPT_AT_ONCE: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::connection_id::ConnectionId;

    fn call(request: u64, deadline: u64) -> Call {
        Call { origin: Origin::Core(1), request, deadline, resolved: None, near: true }
    }

    /// When the first of them expires.
    fn earliest(table: &Deferrals) -> u64 {
        table.table.borrow().deadlines.peek().unwrap().0.0
    }

    #[test]
    fn an_ask_is_answered_once_by_whoever_takes_it_first() {
        let table = Deferrals::new(10);
        let ask = table.open(call(1, NO_DEADLINE));
        assert!(table.take(&ask));
        assert!(!table.take(&ask) && !table.cancel(Origin::Core(1), 1));
        // The same id again, as after a wrap: the old replier means nobody.
        let again = table.open(call(1, NO_DEADLINE));
        assert!(!table.take(&ask));
        assert!(table.cancel(Origin::Core(1), 1) && again.is_over() && !ask.is_over());
        assert_eq!((table.len(), table.late()), (0, 2));
    }

    #[test]
    fn a_replier_that_is_dropped_while_its_handler_runs_leaves_the_answer_to_the_handler() {
        let table = Deferrals::new(10);
        let ask = table.open(call(1, NO_DEADLINE));
        assert!(!table.dropped(&ask));
        assert!(table.handled(&ask) && table.take(&ask));
        let ask = table.open(call(1, NO_DEADLINE));
        assert!(!table.handled(&ask));
        assert!(table.dropped(&ask));
    }

    #[test]
    fn a_replier_that_can_answer_nobody_is_told_so() {
        let table = Deferrals::new(10);
        let first = table.open(call(1, NO_DEADLINE));
        let second = table.open(call(1, NO_DEADLINE));
        assert!(first.is_over() && !second.is_over(), "its peer uses the id for another ask");
        assert!(!table.dropped(&first) && !table.handled(&second), "the other ask has a replier of its own");
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn a_full_table_is_searched_only_when_something_may_have_expired() {
        let table = Deferrals::new(3);
        let _kept = [9, 5, NO_DEADLINE].map(|deadline| table.open(call(deadline, deadline)));
        assert!(!table.make_room(4));
        assert_eq!(earliest(&table), 5);
        assert!(table.make_room(5));
        assert_eq!(earliest(&table), 9);
        let last = table.open(call(7, 7));
        assert_eq!(earliest(&table), 7);
        // Answered before it expired, which only costs a search.
        assert!(table.take(&last));
        table.open(call(11, 11));
        assert!(!table.make_room(8));
        assert_eq!(earliest(&table), 9);
        assert!(table.make_room(9));
    }

    #[test]
    fn the_end_of_a_connection_costs_what_its_own_asks_cost() {
        let table = Deferrals::new(25_000);
        let origin = |slot| Origin::Peer(ConnectionId { slot, generation: 1 });
        for request in 0..25_000 {
            table.open(Call { origin: origin(request % 5_000), ..call(u64::from(request) + 1, NO_DEADLINE) });
        }
        for connection in 0..5_000 {
            while table.end_one_of(origin(connection)) {}
        }
        assert!(table.is_empty());
        let steps = table.table.borrow().steps.taken();
        assert!(steps <= 2 * 25_000, "{steps} steps");
    }

    #[test]
    fn asks_of_one_connection_are_found_whichever_of_them_were_answered_before() {
        let table = Deferrals::new(10);
        let origin = Origin::Peer(ConnectionId { slot: 1, generation: 1 });
        let asks: Vec<_> = (1..=5).map(|request| table.open(Call { origin, ..call(request, NO_DEADLINE) })).collect();
        let other = table.open(call(1, NO_DEADLINE));
        assert!(table.take(&asks[4]) && table.take(&asks[2]) && table.cancel(origin, 1));
        assert!(table.end_one_of(origin) && table.end_one_of(origin) && !table.end_one_of(origin));
        assert!(asks[1].is_over() && asks[3].is_over() && !other.is_over());
        assert_eq!((table.len(), table.table.borrow().by_connection.len()), (1, 0));
        let again = table.open(Call { origin, ..call(1, NO_DEADLINE) });
        assert!(table.end_one_of(origin) && again.is_over());
    }

    #[test]
    fn deadlines_of_asks_that_were_answered_do_not_gather() {
        let table = Deferrals::new(10);
        for request in 1..10_000 {
            let ask = table.open(call(request, 1_000_000));
            assert!(table.take(&ask));
        }
        assert!(table.table.borrow().deadlines.len() < 100);
    }

    #[test]
    fn a_full_table_of_asks_that_expire_one_by_one_is_not_searched_for_each() {
        let table = Deferrals::new(10_000);
        for request in 1..=10_000 {
            table.open(call(request, request));
        }
        for request in 1..=10_000 {
            assert!(table.make_room(request));
            table.open(call(10_000 + request, 10_000 + request));
        }
        let steps = table.table.borrow().steps.taken();
        assert!(steps <= 100 * 10_000, "{steps} steps");
    }

    #[test]
    fn a_new_ask_ends_some_of_a_crowd_that_has_expired() {
        let table = Deferrals::new(10_000);
        let asks: Vec<_> = (1..=10_000).map(|request| table.open(call(request, 5))).collect();
        assert!(table.make_room(5));
        let ended = asks.iter().filter(|ask| ask.is_over()).count();
        assert_eq!((ended, table.len()), (256, 10_000 - 256));
        (0..40).for_each(|_| assert!(table.make_room(5)));
        assert!(table.len() <= 64, "{} are left", table.len());
    }

    #[test]
    fn the_table_is_bounded_and_what_has_expired_makes_room() {
        let table = Deferrals::new(2);
        let kept = [5, 7].map(|deadline| table.open(call(deadline, deadline)));
        assert!(!table.make_room(4));
        assert!(table.make_room(5));
        table.open(call(3, 9));
        assert!(kept[0].is_over() && !kept[1].is_over());
        assert_eq!((table.len(), table.refused()), (2, 1));
    }
}

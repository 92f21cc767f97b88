//! Asks whose handler has left the answer to a [`Replier`](super::replier::Replier).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use super::call::{Call, NO_DEADLINE, Origin};
use crate::executor::catch::wake;

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
#[derive(Debug)]
pub struct Deferrals {
    open: RefCell<HashMap<(Origin, u64), Entry>>,
    limit: usize,
    /// When as many are open, those that have expired are looked for.
    sweep_at: Cell<usize>,
    /// None of them expires before that.
    earliest: Cell<u64>,
    refused: Cell<u64>,
    late: Cell<u64>,
}

#[derive(Debug)]
struct Entry {
    deferred: Arc<Deferred>,
    /// Its handler has not returned: if it fails, its error is the answer, though the replier may be gone by then.
    handling: bool,
    /// The replier was dropped meanwhile.
    dropped: bool,
}

const FIRST_SWEEP: usize = 64;

impl Deferrals {
    /// An empty table for up to `limit` asks.
    pub fn new(limit: usize) -> Deferrals {
        Deferrals {
            open: RefCell::default(),
            limit,
            sweep_at: Cell::new(FIRST_SWEEP),
            earliest: Cell::new(NO_DEADLINE),
            refused: Cell::new(0),
            late: Cell::new(0),
        }
    }

    /// Whether one more ask may be deferred now; counted if not.
    pub fn make_room(&self, now: u64) -> bool {
        // A full table is not searched for each ask that it refuses.
        if self.len() >= self.sweep_at.get().min(self.limit) && self.earliest.get() <= now {
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
        // A peer may send as a one-way message what is an ask. Nobody waits for its answer.
        let one_way = call.request == 0;
        let deferred = Arc::new(Deferred { call, over: AtomicBool::new(one_way), waker: Mutex::default() });
        if !one_way {
            let entry = Entry { deferred: deferred.clone(), handling: true, dropped: false };
            let replaced = self.open.borrow_mut().insert(key(&call), entry);
            self.earliest.set(self.earliest.get().min(call.deadline));
            // A peer may use an id again before it has the answer, which can only be that to its last ask then.
            if let Some(replaced) = replaced {
                replaced.deferred.end();
            }
        }
        deferred
    }

    /// Forgets asks whose deadline has passed and whose cancellation was lost.
    fn sweep(&self, now: u64) {
        self.end_where(|call| call.deadline <= now);
        self.sweep_at.set(FIRST_SWEEP.max(self.len() * 2));
        let earliest = self.open.borrow().values().map(|entry| entry.deferred.call.deadline).min();
        self.earliest.set(earliest.unwrap_or(NO_DEADLINE));
    }

    /// The handler has returned. True if its replier is gone without an answer.
    pub fn handled(&self, deferred: &Arc<Deferred>) -> bool {
        match self.open.borrow_mut().get_mut(&key(&deferred.call)) {
            Some(entry) if Arc::ptr_eq(&entry.deferred, deferred) => {
                entry.handling = false;
                entry.dropped
            }
            _ => false,
        }
    }

    /// The replier is gone without an answer. True if the asker is to be told now.
    pub fn dropped(&self, deferred: &Arc<Deferred>) -> bool {
        if let Some(entry) = self.open.borrow_mut().get_mut(&key(&deferred.call))
            && entry.handling
            && Arc::ptr_eq(&entry.deferred, deferred)
        {
            entry.dropped = true;
            return false;
        }
        self.take(deferred)
    }

    /// Takes an ask out to answer it; false if it has been answered, or nobody waits any more.
    pub fn take(&self, deferred: &Arc<Deferred>) -> bool {
        let mut open = self.open.borrow_mut();
        let key = key(&deferred.call);
        let found = open.get(&key).is_some_and(|entry| Arc::ptr_eq(&entry.deferred, deferred));
        if found {
            open.remove(&key);
        } else {
            self.late.set(self.late.get() + 1);
        }
        found
    }

    /// The asker has given up; true if its ask was deferred and open.
    pub fn cancel(&self, origin: Origin, request: u64) -> bool {
        if self.is_empty() {
            return false;
        }
        let entry = self.open.borrow_mut().remove(&(origin, request));
        if let Some(entry) = &entry {
            entry.deferred.end();
        }
        entry.is_some()
    }

    /// Nobody waits any longer for the asks of this origin.
    pub fn end_of(&self, origin: Origin) {
        self.end_where(|call| call.origin == origin);
    }

    /// Takes out all that are left; nobody can answer them any more but who calls this.
    pub fn end_all(&self) -> Vec<Arc<Deferred>> {
        self.end_where(|_| true)
    }

    fn end_where(&self, ended: impl Fn(&Call) -> bool) -> Vec<Arc<Deferred>> {
        let mut out = Vec::new();
        self.open.borrow_mut().retain(|_, entry| {
            let ends = ended(&entry.deferred.call);
            if ends {
                out.push(entry.deferred.clone());
            }
            !ends
        });
        out.iter().for_each(|deferred| deferred.end());
        out
    }

    /// Asks that are still to be answered.
    pub fn len(&self) -> usize {
        self.open.borrow().len()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn call(request: u64, deadline: u64) -> Call {
        Call { origin: Origin::Core(1), request, deadline, resolved: None }
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
        assert!(table.open(call(0, NO_DEADLINE)).is_over(), "its peer sent it as a one-way message");
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn a_full_table_is_searched_only_when_something_may_have_expired() {
        let table = Deferrals::new(3);
        let _kept = [9, 5, NO_DEADLINE].map(|deadline| table.open(call(deadline, deadline)));
        assert!(!table.make_room(4));
        assert_eq!(table.earliest.get(), 5);
        assert!(table.make_room(5));
        assert_eq!(table.earliest.get(), 9);
        let last = table.open(call(7, 7));
        assert_eq!(table.earliest.get(), 7);
        // Answered before it expired, which only costs a search.
        assert!(table.take(&last));
        table.open(call(11, 11));
        assert!(!table.make_room(8));
        assert_eq!(table.earliest.get(), 9);
        assert!(table.make_room(9));
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

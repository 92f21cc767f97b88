//! The way into a core for threads that are no core.

use std::collections::VecDeque;
use std::fmt;
use std::sync::PoisonError;

use thiserror::Error;

use super::sync::{AtomicBool, Mutex, MutexGuard, Ordering};

/// Why the injector did not take an item. All give it back.
#[derive(Error)]
#[non_exhaustive]
pub enum PushError<T> {
    /// As many items wait as the capacity allows; the core may make room at any time.
    #[error("the injector is full")]
    Full(T),
    /// The items that wait are as large together as is allowed; the core may make room at any time.
    #[error("the injector holds too many bytes")]
    TooManyBytes(T),
    /// The core has stopped; it will never take an item again.
    #[error("the injector is closed")]
    Closed(T),
}

impl<T> fmt::Debug for PushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PushError::Full(_) => "Full(..)",
            PushError::TooManyBytes(_) => "TooManyBytes(..)",
            PushError::Closed(_) => "Closed(..)",
        })
    }
}

/// A queue into one core from any number of threads.
///
/// A lane has one sender, and threads that are no core come and go, so they share this one, under a lock. It is not the
/// fast path: the lock is held for a few instructions, and the core takes everything at once.
///
/// A core that spins must not touch the lock, so a flag beside the queue says whether there is anything, and
/// [`is_empty`](Injector::is_empty) reads only that. It works with [`ParkFlag`](super::park::ParkFlag) as a lane does:
/// push, then claim the wake. After [`close`](Injector::close) nothing goes in, and each item has gone one of three ways:
/// drained, left over, or given back to who pushed it.
pub struct Injector<T> {
    /// Whether the queue holds something. Written under the lock only, so it never disagrees with an unlocked queue.
    filled: AtomicBool,
    capacity: usize,
    max_bytes: usize,
    state: Mutex<State<T>>,
}

struct State<T> {
    queue: VecDeque<T>,
    /// As told with the items of the queue.
    bytes: usize,
    closed: bool,
}

impl<T: Send> Injector<T> {
    /// An open, empty queue that refuses to hold more than `capacity` items, or more than `max_bytes`. Allocates nothing
    /// yet.
    pub fn new(capacity: usize, max_bytes: usize) -> Injector<T> {
        let state = State { queue: VecDeque::new(), bytes: 0, closed: false };
        Injector { filled: AtomicBool::new(false), capacity, max_bytes, state: Mutex::new(state) }
    }

    /// Adds an item that may be refused: a request. `bytes` is how much it keeps in memory; one that is too large still
    /// fits where no other waits. Callable on any thread; the caller then claims the core's wake.
    ///
    /// # Errors
    /// [`PushError::Full`] at capacity, which items of [`push_unbounded`](Injector::push_unbounded) count toward too;
    /// [`PushError::TooManyBytes`] if the items that wait are too large together;
    /// [`PushError::Closed`] after [`close`](Injector::close).
    pub fn push(&self, item: T, bytes: usize) -> Result<(), PushError<T>> {
        let mut state = self.lock();
        if state.closed {
            return Err(PushError::Closed(item));
        }
        if state.queue.len() >= self.capacity {
            return Err(PushError::Full(item));
        }
        if state.bytes > 0 && state.bytes + bytes > self.max_bytes {
            return Err(PushError::TooManyBytes(item));
        }
        state.bytes += bytes;
        self.fill(&mut state, item);
        Ok(())
    }

    /// Adds an item that must not be refused: the wake of a task, or a reply. Callable on any thread; the caller then
    /// claims the core's wake.
    ///
    /// Not bounded here, but elsewhere: a task that is already due is not made due again, so there are no more wakes than
    /// the core has tasks; and a reply answers a pending ask, of which a core has a limited number.
    ///
    /// # Errors
    /// Gives the item back after [`close`](Injector::close).
    pub fn push_unbounded(&self, item: T) -> Result<(), T> {
        let mut state = self.lock();
        if state.closed {
            return Err(item);
        }
        self.fill(&mut state, item);
        Ok(())
    }

    /// Whether there is nothing to drain: one load. After [`ParkFlag::prepare`](super::park::ParkFlag::prepare) a `true`
    /// means that whoever pushes later will claim the wake.
    #[inline]
    pub fn is_empty(&self) -> bool {
        !self.filled.load(Ordering::Acquire)
    }

    /// Moves all items, oldest first, to the end of `out`. For the core only.
    ///
    /// With an empty `out` the two queues change places, so a core that keeps its `out` allocates nothing in the long run.
    pub fn drain(&self, out: &mut VecDeque<T>) {
        if self.is_empty() {
            return;
        }
        let mut state = self.lock();
        if out.is_empty() {
            std::mem::swap(out, &mut state.queue);
        } else {
            out.append(&mut state.queue);
        }
        state.bytes = 0;
        self.filled.store(false, Ordering::Release);
    }

    /// Refuses all items from now on, and returns what nobody drained, oldest first. Callable on any thread, and again.
    pub fn close(&self) -> VecDeque<T> {
        let mut state = self.lock();
        state.closed = true;
        state.bytes = 0;
        self.filled.store(false, Ordering::Release);
        std::mem::take(&mut state.queue)
    }

    fn fill(&self, state: &mut State<T>, item: T) {
        state.queue.push_back(item);
        // Before the sender's fence in `claim_wake`, so a core that parks sees this or is woken.
        self.filled.store(true, Ordering::Release);
    }

    /// No code of an item runs under the lock, so a poisoned one still guards a whole queue.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> fmt::Debug for Injector<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Injector").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(ringpost_loom)))]
mod tests {
    use super::*;

    fn drained<T: Send>(injector: &Injector<T>) -> VecDeque<T> {
        let mut out = VecDeque::new();
        injector.drain(&mut out);
        out
    }

    #[test]
    fn the_capacity_binds_requests_only() {
        let injector = Injector::new(2, usize::MAX);
        injector.push(1, 0).unwrap();
        injector.push(2, 0).unwrap();
        assert!(matches!(injector.push(3, 0), Err(PushError::Full(3))));
        injector.push_unbounded(4).unwrap();
        assert!(matches!(injector.push(5, 0), Err(PushError::Full(5))));
        assert_eq!(drained(&injector), [1, 2, 4]);
        injector.push(6, 0).unwrap();
        assert_eq!(drained(&injector), [6]);
    }

    #[test]
    fn the_bytes_are_bounded_too_but_one_large_item_fits() {
        let injector = Injector::new(9, 100);
        injector.push(1, 500).unwrap();
        assert!(matches!(injector.push(2, 1), Err(PushError::TooManyBytes(2))));
        injector.push_unbounded(3).unwrap();
        assert_eq!(drained(&injector), [1, 3]);
        injector.push(4, 60).unwrap();
        injector.push(5, 40).unwrap();
        assert!(matches!(injector.push(6, 1), Err(PushError::TooManyBytes(6))));
    }

    #[test]
    fn the_flag_follows_the_queue() {
        let injector = Injector::new(1, usize::MAX);
        assert!(injector.is_empty());
        injector.push(1, 0).unwrap();
        assert!(!injector.is_empty());
        drained(&injector);
        assert!(injector.is_empty());
        injector.push(2, 0).unwrap();
        injector.close();
        assert!(injector.is_empty());
    }

    #[test]
    fn drain_appends_to_what_is_there() {
        let injector = Injector::new(8, usize::MAX);
        let mut out = VecDeque::from([0]);
        injector.push(1, 0).unwrap();
        injector.drain(&mut out);
        assert_eq!(out, [0, 1]);
    }

    #[test]
    fn a_closed_injector_gives_back_all_that_it_gets() {
        let injector = Injector::new(8, usize::MAX);
        injector.push("left", 0).unwrap();
        assert_eq!(injector.close(), ["left"]);
        let refused = injector.push("late", 0).unwrap_err();
        assert!(matches!(refused, PushError::Closed("late")));
        assert_eq!(refused.to_string(), "the injector is closed");
        assert_eq!(injector.push_unbounded("late"), Err("late"));
        assert!(injector.close().is_empty() && drained(&injector).is_empty());
    }
}

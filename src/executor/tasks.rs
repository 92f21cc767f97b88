//! The tasks of one core.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::future_cell::FutureCell;
use super::key::{MAX_SLOTS, WakeKey};
use super::local::Bound;
use super::slots::{Body, Slots};
use super::waker::{self, CoreIndex};
use crate::wire::failure::panicked_with;

pub use super::waker::RemoteWake;

/// Empty cells that are kept for tasks to come, and the largest size worth keeping.
const SPARE_CELLS: usize = 256;
const SPARE_BYTES: usize = 4096;

/// The core has as many tasks and external runnables as its limit allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the core has {limit} tasks and endpoints, which is its limit (Config::tasks)")]
#[non_exhaustive]
pub struct TooManyTasks {
    /// The limit; 0 while [`Executor::clear`] runs.
    pub limit: usize,
}

/// What is to be run next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// A task, for [`Executor::poll`].
    Task(WakeKey),
    /// What was attached with this token.
    External(u32),
}

/// What came of a poll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Polled {
    /// The task waits.
    Pending,
    /// The task waits for its next turn only: it was woken while it was polled, and is queued again.
    Yielded,
    /// The task has ended, was aborted meanwhile, or there was none to poll.
    Done,
    /// The task has panicked with this text and is gone.
    Panicked(String),
}

/// Tasks and external runnables of one core, and the queue of those that are ready.
///
/// It decides nothing: the core pops what is ready, in the order of the wakes, and polls it, as long as its budget
/// lasts. Whatever is woken is queued once until it is popped; a wake while it is being polled queues it again.
///
/// Only the core's thread uses it; other threads hold wakers. Any code that runs inside a future, its poll as well as
/// its drop, may come back here and spawn, wake and abort, itself too: nothing is borrowed while user code runs.
pub struct Executor {
    index: CoreIndex,
    limit: Cell<usize>,
    slots: RefCell<Slots>,
    spares: RefCell<Vec<FutureCell>>,
}

impl Executor {
    /// An executor without tasks. At most `max_tasks` (and at most 2^24) tasks and external runnables can exist at a
    /// time. Make only one for a `CoreIndex`; it keeps the index claimed.
    pub fn new(index: &CoreIndex, max_tasks: usize) -> Rc<Executor> {
        Rc::new(Executor {
            index: index.clone(),
            limit: Cell::new(max_tasks.min(MAX_SLOTS)),
            slots: RefCell::new(Slots::new(index.get(), index.first_generation())),
            spares: RefCell::default(),
        })
    }

    /// Makes this thread the core's, as long as the guard lives; see there how long that should be.
    pub fn bind_thread(self: &Rc<Self>) -> Bound {
        Bound::new(self.clone())
    }

    #[inline]
    pub(super) fn core(&self) -> u16 {
        self.index.get()
    }

    /// Starts a task; its first poll is queued. In the steady state this allocates nothing for futures up to 4 KiB.
    ///
    /// # Errors
    /// [`TooManyTasks`]; the future is dropped.
    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) -> Result<WakeKey, TooManyTasks> {
        self.check_limit()?;
        let mut cell = self.spares.borrow_mut().pop().unwrap_or_default();
        cell.put(future);
        let mut slots = self.slots.borrow_mut();
        let key = slots.insert(Body::Task(cell));
        slots.queue(key);
        Ok(key)
    }

    /// Starts a task and polls it once, at once; its key, unless it has ended by then. For what seldom waits: nothing is
    /// queued for a future that is ready. As with [`poll`](Executor::poll), a panic ends the task.
    ///
    /// # Errors
    /// [`TooManyTasks`]; the future is dropped.
    #[inline]
    pub fn start(&self, future: impl Future<Output = ()> + 'static) -> Result<Option<WakeKey>, TooManyTasks> {
        self.check_limit()?;
        let mut cell = self.spares.borrow_mut().pop().unwrap_or_default();
        cell.put(future);
        let key = self.slots.borrow_mut().insert(Body::Task(cell));
        Ok(matches!(self.poll(key), Polled::Pending | Polled::Yielded).then_some(key))
    }

    /// Gives something that is run elsewhere, an endpoint, a key and a place in the ready queue; not queued yet.
    ///
    /// # Errors
    /// [`TooManyTasks`].
    pub fn attach(&self, token: u32) -> Result<WakeKey, TooManyTasks> {
        self.check_limit()?;
        Ok(self.slots.borrow_mut().insert(Body::External(token)))
    }

    /// Whether one more task or endpoint fits.
    pub fn has_room(&self) -> bool {
        self.check_limit().is_ok()
    }

    fn check_limit(&self) -> Result<(), TooManyTasks> {
        let limit = self.limit.get();
        if self.live() < limit { Ok(()) } else { Err(TooManyTasks { limit }) }
    }

    /// Ends what [`attach`](Executor::attach) began. A stale key is ignored.
    pub fn detach(&self, key: WakeKey) {
        self.abort(key);
    }

    /// Queues a task or an external runnable. Ignored if it is queued already, or if the key is stale.
    #[inline]
    pub fn wake(&self, key: WakeKey) {
        self.slots.borrow_mut().queue(key);
    }

    /// Takes what was queued first.
    #[inline]
    pub fn pop(&self) -> Option<Ready> {
        self.slots.borrow_mut().pop().map(|(key, body)| match body {
            Body::External(token) => Ready::External(*token),
            Body::Task(_) | Body::Polled => Ready::Task(key),
        })
    }

    /// Polls a task once. A panic in it ends the task, not the core. Nothing happens if the key is stale or not a
    /// task's, or from inside that very task.
    pub fn poll(&self, key: WakeKey) -> Polled {
        let taken = self.slots.borrow_mut().take(key);
        let Some(mut cell) = taken else { return Polled::Done };
        // Its drop does nothing, and would be a call.
        let waker = ManuallyDrop::new(waker::waker(key));
        let polled = catch_unwind(AssertUnwindSafe(|| cell.poll(&mut Context::from_waker(&waker))));
        if let Ok(Poll::Pending) = polled {
            let put_back = self.slots.borrow_mut().put_back(key, cell);
            return match put_back {
                Ok(false) => Polled::Pending,
                Ok(true) => Polled::Yielded,
                Err(cell) => {
                    self.discard(cell);
                    Polled::Done
                }
            };
        }
        // Only the mark that it is being polled comes out here, and no longer that if it aborted itself.
        self.slots.borrow_mut().remove(key);
        self.discard(cell);
        match polled {
            Ok(_) => Polled::Done,
            Err(panic) => Polled::Panicked(panicked_with(panic)),
        }
    }

    /// Ends a task and drops its future: at once, or, if it is the one that is being polled, after that poll. A
    /// stale key is ignored. A panic in the future's drop is caught; the panic hook has seen it.
    pub fn abort(&self, key: WakeKey) {
        let removed = self.slots.borrow_mut().remove(key);
        if let Some(Body::Task(cell)) = removed {
            self.discard(cell);
        }
    }

    /// Drops the future, if there is one, and keeps the memory for the next task.
    fn discard(&self, mut cell: FutureCell) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| cell.clear())) {
            panicked_with(panic);
        }
        let mut spares = self.spares.borrow_mut();
        if spares.len() < SPARE_CELLS && cell.capacity() <= SPARE_BYTES {
            spares.push(cell);
        }
    }

    /// The waker of a task or an external runnable. Free to make, to clone and to drop; any thread may use it, at any
    /// time.
    #[inline]
    pub fn waker(&self, key: WakeKey) -> Waker {
        waker::waker(key)
    }

    /// How many are queued.
    #[inline]
    pub fn ready_len(&self) -> usize {
        self.slots.borrow().ready()
    }

    /// How many tasks and external runnables exist.
    #[inline]
    pub fn live(&self) -> usize {
        self.slots.borrow().len()
    }

    /// Ends everything: drops all futures and forgets all external runnables. What a dropped future tries to spawn
    /// meanwhile is refused, so nothing is left afterwards.
    pub fn clear(&self) {
        let limit = self.limit.replace(0);
        while let Some(key) = { self.slots.borrow().any() } {
            self.abort(key);
        }
        self.limit.set(limit);
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.clear();
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (live, ready) = (self.live(), self.ready_len());
        f.debug_struct("Executor").field("core", &self.core()).field("live", &live).field("ready", &ready).finish()
    }
}

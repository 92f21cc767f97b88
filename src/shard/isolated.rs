//! Isolated cores: threads for endpoints that may block.
//!
//! An isolated core is numbered behind the env's real ones and has a ring, an executor, a dispatcher and lanes as they
//! do, so that messages, answers, cancellations, deadlines and the shutdown reach its endpoint in the same way. It has
//! no CPU of its own, no listener and no connections, and nobody is placed there but the one endpoint.
//!
//! It may stand still for as long as its endpoint blocks. Therefore nothing that others wait for waits for the end of
//! its turn: what its endpoint sends enters through a real core, as from any other thread, and its answers wake their
//! receiver at once. What is sent to it waits in its lanes, and is refused when they are full.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::node::{Ending, Node, now};
use crate::ring::Affinity;

/// How long the end of an env waits for isolated threads behind the shutdown's deadline, when those that are not
/// blocked end as well.
const GRACE: Duration = Duration::from_millis(100);

/// The threads of an env's isolated cores.
#[derive(Debug)]
pub struct Isolated {
    /// How many there are.
    threads: Mutex<usize>,
    one_ended: Condvar,
    /// The CPUs that they may use: those of whoever made the env. Unknown on a machine with very many CPUs.
    affinity: Option<Affinity>,
    /// When the shutdown gives up waiting, once it has begun.
    until: AtomicU64,
}

impl Isolated {
    /// No threads.
    pub(super) fn new() -> Isolated {
        Isolated {
            threads: Mutex::new(0),
            one_ended: Condvar::new(),
            affinity: Affinity::of_this_thread().ok(),
            until: AtomicU64::new(u64::MAX),
        }
    }

    fn threads(&self) -> MutexGuard<'_, usize> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread begins, which is going to tell that it has ended.
    pub fn thread_begins(&self) {
        *self.threads() += 1;
    }

    /// A thread has ended, or did not begin.
    pub fn thread_ended(&self) {
        *self.threads() -= 1;
        self.one_ended.notify_all();
    }

    /// Lets the current thread use all CPUs of the env's maker, whoever made the thread.
    pub fn unpin(&self) {
        if let Some(Err(error)) = self.affinity.as_ref().map(Affinity::apply) {
            tracing::warn!(target: "ringpost::core", %error, "an isolated thread may use the CPUs of the thread that made it alone");
        }
    }

    pub(super) fn give_up_at(&self, until: u64) {
        self.until.store(until, Ordering::Relaxed);
    }

    /// Waits for the threads that are left, now that all real cores have ended: until a moment after the shutdown's
    /// deadline, and at most for `limit`. What blocks longer is left to itself.
    pub fn await_end(&self, limit: Option<Duration>) {
        let left = self.until.load(Ordering::Relaxed).saturating_sub(now());
        let wait = Duration::from_nanos(left).saturating_add(GRACE);
        let wait = limit.map_or(wait, |limit| limit.min(wait));
        let waited = self.one_ended.wait_timeout_while(self.threads(), wait, |threads| *threads > 0);
        let blocked = *waited.unwrap_or_else(PoisonError::into_inner).0;
        if blocked > 0 {
            tracing::warn!(target: "ringpost::core", blocked, "isolated endpoints still block: their threads end when they return");
        }
    }
}

impl Node {
    /// How many real cores the env has; isolated ones have the numbers behind them.
    #[inline]
    pub fn core_count(&self) -> u16 {
        self.real
    }

    /// Whether this core is an isolated one.
    #[inline]
    pub fn is_isolated(&self, core: u16) -> bool {
        core >= self.real
    }

    /// Whether this is the number of a core that runs.
    #[inline]
    pub fn has_core(&self, core: u16) -> bool {
        core < self.real || self.cores.get(usize::from(core)).is_some_and(|door| door.runs.load(Ordering::Acquire))
    }

    /// Takes an isolated core without an endpoint; one whose thread runs, if there is one.
    pub fn claim_isolated(&self) -> Option<u16> {
        // A core's thread starts when those before it are in use.
        (self.real..self.cores.len() as u16).find(|&core| {
            let placed = &self.cores[usize::from(core)].placed;
            placed.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok()
        })
    }

    /// The thread of an isolated core is ready to serve. False if the env shuts down already.
    pub fn isolated_runs(&self, core: u16) -> bool {
        let door = &self.cores[usize::from(core)];
        door.ending.store(Ending::Draining as u8, Ordering::SeqCst);
        door.runs.store(true, Ordering::SeqCst);
        // In this order: a shutdown that begins later finds the core running, and tells it.
        if self.closing.load(Ordering::SeqCst) {
            door.runs.store(false, Ordering::SeqCst);
            self.reach(core, Ending::Clear);
            return false;
        }
        true
    }
}

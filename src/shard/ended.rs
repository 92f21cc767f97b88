//! Waiting for the end of an env.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Counts the cores that have ended, and tells whoever waits for the last one: threads and tasks.
pub struct Ended {
    cores: usize,
    state: Mutex<State>,
    all: Condvar,
}

#[derive(Default)]
struct State {
    ended: usize,
    waiting: Vec<Waker>,
}

impl Ended {
    /// None of so many cores has ended.
    pub fn new(cores: usize) -> Ended {
        Ended { cores, state: Mutex::default(), all: Condvar::new() }
    }

    /// One more core has ended. If it is the last, `last` runs before anybody is told.
    pub fn add_one(&self, last: impl FnOnce()) {
        let mut state = self.lock();
        state.ended += 1;
        if state.ended < self.cores {
            return;
        }
        last();
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        self.all.notify_all();
        // Foreign code, so not under the lock.
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Blocks until all cores have ended; false if `limit` passed first.
    pub fn wait(&self, limit: Option<Duration>) -> bool {
        let state = self.lock();
        let running = |state: &mut State| state.ended < self.cores;
        match limit {
            None => {
                drop(self.all.wait_while(state, running));
                true
            }
            Some(limit) => match self.all.wait_timeout_while(state, limit, running) {
                Ok((_, timed_out)) => !timed_out.timed_out(),
                Err(poisoned) => !poisoned.into_inner().1.timed_out(),
            },
        }
    }

    /// Ready when all cores have ended; the task is woken then.
    pub fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.ended >= self.cores {
            return Poll::Ready(());
        }
        // A task that looks again and again is noted once.
        if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Nobody leaves the state half changed, so a poisoned lock is as good as any.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

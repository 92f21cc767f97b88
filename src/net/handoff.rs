//! One value from one thread to another.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::executor::catch::wake;

/// Hands one value to another thread, which polls for it as a future or blocks on it.
///
/// It is for what crosses a thread once: an answer for a thread that is no core, the result of a spawned task. The
/// value is taken once.
#[derive(Debug)]
pub struct Handoff<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
}

#[derive(Debug)]
struct State<T> {
    value: Option<T>,
    waker: Option<Waker>,
}

impl<T> Default for Handoff<T> {
    fn default() -> Handoff<T> {
        Handoff { state: Mutex::new(State { value: None, waker: None }), filled: Condvar::new() }
    }
}

impl<T> Handoff<T> {
    /// Puts the value in and wakes whoever waits.
    pub fn put(&self, value: T) {
        let mut state = self.lock();
        state.value = Some(value);
        let waker = state.waker.take();
        drop(state);
        self.filled.notify_one();
        if let Some(waker) = waker {
            wake(waker);
        }
    }

    /// The value, or a promise to wake.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<T> {
        // Wakers are foreign code: this one is cloned, and the one before dropped, outside of the lock.
        let mut waker = Some(cx.waker().clone());
        let mut state = self.lock();
        let value = state.value.take();
        if value.is_none() {
            std::mem::swap(&mut state.waker, &mut waker);
        }
        drop(state);
        value.map_or(Poll::Pending, Poll::Ready)
    }

    /// Blocks until the value is there.
    pub fn wait(&self) -> T {
        let mut state = self.lock();
        loop {
            if let Some(value) = state.value.take() {
                return value;
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn the_value_arrives_whether_it_is_awaited_or_blocked_on() {
        let handoff = Arc::new(Handoff::default());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(handoff.poll(&mut cx).is_pending());
        let other = handoff.clone();
        let thread = std::thread::spawn(move || other.wait());
        handoff.put(7);
        assert_eq!(thread.join().unwrap(), 7);
        handoff.put(8);
        assert_eq!(handoff.poll(&mut cx), Poll::Ready(8));
    }
}

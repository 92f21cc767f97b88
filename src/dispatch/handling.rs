//! Until when what a handler asks for is wanted.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;

use super::call::NO_DEADLINE;

/// The deadline of the call whose handler is being polled on this core; none between polls, in tasks and for one-way
/// messages.
///
/// An ask that is made meanwhile ends at that deadline at the latest: nobody waits any longer for what it is good for.
#[derive(Clone, Debug)]
pub struct Handling(Rc<Cell<u64>>);

impl Default for Handling {
    fn default() -> Handling {
        Handling(Rc::new(Cell::new(NO_DEADLINE)))
    }
}

/// While it lives, a handler is being polled.
#[derive(Debug)]
pub struct Polling<'a> {
    cell: &'a Cell<u64>,
    before: u64,
}

impl Handling {
    /// The deadline of the call that is being handled, in nanoseconds of the core's clock.
    #[inline]
    pub fn deadline(&self) -> u64 {
        self.0.get()
    }

    /// The handler of a call with this deadline is polled from now on.
    #[inline]
    pub fn enter(&self, deadline: u64) -> Polling<'_> {
        Polling { cell: &self.0, before: self.0.replace(deadline) }
    }

    /// Runs a handler that is polled elsewhere.
    pub async fn run<F: Future>(self, deadline: u64, handler: F) -> F::Output {
        let mut handler = pin!(handler);
        poll_fn(|cx| {
            let _polling = self.enter(deadline);
            handler.as_mut().poll(cx)
        })
        .await
    }
}

impl Drop for Polling<'_> {
    #[inline]
    fn drop(&mut self) {
        self.cell.set(self.before);
    }
}

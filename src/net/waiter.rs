//! Who waits for the answer to an ask.

use std::sync::Arc;
use std::task::Waker;

use super::ask_cell::AskCell;

/// Who waits for the answer.
#[derive(Debug)]
pub enum Waiter {
    /// A future on the core; the waker of the task that polled it last.
    Future(Option<Waker>),
    /// Another thread.
    Cell(Arc<AskCell>),
    /// An ask of another core, which this core has relayed.
    Core {
        /// The core.
        core: u16,
        /// The ask, as that core knows it.
        request: u64,
    },
}

/// What an ask says of who is to wait for its answer.
pub trait Waits: Into<Waiter> {
    /// Whether a future on the core waits, known at the place where it asks.
    const BY_FUTURE: bool;
}

/// A future on the core, which has not been polled yet.
#[derive(Clone, Copy, Debug)]
pub struct ByFuture;

impl Waits for ByFuture {
    const BY_FUTURE: bool = true;
}

impl From<ByFuture> for Waiter {
    #[inline]
    fn from(_: ByFuture) -> Waiter {
        Waiter::Future(None)
    }
}

impl Waits for Arc<AskCell> {
    const BY_FUTURE: bool = false;
}

impl From<Arc<AskCell>> for Waiter {
    fn from(cell: Arc<AskCell>) -> Waiter {
        Waiter::Cell(cell)
    }
}

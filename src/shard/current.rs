//! Which core the current thread is.

use std::cell::Cell;
use std::marker::PhantomData;
use std::rc::Rc;

use super::shard::Shard;
use crate::executor::local::Bound;
use crate::executor::rc_cell::RcCell;

thread_local! {
    /// The core whose turn it is.
    static CURRENT: RcCell<Shard> = const { RcCell::new() };
    /// How many cores this thread runs, in turn or not.
    static SERVED: Cell<u32> = const { Cell::new(0) };
}

/// As long as it lives, this thread runs a core and must not block.
#[derive(Debug)]
#[must_use = "the thread serves a core only while this lives"]
pub struct Serving(PhantomData<*const ()>);

/// Declares that this thread runs a core from now on.
pub fn serve() -> Serving {
    SERVED.set(SERVED.get() + 1);
    Serving(PhantomData)
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Without it the thread is ending, and nobody asks any more.
        let _ = SERVED.try_with(|served| served.set(served.get() - 1));
    }
}

/// As long as it lives, code on this thread runs as part of a core's turn.
///
/// A core with a thread of its own enters once. A core that shares its thread enters for each turn; between its turns
/// the thread is like any other, except that it must not block.
#[must_use = "the core is entered only while this lives"]
pub struct Entered {
    before: Option<Rc<Shard>>,
    _bound: Bound,
}

/// Enters a core on its thread.
pub fn enter(shard: &Rc<Shard>) -> Entered {
    // A runtime that a thread-local holds may end its core when the thread's own locals are gone already.
    let before = CURRENT.try_with(|current| current.replace(Some(shard.clone()))).ok().flatten();
    Entered { before, _bound: shard.executor.bind_thread() }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let before = self.before.take();
        let _ = CURRENT.try_with(|current| drop(current.replace(before)));
    }
}

/// The shard of the core whose turn it is on this thread, if it is one's.
#[inline]
pub fn get() -> Option<Rc<Shard>> {
    CURRENT.try_with(RcCell::get).ok().flatten()
}

/// Whether this thread runs a core of any env, in its turn or between turns: then it must not block.
pub fn on_core() -> bool {
    SERVED.try_with(|served| served.get() > 0).unwrap_or(false)
}

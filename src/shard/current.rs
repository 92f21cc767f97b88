//! Which core the current thread is.

use std::cell::OnceCell;
use std::rc::Rc;

use super::shard::Shard;

thread_local! {
    /// A core's thread serves one core for its whole life.
    static CURRENT: OnceCell<Rc<Shard>> = const { OnceCell::new() };
}

/// Makes this thread the core's own.
pub fn enter(shard: Rc<Shard>) {
    CURRENT.with(|current| {
        let first = current.set(shard).is_ok();
        debug_assert!(first, "a thread serves one core");
    });
}

/// The shard of this thread's core, if the thread is one.
#[inline]
pub fn get() -> Option<Rc<Shard>> {
    CURRENT.try_with(|current| current.get().cloned()).ok().flatten()
}

/// Whether this thread is a core of any env.
pub fn on_core() -> bool {
    CURRENT.try_with(|current| current.get().is_some()).unwrap_or(false)
}

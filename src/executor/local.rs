//! Which executor's core runs on this thread right now.

use std::cell::RefCell;
use std::rc::Rc;

use super::key::WakeKey;
use super::tasks::Executor;

thread_local! {
    /// The last one counts. More than one exist only if a core runs inside another core's turn.
    static BOUND: RefCell<Vec<Rc<Executor>>> = const { RefCell::new(Vec::new()) };
}

/// While it lives, wakers of the executor that are used on this thread push into its ready queue directly.
///
/// Such a wake tells nobody else, so it must be held only while the core looks at its ready queue before it sleeps.
/// A core with a thread of its own holds it for life. A core that shares its thread, as a task of another runtime,
/// takes it for the length of each turn: wakes between turns then go through
/// [`RemoteWake`](super::waker::RemoteWake), which gets the core its next turn.
#[derive(Debug)]
#[must_use = "the thread is bound only while this lives"]
pub struct Bound {
    executor: Rc<Executor>,
}

impl Bound {
    pub(super) fn new(executor: Rc<Executor>) -> Bound {
        // On a thread that is ending wakes go the long way.
        let _ = BOUND.try_with(|bound| bound.borrow_mut().push(executor.clone()));
        Bound { executor }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // The guard still holds the executor, so taking it out of the list runs no drop of a future. If the list is
        // gone already, the thread is ending and took it along.
        let _ = BOUND.try_with(|bound| {
            let mut bound = bound.borrow_mut();
            if let Some(at) = bound.iter().rposition(|other| Rc::ptr_eq(other, &self.executor)) {
                bound.remove(at);
            }
        });
    }
}

/// Wakes the key if its core runs on this thread; false if not.
#[inline]
pub(super) fn wake(key: WakeKey) -> bool {
    BOUND
        .try_with(|bound| match bound.borrow().last() {
            // Pushing into the ready queue runs no user code, so nobody comes back here under the borrow.
            Some(executor) if executor.core() == key.core() => {
                executor.wake(key);
                true
            }
            _ => false,
        })
        .unwrap_or(false)
}

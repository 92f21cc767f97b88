//! Panics of user code, caught where it is polled.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::{Poll, Waker};

use crate::wire::failure::panicked_with;

/// Runs a future to its end, or to its panic, whose text is the error.
pub async fn catch<F: Future>(future: F) -> Result<F::Output, String> {
    let mut future = pin!(future);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(polled) => polled.map(Ok),
        Err(panic) => Poll::Ready(Err(panicked_with(panic))),
    })
    .await
}

/// Wakes whoever waits. A waker may be anybody's, and a core's loop is right above: its panic ends here.
#[inline]
pub fn wake(waker: Waker) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
        tracing::error!(target: "ringpost::core", panic = panicked_with(panic), "a waker panicked");
    }
}

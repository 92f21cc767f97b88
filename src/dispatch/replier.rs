//! The duty to answer an ask, as a value that goes anywhere.

use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::call::{Call, NO_DEADLINE};
use super::context::{CallContext, Caller};
use super::deferred::Deferred;
use super::reply_path::{Answer, ReplyPath, ReplyValue, WayBack};
use crate::wire::failure::{Failure, FailureCode, HandlerError};

/// Answers one ask, whenever and wherever its answer is found: in another handler, in a task, on another thread.
///
/// A handler that implements [`HandleDeferred`](crate::HandleDeferred) gets one with each ask and may keep it or give it
/// away; the endpoint goes on with its next message meanwhile. Using it consumes it, so a second answer does not compile:
///
/// ```compile_fail,E0382
/// fn answer(replier: ringpost::Replier<u32>) {
///     replier.reply(1);
///     replier.reply(2);
/// }
/// ```
///
/// If it is dropped instead, the asker gets [`NeverReplied`](crate::AskError::NeverReplied) at once.
///
/// It may outlive its endpoint: an ask that is open when the endpoint stops can be answered until the env has shut down.
/// Like a handler that is suspended, it holds a shutdown up until its deadline. Then the asker gets
/// [`Stopped`](crate::AskError::Stopped) (or [`Disconnected`](crate::AskError::Disconnected), if its connection was
/// quicker to end), and what the replier says after that is dropped.
#[must_use = "dropping it tells the asker that it gets no answer"]
pub struct Replier<R> {
    duty: Duty,
    reply: PhantomData<fn(R)>,
}

/// Tells the core if it is dropped without an answer.
struct Duty {
    deferred: Arc<Deferred>,
    back: Arc<dyn WayBack>,
    open: bool,
}

impl<R> Replier<R> {
    /// Takes the duty to answer out of a handler's context.
    pub(super) fn new(context: &mut CallContext) -> (Replier<R>, Arc<Deferred>) {
        let path = context.path();
        let deferred = path.deferrals().open(*context.responder.call());
        let duty = Duty { deferred: deferred.clone(), back: path.way_back(), open: true };
        context.responder.pass_on();
        (Replier { duty, reply: PhantomData }, deferred)
    }

    /// Answers with an error; see [`HandlerError::typed`] for one that the asker gets back as it is. The endpoint's
    /// `on_error` is not called.
    pub fn fail(self, error: impl Into<HandlerError>) {
        let error = error.into();
        self.duty.settle(move |path, call| path.answer(call, Answer::Failure(error.failure())));
    }

    /// Who asks. A peer is looked up now: once its connection has ended, this is [`Gone`](Caller::Gone).
    pub fn caller(&self) -> Caller {
        let back = &self.duty.back;
        Caller::of(self.duty.deferred.call().origin, back.core(), |core, connection| back.peer(core, connection))
    }

    /// How long the asker will still wait; `None` if that is not known. Zero once the deadline has passed.
    pub fn remaining(&self) -> Option<Duration> {
        match self.duty.deferred.call().deadline {
            NO_DEADLINE => None,
            deadline => Some(Duration::from_nanos(deadline.saturating_sub(self.duty.back.now()))),
        }
    }

    /// Whether an answer would be in vain: the asker dropped its future, its time is up, its connection ended, or the env
    /// has shut down.
    pub fn is_cancelled(&self) -> bool {
        self.duty.deferred.is_over() || self.remaining() == Some(Duration::ZERO)
    }

    /// Waits until the asker has given up, dropped its future or lost its connection, or the env has shut down. Any
    /// executor may poll it.
    ///
    /// The asker's core tells when its time is up, too. Under load that word may be lost, as any cancellation may:
    /// whoever must stop in time looks at [`remaining`](Replier::remaining).
    pub async fn cancelled(&mut self) {
        poll_fn(|cx| self.duty.deferred.poll_over(cx)).await;
    }
}

impl<R: Serialize + Send + 'static> Replier<R> {
    /// Answers. Never blocks; on the core's own thread it takes the short way, on any other it wakes the core. An answer
    /// that nobody waits for any more is dropped and counted in `CoreSnapshot::replies_late`.
    pub fn reply(self, value: R) {
        let mut value = ReplyValue::new(value);
        self.duty.settle(move |path, call| path.answer(call, Answer::Value(&mut value)));
    }
}

impl Duty {
    /// Has the core answer, unless the ask is closed.
    fn settle(mut self, answer: impl FnOnce(&dyn ReplyPath, &Call) + Send + 'static) {
        self.open = false;
        let deferred = self.deferred.clone();
        self.at_core(move |path| {
            if path.deferrals().take(&deferred) {
                answer(path, deferred.call());
            }
        });
    }

    fn at_core(&self, job: impl FnOnce(&dyn ReplyPath) + Send + 'static) {
        match self.back.here() {
            Some(path) => job(&*path),
            None => self.back.send(Box::new(job)),
        }
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        if self.open {
            let deferred = self.deferred.clone();
            self.at_core(move |path| {
                if path.deferrals().dropped(&deferred) {
                    let failure = Failure::new(FailureCode::NeverReplied, "");
                    path.answer(deferred.call(), Answer::Failure(failure));
                }
            });
        }
    }
}

impl<R> fmt::Debug for Replier<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replier").field("caller", &self.caller()).finish_non_exhaustive()
    }
}

/// A replier goes to any thread, whatever it replies.
const _: () = {
    const fn any_thread<T: Send>() {}
    const fn check<R>() {
        any_thread::<Replier<R>>();
    }
    check::<*const u8>();
};

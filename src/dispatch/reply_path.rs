//! The way back for answers.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use serde::Serialize;

use super::call::{Call, Origin};
use super::deferred::Deferrals;
use super::notices::Faults;
use crate::mesh::parcel::Parcel;
use crate::net::connection_id::ConnectionId;
use crate::net::roster::Peer;
use crate::wire::codec::{self, CodecError, Written};
use crate::wire::failure::{Failure, FailureCode, panicked_with};
use crate::wire::frame::EndpointId;

/// Takes answers to where their requests came from. The shard implements it.
pub trait ReplyPath {
    /// Sends an answer on its way. Never called for one-way messages, and once for each ask.
    fn answer(&self, call: &Call, answer: Answer<'_>);
    /// Tells the sender of a one-way message that its endpoint does not exist any more, so that it uses the name again.
    fn gone(&self, origin: Origin, endpoint: EndpointId);
    /// Whether somebody still waits for the answer, as far as this core can tell at once.
    fn is_wanted(&self, call: &Call) -> bool;
    /// The peer behind a connection of this core or another, while it is open. It may lock a table: not for every
    /// message.
    fn peer(&self, core: u16, connection: ConnectionId) -> Option<Peer>;
    /// Now, in nanoseconds of the core's clock; cached for the current turn.
    fn now(&self) -> u64;
    /// Now, read from the clock.
    fn exact_now(&self) -> u64;
    /// Number of this core in its env.
    fn core(&self) -> u16;
    /// The env's name.
    fn env_name(&self) -> &str;
    /// The name of an endpoint of this env, for people. It locks a table: not for every message.
    fn endpoint_name(&self, endpoint: EndpointId) -> Arc<str>;
    /// The messages of this core that could not be decoded, or whose handlers panicked.
    fn faults(&self) -> &Faults;
    /// What all cores of the env share; for the floors above, which know its type.
    fn node(&self) -> Arc<dyn Any + Send + Sync>;
    /// Stops an endpoint of this env on all its cores; on this one it takes no further message from now on.
    fn stop(&self, endpoint: EndpointId);
    /// Counts a message that is undecodable since it goes beyond a limit.
    fn count_beyond_limits(&self);
    /// The asks of this core whose answer was left to a replier.
    fn deferrals(&self) -> &Deferrals;
    /// The way to this core from any thread.
    fn way_back(&self) -> Arc<dyn WayBack>;
}

/// Something to be done at a core.
pub type AtCore = Box<dyn FnOnce(&dyn ReplyPath) + Send>;

/// The way back to a core for what has left it.
pub trait WayBack: Send + Sync {
    /// The core, if this is its own thread.
    fn here(&self) -> Option<Rc<dyn ReplyPath>>;
    /// Has the core do something; dropped if the core has ended. For answers only: their number is bounded by the asks.
    fn send(&self, job: AtCore);
    /// Now, in nanoseconds of the core's clock.
    fn now(&self) -> u64;
    /// The number of the core.
    fn core(&self) -> u16;
    /// As [`ReplyPath::peer`], from any thread. It locks a table: not for every message.
    fn peer(&self, core: u16, connection: ConnectionId) -> Option<Peer>;
}

/// Answers a request that reaches no handler; nothing happens if no answer is expected.
pub fn refuse(call: &Call, path: &Rc<dyn ReplyPath>, code: FailureCode, text: &str) {
    if call.request != 0 {
        path.answer(call, Answer::Failure(Failure::new(code, text)));
    }
}

/// An answer.
pub enum Answer<'a> {
    /// A reply.
    Value(&'a mut dyn Reply),
    /// An error.
    Failure(Failure<'a>),
}

/// A reply of some type: taken as a value by cores of this env, as bytes by peers.
pub trait Reply {
    /// Appends the encoded reply.
    fn encode(&self, out: &mut Vec<u8>) -> Result<Written, CodecError>;
    /// The reply itself; once.
    fn take(&mut self) -> Option<Parcel>;
    /// Moves the reply itself into a parcel, where that lies; once. A reply that was taken leaves the parcel as it is.
    fn pack(&mut self, into: &mut Parcel);
}

/// A reply that has not been sent.
pub(super) struct ReplyValue<R>(Option<R>);

impl<R> ReplyValue<R> {
    #[inline]
    pub(super) fn new(value: R) -> ReplyValue<R> {
        ReplyValue(Some(value))
    }
}

impl<R> Drop for ReplyValue<R> {
    #[inline]
    fn drop(&mut self) {
        // Left here if it was sent as bytes. Its drop is user code, and the core's loop is right above.
        if let Some(value) = self.0.take()
            && std::mem::needs_drop::<R>()
            && let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(value)))
        {
            tracing::error!(target: "ringpost::endpoint", panic = panicked_with(panic), "the drop of a reply panicked");
        }
    }
}

impl<R: Serialize + Send + 'static> Reply for ReplyValue<R> {
    #[inline]
    fn encode(&self, out: &mut Vec<u8>) -> Result<Written, CodecError> {
        self.0.as_ref().map_or(Ok(Written::default()), |value| codec::encode(value, out))
    }

    #[inline]
    fn take(&mut self) -> Option<Parcel> {
        self.0.take().map(Parcel::new)
    }

    #[inline]
    fn pack(&mut self, into: &mut Parcel) {
        if let Some(reply) = self.0.take() {
            into.fill(reply);
        }
    }
}

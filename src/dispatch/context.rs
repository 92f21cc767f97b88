//! What a handler gets beside the message.

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use super::call::{NO_DEADLINE, Origin};
use super::endpoint_context::EndpointContext;
use super::responder::Responder;
use crate::net::connection_id::ConnectionId;
use crate::net::roster::Peer;

/// What a handler gets beside the message: who asks and until when, and everything of [`EndpointContext`].
pub struct CallContext {
    pub(super) responder: Responder,
}

impl Deref for CallContext {
    type Target = EndpointContext;

    fn deref(&self) -> &EndpointContext {
        self.responder.here()
    }
}

impl fmt::Debug for CallContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("CallContext");
        fields.field("endpoint", &**self).field("caller", &self.caller()).field("is_ask", &self.is_ask()).finish()
    }
}

/// Who sent a message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Caller {
    /// Something on the core with this number, in this env. Other threads of the process send through a core.
    Core(usize),
    /// A peer, over this connection.
    Peer(Peer),
    /// A peer whose connection has ended since.
    Gone,
}

impl Caller {
    /// Who is behind the origin of a message that `here` handles.
    pub(super) fn of(origin: Origin, here: u16, peer: impl FnOnce(u16, ConnectionId) -> Option<Peer>) -> Caller {
        let connection = match origin {
            Origin::Here => return Caller::Core(here.into()),
            Origin::Core(core) => return Caller::Core(core.into()),
            Origin::Peer(connection) => peer(here, connection),
            Origin::Passed { core, connection } => peer(core, connection),
        };
        connection.map_or(Caller::Gone, Caller::Peer)
    }
}

impl CallContext {
    /// Who sent the message.
    pub fn caller(&self) -> Caller {
        let path = self.path();
        Caller::of(self.responder.call().origin, path.core(), |core, connection| path.peer(core, connection))
    }

    /// How long the asker will still wait; `None` for a one-way message. Zero once the deadline has passed. Reads the
    /// clock.
    pub fn remaining(&self) -> Option<Duration> {
        match self.responder.call().deadline {
            NO_DEADLINE => None,
            deadline => Some(Duration::from_nanos(deadline.saturating_sub(self.path().exact_now()))),
        }
    }

    /// Whether an answer is expected.
    pub fn is_ask(&self) -> bool {
        self.responder.call().request != 0
    }
}

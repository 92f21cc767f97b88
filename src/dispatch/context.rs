//! What an endpoint's callbacks get: where they run, and who asks.

use std::ops::Deref;
use std::rc::Rc;
use std::time::Duration;

use super::call::{NO_DEADLINE, Origin, ReplyPath, Responder};
use crate::net::connection::ConnectionId;
use crate::net::roster::Peer;
use crate::wire::frame::EndpointId;

/// An endpoint's view of itself: its own ref, its env, its core.
///
/// `on_start` gets one, and a handler has one inside its [`CallContext`]. It stays on the endpoint's core; what travels
/// is the ref that [`myself`](EndpointContext::myself) gives.
pub struct EndpointContext {
    id: EndpointId,
    path: Rc<dyn ReplyPath>,
}

impl EndpointContext {
    /// Of the endpoint with this id, on the core that `path` leads through.
    #[inline]
    pub(super) fn new(id: EndpointId, path: &Rc<dyn ReplyPath>) -> EndpointContext {
        EndpointContext { id, path: path.clone() }
    }

    #[inline]
    pub(super) fn path(&self) -> &dyn ReplyPath {
        &*self.path
    }

    pub(crate) fn id(&self) -> EndpointId {
        self.id
    }

    /// What all cores of the env share.
    pub(crate) fn node(&self) -> std::sync::Arc<dyn std::any::Any + Send + Sync> {
        self.path.node()
    }

    /// Number of the core that this runs on.
    pub fn core(&self) -> usize {
        self.path.core().into()
    }

    /// Stops this endpoint, on every core that has an instance: its name is free at once, messages that are queued are
    /// handled, later ones are refused, then `on_stop` runs. The callback that calls this goes on; a second call changes
    /// nothing.
    pub fn stop(&self) {
        self.path.stop(self.id);
    }
}

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

/// Who sent a message.
#[derive(Clone, Debug, PartialEq, Eq)]
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

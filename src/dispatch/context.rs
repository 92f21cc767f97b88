//! What a handler gets beside the message.

use std::net::SocketAddr;
use std::time::Duration;

use super::call::{NO_DEADLINE, Origin, Responder};

/// What a handler gets beside the message: who asks, until when, and where it runs.
pub struct CallContext {
    pub(super) responder: Responder,
}

/// Who sent a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Caller {
    /// Something on the core with this number, in this env. Other threads of the process send through a core.
    Core(usize),
    /// The peer with this socket address.
    Peer(SocketAddr),
    /// A peer whose connection has ended since.
    Gone,
}

impl CallContext {
    /// Who sent the message.
    pub fn caller(&self) -> Caller {
        let path = self.responder.path();
        match self.responder.call().origin {
            Origin::Here => Caller::Core(path.core().into()),
            Origin::Core(core) => Caller::Core(core.into()),
            Origin::Peer(id) => path.peer_address(id).map_or(Caller::Gone, Caller::Peer),
            Origin::Passed { remote, .. } => Caller::Peer(remote),
        }
    }

    /// How long the asker will still wait, counted from the start of the core's current turn; `None` for a one-way
    /// message. Zero once the deadline has passed.
    pub fn remaining(&self) -> Option<Duration> {
        match self.responder.call().deadline {
            NO_DEADLINE => None,
            deadline => Some(Duration::from_nanos(deadline.saturating_sub(self.responder.path().now()))),
        }
    }

    /// Whether an answer is expected.
    pub fn is_ask(&self) -> bool {
        self.responder.call().request != 0
    }

    /// Number of the core that runs the handler.
    pub fn core(&self) -> usize {
        self.responder.path().core().into()
    }
}

//! What a handler gets beside the message.

use std::sync::Arc;
use std::time::Duration;

use super::call::{NO_DEADLINE, Origin, Responder};

/// What a handler gets beside the message: who asks, until when, and where it runs.
pub struct CallContext {
    pub(super) responder: Responder,
}

/// Who sent a message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sender {
    /// Something on the core with this number, in this env. Other threads of the process send through a core.
    Core(u16),
    /// The peer with this socket address.
    Peer(Arc<str>),
}

impl CallContext {
    /// Who sent the message.
    pub fn sender(&self) -> Sender {
        let path = self.responder.path();
        match self.responder.call().origin {
            Origin::Here => Sender::Core(path.core()),
            Origin::Core(core) => Sender::Core(core),
            Origin::Peer(id) => Sender::Peer(path.peer_address(id)),
            Origin::Passed { core, .. } => Sender::Peer(format!("a peer of core {core}").into()),
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

//! One request: where it came from, and until when its answer is awaited.

use crate::net::connection_id::ConnectionId;
use crate::wire::frame::Resolved;
use crate::wire::told::Teller;

/// A deadline that never comes, in nanoseconds of the core's clock.
pub const NO_DEADLINE: u64 = u64::MAX;

/// Where a request came from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Origin {
    /// The same core.
    Here,
    /// Another core of this env.
    Core(u16),
    /// A peer, over this connection of the core.
    Peer(ConnectionId),
    /// A peer, over a connection of another core, which passed the request on.
    Passed {
        /// The core that owns the connection.
        core: u16,
        /// The connection.
        connection: ConnectionId,
    },
}

/// What is known about a request beside its message.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Where the answer goes.
    pub origin: Origin,
    /// The asker's id for it; 0 for a one-way message.
    pub request: u64,
    /// When the asker gives up, in nanoseconds of the core's clock.
    pub deadline: u64,
    /// What to tell the asker about the name it used.
    pub resolved: Option<Resolved>,
    /// Whether it was sent on this machine. It is known when the request arrives: its message may be decoded when the
    /// peer has gone.
    pub near: bool,
}

impl Call {
    /// Whether an answer is expected.
    #[inline]
    pub fn is_ask(&self) -> bool {
        self.request != 0
    }

    /// Who told the refs in its message, if it came from a peer.
    #[inline]
    pub fn teller(&self) -> Option<Teller> {
        let (core, connection) = match self.origin {
            Origin::Peer(connection) => (None, connection),
            Origin::Passed { core, connection } => (Some(core), connection),
            Origin::Here | Origin::Core(_) => return None,
        };
        Some(Teller::Peer { core, connection: connection.to_bits(), near: self.near })
    }
}

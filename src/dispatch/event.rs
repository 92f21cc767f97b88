//! What there is to tell about connections.

use std::cell::RefCell;
use std::sync::Arc;

use crate::net::roster::Peer;
use crate::wire::frame::EndpointId;

/// A connection has opened or ended.
///
/// It takes the way of a message, so that it comes after whatever the connection brought before, and before whatever
/// comes later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is open.
    Connected(Peer),
    /// It has ended.
    Disconnected {
        /// Whose connection it was.
        peer: Peer,
        /// What went wrong, unless one of the two sides just closed it.
        error: Option<Arc<str>>,
    },
}

impl Event {
    /// What has happened, for the log.
    pub fn name(&self) -> &'static str {
        match self {
            Event::Connected(_) => "connected",
            Event::Disconnected { .. } => "disconnected",
        }
    }

    /// The other side of the connection.
    pub fn peer(&self) -> &Peer {
        match self {
            Event::Connected(peer) | Event::Disconnected { peer, .. } => peer,
        }
    }
}

/// The endpoints of a core that want to be told, each with the number of the last connection that it is too late for.
#[derive(Debug, Default)]
pub(super) struct Listeners(pub(super) RefCell<Vec<(EndpointId, u64)>>);

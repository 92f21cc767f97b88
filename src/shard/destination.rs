//! Where a ref leads.

use std::sync::Arc;

use crate::dispatch::directory::Place;
use crate::net::peer::Peer;
use crate::wire::frame::EndpointId;

/// Whom a ref points at.
#[derive(Clone, Debug)]
pub enum Destination {
    /// An endpoint of this env.
    Env {
        /// Its id.
        id: EndpointId,
        /// Where its instances are.
        place: Place,
        /// Its name.
        name: Arc<str>,
    },
    /// An endpoint of a peer.
    Peer {
        /// The peer.
        peer: Arc<Peer>,
        /// The endpoint's name.
        name: Arc<str>,
        /// The name's number at the peer.
        index: u32,
    },
    /// An endpoint that a peer told of, at an address that it must not tell.
    Forbidden {
        /// The address.
        address: Arc<str>,
        /// The endpoint's name.
        name: Arc<str>,
        /// What forbids it.
        policy: &'static str,
    },
}

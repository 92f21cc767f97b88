//! Refs whose messages go straight to the core that has their endpoint.

use std::sync::{Arc, OnceLock};

use crate::net::peer::Peers;
use crate::shard::destination::Destination;
use crate::wire::frame::core_of_key;

/// The way to an endpoint of a peer over connections to this core. None if this node does not choose where they come
/// to, as with a peer that has opened them itself, or if the peer has too many names in use.
pub(crate) fn by_core(peers: &Arc<Peers>, any: &Destination, core: u16) -> Option<Destination> {
    let Destination::Peer { peer, name, .. } = any else { return None };
    if peer.client().is_some() {
        return None;
    }
    let peer = peers.at(peer.address(), Some(core));
    let index = peer.name_index(name)?;
    Some(Destination::Peer { peer, name: name.clone(), index })
}

/// The ways to the instances of an endpoint that has one on every core of a peer.
///
/// Each is made when it is first needed and then stays, so that the messages to one ref of one key always go the same
/// way, in order.
pub(crate) struct PerCore {
    peers: Arc<Peers>,
    ways: Box<[OnceLock<Option<Destination>>]>,
}

impl PerCore {
    /// No way yet to any of this many cores.
    pub(crate) fn new(peers: &Arc<Peers>, cores: u16) -> PerCore {
        PerCore { peers: peers.clone(), ways: (0..cores).map(|_| OnceLock::new()).collect() }
    }

    /// The way to the instance that owns `key`; `any` leads to some core.
    #[inline]
    pub(crate) fn by_key<'a>(&'a self, any: &'a Destination, key: u16) -> &'a Destination {
        let core = core_of_key(key, self.ways.len() as u16);
        let Some(way) = self.ways.get(usize::from(core)) else { return any };
        way.get_or_init(|| by_core(&self.peers, any, core)).as_ref().unwrap_or(any)
    }
}

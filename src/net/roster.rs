//! Who is connected to this env: looked at when connections come and go, never on the path of a message.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::connection_id::ConnectionId;
use super::remote::Remote;
use crate::wire::handshake::Hello;

/// The other side of one connection: a node, as it introduced itself.
///
/// Cheap to clone and usable anywhere. Two are equal if they mean the same connection; compare
/// [`node_id`](Peer::node_id)s to see whether two connections lead to the same node. What a peer says about itself is
/// not verified.
#[derive(Clone)]
pub struct Peer(Arc<Inner>);

struct Inner {
    name: String,
    advertised: Option<String>,
    remote: Remote,
    node: u64,
    number: u64,
    of_node: Arc<AtomicUsize>,
}

impl Peer {
    /// The name of its env.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Where it listens, as it advertises it; none for a node in client mode.
    pub fn address(&self) -> Option<&str> {
        self.0.advertised.as_deref()
    }

    /// Its end of the connection. For a peer that connected to this env that is not where it listens.
    pub fn remote(&self) -> Remote {
        self.0.remote
    }

    /// A random number that tells one run of an env from all others, so it serves as the node's identity.
    pub fn node_id(&self) -> u64 {
        self.0.node
    }

    /// Number of the connection, unique in this run of this env.
    pub fn connection(&self) -> u64 {
        self.0.number
    }

    /// How many connections this env has with that node now, on all cores and in both directions. Once it has been 0 it
    /// stays so: if the node comes back, its new peers count anew.
    pub fn connections(&self) -> usize {
        self.0.of_node.load(Ordering::Relaxed)
    }
}

impl PartialEq for Peer {
    fn eq(&self, other: &Peer) -> bool {
        // The numbers of two envs of one process may be the same.
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Peer {}

impl Hash for Peer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.number.hash(state);
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.advertised {
            Some(address) => write!(f, "{:?} at {address}", self.0.name),
            None => write!(f, "{:?} ({:016x}) from {}", self.0.name, self.0.node, self.0.remote),
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer({self}, connection {})", self.0.number)
    }
}

/// A connection over which a node can be asked that listens nowhere.
#[derive(Debug)]
pub struct Route {
    /// The core that owns the connection.
    pub core: u16,
    /// The connection.
    pub connection: ConnectionId,
    open: AtomicBool,
}

impl Route {
    /// Whether the connection has not ended.
    #[inline]
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }
}

/// All connections of an env whose hello has arrived.
#[derive(Debug, Default)]
pub struct Roster {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    peers: HashMap<(u16, ConnectionId), Peer>,
    nodes: HashMap<u64, Node>,
    last: u64,
}

#[derive(Debug, Default)]
struct Node {
    connections: Arc<AtomicUsize>,
    routes: Vec<Arc<Route>>,
}

impl Roster {
    /// A connection of `core` is open: its peer has said this hello. `routed` says that the peer can be asked over it
    /// by its id.
    pub fn enter(&self, core: u16, connection: ConnectionId, remote: Remote, hello: &Hello, routed: bool) -> Peer {
        let mut table = self.lock();
        let table = &mut *table;
        table.last += 1;
        let node = table.nodes.entry(hello.incarnation).or_default();
        node.connections.fetch_add(1, Ordering::Relaxed);
        if routed {
            node.routes.push(Arc::new(Route { core, connection, open: AtomicBool::new(true) }));
        }
        let peer = Peer(Arc::new(Inner {
            name: hello.name.clone(),
            advertised: hello.advertised.clone(),
            remote,
            node: hello.incarnation,
            number: table.last,
            of_node: node.connections.clone(),
        }));
        table.peers.insert((core, connection), peer.clone());
        peer
    }

    /// Number of the connection that was entered last.
    pub fn last(&self) -> u64 {
        self.lock().last
    }

    /// The connection has ended. Nobody is routed over it from now on.
    pub fn leave(&self, core: u16, connection: ConnectionId) {
        let mut table = self.lock();
        let Some(peer) = table.peers.remove(&(core, connection)) else { return };
        let Entry::Occupied(mut node) = table.nodes.entry(peer.node_id()) else { return };
        let ended = |route: &Arc<Route>| (route.core, route.connection) == (core, connection);
        node.get_mut().routes.extract_if(.., |route| ended(route)).for_each(|r| r.open.store(false, Ordering::Release));
        if node.get().connections.fetch_sub(1, Ordering::Relaxed) == 1 {
            node.remove();
        }
    }

    /// The peer behind a connection that is open.
    pub fn peer(&self, core: u16, connection: ConnectionId) -> Option<Peer> {
        self.lock().peers.get(&(core, connection)).cloned()
    }

    /// A way to the node with this id: the oldest connection of `core`, or of another core if it has none.
    pub fn route_to(&self, node: u64, core: u16) -> Option<Arc<Route>> {
        let table = self.lock();
        let routes = &table.nodes.get(&node)?.routes;
        routes.iter().find(|route| route.core == core).or_else(|| routes.first()).cloned()
    }

    // The table is whole after every step, so a panic elsewhere while it was locked does not spoil it.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(incarnation: u64) -> Hello {
        Hello {
            versions: (1, 1),
            max_frame: 4096,
            cores: 1,
            wanted_core: None,
            incarnation,
            name: "n".into(),
            advertised: None,
        }
    }

    #[test]
    fn a_node_is_reached_over_its_open_connections_the_own_core_first() {
        let roster = Roster::default();
        let id = |slot| ConnectionId { slot, generation: 0 };
        let first = roster.enter(0, id(7), Remote::Unix, &hello(42), true);
        let second = roster.enter(1, id(7), Remote::Unix, &hello(42), true);
        let other = roster.enter(1, id(8), Remote::Unix, &hello(43), false);
        assert!(first != second && first.node_id() == second.node_id() && second != other);
        assert_eq!((first.connections(), other.connections()), (2, 1));
        assert_eq!(roster.peer(1, id(7)), Some(second.clone()));
        assert!(roster.route_to(43, 1).is_none(), "nobody is asked over a connection that we opened");
        let over = |core| roster.route_to(42, core).map(|route| (route.core, route.connection));
        assert_eq!((over(0), over(1), over(2)), (Some((0, id(7))), Some((1, id(7))), Some((0, id(7)))));
        let route = roster.route_to(42, 0).unwrap();
        roster.leave(0, id(7));
        assert!(!route.is_open());
        assert_eq!((first.connections(), over(0)), (1, Some((1, id(7)))));
        roster.leave(1, id(7));
        assert_eq!((second.connections(), over(0), roster.peer(1, id(7))), (0, None, None));
    }
}

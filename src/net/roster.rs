//! Who is connected to this env: looked at when connections come and go, never on the path of a message.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::connection_id::ConnectionId;
use super::fences::Fences;
use super::remote::Remote;
use crate::wire::handshake::{Hello, Token};

/// Expired identities that one connection removes, at most: as it comes or goes.
const PURGE: usize = 64;

/// The other side of one connection: a node, as it introduced itself.
///
/// Cheap to clone and usable anywhere. Two are equal if they mean the same connection; compare
/// [`node_id`](Peer::node_id)s to see whether two connections lead to the same node. Name and address are what the peer
/// says about itself; they are not verified.
#[derive(Clone)]
pub struct Peer(Arc<Inner>);

struct Inner {
    name: String,
    advertised: Option<String>,
    remote: Remote,
    node: u64,
    identity: Identity,
    number: u64,
    /// The outbox of the peer that it serves.
    outbox: Option<u64>,
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

    /// A random number that tells one run of an env from all others, so it serves as the node's identity. It is the
    /// number that the node has chosen, and that refs to it carry, if the node connected here first with that number:
    /// whoever claims it beside or after that node, and does not have its token, is another node and gets a number of
    /// its own.
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
    /// The node, for people: its name and where its socket is.
    pub node: Arc<str>,
    open: AtomicBool,
}

impl Route {
    /// Whether the connection has not ended, and its node has not connected anew in its stead.
    #[inline]
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }
}

/// How many nodes that have left are remembered, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Their number.
    pub nodes: usize,
    /// How long.
    pub time: Duration,
}

/// A connection whose hello has been read.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// The core that owns it.
    pub core: u16,
    /// The connection.
    pub connection: ConnectionId,
    /// Its other end.
    pub remote: Remote,
    /// What its peer has said.
    pub hello: &'a Hello,
    /// The peer has opened it, so that the peer can be asked over it by its id.
    pub accepted: bool,
    /// The time, in nanoseconds of the clock of all cores.
    pub now: u64,
    /// A random number: the id of the node if it cannot have the one that it claims.
    pub fresh: u64,
}

/// A connection has been entered.
#[derive(Debug)]
pub struct Arrived {
    /// Its peer.
    pub peer: Peer,
    /// The connection that it succeeds, which is to be closed, and has been fenced if it is another core's.
    pub displaced: Option<(u16, ConnectionId)>,
}

/// A later connection of the same outbox has arrived before.
#[derive(Debug, PartialEq, Eq)]
pub struct Superseded;

/// All connections of an env whose hello has arrived.
///
/// The first node that connects with an incarnation has it as its id from then on, for as long as it is connected or
/// [remembered](Memory). Another connection belongs to the same node only if it brings the same token. So nobody gets a
/// node's messages who has learned its id, which is in every ref to it.
#[derive(Debug)]
pub struct Roster {
    table: Mutex<Table>,
    fences: Fences,
    memory: Memory,
}

/// By what a node is recognised.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Identity {
    /// It came first with this incarnation.
    First(u64),
    /// It claims an incarnation that is another node's, and brings a token.
    Other(u64, Token),
    /// It cannot be recognised: a node by the number of its connection.
    Unknown(u64),
    /// This env connected to it, and it gave this incarnation.
    Dialled(u64),
}

#[derive(Debug, Default)]
struct Table {
    peers: HashMap<(u16, ConnectionId), Peer>,
    nodes: HashMap<Identity, Node>,
    /// Those that have another id than the incarnation that they claim.
    others: HashMap<u64, Identity>,
    /// The incarnations of those that have left and are remembered, by when that was.
    absent: BTreeSet<(u64, u64)>,
    last: u64,
}

#[derive(Debug)]
struct Node {
    id: u64,
    token: Option<Token>,
    listens: bool,
    /// How many connections it has, and when it lost the last one if it has none.
    open: usize,
    left: u64,
    /// What its peers show as the number of its connections.
    connections: Arc<AtomicUsize>,
    /// By their cores, the oldest first.
    routes: BTreeMap<(u16, u64), Arc<Route>>,
    /// The latest connection of each of its outboxes, as long as it is open.
    outboxes: HashMap<u64, Latest>,
}

#[derive(Clone, Copy, Debug)]
struct Latest {
    ordinal: u64,
    core: u16,
    connection: ConnectionId,
    number: u64,
}

impl Roster {
    /// Nobody is connected to so many cores, each of which has so many connections at most.
    pub fn new(cores: u16, connections: usize, memory: Memory) -> Roster {
        Roster { table: Mutex::default(), fences: Fences::new(cores, connections), memory }
    }

    /// A connection is open: its peer has said its hello. If it succeeds another one of the same outbox, on another
    /// core, that one is fenced before this returns.
    ///
    /// # Errors
    /// It is itself succeeded by one that has arrived before, and is to be closed.
    pub fn enter(&self, arrival: &Arrival<'_>) -> Result<Arrived, Superseded> {
        let Arrival { core, connection, remote, hello, accepted, .. } = *arrival;
        let mut table = self.lock();
        let table = &mut *table;
        table.purge(arrival.now, self.memory.time);
        table.last += 1;
        let number = table.last;
        let (identity, id) = table.identify(arrival);
        let node = table.node(identity, id, hello);
        let mut displaced = None;
        // Without a token anybody could displace anybody.
        if let (true, Some(tag), Some(_)) = (accepted, hello.outbox, hello.token) {
            let latest = Latest { ordinal: tag.ordinal, core, connection, number };
            match node.outboxes.get(&tag.id).copied() {
                Some(old) if old.ordinal >= latest.ordinal => return Err(Superseded),
                Some(old) => {
                    // On the same core it is closed before its successor is read, and what it has brought is before
                    // that.
                    if old.core != core {
                        self.fences.fence(old.core, old.connection);
                    }
                    node.end_route(old.core, old.number);
                    displaced = Some((old.core, old.connection));
                }
                None => {}
            }
            node.outboxes.insert(tag.id, latest);
        }
        node.open += 1;
        node.connections.fetch_add(1, Ordering::Relaxed);
        if accepted {
            let text = format!("{:?} from {remote}", hello.name).into();
            let route = Route { core, connection, node: text, open: AtomicBool::new(true) };
            node.routes.insert((core, number), Arc::new(route));
        }
        let peer = Peer(Arc::new(Inner {
            name: hello.name.clone(),
            advertised: hello.advertised.clone(),
            remote,
            node: node.id,
            identity,
            number,
            outbox: hello.outbox.map(|tag| tag.id),
            of_node: node.connections.clone(),
        }));
        table.peers.insert((core, connection), peer.clone());
        Ok(Arrived { peer, displaced })
    }

    /// Number of the connection that was entered last.
    pub fn last(&self) -> u64 {
        self.lock().last
    }

    /// The connection has ended at the time `now`. Nobody is routed over it from now on. False if its node would be
    /// remembered, and too many are already.
    pub fn leave(&self, core: u16, connection: ConnectionId, now: u64) -> bool {
        let mut table = self.lock();
        let table = &mut *table;
        table.purge(now, self.memory.time);
        let Some(peer) = table.peers.remove(&(core, connection)) else { return true };
        let identity = peer.0.identity;
        let Some(node) = table.nodes.get_mut(&identity) else { return true };
        node.end_route(core, peer.0.number);
        if let Some(id) = peer.0.outbox
            && node.outboxes.get(&id).is_some_and(|latest| latest.number == peer.0.number)
        {
            node.outboxes.remove(&id);
        }
        node.open -= 1;
        node.connections.fetch_sub(1, Ordering::Relaxed);
        if node.open > 0 {
            return true;
        }
        node.left = now;
        match (identity, node.token) {
            (Identity::First(incarnation), Some(_)) if table.absent.len() < self.memory.nodes => {
                table.absent.insert((now, incarnation));
                true
            }
            (_, token) => {
                table.others.remove(&node.id);
                table.nodes.remove(&identity);
                token.is_none() || !matches!(identity, Identity::First(_))
            }
        }
    }

    /// Whether the peer of a connection has connected anew in its stead: what it has brought and is not delivered yet
    /// is not to be.
    #[inline]
    pub fn is_fenced(&self, core: u16, connection: ConnectionId) -> bool {
        self.fences.is_fenced(core, connection)
    }

    /// The peer behind a connection that is open.
    pub fn peer(&self, core: u16, connection: ConnectionId) -> Option<Peer> {
        self.lock().peers.get(&(core, connection)).cloned()
    }

    /// A way to the node with this id: the oldest connection of `core`, or of another core if it has none.
    pub fn route_to(&self, id: u64, core: u16) -> Option<Arc<Route>> {
        let table = self.lock();
        let identity = table.others.get(&id).copied().unwrap_or(Identity::First(id));
        let routes = &table.nodes.get(&identity)?.routes;
        if let Some((_, own)) = routes.range((core, 0)..=(core, u64::MAX)).next() {
            return Some(own.clone());
        }
        let (mut oldest, mut from) = (None::<(u64, &Arc<Route>)>, 0);
        // The oldest one of each core.
        while let Some(((core, number), route)) = routes.range((from, 0)..).next() {
            if oldest.is_none_or(|(other, _)| *number < other) {
                oldest = Some((*number, route));
            }
            let Some(next) = core.checked_add(1) else { break };
            from = next;
        }
        oldest.map(|(_, route)| route.clone())
    }

    // The table is whole after every step, so a panic elsewhere while it was locked does not spoil it.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Which node has arrived, and the id that it has or gets.
    fn identify(&self, arrival: &Arrival<'_>) -> (Identity, u64) {
        let (incarnation, token) = (arrival.hello.incarnation, arrival.hello.token);
        let first = self.nodes.get(&Identity::First(incarnation));
        match (first, token) {
            // Nobody that was dialled is a node that listens nowhere.
            (Some(first), _) if !arrival.accepted && !first.listens => (Identity::Unknown(self.last), arrival.fresh),
            _ if !arrival.accepted => (Identity::Dialled(incarnation), incarnation),
            (None, _) => (Identity::First(incarnation), incarnation),
            (Some(first), Some(_)) if first.token == token => (Identity::First(incarnation), incarnation),
            (Some(_), Some(token)) => (Identity::Other(incarnation, token), arrival.fresh),
            (Some(_), None) => (Identity::Unknown(self.last), arrival.fresh),
        }
    }

    /// The node with this identity; a new one gets this id.
    fn node(&mut self, identity: Identity, id: u64, hello: &Hello) -> &mut Node {
        let listens = hello.advertised.is_some();
        // Connections in both directions count together, if the node listens.
        let twin = match identity {
            Identity::First(incarnation) if listens => self.nodes.get(&Identity::Dialled(incarnation)),
            Identity::Dialled(incarnation) => self.nodes.get(&Identity::First(incarnation)),
            _ => None,
        };
        let counter = twin.filter(|twin| twin.open > 0).map(|twin| twin.connections.clone());
        let node = self.nodes.entry(identity).or_insert_with(|| Node {
            id,
            token: hello.token,
            listens,
            open: 0,
            left: 0,
            connections: Arc::default(),
            routes: BTreeMap::new(),
            outboxes: HashMap::new(),
        });
        if node.open == 0 {
            // It is new, or has come back: its peers count anew.
            node.connections = counter.unwrap_or_default();
            node.listens = listens;
            match identity {
                Identity::First(incarnation) => drop(self.absent.remove(&(node.left, incarnation))),
                Identity::Other(..) | Identity::Unknown(_) => drop(self.others.insert(id, identity)),
                Identity::Dialled(_) => {}
            }
        }
        node
    }

    /// Forgets those that left long ago.
    fn purge(&mut self, now: u64, memory: Duration) {
        let memory = u64::try_from(memory.as_nanos()).unwrap_or(u64::MAX);
        for _ in 0..PURGE {
            match self.absent.first() {
                Some((left, incarnation)) if left.saturating_add(memory) <= now => {
                    self.nodes.remove(&Identity::First(*incarnation));
                    self.absent.pop_first();
                }
                _ => return,
            }
        }
    }
}

impl Node {
    /// Nobody is routed over this connection from now on.
    fn end_route(&mut self, core: u16, number: u64) {
        if let Some(route) = self.routes.remove(&(core, number)) {
            route.open.store(false, Ordering::Release);
        }
    }
}

#[cfg(test)]
#[path = "roster_tests.rs"]
mod tests;

//! Who is connected to this env: looked at when connections come and go, never on the path of a message.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use super::absent::Memory;
use super::absent::{Absent, place};
use super::connected::Inner;
pub use super::connected::Peer;
use super::connection_id::ConnectionId;
use super::fences::Fences;
use super::node_ids::is_given;
use super::remote::Remote;
use crate::wire::handshake::{Hello, OutboxTag, Token};
use crate::wire::told::Alias;

/// Expired identities that one connection removes, at most: as it comes or goes.
const PURGE: usize = 64;
/// Outboxes of a node without a connection that are remembered, at most.
const CLOSED_OUTBOXES: usize = 64;

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
    /// The address that this env has dialled, as refs write it; none if the peer has opened the connection, so that it
    /// can be asked over it by its id.
    pub dialled: Option<&'a str>,
    /// The time, in nanoseconds of the clock of all cores.
    pub now: u64,
    /// The id of the node if it cannot have the one that it claims: the same for the same token, else a random one.
    pub fresh: u64,
}

/// A connection has been entered.
#[derive(Debug)]
pub struct Arrived {
    /// Its peer.
    pub peer: Peer,
    /// The connection that it succeeds, which is to be closed, and has been fenced if it is another core's.
    pub displaced: Option<(u16, ConnectionId)>,
    /// It was dialled, and says that it is a node that is known from elsewhere: it counts as another one.
    pub impostor: bool,
}

/// A later connection of the same outbox has arrived before.
#[derive(Debug, PartialEq, Eq)]
pub struct Superseded;

/// A connection has ended, and its place has been used again since.
#[derive(Debug, PartialEq, Eq)]
pub struct Forgotten;

/// All connections of an env whose hello has arrived.
///
/// The first node that connects with an incarnation has it as its id from then on, for as long as it is connected or
/// [remembered](Memory). Another connection belongs to the same node only if it brings the same token. So nobody gets a
/// node's messages who has learned its id, which is in every ref to it.
#[derive(Debug)]
pub struct Roster {
    table: Mutex<Table>,
    fences: Fences,
}

/// By what a node is recognised.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Identity {
    /// It came first with this incarnation.
    First(u64),
    /// It claims an incarnation that is another node's, and brings a token.
    Other(u64, Token),
    /// It cannot be recognised: a node by the number of its connection.
    Unknown(u64),
    /// This env connected to it, and it gave this incarnation; a hash of its address if it is not the node that is
    /// known by that incarnation.
    Dialled(u64, Option<u64>),
}

#[derive(Debug)]
struct Table {
    peers: HashMap<(u16, ConnectionId), Peer>,
    nodes: HashMap<Identity, Node>,
    /// By the ids that this env has given: those that have another id than the incarnation that they claim, and those
    /// that would have.
    others: HashMap<u64, Identity>,
    /// By core and place, the last connection there in whose words an id means another node than here. What a
    /// connection has brought may be decoded after its end.
    aliases: HashMap<(u16, u32), (ConnectionId, Alias)>,
    /// Those that have left and are remembered.
    absent: Absent,
    last: u64,
}

#[derive(Debug)]
struct Node {
    id: u64,
    /// The id that it was given, or would have been.
    given: Option<u64>,
    token: Option<Token>,
    /// Where it listens: as this env has dialled it, else as it says.
    address: Option<Box<str>>,
    /// How many connections it has, and when it lost the last one if it has none.
    open: usize,
    left: u64,
    /// Where its first connection leads, or if it has left its last one did.
    remote: Remote,
    /// What its peers show as the number of its connections.
    connections: Arc<AtomicUsize>,
    /// By their cores, the oldest first.
    routes: BTreeMap<(u16, u64), Arc<Route>>,
    /// The latest connection of each of its outboxes, as long as it is open.
    outboxes: HashMap<u64, Latest>,
    /// Id and ordinal of the outboxes whose latest connection has closed, the oldest first.
    closed: VecDeque<(u64, u64)>,
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
        let table = Table {
            peers: HashMap::new(),
            nodes: HashMap::new(),
            others: HashMap::new(),
            aliases: HashMap::new(),
            absent: Absent::new(memory),
            last: 0,
        };
        Roster { table: Mutex::new(table), fences: Fences::new(cores, connections) }
    }

    /// A connection is open: its peer has said its hello. If it succeeds another one of the same outbox, on another
    /// core, that one is fenced before this returns.
    ///
    /// # Errors
    /// It is itself succeeded by one that has arrived before, and is to be closed.
    pub fn enter(&self, arrival: &Arrival<'_>) -> Result<Arrived, Superseded> {
        let Arrival { core, connection, remote, hello, dialled, .. } = *arrival;
        let accepted = dialled.is_none();
        let mut table = self.lock();
        let table = &mut *table;
        table.purge(arrival.now);
        table.last += 1;
        let number = table.last;
        let (identity, id) = table.identify(arrival);
        // Without a token anybody could displace anybody.
        let tag = hello.outbox.filter(|_| accepted && hello.token.is_some());
        if let (Some(tag), Some(node)) = (tag, table.nodes.get(&identity))
            && node.is_late(tag)
        {
            return Err(Superseded);
        }
        let node = table.node(identity, id, arrival);
        let mut displaced = None;
        if let Some(tag) = tag {
            let latest = Latest { ordinal: tag.ordinal, core, connection, number };
            node.closed.retain(|(outbox, _)| *outbox != tag.id);
            if let Some(old) = node.outboxes.insert(tag.id, latest) {
                // On the same core it is closed before its successor is read, and what it has brought is before that.
                if old.core != core {
                    self.fences.fence(old.core, old.connection);
                }
                node.end_route(old.core, old.number);
                displaced = Some((old.core, old.connection));
            }
        }
        node.open += 1;
        node.connections.fetch_add(1, Ordering::Relaxed);
        if accepted {
            let text = format!("{:?} from {remote}", hello.name).into();
            let route = Route { core, connection, node: text, open: AtomicBool::new(true) };
            node.routes.insert((core, number), Arc::new(route));
        }
        let alias = match accepted {
            true if node.id != hello.incarnation => Some(Alias { id: hello.incarnation, means: Some(node.id) }),
            true => None,
            // Only the acceptor knows which id it has given to this env.
            false => hello.given.map(|id| Alias { id, means: None }),
        };
        let peer = Peer(Arc::new(Inner {
            name: hello.name.clone(),
            advertised: hello.advertised.clone(),
            remote,
            node: node.id,
            identity,
            number,
            outbox: hello.outbox.map(|tag| tag.id),
            alias,
            of_node: node.connections.clone(),
        }));
        if let Some(alias) = alias {
            table.aliases.insert((core, connection.slot), (connection, alias));
        }
        table.peers.insert((core, connection), peer.clone());
        let impostor = matches!(identity, Identity::Dialled(_, Some(_)));
        Ok(Arrived { peer, displaced, impostor })
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
        table.purge(now);
        let Some(peer) = table.peers.remove(&(core, connection)) else { return true };
        let identity = peer.0.identity;
        let Some(node) = table.nodes.get_mut(&identity) else { return true };
        node.end_route(core, peer.0.number);
        node.close_outbox(&peer);
        node.open -= 1;
        node.connections.fetch_sub(1, Ordering::Relaxed);
        if node.open > 0 {
            return true;
        }
        (node.left, node.remote) = (now, peer.remote());
        let kept = match (identity, node.token) {
            (Identity::First(incarnation), Some(_)) => Some(table.absent.insert(now, incarnation, peer.remote())),
            _ => None,
        };
        if kept != Some(true) {
            table.forget(identity);
        }
        kept != Some(false)
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

    /// The id that means another node in what has come over a connection than here. The connection may have ended.
    ///
    /// # Errors
    /// Nobody knows any more.
    pub fn alias_of(&self, core: u16, connection: ConnectionId) -> Result<Option<Alias>, Forgotten> {
        let table = self.lock();
        match table.aliases.get(&(core, connection.slot)) {
            Some((last, alias)) if *last == connection => Ok(Some(*alias)),
            Some(_) if !table.peers.contains_key(&(core, connection)) => Err(Forgotten),
            _ => Ok(None),
        }
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
        if let Some(address) = arrival.dialled {
            return self.identify_dialled(arrival, address);
        }
        if let Some(token) = token {
            // It stays another one than the first, who may have been forgotten since. An id that was given is for
            // nobody to claim.
            let other = Identity::Other(incarnation, token);
            if is_given(incarnation) || self.nodes.contains_key(&other) {
                return (other, arrival.fresh);
            }
        }
        let first = self.nodes.get(&Identity::First(incarnation));
        match (first, token) {
            (None, _) if !is_given(incarnation) => (Identity::First(incarnation), incarnation),
            (Some(first), Some(_)) if first.token == token => (Identity::First(incarnation), incarnation),
            (_, Some(token)) => (Identity::Other(incarnation, token), arrival.fresh),
            (_, None) => (Identity::Unknown(self.last), arrival.fresh),
        }
    }

    /// Which node has been dialled. All that is known of it is where it stands, so it is a node that stands there, or a
    /// new one: every node learns the incarnations of those that it is connected with.
    fn identify_dialled(&self, arrival: &Arrival<'_>, address: &str) -> (Identity, u64) {
        let (incarnation, remote) = (arrival.hello.incarnation, arrival.remote);
        let known = Identity::Dialled(incarnation, None);
        let is_known = match (self.nodes.get(&known), self.nodes.get(&Identity::First(incarnation))) {
            (Some(node), _) => node.is_dialled_as(address, remote),
            (None, Some(node)) => node.listens_at(address, remote),
            (None, None) => !is_given(incarnation),
        };
        if is_known {
            return (known, incarnation);
        }
        let mut hash = DefaultHasher::new();
        address.hash(&mut hash);
        (Identity::Dialled(incarnation, Some(hash.finish())), arrival.fresh)
    }

    /// The node with this identity; a new one gets this id.
    fn node(&mut self, identity: Identity, id: u64, arrival: &Arrival<'_>) -> &mut Node {
        let hello = arrival.hello;
        let address = arrival.dialled.or(hello.advertised.as_deref());
        // Connections in both directions count together, if the node listens.
        let twin = match identity {
            Identity::First(incarnation) if address.is_some() => self.nodes.get(&Identity::Dialled(incarnation, None)),
            Identity::Dialled(incarnation, None) => self.nodes.get(&Identity::First(incarnation)),
            _ => None,
        };
        let counter = twin.filter(|twin| twin.open > 0).map(|twin| twin.connections.clone());
        let node = self.nodes.entry(identity).or_insert_with(|| Node {
            id,
            given: Some(arrival.fresh).filter(|id| is_given(*id) && arrival.dialled.is_none() && hello.token.is_some()),
            token: hello.token,
            address: None,
            open: 0,
            left: 0,
            remote: arrival.remote,
            connections: Arc::default(),
            routes: BTreeMap::new(),
            outboxes: HashMap::new(),
            closed: VecDeque::new(),
        });
        if node.open == 0 {
            // It is new, or has come back: its peers count anew.
            node.connections = counter.unwrap_or_default();
            node.address = address.map(Box::from);
            match identity {
                Identity::First(incarnation) => self.absent.remove(node.left, incarnation, node.remote),
                Identity::Other(..) | Identity::Unknown(_) => drop(self.others.insert(id, identity)),
                Identity::Dialled(..) => {}
            }
            node.remote = arrival.remote;
            // Refs to it may carry the id that it had while another node had its incarnation.
            if let Some(given) = node.given {
                self.others.insert(given, identity);
            }
        }
        node
    }

    /// Forgets a node without connections.
    fn forget(&mut self, identity: Identity) {
        if let Some(node) = self.nodes.remove(&identity) {
            for id in [Some(node.id), node.given].into_iter().flatten() {
                self.others.remove(&id);
            }
        }
    }

    /// Forgets those that left long ago.
    fn purge(&mut self, now: u64) {
        for _ in 0..PURGE {
            let Some((left, incarnation)) = self.absent.expired(now) else { return };
            let identity = Identity::First(incarnation);
            if let Some(node) = self.nodes.get(&identity) {
                self.absent.remove(left, incarnation, node.remote);
            }
            self.forget(identity);
        }
    }
}

impl Node {
    /// Whether a node that was dialled before is the one at this address. One socket may have several names.
    fn is_dialled_as(&self, address: &str, remote: Remote) -> bool {
        self.address.as_deref() == Some(address) || remote != Remote::Unix && self.remote == remote
    }

    /// Whether a node that has connected here itself is the one at this address: it says so, or comes from there.
    fn listens_at(&self, address: &str, remote: Remote) -> bool {
        let Some(own) = self.address.as_deref() else { return false };
        own == address || place(self.remote) == place(remote)
    }

    /// Whether a connection of this outbox comes late: a later one has arrived, be it that that has closed since.
    fn is_late(&self, tag: OutboxTag) -> bool {
        let open = self.outboxes.get(&tag.id).map(|latest| latest.ordinal);
        let latest = open.or_else(|| self.closed.iter().find(|(id, _)| *id == tag.id).map(|(_, ordinal)| *ordinal));
        latest.is_some_and(|latest| latest >= tag.ordinal)
    }

    /// Notes the end of a connection, if it is the latest of its outbox.
    fn close_outbox(&mut self, peer: &Peer) {
        let Some(id) = peer.0.outbox else { return };
        let Some(latest) = self.outboxes.get(&id).filter(|latest| latest.number == peer.0.number) else { return };
        if self.closed.len() == CLOSED_OUTBOXES {
            self.closed.pop_front();
        }
        self.closed.push_back((id, latest.ordinal));
        self.outboxes.remove(&id);
    }

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

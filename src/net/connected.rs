//! The other side of a connection, as handlers see it.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::remote::Remote;
use super::roster::Identity;
use crate::wire::told::Alias;

/// The other side of one connection: a node, as it introduced itself.
///
/// Cheap to clone and usable anywhere. Two are equal if they mean the same connection; compare
/// [`node_id`](Peer::node_id)s to see whether two connections lead to the same node. Name and address are what the peer
/// says about itself; they are not verified.
#[derive(Clone)]
pub struct Peer(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) name: String,
    pub(super) advertised: Option<String>,
    pub(super) remote: Remote,
    pub(super) node: u64,
    pub(super) identity: Identity,
    pub(super) number: u64,
    /// The outbox of the peer that it serves.
    pub(super) outbox: Option<u64>,
    /// The id that means another node in what it tells than here.
    pub(super) alias: Option<Alias>,
    pub(super) of_node: Arc<AtomicUsize>,
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
    /// its own. So does a node that this env has connected to, if it is known by that number from another address.
    pub fn node_id(&self) -> u64 {
        self.0.node
    }

    /// The id that this env has given to it, if that is not the one that it has chosen.
    pub(crate) fn given(&self) -> Option<u64> {
        self.0.alias?.means
    }

    /// The id that means another node in what it tells than here: its own, or that of this env.
    pub(crate) fn alias(&self) -> Option<Alias> {
        self.0.alias
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

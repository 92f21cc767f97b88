//! Peers and the endpoint names used with them, numbered so that the path of a message needs no hashing.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Endpoint names that refs to one peer may have, as long as any of them lives.
pub const MAX_NAMES: u32 = 65_536;

/// Begins what stands for the address of a node that does not listen; 16 hexadecimal digits of its id follow. No
/// address of TCP looks like that.
const CLIENT: &str = "client:";

/// Whose names are resolved together: those of one class never wait for those of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameClass {
    /// Those that the env's own user gave.
    Own,
    /// Those that peers told, in refs.
    Told,
}

/// On whose word a node is connected to. It only grows: what one ref may do, others to the same address may too.
#[derive(Debug, Default)]
pub struct Standing {
    own: AtomicBool,
    inward: AtomicBool,
}

impl Standing {
    /// With whose names the node's is resolved.
    pub fn class(&self) -> NameClass {
        if self.own.load(Ordering::Relaxed) { NameClass::Own } else { NameClass::Told }
    }

    /// Whether its name may stand for an address of this machine alone.
    pub fn may_go_inward(&self) -> bool {
        self.own.load(Ordering::Relaxed) || self.inward.load(Ordering::Relaxed)
    }
}

/// A node that refs point at, known by its address, or one core of it; or known by its id if
/// it does not listen.
///
/// All refs of an env to one address share one `Peer`; those that are for a certain core of it share another one, and so
/// have connections of their own. Its index is the place of its outbox on every core; when the
/// last ref is gone and every core is done with it the index is given back, and `serial` tells a later holder apart.
pub struct Peer {
    index: u32,
    serial: u64,
    address: Arc<str>,
    client: Option<u64>,
    wanted_core: Option<u16>,
    standing: Arc<Standing>,
    names: Mutex<HashMap<Arc<str>, u32>>,
    registry: Arc<Peers>,
}

impl Peer {
    /// Place of this peer's outbox on every core.
    #[inline]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Unique among all peers that this process ever had.
    #[inline]
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// `host:port` or `unix:/path`.
    pub fn address(&self) -> &Arc<str> {
        &self.address
    }

    /// The id of a node that does not listen: it is reached over a connection that it has opened.
    #[inline]
    pub fn client(&self) -> Option<u64> {
        self.client
    }

    /// The core of the node that connections to it should come to.
    pub fn wanted_core(&self) -> Option<u16> {
        self.wanted_core
    }

    /// On whose word it is connected to.
    pub fn standing(&self) -> &Arc<Standing> {
        &self.standing
    }

    /// The number of an endpoint name at this peer: the same for all refs with that name. None if the peer has
    /// [`MAX_NAMES`] others.
    pub fn name_index(&self, name: &Arc<str>) -> Option<u32> {
        let mut names = lock(&self.names);
        let next = names.len() as u32;
        match names.get(name) {
            Some(index) => Some(*index),
            None if next < MAX_NAMES => {
                names.insert(name.clone(), next);
                Some(next)
            }
            None => None,
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer({} at {})", self.index, self.address)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let mut table = lock(&self.registry.table);
        // A new peer with this address may have taken the entry between the last ref's end and here.
        let key = (self.address.clone(), self.wanted_core);
        if table.by_address.get(&key).is_some_and(|weak| weak.strong_count() == 0) {
            table.by_address.remove(&key);
        }
        drop(table);
        let hold = Arc::new(IndexHold { index: self.index, registry: self.registry.clone() });
        (self.registry.forget)(&hold, self.serial);
    }
}

/// Keeps the index of a peer without refs from being used again, as long as a core still has asks under way to it.
#[derive(Debug)]
pub struct IndexHold {
    index: u32,
    registry: Arc<Peers>,
}

impl IndexHold {
    /// The index.
    pub fn index(&self) -> u32 {
        self.index
    }
}

impl Drop for IndexHold {
    fn drop(&mut self) {
        lock(&self.registry.table).free.push(self.index);
    }
}

/// Tells the cores that nobody refers to a peer any more.
type Forget = Box<dyn Fn(&Arc<IndexHold>, u64) + Send + Sync>;

/// All peers of an env.
pub struct Peers {
    table: Mutex<Table>,
    forget: Forget,
}

#[derive(Default)]
struct Table {
    by_address: HashMap<(Arc<str>, Option<u16>), Weak<Peer>>,
    free: Vec<u32>,
    next: u32,
}

impl Peers {
    /// An empty registry. `forget` is called with index and serial of each peer whose last ref is gone, on the
    /// thread that dropped it; the index is used again when all clones of the hold are gone.
    pub fn new(forget: impl Fn(&Arc<IndexHold>, u64) + Send + Sync + 'static) -> Arc<Peers> {
        Arc::new(Peers { table: Mutex::default(), forget: Box::new(forget) })
    }

    /// The peer at this address, which the env's own user gave, for connections to this core of it, or to any.
    pub fn at(self: &Arc<Peers>, address: &str, wanted_core: Option<u16>) -> Arc<Peer> {
        let peer = self.find(address, wanted_core, None);
        peer.standing.own.store(true, Ordering::Relaxed);
        peer
    }

    /// The peer at this address, which another peer told. `inward` says that its name may stand for an address of this
    /// machine alone.
    pub fn told(self: &Arc<Peers>, address: &str, inward: bool) -> Arc<Peer> {
        let peer = self.find(address, None, None);
        peer.standing.inward.fetch_or(inward, Ordering::Relaxed);
        peer
    }

    /// The peer with this id, which does not listen.
    pub fn client(self: &Arc<Peers>, node: u64) -> Arc<Peer> {
        self.find(&format!("{CLIENT}{node:016x}"), None, Some(node))
    }

    fn find(self: &Arc<Peers>, address: &str, wanted_core: Option<u16>, client: Option<u64>) -> Arc<Peer> {
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        let key = (Arc::from(address), wanted_core);
        let mut table = lock(&self.table);
        if let Some(peer) = table.by_address.get(&key).and_then(Weak::upgrade) {
            return peer;
        }
        let index = table.free.pop().unwrap_or_else(|| {
            table.next += 1;
            table.next - 1
        });
        let peer = Arc::new(Peer {
            index,
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            address: key.0.clone(),
            wanted_core,
            client,
            standing: Arc::default(),
            names: Mutex::default(),
            registry: self.clone(),
        });
        table.by_address.insert(key, Arc::downgrade(&peer));
        peer
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peers({})", lock(&self.table).by_address.len())
    }
}

/// The tables are whole after every step, so a panic elsewhere while they were locked does not spoil them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refs_to_one_address_share_a_peer_and_its_index_comes_back() {
        let forgotten = Arc::new(Mutex::new(Vec::new()));
        let log = forgotten.clone();
        let peers = Peers::new(move |hold, serial| log.lock().unwrap().push((hold.clone(), serial)));
        let a = peers.at("h:1", None);
        let b = peers.at("h:2", None);
        assert!(Arc::ptr_eq(&a, &peers.at("h:1", None)));
        assert_ne!(a.index(), b.index());
        let first_core = peers.at("h:1", Some(0));
        assert!(Arc::ptr_eq(&first_core, &peers.at("h:1", Some(0))));
        assert_ne!(first_core.index(), a.index(), "refs to one core have a peer of their own");
        let (index, serial) = (a.index(), a.serial());
        drop(a);
        let again = peers.at("h:1", None);
        assert_ne!((again.index(), again.serial()), (index, serial), "the old index is still held");
        let (hold, told) = forgotten.lock().unwrap().pop().unwrap();
        assert_eq!((hold.index(), told), (index, serial));
        drop(hold);
        let c = peers.at("h:3", None);
        assert_eq!(c.index(), index);
        assert_ne!(c.serial(), serial);
    }

    #[test]
    fn what_the_user_gives_stands_higher_than_what_peers_tell() {
        let peers = Peers::new(|_, _| ());
        let standing = |peer: &Peer| (peer.standing().class(), peer.standing().may_go_inward());
        let told = peers.told("h:1", false);
        assert_eq!(standing(&told), (NameClass::Told, false));
        peers.told("h:1", true);
        assert_eq!(standing(&told), (NameClass::Told, true));
        let own = peers.at("h:1", None);
        peers.told("h:1", false);
        assert!(Arc::ptr_eq(&own, &told));
        assert_eq!(standing(&told), (NameClass::Own, true));
    }

    #[test]
    fn names_are_numbered_per_peer() {
        let peers = Peers::new(|_, _| ());
        let peer = peers.at("h:1", None);
        let (x, y): (Arc<str>, Arc<str>) = ("x".into(), "y".into());
        assert_eq!((peer.name_index(&x), peer.name_index(&y), peer.name_index(&x)), (Some(0), Some(1), Some(0)));
        for name in 2..MAX_NAMES {
            assert_eq!(peer.name_index(&name.to_string().into()), Some(name));
        }
        assert_eq!((peer.name_index(&"z".into()), peer.name_index(&y)), (None, Some(1)));
    }
}

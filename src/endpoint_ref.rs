//! Refs: how messages reach an endpoint from anywhere.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use crate::address::{Address, EndpointUri, NodeAddress, SCHEME};
use crate::asking::{Asking, Elsewhere, Promise};
use crate::dispatch::call::NO_DEADLINE;
use crate::dispatch::directory::Place;
use crate::dispatch::verifier::Found;
use crate::error::LookupError;
use crate::net::ask_cell::AskCell;
use crate::net::errors::{AskError, SendError};
use crate::net::peer::Peer;
use crate::net::pending::ByFuture;
use crate::net::ref_policy::Verdict;
use crate::shard::ask::AskOptions;
use crate::shard::current;
use crate::shard::destination::Destination;
use crate::shard::node::{Job, Node, Refused, now};
use crate::shard::shard::Shard;
use crate::shard::spawn::{JoinHandle, job};
use crate::steering::{PerCore, by_core};
use crate::wire::frame::core_of_key;
use crate::wire::message::{Ask, Message, OneWay};

/// A handle on an endpoint, wherever it lives: cheap to clone, usable from any thread, and able to travel inside
/// messages.
///
/// On the thread of a core of its env, an ask takes the short way: a handler of the same core that is called when the
/// answer is awaited, or a value moved into its inbox if it or others are busy; a value moved through a lane to another
/// core; or bytes written straight into the core's connection. From any other thread
/// it goes through one of the env's cores.
///
/// A ref to an endpoint of a peer means whoever has the name there. After the name has got a new holder, one ask more may
/// fail with [`AskError::NoEndpoint`], since it went to the former one; the next reaches the new one.
///
/// Messages from one core, or from one other thread, to one ref arrive in the order in which they were sent, asks and
/// sends together; each arrives at most once.
///
/// Equality and hash look at what never changes, so refs are good keys. Clippy cannot see that: `mutable_key_type` warns
/// of the tables that refs share with their env, until `clippy.toml` has
/// `ignore-interior-mutability = ["ringpost::EndpointRef", "ringpost::Peer", "bytes::Bytes"]`.
#[derive(Clone)]
pub struct EndpointRef {
    inner: Arc<Inner>,
    key: Option<u16>,
}

struct Inner {
    node: Arc<Node>,
    to: Destination,
    /// The ways to the instances of a peer's endpoint, if a look-up has told that they are worth it.
    per_core: Option<PerCore>,
}

impl Inner {
    /// Where messages for this key go: the same for the whole life of a ref.
    #[inline]
    fn destination(&self, key: Option<u16>) -> &Destination {
        match (key, &self.per_core) {
            (Some(key), Some(ways)) => ways.by_key(&self.to, key),
            _ => &self.to,
        }
    }
}

impl EndpointRef {
    pub(crate) fn local(node: &Arc<Node>, id: crate::wire::frame::EndpointId, place: Place, name: &str) -> EndpointRef {
        let to = Destination::Env { id, place, name: name.into() };
        EndpointRef::new(node, to, None)
    }

    fn new(node: &Arc<Node>, to: Destination, per_core: Option<PerCore>) -> EndpointRef {
        EndpointRef { inner: Arc::new(Inner { node: node.clone(), to, per_core }), key: None }
    }

    /// The same ref, now that its node has told where the endpoint is: messages go over a connection to that core.
    pub(crate) fn steered(self, found: &Found) -> EndpointRef {
        let (node, to) = (&self.inner.node, &self.inner.to);
        match found.core {
            _ if !found.steers || matches!(to, Destination::Env { .. }) => self,
            None => EndpointRef::new(node, to.clone(), Some(PerCore::new(&node.peers, found.cores))),
            // An endpoint with a thread of its own is behind all cores that have connections.
            Some(core) if core >= found.cores => self,
            Some(core) => match by_core(&node.peers, to, core) {
                Some(straight) => EndpointRef::new(node, straight, None),
                None => self,
            },
        }
    }

    pub(crate) fn resolve(node: &Arc<Node>, uri: &EndpointUri) -> Result<EndpointRef, LookupError> {
        let own = match &uri.node {
            NodeAddress::Listening(address) => node.advertised.get() == Some(&address.to_string()),
            NodeAddress::Client(id) => *id == node.incarnation,
        };
        if own {
            let missing = || LookupError::NotFound { uri: uri.to_string().into() };
            let (id, place) = node.directory.find(&uri.name).ok_or_else(missing)?;
            return Ok(EndpointRef::local(node, id, place, &uri.name));
        }
        let peer = match &uri.node {
            NodeAddress::Listening(address) => node.peers.at(&address.to_string(), None),
            NodeAddress::Client(id) => node.peers.client(*id),
        };
        EndpointRef::of_peer(node, peer, &uri.name)
    }

    /// The ref with this URI that was told to this core: by the peer whose bytes it is decoding, or by whom it cannot
    /// say.
    pub(crate) fn told(shard: &Shard, uri: &EndpointUri) -> Result<EndpointRef, LookupError> {
        let node = &shard.node;
        let address = match &uri.node {
            NodeAddress::Listening(address) => address,
            NodeAddress::Client(id) => {
                return EndpointRef::resolve(node, &EndpointUri::of_client(shard.meant(*id), &uri.name));
            }
        };
        let address = address.to_string();
        if node.advertised.get() == Some(&address) {
            return EndpointRef::resolve(node, uri);
        }
        match shard.judge_told(&address) {
            Verdict::Allowed { inward } => EndpointRef::of_peer(node, node.peers.told(&address, inward), &uri.name),
            Verdict::Forbidden => {
                let (name, policy) = (uri.name.clone(), node.ref_policy.name());
                Ok(EndpointRef::new(node, Destination::Forbidden { address: address.into(), name, policy }, None))
            }
        }
    }

    fn of_peer(node: &Arc<Node>, peer: Arc<Peer>, name: &Arc<str>) -> Result<EndpointRef, LookupError> {
        let full = || LookupError::TooManyNames { address: peer.address().clone() };
        let index = peer.name_index(name).ok_or_else(full)?;
        let to = Destination::Peer { peer, name: name.clone(), index };
        Ok(EndpointRef::new(node, to, None))
    }

    pub(crate) fn destination(&self) -> &Destination {
        &self.inner.to
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.inner.node
    }

    pub(crate) fn belongs_to(&self, node: &Node) -> bool {
        self.inner.node.id == node.id
    }

    /// The endpoint's name.
    pub fn name(&self) -> &str {
        match &self.inner.to {
            Destination::Env { name, .. } | Destination::Peer { name, .. } | Destination::Forbidden { name, .. } => {
                name
            }
        }
    }

    /// Where the endpoint's node listens: its host and port, or the path of its Unix socket. None if it listens
    /// nowhere.
    pub fn address(&self) -> Option<Address> {
        let address = match &self.inner.to {
            Destination::Env { .. } => self.inner.node.advertised.get()?,
            Destination::Peer { peer, .. } if peer.client().is_some() => return None,
            Destination::Peer { peer, .. } => &**peer.address(),
            Destination::Forbidden { address, .. } => address,
        };
        address.parse().ok()
    }

    /// The endpoint's URI: `ringpost://name@address`, or, if its node does not listen, `ringpost-client://name@id`.
    ///
    /// The second form is good for envs that such a node is connected to, see [`Peer::node_id`](crate::Peer::node_id).
    pub fn uri(&self) -> String {
        let (client, address) = match &self.inner.to {
            Destination::Env { .. } => {
                (Some(self.inner.node.incarnation), self.inner.node.advertised.get().map(|a| &**a))
            }
            Destination::Peer { peer, .. } => (peer.client(), peer.client().is_none().then(|| &**peer.address())),
            Destination::Forbidden { address, .. } => (None, Some(&**address)),
        };
        match (address, client) {
            (None, Some(id)) => EndpointUri::of_client(id, self.name()).to_string(),
            (address, _) => format!("{SCHEME}://{}@{}", self.name(), address.unwrap_or_default()),
        }
    }

    /// The key that chooses the instance.
    pub(crate) fn key(&self) -> Option<u16> {
        self.key
    }

    /// A ref to the instance that owns `key`, for an endpoint with one on every core: the same key always means the
    /// same core. Keys are mixed first, so that consecutive ones spread.
    ///
    /// Without a key the sender's own core is meant, or the core that owns the connection. With one, a ref that was
    /// [looked up](crate::RpcEnv::lookup) uses a connection to the core that owns the key.
    pub fn by_key(&self, key: u64) -> EndpointRef {
        // The finaliser of MurmurHash3 (Appleby, public domain): each input bit changes half of the output bits.
        let mut hash = key;
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        self.with_key(Some((hash >> 48) as u16))
    }

    /// The same ref with this key.
    pub(crate) fn with_key(&self, key: Option<u16>) -> EndpointRef {
        EndpointRef { inner: self.inner.clone(), key }
    }

    /// Sends `message` at once and returns its answer to come. It waits at most `Config::ask_timeout`, and no longer than
    /// the call that is being handled: an ask that a handler makes, wherever it is awaited, ends at the deadline of the
    /// handler's own ask at the latest. Tasks, and handlers of one-way messages, have no such deadline.
    ///
    /// If a queue on the way is full it fails at once; [`patient`](Self::patient) asks wait for room.
    ///
    /// The future may be awaited on any thread and by any executor. Dropping it gives the ask up: its slot is free at
    /// once, and the handler's side is told.
    #[inline(always)]
    pub fn ask<M: Ask>(&self, message: M) -> Asking<M::Reply> {
        self.start(message, None)
    }

    /// Like [`ask`](Self::ask), with a limit of its own; a call that is being handled limits it all the same. The clock
    /// ticks in steps of about a millisecond; an ask never ends early.
    #[inline]
    pub fn ask_within<M: Ask>(&self, message: M, timeout: Duration) -> Asking<M::Reply> {
        self.start(message, Some(timeout))
    }

    /// Asks, and blocks this thread until the answer is there. On a core's own thread this is an error at once.
    pub fn ask_blocking<M: Ask>(&self, message: M) -> Result<M::Reply, AskError> {
        self.block_on(message, None)
    }

    /// Like [`ask_blocking`](Self::ask_blocking), with a limit of its own.
    pub fn ask_blocking_within<M: Ask>(&self, message: M, timeout: Duration) -> Result<M::Reply, AskError> {
        self.block_on(message, Some(timeout))
    }

    fn block_on<M: Ask>(&self, message: M, timeout: Option<Duration>) -> Result<M::Reply, AskError> {
        if current::on_core() {
            return Err(AskError::BlockingOnCore);
        }
        self.start_outside(message, timeout).wait()
    }

    /// Sends a one-way message. It never blocks; an error says that the message was refused here, and after `Ok` its
    /// fate is not told.
    #[inline]
    pub fn send<M: OneWay>(&self, message: M) -> Result<(), SendError> {
        match current::get() {
            Some(shard) if shard.sends_for == self.inner.node.id => {
                shard.send(self.inner.destination(self.key), message, self.key)
            }
            _ => self.send_outside(message),
        }
    }

    #[inline(always)]
    fn start<M: Ask>(&self, message: M, timeout: Option<Duration>) -> Asking<M::Reply> {
        match current::get() {
            Some(shard) if shard.sends_for == self.inner.node.id => {
                let inherited = shard.dispatcher.inherited_deadline();
                let options = AskOptions { timeout, since: None, key: self.key, inherited };
                match shard.ask(self.inner.destination(self.key), message, ByFuture, options) {
                    Ok(key) => Asking::on_core(&shard, key),
                    Err(error) => Asking::elsewhere(Elsewhere::Failed(*error)),
                }
            }
            _ => Asking::elsewhere(self.start_outside(message, timeout)),
        }
    }

    fn start_outside<M: Ask>(&self, message: M, timeout: Option<Duration>) -> Elsewhere {
        let core = self.entry_core();
        let cell = Arc::<AskCell>::default();
        let (to, key) = (self.inner.clone(), self.key);
        let mut promise = Promise::new(&cell, &self.inner.node);
        let since = Some(now());
        // A handler of an isolated endpoint, or of another env.
        let inherited = current::get().map_or(NO_DEADLINE, |shard| shard.dispatcher.inherited_deadline());
        let job = move |shard: &Rc<Shard>| {
            if promise.cell.is_given_up() {
                return shard.count(|counters| counters.cancelled += 1);
            }
            let options = AskOptions { timeout, since, key, inherited };
            match shard.ask(to.destination(key), message, promise.cell.clone(), options) {
                Ok(key) if promise.hand_on(key) => {}
                Ok(key) => shard.abandon_ask(key),
                Err(error) => promise.keep(Err(*error)),
            }
        };
        match self.inject(core, Box::new(job)) {
            Ok(()) => Elsewhere::Outside { node: self.inner.node.clone(), core, cell },
            Err(SendError::Overloaded { queue, remedy }) => Elsewhere::Failed(AskError::Overloaded { queue, remedy }),
            Err(_) => Elsewhere::Failed(AskError::Stopped { target: self.inner.node.name.as_str().into() }),
        }
    }

    fn send_outside<M: OneWay>(&self, message: M) -> Result<(), SendError> {
        let (to, key) = (self.inner.clone(), self.key);
        let job = move |shard: &Rc<Shard>| {
            if let Err(error) = shard.send(to.destination(key), message, key) {
                shard.count(|counters| counters.sends_lost += 1);
                shard.warn_lost(Some(M::NAME), &error);
            }
        };
        self.inject(self.entry_core(), Box::new(job))
    }

    /// Whether this thread is a core of the ref's env.
    pub(crate) fn is_near(&self) -> bool {
        current::get().is_some_and(|shard| shard.sends_for == self.inner.node.id)
    }

    /// This thread's core, or the one that it goes through.
    pub(crate) fn near_core(&self) -> u16 {
        let own = current::get().filter(|shard| shard.sends_for == self.inner.node.id);
        own.map_or_else(|| self.entry_core(), |shard| shard.core)
    }

    /// Runs a future on the core that this thread goes through.
    pub(crate) fn run_near<F, Fut>(&self, make: F) -> Result<JoinHandle<Fut::Output>, SendError>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future + 'static,
        Fut::Output: Send,
    {
        let (job, handle) = job(make);
        self.inject(self.entry_core(), job).map(|()| handle)
    }

    fn inject(&self, core: u16, job: Job) -> Result<(), SendError> {
        let node = &self.inner.node;
        node.cores[usize::from(core)].inject(job).map_err(|refused| match refused {
            Refused::Full(remedy) if !node.closing.load(Ordering::Relaxed) => {
                SendError::Overloaded { queue: format!("the injector of core {core}").into(), remedy }
            }
            _ => SendError::Stopped { target: node.name.as_str().into() },
        })
    }

    /// The core that a thread which is no core goes through: the endpoint's own, or always the same for one thread. An
    /// isolated core is none of them, as it may stand still and let no timeout come true.
    fn entry_core(&self) -> u16 {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        thread_local! {
            static MINE: Cell<Option<u16>> = const { Cell::new(None) };
        }
        let node = &self.inner.node;
        let cores = node.core_count();
        match (&self.inner.to, self.key) {
            (Destination::Env { place: Place::Core(core), .. }, _) if !node.is_isolated(*core) => *core,
            (Destination::Env { place: Place::EveryCore, .. }, Some(key)) => core_of_key(key, cores),
            _ => {
                let mine = MINE.get().unwrap_or_else(|| NEXT.fetch_add(1, Ordering::Relaxed));
                MINE.set(Some(mine));
                mine % cores
            }
        }
    }
}

impl fmt::Display for EndpointRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri())
    }
}

impl fmt::Debug for EndpointRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EndpointRef({self}")?;
        self.key.iter().try_for_each(|key| write!(f, ", key {key}"))?;
        f.write_str(")")
    }
}

/// Refs and asks go anywhere; a change that broke this would break users.
const _: () = {
    const fn anywhere<T: Send + Sync>() {}
    const fn any_thread<T: Send>() {}
    const fn check<M: Message>() {
        anywhere::<EndpointRef>();
        any_thread::<Asking<M::Reply>>();
    }
    check::<crate::dispatch::verifier::Lookup>();
};

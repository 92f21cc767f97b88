//! What the cores of one env share: nothing that a message touches, apart from the doors to each other.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError, RwLock, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use super::config::Config;
use super::counters::{Published, Snapshot};
use super::current;
use super::ended::Ended;
use super::isolated::Isolated;
use super::lanes::{Head, LaneEnds};
use super::placement::HandedOver;
use super::resolver::{self, Found, Lookup, NameWaiter, Resolver};
use super::shard::Shard;
use super::socket_file::SocketFile;
use super::tokens::Tokens;
use crate::dispatch::directory::{Directory, Place};
use crate::executor::key::WakeKey;
use crate::executor::waker::RemoteWake;
use crate::mesh::injector::{Injector, PushError};
use crate::mesh::lane::LaneReceiver;
use crate::mesh::park::{ParkFlag, WakeClaim};
use crate::net::node_ids;
use crate::net::peer::{NameClass, Peers};
use crate::net::ref_policy::RefPolicy;
use crate::net::roster::{Memory, Roster};
use crate::ring::{Capabilities, RingWaker};
use crate::wire::frame::EndpointId;

/// Something to be done on a core.
pub type Job = Box<dyn FnOnce(&Rc<Shard>) + Send>;

/// What other threads hand to a core.
pub enum Injected {
    /// Do this.
    Job(Job),
    /// Wake this task or endpoint.
    Wake(WakeKey),
    /// Here is the lane of another core.
    Lane(LaneReceiver<Head>, Arc<LaneEnds>),
    /// Here is a connection that another core has accepted. Their number is bounded by the core's connections.
    Connection(HandedOver),
}

/// The door to one core.
pub struct CoreDoor {
    /// Jobs from threads that are no core.
    pub injector: Injector<Injected>,
    /// Whether the core sleeps.
    pub park: ParkFlag,
    /// Wakes the core's ring; set once the ring exists.
    pub waker: OnceLock<RingWaker>,
    /// Jobs that were refused since too much waited.
    pub refused: AtomicU64,
    /// Asks and sends that wait for room.
    pub waiting: AtomicUsize,
    /// Those that could not wait, since too many did.
    pub waiting_refused: AtomicU64,
    /// Wakes the task that drives the core, where it shares its thread: cheaper from there than the ring.
    pub host: OnceLock<Waker>,
    /// The core's counters.
    pub published: Published,
    /// Endpoints placed here.
    pub placed: AtomicUsize,
    /// Connections of the core, those on their way to it included.
    pub connections: AtomicUsize,
    /// Its endpoints that want to be told of connections.
    pub listeners: AtomicUsize,
    /// Whether the core's thread serves it; of a real core, that it does or is about to.
    pub(super) runs: AtomicBool,
    /// How far the core is with the shutdown, as an [`Ending`].
    pub(super) ending: AtomicU8,
}

/// How far a core is with the shutdown. Each step waits until all cores have made the one before: what the last handler
/// of one core answers may leave over a connection of another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Ending {
    /// It has endpoints that have not ended.
    Draining = 0,
    /// Its endpoints have ended, and their answers are in the lanes or in its connections.
    Quiet = 1,
    /// Nothing is left in the lanes to it and in its connections.
    Clear = 2,
}

impl CoreDoor {
    /// Hands a job in and wakes the core if it sleeps. Drops the job if the core has ended or too much waits: a job's
    /// size is that of what it has captured, a message included.
    pub fn inject(&self, job: Job) -> Result<(), Refused> {
        let size = size_of_val(&*job);
        let refused = match self.injector.push(Injected::Job(job), size) {
            Ok(()) => {
                self.wake();
                return Ok(());
            }
            Err(PushError::Closed(_)) => return Err(Refused::Ended),
            Err(PushError::Full(_)) => Refused::Full("await answers first, or raise Config::injected"),
            Err(PushError::TooManyBytes(_)) => Refused::Full("await answers first, or raise Config::injected_bytes"),
        };
        self.refused.fetch_add(1, Ordering::Relaxed);
        Err(refused)
    }

    /// Hands something in whose number is bounded elsewhere: wakes by the tasks, lanes by the cores, ends of asks by
    /// the asks, connections by `Config::connections`. Nothing happens if the core has ended.
    pub fn inject_always(&self, item: Injected) {
        if self.injector.push_unbounded(item).is_ok() {
            self.wake();
        }
    }

    /// Wakes the core if it sleeps.
    pub(super) fn wake(&self) {
        if let Some(claim) = self.park.claim_wake() {
            self.issue(claim);
        }
    }

    /// A wake that was claimed and went with a ring's requests has failed: makes it by a system call of its own.
    #[cold]
    pub(super) fn wake_after_failure(&self) {
        self.issue(self.park.reclaim());
    }

    fn issue(&self, claim: WakeClaim<'_>) {
        if let Some(host) = self.host.get() {
            host.wake_by_ref();
        } else if let Some(waker) = self.waker.get()
            && let Err(error) = waker.wake()
            // Nobody is left to be woken.
            && error.raw_os_error() != Some(libc::EOWNERDEAD)
        {
            // The claim goes back: the next sender tries again.
            return tracing::error!(target: "ringpost::core", %error, "a core could not be woken");
        }
        claim.issued();
    }
}

/// Why a core did not take a job.
#[derive(Debug)]
pub enum Refused {
    /// The core has ended.
    Ended,
    /// Too much waits for it; what can be done about that.
    Full(&'static str),
}

struct WakeDoor(Weak<Node>, u16);

impl RemoteWake for WakeDoor {
    fn wake(&self, key: WakeKey) {
        if let Some(node) = self.0.upgrade() {
            node.cores[usize::from(self.1)].inject_always(Injected::Wake(key));
        }
    }
}

/// One env, as its cores see it.
pub struct Node {
    /// Unique in this process.
    pub id: u64,
    /// The env's name.
    pub name: String,
    /// Its limits.
    pub config: Config,
    /// What the kernel offers to it.
    pub capabilities: Capabilities,
    /// Tells two runs of a node apart.
    pub incarnation: u64,
    /// By what it proves that it is itself.
    pub(super) tokens: Tokens,
    /// Where the node listens, in the words that peers use; empty in client mode.
    pub advertised: OnceLock<String>,
    /// Its endpoints' names.
    pub directory: Arc<Directory>,
    /// Who is connected to it.
    pub roster: Roster,
    /// Its peers.
    pub peers: Arc<Peers>,
    /// Which addresses peers may tell.
    pub ref_policy: RefPolicy,
    /// For names that the env's own user gave.
    own_names: Resolver,
    /// For names that peers told.
    told_names: Resolver,
    /// The doors to its cores: the real ones, then the isolated ones.
    pub cores: Vec<CoreDoor>,
    /// How many of them are real.
    pub(super) real: u16,
    /// The threads of the others.
    pub isolated: Isolated,
    /// No further work is taken.
    pub closing: AtomicBool,
    /// The deadline of the shutdown has passed, and what was left has been told.
    pub(super) ended_hard: AtomicBool,
    /// The file of its Unix socket, until all cores have ended.
    file: Mutex<Option<SocketFile>>,
    /// The cores whose threads have ended.
    pub ended: Ended,
}

/// How a node finds others.
pub struct Reach {
    /// Which addresses peers may tell.
    pub ref_policy: RefPolicy,
    /// How host names are resolved.
    pub lookup: Lookup,
}

impl Default for Reach {
    fn default() -> Reach {
        Reach { ref_policy: RefPolicy::default(), lookup: resolver::system() }
    }
}

static NODES: LazyLock<RwLock<HashMap<u64, Weak<Node>>>> = LazyLock::new(RwLock::default);

impl Node {
    /// A node with `cores` cores that have not started, and as many isolated ones as `config` allows.
    pub fn new(name: String, config: Config, cores: u16, capabilities: Capabilities) -> Arc<Node> {
        Node::reaching(name, config, cores, capabilities, Reach::default())
    }

    /// Such a node that finds others in this way.
    pub fn reaching(name: String, config: Config, cores: u16, capabilities: Capabilities, reach: Reach) -> Arc<Node> {
        static ID: AtomicU64 = AtomicU64::new(1);
        let id = ID.fetch_add(1, Ordering::Relaxed);
        let node = Arc::new_cyclic(|node: &Weak<Node>| {
            let weak = node.clone();
            let isolated = config.isolated;
            let resolver = |class| {
                let node = node.clone();
                Resolver::new(&config, reach.lookup.clone(), now, move |waiter, found| {
                    if let Some(node) = node.upgrade() {
                        node.tell_found(class, waiter, found);
                    }
                })
            };
            let door = |core| CoreDoor {
                injector: Injector::new(config.injected, config.injected_bytes),
                park: ParkFlag::default(),
                waker: OnceLock::new(),
                refused: AtomicU64::new(0),
                waiting: AtomicUsize::new(0),
                waiting_refused: AtomicU64::new(0),
                host: OnceLock::new(),
                published: Published::default(),
                placed: AtomicUsize::new(0),
                listeners: AtomicUsize::new(0),
                connections: AtomicUsize::new(0),
                runs: AtomicBool::new(core < cores),
                // A core without a thread holds up nobody's end.
                ending: AtomicU8::new(if core < cores { Ending::Draining } else { Ending::Clear } as u8),
            };
            Node {
                id,
                name,
                capabilities,
                incarnation: node_ids::chosen(random()),
                advertised: OnceLock::new(),
                directory: Arc::default(),
                roster: Roster::new(
                    cores,
                    config.connections,
                    Memory { nodes: config.absent_nodes, time: config.absent_for },
                ),
                tokens: Tokens::new(),
                peers: Peers::new(move |hold, serial| {
                    if let Some(node) = weak.upgrade() {
                        let hold = hold.clone();
                        node.on_real_cores(move |shard| shard.forget_peer(&hold, serial));
                    }
                }),
                ref_policy: reach.ref_policy,
                own_names: resolver(NameClass::Own),
                told_names: resolver(NameClass::Told),
                cores: (0..cores + isolated).map(door).collect(),
                real: cores,
                isolated: Isolated::new(),
                closing: AtomicBool::new(false),
                ended_hard: AtomicBool::new(false),
                file: Mutex::default(),
                ended: Ended::new(cores.into()),
                config,
            }
        });
        NODES.write().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::downgrade(&node));
        node
    }

    /// The node with this id, if it still exists. A lock and a hash: not for the path of a message.
    pub fn by_id(id: u64) -> Option<Arc<Node>> {
        NODES.read().unwrap_or_else(PoisonError::into_inner).get(&id)?.upgrade()
    }

    /// What resolves names of this class.
    pub fn resolver(&self, class: NameClass) -> &Resolver {
        match class {
            NameClass::Own => &self.own_names,
            NameClass::Told => &self.told_names,
        }
    }

    /// Tells an outbox what became of its host name.
    pub fn tell_found(&self, class: NameClass, waiter: NameWaiter, found: Found) {
        let job = move |shard: &Rc<Shard>| shard.on_resolved(class, waiter, found);
        self.cores[usize::from(waiter.core)].inject_always(Injected::Job(Box::new(job)));
    }

    /// What wakes tasks of this core from other threads.
    pub fn remote_wake(self: &Arc<Node>, core: u16) -> Arc<dyn RemoteWake> {
        Arc::new(WakeDoor(Arc::downgrade(self), core))
    }

    /// Has every core that runs do something, whatever else waits there; an isolated one too.
    pub fn on_every_core(&self, job: impl Fn(&Rc<Shard>) + Clone + Send + 'static) {
        for door in self.cores.iter().filter(|door| door.runs.load(Ordering::SeqCst)) {
            door.inject_always(Injected::Job(Box::new(job.clone())));
        }
    }

    /// Has every core do something that can have connections.
    pub fn on_real_cores(&self, job: impl Fn(&Rc<Shard>) + Clone + Send + 'static) {
        for door in &self.cores[..usize::from(self.real)] {
            door.inject_always(Injected::Job(Box::new(job.clone())));
        }
    }

    /// Stops every instance of an endpoint and frees its name; false if it had none, having been stopped before, by the
    /// shutdown of the env too.
    pub fn stop(&self, id: EndpointId) -> bool {
        // At once where that can be: who hears of the stop from a handler on this core finds the endpoint closed.
        if let Some(shard) = current::get().filter(|shard| std::ptr::eq(&*shard.node, self)) {
            shard.queue_early();
            shard.dispatcher.stop(id);
        }
        let known = !self.closing.load(Ordering::SeqCst) && self.directory.unname(id);
        if known {
            self.stop_instances(id);
        }
        known
    }

    /// Stops every instance of an endpoint whose name is free already.
    pub fn stop_instances(&self, id: EndpointId) {
        let stop = move |shard: &Rc<Shard>| {
            // Long ago, if this core has stood still since.
            shard.deliver_arrived();
            shard.dispatcher.stop(id);
        };
        match self.directory.instance(id) {
            Some((_, Place::Core(core))) => {
                self.cores[usize::from(core)].inject_always(Injected::Job(Box::new(stop)));
            }
            Some((_, Place::EveryCore)) => self.on_real_cores(stop),
            // All of them have ended.
            None => {}
        }
    }

    /// An endpoint that counted for this core is not there, or not any more.
    pub fn unplace(&self, core: u16) {
        self.cores[usize::from(core)].placed.fetch_sub(1, Ordering::Release);
    }

    /// Begins the shutdown, once: no further work is taken, endpoints drain, and whatever has not ended by the
    /// deadline is given up.
    pub fn shutdown(&self, deadline: Duration) {
        if !self.closing.swap(true, Ordering::SeqCst) {
            let until = now().saturating_add(u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX));
            self.isolated.give_up_at(until);
            self.on_every_core(move |shard| shard.begin_shutdown(until));
        }
    }

    /// A core has come this far with the shutdown. The last one wakes the others.
    pub fn reach(&self, core: u16, ending: Ending) {
        let before = self.cores[usize::from(core)].ending.fetch_max(ending as u8, Ordering::SeqCst);
        // Whoever ends at once has made both steps.
        let made = [Ending::Quiet, Ending::Clear].into_iter().filter(|step| before < *step as u8 && *step <= ending);
        if made.into_iter().any(|step| self.all_reached(step)) {
            self.on_every_core(|_| ());
        }
    }

    /// Whether all cores have come this far.
    pub fn all_reached(&self, ending: Ending) -> bool {
        self.cores.iter().all(|door| door.ending.load(Ordering::SeqCst) >= ending as u8)
    }

    /// Keeps the file of the Unix socket that the env listens on, and drops the one that it had.
    pub fn keep_file(&self, file: Option<SocketFile>) {
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
    }

    /// A core's thread has ended. The last one takes the file of the Unix socket away before anybody is told.
    pub fn core_ended(&self) {
        self.ended.add_one(|| {
            self.keep_file(None);
            [&self.own_names, &self.told_names].into_iter().for_each(Resolver::close);
        });
    }

    /// The published counters of all cores.
    pub fn snapshot(&self) -> Snapshot {
        let read = |door: &CoreDoor| {
            let mut core = door.published.read();
            core.overloaded_injector = door.refused.load(Ordering::Relaxed);
            core.overloaded_waiting = door.waiting_refused.load(Ordering::Relaxed);
            core.waiting = door.waiting.load(Ordering::Relaxed) as u64;
            core
        };
        let (real, isolated) = self.cores.split_at(usize::from(self.real));
        let running = isolated.iter().filter(|door| door.runs.load(Ordering::Relaxed));
        Snapshot { cores: real.iter().map(read).collect(), isolated: running.map(read).collect() }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        NODES.write().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// Nanoseconds since the first call in this process; the clock of all cores and deadlines.
#[inline]
pub fn now() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_nanos() as u64
}

/// A random number, good enough to tell runs apart and to spread retries; the standard library's hasher keys are
/// seeded by the operating system.
pub fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.write_u64(now());
    hasher.finish()
}

//! All of a core but its ring.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use super::answers::Home;
use super::ask::nanoseconds;
use super::counters::CoreSnapshot;
use super::early::EarlyAsk;
use super::lanes::Lanes;
use super::losses::Losses;
use super::node::{CoreDoor, Job, Node, now};
use super::sleep::Sleepers;
use super::timeouts::Timer;
use super::warnings::Warnings;
use crate::dispatch::dispatcher::{DispatchStats, Dispatcher};
use crate::dispatch::inbox::InboxLimits;
use crate::dispatch::reply_path::{ReplyPath, refuse};
use crate::executor::tasks::Executor;
use crate::executor::timers::TimerWheel;
use crate::net::connection::{Connections, End, Phase};
use crate::net::connection_id::ConnectionId;
use crate::net::errors::AskError;
use crate::net::node_ids::NOBODY;
use crate::net::outbox::Outbox;
use crate::net::pending::Pending;
use crate::net::ref_policy::Verdict;
use crate::net::remote::DialTo;
use crate::net::roster::{Forgotten, Peer};
use crate::net::writer::Spares;
use crate::ring::stack_floor;
use crate::wire::failure::{FailureCode, panicked_with};
use crate::wire::told::{Teller, Told, teller};

/// What the core is to do with its ring at the end of the turn.
#[derive(Debug)]
pub enum Action {
    /// Connect to this peer.
    Dial {
        /// Index of the peer's outbox.
        peer: u32,
        /// Where to.
        to: DialTo,
    },
    /// Receive.
    Receive(ConnectionId),
    /// Stop receiving.
    Pause(ConnectionId),
    /// Handle what was held back, and receive again.
    Resume(ConnectionId),
    /// Close.
    Close(ConnectionId),
    /// Give the socket back.
    Detach(ConnectionId),
    /// Close the listener.
    StopListening,
}

/// All of a core but its ring: what tasks, handlers and asks on the core's thread work with.
///
/// Everything is behind a `Cell` or a `RefCell` that is borrowed for a few lines at a time and never while a
/// handler, a task or a waker runs, so any of them may come back in here.
///
/// What needs the ring is left in `actions` and `dirty` for the core.
pub struct Shard {
    /// The env.
    pub node: Arc<Node>,
    /// Number of this core.
    pub core: u16,
    /// The env's id if what is sent on this core's thread starts here. None, 0, on an isolated core: what is sent there
    /// enters through a real core, since it must not wait for the end of a turn that may block.
    pub sends_for: u64,
    /// Tasks.
    pub executor: Rc<Executor>,
    /// Endpoints.
    pub dispatcher: Dispatcher,
    /// Asks that wait for their answer.
    pub pending: RefCell<Pending>,
    /// Connections.
    pub connections: RefCell<Connections>,
    /// Outboxes by peer index.
    pub outboxes: RefCell<Vec<Option<Outbox>>>,
    /// Spare buffers.
    pub spares: Rc<RefCell<Spares>>,
    /// For a frame that is cut by the end of a receive buffer.
    pub reassembly: Cell<Vec<u8>>,
    /// Lanes to and from other cores.
    pub lanes: RefCell<Lanes>,
    /// Timers.
    pub timers: RefCell<TimerWheel>,
    /// Tasks that sleep.
    pub sleepers: RefCell<Sleepers>,
    /// For the core, at the end of the turn.
    pub actions: RefCell<Vec<Action>>,
    /// A connection was closed, or much waits for a peer: who reads looks whether that is its own.
    pub(super) stirred: Cell<bool>,
    /// What connections that have ended leave to be ended.
    pub(super) losses: Losses,
    /// Connections with something to send.
    pub dirty: RefCell<Vec<ConnectionId>>,
    /// The message that waits for its asker.
    pub(super) early: EarlyAsk,
    /// Leads repliers back here.
    pub(super) home: Arc<Home>,
    /// The counters of this core; of other floors as they were gathered last.
    pub counters: RefCell<CoreSnapshot>,
    /// What was gathered last of counters that grow here as well: those of the dispatcher, and late replies.
    gathered: Cell<(DispatchStats, u64)>,
    /// When the shutdown gives up waiting, once it has begun.
    pub closing: Cell<Option<u64>>,
    /// `Config::ask_timeout` in nanoseconds.
    pub(super) ask_timeout_ns: u64,
    pub(super) clock: Cell<u64>,
    /// The time when the turn began, or a wait ended.
    pub(super) attended: Cell<u64>,
    pub(super) warnings: Warnings,
}

impl Shard {
    /// A core without endpoints and connections.
    pub fn new(node: Arc<Node>, core: u16, executor: Rc<Executor>) -> Shard {
        let limits = InboxLimits { messages: node.config.inbox_messages, bytes: node.config.inbox_bytes };
        let clock = now();
        let spares = Rc::<RefCell<Spares>>::default();
        let one_way = node.config.one_way_limit();
        let dispatcher = Dispatcher::new(
            executor.clone(),
            limits,
            node.config.decode_limits(stack_floor()),
            node.config.deferred,
            one_way,
            spares.clone(),
        );
        Shard {
            core,
            sends_for: if node.is_isolated(core) { 0 } else { node.id },
            executor,
            pending: RefCell::new(Pending::new(node.config.pending_asks)),
            connections: RefCell::default(),
            outboxes: RefCell::default(),
            spares,
            reassembly: Cell::default(),
            lanes: RefCell::new(Lanes::new(node.cores.len())),
            timers: RefCell::new(TimerWheel::new(clock)),
            sleepers: RefCell::default(),
            actions: RefCell::default(),
            stirred: Cell::new(false),
            losses: Losses::default(),
            dirty: RefCell::default(),
            early: EarlyAsk::default(),
            home: Arc::new(Home { node: node.clone(), core }),
            counters: RefCell::default(),
            gathered: Cell::default(),
            closing: Cell::new(None),
            ask_timeout_ns: nanoseconds(node.config.ask_timeout),
            clock: Cell::new(clock),
            attended: Cell::new(clock),
            warnings: Warnings::new(&dispatcher.rate_limits),
            dispatcher,
            node,
        }
    }

    /// This core's own door.
    #[inline]
    pub fn door(&self) -> &CoreDoor {
        &self.node.cores[usize::from(self.core)]
    }

    /// Counts something.
    #[inline]
    pub fn count(&self, change: impl FnOnce(&mut CoreSnapshot)) {
        change(&mut self.counters.borrow_mut());
    }

    /// Counts a ref to an address that its teller must not tell, and warns of it, once a second at most.
    pub(super) fn note_forbidden(&self, address: &str, teller: Option<&Peer>) {
        self.count(|counters| counters.refs_forbidden += 1);
        if let Some(untold) = self.warnings.refs_forbidden.allow(self.clock()) {
            let policy = self.node.ref_policy.name();
            let total = self.counters.borrow().refs_forbidden;
            let peer = teller.map_or_else(|| "a peer that is not known any more".into(), Peer::to_string);
            tracing::warn!(target: "ringpost::connection", address, peer = %peer, policy, total, untold, "a ref that was told is not used: see Builder::ref_policy");
        }
    }

    /// Whether a ref to `address` may be used that was told by whose message, reply or error is being decoded. The peer
    /// is not known if it has gone, if it told an error, or if a user's own code decodes.
    pub fn judge_told(&self, address: &str) -> Verdict {
        let (peer, near) = match teller() {
            Some(Teller::Error { told: Told::Own, .. }) => return Verdict::Allowed { inward: true },
            Some(Teller::Error { told, .. }) => (None, told == Told::Near),
            Some(Teller::Peer { core, connection, near }) => {
                let connection = ConnectionId::from_bits(connection);
                (ReplyPath::peer(self, core.unwrap_or(self.core), connection), near)
            }
            None => (None, false),
        };
        let verdict = self.node.ref_policy.judge(address, peer.as_ref(), near);
        if verdict == Verdict::Forbidden {
            self.note_forbidden(address, peer.as_ref());
        }
        verdict
    }

    /// The id that the node has here whose id was told by whose message, reply or error is being decoded: what a node
    /// calls itself means that node, whoever else has the id here.
    pub fn meant(&self, id: u64) -> u64 {
        let alias = match teller() {
            Some(Teller::Error { alias, .. }) => Ok(alias),
            Some(Teller::Peer { core, connection, .. }) => {
                self.node.roster.alias_of(core.unwrap_or(self.core), ConnectionId::from_bits(connection))
            }
            None => Ok(None),
        };
        match alias {
            Ok(Some(alias)) if alias.id == id => alias.means.unwrap_or(self.node.incarnation),
            Ok(_) => id,
            Err(Forgotten) => NOBODY,
        }
    }

    /// Notes something for the core to do at the end of the turn.
    pub fn act(&self, action: Action) {
        self.actions.borrow_mut().push(action);
    }

    /// The time at the beginning of the turn.
    #[inline]
    pub fn clock(&self) -> u64 {
        self.clock.get()
    }

    /// Runs what another thread handed in. A job brings user code along, such as the drop of a message: its panic is
    /// the job's alone.
    pub fn run_job(self: &Rc<Self>, job: Job) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| job(self))) {
            tracing::error!(target: "ringpost::core", core = self.core, panic = panicked_with(panic), "a job from another thread panicked");
        }
    }

    /// Begins to end: no more connections, every endpoint drains.
    pub fn begin_shutdown(self: &Rc<Self>, until: u64) {
        if self.closing.get().is_none() {
            self.queue_early();
            self.deliver_arrived();
            self.closing.set(Some(until));
            self.timers.borrow_mut().arm(until, Timer::Tick.pack());
            self.act(Action::StopListening);
            self.dispatcher.stop_all();
        }
    }

    /// Whether no handler runs any more: no endpoint is left, no replier owes an answer, and what they sent is in the
    /// lanes.
    pub fn is_quiet(&self) -> bool {
        self.dispatcher.live() == 0 && self.dispatcher.deferrals().is_empty() && self.lanes.borrow().is_clear()
    }

    /// Answers in the stead of the repliers that are left when the time for the shutdown is up.
    pub fn settle_deferred(self: &Rc<Self>) {
        for deferred in self.dispatcher.deferrals().end_all() {
            refuse(deferred.call(), &self.path(), FailureCode::Stopped, "");
        }
    }

    /// Whether nothing is left to send to a peer.
    pub fn is_clear(&self) -> bool {
        self.connections.borrow().iter().all(|c| c.phase != Phase::Open || c.writer.backlog() == 0)
    }

    /// Ends what is left: asks fail, tasks and endpoints are dropped, connections close.
    pub fn end(&self) {
        // With the errors that they were lost with.
        self.end_all_losses();
        let name = self.node.name.clone();
        self.fail_all(&AskError::Stopped { target: name.as_str().into() });
        self.dispatcher.abandon();
        self.executor.clear();
        let open: Vec<_> = self.connections.borrow().iter().map(|connection| connection.id).collect();
        open.into_iter().for_each(|id| self.close(id, "this env has shut down", End::Wanted));
        // What other threads still hand in is dropped, which tells them.
        drop(self.door().injector.close());
        self.tell_all_suppressed();
    }

    /// Brings in the counters of all floors that live in here.
    pub(super) fn gather_counters(&self) {
        let mut all = self.counters.borrow_mut();
        let (dispatch, deferrals) = (self.dispatcher.stats(), self.dispatcher.deferrals());
        // Those that this floor counts as well grow by what is new.
        let (late, before) = (deferrals.late(), self.gathered.replace((dispatch, deferrals.late())));
        all.tasks_refused += dispatch.no_task - before.0.no_task;
        all.events_lost += dispatch.events_lost - before.0.events_lost;
        all.cancelled += dispatch.cancelled - before.0.cancelled;
        all.unknown_endpoint += dispatch.unknown - before.0.unknown;
        all.replies_late += late - before.1;
        all.handled = dispatch.handled;
        all.unknown_messages = dispatch.unhandled;
        all.undecodable_messages = dispatch.undecodable;
        all.one_way_timeouts = dispatch.one_way_overdue;
        all.overloaded_inbox = dispatch.overloaded;
        all.overloaded_deferred = deferrals.refused();
        all.expired = dispatch.expired;
        all.deferred = deferrals.len() as u64;
        all.connections = self.connections.borrow().len() as u64;
        all.pending_asks = self.pending.borrow().len() as u64;
        all.endpoints = self.dispatcher.live() as u64;
        all.inbox_messages = self.dispatcher.queued() as u64;
        all.tasks = self.executor.live() as u64;
        all.timers = self.timers.borrow().len() as u64;
    }
}

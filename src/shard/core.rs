//! The turn: what a core does, over and over.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use super::connections::Outgoing;
use super::early::EARLY_PER_TURN;
use super::ending::EndingProgress;
use super::node::Injected;
use super::placement::HandedOver;
use super::probes::Probes;
use super::received::{BYTES_PER_TURN, Backlog};
use super::shard::{Action, Shard};
use super::timeouts::Timer;
use crate::dispatch::reply_path::ReplyPath;
use crate::executor::idle::{Idle, IdleState, SpinFor};
use crate::executor::tasks::{Polled, Ready};
use crate::net::connection::End;
use crate::net::connection_id::ConnectionId;
use crate::net::remote::{DialTo, Remote};
use crate::ring::{Completion, RecvEnd, Ring, SockAddr, SocketId};

/// Ready tasks and endpoints that are run in one turn.
const READY_PER_TURN: usize = 1024;
/// Ready tasks and endpoints that are run in one turn however few they are.
const READY_AT_LEAST: usize = 32;
/// Messages that one endpoint handles before the next one has its turn.
const MESSAGES_PER_ENDPOINT: usize = 64;
/// Messages that are taken from one lane in a turn.
const MESSAGES_PER_LANE: usize = 256;
/// Connections that are begun in one turn: each takes tens of microseconds, and a peer may tell of thousands of addresses
/// at once.
const DIALS_PER_TURN: usize = 16;
/// Pause before accepting again after the system refused a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is more to do: the next step is due.
    Busy,
    /// Nothing is left to do until something arrives.
    Idle,
    /// The env has shut down.
    Ended,
}

/// A core: its ring, and the loop that drives everything on it.
///
/// A turn collects what has arrived from the ring, the lanes and other threads, runs tasks and endpoints up to a
/// budget, fires timers, and then sends what has gathered: one send for each connection, one wake-up for each core
/// that sleeps, all submitted with one system call; a single send goes without the ring. Reactions only ever note what is
/// to be sent.
pub struct Core {
    pub(super) ring: Ring,
    pub(super) shard: Rc<Shard>,
    path: Rc<dyn ReplyPath>,
    listener: Option<SocketId>,
    pub(super) idle: IdleState,
    /// Shares its thread with others.
    pub(super) hosted: bool,
    /// Since when nothing has happened.
    pub(super) resting: Option<u64>,
    /// The clock was read while there was nothing to do, so that the next turn need not.
    pub(super) knows_time: bool,
    /// A host waits for events.
    pub(super) is_waited_for: bool,
    /// Each message may block an isolated core: it looks at the clock and at what was cancelled before the next.
    messages_per_endpoint: usize,
    /// What has come and is not handled yet.
    pub(super) completions: Vec<Completion>,
    /// What has come and is beyond the turn's budget.
    pub(super) backlog: Backlog,
    /// Completions whose bytes are within the budget, whatever they are.
    within_budget: usize,
    pub(super) probes: Probes,
    injected: VecDeque<Injected>,
    fired: Vec<u64>,
    pub(super) ending: EndingProgress,
}

impl Core {
    /// A core that serves `shard` with `ring`, and listens if it is given a listening socket. Made and run on the
    /// core's own thread.
    pub fn new(mut ring: Ring, shard: Rc<Shard>, listener: Option<OwnedFd>) -> Core {
        let listener = listener.map(|socket| ring.adopt(socket));
        if let Some(listener) = listener {
            ring.accept(listener);
        }
        let isolated = shard.node.is_isolated(shard.core);
        Core {
            path: shard.path(),
            idle: IdleState::new(if isolated { Idle::Park } else { shard.node.config.idle }),
            hosted: false,
            resting: None,
            knows_time: false,
            is_waited_for: false,
            messages_per_endpoint: if isolated { 1 } else { MESSAGES_PER_ENDPOINT },
            within_budget: BYTES_PER_TURN / shard.node.config.receive_buffer_bytes as usize,
            ring,
            shard,
            listener,
            completions: Vec::with_capacity(256),
            backlog: Backlog::default(),
            probes: Probes::default(),
            injected: VecDeque::new(),
            fired: Vec::new(),
            ending: EndingProgress::new(),
        }
    }

    /// One turn with its sends. Whoever drives the core calls this over and over, with the core
    /// [entered](super::current::enter), and not again after an end.
    ///
    /// # Errors
    /// The kernel refuses to serve the ring: the core cannot go on.
    #[inline]
    pub fn step(&mut self) -> io::Result<Step> {
        debug_assert!(!self.shard.owes_wakes(), "user code that blocks would keep them");
        let happened = self.turn();
        if self.has_ended() {
            self.end()?;
            return Ok(Step::Ended);
        }
        let more = self.flush() || self.shard.executor.ready_len() > 0 || !self.shard.losses.is_empty();
        let busy = more || !self.backlog.is_empty() || self.owes_ending();
        self.shard.tell_suppressed_later();
        // What is to be sent leaves before the bookkeeping. A core that is about to sleep sends as it does.
        if busy || !matches!(self.idle.spin_for(), SpinFor::No) {
            self.submit()?;
        }
        if happened {
            self.shard.count(|counters| counters.turns += 1);
            self.publish();
            if let Some(began) = self.resting.take() {
                self.idle.learn(self.shard.clock().saturating_sub(began));
            }
        } else if busy {
            // A full lane: its core may want this CPU.
            std::thread::yield_now();
        }
        Ok(if busy { Step::Busy } else { Step::Idle })
    }

    /// One turn without its sends; true if anything happened.
    fn turn(&mut self) -> bool {
        if !std::mem::take(&mut self.knows_time) {
            self.shard.tick();
        }
        let mut happened = self.shard.end_losses();
        happened |= self.take_completions();
        happened |= self.take_injected();
        happened |= self.take_lanes();
        happened |= self.run_ready();
        happened |= self.fire_timers();
        self.shard.release_ended();
        happened
    }

    fn take_completions(&mut self) -> bool {
        // A spin that has found something has looked.
        if self.completions.is_empty() {
            self.probes.look(&mut self.ring, &mut self.completions);
        }
        if self.completions.is_empty() && !self.ring.has_completions() && self.backlog.is_empty() {
            return false;
        }
        let mut completions = std::mem::take(&mut self.completions);
        self.ring.reap(&mut completions);
        let happened = !completions.is_empty() || !self.backlog.is_empty();
        if completions.len() > self.within_budget || !self.backlog.is_empty() {
            self.share_out(&mut completions);
        } else {
            completions.drain(..).for_each(|completion| self.on_completion(completion));
        }
        self.completions = completions;
        happened
    }

    #[inline]
    pub(super) fn on_completion(&mut self, completion: Completion) {
        match completion {
            Completion::Received { socket, chunk } => {
                let len = chunk.len();
                self.shard.on_bytes(connection(socket), self.ring.bytes(&chunk), &self.path);
                self.ring.release(chunk);
                if self.may_probe() {
                    self.probes.received(&mut self.ring, socket, len);
                }
            }
            Completion::SentPart { socket } => self.shard.on_sent_part(connection(socket)),
            Completion::Sent { socket, buf, result } => {
                self.shard.on_sent(connection(socket), buf);
                if let Err(error) = result {
                    self.shard.close_in_turn(connection(socket), &error.to_string(), End::Failed);
                }
            }
            Completion::Eof { socket } => self.shard.on_end_of_stream(connection(socket)),
            Completion::RecvEnded { socket, reason: RecvEnd::Error(error) } => {
                self.shard.close_in_turn(connection(socket), &error.to_string(), End::Failed);
            }
            Completion::RecvEnded { .. } => {}
            Completion::Accepted { socket, .. } => self.on_accepted(socket),
            Completion::AcceptEnded { error, .. } => self.on_accept_ended(&error),
            Completion::Connected { socket, result } => match result {
                Ok(()) => self.shard.on_connected(connection(socket)),
                Err(error) => self.shard.close_in_turn(connection(socket), &not_connected(&error), End::Failed),
            },
            Completion::Closed { socket } => self.shard.on_closed(connection(socket)),
            Completion::Detached { socket, fd } => self.shard.on_detached(connection(socket), fd),
            Completion::Woken => {}
            Completion::WakeFailed { number } => self.shard.node.cores[usize::from(number)].wake_after_failure(),
        }
    }

    fn on_accept_ended(&mut self, error: &io::Error) {
        // The cores of an env share one Unix socket, so the first to close it in a shutdown ends it for all.
        if !self.shard.node.closing.load(Ordering::Relaxed) {
            tracing::warn!(target: "ringpost::connection", %error, "no connection can be accepted for now");
            self.shard.arm(ACCEPT_PAUSE, Timer::Accept);
        }
    }

    fn on_accepted(&mut self, socket: OwnedFd) {
        let shard = &self.shard;
        let core = shard.place();
        if shard.closing.get().is_some() || (core == shard.core && shard.has_all_connections()) {
            shard.count(|counters| counters.connections_refused += 1);
            return;
        }
        // A socket whose peer has gone already gives an error: then there is nothing to serve.
        let Ok(remote) = remote_of(&socket) else { return };
        shard.count(|counters| counters.accepted += 1);
        if core != shard.core {
            return shard.hand_over(core, socket, remote, None);
        }
        let id = self.ring.adopt(socket);
        shard.on_accepted(connection(id), remote);
    }

    /// Another core has accepted a connection for this one.
    fn on_handed_over(&mut self, HandedOver { socket, remote, hello }: HandedOver) {
        if self.shard.closing.get().is_some() {
            self.shard.leave_room();
            return self.shard.count(|counters| counters.connections_refused += 1);
        }
        let id = self.ring.adopt(socket);
        self.shard.on_handed_over(connection(id), remote, hello);
    }

    fn take_injected(&mut self) -> bool {
        let door = self.shard.door();
        if door.injector.is_empty() {
            return false;
        }
        door.injector.drain(&mut self.injected);
        self.shard.count(|counters| counters.injected += self.injected.len() as u64);
        while let Some(item) = self.injected.pop_front() {
            match item {
                Injected::Job(job) => self.shard.run_job(job),
                Injected::Wake(key) => self.shard.executor.wake(key),
                Injected::Lane(lane, ends) => self.shard.attach_lane(lane, ends),
                Injected::Connection(handed) => self.on_handed_over(handed),
            }
        }
        true
    }

    fn take_lanes(&mut self) -> bool {
        if self.shard.lanes.borrow().nothing_arrived() {
            return false;
        }
        self.shard.receive_lanes(MESSAGES_PER_LANE, &self.path);
        true
    }

    fn run_ready(&mut self) -> bool {
        let mut happened = false;
        // What the first half sends is on its way while the second half runs.
        let mut left = (self.shard.executor.ready_len() / 2).clamp(READY_AT_LEAST, READY_PER_TURN);
        self.shard.allow_early(EARLY_PER_TURN);
        while left > 0 {
            left -= 1;
            match self.shard.executor.pop() {
                Some(Ready::Task(key)) => {
                    let yielded = self.shard.executor.poll(key) == Polled::Yielded;
                    // One that wakes itself, or is answered as soon as it asks, lets everything else have its turn, the
                    // ring too: what is queued before it is all that still runs.
                    if yielded || self.shard.early_is_over() {
                        left = left.min(self.shard.executor.ready_len().saturating_sub(usize::from(yielded)));
                    }
                }
                Some(Ready::External(endpoint)) => {
                    self.shard.dispatcher.run(endpoint, self.messages_per_endpoint, &self.path);
                }
                None => break,
            }
            self.shard.queue_early();
            happened = true;
        }
        self.shard.allow_early(0);
        happened
    }

    fn fire_timers(&mut self) -> bool {
        self.shard.timers.borrow_mut().expire(self.shard.clock(), &mut self.fired);
        let happened = !self.fired.is_empty();
        if happened {
            self.handle_timers();
        }
        happened | self.shard.end_expired(&self.path)
    }

    #[cold]
    fn handle_timers(&mut self) {
        let mut fired = std::mem::take(&mut self.fired);
        for timer in fired.drain(..) {
            match Timer::unpack(timer) {
                Timer::Connection(id) => self.shard.on_connection_timer(id),
                Timer::Peer { peer, serial } => self.shard.on_peer_timer(peer, serial),
                Timer::Sleep(key) => self.shard.on_slept(key),
                Timer::Accept => {
                    if let Some(listener) = self.listener {
                        self.ring.accept(listener);
                    }
                }
                Timer::Summary => self.shard.tell_suppressed(),
                Timer::Tick => {}
            }
        }
        self.fired = fired;
    }

    /// Gives the ring what the turn has noted; true if a lane was full and wants another try. Whoever calls this wakes
    /// the receivers before any user code runs again.
    pub(super) fn flush(&mut self) -> bool {
        if !self.shard.actions.borrow().is_empty() {
            self.perform_all();
        }
        let may_probe = self.may_probe();
        // A single send is cheaper by itself than with an enter, unless that has more to do.
        let at_once = self.shard.sends_waiting() == 1 && !self.ring.wants_enter();
        while let Some(Outgoing { id, bytes, is_dialled }) = self.shard.next_send() {
            if is_dialled && may_probe {
                self.probes.asked(socket(id));
            }
            let sent = match at_once {
                true => self.ring.send_now(socket(id), bytes),
                false => self.ring.send(socket(id), bytes).map(|()| None),
            };
            match sent {
                Ok(Some(completion)) => self.on_sent_at_once(completion),
                Ok(None) => {}
                // The socket is being closed.
                Err(bytes) => self.shard.spares.borrow_mut().give(bytes),
            }
        }
        self.shard.flush_lanes() || !self.shard.actions.borrow().is_empty()
    }

    #[cold]
    fn perform_all(&mut self) {
        let mut actions = self.shard.actions.take();
        let (mut dials, mut later) = (0, Vec::new());
        for action in actions.drain(..) {
            dials += usize::from(matches!(action, Action::Dial { .. }));
            match action {
                Action::Dial { .. } if dials > DIALS_PER_TURN => later.push(action),
                action => self.perform(action),
            }
        }
        // What they caused in turn is kept in the buffer that has grown already.
        actions.append(&mut later);
        actions.append(&mut self.shard.actions.borrow_mut());
        self.shard.actions.replace(actions);
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Dial { peer, .. } if self.shard.has_all_connections() => self.shard.dial_refused(peer),
            Action::Dial { peer, to } => match open(&to) {
                Ok((fd, address)) => {
                    let id = self.ring.adopt(fd);
                    if self.shard.on_dialled(connection(id), peer, to.remote()) {
                        self.ring.connect(id, address);
                    } else {
                        self.ring.close(id);
                    }
                }
                Err(error) => self.shard.dial_failed(peer, &error.to_string()),
            },
            Action::Receive(id) => self.ring.recv(socket(id)),
            Action::Pause(id) => self.ring.stop_recv(socket(id)),
            Action::Resume(id) => {
                if self.shard.resume(id, &self.path) {
                    self.ring.recv(socket(id));
                }
            }
            Action::Close(id) => self.ring.close(socket(id)),
            Action::Detach(id) => self.ring.detach(socket(id)),
            Action::StopListening => {
                if let Some(listener) = self.listener.take() {
                    self.ring.close(listener);
                }
            }
        }
    }

    pub(super) fn publish(&mut self) {
        self.shard.gather_counters();
        let mut all = self.shard.counters.borrow_mut();
        let ring = self.ring.stats();
        all.enters = ring.enters;
        all.sqes = ring.sqes;
        all.direct_sends = ring.direct_sends;
        all.probes = ring.probes;
        all.cq_overflows = ring.cq_overflows;
        all.buffer_starvations = ring.buffer_starvations;
        all.rearms = ring.rearms;
        all.stale_completions = ring.stale_completions;
        all.short_sends = ring.short_sends;
        all.wakes_failed = ring.failed_wakes;
        all.sockets = self.ring.open_sockets() as u64;
        all.free_buffers = self.ring.free_buffers() as u64;
        self.shard.door().published.publish(&all);
    }
}

/// A socket that can connect to `to`, and where to in the kernel's words.
fn open(to: &DialTo) -> io::Result<(OwnedFd, SockAddr)> {
    let address = match to {
        DialTo::Tcp(address) => SockAddr::from(*address),
        DialTo::Unix(path) => SockAddr::unix(path).ok_or(io::ErrorKind::InvalidInput)?,
    };
    let socket = Socket::new(Domain::from(address.family()), Type::STREAM, None)?;
    if matches!(to, DialTo::Tcp(_)) {
        socket.set_tcp_nodelay(true)?;
    }
    Ok((socket.into(), address))
}

/// Why a socket could not connect, and what a user may look at.
#[cold]
fn not_connected(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => format!("{error}; is the server started there?"),
        _ => error.to_string(),
    }
}

/// The other end of a socket that was accepted, which is set to send small frames at once.
fn remote_of(socket: &OwnedFd) -> io::Result<Remote> {
    let options = SockRef::from(socket);
    match options.peer_addr()?.as_socket() {
        Some(address) => options.set_tcp_nodelay(true).map(|()| Remote::Tcp(address)),
        None => Ok(Remote::Unix),
    }
}

pub(super) fn connection(socket: SocketId) -> ConnectionId {
    ConnectionId { slot: socket.slot, generation: socket.generation }
}

fn socket(connection: ConnectionId) -> SocketId {
    SocketId { slot: connection.slot, generation: connection.generation }
}

//! Answers on their way back, whichever way their request came.

use std::any::Any;
use std::rc::Rc;
use std::sync::Arc;

use super::current;
use super::lanes::LaneItem;
use super::node::{Injected, Node, now};
use super::shard::Shard;
use crate::dispatch::call::{Call, NO_DEADLINE, Origin};
use crate::dispatch::deferred::Deferrals;
use crate::dispatch::notices::Faults;
use crate::dispatch::reply_path::{Answer, AtCore, Reply, ReplyPath, WayBack};
use crate::mesh::parcel::Parcel;
use crate::net::ask_cell::AskCell;
use crate::net::ask_key::AskKey;
use crate::net::asked::Via;
use crate::net::connection::{Connection, End, Phase};
use crate::net::connection_id::ConnectionId;
use crate::net::errors::AskError;
use crate::net::outbox::Outbox;
use crate::net::pending::{Forgotten, Notify};
use crate::net::roster::Peer;
use crate::wire::codec::Written;
use crate::wire::failure::{Failure, FailureCode};
use crate::wire::frame::{self, Draft, EndpointId, Resolved};

/// How long a peer may take nothing of what is in flight while too much waits behind it: 1 s.
const STUCK_NS: u64 = 1_000_000_000;

impl ReplyPath for Shard {
    #[inline]
    fn answer(&self, call: &Call, answer: Answer<'_>) {
        match call.origin {
            Origin::Peer(connection) => self.answer_peer(connection, call, answer),
            Origin::Here => match answer {
                Answer::Value(reply) => {
                    // One that nobody waits for any more stays with its handler, and is dropped there.
                    let notify = self.pending.borrow_mut().reply(AskKey(call.request), |into| reply.pack(into));
                    self.finish(notify);
                }
                Answer::Failure(failure) => self.fail(AskKey(call.request), &failure),
            },
            Origin::Core(core) => match answer {
                Answer::Value(reply) => self.lane_reply(core, call.request, reply),
                Answer::Failure(failure) => {
                    let failure = failure.to_owned();
                    self.lane_answer(core, LaneItem::Failure { request: call.request, failure });
                }
            },
            Origin::Passed { core, connection } => {
                let (frame, way_back) = self.answer_frame(call, answer);
                self.lane_answer(core, LaneItem::Frame { connection, request: call.request, frame, way_back });
            }
        }
    }

    fn gone(&self, origin: Origin, endpoint: EndpointId) {
        match origin {
            Origin::Here | Origin::Core(_) => {}
            Origin::Peer(connection) => {
                let mut bytes = self.spares.borrow_mut().take();
                frame::write_gone(&mut bytes, endpoint);
                self.send_frame(connection, 0, bytes, false);
            }
            Origin::Passed { core, connection } => {
                let mut frame = self.spares.borrow_mut().take();
                frame::write_gone(&mut frame, endpoint);
                self.lane_answer(core, LaneItem::Frame { connection, request: 0, frame, way_back: false });
            }
        }
    }

    #[inline]
    fn is_wanted(&self, call: &Call) -> bool {
        match call.origin {
            _ if call.request == 0 => true,
            Origin::Here => self.pending.borrow().is_waiting(AskKey(call.request)),
            Origin::Peer(id) => self.connections.borrow_mut().get(id).is_some_and(|c| c.phase == Phase::Open),
            Origin::Core(_) | Origin::Passed { .. } => true,
        }
    }

    fn peer(&self, core: u16, connection: ConnectionId) -> Option<Peer> {
        if core == self.core {
            return self.connections.borrow_mut().get(connection).and_then(|connection| connection.peer.clone());
        }
        self.node.roster.peer(core, connection)
    }

    #[inline]
    fn now(&self) -> u64 {
        self.clock()
    }

    fn exact_now(&self) -> u64 {
        now()
    }

    #[inline]
    fn core(&self) -> u16 {
        self.core
    }

    fn env_name(&self) -> &str {
        &self.node.name
    }

    fn endpoint_name(&self, endpoint: EndpointId) -> Arc<str> {
        self.node.directory.name(endpoint).unwrap_or_else(|| "an endpoint that has stopped".into())
    }

    fn faults(&self) -> &Faults {
        &self.dispatcher.faults
    }

    fn node(&self) -> Arc<dyn Any + Send + Sync> {
        self.node.clone()
    }

    fn stop(&self, endpoint: EndpointId) {
        self.node.stop(endpoint);
    }

    fn count_beyond_limits(&self) {
        self.count(|counters| counters.decode_refused += 1);
    }

    fn deferrals(&self) -> &Deferrals {
        self.dispatcher.deferrals()
    }

    fn way_back(&self) -> Arc<dyn WayBack> {
        self.home.clone()
    }
}

/// Leads back to a core.
pub(super) struct Home {
    pub(super) node: Arc<Node>,
    pub(super) core: u16,
}

impl WayBack for Home {
    fn here(&self) -> Option<Rc<dyn ReplyPath>> {
        let shard = current::get().filter(|shard| shard.core == self.core && shard.node.id == self.node.id)?;
        Some(shard)
    }

    fn send(&self, job: AtCore) {
        let job = move |shard: &Rc<Shard>| job(&**shard);
        self.node.cores[usize::from(self.core)].inject_always(Injected::Job(Box::new(job)));
    }

    fn now(&self) -> u64 {
        now()
    }

    fn core(&self) -> u16 {
        self.core
    }

    fn peer(&self, core: u16, connection: ConnectionId) -> Option<Peer> {
        self.node.roster.peer(core, connection)
    }
}

impl Shard {
    /// This shard as its handlers see it.
    #[inline]
    pub fn path(self: &Rc<Self>) -> Rc<dyn ReplyPath> {
        self.clone()
    }

    /// Ends an ask of this core. An ask that has ended before is left alone.
    #[inline]
    pub fn complete(&self, key: AskKey, answer: Result<Parcel, AskError>) {
        if !self.pending.borrow().is_waiting(key) {
            // The answer is dropped here, where no table is borrowed: its drop is the user's code.
            return self.count(|counters| counters.replies_late += 1);
        }
        let notify = self.pending.borrow_mut().complete(key, answer);
        self.finish(notify);
    }

    /// Does what is left to do for an ask that has just ended; nothing if it had ended before.
    #[inline]
    pub(super) fn finish(&self, notify: Option<Notify>) {
        let Some(notify) = notify else { return self.count(|counters| counters.replies_late += 1) };
        if let Some((core, request, answer)) = notify.wake() {
            self.answer_relayed(core, request, answer);
        }
    }

    /// Ends an ask with what its receiver said. From its deadline on, by the clock of this core, a failure is a timeout
    /// whatever it says: the handler's may come of the deadline itself, which its own asks inherit.
    pub fn fail(&self, key: AskKey, failure: &Failure<'_>) {
        if self.is_overdue(key) {
            self.time_out(key);
            return;
        }
        // The receiver's clock is ahead: this core's timer ends the ask in a moment.
        if failure.code == FailureCode::Expired {
            return;
        }
        let asked = {
            let pending = self.pending.borrow();
            pending.waiting(key).map(|asked| (asked.via, asked.kind))
        };
        let Some((via, kind)) = asked else {
            return self.count(|counters| counters.replies_late += 1);
        };
        let target = self.describe(&via);
        let error = match failure.code {
            FailureCode::UnknownMessage => AskError::UnknownMessage {
                target,
                message: format!("{} v{}: {}", kind.name, kind.version, failure.text).into(),
            },
            _ => AskError::from_failure(failure, target),
        };
        self.complete(key, Err(error));
    }

    /// Ends an ask with the answer that came through another core.
    pub(super) fn on_relayed(&self, key: AskKey, answer: Result<Parcel, AskError>) {
        if answer.is_err() && self.is_overdue(key) {
            self.time_out(key);
        } else {
            self.complete(key, answer);
        }
    }

    /// The endpoint that an ask went to, for people.
    pub fn describe(&self, via: &Via) -> Arc<str> {
        self.describe_by(via, Outbox::describe)
    }

    /// The same of an endpoint that has not answered in time, with what is known of why.
    pub(super) fn describe_unanswered(&self, via: &Via) -> Arc<str> {
        self.describe_by(via, Outbox::describe_unanswered)
    }

    fn describe_by(&self, via: &Via, describe: fn(&Outbox, u32) -> Arc<str>) -> Arc<str> {
        match *via {
            Via::Env { id, .. } => {
                let name = self.node.directory.name(id);
                let name = name.as_deref().unwrap_or("an endpoint that has stopped");
                match self.node.advertised.get() {
                    Some(address) => format!("{name}@{address}").into(),
                    None => format!("{name} in env {}", self.node.name).into(),
                }
            }
            Via::Peer { peer, name, .. } | Via::Relayed { peer, name, .. } => {
                let outboxes = self.outboxes.borrow();
                let outbox = outboxes.get(peer as usize).and_then(Option::as_ref);
                outbox.map_or_else(|| "a forgotten peer".into(), |outbox| describe(outbox, name))
            }
        }
    }

    fn answer_peer(&self, id: ConnectionId, call: &Call, answer: Answer<'_>) {
        let Call { request, resolved, .. } = *call;
        let mut connections = self.connections.borrow_mut();
        let Some(connection) = connections.get(id).filter(|c| c.phase == Phase::Open) else {
            return self.count(|counters| counters.replies_late += 1);
        };
        let limit = connection.peer_max_frame;
        let out = connection.writer.buffer(&mut self.spares.borrow_mut());
        let way_back = match answer {
            Answer::Value(reply) => match write_reply(out, request, resolved, reply, limit) {
                Outcome::Whole { way_back } => way_back,
                Outcome::TooLarge => {
                    self.count(|counters| counters.frames_too_large += 1);
                    false
                }
                Outcome::Unencodable => false,
            },
            Answer::Failure(failure) => {
                let failure = in_time(call, failure);
                frame::write_failure(out, request, resolved, &failure);
                failure.way_back()
            }
        };
        self.count(|counters| counters.replies_out += 1);
        if way_back {
            self.keep_way_back(connection.role);
        }
        self.mark_dirty(connection);
        if self.is_congested_by(connection) {
            drop(connections);
            self.close_slow_peer(id);
        }
    }

    /// Much waits for a peer: whoever reads from it is to stop. Whether it is to be closed.
    #[inline]
    fn is_congested_by(&self, connection: &Connection) -> bool {
        if connection.writer.backlog() <= self.node.config.outbox_bytes {
            return false;
        }
        self.stirred.set(true);
        self.is_hopeless(connection)
    }

    /// Whether much waits for a peer that has taken nothing for a while. Reading stops at
    /// `Config::outbox_bytes`, but requests that were queued before are still answered: this bounds what they add.
    pub(super) fn is_hopeless(&self, connection: &Connection) -> bool {
        connection.writer.backlog() > self.most_unsent() && connection.writer.stuck_for(self.clock()) > STUCK_NS
    }

    /// What may wait for a peer that does not take it, in bytes.
    pub(super) fn most_unsent(&self) -> usize {
        self.node.config.outbox_bytes.saturating_mul(4).saturating_add(self.node.config.max_frame as usize)
    }

    pub(super) fn close_slow_peer(&self, id: ConnectionId) {
        self.count(|counters| counters.slow_peers_closed += 1);
        self.close(id, "it reads its answers too slowly: far more than Config::outbox_bytes wait for it", End::Faulty);
    }

    /// The frame of an answer, and whether a ref is in it that leads back over the connection that carries it.
    fn answer_frame(&self, call: &Call, answer: Answer<'_>) -> (Vec<u8>, bool) {
        let mut out = self.spares.borrow_mut().take();
        let way_back = match answer {
            // The peer's limit is known to the core that owns its connection, which checks it.
            Answer::Value(reply) => {
                let outcome = write_reply(&mut out, call.request, call.resolved, reply, u32::MAX);
                outcome == Outcome::Whole { way_back: true }
            }
            Answer::Failure(failure) => {
                let failure = in_time(call, failure);
                frame::write_failure(&mut out, call.request, call.resolved, &failure);
                failure.way_back()
            }
        };
        (out, way_back)
    }

    /// The answer to a request that this core passed on.
    pub fn send_frame(&self, id: ConnectionId, request: u64, bytes: Vec<u8>, way_back: bool) {
        let mut hopeless = false;
        let mut connections = self.connections.borrow_mut();
        let mut spares = self.spares.borrow_mut();
        match connections.get(id).filter(|c| c.phase == Phase::Open) {
            None => self.count(|counters| counters.replies_late += 1),
            Some(connection) => {
                let limit = connection.peer_max_frame;
                let fits = bytes.len() <= limit as usize;
                let out = connection.writer.buffer(&mut spares);
                if fits {
                    out.extend_from_slice(&bytes);
                } else {
                    self.count(|counters| counters.frames_too_large += 1);
                    let error = frame::FrameTooLarge { length: bytes.len(), limit };
                    let error = error.to_string();
                    frame::write_failure(out, request, None, &Failure::new(FailureCode::BadReply, &error));
                }
                self.count(|counters| counters.replies_out += u64::from(request != 0));
                if way_back && fits {
                    self.keep_way_back(connection.role);
                }
                self.mark_dirty(connection);
                hopeless = self.is_congested_by(connection);
            }
        }
        spares.give(bytes);
        drop((connections, spares));
        if hopeless {
            self.close_slow_peer(id);
        }
    }

    /// Ends every ask.
    pub(super) fn fail_all(&self, error: &AskError) {
        let keys = self.pending.borrow().keys();
        for key in keys {
            self.complete(key, Err(error.clone()));
        }
    }

    /// The future of an ask is gone: frees its slot and tells the other side.
    pub fn abandon_ask(&self, key: AskKey) {
        if self.drop_early(key) {
            return;
        }
        let forgotten = self.pending.borrow_mut().forget(key);
        if let Some(Forgotten::Waiting(via, _)) = &forgotten {
            self.cancel(via, key);
        }
    }

    /// An ask was entered, and could not be sent.
    #[cold]
    pub(super) fn unmake_ask(&self, key: AskKey) {
        let forgotten = self.pending.borrow_mut().forget(key);
        // It may be answered already. Dropped where no table is borrowed.
        drop(forgotten);
    }

    /// Hands an ask whose future moved to another thread over to that thread.
    pub fn hand_over_ask(&self, key: AskKey, cell: Arc<AskCell>) {
        let handed_over = self.pending.borrow_mut().hand_over(key, cell.clone());
        if let Forgotten::Answered(answer) = handed_over {
            cell.answer.put(answer);
        }
    }
}

/// A failure as a peer is told: once the deadline of its ask has passed, that is what went wrong.
fn in_time<'a>(call: &Call, failure: Failure<'a>) -> Failure<'a> {
    let over = call.deadline != NO_DEADLINE && call.deadline <= now();
    if over { Failure::new(FailureCode::Expired, "") } else { failure }
}

/// What became of a reply.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// As it is; whether a ref is in it that leads back over the connection that carries it.
    Whole {
        way_back: bool,
    },
    TooLarge,
    Unencodable,
}

/// Writes a reply, or the failure that it turns out to be.
#[inline]
fn write_reply(out: &mut Vec<u8>, request: u64, resolved: Option<Resolved>, reply: &dyn Reply, limit: u32) -> Outcome {
    let mut draft = Draft::reply(out, request, resolved);
    let (outcome, problem) = match reply.encode(draft.payload()) {
        Ok(Written { way_back }) => match draft.finish(limit) {
            Ok(()) => return Outcome::Whole { way_back },
            Err(error) => (Outcome::TooLarge, error.to_string()),
        },
        Err(error) => {
            drop(draft);
            (Outcome::Unencodable, error.to_string())
        }
    };
    frame::write_failure(out, request, resolved, &Failure::new(FailureCode::BadReply, &problem));
    outcome
}

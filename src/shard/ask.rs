//! Asks and sends on their way out.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::destination::Destination;
use super::lanes::{LaneFull, LaneItem};
use super::relay::{Asker, ClientWay, NO_WAY, Relay};
use super::shard::Shard;
use crate::dispatch::call::{Call, NO_DEADLINE, Origin};
use crate::dispatch::directory::Place;
use crate::dispatch::inbox::Envelope;
use crate::dispatch::trace;
use crate::net::ask_key::AskKey;
use crate::net::asked::{LimitedBy, Via};
use crate::net::errors::{AskError, SendError};
use crate::net::outbox::Addressed;
use crate::net::peer::Peer;
use crate::net::pending::{AskKind, Asked, Waiter, Waits};
use crate::wire::codec::{self, CodecError, Written};
use crate::wire::failure::FailureCode;
use crate::wire::frame::{self, Draft, EndpointId, FrameTooLarge, RequestHead, Route, Target, core_of_key};
use crate::wire::message::{Ask, Message, MessageId, OneWay};

/// What an ask brings beside its message and who waits for its answer.
#[derive(Clone, Copy, Debug)]
pub struct AskOptions {
    /// Its own limit, if it has one.
    pub timeout: Option<Duration>,
    /// When it was made, in nanoseconds of the core's clock, if that was on another thread.
    pub since: Option<u64>,
    /// The key that chooses the core.
    pub key: Option<u16>,
    /// The deadline of the call whose handler asks, if it is one.
    pub inherited: u64,
}

/// How long an ask may take.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    /// When it ends, in nanoseconds of the clock of all cores.
    pub(super) deadline: u64,
    pub(super) timeout_ns: u64,
    /// What is left of it.
    pub(super) left_ns: u64,
    pub(super) limited_by: LimitedBy,
}

impl Limit {
    /// Of a one-way message.
    pub(super) const NONE: Limit =
        Limit { deadline: NO_DEADLINE, timeout_ns: 0, left_ns: 0, limited_by: LimitedBy::Config };

    /// What is known of an ask of `M` that goes this way.
    #[inline]
    fn asked<M: Message>(&self, via: Via) -> Asked {
        Asked { via, kind: AskKind::of::<M>(), timeout_ns: self.timeout_ns, limited_by: self.limited_by }
    }
}

/// An ask that was entered and is not sent yet: it leaves the table again if it cannot be.
pub(super) struct Entered<'a>(pub(super) &'a Shard, pub(super) AskKey);

impl Entered<'_> {
    /// It is sent.
    #[inline]
    pub(super) fn stay(self) -> AskKey {
        let key = self.1;
        std::mem::forget(self);
        key
    }
}

impl Drop for Entered<'_> {
    #[cold]
    fn drop(&mut self) {
        self.0.unmake_ask(self.1);
    }
}

/// An ask to a peer that has its name, and is entered when it has been sent: only then is known which way it went.
pub(super) struct Reserved<'a>(pub(super) &'a Shard, pub(super) AskKey);

impl<'a> Reserved<'a> {
    #[inline]
    pub(super) fn new(shard: &'a Shard) -> Reserved<'a> {
        Reserved(shard, shard.pending.borrow_mut().reserve())
    }

    /// It is sent.
    #[inline]
    pub(super) fn enter(self, waiter: Waiter, asked: Asked, deadline: u64) -> AskKey {
        let key = self.1;
        self.0.pending.borrow_mut().enter(key, waiter, asked, deadline);
        std::mem::forget(self);
        key
    }
}

impl Drop for Reserved<'_> {
    #[cold]
    fn drop(&mut self) {
        self.0.pending.borrow_mut().release(self.1);
    }
}

/// Why a request could not be handed on.
pub(super) enum Refusal {
    Unsendable(String),
    TooLarge(FrameTooLarge),
    Overloaded(Arc<str>, &'static str),
    /// The peer does not listen, and has no connection open.
    NoWay,
}

impl Shard {
    /// Sends an ask. Its answer comes under the returned key.
    #[inline]
    pub fn ask<M: Ask, W: Waits>(
        self: &Rc<Self>,
        to: &Destination,
        message: M,
        waiter: W,
        options: AskOptions,
    ) -> Result<AskKey, Box<AskError>> {
        if self.closing.get().is_some() {
            return Err(Box::new(AskError::Stopped { target: self.node.name.as_str().into() }));
        }
        if trace::is_on() {
            self.trace(trace::asked, M::NAME, to);
        }
        self.queue_early();
        self.check_pending()?;
        let limit = self.limit(&options);
        if limit.left_ns == 0 {
            return Err(self.too_late(to, &limit));
        }
        match to {
            Destination::Env { id, place, .. } => match self.core_of(*place, options.key) {
                core if core == self.core => Ok(self.ask_here(*id, message, waiter, &limit)),
                core => self.ask_core(core, *id, message, waiter, &limit),
            },
            Destination::Peer { peer, name, index } => {
                let to = Named { peer, name, index: *index, key: options.key };
                self.ask_peer(&to, message, waiter, limit)
            }
            Destination::Forbidden { address, policy, .. } => Err(forbidden(address, policy)),
        }
    }

    /// Asks an endpoint of this core.
    #[inline]
    fn ask_here<M: Ask, W: Waits>(self: &Rc<Self>, id: EndpointId, message: M, waiter: W, limit: &Limit) -> AskKey {
        self.count(|counters| counters.asks_local += 1);
        let via = Via::Env { id, core: self.core };
        if W::BY_FUTURE && self.may_be_early(id, M::ID) {
            return self.keep_early(id, message, limit.asked::<M>(via), limit.deadline);
        }
        let key = self.pending.borrow_mut().insert(waiter.into(), limit.asked::<M>(via), limit.deadline);
        let call = Call { origin: Origin::Here, request: key.0, deadline: limit.deadline, resolved: None, near: true };
        let envelope = Envelope { call, message: M::ID, body: self.dispatcher.pack(message) };
        self.dispatcher.deliver(id, envelope, &self.path());
        key
    }

    /// Asks an endpoint of another core of this env.
    #[inline]
    fn ask_core<M: Ask, W: Waits>(
        self: &Rc<Self>,
        core: u16,
        id: EndpointId,
        message: M,
        waiter: W,
        limit: &Limit,
    ) -> Result<AskKey, Box<AskError>> {
        let asked = limit.asked::<M>(Via::Env { id, core });
        let entered = Entered(self, self.pending.borrow_mut().insert(waiter.into(), asked, limit.deadline));
        let (origin, request) = (Origin::Core(self.core), entered.1.0);
        let call = Call { origin, request, deadline: limit.deadline, resolved: None, near: true };
        let sent = self.lane_request(core, id, &call, message);
        sent.map_err(|full| self.lane_full(core, &full).into_ask("".into()))?;
        self.count(|counters| counters.asks_lane += 1);
        Ok(entered.stay())
    }

    /// Asks an endpoint of a peer.
    #[inline]
    fn ask_peer<M: Ask, W: Waits>(
        self: &Rc<Self>,
        to: &Named<'_>,
        message: M,
        waiter: W,
        limit: Limit,
    ) -> Result<AskKey, Box<AskError>> {
        // Named first: to encode and to drop a message is the user's code, which may ask, or panic.
        let reserved = Reserved::new(self);
        let via = self.send_to_peer(to, reserved.1.0, message, limit);
        let via = via.map_err(|refusal| refusal.into_ask(self.describe_named(to)))?;
        self.count(|counters| counters.asks_peer += 1);
        Ok(reserved.enter(waiter.into(), limit.asked::<M>(via), limit.deadline))
    }

    #[cold]
    fn too_late(&self, to: &Destination, limit: &Limit) -> Box<AskError> {
        self.count(|counters| counters.timeouts += 1);
        let (after, setting) = (Duration::from_nanos(limit.timeout_ns), limit.limited_by.setting());
        Box::new(AskError::Timeout { target: self.name_of(to), after, setting })
    }

    #[cold]
    fn trace(&self, event: fn(&'static str, &str, u16), message: &'static str, to: &Destination) {
        event(message, &self.name_of(to), self.core);
    }

    /// The endpoint that a ref points at, for people.
    fn name_of(&self, to: &Destination) -> Arc<str> {
        match to {
            Destination::Env { id, .. } => self.describe(&Via::Env { id: *id, core: self.core }),
            Destination::Peer { peer, name, .. } => format!("{name}@{}", self.describe_peer(peer)).into(),
            Destination::Forbidden { address, name, .. } => format!("{name}@{address}").into(),
        }
    }

    /// `name@address`, for people.
    #[cold]
    pub(super) fn describe_named(&self, to: &Named<'_>) -> Arc<str> {
        format!("{}@{}", to.name, self.describe_peer(to.peer)).into()
    }

    /// How long an ask may take.
    #[inline]
    fn limit(&self, options: &AskOptions) -> Limit {
        let timeout_ns = options.timeout.map_or(self.ask_timeout_ns, nanoseconds);
        let limited_by = if options.timeout.is_some() { LimitedBy::Caller } else { LimitedBy::Config };
        // A short limit counts from now, not from the beginning of a turn that may have been long; and the time in the
        // injector is the ask's own.
        let exact = options.timeout.is_some() || options.since.is_some();
        let now = if exact { self.look_at_the_clock() } else { self.clock() };
        let deadline = options.since.unwrap_or(now).saturating_add(timeout_ns).min(NO_DEADLINE - 1);
        if options.inherited < deadline {
            // Whoever waits for the handler that asks waits no longer than this.
            let left_ns = options.inherited.saturating_sub(now);
            let limited_by = LimitedBy::HandledCall;
            return Limit { deadline: options.inherited, timeout_ns: left_ns, left_ns, limited_by };
        }
        Limit { deadline, timeout_ns, left_ns: deadline.saturating_sub(now), limited_by }
    }

    /// Sends a one-way message.
    #[inline]
    pub fn send<M: OneWay>(self: &Rc<Self>, to: &Destination, message: M, key: Option<u16>) -> Result<(), SendError> {
        if self.closing.get().is_some() {
            return Err(SendError::Stopped { target: self.node.name.as_str().into() });
        }
        if trace::is_on() {
            self.trace(trace::sent, M::NAME, to);
        }
        self.queue_early();
        match to {
            Destination::Env { id, place, name } => {
                let core = self.core_of(*place, key);
                let origin = if core == self.core { Origin::Here } else { Origin::Core(self.core) };
                let call = Call { origin, request: 0, deadline: NO_DEADLINE, resolved: None, near: true };
                if core == self.core {
                    let room = self.dispatcher.has_room(*id, size_of::<M>());
                    room.map_err(|(code, queue)| refused(code, queue, name))?;
                    let envelope = Envelope { call, message: M::ID, body: self.dispatcher.pack(message) };
                    self.count(|counters| counters.sends_local += 1);
                    self.dispatcher.deliver(*id, envelope, &self.path());
                    return Ok(());
                }
                self.lane_request(core, *id, &call, message)
                    .map_err(|full| self.lane_full(core, &full).into_send(name.clone()))?;
                self.count(|counters| counters.sends_lane += 1);
            }
            Destination::Peer { peer, name, index } => {
                let to_peer = Named { peer, name, index: *index, key };
                let sent = self.send_to_peer(&to_peer, 0, message, Limit::NONE);
                sent.map_err(|refusal| refusal.into_send(self.name_of(to)))?;
                self.count(|counters| counters.sends_peer += 1);
            }
            Destination::Forbidden { address, policy, .. } => {
                return Err(SendError::ForbiddenAddress { address: address.clone(), policy });
            }
        }
        Ok(())
    }

    /// Sends an ask or a one-way message to a peer, and tells which way it went: over a connection of this core, or, to a
    /// node that does not listen, through the core that has one.
    #[inline]
    fn send_to_peer<M: Message>(&self, to: &Named<'_>, request: u64, message: M, limit: Limit) -> Result<Via, Refusal> {
        let (peer, name) = (to.peer.index(), to.index);
        match to.peer.client().map(|node| self.way_to_client(to, node)) {
            None | Some(ClientWay::Own) => {
                let deadline_us = u32::try_from(limit.left_ns / 1000).ok().filter(|_| request != 0);
                let encode = |out: &mut Vec<u8>| codec::encode(&message, out);
                let number = self.write_request(to, request, M::ID, deadline_us, encode)?;
                Ok(Via::Peer { peer, name, key: to.key, number })
            }
            Some(ClientWay::Through(route)) => {
                let core = route.core;
                let relay = Relay::new(Asker { core: self.core, request, limit }, route, to, message);
                self.lane_item(core, LaneItem::Relay(relay)).map_err(|full| self.lane_full(core, &full))?;
                Ok(Via::Relayed { core, peer, name })
            }
            Some(ClientWay::Closed) => Err(Refusal::NoWay),
        }
    }

    /// The core of this env that handles a message for `place`.
    #[inline]
    pub fn core_of(&self, place: Place, key: Option<u16>) -> u16 {
        match (place, key) {
            (Place::Core(core), _) => core,
            (Place::EveryCore, None) => self.core,
            (Place::EveryCore, Some(key)) => core_of_key(key, self.node.core_count()),
        }
    }

    /// Tells the receiver of an ask that nobody waits any longer.
    pub fn cancel(&self, via: &Via, key: AskKey) {
        match *via {
            Via::Env { id, core } if core == self.core => self.dispatcher.cancel(id, Origin::Here, key.0),
            Via::Env { id, core } => {
                let origin = Origin::Core(self.core);
                self.lane_cancel(core, LaneItem::Cancel { endpoint: id, origin, request: key.0 });
            }
            Via::Relayed { core, .. } => {
                self.lane_cancel(core, LaneItem::CancelRelayed { core: self.core, request: key.0 });
            }
            Via::Peer { peer, name, key: chosen, .. } => {
                let outboxes = self.outboxes.borrow();
                let Some(Some(outbox)) = outboxes.get(peer as usize) else { return };
                let Some((target, core)) = outbox.target(name) else { return };
                let mut connections = self.connections.borrow_mut();
                if let Some(connection) = outbox.link.connection().and_then(|id| connections.get(id)) {
                    let out = connection.writer.buffer(&mut self.spares.borrow_mut());
                    frame::write_cancel(out, key.0, target, route(chosen, core));
                    self.mark_dirty(connection);
                }
            }
        }
    }

    /// Whether one more ask fits into the table of those that wait.
    #[inline]
    pub(super) fn check_pending(&self) -> Result<(), Box<AskError>> {
        if self.pending.borrow().has_room() { Ok(()) } else { Err(self.pending_full()) }
    }

    #[cold]
    fn pending_full(&self) -> Box<AskError> {
        self.count(|counters| counters.overloaded_pending += 1);
        let queue = format!("the table of pending asks of core {}", self.core).into();
        Box::new(AskError::Overloaded { queue, remedy: "await answers first, or raise Config::pending_asks" })
    }

    /// Writes a request where it leaves next. Returns the number of the ask by name that its address rests on.
    #[inline]
    pub(super) fn write_request(
        &self,
        to: &Named<'_>,
        request: u64,
        message: MessageId,
        deadline_us: Option<u32>,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<Written, CodecError>,
    ) -> Result<u32, Refusal> {
        let mut outboxes = self.outboxes.borrow_mut();
        let outbox = self.outbox(&mut outboxes, to.peer);
        let Addressed { resolved, number } = outbox.address(to.index, to.name, request != 0);
        let head = RequestHead {
            request,
            target: resolved.map_or(Target::Name(to.name), |resolved| Target::Id(resolved.endpoint)),
            route: route(to.key, resolved.and_then(|resolved| resolved.core)),
            message,
            deadline_us,
        };
        let bound = self.node.config.outbox_bytes;
        let full = || {
            self.count(|counters| counters.overloaded_outbox += 1);
            let queue = format!("the outbox of core {} to {}", self.core, to.peer.address()).into();
            Refusal::Overloaded(queue, "await answers first, or raise Config::outbox_bytes")
        };
        let mut connections = self.connections.borrow_mut();
        match outbox.link.connection().and_then(|id| connections.get(id)) {
            Some(connection) => {
                if connection.writer.backlog() >= bound {
                    return Err(full());
                }
                let limit = connection.peer_max_frame;
                let out = connection.writer.buffer(&mut self.spares.borrow_mut());
                let written = append(out, &head, encode, limit);
                outbox.way_back |= written.inspect_err(|refusal| self.count_too_large(refusal))?.way_back;
                self.mark_dirty(connection);
            }
            None => {
                if outbox.waiting.len() >= bound {
                    return Err(full());
                }
                outbox.way_back |= append(&mut outbox.waiting, &head, encode, u32::MAX)?.way_back;
                drop(connections);
                self.dial(outbox, to.peer.index());
            }
        }
        Ok(number)
    }

    #[cold]
    fn count_too_large(&self, refusal: &Refusal) {
        if let Refusal::TooLarge(_) = refusal {
            self.count(|counters| counters.frames_too_large += 1);
        }
    }

    fn lane_full(&self, core: u16, full: &LaneFull) -> Refusal {
        self.count(|counters| counters.overloaded_lane += 1);
        Refusal::Overloaded(full.describe(self.core, core).into(), "await answers first, or raise that setting")
    }
}

/// Centuries are as good as what is above them.
#[inline]
pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// An endpoint of a peer, and which of its instances.
pub(super) struct Named<'a> {
    pub(super) peer: &'a Arc<Peer>,
    pub(super) name: &'a Arc<str>,
    pub(super) index: u32,
    pub(super) key: Option<u16>,
}

#[cold]
fn forbidden(address: &Arc<str>, policy: &'static str) -> Box<AskError> {
    Box::new(AskError::ForbiddenAddress { address: address.clone(), policy })
}

#[inline]
fn append(
    out: &mut Vec<u8>,
    head: &RequestHead<'_>,
    encode: impl FnOnce(&mut Vec<u8>) -> Result<Written, CodecError>,
    limit: u32,
) -> Result<Written, Refusal> {
    let mut draft = Draft::request(out, head);
    let written = encode(draft.payload()).map_err(|error| Refusal::Unsendable(error.to_string()))?;
    draft.finish(limit).map_err(Refusal::TooLarge)?;
    Ok(written)
}

#[inline]
fn route(key: Option<u16>, core: Option<u16>) -> Route {
    match (core, key) {
        (Some(core), _) => Route::Core(core),
        (None, Some(key)) => Route::Key(key),
        (None, None) => Route::Here,
    }
}

fn refused(code: FailureCode, queue: String, name: &Arc<str>) -> SendError {
    match code {
        FailureCode::Overloaded => {
            SendError::Overloaded { queue: queue.into(), remedy: "send more slowly, or raise that setting" }
        }
        FailureCode::Stopped => SendError::Stopped { target: name.clone() },
        _ => SendError::NoEndpoint { target: name.clone() },
    }
}

impl Refusal {
    pub(super) fn into_ask(self, target: Arc<str>) -> AskError {
        match self {
            Refusal::Unsendable(reason) => AskError::Unsendable { target, reason: reason.into() },
            Refusal::TooLarge(error) => AskError::Unsendable { target, reason: error.to_string().into() },
            Refusal::Overloaded(queue, remedy) => AskError::Overloaded { queue, remedy },
            Refusal::NoWay => AskError::Unreachable { peer: target, cause: NO_WAY.into() },
        }
    }

    fn into_send(self, target: Arc<str>) -> SendError {
        match self {
            Refusal::Unsendable(reason) => SendError::Unsendable { target, reason: reason.into() },
            Refusal::TooLarge(error) => SendError::Unsendable { target, reason: error.to_string().into() },
            Refusal::Overloaded(queue, remedy) => SendError::Overloaded { queue, remedy },
            Refusal::NoWay => SendError::Unreachable { peer: target, cause: NO_WAY.into() },
        }
    }
}

//! Frames that arrived, and what other cores passed on.

use std::rc::Rc;
use std::sync::atomic::Ordering;

use super::lanes::{Head, LaneItem};
use super::shard::Shard;
use crate::dispatch::call::{Call, NO_DEADLINE, Origin};
use crate::dispatch::reply_path::{ReplyPath, refuse};
use crate::mesh::parcel::Parcel;
use crate::net::ask_key::AskKey;
use crate::net::asked::Via;
use crate::net::connection::Role;
use crate::net::connection_id::ConnectionId;
use crate::net::errors::AskError;
use crate::net::outbox::Link;
use crate::wire::codec::CodecError;
use crate::wire::failure::FailureCode;
use crate::wire::frame::{EndpointId, Frame, RequestHead, Resolved, Route, Target, core_of_key};
use crate::wire::told::{Alias, Teller, Told};

impl Shard {
    /// Handles one frame of a connection that arrived at the time `arrived`; `near` says that its peer is of this
    /// machine.
    #[inline]
    pub fn on_frame(
        &self,
        id: ConnectionId,
        (role, near): (Role, bool),
        frame: Frame<'_>,
        arrived: u64,
        path: &Rc<dyn ReplyPath>,
    ) {
        match frame {
            Frame::Request { head, .. } if role != Role::Accepted && self.is_flooded(id) => {
                self.refuse_flood(id, head.request, path);
            }
            Frame::Request { head, payload } => self.on_request((id, near), &head, payload, arrived, path),
            Frame::Reply { request, resolved, payload } => {
                self.count(|counters| counters.replies_in += 1);
                let key = AskKey(request);
                let waiting = self.pending.borrow().waiting(key).map(|asked| (asked.via, asked.kind));
                let Some((via, kind)) = waiting.filter(|(via, _)| self.belongs(via, id, role)) else {
                    return self.count(|counters| counters.replies_late += 1);
                };
                self.note_resolved(&via, resolved);
                let limits = self.dispatcher.decode_limits();
                let teller = Teller::Peer { core: None, connection: id.to_bits(), near };
                match (kind.end_with_bytes)(&self.pending, key, payload, limits, &teller) {
                    Ok(notify) => self.finish(notify),
                    Err(error) => self.complete(key, Err(self.undecodable(&via, &error))),
                }
            }
            Frame::Failure { request, resolved, mut failure } => {
                self.count(|counters| counters.replies_in += 1);
                let key = AskKey(request);
                let via = self.pending.borrow().waiting(key).map(|asked| asked.via);
                let Some(via) = via.filter(|via| self.belongs(via, id, role)) else {
                    return self.count(|counters| counters.replies_late += 1);
                };
                match failure.code {
                    FailureCode::NoEndpoint | FailureCode::Stopped => self.forget_resolved(&via),
                    _ => self.note_resolved(&via, resolved),
                }
                if let Some(typed) = &mut failure.typed {
                    typed.told = if near { Told::Near } else { Told::Unknown };
                    typed.alias = self.alias_of(id);
                }
                self.fail(key, &failure);
            }
            Frame::Cancel { request, target, route } => self.on_cancel(id, request, target, route),
            Frame::Gone { endpoint } => self.on_gone(id, endpoint),
            Frame::Ping => self.on_ping(id),
            Frame::Pong | Frame::Skipped => {}
        }
    }

    /// The node id that means another node in what comes over this connection.
    #[cold]
    fn alias_of(&self, id: ConnectionId) -> Option<Alias> {
        self.connections.borrow_mut().get(id)?.peer.as_ref()?.alias()
    }

    #[cold]
    fn undecodable(&self, via: &Via, error: &CodecError) -> AskError {
        if let CodecError::Beyond(_) = error {
            self.count_beyond_limits();
        }
        AskError::UndecodableReply { target: self.describe(via), reason: error.to_string().into() }
    }

    /// What waits to be sent over a connection, in bytes.
    fn unsent(&self, id: ConnectionId) -> usize {
        self.connections.borrow_mut().get(id).map_or(0, |connection| connection.writer.backlog())
    }

    /// Whether much waits to be sent over a connection that we opened, and which is read all the same.
    fn is_flooded(&self, id: ConnectionId) -> bool {
        self.unsent(id) > self.node.config.outbox_bytes
    }

    /// Refuses a request over a connection that we opened, since too many answers wait there already. A peer that does
    /// not take even the refusals is closed like any that takes no answers, and at once if they become too many.
    #[cold]
    fn refuse_flood(&self, id: ConnectionId, request: u64, path: &Rc<dyn ReplyPath>) {
        self.count(|counters| counters.overloaded_outbox += 1);
        if self.unsent(id) > self.most_unsent().saturating_mul(2) {
            return self.close_slow_peer(id);
        }
        let call = Call { origin: Origin::Peer(id), request, deadline: NO_DEADLINE, resolved: None, near: false };
        let text = "the outbox of the asked node (Config::outbox_bytes)";
        refuse(&call, path, FailureCode::Overloaded, text);
    }

    #[inline]
    fn on_request(
        &self,
        (id, near): (ConnectionId, bool),
        head: &RequestHead<'_>,
        payload: &[u8],
        arrived: u64,
        path: &Rc<dyn ReplyPath>,
    ) {
        if self.node.roster.is_fenced(self.core, id) {
            return self.count(|counters| counters.requests_fenced += 1);
        }
        self.count(|counters| counters.requests_in += 1);
        let deadline = head.deadline_us.map_or(NO_DEADLINE, |us| arrived + u64::from(us) * 1000);
        let mut call = Call { origin: Origin::Peer(id), request: head.request, deadline, resolved: None, near };
        let Some((endpoint, route)) = self.find_target(head.target, head.route, &mut call.resolved) else {
            return self.refuse_unknown(&call, path, "");
        };
        match self.route_to_core(route) {
            Some(core) if core == self.core => {
                self.dispatcher.deliver_bytes(endpoint, call, head.message, payload, path);
            }
            Some(core) => {
                call.origin = Origin::Passed { core: self.core, connection: id };
                let body = self.spares.borrow_mut().copy(payload);
                match self.lane_item(core, LaneItem::Request { endpoint, call, message: head.message, bytes: body }) {
                    Ok(()) => self.count(|counters| counters.requests_passed += 1),
                    Err(full) => {
                        self.count(|counters| counters.overloaded_lane += 1);
                        call.origin = Origin::Peer(id);
                        if call.request != 0 {
                            refuse(&call, path, FailureCode::Overloaded, &full.describe(self.core, core));
                        }
                    }
                }
            }
            None => self.refuse_unknown(&call, path, "no such core"),
        }
    }

    /// Refuses a request for an endpoint that this env does not have. One that shuts down tells that and nothing else.
    #[cold]
    fn refuse_unknown(&self, call: &Call, path: &Rc<dyn ReplyPath>, text: &str) {
        self.count(|counters| counters.unknown_endpoint += 1);
        match self.node.closing.load(Ordering::Relaxed) {
            true => refuse(call, path, FailureCode::Stopped, ""),
            false => refuse(call, path, FailureCode::NoEndpoint, text),
        }
    }

    /// Whether an answer over a connection can be meant for an ask that went `via`: nobody answers for another peer.
    #[inline]
    fn belongs(&self, via: &Via, id: ConnectionId, role: Role) -> bool {
        match (via, role) {
            (Via::Peer { peer, .. }, Role::Dialled { peer: dialled }) => *peer == dialled,
            (Via::Peer { peer, .. }, Role::Accepted) => {
                let outboxes = self.outboxes.borrow();
                let outbox = outboxes.get(*peer as usize).and_then(Option::as_ref);
                outbox.is_some_and(|outbox| outbox.link == Link::Up(id))
            }
            _ => false,
        }
    }

    /// The endpoint that is meant; a name is looked up, and the asker will be told what was found.
    #[inline]
    fn find_target(
        &self,
        target: Target<'_>,
        route: Route,
        resolved: &mut Option<Resolved>,
    ) -> Option<(EndpointId, Route)> {
        match target {
            Target::Id(endpoint) => Some((endpoint, route)),
            Target::Name(name) => {
                let found = self.node.directory.resolve(name)?;
                *resolved = Some(found);
                Some((found.endpoint, found.core.map_or(route, Route::Core)))
            }
        }
    }

    #[inline]
    fn route_to_core(&self, route: Route) -> Option<u16> {
        match route {
            Route::Here => Some(self.core),
            Route::Core(core) => self.node.has_core(core).then_some(core),
            Route::Key(key) => Some(core_of_key(key, self.node.core_count())),
        }
    }

    fn on_cancel(&self, id: ConnectionId, request: u64, target: Target<'_>, route: Route) {
        let Some((endpoint, route)) = self.find_target(target, route, &mut None) else { return };
        match self.route_to_core(route) {
            Some(core) if core == self.core => self.dispatcher.cancel(endpoint, Origin::Peer(id), request),
            Some(core) => {
                let origin = Origin::Passed { core: self.core, connection: id };
                self.lane_cancel(core, LaneItem::Cancel { endpoint, origin, request });
            }
            None => {}
        }
    }

    /// Delivers what the other cores have sent so far: what comes after that call comes after all of it.
    pub fn deliver_arrived(self: &Rc<Self>) {
        self.receive_lanes(self.node.config.lane_messages, &self.path());
    }

    /// Handles what the core `from` sent.
    #[inline]
    pub(super) fn on_letter(&self, head: Head, parcel: &mut Parcel, from: u16, path: &Rc<dyn ReplyPath>) {
        match head {
            Head::Request { endpoint, message, request, deadline } => {
                let call = Call { origin: Origin::Core(from), request, deadline, resolved: None, near: true };
                self.dispatcher.deliver_parcel(endpoint, call, message, parcel, self.handles_at_once(), path);
            }
            Head::Reply { request } => self.complete(AskKey(request), Ok(parcel.take_out())),
            Head::Item => {
                if let Some(item) = parcel.remove::<LaneItem>() {
                    self.on_lane_item(item, path);
                }
            }
        }
    }

    /// Whether a request was passed on that came over a connection whose peer has connected anew.
    #[inline]
    fn has_been_fenced(&self, call: &Call) -> bool {
        matches!(call.origin, Origin::Passed { core, connection } if self.node.roster.is_fenced(core, connection))
    }

    /// Whether a handler may run before what was sent behind its message is looked at, such as its cancellation: not
    /// on an isolated core, where it may block.
    #[inline]
    fn handles_at_once(&self) -> bool {
        !self.node.is_isolated(self.core)
    }

    fn on_lane_item(&self, item: LaneItem, path: &Rc<dyn ReplyPath>) {
        match item {
            LaneItem::Request { call, bytes, .. } if self.has_been_fenced(&call) => {
                self.spares.borrow_mut().give(bytes);
                self.count(|counters| counters.requests_fenced += 1);
            }
            LaneItem::Request { endpoint, call, message, bytes } => {
                self.dispatcher.deliver_passed(endpoint, call, message, bytes, self.handles_at_once(), path);
            }
            LaneItem::Failure { request, failure } => self.fail(AskKey(request), &failure.as_failure()),
            LaneItem::Frame { connection, request, frame, way_back } => {
                self.send_frame(connection, request, frame, way_back);
            }
            LaneItem::ConnectionEnded { core, connection } => {
                self.give_up(Origin::Passed { core, connection });
            }
            LaneItem::Event(event) => self.dispatcher.deliver_event(&event, self.clock()),
            LaneItem::Relay(relay) => self.on_relay(*relay),
            LaneItem::Relayed { request, answer } => self.on_relayed(AskKey(request), *answer),
            LaneItem::CancelRelayed { core, request } => self.on_relay_cancelled(core, request),
            LaneItem::Cancel { endpoint, origin, request } => self.dispatcher.cancel(endpoint, origin, request),
        }
    }
}

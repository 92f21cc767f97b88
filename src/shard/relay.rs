//! Asks and sends to nodes that do not listen: over a connection that they have opened, here or on another core.

use std::sync::Arc;

use super::ask::{Limit, Named, Reserved};
use super::lanes::LaneItem;
use super::shard::Shard;
use crate::mesh::parcel::Parcel;
use crate::net::asked::Via;
use crate::net::connection::Phase;
use crate::net::connection_id::ConnectionId;
use crate::net::errors::AskError;
use crate::net::outbox::{Link, Outbox};
use crate::net::peer::Peer;
use crate::net::pending::{AskKind, Asked, Waiter};
use crate::net::roster::Route;
use crate::wire::codec::{self, CodecError, Written};
use crate::wire::message::{Message, MessageId};

/// How much longer than its asker a relaying core waits: the asker's own timer ends the ask, and tells.
const GRACE_NS: u64 = 1_000_000_000;
/// Why a node that does not listen cannot be reached.
pub(super) const NO_WAY: &str = "it listens nowhere, and no connection from it to this env is open";

/// The way to a node that does not listen.
pub(super) enum ClientWay {
    /// A connection of this core; the outbox's link is up.
    Own,
    /// A connection of another core.
    Through(Arc<Route>),
    /// It is not connected.
    Closed,
}

/// What is known of a message type without its name: enough to encode a message and to decode its reply.
#[derive(Clone, Copy)]
pub struct MessageKind {
    id: MessageId,
    encode: fn(&Parcel, &mut Vec<u8>) -> Result<Written, CodecError>,
    ask: &'static AskKind,
}

impl MessageKind {
    fn of<M: Message>() -> MessageKind {
        MessageKind {
            id: M::ID,
            encode: |parcel, out| match parcel.get::<M>() {
                Some(message) => codec::encode(message, out),
                None => Err(CodecError::Encode(format!("it is {}, not {}", parcel.type_name(), M::NAME))),
            },
            ask: AskKind::of::<M>(),
        }
    }
}

/// A message on its way to the core that has a connection with its receiver.
pub struct Relay {
    asker: Asker,
    route: Arc<Route>,
    peer: Arc<Peer>,
    name: Arc<str>,
    index: u32,
    key: Option<u16>,
    message: Parcel,
    kind: MessageKind,
}

/// Who relays a message, and how long it waits.
#[derive(Clone, Copy)]
pub(super) struct Asker {
    /// The core.
    pub(super) core: u16,
    /// Its key for the ask; 0 for a one-way message.
    pub(super) request: u64,
    /// How long it waits.
    pub(super) limit: Limit,
}

impl Relay {
    /// Of `message` to an endpoint over `route`.
    pub(super) fn new<M: Message>(asker: Asker, route: Arc<Route>, to: &Named<'_>, message: M) -> Box<Relay> {
        Box::new(Relay {
            asker,
            route,
            peer: to.peer.clone(),
            name: to.name.clone(),
            index: to.index,
            key: to.key,
            message: Parcel::new(message),
            kind: MessageKind::of::<M>(),
        })
    }

    /// Bytes that it takes up outside of its place in a lane.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Relay>() + if self.message.is_boxed() { self.message.size() } else { 0 }
    }
}

impl Shard {
    /// The way to a node that does not listen: the oldest connection of this core, else the oldest of all. One that was
    /// found is kept as long as it is open, so that messages do not overtake each other.
    pub(super) fn way_to_client(&self, to: &Named<'_>, node: u64) -> ClientWay {
        let mut outboxes = self.outboxes.borrow_mut();
        let outbox = self.outbox(&mut outboxes, to.peer);
        // The name is entered, for errors.
        outbox.enter(to.index, to.name);
        if outbox.link.connection().is_some() {
            return ClientWay::Own;
        }
        if let Some(route) = outbox.relay.as_ref().filter(|route| route.is_open()) {
            return ClientWay::Through(route.clone());
        }
        outbox.relay = None;
        let route = self.node.roster.route_to(node, self.core);
        if let Some(route) = &route {
            outbox.node = Some(route.node.clone());
        }
        match route {
            Some(route) if route.core != self.core => {
                outbox.relay = Some(route.clone());
                ClientWay::Through(route)
            }
            Some(route) if self.link_client(outbox, to.peer.index(), route.connection) => ClientWay::Own,
            _ => ClientWay::Closed,
        }
    }

    /// Lets an outbox use a connection that its peer has opened to this core.
    fn link_client(&self, outbox: &mut Outbox, peer: u32, id: ConnectionId) -> bool {
        let mut connections = self.connections.borrow_mut();
        let Some(connection) = connections.get(id).filter(|c| c.phase == Phase::Open) else { return false };
        connection.serves.push(peer);
        outbox.link = Link::Up(id);
        true
    }

    /// Sends what another core could not send itself, and answers that core.
    pub(super) fn on_relay(&self, relay: Relay) {
        let asker = relay.asker;
        if asker.limit.deadline <= self.clock() {
            // The asker's own timer has told it.
            return self.count(|counters| counters.expired += 1);
        }
        match self.send_relayed(relay) {
            Ok(()) => {}
            Err(error) if asker.request == 0 => {
                self.count(|counters| counters.sends_lost += 1);
                self.warn_lost(None, &error);
            }
            Err(error) => self.answer_relayed(asker.core, asker.request, Err(error)),
        }
    }

    fn send_relayed(&self, relay: Relay) -> Result<(), AskError> {
        let Relay { asker, route, peer, name, index, key: chosen, message, kind } = relay;
        let to = Named { peer: &peer, name: &name, index, key: chosen };
        // Over this very route or not at all: the asker may use another one already.
        let linked = route.is_open() && matches!(self.way_to_client(&to, peer.client().unwrap_or(0)), ClientWay::Own);
        if !linked {
            let cause = "it ended before the message was sent".into();
            return Err(AskError::Disconnected { peer: self.describe_peer(&peer), cause });
        }
        // Only lent: its drop is the user's code, and comes when no table is borrowed.
        let encode = |out: &mut Vec<u8>| (kind.encode)(&message, out);
        if asker.request == 0 {
            let written = self.write_request(&to, 0, kind.id, None, encode);
            return written.map(drop).map_err(|refusal| refusal.into_ask(self.describe_named(&to)));
        }
        self.check_pending().map_err(|error| *error)?;
        let left = u32::try_from((asker.limit.deadline - self.clock()) / 1000).ok();
        let deadline = asker.limit.deadline.saturating_add(GRACE_NS);
        let reserved = Reserved::new(self);
        let written = self.write_request(&to, reserved.1.0, kind.id, left, encode);
        let number = written.map_err(|refusal| refusal.into_ask(self.describe_named(&to)))?;
        let asked = Asked {
            via: Via::Peer { peer: peer.index(), name: index, key: chosen, number },
            kind: kind.ask,
            timeout_ns: asker.limit.timeout_ns,
            limited_by: asker.limit.limited_by,
        };
        let waiter = Waiter::Core { core: asker.core, request: asker.request };
        reserved.enter(waiter, asked, deadline);
        Ok(())
    }

    /// The answer to an ask that another core relayed through this one.
    pub(super) fn answer_relayed(&self, core: u16, request: u64, answer: Result<Parcel, AskError>) {
        self.lane_answer(core, LaneItem::Relayed { request, answer: Box::new(answer) });
    }

    /// The core that relayed an ask through this one has given it up.
    pub(super) fn on_relay_cancelled(&self, core: u16, request: u64) {
        let key = self.pending.borrow().relayed(core, request);
        if let Some(key) = key {
            self.abandon_ask(key);
        }
    }
}

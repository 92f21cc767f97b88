//! What is logged of messages that go wrong, with the endpoint and who sent them.

use std::cell::Cell;

use super::call::{Call, Origin};
use super::context::{CallContext, Caller};
use super::dispatcher::Dispatcher;
use super::reply_path::ReplyPath;
use super::responder::Responder;
use super::slot::Slot;
use super::unhandled::what;
use crate::executor::rate_limit::{RateLimit, RateLimits};
use crate::wire::failure::HandlerError;
use crate::wire::message::MessageId;

/// Messages of a core that could not be decoded, or whose handlers panicked.
#[derive(Debug)]
pub struct Faults {
    /// How many could not be decoded.
    pub(super) undecodable: Cell<u64>,
    undecodable_log: RateLimit,
    panics: RateLimit,
}

impl Faults {
    pub(super) fn new(limits: &RateLimits) -> Faults {
        Faults {
            undecodable: Cell::new(0),
            undecodable_log: limits.single("a message could not be decoded"),
            panics: limits.burst("a handler panicked"),
        }
    }
}

/// Who sent a message, for people.
#[cold]
pub(super) fn sender(origin: Origin, path: &dyn ReplyPath) -> String {
    match Caller::of(origin, path.core(), |core, connection| path.peer(core, connection)) {
        Caller::Core(core) => format!("core {core}"),
        Caller::Peer(peer) => peer.to_string(),
        Caller::Gone => "a peer whose connection has ended".into(),
    }
}

/// A handler failed. That is a matter between it and its asker, unless it panicked.
#[cold]
pub(super) fn log_failure(endpoint: &str, message: &str, origin: Origin, path: &dyn ReplyPath, error: &HandlerError) {
    let node = path.env_name();
    if error.is_panic() {
        if let Some(untold) = path.faults().panics.allow(path.now()) {
            tracing::warn!(target: "ringpost::endpoint", node, endpoint, message_type = message, peer = %sender(origin, path), %error, untold, "a handler panicked");
        }
    } else {
        tracing::debug!(target: "ringpost::endpoint", node, endpoint, message_type = message, peer = %sender(origin, path), %error, "a handler failed");
    }
}

/// The same, told by the handler's own context.
#[cold]
pub(super) fn log_failed(context: &CallContext, message: &str, error: &HandlerError) {
    let path = context.path();
    if error.is_panic() || tracing::enabled!(target: "ringpost::endpoint", tracing::Level::DEBUG) {
        let endpoint = path.endpoint_name(context.id());
        log_failure(&endpoint, message, context.responder.call().origin, path, error);
    }
}

/// A callback of the lifecycle, or of an event, panicked.
#[cold]
pub(super) fn log_callback(endpoint: &str, callback: &str, error: &HandlerError) {
    tracing::warn!(target: "ringpost::endpoint", endpoint, callback, %error, "a callback panicked");
}

/// A message is none of the type that its id says.
#[cold]
pub(super) fn log_undecodable(responder: &Responder, message: &str, reason: &str) {
    let path = responder.here().path();
    let faults = path.faults();
    faults.undecodable.set(faults.undecodable.get() + 1);
    let Some(untold) = faults.undecodable_log.allow(path.now()) else { return };
    let (node, endpoint) = (path.env_name(), path.endpoint_name(responder.here().id()));
    let peer = sender(responder.call().origin, path);
    tracing::warn!(target: "ringpost::endpoint", node, endpoint = &*endpoint, message_type = message, peer = %peer, reason, untold, "a message could not be decoded");
}

impl Dispatcher {
    /// Nobody handles a message, or not in this kind of frame: its asker has been told, and the endpoint is now.
    #[cold]
    pub(super) fn unhandled(&self, slot: &Slot, message: MessageId, call: &Call, path: &dyn ReplyPath) {
        self.count(|stats| stats.unhandled += 1);
        let error = slot.endpoint.unhandled(message, call.is_ask());
        if let Some(untold) = slot.unhandled.allow(path.now()) {
            let (node, endpoint, peer) = (path.env_name(), &*slot.name, sender(call.origin, path));
            tracing::warn!(target: "ringpost::endpoint", node, endpoint, message_type = what(&error), peer = %peer, untold, "nobody handles a message");
        }
        match &slot.in_flight {
            // It needs the endpoint alone.
            Some(in_flight) if !in_flight.is_empty() => in_flight.tell_later((*error).clone()),
            _ => slot.endpoint.report(&error),
        }
    }

    /// A one-way message found no room, which its sender does not learn.
    #[cold]
    pub(super) fn dropped(&self, slot: &Slot, call: &Call, setting: &str, path: &dyn ReplyPath) {
        if let Some(untold) = slot.dropped.allow(path.now()) {
            let (node, endpoint, peer) = (path.env_name(), &*slot.name, sender(call.origin, path));
            tracing::warn!(target: "ringpost::endpoint", node, endpoint, peer = %peer, setting, untold, "a one-way message is dropped: the inbox is full");
        }
    }
}

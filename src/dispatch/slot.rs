//! What a core keeps of one endpoint.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::call::{NO_DEADLINE, Origin};
use super::erased::AnyEndpoint;
use super::inbox::{Inbox, Item};
use super::shared::InFlight;
use super::suspended::FlightKey;
use super::trace;
use crate::executor::future_cell::FutureCell;
use crate::executor::key::WakeKey;
use crate::executor::rate_limit::RateLimit;
use crate::wire::failure::HandlerError;
use crate::wire::frame::EndpointId;
use crate::wire::message::MessageId;

/// Called once with the outcome of `on_start`.
pub type Started = Box<dyn FnOnce(Result<(), HandlerError>)>;

/// What an endpoint is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// Its `on_start` runs.
    Starting,
    /// Nothing.
    Idle,
    /// One of its handlers that run alone is suspended.
    Busy,
    /// Its `on_stop` runs.
    Stopping,
}

/// An endpoint in its place on a core.
pub(super) struct Slot {
    pub(super) id: EndpointId,
    pub(super) name: Arc<str>,
    pub(super) endpoint: Box<dyn AnyEndpoint>,
    pub(super) inbox: RefCell<Inbox>,
    pub(super) cell: RefCell<FutureCell>,
    pub(super) phase: Cell<Phase>,
    /// No message is taken any more; `on_stop` comes after those that are queued.
    pub(super) closing: Cell<bool>,
    /// The call whose handler is suspended.
    pub(super) current: Cell<Option<(Origin, u64)>>,
    /// Its place among those of the core.
    pub(super) suspension: Cell<Option<FlightKey>>,
    /// Its deadline.
    pub(super) deadline: Cell<u64>,
    /// Its handlers that run side by side, if it may have more than one.
    pub(super) in_flight: Option<Rc<InFlight>>,
    /// When its handler that is suspended alone is over, if that is of a one-way message.
    pub(super) overdue_at: Cell<u64>,
    /// It will be looked at for handlers that are over.
    pub(super) watched: Cell<bool>,
    /// Log lines about messages that it does not handle,
    pub(super) unhandled: RateLimit,
    /// about one-way messages that its inbox had no room for,
    pub(super) dropped: RateLimit,
    /// and about events.
    pub(super) events_lost: RateLimit,
    pub(super) started: Cell<Option<Started>>,
    pub(super) key: WakeKey,
}

impl Slot {
    /// Tells those who trace calls of one that is about to be handled.
    #[cold]
    pub(super) fn trace(&self, origin: Origin, message: MessageId, core: u16) {
        trace::handled(self.endpoint.message_name(message), message, &self.name, origin, core);
    }

    /// When the next of its suspended handlers of one-way messages is over, or `NO_DEADLINE`.
    pub(super) fn next_overdue(&self) -> u64 {
        let alone = if self.phase.get() == Phase::Busy { self.overdue_at.get() } else { NO_DEADLINE };
        self.in_flight.as_ref().map_or(alone, |all| all.next_overdue().min(alone))
    }

    /// Whether this message may be handled now: no other waits, and no handler is in its way.
    #[inline]
    pub(super) fn is_free_for(&self, message: MessageId) -> bool {
        self.phase.get() == Phase::Idle && self.inbox.borrow().is_empty() && self.may_begin(message)
    }

    /// Whether this message may be handled now, as far as the handlers in flight are concerned.
    #[inline]
    fn may_begin(&self, message: MessageId) -> bool {
        match &self.in_flight {
            None => true,
            Some(in_flight) => in_flight.may_begin(self.endpoint.is_shared(message)),
        }
    }

    /// Whether the next message, or the end if there is none, may be handled now. Tells the endpoint first what went
    /// wrong in handlers that have ended.
    #[inline]
    pub(super) fn is_clear_for_next(&self) -> bool {
        let Some(in_flight) = &self.in_flight else { return true };
        if in_flight.is_empty() {
            // Busy meanwhile: what it asks of itself waits.
            self.phase.set(Phase::Busy);
            in_flight.take_errors().iter().for_each(|error| self.endpoint.report(error));
            self.phase.set(Phase::Idle);
        }
        match self.inbox.borrow().front() {
            Some(Item::Message(envelope)) => in_flight.may_begin(self.endpoint.is_shared(envelope.message)),
            Some(Item::Event(_) | Item::Gap) => in_flight.may_begin(false),
            None => in_flight.is_empty(),
        }
    }
}

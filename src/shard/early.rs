//! Asks of an endpoint on the asker's own core that has nothing else to do.
//!
//! Such a message need not queue. It is kept until the asker awaits the answer, and is handled then and there: no inbox, no
//! turn of the endpoint, no wake of the asker. Whatever the asker does instead, another send, the end of its turn, puts the
//! message into its inbox first, so the order of what one core sends is the order in which it arrives, as always.

use std::cell::Cell;
use std::rc::Rc;

use super::shard::Shard;
use crate::dispatch::call::Call;
use crate::mesh::parcel::Parcel;
use crate::net::ask_key::AskKey;
use crate::wire::frame::EndpointId;
use crate::wire::message::MessageId;

/// Messages that are handled like this in one turn of a core: a task that asks without end lets the ring, the lanes and
/// the timers have their turn.
pub const EARLY_PER_TURN: u32 = 128;
/// Handlers that wait for each other like this, each on the stack of the one before.
const EARLY_DEPTH: u32 = 8;

/// A message that waits for its asker.
pub(super) struct Early {
    endpoint: EndpointId,
    message: MessageId,
    call: Call,
    /// Boxed, so that what is moved about is small; the box is used again.
    parcel: Box<Parcel>,
}

/// The one message of a core that waits for its asker, if one does.
#[derive(Default)]
pub struct EarlyAsk {
    waiting: Cell<Option<Early>>,
    /// The ask that it belongs to; 0 if none waits.
    key: Cell<u64>,
    spare: Cell<Option<Box<Parcel>>>,
    /// How many more may be handled in this turn; none outside of the turns of tasks and endpoints.
    left: Cell<u32>,
    depth: Cell<u32>,
}

impl EarlyAsk {
    #[inline]
    fn take(&self) -> Option<Early> {
        self.key.set(0);
        self.waiting.take()
    }
}

impl Shard {
    /// Allows `count` messages to wait for their askers and be handled early from now on.
    #[inline]
    pub(super) fn allow_early(&self, count: u32) {
        self.early.left.set(count);
    }

    /// Whether as many were handled early as this turn allows.
    #[inline]
    pub(super) fn early_is_over(&self) -> bool {
        self.early.left.get() == 0
    }

    /// Whether a message to this endpoint of this core may wait for its asker: if it could be handled at once, and nobody
    /// else on this core waits for a turn.
    #[inline]
    pub(super) fn may_be_early(&self, endpoint: EndpointId, message: MessageId) -> bool {
        self.early.left.get() > 0
            && self.early.depth.get() < EARLY_DEPTH
            && self.executor.ready_len() == 0
            && self.dispatcher.is_free(endpoint, message)
    }

    /// Keeps a message until its asker awaits the answer. None waits yet.
    #[inline]
    pub(super) fn keep_early<M: Send + 'static>(&self, endpoint: EndpointId, call: Call, id: MessageId, message: M) {
        let mut parcel = self.early.spare.take().unwrap_or_default();
        parcel.fill(message);
        self.early.key.set(call.request);
        self.early.waiting.set(Some(Early { endpoint, message: id, call, parcel }));
    }

    /// The asker awaits the answer: its message is handled now, if it still waits for that.
    #[inline]
    pub(crate) fn handle_early(self: &Rc<Self>, key: AskKey) {
        if self.early.key.get() == key.0
            && let Some(early) = self.early.take()
        {
            self.early.left.set(self.early.left.get().saturating_sub(1));
            self.early.depth.set(self.early.depth.get() + 1);
            self.deliver_early(early, true);
            self.early.depth.set(self.early.depth.get() - 1);
        }
    }

    /// Something else comes first: the message goes into its inbox.
    #[inline]
    pub(super) fn queue_early(self: &Rc<Self>) {
        if self.early.key.get() != 0
            && let Some(early) = self.early.take()
        {
            self.deliver_early(early, false);
        }
    }

    #[inline]
    fn deliver_early(self: &Rc<Self>, early: Early, now: bool) {
        let Early { endpoint, message, call, mut parcel } = early;
        self.dispatcher.deliver_parcel(endpoint, call, message, &mut parcel, now, &self.path());
        self.early.spare.set(Some(parcel));
    }

    /// The ask was given up: its message is dropped; false if it does not wait here.
    pub(super) fn drop_early(&self, key: AskKey) -> bool {
        if self.early.key.get() != key.0 {
            return false;
        }
        let Some(mut early) = self.early.take() else { return false };
        early.parcel.clear();
        self.early.spare.set(Some(early.parcel));
        true
    }
}

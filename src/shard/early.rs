//! Asks of an endpoint on the asker's own core that has nothing else to do.
//!
//! Such a message need not queue. It is kept until the asker awaits the answer, and is handled then and there: no inbox, no
//! turn of the endpoint, no wake of the asker. Whatever the asker does instead, another send, the end of its turn, puts the
//! message into its inbox first, so the order of what one core sends is the order in which it arrives, as always.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Context;

use super::shard::Shard;
use crate::dispatch::call::{Call, Origin};
use crate::dispatch::dispatcher::Called;
use crate::mesh::parcel::Parcel;
use crate::net::ask_key::AskKey;
use crate::net::pending::{Asked, Waiter};
use crate::wire::frame::EndpointId;
use crate::wire::message::{Ask, MessageId};

/// Messages that are handled like this in one turn of a core: a task that asks without end lets the ring, the lanes and
/// the timers have their turn.
pub const EARLY_PER_TURN: u32 = 128;
/// Handlers that wait for each other like this, each on the stack of the one before.
const EARLY_DEPTH: u32 = 8;

/// A message that waits for its asker. Boxed, so that nothing of it is moved about; the box is used again.
pub(crate) struct Early {
    key: AskKey,
    endpoint: EndpointId,
    message: MessageId,
    asked: Asked,
    deadline: u64,
    /// The message, then its reply.
    parcel: Parcel,
}

impl Early {
    fn empty() -> Box<Early> {
        Box::new(Early {
            key: AskKey::NONE,
            endpoint: EndpointId(0),
            message: MessageId(0),
            asked: Asked::NOTHING,
            deadline: 0,
            parcel: Parcel::default(),
        })
    }

    #[inline]
    fn call(&self) -> Call {
        Call { origin: Origin::Here, request: self.key.0, deadline: self.deadline, resolved: None, near: true }
    }
}

/// What became of an ask when its answer was awaited.
pub(crate) enum Handled {
    /// The reply is there: [`Shard::early_reply`] gives it.
    Replied(Box<Early>),
    /// It is there too, but others have their turn first; the asker is woken.
    Later,
    /// The table tells.
    ByTable,
}

/// The one message of a core that waits for its asker, if one does.
#[derive(Default)]
pub struct EarlyAsk {
    waiting: Cell<Option<Box<Early>>>,
    /// The ask that it belongs to, if one waits.
    key: Cell<AskKey>,
    spare: Cell<Option<Box<Early>>>,
    /// Further spare boxes, after nested asks: as many as were in use at once, so at most [`EARLY_DEPTH`] with all
    /// others.
    more_spares: SpareBoxes,
    /// How many more may be handled in this turn; none outside of the turns of tasks and endpoints.
    left: Cell<u32>,
    depth: Cell<u32>,
}

/// The spare boxes of nested asks. An ask that is not nested never comes here.
#[derive(Default)]
#[expect(clippy::vec_box, reason = "they are used as boxes, so that nothing of them is moved about")]
struct SpareBoxes(RefCell<Vec<Box<Early>>>);

impl SpareBoxes {
    #[cold]
    fn keep(&self, early: Box<Early>) {
        self.0.borrow_mut().push(early);
    }

    #[cold]
    fn take_or_make(&self) -> Box<Early> {
        let spare = self.0.borrow_mut().pop();
        spare.unwrap_or_else(Early::empty)
    }
}

/// While it lives, one more handler is being called; ends with it also if an asker's waker panics.
struct Deeper<'a>(&'a Cell<u32>);

impl Deeper<'_> {
    #[inline]
    fn new(depth: &Cell<u32>) -> Deeper<'_> {
        depth.set(depth.get() + 1);
        Deeper(depth)
    }
}

impl Drop for Deeper<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl EarlyAsk {
    #[inline]
    fn take(&self) -> Option<Box<Early>> {
        self.key.set(AskKey::NONE);
        self.waiting.take()
    }

    /// Keeps the box for the next message. What is left in it is dropped, which is the user's code: no table is borrowed.
    #[inline]
    fn put_back(&self, mut early: Box<Early>) {
        early.parcel.clear();
        self.keep(early);
    }

    /// Keeps the box as the one that is used next.
    #[inline]
    fn keep(&self, early: Box<Early>) {
        if let Some(nested) = self.spare.replace(Some(early)) {
            self.more_spares.keep(nested);
        }
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
    pub(super) fn keep_early<M: Ask>(&self, endpoint: EndpointId, message: M, asked: Asked, deadline: u64) -> AskKey {
        let key = self.pending.borrow_mut().reserve();
        let mut early = self.early.spare.take().unwrap_or_else(|| self.early.more_spares.take_or_make());
        (early.key, early.endpoint, early.message) = (key, endpoint, M::ID);
        (early.asked, early.deadline) = (asked, deadline);
        early.parcel.fill(message);
        self.early.key.set(key);
        self.early.waiting.set(Some(early));
        key
    }

    /// The asker awaits the answer: its message is handled now, if it still waits for that.
    ///
    /// Whatever its handler has woken runs before the asker goes on, as it does after a turn of the endpoint.
    #[inline]
    pub(crate) fn handle_early(self: &Rc<Self>, key: AskKey, cx: &mut Context<'_>) -> Handled {
        if self.early.key.get() == key { self.call_early(cx) } else { Handled::ByTable }
    }

    fn call_early(self: &Rc<Self>, cx: &mut Context<'_>) -> Handled {
        let Some(mut early) = self.early.take() else { return Handled::ByTable };
        self.early.left.set(self.early.left.get().saturating_sub(1));
        let deeper = Deeper::new(&self.early.depth);
        let (endpoint, call, message) = (early.endpoint, early.call(), early.message);
        let called = self.dispatcher.call(endpoint, call, message, &mut early.parcel, self.path());
        if let Called::Replied = called
            && self.executor.ready_len() == 0
        {
            self.pending.borrow_mut().release(early.key);
            return Handled::Replied(early);
        }
        let handled = self.answer_by_table(&mut early, called, cx);
        drop(deeper);
        self.early.keep(early);
        handled
    }

    /// The reply that [`handle_early`](Self::handle_early) gave; none if it is of another type.
    #[inline]
    pub(crate) fn early_reply<R: 'static>(&self, mut early: Box<Early>) -> Option<R> {
        let Some(reply) = early.parcel.remove() else {
            self.early.put_back(early);
            return None;
        };
        self.early.keep(early);
        Some(reply)
    }

    /// The handler may await, has failed, or has woken somebody.
    #[cold]
    fn answer_by_table(self: &Rc<Self>, early: &mut Early, called: Called, cx: &mut Context<'_>) -> Handled {
        self.enter_early(early);
        match called {
            Called::NotNow => self.deliver_early(early, true),
            Called::Replied => self.complete(early.key, Ok(early.parcel.take_out())),
            Called::Failed(error) => self.fail(early.key, &error.failure()),
        }
        early.parcel.clear();
        let waits = self.pending.borrow().is_waiting(early.key);
        if waits || self.executor.ready_len() == 0 {
            return Handled::ByTable;
        }
        cx.waker().wake_by_ref();
        Handled::Later
    }

    /// Something else comes first: the message goes into its inbox.
    #[inline]
    pub(super) fn queue_early(self: &Rc<Self>) {
        if self.early.key.get() != AskKey::NONE
            && let Some(mut early) = self.early.take()
        {
            self.enter_early(&early);
            self.deliver_early(&mut early, false);
            self.early.put_back(early);
        }
    }

    fn deliver_early(self: &Rc<Self>, early: &mut Early, now: bool) {
        let (endpoint, call, message) = (early.endpoint, early.call(), early.message);
        self.dispatcher.deliver_parcel(endpoint, call, message, &mut early.parcel, now, &self.path());
    }

    fn enter_early(&self, early: &Early) {
        self.pending.borrow_mut().enter(early.key, Waiter::Future(None), early.asked, early.deadline);
    }

    /// The ask was given up: its message is dropped; false if it does not wait here.
    pub(super) fn drop_early(&self, key: AskKey) -> bool {
        if self.early.key.get() != key {
            return false;
        }
        let Some(early) = self.early.take() else { return false };
        self.pending.borrow_mut().release(key);
        self.count(|counters| counters.cancelled += 1);
        self.early.put_back(early);
        true
    }
}

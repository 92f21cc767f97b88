//! The asks of a core that wait for their answer.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::ask_cell::AskCell;
use super::ask_key::AskKey;
use super::asked::{LimitedBy, Via};
use super::asks_by_peer::AsksByPeer;
pub use super::asks_by_peer::{Batch, Next};
use super::deadlines::Deadlines;
use super::errors::AskError;
pub use super::waiter::{ByFuture, Waiter, Waits};
use crate::executor::catch::wake;
use crate::mesh::parcel::Parcel;
use crate::wire::codec::{self, CodecError};
use crate::wire::frame::EndpointId;
use crate::wire::limits::DecodeLimits;
use crate::wire::message::Message;
use crate::wire::told::Teller;

/// Ends an ask with the bytes of its reply; [`end_with_bytes`] for the type that the asker expects.
pub type EndWithBytes =
    fn(&RefCell<Pending>, AskKey, &[u8], &DecodeLimits, &Teller) -> Result<Option<Notify>, CodecError>;

/// Decodes a reply that `teller` has sent and ends its ask with it. The ask is open still if that fails. The table is not
/// borrowed while the value is decoded or, if nobody waits for it any more, dropped.
///
/// # Errors
/// The bytes are not the reply that is expected, or it is beyond `limits`.
pub fn end_with_bytes<R>(
    table: &RefCell<Pending>,
    key: AskKey,
    bytes: &[u8],
    limits: &DecodeLimits,
    teller: &Teller,
) -> Result<Option<Notify>, CodecError>
where
    R: DeserializeOwned + Send + 'static,
{
    codec::decode_then(bytes, limits, Some(teller), |reply: R| {
        let waits = table.borrow().is_waiting(key);
        if waits { table.borrow_mut().reply(key, |into| into.fill(reply)) } else { None }
    })
}

/// What the core keeps of an ask, beside who waits for it and until when.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Where it went.
    pub via: Via,
    /// What is asked.
    pub kind: &'static AskKind,
    /// How long it may take, in nanoseconds.
    pub timeout_ns: u64,
    /// Who set that.
    pub limited_by: LimitedBy,
}

impl Asked {
    /// Of a place that no ask has had yet.
    pub const NOTHING: Asked = Asked {
        via: Via::Env { id: EndpointId(0), core: 0 },
        kind: &AskKind { name: "", version: 0, end_with_bytes: end_with_bytes::<()> },
        timeout_ns: 0,
        limited_by: LimitedBy::Config,
    };

    /// How long it may take, and where that can be changed.
    pub fn limit(&self) -> (Duration, &'static str) {
        (Duration::from_nanos(self.timeout_ns), self.limited_by.setting())
    }
}

/// What is the same for all asks of one type.
#[derive(Debug)]
pub struct AskKind {
    /// The name of the message, for errors.
    pub name: &'static str,
    /// Its version.
    pub version: u16,
    /// How its reply is decoded.
    pub end_with_bytes: EndWithBytes,
}

impl AskKind {
    /// Of the asks with the message `M`.
    pub const fn of<M: Message>() -> &'static AskKind {
        const { &AskKind { name: M::NAME, version: M::VERSION, end_with_bytes: end_with_bytes::<M::Reply> } }
    }
}

/// A place in the table. An ask is entered and ended by writing its fields where they lie.
#[derive(Debug)]
struct Slot {
    /// Of the ask that has the place; 0 if none has, and no ask has that.
    serial: u32,
    phase: Phase,
    /// Who waits; nobody once the answer is there.
    waiter: Waiter,
    /// What is awaited; that of the last ask if none has the place.
    asked: Asked,
    /// The reply, or a [`Failed`], once it is there. It stays where it was decoded to until its future takes it: it is moved
    /// as the value that it is, not as a whole parcel.
    answer: Parcel,
}

impl Slot {
    fn waits_for(&self, matches: impl Fn(&Via) -> bool) -> bool {
        self.serial != 0 && self.phase == Phase::Waiting && matches(&self.asked.via)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Named, and not entered yet.
    Reserved,
    Waiting,
    Answered,
}

/// An error in the place of a reply; no reply has this type.
struct Failed(AskError);

#[cold]
fn ended_before() -> AskError {
    AskError::NeverReplied { target: "an ask that has ended before".into() }
}

/// The answer in a parcel of the table.
fn open(parcel: Parcel) -> Result<Parcel, AskError> {
    match parcel.take::<Failed>() {
        Ok(Failed(error)) => Err(error),
        Err(reply) => Ok(reply),
    }
}

/// The asks of a core that wait for their answer, found by index.
#[derive(Debug)]
pub struct Pending {
    slots: Vec<Slot>,
    free: Vec<u32>,
    serial: u32,
    limit: usize,
    deadlines: Deadlines,
    /// Those that were relayed for other cores, by core and its ask.
    relayed: HashMap<(u16, u64), AskKey>,
    by_peer: AsksByPeer,
}

/// Why a future gets no reply of its type. Boxed wherever it stands beside a reply, which it would make larger.
#[derive(Debug)]
pub enum Unread {
    /// The ask failed.
    Failed(AskError),
    /// The reply is of another type.
    Other(Parcel),
}

impl Unread {
    #[cold]
    fn of(answer: Result<Parcel, AskError>) -> Box<Unread> {
        Box::new(match answer {
            Ok(other) => Unread::Other(other),
            Err(error) => Unread::Failed(error),
        })
    }

    fn failed(error: AskError) -> Box<Unread> {
        Unread::of(Err(error))
    }
}

impl Pending {
    /// An empty table for up to `limit` asks.
    pub fn new(limit: usize) -> Pending {
        let (slots, free, relayed) = (Vec::new(), Vec::new(), HashMap::new());
        Pending { slots, free, serial: 0, limit, deadlines: Deadlines::new(), relayed, by_peer: AsksByPeer::new() }
    }

    /// Whether one more ask fits.
    #[inline]
    pub fn has_room(&self) -> bool {
        self.len() < self.limit
    }

    /// Names an ask that is about to be entered or released again. Until then nothing ends it.
    #[inline]
    pub fn reserve(&mut self) -> AskKey {
        self.serial = self.serial.wrapping_add(1).max(1);
        let place = self.free.pop().map_or_else(|| self.grow(), |place| place as usize);
        let slot = &mut self.slots[place];
        (slot.serial, slot.phase) = (self.serial, Phase::Reserved);
        AskKey::new(place, self.serial)
    }

    /// One more place, the last.
    #[cold]
    fn grow(&mut self) -> usize {
        let (waiter, answer) = (Waiter::Future(None), Parcel::default());
        self.slots.push(Slot { serial: 0, phase: Phase::Reserved, waiter, asked: Asked::NOTHING, answer });
        self.slots.len() - 1
    }

    /// Enters an ask that was named, with its deadline, in nanoseconds of the core's clock.
    #[inline]
    pub fn enter(&mut self, key: AskKey, waiter: Waiter, asked: Asked, deadline: u64) {
        let Some(slot) = self.get(key) else { return };
        (slot.phase, slot.asked, slot.waiter) = (Phase::Waiting, asked, waiter);
        if let Waiter::Core { core, request } = slot.waiter {
            self.relayed.insert((core, request), key);
        }
        self.by_peer.insert(key.slot(), &asked.via);
        self.deadlines.set(key.slot(), deadline);
    }

    /// Names an ask and enters it.
    #[inline]
    pub fn insert(&mut self, waiter: Waiter, asked: Asked, deadline: u64) -> AskKey {
        let key = self.reserve();
        self.enter(key, waiter, asked, deadline);
        key
    }

    /// Takes back the name of an ask that was not entered.
    #[inline]
    pub fn release(&mut self, key: AskKey) {
        self.vacate(key);
    }

    #[inline]
    fn get(&mut self, key: AskKey) -> Option<&mut Slot> {
        self.slots.get_mut(key.slot()).filter(|slot| slot.serial == key.serial())
    }

    #[inline]
    fn get_waiting(&mut self, key: AskKey) -> Option<&mut Slot> {
        self.get(key).filter(|slot| slot.phase == Phase::Waiting)
    }

    /// Frees the place of an ask, whose answer has been taken out of it.
    #[inline]
    fn vacate(&mut self, key: AskKey) {
        if let Some(slot) = self.get(key) {
            slot.serial = 0;
            self.free.push(key.slot() as u32);
            if self.is_empty() {
                self.deadlines.all_cleared();
            }
        }
    }

    /// What is asked, if the answer is still awaited.
    #[inline]
    pub fn waiting(&self, key: AskKey) -> Option<&Asked> {
        self.is_waiting(key).then(|| &self.slots[key.slot()].asked)
    }

    /// When the ask ends by itself, if it still waits.
    pub fn deadline(&self, key: AskKey) -> Option<u64> {
        if self.is_waiting(key) { self.deadlines.get(key.slot()) } else { None }
    }

    /// When to call [`expired`](Self::expired) next, in nanoseconds of the core's clock: never before a deadline, less than
    /// a tick after it. It can be too early, once for an ask that has ended.
    #[inline]
    pub fn next_deadline(&self) -> Option<u64> {
        self.deadlines.next()
    }

    /// The asks whose time is up, in the order of their deadlines, at most 256 at one time. They are still in the table; no
    /// other call has them again.
    #[inline]
    pub fn expired(&mut self, now: u64) -> Vec<AskKey> {
        let places = self.deadlines.expired(now);
        places.into_iter().map(|place| AskKey::new(place, self.slots[place].serial)).collect()
    }

    /// Whether the ask still waits.
    #[inline]
    pub fn is_waiting(&self, key: AskKey) -> bool {
        let slot = self.slots.get(key.slot());
        slot.is_some_and(|slot| slot.serial == key.serial() && slot.phase == Phase::Waiting)
    }

    /// Ends an ask that still waits: `put` gives the reply its place. Gives back whom to wake, once no table is borrowed.
    /// Nothing, and `put` is not called, if the ask does not wait.
    #[inline]
    pub fn reply(&mut self, key: AskKey, put: impl FnOnce(&mut Parcel)) -> Option<Notify> {
        let slot = self.get_waiting(key)?;
        let Waiter::Future(waker) = &mut slot.waiter else {
            let mut reply = Parcel::default();
            put(&mut reply);
            return self.complete_elsewhere(key, Ok(reply));
        };
        let waker = waker.take();
        slot.phase = Phase::Answered;
        put(&mut slot.answer);
        self.deadlines.clear(key.slot());
        Some(Notify::Task(waker))
    }

    /// Ends an ask that still waits, as [`reply`](Self::reply) does.
    pub fn complete(&mut self, key: AskKey, answer: Result<Parcel, AskError>) -> Option<Notify> {
        match (&self.get_waiting(key)?.waiter, answer) {
            (Waiter::Future(_), Ok(mut reply)) => self.reply(key, |into| reply.move_into(into)),
            (Waiter::Future(_), Err(error)) => self.reply(key, |into| into.fill(Failed(error))),
            (_, answer) => self.complete_elsewhere(key, answer),
        }
    }

    /// Ends an ask whose answer is not for a future of this core.
    fn complete_elsewhere(&mut self, key: AskKey, answer: Result<Parcel, AskError>) -> Option<Notify> {
        let slot = self.get_waiting(key)?;
        let notify = match std::mem::replace(&mut slot.waiter, Waiter::Future(None)) {
            Waiter::Future(waker) => return Some(Notify::Task(waker)),
            Waiter::Cell(cell) => Elsewhere::Cell(cell, answer),
            Waiter::Core { core, request } => {
                self.relayed.remove(&(core, request));
                Elsewhere::Core { core, request, answer }
            }
        };
        self.deadlines.clear(key.slot());
        self.vacate(key);
        Some(Notify::Elsewhere(Box::new(notify)))
    }

    /// The answer of an ask whose future is on this core. Until it is there `waker` is kept in exchange for the one before,
    /// which is dropped where no table is borrowed: that may run any code.
    #[inline]
    pub fn poll<R: 'static>(&mut self, key: AskKey, waker: &mut Option<Waker>) -> Poll<Result<R, Box<Unread>>> {
        let Some(slot) = self.get(key) else { return Poll::Ready(Err(Unread::failed(ended_before()))) };
        if slot.phase != Phase::Answered {
            if let Waiter::Future(kept) = &mut slot.waiter {
                std::mem::swap(kept, waker);
            }
            return Poll::Pending;
        }
        let answer = match slot.answer.remove() {
            Some(reply) => Ok(reply),
            None => Err(Unread::of(open(slot.answer.take_out()))),
        };
        self.vacate(key);
        Poll::Ready(answer)
    }

    /// Forgets an ask whose future was dropped. Who waited, or an answer that nobody took, comes back too, to be dropped
    /// where no table is borrowed.
    pub fn forget(&mut self, key: AskKey) -> Option<Forgotten> {
        let slot = self.get(key)?;
        let waiter = std::mem::replace(&mut slot.waiter, Waiter::Future(None));
        let relayed = if let Waiter::Core { core, request } = waiter { Some((core, request)) } else { None };
        let forgotten = match slot.phase {
            Phase::Waiting => Forgotten::Waiting(slot.asked.via, waiter),
            Phase::Answered => Forgotten::Answered(open(slot.answer.take_out())),
            Phase::Reserved => return None,
        };
        if let Some(relayed) = relayed {
            self.relayed.remove(&relayed);
        }
        self.deadlines.clear(key.slot());
        self.vacate(key);
        Some(forgotten)
    }

    /// Lets an ask whose future moved to another thread be answered there. If the answer is here already it comes
    /// back, to be put into the cell once no table is borrowed; if not, who waited until now does.
    pub fn hand_over(&mut self, key: AskKey, cell: Arc<AskCell>) -> Forgotten {
        if let Some(slot) = self.get_waiting(key) {
            return Forgotten::Waiting(slot.asked.via, std::mem::replace(&mut slot.waiter, Waiter::Cell(cell)));
        }
        self.forget(key).unwrap_or_else(|| Forgotten::Answered(Err(ended_before())))
    }

    /// The ask that was relayed for this ask of another core.
    pub fn relayed(&self, core: u16, request: u64) -> Option<AskKey> {
        self.relayed.get(&(core, request)).copied()
    }

    /// Takes the asks that wait for this peer now out of those that wait for it, to be ended: they stay in the table,
    /// and end by themselves if that comes first. None if there are none.
    pub fn detach(&mut self, peer: u32) -> Option<Batch> {
        self.by_peer.detach(peer)
    }

    /// The next ask of a batch that still waits. It belongs to the batch no longer.
    pub fn next_of(&mut self, batch: &Batch) -> Next<AskKey> {
        let slots = &self.slots;
        match self.by_peer.next_of(batch, |place, peer| slots[place].waits_for(|via| via.went_to(peer))) {
            Next::Ask(place) => Next::Ask(AskKey::new(place, slots[place].serial)),
            Next::Later => Next::Later,
            Next::Nothing => Next::Nothing,
        }
    }

    /// A batch has been ended.
    pub fn end_batch(&mut self, batch: Batch) {
        self.by_peer.end_batch(batch);
    }

    /// Whether asks refer to this peer: they wait for it, or for a core that has sent them to it, or are being ended.
    pub fn refer_to(&mut self, peer: u32) -> bool {
        let slots = &self.slots;
        self.by_peer.refer_to(peer, |place, peer| slots[place].waits_for(|via| via.refers_to(peer)))
    }

    /// All asks that wait.
    pub fn keys(&self) -> Vec<AskKey> {
        let waiting = self.slots.iter().enumerate().filter(|(_, slot)| slot.waits_for(|_| true));
        waiting.map(|(place, slot)| AskKey::new(place, slot.serial)).collect()
    }

    /// Asks in the table, answered but not yet taken ones included.
    #[inline]
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether nobody waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An ask whose future was dropped, or moved to another thread.
#[derive(Debug)]
pub enum Forgotten {
    /// It still waited: where it went, and who waited. If it was dropped, whoever was asked this way is to be told.
    Waiting(Via, Waiter),
    /// It was answered.
    Answered(Result<Parcel, AskError>),
}

/// Whom an answer wakes.
#[derive(Debug)]
#[must_use]
pub enum Notify {
    /// A task, if its future was polled already.
    Task(Option<Waker>),
    /// Another thread or core, with its answer.
    Elsewhere(Box<Elsewhere>),
}

/// An answer for somebody who is not on this core.
#[derive(Debug)]
pub enum Elsewhere {
    /// Another thread, with its answer.
    Cell(Arc<AskCell>, Result<Parcel, AskError>),
    /// An ask of another core, with its answer.
    Core {
        /// The core.
        core: u16,
        /// The ask, as that core knows it.
        request: u64,
        /// The answer.
        answer: Result<Parcel, AskError>,
    },
}

impl Notify {
    /// Wakes. Wakers may run any code, so no table is borrowed here. What is for another core comes back: the core, its
    /// ask, the answer.
    #[inline]
    pub fn wake(self) -> Option<(u16, u64, Result<Parcel, AskError>)> {
        match self {
            Notify::Task(None) => None,
            Notify::Task(Some(waker)) => {
                wake(waker);
                None
            }
            Notify::Elsewhere(to) => match *to {
                Elsewhere::Cell(cell, answer) => {
                    cell.answer.put(answer);
                    None
                }
                Elsewhere::Core { core, request, answer } => Some((core, request, answer)),
            },
        }
    }
}

#[cfg(test)]
#[path = "pending_tests.rs"]
mod tests;

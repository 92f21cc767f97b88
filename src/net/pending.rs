//! The asks of a core that wait for their answer.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::ask_cell::AskCell;
use super::ask_key::AskKey;
use super::errors::AskError;
use crate::executor::timers::TimerKey;
use crate::mesh::parcel::Parcel;
use crate::wire::codec::{self, CodecError};
use crate::wire::frame::EndpointId;
use crate::wire::message::Message;

/// Where the limit of an ask with a timeout of its own can be changed.
pub const OWN_TIMEOUT: &str = "the timeout given to ask_within";

/// Ends an ask with the bytes of its reply; [`end_with_bytes`] for the type that the asker expects.
pub type EndWithBytes = fn(&RefCell<Pending>, AskKey, &[u8]) -> Result<Option<Completed>, CodecError>;

/// Decodes a reply and ends its ask with it. The ask is open still if that fails. The table is not borrowed while the
/// value is decoded or, if nobody waits for it any more, dropped.
///
/// # Errors
/// The bytes are not the reply that is expected.
pub fn end_with_bytes<R>(table: &RefCell<Pending>, key: AskKey, bytes: &[u8]) -> Result<Option<Completed>, CodecError>
where
    R: DeserializeOwned + Send + 'static,
{
    codec::decode_then(bytes, |reply: R| {
        let waits = table.borrow().is_waiting(key);
        if waits { table.borrow_mut().reply(key, reply) } else { None }
    })
}

/// Where an ask went: for errors, and to find those that a lost connection took along.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Via {
    /// An endpoint of this env.
    Env {
        /// The endpoint.
        id: EndpointId,
        /// The core that has it.
        core: u16,
    },
    /// An endpoint of a peer.
    Peer {
        /// Index of the peer.
        peer: u32,
        /// Number of the endpoint's name at the peer.
        name: u32,
        /// The key that chose the core, if one did.
        key: Option<u16>,
    },
    /// An endpoint of a peer that does not listen, through the core that has a connection with it.
    Relayed {
        /// That core.
        core: u16,
        /// Index of the peer.
        peer: u32,
        /// Number of the endpoint's name at the peer.
        name: u32,
    },
}

/// Who waits for the answer.
#[derive(Debug)]
pub enum Waiter {
    /// A future on the core; the waker of the task that polled it last.
    Future(Option<Waker>),
    /// Another thread.
    Cell(Arc<AskCell>),
    /// An ask of another core, which this core has relayed.
    Core {
        /// The core.
        core: u16,
        /// The ask, as that core knows it.
        request: u64,
    },
}

/// An ask without an answer.
#[derive(Debug)]
pub struct Waiting {
    /// Who waits.
    pub waiter: Waiter,
    /// Where it went.
    pub via: Via,
    /// What is asked.
    pub kind: &'static AskKind,
    /// The timer that ends it.
    pub timer: TimerKey,
    /// When it ends, in nanoseconds of the core's clock.
    pub deadline: u64,
    /// How long it may take, in nanoseconds.
    pub timeout_ns: u64,
    /// Who set that.
    pub limited_by: LimitedBy,
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

/// Who set the limit of an ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LimitedBy {
    /// The configuration.
    Config,
    /// The caller.
    Caller,
    /// The call whose handler made the ask.
    HandledCall,
}

impl LimitedBy {
    /// Where it can be changed.
    pub fn setting(self) -> &'static str {
        match self {
            LimitedBy::Config => "Config::ask_timeout",
            LimitedBy::Caller => OWN_TIMEOUT,
            LimitedBy::HandledCall => "the deadline of the call that was being handled",
        }
    }
}

impl Waiting {
    /// How long it may take, and where that can be changed.
    pub fn limit(&self) -> (Duration, &'static str) {
        (Duration::from_nanos(self.timeout_ns), self.limited_by.setting())
    }
}

/// A place in the table.
#[derive(Debug)]
struct Slot {
    /// Of the ask that has the place; 0 if none has, and no ask has that.
    serial: u32,
    state: State,
    /// The reply, once it is there. It stays where it was decoded to until its future takes it: it is moved as the value
    /// that it is, not as a whole parcel.
    reply: Parcel,
}

#[derive(Debug)]
enum State {
    Waiting(Waiting),
    Replied,
    Failed(AskError),
}

impl Slot {
    /// Takes an answer out that is no reply of the type that was expected.
    #[cold]
    fn unread(&mut self) -> Unread {
        match std::mem::replace(&mut self.state, State::Replied) {
            State::Failed(error) => Unread::Failed(error),
            State::Replied | State::Waiting(_) => Unread::Other(self.reply.take_out()),
        }
    }
}

#[cold]
fn ended_before() -> AskError {
    AskError::NeverReplied { target: "an ask that has ended before".into() }
}

/// The asks of a core that wait for their answer, found by index.
#[derive(Debug)]
pub struct Pending {
    slots: Vec<Slot>,
    free: Vec<u32>,
    serial: u32,
    limit: usize,
    /// Those that were relayed for other cores, by core and its ask.
    relayed: HashMap<(u16, u64), AskKey>,
}

/// Why a future gets no reply of its type.
#[derive(Debug)]
pub enum Unread {
    /// The ask failed.
    Failed(AskError),
    /// The reply is of another type.
    Other(Parcel),
}

impl Pending {
    /// An empty table for up to `limit` asks.
    pub fn new(limit: usize) -> Pending {
        Pending { slots: Vec::new(), free: Vec::new(), serial: 0, limit, relayed: HashMap::new() }
    }

    /// Whether one more ask fits.
    #[inline]
    pub fn has_room(&self) -> bool {
        self.len() < self.limit
    }

    /// The key that the next insertion will have.
    #[inline]
    pub fn next_key(&mut self) -> AskKey {
        self.serial = self.serial.wrapping_add(1).max(1);
        let slot = self.free.last().map_or(self.slots.len(), |&slot| slot as usize);
        AskKey::new(slot, self.serial)
    }

    /// Enters an ask under the key that [`next_key`](Self::next_key) just gave.
    #[inline]
    pub fn insert(&mut self, key: AskKey, waiting: Waiting) {
        if let Waiter::Core { core, request } = waiting.waiter {
            self.relayed.insert((core, request), key);
        }
        let (serial, state) = (key.serial(), State::Waiting(waiting));
        let slot = match self.free.pop() {
            Some(slot) => {
                let place = &mut self.slots[slot as usize];
                (place.serial, place.state) = (serial, state);
                slot as usize
            }
            None => {
                self.slots.push(Slot { serial, state, reply: Parcel::new(()) });
                self.slots.len() - 1
            }
        };
        debug_assert_eq!(slot, key.slot());
    }

    /// An ask that was just entered went another way than it says.
    pub fn reroute(&mut self, key: AskKey, via: Via) {
        if let Some(waiting) = self.waiting(key) {
            waiting.via = via;
        }
    }

    #[inline]
    fn get(&mut self, key: AskKey) -> Option<&mut Slot> {
        self.slots.get_mut(key.slot()).filter(|slot| slot.serial == key.serial())
    }

    /// Frees the place of an ask, whose answer has been taken out of it.
    #[inline]
    fn vacate(&mut self, key: AskKey) {
        if let Some(slot) = self.get(key) {
            slot.serial = 0;
            self.free.push(key.slot() as u32);
        }
    }

    /// The ask, if it still waits.
    #[inline]
    pub fn waiting(&mut self, key: AskKey) -> Option<&mut Waiting> {
        match &mut self.get(key)?.state {
            State::Waiting(waiting) => Some(waiting),
            State::Replied | State::Failed(_) => None,
        }
    }

    /// When the ask ends by itself, if it still waits.
    pub fn deadline(&self, key: AskKey) -> Option<u64> {
        match self.slots.get(key.slot()) {
            Some(Slot { serial, state: State::Waiting(waiting), .. }) if *serial == key.serial() => {
                Some(waiting.deadline)
            }
            _ => None,
        }
    }

    /// Whether the ask still waits.
    #[inline]
    pub fn is_waiting(&self, key: AskKey) -> bool {
        let slot = self.slots.get(key.slot()).filter(|slot| slot.serial == key.serial());
        slot.is_some_and(|slot| matches!(slot.state, State::Waiting(_)))
    }

    /// Ends an ask that still waits with a reply. Gives back what waited: its timer must be cancelled and its waiter
    /// woken, once no table is borrowed. Nothing, and the reply is dropped here, if the ask does not wait.
    #[inline]
    pub fn reply<R: Send + 'static>(&mut self, key: AskKey, reply: R) -> Option<Completed> {
        let slot = self.get(key)?;
        let State::Waiting(waiting) = &mut slot.state else { return None };
        let Waiter::Future(waker) = &mut waiting.waiter else {
            return self.complete(key, Ok(Parcel::new(reply)));
        };
        let completed = Completed { timer: waiting.timer, notify: Notify::Task(waker.take()) };
        slot.state = State::Replied;
        slot.reply.fill(reply);
        Some(completed)
    }

    /// Ends an ask that still waits, as [`reply`](Self::reply) does.
    #[inline]
    pub fn complete(&mut self, key: AskKey, answer: Result<Parcel, AskError>) -> Option<Completed> {
        let slot = self.get(key)?;
        let State::Waiting(waiting) = &mut slot.state else { return None };
        let timer = waiting.timer;
        let waiter = std::mem::replace(&mut waiting.waiter, Waiter::Future(None));
        let notify = match waiter {
            Waiter::Future(wake) => {
                match answer {
                    Ok(reply) => (slot.state, slot.reply) = (State::Replied, reply),
                    Err(error) => slot.state = State::Failed(error),
                }
                return Some(Completed { timer, notify: Notify::Task(wake) });
            }
            Waiter::Cell(cell) => Elsewhere::Cell(cell, answer),
            Waiter::Core { core, request } => {
                self.relayed.remove(&(core, request));
                Elsewhere::Core { core, request, answer }
            }
        };
        self.vacate(key);
        Some(Completed { timer, notify: Notify::Elsewhere(Box::new(notify)) })
    }

    /// The answer of an ask whose future is on this core.
    #[inline]
    pub fn poll<R: 'static>(&mut self, key: AskKey, cx: &mut Context<'_>) -> Poll<Result<R, Unread>> {
        let Some(slot) = self.get(key) else { return Poll::Ready(Err(Unread::Failed(ended_before()))) };
        match &mut slot.state {
            State::Waiting(waiting) => {
                if let Waiter::Future(waker) = &mut waiting.waiter
                    && !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()))
                {
                    *waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
            State::Replied if let Some(reply) = slot.reply.remove() => {
                slot.serial = 0;
                self.free.push(key.slot() as u32);
                Poll::Ready(Ok(reply))
            }
            State::Replied | State::Failed(_) => {
                let unread = slot.unread();
                self.vacate(key);
                Poll::Ready(Err(unread))
            }
        }
    }

    /// Forgets an ask whose future was dropped. An answer that nobody took comes back too, to be dropped where no
    /// table is borrowed.
    pub fn forget(&mut self, key: AskKey) -> Option<Forgotten> {
        let slot = self.get(key)?;
        let forgotten = match std::mem::replace(&mut slot.state, State::Replied) {
            State::Waiting(waiting) => Forgotten::Waiting(waiting),
            State::Replied => Forgotten::Answered(Ok(slot.reply.take_out())),
            State::Failed(error) => Forgotten::Answered(Err(error)),
        };
        if let Forgotten::Waiting(Waiting { waiter: Waiter::Core { core, request }, .. }) = forgotten {
            self.relayed.remove(&(core, request));
        }
        self.vacate(key);
        Some(forgotten)
    }

    /// Lets an ask whose future moved to another thread be answered there. If the answer is here already it comes
    /// back, to be put into the cell once no table is borrowed.
    pub fn hand_over(&mut self, key: AskKey, cell: Arc<AskCell>) -> Option<Result<Parcel, AskError>> {
        if let Some(waiting) = self.waiting(key) {
            waiting.waiter = Waiter::Cell(cell);
            return None;
        }
        match self.forget(key) {
            Some(Forgotten::Answered(answer)) => Some(answer),
            _ => Some(Err(ended_before())),
        }
    }

    /// The ask that was relayed for this ask of another core.
    pub fn relayed(&self, core: u16, request: u64) -> Option<AskKey> {
        self.relayed.get(&(core, request)).copied()
    }

    /// The keys of all asks that wait and went where `matches` says.
    pub fn keys(&self, matches: impl Fn(&Via) -> bool) -> Vec<AskKey> {
        let waiting = self.slots.iter().enumerate().filter_map(|(place, slot)| match &slot.state {
            State::Waiting(waiting) if slot.serial != 0 && matches(&waiting.via) => {
                Some(AskKey::new(place, slot.serial))
            }
            _ => None,
        });
        waiting.collect()
    }

    /// Asks in the table, answered but not yet taken ones included.
    #[inline]
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An ask whose future was dropped.
#[derive(Debug)]
pub enum Forgotten {
    /// It still waited: the peer is to be told, the timer cancelled.
    Waiting(Waiting),
    /// It was answered.
    Answered(Result<Parcel, AskError>),
}

/// What is left to do for an ask that just ended.
#[derive(Debug)]
#[must_use]
pub struct Completed {
    /// Cancel this.
    pub timer: TimerKey,
    /// Wake this.
    pub notify: Notify,
}

/// Whom an answer wakes.
#[derive(Debug)]
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
                waker.wake();
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

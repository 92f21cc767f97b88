//! The asks of a core that wait for their answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use slab::Slab;

use super::ask_cell::AskCell;
use super::ask_key::AskKey;
use super::errors::AskError;
use crate::executor::timers::TimerKey;
use crate::mesh::parcel::Parcel;
use crate::wire::codec::CodecError;
use crate::wire::frame::EndpointId;

/// Where the limit of an ask with a timeout of its own can be changed.
pub const OWN_TIMEOUT: &str = "the timeout given to ask_within";

/// Turns the bytes of a reply into the value that the asker expects.
pub type Decode = fn(&[u8]) -> Result<Parcel, CodecError>;

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
    /// How to decode the reply.
    pub decode: Decode,
    /// Where it went.
    pub via: Via,
    /// Name and version of the message, for errors.
    pub message: (&'static str, u16),
    /// The timer that ends it.
    pub timer: TimerKey,
    /// When it ends, in nanoseconds of the core's clock.
    pub deadline: u64,
    /// How long it may take, in nanoseconds.
    pub timeout_ns: u64,
    /// Who set that.
    pub limited_by: LimitedBy,
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

#[derive(Debug)]
enum State {
    Waiting(Waiting),
    Done(Result<Parcel, AskError>),
}

/// The asks of a core that wait for their answer, found by index.
#[derive(Debug)]
pub struct Pending {
    slots: Slab<(u32, State)>,
    serial: u32,
    limit: usize,
    /// Those that were relayed for other cores, by core and its ask.
    relayed: HashMap<(u16, u64), AskKey>,
}

impl Pending {
    /// An empty table for up to `limit` asks.
    pub fn new(limit: usize) -> Pending {
        Pending { slots: Slab::new(), serial: 0, limit, relayed: HashMap::new() }
    }

    /// Whether one more ask fits.
    #[inline]
    pub fn has_room(&self) -> bool {
        self.slots.len() < self.limit
    }

    /// The key that the next insertion will have.
    #[inline]
    pub fn next_key(&mut self) -> AskKey {
        self.serial = self.serial.wrapping_add(1).max(1);
        AskKey::new(self.slots.vacant_key(), self.serial)
    }

    /// Enters an ask under the key that [`next_key`](Self::next_key) just gave.
    #[inline]
    pub fn insert(&mut self, key: AskKey, waiting: Waiting) {
        if let Waiter::Core { core, request } = waiting.waiter {
            self.relayed.insert((core, request), key);
        }
        let slot = self.slots.insert((key.serial(), State::Waiting(waiting)));
        debug_assert_eq!(slot, key.slot());
    }

    /// An ask that was just entered went another way than it says.
    pub fn reroute(&mut self, key: AskKey, via: Via) {
        if let Some(waiting) = self.waiting(key) {
            waiting.via = via;
        }
    }

    #[inline]
    fn get(&mut self, key: AskKey) -> Option<&mut State> {
        self.slots.get_mut(key.slot()).filter(|(serial, _)| *serial == key.serial()).map(|(_, state)| state)
    }

    /// The ask, if it still waits.
    #[inline]
    pub fn waiting(&mut self, key: AskKey) -> Option<&mut Waiting> {
        match self.get(key)? {
            State::Waiting(waiting) => Some(waiting),
            State::Done(_) => None,
        }
    }

    /// When the ask ends by itself, if it still waits.
    pub fn deadline(&self, key: AskKey) -> Option<u64> {
        match self.slots.get(key.slot()) {
            Some((serial, State::Waiting(waiting))) if *serial == key.serial() => Some(waiting.deadline),
            _ => None,
        }
    }

    /// Whether the ask still waits.
    #[inline]
    pub fn is_waiting(&self, key: AskKey) -> bool {
        matches!(self.slots.get(key.slot()), Some((serial, State::Waiting(_))) if *serial == key.serial())
    }

    /// Ends an ask that still waits. Gives back what waited: its timer must be cancelled and its waiter woken, once
    /// no table is borrowed.
    #[inline]
    pub fn complete(&mut self, key: AskKey, answer: Result<Parcel, AskError>) -> Option<Completed> {
        let State::Waiting(waiting) = self.get(key)? else { return None };
        let timer = waiting.timer;
        if let Waiter::Future(waker) = &mut waiting.waiter {
            let wake = waker.take();
            self.slots[key.slot()].1 = State::Done(answer);
            return Some(Completed { timer, notify: Notify::Task(wake) });
        }
        let notify = match self.slots.remove(key.slot()).1 {
            State::Waiting(Waiting { waiter: Waiter::Cell(cell), .. }) => Notify::Cell(cell, answer),
            State::Waiting(Waiting { waiter: Waiter::Core { core, request }, .. }) => {
                self.relayed.remove(&(core, request));
                Notify::Core { core, request, answer }
            }
            _ => unreachable!("it was found waiting, and not by a future, above"),
        };
        Some(Completed { timer, notify })
    }

    /// The answer of an ask whose future is on this core.
    #[inline]
    pub fn poll(&mut self, key: AskKey, cx: &mut Context<'_>) -> Poll<Result<Parcel, AskError>> {
        match self.get(key) {
            Some(State::Waiting(waiting)) => {
                if let Waiter::Future(waker) = &mut waiting.waiter
                    && !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()))
                {
                    *waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
            Some(State::Done(_)) => match self.slots.remove(key.slot()).1 {
                State::Done(answer) => Poll::Ready(answer),
                State::Waiting(_) => unreachable!("it was found done above"),
            },
            None => Poll::Ready(Err(AskError::NeverReplied { target: "an ask that has ended before".into() })),
        }
    }

    /// Forgets an ask whose future was dropped. An answer that nobody took comes back too, to be dropped where no
    /// table is borrowed.
    pub fn forget(&mut self, key: AskKey) -> Option<Forgotten> {
        self.get(key)?;
        Some(match self.slots.remove(key.slot()).1 {
            State::Waiting(waiting) => {
                if let Waiter::Core { core, request } = waiting.waiter {
                    self.relayed.remove(&(core, request));
                }
                Forgotten::Waiting(waiting)
            }
            State::Done(answer) => Forgotten::Answered(answer),
        })
    }

    /// Lets an ask whose future moved to another thread be answered there. If the answer is here already it comes
    /// back, to be put into the cell once no table is borrowed.
    pub fn hand_over(&mut self, key: AskKey, cell: Arc<AskCell>) -> Option<Result<Parcel, AskError>> {
        if let Some(State::Waiting(waiting)) = self.get(key) {
            waiting.waiter = Waiter::Cell(cell);
            return None;
        }
        match self.poll(key, &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => None,
        }
    }

    /// The ask that was relayed for this ask of another core.
    pub fn relayed(&self, core: u16, request: u64) -> Option<AskKey> {
        self.relayed.get(&(core, request)).copied()
    }

    /// The keys of all asks that wait and went where `matches` says.
    pub fn keys(&self, matches: impl Fn(&Via) -> bool) -> Vec<AskKey> {
        let waiting = self.slots.iter().filter_map(|(slot, (serial, state))| match state {
            State::Waiting(waiting) if matches(&waiting.via) => Some(AskKey::new(slot, *serial)),
            _ => None,
        });
        waiting.collect()
    }

    /// Asks in the table, answered but not yet taken ones included.
    #[inline]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
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
            Notify::Task(waker) => {
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            Notify::Cell(cell, answer) => cell.answer.put(answer),
            Notify::Core { core, request, answer } => return Some((core, request, answer)),
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::timers::TimerWheel;

    fn waiting(waiter: Waiter, peer: u32) -> Waiting {
        Waiting {
            waiter,
            decode: |_| Ok(Parcel::new(())),
            via: Via::Peer { peer, name: 0, key: None },
            message: ("m", 1),
            timer: TimerWheel::new(0).arm(1, 1),
            deadline: 1,
            timeout_ns: 1,
            limited_by: LimitedBy::Config,
        }
    }

    fn ask(pending: &mut Pending) -> AskKey {
        let key = pending.next_key();
        pending.insert(key, waiting(Waiter::Future(None), 1));
        key
    }

    #[test]
    fn a_late_answer_never_reaches_the_next_ask_in_the_slot() {
        let mut pending = Pending::new(10);
        let first = ask(&mut pending);
        assert!(pending.forget(first).is_some());
        let second = ask(&mut pending);
        assert_eq!(first.slot(), second.slot());
        assert!(pending.complete(first, Ok(Parcel::new(1u32))).is_none());
        pending.complete(second, Ok(Parcel::new(2u32))).unwrap().notify.wake();
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(Ok(answer)) = pending.poll(second, &mut cx) else { panic!() };
        assert_eq!(answer.take::<u32>().unwrap(), 2);
        assert!(pending.is_empty());
    }

    #[test]
    fn an_ask_ends_once() {
        let mut pending = Pending::new(10);
        let key = ask(&mut pending);
        assert!(pending.complete(key, Ok(Parcel::new(1u32))).is_some());
        assert!(pending.complete(key, Ok(Parcel::new(2u32))).is_none());
        assert!(matches!(pending.forget(key), Some(Forgotten::Answered(Ok(_)))));
        assert!(pending.forget(key).is_none() && pending.is_empty());
    }

    #[test]
    fn a_cell_gets_its_answer_whether_it_came_before_or_after_the_hand_over() {
        let mut pending = Pending::new(10);
        for before in [false, true] {
            let key = ask(&mut pending);
            let cell = Arc::<AskCell>::default();
            if before {
                pending.complete(key, Ok(Parcel::new(5u8))).unwrap().notify.wake();
            }
            if let Some(answer) = pending.hand_over(key, cell.clone()) {
                cell.answer.put(answer);
            }
            if !before {
                pending.complete(key, Ok(Parcel::new(5u8))).unwrap().notify.wake();
            }
            assert_eq!(cell.answer.wait().unwrap().take::<u8>().unwrap(), 5);
            assert!(pending.is_empty());
        }
    }

    #[test]
    fn a_relayed_ask_is_found_by_its_asker_and_its_answer_goes_there() {
        let mut pending = Pending::new(10);
        let key = pending.next_key();
        pending.insert(key, waiting(Waiter::Core { core: 3, request: 7 }, 1));
        assert_eq!((pending.relayed(3, 7), pending.relayed(7, 3)), (Some(key), None));
        let (core, request, answer) = pending.complete(key, Ok(Parcel::new(5u8))).unwrap().notify.wake().unwrap();
        assert_eq!((core, request, answer.unwrap().take::<u8>().unwrap()), (3, 7, 5));
        assert!(pending.is_empty() && pending.relayed(3, 7).is_none());
        let key = pending.next_key();
        pending.insert(key, waiting(Waiter::Core { core: 3, request: 8 }, 1));
        assert!(pending.forget(key).is_some() && pending.relayed.is_empty());
    }

    #[test]
    fn asks_are_found_by_where_they_went_and_bounded() {
        let mut pending = Pending::new(2);
        let key = ask(&mut pending);
        let other = pending.next_key();
        pending.insert(other, waiting(Waiter::Future(None), 2));
        assert!(!pending.has_room());
        assert_eq!(pending.keys(|via| matches!(via, Via::Peer { peer: 1, .. })), [key]);
    }
}

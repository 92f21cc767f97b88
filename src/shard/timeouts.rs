//! The timers of a core: one number each in the wheel.

use std::rc::Rc;
use std::time::Duration;

use super::node::now;
use super::shard::Shard;
use super::sleep::SleepKey;
use crate::dispatch::reply_path::ReplyPath;
use crate::executor::timers::TimerKey;
use crate::net::ask_key::AskKey;
use crate::net::asked::Via;
use crate::net::connection_id::ConnectionId;
use crate::net::errors::AskError;

/// What a timer is for. It is packed into the 64 bits that the wheel keeps: 3 bits of kind, 29 of slot, 32 of serial.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timer {
    /// A connection must be open by now, or have brought something.
    Connection(ConnectionId),
    /// An outbox wants to be looked at.
    Peer {
        /// Index of the peer.
        peer: u32,
        /// Low half of the peer's serial number.
        serial: u32,
    },
    /// A task wants to go on.
    Sleep(SleepKey),
    /// Accept again.
    Accept,
    /// Tell how many warnings had no line.
    Summary,
    /// Only take a turn.
    Tick,
}

const KIND_SHIFT: u32 = 61;
const SLOT_MASK: u64 = (1 << 29) - 1;

impl Timer {
    /// As the wheel keeps it.
    #[inline]
    pub fn pack(self) -> u64 {
        let (kind, slot, serial) = match self {
            Timer::Connection(id) => (0u64, u64::from(id.slot), id.generation),
            Timer::Peer { peer, serial } => (1, peer.into(), serial),
            Timer::Sleep(key) => (2, key.slot.into(), key.serial),
            Timer::Accept => (3, 0, 0),
            Timer::Summary => (4, 0, 0),
            Timer::Tick => (5, 0, 0),
        };
        kind << KIND_SHIFT | (slot & SLOT_MASK) << 32 | u64::from(serial)
    }

    /// What was packed.
    pub fn unpack(packed: u64) -> Timer {
        let (slot, serial) = ((packed >> 32 & SLOT_MASK) as u32, packed as u32);
        match packed >> KIND_SHIFT {
            0 => Timer::Connection(ConnectionId { slot, generation: serial }),
            1 => Timer::Peer { peer: slot, serial },
            2 => Timer::Sleep(SleepKey { slot, serial }),
            3 => Timer::Accept,
            4 => Timer::Summary,
            _ => Timer::Tick,
        }
    }
}

impl Shard {
    /// Arms a timer. Its time counts from now: the turn may have begun long ago, with a handler that blocked.
    pub fn arm(&self, after: Duration, timer: Timer) -> TimerKey {
        let after = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
        self.timers.borrow_mut().arm(now().saturating_add(after), timer.pack())
    }

    /// Disarms a timer.
    pub fn disarm(&self, timer: TimerKey) {
        self.timers.borrow_mut().cancel(timer);
    }

    /// When there is something to be done without an event, in nanoseconds of the core's clock: a timer fires, or an ask
    /// ends by itself. Never later than that; it can be too early, once for what was disarmed since.
    pub fn next_deadline(&self) -> Option<u64> {
        let timer = self.timers.borrow().next_deadline();
        let ask = self.pending.borrow().next_deadline();
        timer.into_iter().chain(ask).chain(self.dispatcher.next_overdue()).min()
    }

    /// Ends the asks and the handlers of one-way messages whose time is up, some hundreds in a turn; true if there were any.
    pub(super) fn end_expired(self: &Rc<Self>, path: &Rc<dyn ReplyPath>) -> bool {
        let expired = self.pending.borrow_mut().expired(self.clock());
        expired.iter().for_each(|&key| self.on_ask_timeout(key));
        !expired.is_empty() | self.dispatcher.end_overdue(self.clock(), path)
    }

    /// An ask's time is up: its slot is free at once, and the other side is told.
    fn on_ask_timeout(self: &Rc<Self>, key: AskKey) {
        // In this order: a handler of this core that is stopped answers that it was, and must find nobody waiting.
        if let Some(via) = self.time_out(key) {
            self.cancel(&via, key);
        }
    }

    /// Ends an ask by its deadline, and tells where it went; nothing if it has ended before.
    pub(super) fn time_out(&self, key: AskKey) -> Option<Via> {
        let (via, (after, setting)) = {
            let pending = self.pending.borrow();
            pending.waiting(key).map(|asked| (asked.via, asked.limit()))?
        };
        self.count(|counters| counters.timeouts += 1);
        let error = AskError::Timeout { target: self.describe_unanswered(&via), after, setting };
        self.complete(key, Err(error));
        Some(via)
    }

    /// Whether an ask still waits although its deadline has passed: the timers fire up to a tick late. Reads the clock.
    pub(super) fn is_overdue(&self, key: AskKey) -> bool {
        let pending = self.pending.borrow();
        pending.is_waiting(key) && pending.deadline(key).is_none_or(|deadline| deadline <= now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::stage::{Drive, Stage, node};

    #[test]
    fn timers_survive_packing() {
        for timer in [
            Timer::Connection(ConnectionId { slot: (1 << 24) - 1, generation: 7 }),
            Timer::Peer { peer: 9, serial: u32::MAX },
            Timer::Sleep(SleepKey { slot: (1 << 29) - 1, serial: u32::MAX }),
            Timer::Accept,
            Timer::Summary,
            Timer::Tick,
        ] {
            assert_eq!(Timer::unpack(timer.pack()), timer);
        }
    }

    #[test]
    fn a_timer_counts_from_now_however_long_ago_the_turn_began() {
        let stage = Stage::new(Drive::Alone);
        let shard = stage.shard(stage.core(&node("env", 1), 0, None));
        // A handler of this turn has blocked since the process began.
        shard.clock.set(0);
        while now() < 10_000_000 {
            std::hint::spin_loop();
        }
        let before = now();
        shard.arm(Duration::from_secs(3), Timer::Tick);
        assert!(shard.next_deadline().unwrap() >= before + 3_000_000_000);
    }
}

//! The timers of a core: one number each in the wheel.

use std::rc::Rc;
use std::time::Duration;

use super::shard::Shard;
use super::sleep::SleepKey;
use crate::executor::timers::TimerKey;
use crate::net::ask_key::AskKey;
use crate::net::connection_id::ConnectionId;
use crate::net::errors::AskError;

/// What a timer is for. It is packed into the 64 bits that the wheel keeps: 3 bits of kind, 29 of slot, 32 of serial.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timer {
    /// An ask's deadline.
    Ask(AskKey),
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
            Timer::Ask(key) => (0u64, key.0 >> 32, key.0 as u32),
            Timer::Connection(id) => (1, id.slot.into(), id.generation),
            Timer::Peer { peer, serial } => (2, peer.into(), serial),
            Timer::Sleep(key) => (3, key.slot.into(), key.serial),
            Timer::Accept => (4, 0, 0),
            Timer::Tick => (5, 0, 0),
        };
        kind << KIND_SHIFT | (slot & SLOT_MASK) << 32 | u64::from(serial)
    }

    /// What was packed.
    pub fn unpack(packed: u64) -> Timer {
        let (slot, serial) = ((packed >> 32 & SLOT_MASK) as u32, packed as u32);
        match packed >> KIND_SHIFT {
            0 => Timer::Ask(AskKey::new(slot as usize, serial)),
            1 => Timer::Connection(ConnectionId { slot, generation: serial }),
            2 => Timer::Peer { peer: slot, serial },
            3 => Timer::Sleep(SleepKey { slot, serial }),
            4 => Timer::Accept,
            _ => Timer::Tick,
        }
    }
}

impl Shard {
    /// Arms a timer.
    pub fn arm(&self, after: Duration, timer: Timer) -> TimerKey {
        let after = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
        self.timers.borrow_mut().arm(self.clock().saturating_add(after), timer.pack())
    }

    /// Disarms a timer.
    pub fn disarm(&self, timer: TimerKey) {
        self.timers.borrow_mut().cancel(timer);
    }

    /// An ask's time is up: its slot is free at once, and the other side is told.
    pub(super) fn on_ask_timeout(self: &Rc<Self>, key: AskKey) {
        let waiting = {
            let mut pending = self.pending.borrow_mut();
            pending.waiting(key).map(|waiting| (waiting.via, waiting.limit()))
        };
        let Some((via, (after, setting))) = waiting else { return };
        self.count(|counters| counters.timeouts += 1);
        let error = AskError::Timeout { target: self.describe(&via), after, setting };
        // In this order: a handler of this core that is stopped answers that it was, and must find nobody waiting.
        self.complete(key, Err(error));
        self.cancel(&via, key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_survive_packing() {
        for timer in [
            Timer::Ask(AskKey::new(0, 1)),
            Timer::Ask(AskKey::new((1 << 28) - 1, u32::MAX)),
            Timer::Connection(ConnectionId { slot: (1 << 24) - 1, generation: 7 }),
            Timer::Peer { peer: 9, serial: u32::MAX },
            Timer::Sleep(SleepKey { slot: (1 << 29) - 1, serial: u32::MAX }),
            Timer::Accept,
            Timer::Tick,
        ] {
            assert_eq!(Timer::unpack(timer.pack()), timer);
        }
    }
}

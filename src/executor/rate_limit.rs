//! How often something that others can cause is told.

use std::cell::Cell;

/// One line a second.
const INTERVAL_NS: u64 = 1_000_000_000;

/// The most lines a second of events that a core tells one by one as long as they are few: enough to name each of a
/// handful of faulty peers.
pub const BURST: u32 = 64;

/// Lets one of many like events through each second, or a burst, and counts the others.
///
/// For log lines that a peer, or a busy sender, could cause without end. Nothing is lost: the next line says how many
/// events had none, and a counter has them all.
#[derive(Debug)]
pub struct RateLimit {
    /// How many events of a second are told.
    lines: u32,
    /// How many more of this one.
    left: Cell<u32>,
    next: Cell<u64>,
    untold: Cell<u64>,
}

impl Default for RateLimit {
    fn default() -> RateLimit {
        RateLimit { lines: 1, left: Cell::new(0), next: Cell::new(0), untold: Cell::new(0) }
    }
}

impl RateLimit {
    /// One that tells the first [`BURST`] events of a second.
    pub fn burst() -> RateLimit {
        RateLimit { lines: BURST, ..RateLimit::default() }
    }

    /// Whether an event at the time `now`, in nanoseconds, is to be told, and how many since the last one were not.
    pub fn allow(&self, now: u64) -> Option<u64> {
        if now >= self.next.get() {
            self.next.set(now.saturating_add(INTERVAL_NS));
            self.left.set(self.lines);
        }
        let Some(left) = self.left.get().checked_sub(1) else {
            self.untold.set(self.untold.get() + 1);
            return None;
        };
        self.left.set(left);
        Some(self.untold.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_event_is_told_at_once_and_then_one_a_second_with_the_number_of_the_others() {
        let limit = RateLimit::default();
        assert_eq!(limit.allow(5), Some(0));
        assert_eq!((limit.allow(6), limit.allow(1_000_000_004)), (None, None));
        assert_eq!((limit.allow(1_000_000_005), limit.allow(1_000_000_006)), (Some(2), None));
        assert_eq!(limit.allow(u64::MAX), Some(1));
    }

    #[test]
    fn a_burst_of_events_is_told_one_by_one_and_what_exceeds_it_by_its_number() {
        let limit = RateLimit::burst();
        assert!((0..64).all(|event| limit.allow(event) == Some(0)));
        assert!((64..164).all(|event| limit.allow(event).is_none()));
        assert_eq!((limit.allow(1_000_000_000), limit.allow(1_000_000_001)), (Some(100), Some(0)));
    }
}

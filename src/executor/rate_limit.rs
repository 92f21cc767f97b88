//! How often something that others can cause is told.

use std::cell::Cell;

/// One line a second.
const INTERVAL_NS: u64 = 1_000_000_000;

/// Lets one of many like events through each second, and counts the others.
///
/// For log lines that a peer, or a busy sender, could cause without end. Nothing is lost: the next line says how many events
/// had none, and a counter has them all.
#[derive(Debug, Default)]
pub struct RateLimit {
    next: Cell<u64>,
    untold: Cell<u64>,
}

impl RateLimit {
    /// Whether an event at the time `now`, in nanoseconds, is to be told, and how many since the last one were not.
    pub fn allow(&self, now: u64) -> Option<u64> {
        if now < self.next.get() {
            self.untold.set(self.untold.get() + 1);
            return None;
        }
        self.next.set(now.saturating_add(INTERVAL_NS));
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
}

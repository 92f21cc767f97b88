//! When the asks of a table end by themselves.

use crate::executor::timers::TICK;

const NEVER: u64 = u64::MAX;

/// The deadlines of the asks in a table, by their place in it.
///
/// Every ask has a deadline and nearly none comes to it, so nothing but two stores is spent on one: there is no order among
/// them, and whoever looks for those that are over looks at all. That happens at most once in a tick of the core's timers, and
/// only in ticks for which a deadline was set: 65,536 places are half a megabyte to be read in a row.
#[derive(Debug)]
pub(super) struct Deadlines {
    by_place: Vec<u64>,
    /// No deadline is earlier. Exact, but for those that were cleared since.
    next: u64,
}

impl Deadlines {
    pub(super) const fn new() -> Deadlines {
        Deadlines { by_place: Vec::new(), next: NEVER }
    }

    /// Sets the deadline of a place, in nanoseconds.
    #[inline]
    pub(super) fn set(&mut self, place: usize, deadline: u64) {
        if place >= self.by_place.len() {
            self.by_place.resize(place + 1, NEVER);
        }
        self.by_place[place] = deadline;
        self.next = self.next.min(deadline);
    }

    /// Nobody waits in this place any longer.
    #[inline]
    pub(super) fn clear(&mut self, place: usize) {
        if let Some(deadline) = self.by_place.get_mut(place) {
            *deadline = NEVER;
        }
    }

    /// Nobody waits in any place any longer: every one has been cleared.
    #[inline]
    pub(super) fn all_cleared(&mut self) {
        self.next = NEVER;
    }

    /// The deadline of a place, if somebody waits there.
    pub(super) fn get(&self, place: usize) -> Option<u64> {
        self.by_place.get(place).copied().filter(|&deadline| deadline != NEVER)
    }

    /// The beginning of the tick in which [`expired`](Self::expired) is to be called: never before a deadline and less than
    /// a tick after it. Too early if the ask that it was set for has ended since.
    #[inline]
    pub(super) fn next(&self) -> Option<u64> {
        (self.next != NEVER).then(|| self.next.div_ceil(TICK).saturating_mul(TICK))
    }

    /// The places whose tick has come at the time `now`, in the order of their deadlines.
    #[inline]
    pub(super) fn expired(&mut self, now: u64) -> Vec<usize> {
        if self.next().is_none_or(|next| next > now) { Vec::new() } else { self.look(now / TICK * TICK) }
    }

    /// The places whose deadlines are not after `until`; it clears them.
    #[cold]
    fn look(&mut self, until: u64) -> Vec<usize> {
        let over = |&(_, &deadline): &(usize, &u64)| deadline <= until;
        let mut expired: Vec<_> = self.by_place.iter().enumerate().filter(over).map(|(place, _)| place).collect();
        expired.sort_by_key(|&place| self.by_place[place]);
        expired.iter().for_each(|&place| self.by_place[place] = NEVER);
        self.next = self.by_place.iter().copied().min().unwrap_or(NEVER);
        expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_comes_never_early_and_less_than_a_tick_late() {
        for deadline in [0, 1, TICK - 1, TICK, TICK + 1, 7 * TICK - 1] {
            let mut deadlines = Deadlines::new();
            deadlines.set(0, deadline);
            let next = deadlines.next().unwrap();
            assert!(next >= deadline && next < deadline + TICK, "{deadline}");
            assert!(next == 0 || deadlines.expired(next - 1).is_empty(), "{deadline}");
            assert_eq!(deadlines.expired(next), [0], "{deadline}");
            assert_eq!((deadlines.next(), deadlines.expired(u64::MAX).len()), (None, 0));
        }
    }

    #[test]
    fn those_that_are_over_come_in_order_and_the_others_later() {
        let mut deadlines = Deadlines::new();
        for (place, ticks) in [5, 3, 9, 4, 3].into_iter().enumerate() {
            deadlines.set(place, ticks * TICK);
        }
        deadlines.clear(3);
        assert_eq!(deadlines.expired(5 * TICK + 1), [1, 4, 0]);
        assert_eq!((deadlines.next(), deadlines.get(2), deadlines.get(0)), (Some(9 * TICK), Some(9 * TICK), None));
    }

    #[test]
    fn a_cleared_deadline_only_costs_a_look() {
        let mut deadlines = Deadlines::new();
        deadlines.set(0, TICK);
        deadlines.set(1, 5 * TICK);
        deadlines.clear(0);
        assert_eq!(deadlines.next(), Some(TICK));
        assert!(deadlines.expired(2 * TICK).is_empty());
        assert_eq!(deadlines.next(), Some(5 * TICK));
        deadlines.clear(1);
        deadlines.all_cleared();
        assert_eq!(deadlines.next(), None);
    }
}

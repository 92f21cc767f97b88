//! When the asks of a table end by themselves.

use std::cmp::Reverse;

use crate::executor::steps::Steps;
use crate::executor::timers::TICK;

const NEVER: u64 = u64::MAX;
/// Asks that [`expired`](Deadlines::expired) tells at one time: the others wait for the next turn of the core.
const EXPIRED_PER_TURN: usize = 256;

/// The deadlines of the asks in a table, by their place in it.
///
/// Every ask has a deadline and nearly none comes to it, so nothing but two stores is spent on one: there is no order among
/// them, and whoever looks for those that are over looks at all. That happens at most once in a tick of the core's timers, and
/// only in ticks for which a deadline was set: 65,536 places are half a megabyte to be read in a row.
#[derive(Debug)]
pub(super) struct Deadlines {
    by_place: Vec<u64>,
    /// No deadline is earlier. Exact, but for those that were cleared since; 0 while some are known to be over.
    next: u64,
    /// The places that the last look has found over and that are still to be told, the latest first. An ask of these may
    /// have ended since, and another one may have its place.
    over: Vec<usize>,
    /// What that look took for over: deadlines that are not after this.
    until: u64,
    steps: Steps,
}

impl Deadlines {
    pub(super) const fn new() -> Deadlines {
        Deadlines { by_place: Vec::new(), next: NEVER, over: Vec::new(), until: 0, steps: Steps::new() }
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
    /// a tick after it. Too early if the ask that it was set for has ended since. 0 while more are over than were told.
    #[inline]
    pub(super) fn next(&self) -> Option<u64> {
        (self.next != NEVER).then(|| self.next.div_ceil(TICK).saturating_mul(TICK))
    }

    /// The places whose tick has come at the time `now`, in the order of their deadlines, and at most so many as may end in
    /// one turn: whoever calls this calls again when [`next`](Self::next) says so.
    #[inline]
    pub(super) fn expired(&mut self, now: u64) -> Vec<usize> {
        if self.next().is_none_or(|next| next > now) { Vec::new() } else { self.tell(now / TICK * TICK) }
    }

    /// The first of the places whose deadlines are not after `until`; it clears them.
    #[cold]
    fn tell(&mut self, until: u64) -> Vec<usize> {
        let mut expired = self.take_over();
        if expired.is_empty() {
            self.look(until);
            expired = self.take_over();
        }
        self.next = if self.over.is_empty() { self.earliest() } else { 0 };
        expired
    }

    /// Finds the places whose deadlines are not after `until`. One look does for all of them, however many turns they take.
    fn look(&mut self, until: u64) {
        self.steps.add(self.by_place.len());
        let over = |&(_, &deadline): &(usize, &u64)| deadline <= until;
        self.over = self.by_place.iter().enumerate().filter(over).map(|(place, _)| place).rev().collect();
        self.over.sort_by_key(|&place| Reverse(self.by_place[place]));
        self.until = until;
    }

    /// Takes places of those that were found over, as many as may end in one turn.
    fn take_over(&mut self) -> Vec<usize> {
        let mut expired = Vec::new();
        while expired.len() < EXPIRED_PER_TURN
            && let Some(place) = self.over.pop()
        {
            self.steps.add(1);
            if self.by_place[place] <= self.until {
                self.by_place[place] = NEVER;
                expired.push(place);
            }
        }
        expired
    }

    fn earliest(&self) -> u64 {
        self.steps.add(self.by_place.len());
        self.by_place.iter().copied().min().unwrap_or(NEVER)
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

    #[test]
    fn a_crowd_that_is_over_is_looked_for_once_and_told_over_many_turns() {
        let mut deadlines = Deadlines::new();
        for place in 0..65_536 {
            deadlines.set(place, TICK + place as u64 % 7);
        }
        let mut told = Vec::new();
        while deadlines.next().is_some() {
            let expired = deadlines.expired(2 * TICK);
            assert!(expired.len() <= 256, "{} asks end in one turn", expired.len());
            let more = told.len() + expired.len() < 65_536;
            assert_eq!(deadlines.next(), more.then_some(0), "the core must not sleep before the last");
            told.extend(expired);
        }
        assert!(told.is_sorted_by_key(|place| (place % 7, *place)) && told.len() == 65_536);
        let steps = deadlines.steps.taken();
        assert!(steps <= 3 * 65_536, "{steps} steps");
    }

    #[test]
    fn an_ask_that_has_the_place_of_one_that_was_over_keeps_its_time() {
        let mut deadlines = Deadlines::new();
        (0..600).for_each(|place| deadlines.set(place, TICK));
        assert_eq!(deadlines.expired(TICK), (0..256).collect::<Vec<_>>());
        // Answered before their turn came: one place has another ask, one has none.
        deadlines.clear(300);
        deadlines.set(300, 9 * TICK);
        deadlines.clear(301);
        let rest: Vec<_> = (0..3).flat_map(|_| deadlines.expired(TICK)).collect();
        assert_eq!(rest, (256..600).filter(|place| ![300, 301].contains(place)).collect::<Vec<_>>());
        assert_eq!((deadlines.next(), deadlines.get(300)), (Some(9 * TICK), Some(9 * TICK)));
        assert_eq!(deadlines.expired(9 * TICK), [300]);
    }

    #[test]
    fn a_table_that_was_emptied_amid_a_crowd_finds_later_asks_in_time() {
        let mut deadlines = Deadlines::new();
        (0..600).for_each(|place| deadlines.set(place, TICK));
        assert_eq!(deadlines.expired(TICK).len(), 256);
        (0..600).for_each(|place| deadlines.clear(place));
        deadlines.all_cleared();
        assert_eq!(deadlines.next(), None);
        deadlines.set(500, 4 * TICK);
        assert_eq!(deadlines.next(), Some(4 * TICK));
        assert_eq!((deadlines.expired(3 * TICK), deadlines.expired(4 * TICK)), (vec![], vec![500]));
        assert_eq!(deadlines.next(), None);
    }
}

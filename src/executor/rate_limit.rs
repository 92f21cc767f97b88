//! How often something that others can cause is told.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

/// One line a second.
const INTERVAL_NS: u64 = 1_000_000_000;

/// The most lines a second of events that a core tells one by one as long as they are few: enough to name each of a
/// handful of faulty peers.
pub const BURST: u32 = 64;

/// Lets one of many like events through each second, or a burst, and counts the others.
///
/// For log lines that a peer, or a busy sender, could cause without end. Nothing is lost: the next line says how many
/// events had none, be it about the next event or the [summary](RateLimits::due) of the second, and a counter has them
/// all.
#[derive(Debug)]
pub struct RateLimit {
    state: Rc<State>,
    core: RateLimits,
}

#[derive(Debug)]
struct State {
    /// What the events are, as the log names them.
    what: &'static str,
    /// The endpoint that they are about, if it is one.
    endpoint: Option<Arc<str>>,
    /// How many events of a second are told.
    lines: u32,
    /// How many more of this one.
    left: Cell<u32>,
    next: Cell<u64>,
    untold: Cell<u64>,
    /// It is among those that owe a summary.
    listed: Cell<bool>,
}

impl RateLimit {
    /// Whether an event at the time `now`, in nanoseconds, is to be told, and how many since the last line were not.
    pub fn allow(&self, now: u64) -> Option<u64> {
        let state = &self.state;
        if now >= state.next.get() {
            state.begin(now);
        }
        let Some(left) = state.left.get().checked_sub(1) else {
            state.untold.set(state.untold.get() + 1);
            self.core.list(state);
            return None;
        };
        state.left.set(left);
        Some(state.untold.take())
    }
}

impl State {
    /// A second begins.
    fn begin(&self, now: u64) {
        self.next.set(now.saturating_add(INTERVAL_NS));
        self.left.set(self.lines);
    }
}

/// The rate limits of a core, and which of them have events without a line.
///
/// Only such an event makes the core wake once more, when its second is over: a core without them has no timer.
#[derive(Clone, Debug, Default)]
pub struct RateLimits(Rc<Listed>);

#[derive(Debug, Default)]
struct Listed {
    /// Those that owe a summary.
    states: RefCell<Vec<Rc<State>>>,
    /// One of them was added since [`wants_timer`](RateLimits::wants_timer) was asked last.
    added: Cell<bool>,
}

/// How many events had no line.
#[derive(Debug, PartialEq, Eq)]
pub struct Summary {
    /// What they were.
    pub what: &'static str,
    /// The endpoint that they were about.
    pub endpoint: Option<Arc<str>>,
    /// Their number.
    pub untold: u64,
}

impl RateLimits {
    /// One that tells the first event of a second.
    pub fn single(&self, what: &'static str) -> RateLimit {
        self.limit(what, None, 1)
    }

    /// The same for events about an endpoint.
    pub fn single_of(&self, what: &'static str, endpoint: &Arc<str>) -> RateLimit {
        self.limit(what, Some(endpoint.clone()), 1)
    }

    /// One that tells the first [`BURST`] events of a second.
    pub fn burst(&self, what: &'static str) -> RateLimit {
        self.limit(what, None, BURST)
    }

    fn limit(&self, what: &'static str, endpoint: Option<Arc<str>>, lines: u32) -> RateLimit {
        let (left, next, untold, listed) = (Cell::new(0), Cell::new(0), Cell::new(0), Cell::new(false));
        let state = State { what, endpoint, lines, left, next, untold, listed };
        RateLimit { state: Rc::new(state), core: self.clone() }
    }

    fn list(&self, state: &Rc<State>) {
        if !state.listed.replace(true) {
            self.0.states.borrow_mut().push(state.clone());
            self.0.added.set(true);
        }
    }

    /// Whether a timer is due to be armed for [`next`](Self::next): once for each time that something was added.
    #[inline]
    pub fn wants_timer(&self) -> bool {
        self.0.added.get() && self.0.added.replace(false)
    }

    /// When the first summary may be told.
    pub fn next(&self) -> Option<u64> {
        self.0.states.borrow().iter().map(|state| state.next.get()).min()
    }

    /// What is to be told at the time `now`, of the seconds that are over. Each summary takes the place of a line of the
    /// second that begins.
    pub fn due(&self, now: u64) -> Vec<Summary> {
        self.take(|state| state.next.get() <= now, now)
    }

    /// What is left, at the end.
    pub fn rest(&self) -> Vec<Summary> {
        self.take(|_| true, u64::MAX)
    }

    fn take(&self, is_due: impl Fn(&State) -> bool, now: u64) -> Vec<Summary> {
        let mut summaries = Vec::new();
        self.0.states.borrow_mut().retain(|state| {
            let due = is_due(state);
            if due {
                state.listed.set(false);
                let untold = state.untold.take();
                // A later event may have told it.
                if untold > 0 {
                    state.begin(now);
                    state.left.set(state.lines - 1);
                    summaries.push(Summary { what: state.what, endpoint: state.endpoint.clone(), untold });
                }
            }
            !due
        });
        // Those that are left wait for a later time.
        self.0.added.set(!self.0.states.borrow().is_empty());
        summaries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_event_is_told_at_once_and_then_one_a_second_with_the_number_of_the_others() {
        let limit = RateLimits::default().single("it rains");
        assert_eq!(limit.allow(5), Some(0));
        assert_eq!((limit.allow(6), limit.allow(1_000_000_004)), (None, None));
        assert_eq!((limit.allow(1_000_000_005), limit.allow(1_000_000_006)), (Some(2), None));
        assert_eq!(limit.allow(u64::MAX), Some(1));
    }

    #[test]
    fn a_burst_of_events_is_told_one_by_one_and_what_exceeds_it_by_its_number() {
        let limit = RateLimits::default().burst("it rains");
        assert!((0..64).all(|event| limit.allow(event) == Some(0)));
        assert!((64..164).all(|event| limit.allow(event).is_none()));
        assert_eq!((limit.allow(1_000_000_000), limit.allow(1_000_000_001)), (Some(100), Some(0)));
    }

    #[test]
    fn the_last_events_of_a_burst_are_told_by_their_number_when_their_second_is_over() {
        let core = RateLimits::default();
        let (rain, hail) = (core.single("it rains"), core.single_of("it hails", &"roof".into()));
        assert_eq!((rain.allow(5), core.wants_timer(), core.next()), (Some(0), false, None));
        assert_eq!((rain.allow(6), rain.allow(7)), (None, None));
        assert_eq!((core.wants_timer(), core.wants_timer(), core.next()), (true, false, Some(1_000_000_005)));
        assert_eq!((hail.allow(500), hail.allow(501)), (Some(0), None));
        assert_eq!(core.due(1_000_000_004), []);
        assert_eq!(core.due(1_000_000_005), [Summary { what: "it rains", endpoint: None, untold: 2 }]);
        assert!(core.wants_timer(), "the other one is still to come");
        assert_eq!(core.next(), Some(1_000_000_500));
        // The summary was the line of this second.
        assert_eq!((rain.allow(1_000_000_006), rain.allow(2_000_000_005)), (None, Some(1)));
        assert_eq!(core.rest(), [Summary { what: "it hails", endpoint: Some("roof".into()), untold: 1 }]);
        assert_eq!((core.due(u64::MAX), core.next(), core.wants_timer()), (vec![], None, false));
    }
}

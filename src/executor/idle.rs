//! What a core does when it has nothing to do.

use std::time::Duration;

/// How long after going to sleep an event is noticed, roughly, since the core must be woken first; nanoseconds.
const WAKE_COST: u64 = 50_000;
/// A budget below this part of the full one is not worth a spin.
const SMALLEST_PART: u64 = 16;

/// What a core does when it has nothing to do. Sleep and wake are most of the latency of a small message; spinning
/// avoids them, at the price of a busy CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Idle {
    /// Sleep at once. No CPU is used while nothing comes; each message that finds the core asleep pays for a wake.
    Park,
    /// Never sleep. Lowest latency, for a core whose CPU nobody else needs.
    Spin,
    /// Spin for up to this long, then sleep; learn from how long the pauses are whether spinning pays at all.
    Adaptive {
        /// The longest spin.
        spin_max: Duration,
    },
}

impl Default for Idle {
    /// Adaptive, with spins of up to 50 microseconds.
    fn default() -> Idle {
        Idle::Adaptive { spin_max: Duration::from_micros(50) }
    }
}

/// How long to spin before going to sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpinFor {
    /// Not at all.
    No,
    /// Until this many nanoseconds have passed since the core went idle.
    Until(u64),
    /// For ever.
    Forever,
}

/// What a core has learnt about its pauses.
///
/// Under [`Idle::Adaptive`] the core has a budget for spinning, at first the full `spin_max`. An event that comes
/// within `spin_max` would have been caught by a full spin: the budget is full again at once. An event that comes
/// later shows that the spin was for nothing: the budget is halved, and after five of them it is 0, so a core with
/// rare events sleeps at once.
///
/// A core that sleeps notices an event late, by the time it takes to wake. That time is subtracted before the pause
/// is judged. Without that, two cores that talk to each other and both sleep would see nothing but long pauses and
/// never find out that without the sleep there are none.
#[derive(Clone, Copy, Debug)]
pub struct IdleState {
    policy: Policy,
}

#[derive(Clone, Copy, Debug)]
enum Policy {
    Fixed(SpinFor),
    Learning { full: u64, budget: u64 },
}

impl IdleState {
    /// Nothing learnt yet: an adaptive core starts with the full budget.
    pub fn new(idle: Idle) -> IdleState {
        let policy = match idle {
            Idle::Park => Policy::Fixed(SpinFor::No),
            Idle::Spin => Policy::Fixed(SpinFor::Forever),
            Idle::Adaptive { spin_max } => {
                let full = u64::try_from(spin_max.as_nanos()).unwrap_or(u64::MAX);
                Policy::Learning { full, budget: full }
            }
        };
        IdleState { policy }
    }

    /// How long to spin now that the core goes idle.
    #[inline]
    pub fn spin_for(&self) -> SpinFor {
        match self.policy {
            Policy::Fixed(spin) => spin,
            Policy::Learning { budget: 0, .. } => SpinFor::No,
            Policy::Learning { budget, .. } => SpinFor::Until(budget),
        }
    }

    /// Tells how long the pause was that just ended: nanoseconds from going idle to the next event.
    #[inline]
    pub fn learn(&mut self, idle_ns: u64) {
        let Policy::Learning { full, budget } = &mut self.policy else { return };
        let slept = idle_ns > *budget;
        let pause = if slept { idle_ns.saturating_sub(WAKE_COST) } else { idle_ns };
        if pause <= *full {
            *budget = *full;
        } else {
            *budget /= 2;
            if *budget < *full / SMALLEST_PART {
                *budget = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: u64 = 50_000;
    const LATE: u64 = 1_000_000;

    #[test]
    fn fixed_policies_learn_nothing() {
        for (idle, spin) in [(Idle::Park, SpinFor::No), (Idle::Spin, SpinFor::Forever)] {
            let mut state = IdleState::new(idle);
            for pause in [0, 1, FULL, u64::MAX] {
                state.learn(pause);
                assert_eq!(state.spin_for(), spin);
            }
        }
    }

    #[test]
    fn late_events_halve_the_budget_down_to_nothing() {
        let mut state = IdleState::new(Idle::default());
        let mut seen = vec![state.spin_for()];
        for _ in 0..6 {
            state.learn(LATE);
            seen.push(state.spin_for());
        }
        let halves = [FULL, 25_000, 12_500, 6_250, 3_125].map(SpinFor::Until);
        assert_eq!(seen[..5], halves);
        assert_eq!(seen[5..], [SpinFor::No, SpinFor::No]);
    }

    #[test]
    fn one_event_in_time_restores_the_budget() {
        let mut state = IdleState::new(Idle::default());
        state.learn(LATE);
        state.learn(1_000);
        assert_eq!(state.spin_for(), SpinFor::Until(FULL));
    }

    #[test]
    fn an_event_soon_after_parking_restores_the_budget() {
        let mut state = IdleState::new(Idle::default());
        (0..10).for_each(|_| state.learn(LATE));
        assert_eq!(state.spin_for(), SpinFor::No);
        // Two sleeping cores answer each other in 80 microseconds, nearly all of it waking up.
        state.learn(80_000);
        assert_eq!(state.spin_for(), SpinFor::Until(FULL));
    }

    #[test]
    fn a_spin_of_nothing_is_parking() {
        let mut state = IdleState::new(Idle::Adaptive { spin_max: Duration::ZERO });
        assert_eq!(state.spin_for(), SpinFor::No);
        state.learn(0);
        assert_eq!(state.spin_for(), SpinFor::No);
        let endless = IdleState::new(Idle::Adaptive { spin_max: Duration::MAX });
        assert_eq!(endless.spin_for(), SpinFor::Until(u64::MAX));
    }
}

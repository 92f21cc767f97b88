//! When the asks of an open loop are due, and how often that is.
//!
//! A closed loop asks again when it has its answer: while the answering side stands still nobody asks, and what nobody
//! asked is missing from the latencies ("coordinated omission"). An open loop asks at times that were fixed before, and
//! each latency counts from the time at which the ask was due, whoever was late.

use std::str::FromStr;
use std::time::{Duration, Instant};

/// How often is asked.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Rate {
    /// Asks per second.
    PerSecond(f64),
    /// This part of what the same system did at most in the same run.
    Share(f64),
}

impl Rate {
    /// Asks per second, if `most` were done at most.
    pub(crate) fn per_second(self, most: f64) -> f64 {
        match self {
            Rate::PerSecond(rate) => rate,
            Rate::Share(share) => share * most,
        }
    }

    /// The part of the maximum that it was given as.
    pub(crate) fn share(self) -> Option<f64> {
        match self {
            Rate::PerSecond(_) => None,
            Rate::Share(share) => Some(share),
        }
    }
}

impl FromStr for Rate {
    type Err = String;

    /// `20%`, `5000`, `5k` or `1.5M`.
    fn from_str(text: &str) -> Result<Rate, String> {
        let (number, unit) = match text.trim_end_matches(['%', 'k', 'M']) {
            number if text.len() - number.len() <= 1 => (number.parse().ok(), &text[number.len()..]),
            _ => (None, ""),
        };
        let rate = number.map(|number: f64| match unit {
            "%" => Rate::Share(number / 100.0),
            "k" => Rate::PerSecond(number * 1e3),
            "M" => Rate::PerSecond(number * 1e6),
            _ => Rate::PerSecond(number),
        });
        let sensible = |rate: &Rate| match *rate {
            Rate::PerSecond(rate) => (1.0..=1e8).contains(&rate),
            Rate::Share(share) => (0.01..=2.0).contains(&share),
        };
        let problem = || format!("a rate is 1% to 200% of the maximum, or 1 to 100M asks per second, not '{text}'");
        rate.filter(sensible).ok_or_else(problem)
    }
}

/// Evenly spaced times at which asks are due, from a start to an end.
#[derive(Debug)]
pub(crate) struct Schedule {
    start: Instant,
    /// Nanoseconds from one to the next.
    gap: f64,
    /// How many there are in all.
    all: u64,
    /// How many were taken.
    taken: u64,
}

impl Schedule {
    /// So many a second from `start` on, for `span`.
    pub(crate) fn new(start: Instant, span: Duration, per_second: f64) -> Schedule {
        let all = (span.as_secs_f64() * per_second) as u64;
        Schedule { start, gap: 1e9 / per_second, all, taken: 0 }
    }

    fn time(&self, index: u64) -> Instant {
        self.start + Duration::from_nanos((index as f64 * self.gap) as u64)
    }

    /// Takes the next one if it is due at the time `now`: the time at which it became due.
    #[inline]
    pub(crate) fn take(&mut self, now: Instant) -> Option<Instant> {
        let due = self.time(self.taken);
        (self.taken < self.all && due <= now).then(|| {
            self.taken += 1;
            due
        })
    }

    /// How many are due at the time `now` and were not taken.
    #[inline]
    pub(crate) fn waiting(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.start).as_nanos() as f64;
        let due = if now < self.start { 0 } else { (passed / self.gap) as u64 + 1 };
        due.min(self.all).saturating_sub(self.taken)
    }

    /// Whether all were taken.
    pub(crate) fn is_over(&self) -> bool {
        self.taken == self.all
    }
}

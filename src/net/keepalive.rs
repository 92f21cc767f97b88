//! Whether the peer of a connection lives, judged by what it shows after each ping.

use std::time::Duration;

/// How long a core looks once more before it takes a peer for dead: a moment, since one turn is enough.
///
/// A core that was kept from its turns, by a handler that blocked or by a busy machine, finds its timer due before it
/// has read what arrived meanwhile.
const LAST_LOOK: Duration = Duration::from_millis(1);

/// The keepalive of one connection: no system calls, no clock, no timer of its own.
///
/// Its owner tells it of each [sign of life](Keepalive::heard), and asks it what to do whenever the time that the last
/// [`Verdict`] named is over, or later. A ping counts as unanswered from when it is sent until the next sign of life,
/// whenever that is noticed; how late the owner's timers are does not matter.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keepalive {
    /// The last sign of life, in nanoseconds of the core's clock.
    heard: u64,
    /// Pings since the last sign of life. One more than the limit: and a last look.
    unanswered: u32,
}

/// What the owner of a connection is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: ask again after this time.
    Wait(Duration),
    /// Send a ping, and ask again after this time.
    Ping(Duration),
    /// Close the connection.
    Dead,
}

impl Keepalive {
    /// That of a connection which opens at the time `now`, in nanoseconds.
    pub fn new(now: u64) -> Keepalive {
        Keepalive { heard: now, unanswered: 0 }
    }

    /// The peer has shown a sign of life at the time `now`. It answers all pings so far.
    #[inline]
    pub fn heard(&mut self, now: u64) {
        self.heard = now;
        self.unanswered = 0;
    }

    /// The same for a sign of life of the time `at` that is noticed only now; nothing if it was known.
    pub fn noticed(&mut self, at: u64) {
        if at > self.heard {
            self.heard(at);
        }
    }

    /// For so many nanoseconds, up to now, nobody could notice a sign of life: they are no silence.
    pub fn forgive(&mut self, absent: u64) {
        self.heard = self.heard.saturating_add(absent);
    }

    /// Judges the peer at the time `now`: a ping once every `period` that it is silent, and death after `misses` of
    /// them.
    pub fn judge(&mut self, now: u64, period: Duration, misses: u32) -> Verdict {
        let silent = Duration::from_nanos(now.saturating_sub(self.heard));
        if silent < period {
            return Verdict::Wait(period - silent);
        }
        if self.unanswered > misses {
            return Verdict::Dead;
        }
        self.unanswered += 1;
        if self.unanswered > misses { Verdict::Wait(LAST_LOOK) } else { Verdict::Ping(period) }
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use super::*;
    use crate::executor::timers::TICK;

    const PERIOD: Duration = Duration::from_secs(10);
    const SECOND: u64 = 1_000_000_000;

    /// What happens to one side of a connection.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
    enum Event {
        Timer,
        Ping,
        Pong,
    }

    /// Two nodes with the default settings that say nothing but pings and pongs, over a network and with timers that
    /// are late by what `seed` draws. Gives how many pings were sent in `seconds`, or when a side took the other for
    /// dead.
    fn pings_of_an_idle_connection(seed: u64, seconds: u64) -> Result<u32, u64> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut draw = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        // A timer fires with the next tick, in a turn of its core that may come later.
        let due = |at: u64, late: u64| at.div_ceil(TICK) * TICK + late;
        let (mut sides, mut pings) = ([Keepalive::new(0), Keepalive::new(draw(1_000_000))], 0);
        let mut events = BinaryHeap::new();
        for side in 0..2 {
            events.push(Reverse((due(10 * SECOND, draw(1_000_000)), Event::Timer, side)));
        }
        while let Some(Reverse((now, event, side))) = events.pop() {
            if now > seconds * SECOND {
                break;
            }
            let travel = 20_000 + draw(200_000);
            match event {
                Event::Timer => {
                    let again = match sides[side].judge(now, PERIOD, 3) {
                        Verdict::Wait(again) => again,
                        Verdict::Ping(again) => {
                            pings += 1;
                            events.push(Reverse((now + travel, Event::Ping, 1 - side)));
                            again
                        }
                        Verdict::Dead => return Err(now),
                    };
                    let again = now + again.as_nanos() as u64;
                    events.push(Reverse((due(again, draw(3_000_000)), Event::Timer, side)));
                }
                Event::Ping => {
                    sides[side].heard(now);
                    events.push(Reverse((now + travel, Event::Pong, 1 - side)));
                }
                Event::Pong => sides[side].heard(now),
            }
        }
        Ok(pings)
    }

    #[test]
    fn twenty_idle_connections_stay_open_for_an_hour_however_late_the_timers_are() {
        for seed in 1..=20 {
            let pings = pings_of_an_idle_connection(seed, 3600);
            assert!(pings.is_ok_and(|pings| (300..=720).contains(&pings)), "connection {seed}: {pings:?}");
        }
    }

    #[test]
    fn a_peer_that_answers_every_ping_at_once_has_never_missed_one() {
        let mut keepalive = Keepalive::new(0);
        // Each answer comes a moment after its ping, and each timer fires later than that.
        for round in 1..=30 {
            let now = round * (10 * SECOND + 900_000);
            assert_eq!(keepalive.judge(now, PERIOD, 3), Verdict::Ping(PERIOD), "round {round}");
            keepalive.heard(now + 50_000);
        }
    }

    #[test]
    fn a_silent_peer_is_asked_three_times_and_is_dead_after_a_last_look() {
        let mut keepalive = Keepalive::new(5 * SECOND);
        assert_eq!(keepalive.judge(14 * SECOND, PERIOD, 3), Verdict::Wait(Duration::from_secs(1)));
        for at in [15, 25, 35] {
            assert_eq!(keepalive.judge(at * SECOND, PERIOD, 3), Verdict::Ping(PERIOD));
        }
        assert_eq!(keepalive.judge(45 * SECOND, PERIOD, 3), Verdict::Wait(Duration::from_millis(1)));
        assert_eq!(keepalive.judge(45 * SECOND + 1_000_000, PERIOD, 3), Verdict::Dead);
    }

    #[test]
    fn a_core_that_was_kept_from_its_turns_reads_what_arrived_before_it_judges() {
        let mut keepalive = Keepalive::new(0);
        assert_eq!(keepalive.judge(10 * SECOND, PERIOD, 1), Verdict::Ping(PERIOD));
        // The answer lies in the kernel while a handler blocks; the timer is found due first.
        assert_eq!(keepalive.judge(55 * SECOND, PERIOD, 1), Verdict::Wait(Duration::from_millis(1)));
        keepalive.heard(55 * SECOND + 10_000);
        assert_eq!(
            keepalive.judge(55 * SECOND + 1_010_000, PERIOD, 1),
            Verdict::Wait(Duration::from_micros(9_999_000))
        );
    }

    #[test]
    fn time_for_which_the_core_was_absent_is_no_silence_of_the_peer() {
        let mut keepalive = Keepalive::new(0);
        keepalive.forgive(60 * SECOND);
        assert_eq!(keepalive.judge(65 * SECOND, PERIOD, 3), Verdict::Wait(Duration::from_secs(5)));
        assert_eq!(keepalive.judge(70 * SECOND, PERIOD, 3), Verdict::Ping(PERIOD));
    }

    #[test]
    fn a_timer_that_is_late_by_many_periods_is_one_miss() {
        let mut keepalive = Keepalive::new(0);
        assert_eq!(keepalive.judge(100 * SECOND, PERIOD, 3), Verdict::Ping(PERIOD));
        assert_eq!(keepalive.judge(200 * SECOND, PERIOD, 3), Verdict::Ping(PERIOD));
        keepalive.heard(200 * SECOND + 1);
        assert_eq!(keepalive.judge(300 * SECOND, PERIOD, 3), Verdict::Ping(PERIOD));
    }

    #[test]
    fn a_sign_that_is_noticed_late_counts_from_when_it_was_given_and_once() {
        let mut keepalive = Keepalive::new(0);
        assert_eq!(keepalive.judge(10 * SECOND, PERIOD, 1), Verdict::Ping(PERIOD));
        keepalive.noticed(18 * SECOND);
        assert_eq!(keepalive.judge(20 * SECOND, PERIOD, 1), Verdict::Wait(Duration::from_secs(8)));
        assert_eq!(keepalive.judge(28 * SECOND, PERIOD, 1), Verdict::Ping(PERIOD));
        keepalive.noticed(18 * SECOND);
        assert_eq!(keepalive.judge(38 * SECOND, PERIOD, 1), Verdict::Wait(Duration::from_millis(1)));
        assert_eq!(keepalive.judge(39 * SECOND, PERIOD, 1), Verdict::Dead);
    }
}

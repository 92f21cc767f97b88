//! Tests: the timer wheel.

use std::collections::BTreeMap;

use super::timers::TimerWheel;

const TICK: u64 = 1 << 20;
const SECOND: u64 = 1_000_000_000;

fn expire(wheel: &mut TimerWheel, now: u64) -> Vec<u64> {
    let mut fired = Vec::new();
    wheel.expire(now, &mut fired);
    fired
}

#[test]
fn a_timer_fires_at_the_first_tick_from_its_deadline_on() {
    let mut wheel = TimerWheel::new(3 * TICK + 5);
    wheel.arm(10 * TICK, 1);
    wheel.arm(10 * TICK + 1, 2);
    assert_eq!(wheel.next_deadline(), Some(10 * TICK));
    assert!(expire(&mut wheel, 10 * TICK - 1).is_empty());
    assert_eq!(expire(&mut wheel, 10 * TICK), [1]);
    assert_eq!(wheel.next_deadline(), Some(11 * TICK));
    assert!(expire(&mut wheel, 11 * TICK - 1).is_empty());
    assert_eq!(expire(&mut wheel, 11 * TICK), [2]);
    assert_eq!((wheel.next_deadline(), wheel.len(), wheel.is_empty()), (None, 0, true));
}

#[test]
fn a_deadline_that_has_passed_fires_at_once() {
    let mut wheel = TimerWheel::new(100 * TICK);
    wheel.arm(0, 1);
    let cancelled = wheel.arm(99 * TICK, 2);
    assert!(wheel.next_deadline().unwrap() <= 100 * TICK);
    assert!(wheel.cancel(cancelled));
    assert_eq!(expire(&mut wheel, 100 * TICK), [1]);
    assert_eq!(wheel.next_deadline(), None);
    // Time never runs backwards, whatever the caller says.
    wheel.arm(101 * TICK, 3);
    assert!(expire(&mut wheel, 0).is_empty());
    assert_eq!(expire(&mut wheel, 101 * TICK), [3]);
}

#[test]
fn a_key_is_stale_once_its_timer_has_ended() {
    let mut wheel = TimerWheel::new(0);
    let first = wheel.arm(TICK, 1);
    assert!(wheel.cancel(first));
    assert!(!wheel.cancel(first));
    let second = wheel.arm(TICK, 2);
    assert!(!wheel.cancel(first), "the place is used again");
    assert_eq!(expire(&mut wheel, TICK), [2]);
    assert!(!wheel.cancel(second));
}

#[test]
fn a_wait_for_the_next_deadline_does_not_wake_for_nothing() {
    // Far enough that the timer is filed on each level on its way down.
    for deadline in [40 * TICK, 30 * SECOND, 3_600 * SECOND, 90 * 86_400 * SECOND] {
        let mut wheel = TimerWheel::new(1_234_567);
        wheel.arm(deadline, 1);
        wheel.arm(deadline + 700 * SECOND, 2);
        let next = wheel.next_deadline().unwrap();
        assert!((deadline..deadline + TICK).contains(&next));
        assert_eq!(expire(&mut wheel, next), [1]);
        let next = wheel.next_deadline().unwrap();
        assert_eq!(expire(&mut wheel, next), [2]);
    }
}

#[test]
fn a_cancelled_timer_causes_at_most_one_wake() {
    let mut wheel = TimerWheel::new(0);
    let sooner = wheel.arm(29 * SECOND, 1);
    wheel.arm(30 * SECOND, 2);
    wheel.cancel(sooner);
    let mut wakes = 0;
    while !wheel.is_empty() {
        let next = wheel.next_deadline().unwrap();
        expire(&mut wheel, next);
        wakes += 1;
    }
    assert!(wakes <= 2, "{wakes} wakes");
}

#[test]
fn deadlines_beyond_the_horizon_are_kept() {
    let mut wheel = TimerWheel::new(0);
    let never = wheel.arm(u64::MAX, 1);
    wheel.arm(1 << 60, 2);
    wheel.arm(1 << 55, 3);
    let mut fired = Vec::new();
    let mut now = 0;
    for _ in 0..100 {
        let Some(next) = wheel.next_deadline().filter(|&next| next < u64::MAX / 2) else { break };
        assert!(next > now);
        now = next;
        let before = fired.len();
        wheel.expire(now, &mut fired);
        assert!(fired[before..].iter().all(|token| now == 1 << if *token == 2 { 60 } else { 55 }));
    }
    assert_eq!(fired, [3, 2]);
    assert!(wheel.cancel(never));
    assert_eq!(wheel.next_deadline(), None);
}

/// A linear congruential generator; the upper bits are the good ones.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 16) % bound
    }

    /// Of any order of magnitude up to 2^`bits`.
    fn magnitude(&mut self, bits: u64) -> u64 {
        let bits = self.below(bits);
        self.below(1 << bits)
    }
}

/// Wheel and model do the same random things, from a random start.
fn compare_with_model(seed: u64) {
    let mut random = Random(seed);
    let mut now = random.magnitude(60);
    let mut wheel = TimerWheel::new(now);
    let mut model: BTreeMap<(u64, u64), _> = BTreeMap::new();
    let mut tokens = BTreeMap::new();
    for token in 0..600 {
        match random.below(10) {
            0..5 => {
                let deadline = (now + random.magnitude(59)).saturating_sub(random.magnitude(25));
                let key = wheel.arm(deadline, token);
                model.insert((deadline.div_ceil(TICK), token), key);
                tokens.insert(token, deadline.div_ceil(TICK));
            }
            5..7 if !model.is_empty() => {
                let at = random.below(model.len() as u64) as usize;
                let (&(tick, token), &key) = model.iter().nth(at).unwrap();
                assert!(wheel.cancel(key));
                assert!(!wheel.cancel(key));
                model.remove(&(tick, token));
            }
            what => {
                let before = now >> 20;
                now = match (what, wheel.next_deadline()) {
                    (9, Some(next)) => next.max(now),
                    _ => now + random.magnitude(45),
                };
                let mut fired = expire(&mut wheel, now);
                assert!(fired.is_sorted_by_key(|token| tokens[token].max(before)), "seed {seed}");
                let later = model.split_off(&((now >> 20) + 1, 0));
                let mut due: Vec<_> = model.into_keys().map(|(_, token)| token).collect();
                fired.sort_unstable();
                due.sort_unstable();
                assert_eq!(fired, due, "seed {seed}, time {now}");
                model = later;
            }
        }
        assert_eq!(wheel.len(), model.len());
        let first = model.keys().next().map(|&(tick, _)| tick);
        assert_eq!(wheel.next_deadline().is_some(), first.is_some(), "seed {seed}");
        if let (Some(next), Some(first)) = (wheel.next_deadline(), first) {
            assert!(next <= (first * TICK).max(now), "seed {seed}: {next} is later than tick {first}");
        }
    }
}

#[test]
fn the_wheel_does_what_a_sorted_map_does() {
    let seeds = if cfg!(miri) { 2 } else { 400 };
    (0..seeds).for_each(compare_with_model);
}

#[test]
fn waiting_for_each_deadline_ends_everything_in_few_wakes() {
    let mut random = Random(7);
    let mut wheel = TimerWheel::new(0);
    for token in 0..1_000 {
        wheel.arm(random.magnitude(50), token);
    }
    let (mut wakes, mut fired) = (0, Vec::new());
    while let Some(next) = wheel.next_deadline() {
        let before = fired.len();
        wheel.expire(next, &mut fired);
        assert!(fired.len() > before, "a wake for nothing at {next}");
        wakes += 1;
    }
    assert_eq!(fired.len(), 1_000);
    assert!(wakes <= 1_000);
}

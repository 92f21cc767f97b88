//! The parts of the benchmark that can be wrong without anybody noticing.

use std::time::{Duration, Instant};

use schedule::{Rate, Schedule};

#[path = "../benches/per_core_echo/schedule.rs"]
mod schedule;

#[test]
fn rates_are_read_with_their_units() {
    let good = [
        ("20%", Rate::Share(0.2)),
        ("5000", Rate::PerSecond(5000.0)),
        ("5k", Rate::PerSecond(5000.0)),
        ("1.5M", Rate::PerSecond(1.5e6)),
    ];
    good.iter().for_each(|(text, rate)| assert_eq!(text.parse(), Ok(*rate), "{text}"));
    for bad in ["", "%", "k", "0", "0%", "201%", "5kk", "5k%", "1e9", "-1", "NaN", "inf", "fast"] {
        assert!(bad.parse::<Rate>().is_err(), "{bad}");
    }
    assert_eq!((Rate::Share(0.5).share(), Rate::PerSecond(3.0).share()), (Some(0.5), None));
    assert_eq!((Rate::Share(0.5).per_second(10.0), Rate::PerSecond(3.0).per_second(10.0)), (5.0, 3.0));
}

#[test]
fn asks_are_due_at_even_times_however_late_they_are_taken() {
    let start = Instant::now();
    let at = |micros| start + Duration::from_micros(micros);
    let mut schedule = Schedule::new(start, Duration::from_millis(1), 10_000.0);
    assert_eq!(schedule.take(at(0)), Some(at(0)));
    assert_eq!((schedule.take(at(99)), schedule.waiting(at(99))), (None, 0));
    // Late by several: none is left out, and each keeps its time.
    assert_eq!(schedule.waiting(at(350)), 3);
    let taken: Vec<_> = std::iter::from_fn(|| schedule.take(at(350))).collect();
    assert_eq!(taken, [at(100), at(200), at(300)]);
    assert!(!schedule.is_over());
    assert_eq!(schedule.waiting(at(5000)), 6);
    assert_eq!(std::iter::from_fn(|| schedule.take(at(5000))).last(), Some(at(900)));
    assert!(schedule.is_over() && schedule.waiting(at(9000)) == 0);
}

#[test]
fn nothing_is_due_before_the_start() {
    let now = Instant::now();
    let mut schedule = Schedule::new(now + Duration::from_secs(1), Duration::from_secs(1), 1e6);
    assert_eq!((schedule.waiting(now), schedule.take(now)), (0, None));
}

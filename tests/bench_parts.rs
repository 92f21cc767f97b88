//! The parts of the benchmark that can be wrong without anybody noticing.

use std::time::{Duration, Instant};

use futures::executor::block_on;
use futures::future::{join, ready};

use counts::Counts;
use footprint::{Footprint, Held, Memory};
use open_loop::{OpenLoop, yield_now};
use sample::{Sample, Span};
use schedule::{Rate, Schedule};

#[path = "../benches/per_core_echo/counts.rs"]
mod counts;
#[path = "../benches/per_core_echo/footprint.rs"]
mod footprint;
#[path = "../benches/per_core_echo/open_loop.rs"]
mod open_loop;
#[path = "../benches/per_core_echo/sample.rs"]
#[expect(dead_code, reason = "only what open loops count is looked at")]
mod sample;
#[path = "../benches/per_core_echo/schedule.rs"]
mod schedule;

type Error = Box<dyn std::error::Error + Send + Sync>;

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

#[test]
fn one_number_of_connections_is_no_sweep_and_a_sweep_begins_with_one() {
    assert_eq!("7".parse(), Ok(Counts::One(7)));
    for (text, counts) in [("1,10,100", vec![1, 10, 100]), ("1000, 10,10", vec![1, 10, 1000]), ("5,5", vec![1, 5])] {
        assert_eq!(text.parse(), Ok(Counts::Sweep(counts)), "{text}");
    }
    let above = (counts::MOST + 1).to_string();
    for bad in ["", ",", "0", "1,0", "1,,2", "many", "-1", "1.5", &above] {
        assert!(bad.parse::<Counts>().is_err(), "{bad}");
    }
}

#[test]
fn a_count_that_takes_more_descriptors_than_there_are_is_left_out() {
    let all = [1, 10, 1000, 10_000];
    assert_eq!(counts::split(&all, 20_000), (all.to_vec(), vec![]));
    assert_eq!(counts::split(&all, 1024), (vec![1, 10], vec![1000, 10_000]), "a process needs some for itself");
    assert_eq!(counts::split(&all, counts::files(1000)), (vec![1, 10, 1000], vec![10_000]));
}

#[test]
fn what_a_connection_costs_is_what_each_beyond_the_first_has_added() {
    let memory = |server, client| Memory {
        server: Held { heap: server, resident: 2 * server },
        client: Held { heap: client, resident: 2 * client },
    };
    let one = memory(1_000_000, -500);
    let each = Footprint { server_heap: 640.0, server_resident: 1280.0, client_heap: 1500.0, client_resident: 3000.0 };
    assert_eq!(memory(1_064_000, 149_500).of_each_beyond(one, 101), Some(each));
    assert_eq!(one.of_each_beyond(one, 1), None);
}

/// 10 asks of which 8 count, one a millisecond, and the times to take them at.
fn ten_asks() -> (OpenLoop, impl Fn(u64) -> Instant) {
    let start = Instant::now();
    let span = Span { warm: Duration::from_millis(2), steady: Duration::from_millis(8) };
    (OpenLoop::new(start, span, 1000.0).unwrap(), move |micros| start + Duration::from_micros(micros))
}

#[test]
fn an_open_loop_counts_from_when_the_ask_was_due_and_leaves_the_warm_up_out() {
    let (asks, at) = ten_asks();
    for millis in 0..10 {
        // The asking side is late by 100 us, the answer takes 400 more.
        let due = asks.take(at(millis * 1000 + 100)).expect("it is due");
        assert_eq!((due, asks.take(at(millis * 1000 + 100))), (at(millis * 1000), None));
        assert!(!asks.is_done(at(millis * 1000 + 200)).unwrap(), "one is in flight");
        asks.answered(due, at(millis * 1000 + 500));
    }
    assert!(asks.is_done(at(9500)).unwrap());
    let sample = Sample::of([asks.into_meter()]).unwrap();
    assert_eq!((sample.latency.len(), sample.late, sample.unsent), (8, 0, 0));
    assert!((499_000..=501_000).contains(&sample.at(0.5)), "{}", sample.at(0.5));
    assert!((1065.0..1067.5).contains(&sample.rate), "8 in 7.5 ms, not {} a second", sample.rate);
}

#[test]
fn what_is_sent_long_after_it_was_due_is_counted_as_late() {
    let (asks, at) = ten_asks();
    let taken: Vec<_> = std::iter::from_fn(|| asks.take(at(9500))).collect();
    assert_eq!(taken.len(), 10);
    taken.into_iter().for_each(|due| asks.answered(due, at(9600)));
    let sample = Sample::of([asks.into_meter()]).unwrap();
    // Those due at 9 ms and, in the warm-up, at 0 and 1 ms are not.
    assert_eq!((sample.latency.len(), sample.late, sample.unsent), (8, 7, 0));
}

#[test]
fn an_open_loop_ends_however_slow_the_answers_are() {
    let (asks, at) = ten_asks();
    let only = asks.take(at(2500)).expect("it is due");
    let second = 1_000_000;
    assert!(!asks.is_done(at(second)).unwrap(), "there is time left to send more");
    assert!(!asks.is_done(at(2 * second)).unwrap(), "one is in flight");
    assert_eq!(asks.take(at(2 * second)), None, "nothing is sent any more");
    assert!(asks.is_done(at(20 * second)).is_err(), "the answer stays away for good");
    asks.answered(only, at(20 * second));
    assert!(asks.is_done(at(20 * second)).unwrap());
    let sample = Sample::of([asks.into_meter()]).unwrap();
    // What was never sent is there with the time that it waited: it does not make the latencies look better.
    assert_eq!((sample.latency.len(), sample.unsent), (8, 8));
    assert!(sample.at(0.0) > 1_900_000_000, "{}", sample.at(0.0));
}

#[test]
fn pacer_and_workers_end_when_all_is_answered_or_an_ask_fails() {
    let run = |answer: fn() -> Result<(), Error>| {
        let (asks, _) = ten_asks();
        let worker = asks.work(async || ready(answer()).await);
        let (paced, worked) = block_on(join(asks.pace(|| (), yield_now), worker));
        assert!(paced.is_ok());
        (worked, asks.into_meter().count())
    };
    assert!(matches!(run(|| Ok(())), (Ok(()), 8)));
    assert!(matches!(run(|| Err("lost".into())), (Err(_), 0)));
}

//! The parts of the benchmark that can be wrong without anybody noticing.

use std::time::{Duration, Instant};

use counts::Counts;
use footprint::{Footprint, Held, Memory};
use schedule::{Rate, Schedule};

#[path = "../benches/per_core_echo/counts.rs"]
mod counts;
#[path = "../benches/per_core_echo/footprint.rs"]
mod footprint;
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

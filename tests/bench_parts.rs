//! The parts of the benchmark that can be wrong without anybody noticing.

use std::cell::RefCell;
use std::ffi::OsString;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use futures::future::{join, ready};

use cli::{Command, Options};
use counts::Counts;
use crowd::{Asker, Crowd};
use footprint::{Footprint, Held, Memory};
use open_loop::{OpenLoop, yield_now};
use plan::{FloorKind, Path, Plan};
use sample::{Meter, Sample, Span, TimedMeter};
use schedule::{Rate, Schedule};
use variant::{Caller, PayloadKind, Shape, Variant};

#[path = "../benches/per_core_echo/cli.rs"]
#[expect(dead_code, reason = "nothing is measured here")]
mod cli;
#[path = "../benches/per_core_echo/counts.rs"]
mod counts;
#[path = "../benches/per_core_echo/crowd.rs"]
mod crowd;
#[path = "../benches/per_core_echo/footprint.rs"]
mod footprint;
#[path = "../benches/per_core_echo/open_loop.rs"]
mod open_loop;
#[path = "../benches/per_core_echo/plan.rs"]
#[expect(dead_code, reason = "nothing is measured here")]
mod plan;
#[path = "../benches/per_core_echo/sample.rs"]
#[expect(dead_code, reason = "only what open loops count is looked at")]
mod sample;
#[path = "../benches/per_core_echo/schedule.rs"]
mod schedule;
#[path = "../benches/per_core_echo/variant.rs"]
mod variant;

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

/// Ends and begins an ask so many times.
fn ask(meter: &mut Meter, times: u32) {
    let mut begun = meter.begin();
    for _ in 0..times {
        begun = meter.next(begun);
    }
}

#[test]
fn all_asks_are_counted_and_one_of_sixteen_is_timed() {
    for (sampled, timed) in [(16, 2), (1, 40)] {
        let mut meter = Meter::new(sampled).unwrap();
        meter.open(Instant::now());
        ask(&mut meter, 40);
        assert_eq!(meter.count(), 40);
        assert_eq!(Sample::of([meter]).unwrap().latency.len(), timed, "one of {sampled}");
    }
}

#[test]
fn asks_before_and_after_the_counted_time_do_not_count() {
    let mut meter = Meter::new(16).unwrap();
    ask(&mut meter, 100);
    meter.open(Instant::now());
    ask(&mut meter, 32);
    meter.close();
    ask(&mut meter, 100);
    assert_eq!((meter.count(), meter.is_counting()), (32, false));
    assert_eq!(Sample::of([meter]).unwrap().latency.len(), 2);
}

#[test]
fn a_floor_counts_from_the_first_timed_ask_behind_the_warm_up() {
    let span = Span { warm: Duration::ZERO, steady: Duration::from_secs(3600) };
    let mut meter = TimedMeter::start(span, 16).unwrap();
    let mut begun = meter.begin();
    for _ in 0..48 {
        begun = meter.next(begun).expect("the time is not over");
    }
    let meter = meter.into_meter();
    assert_eq!(meter.count(), 32);
    assert_eq!(Sample::of([meter]).unwrap().latency.len(), 2);
}

#[test]
fn askers_on_many_threads_count_for_themselves_between_the_two_readings() {
    let crowd = Crowd::new(3).unwrap();
    let askers: Vec<RefCell<Asker>> = (0..3).map(|lane| RefCell::new(crowd.asker(lane))).collect();
    let ask_each = |times: u32| {
        for mut asker in askers.iter().map(RefCell::borrow_mut) {
            for _ in 0..times {
                let begun = asker.begin();
                assert!(asker.end(begun), "the time is not over");
            }
        }
        Ok(times)
    };
    assert!(askers[0].borrow().is_warming_up());
    ask_each(5).unwrap();
    let time = crowd.keep_time(Span { warm: Duration::ZERO, steady: Duration::ZERO }, || ask_each(32)).unwrap();
    assert_eq!((time.count, time.before, time.after), (96, 32, 32));
    assert!(!askers[1].borrow_mut().end(None), "the time is over");
    drop(askers);
    // Both readings lie in the phase that counts: each asker has timed two of 32 asks in each.
    assert_eq!(Sample::of([crowd.into_meter(&time).unwrap()]).unwrap().latency.len(), 12);
}

fn options(arguments: &[&str]) -> Result<Options, String> {
    match cli::parse(["per_core_echo"].iter().chain(arguments).map(OsString::from)) {
        Ok(Command::Run(options)) => Ok(*options),
        Ok(_) => panic!("{arguments:?} measure nothing"),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn ways_to_write_an_ask_make_a_row_of_each_combination() {
    let args = ["--path", "tcp", "--idle", "spin", "--window", "512"];
    let rows = |more: &[&str]| {
        let plan = Plan::new(&options(&[&args, more].concat()).unwrap());
        plan.runs.iter().map(|run| run.variant.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(rows(&[]), ["task      core   array"]);
    assert_eq!(rows(&["--payload", "100"]), ["task      core   bytes"]);
    let wanted =
        ["task      core   array", "task      core   vec  ", "unordered core   array", "unordered core   vec  "];
    assert_eq!(rows(&["--shape", "task,unordered", "--payload-kind", "array,vec"]), wanted);
    let wanted = ["task      core   array", "task      thread array", "task      tokio  array"];
    assert_eq!(rows(&["--caller", "core, thread,tokio"]), wanted);
    assert_eq!(rows(&["--shape", "join_all,join_all", "--payload-kind", "bytes"]), ["join_all  core   bytes"]);
}

#[test]
fn combinations_that_make_no_sense_are_errors_that_say_so() {
    let refused = |arguments: &[&str]| options(arguments).err().expect("it is refused");
    for (arguments, part) in [
        (&["--shape", "unordered", "--caller", "tokio"][..], "--shape unordered is driven on a core"),
        (&["--shape", "task,join_all", "--caller", "core,thread"], "--shape join_all is driven on a core"),
        (&["--payload-kind", "array", "--payload", "100"], "--payload-kind array has 0, 16, 64, 128, 256, 1024, 4096"),
        (&["--shape", "unordered", "--rate", "20%"], "--shape is for the usual table, not for --rate"),
        (&["--caller", "tokio", "--scale"], "--caller is for the usual table, not for --scale"),
        (
            &["--caller", "thread", "--connections"],
            "--caller is for the usual table, not for a sweep over --connections",
        ),
        (&["--payload-kind", "vec", "--payloads", "64K"], "--payload-kind is not for --payloads"),
        (&["--shape", "tasks"], "'tasks' is none of task, unordered, join_all"),
        (&["--caller", "async"], "'async' is none of core, thread, tokio"),
        (&["--payload-kind", "string"], "'string' is none of array, vec, bytes"),
    ] {
        let error = refused(arguments);
        assert!(error.contains(part), "{arguments:?}: {error}");
    }
}

#[test]
fn usual_runs_are_written_the_usual_way_and_keep_within_their_time() {
    for (arguments, seconds) in [(&[][..], 70), (&["--quick"], 10)] {
        let plan = Plan::new(&options(arguments).unwrap());
        assert_eq!(plan.runs.len(), 30);
        let usual = Variant { shape: Shape::Task, caller: Caller::Core, payload_kind: PayloadKind::Array };
        assert!(plan.runs.iter().all(|run| run.variant == usual && run.sampled() == 16));
        assert!((plan.span.warm + plan.span.steady) * plan.slots() <= Duration::from_secs(seconds));
    }
}

#[test]
fn callers_that_are_no_core_stand_beside_a_hop_at_any_distance_with_each_idle_policy() {
    let plan = Plan::new(&options(&["--caller", "tokio", "--window", "64"]).unwrap());
    assert_eq!(plan.runs.len(), 12);
    assert!(plan.runs.iter().all(|run| plan.floor(run) == Some(FloorKind::Hop)));
    let own = Plan::new(&options(&["--path", "local"]).unwrap());
    assert!(own.runs.iter().all(|run| run.path == Path::Local && own.floor(run).is_none()));
}

#[test]
fn large_echoes_and_fetches_are_all_timed() {
    let sampled = |arguments: &[&str]| Plan::new(&options(arguments).unwrap()).runs[0].sampled();
    assert_eq!((sampled(&["--payload", "4096"]), sampled(&["--payload", "65536"])), (16, 1));
    let fetches = Plan::payloads(&options(&["--payloads", "64"]).unwrap());
    assert!(fetches.runs.iter().all(|run| run.sampled() == 1 && run.variant.payload_kind == PayloadKind::Bytes));
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

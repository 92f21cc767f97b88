//! The table people read.

use std::fmt::Write;
use std::hint::black_box;
use std::time::Instant;

use crate::Row;
use crate::cpus::{Cpus, machine};
use crate::plan::{FloorKind, Plan, Run};
use crate::sample::Sample;
use crate::variant::{Caller, PayloadKind, Variant};

const HEAD: [&str; 3] = [
    "                       |           ringpost            |        floor        |       |",
    "path  idle      window |       p50       p99      rate |       p50      rate | ratio | allocs/op enters/op",
    "-----------------------+-------------------------------+---------------------+-------+--------------------",
];

/// Further columns, where not all asks are written the usual way.
const VARIANT_HEAD: [&str; 3] = [" |", " | shape     caller payload sleeps/op", "-+----------------------------------"];

/// The whole report: machine, table, and how to read it.
pub(crate) fn render(rows: &[Row], plan: &Plan, cpus: &Cpus) -> String {
    let mut out = String::new();
    let varies = rows.iter().any(|row| row.run.variant != Variant::usual(row.run.payload));
    let _ = writeln!(out, "{}", title(plan, cpus));
    for (head, variant) in HEAD.iter().zip(VARIANT_HEAD) {
        let _ = writeln!(out, "{head}{}", if varies { variant } else { "" });
    }
    for row in rows {
        let variant = if varies { variant(row) } else { String::new() };
        let _ = writeln!(out, "{}{variant}", line(row));
    }
    out.push_str(&legend(rows));
    out
}

pub(crate) fn title(plan: &Plan, cpus: &Cpus) -> String {
    let Some(run) = plan.runs.first() else { return machine() };
    let most = |count: fn(&Run) -> usize| plan.runs.iter().map(count).max().unwrap_or(0);
    let mut title = format!("{}, {} CPUs; {} cores", machine(), cpus.len(), plan.most_cores());
    let connections = most(|run| run.connections.unwrap_or(0));
    if connections > 0 {
        let _ = write!(title, ", {}", plural(connections, "connection"));
    }
    if plan.runs.iter().all(|other| other.payload == run.payload) {
        let _ = write!(title, ", {}-byte payload", run.payload);
    }
    let _ = write!(title, "; median of {} rounds of ", plan.rounds);
    let steady = time(plan.span.steady.as_nanos() as u64);
    let which = match run.sampled() {
        1 => "Each round trip is timed".to_owned(),
        sampled => format!("One round trip of {sampled} is timed"),
    };
    let _ = write!(title, "{steady}\n{which}; a reading of the clock takes {} here.", time(clock_nanos()));
    title
}

/// What one reading of the clock costs.
fn clock_nanos() -> u64 {
    const READINGS: u32 = 10_000;
    let started = Instant::now();
    for _ in 1..READINGS {
        black_box(Instant::now());
    }
    (started.elapsed() / READINGS).as_nanos() as u64
}

fn plural(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn line(Row { run, ringpost, floor, .. }: &Row) -> String {
    let beside = match floor {
        Some(floor) => {
            format!("{:>9} {:>9} | {:>5.2}", time(floor.at(0.5)), rate(floor.rate), ratio(run, ringpost, floor))
        }
        None => format!("{:>9} {:>9} | {:>5}", "-", "-", "-"),
    };
    format!(
        "{:<5} {:<9} {:>6} | {:>9} {:>9} {:>9} | {beside} | {:>9} {:>9}",
        run.path.name(),
        run.idle.name(),
        run.window().unwrap_or(0),
        time(ringpost.at(0.5)),
        time(ringpost.at(0.99)),
        rate(ringpost.rate),
        per_op(ringpost.allocs_per_op),
        per_op(ringpost.enters_per_op),
    )
}

fn variant(Row { run, ringpost, .. }: &Row) -> String {
    format!(" | {:<24} {:>9}", run.variant.to_string(), per_op(ringpost.sleeps_per_op))
}

/// How much longer ringpost takes than the floor: by p50 where one ask is in flight, by time per ask else.
fn ratio(run: &Run, ringpost: &Sample, floor: &Sample) -> f64 {
    if run.is_ping_pong() { ringpost.at(0.5) as f64 / floor.at(0.5).max(1) as f64 } else { floor.rate / ringpost.rate }
}

fn legend(rows: &[Row]) -> String {
    let mut out = String::from(
        "ratio = ringpost / floor, 1.00 is the floor: of the p50 with one ask in flight, of the time per ask (by rate) with more.\n\
         enters/op = calls of `io_uring_enter` per ask, and sends made without one, of both sides together.\n",
    );
    let kinds =
        [FloorKind::NonBlocking, FloorKind::Blocking, FloorKind::Pipelined, FloorKind::CacheLine, FloorKind::Hop];
    let used = |kind: &FloorKind| rows.iter().any(|row| row.run.floor() == Some(*kind));
    let floors: Vec<&str> = kinds.iter().filter(|kind| used(kind)).map(|&kind| meaning(kind)).collect();
    if !floors.is_empty() {
        let _ = writeln!(out, "floors: {}.", floors.join(";\n        "));
    }
    let kind = |kind: PayloadKind| rows.iter().find(|row| row.run.variant.payload_kind == kind);
    for (kind, name) in
        [(PayloadKind::Vec, "Vec<u8>"), (PayloadKind::Bytes, "Bytes")].map(|(of, name)| (kind(of), name))
    {
        let Some(row) = kind else { continue };
        let size = row.run.payload;
        let _ = writeln!(out, "A payload of {size} bytes is carried by `{name}`; the allocations for it are counted.");
    }
    if rows.iter().any(|row| row.run.variant.caller != Caller::Core) {
        out.push_str(
            "thread, tokio: allocs/op are those of all threads, the callers' included; sleeps/op = times that any thread of\n\
             the process fell asleep for each ask.\n",
        );
    }
    out
}

fn meaning(kind: FloorKind) -> &'static str {
    match kind {
        FloorKind::NonBlocking => {
            "sockets, 1 in flight, adaptive and spin: send/recv ping-pong on non-blocking sockets, both sides spin"
        }
        FloorKind::Blocking => "sockets, 1 in flight, park: send/recv ping-pong on blocking sockets",
        FloorKind::Pipelined => {
            "sockets, more in flight: raw bytes of as many frames echoed in large reads, both sides spin"
        }
        FloorKind::Fetch => "raw bytes fetched over a socket",
        FloorKind::Alone => "raw bytes echoed by the thread that sent them",
        FloorKind::RoundRobin => "raw bytes that go round over many sockets",
        FloorKind::CacheLine => {
            "mesh: numbers through as many cache lines shared by two pinned threads, both sides spin"
        }
        FloorKind::Hop => {
            "thread, tokio: as many callers send numbers through a tokio mpsc channel to a thread that answers at once\n\
             \x20       through a oneshot channel; it spins, or sleeps (park)"
        }
    }
}

/// Nanoseconds with three digits and a unit.
pub(crate) fn time(nanos: u64) -> String {
    scaled(nanos as f64, &["ns", "us", "ms", "s"])
}

pub(crate) fn rate(per_second: f64) -> String {
    scaled(per_second, &["/s", "k/s", "M/s", "G/s"])
}

fn scaled(mut value: f64, units: &[&str]) -> String {
    let mut units = units.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    // 999.5 would be shown as 1000.
    while value >= 999.5 {
        let Some(next) = units.next() else { break };
        value /= 1000.0;
        unit = next;
    }
    let digits = match value {
        _ if value == value.trunc() && unit == "ns" => 0,
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {unit}")
}

/// A bare 0 is none at all; very few are not hidden by rounding.
pub(crate) fn per_op(value: Option<f64>) -> String {
    match value {
        None => "-".into(),
        Some(0.0) => "0".into(),
        Some(value) if value < 0.00005 => "<0.0001".into(),
        Some(value) => format!("{value:.4}"),
    }
}

//! The table people read.

use std::fmt::Write;

use crate::Measured;
use crate::cpus::{Cpus, machine};
use crate::payload;
use crate::plan::Plan;

const HEAD: &str = "\
path  window system          caller idle     |       p50  (min .. max)            p99 |      rate  (min .. max)         | ringpost
---------------------------------------------+----------------------------------------+---------------------------------+---------";

const LEGEND: &str = "\
min .. max = of all rounds; p50, p99 and rate are those of the median round.
ringpost = how many times ringpost is ahead with the same caller and idle policy: by p50 with one ask in flight, by rate with more.
";

/// The whole report: machine, table, and how to read it.
pub(crate) fn render(rows: &[Measured], plan: &Plan, cpus: &Cpus) -> String {
    let mut out = title(plan, cpus);
    let _ = writeln!(out, "{HEAD}");
    let mut group = None;
    for row in rows {
        let this = (row.row.path, row.row.window());
        if group.is_some_and(|group| group != this) {
            out.push('\n');
        }
        group = Some(this);
        let _ = writeln!(out, "{}", line(row, rows));
    }
    out.push_str(LEGEND);
    out
}

/// What was measured where.
pub(crate) fn title(plan: &Plan, cpus: &Cpus) -> String {
    let (size, rounds, steady) = (payload::SIZE, plan.rounds, plan.span.steady.as_secs_f64());
    format!(
        "{}, {} CPUs\n{size}-byte payload, 1 connection, median of {rounds} interleaved rounds of {steady:.2} s\n",
        machine(),
        cpus.len(),
    )
}

fn line(measured: &Measured, all: &[Measured]) -> String {
    let Measured { row, median, p50_ns, rate: rates, .. } = measured;
    let ratio = ahead(measured, all).map_or("-".into(), |ratio| format!("{ratio:.2}"));
    format!(
        "{:<5} {:>6} {:<15} {:<6} {:<8} | {:>9}  {:>9} .. {:<9} {:>9} | {:>9}  {:>8} .. {:<9} | {ratio:>7}",
        row.path.name(),
        row.window().unwrap_or(0),
        row.system,
        row.caller.name(),
        row.idle.name(),
        time(median.at(0.5)),
        time(p50_ns.0),
        time(p50_ns.1),
        time(median.at(0.99)),
        rate(median.rate),
        rate(rates.0),
        rate(rates.1),
    )
}

/// How many times ringpost is ahead of this row; none for its own rows, or where it has no such row.
fn ahead(measured: &Measured, all: &[Measured]) -> Option<f64> {
    let Measured { row, median, .. } = measured;
    let same = |other: &&Measured| {
        other.row.system == "ringpost"
            && (other.row.path, other.row.idle, other.row.caller, other.row.load)
                == (row.path, row.idle, row.caller, row.load)
    };
    let ringpost = &all.iter().find(same)?.median;
    let ratio = if row.window() == Some(1) {
        median.at(0.5) as f64 / ringpost.at(0.5).max(1) as f64
    } else {
        ringpost.rate / median.rate
    };
    (row.system != "ringpost").then_some(ratio)
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

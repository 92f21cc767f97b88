//! The report of large answers: bytes per second, beside raw sockets.

use std::fmt::Write;

use crate::cli::Options;
use crate::cpus::Cpus;
use crate::plan::{Plan, Run};
use crate::sample::Sample;
use crate::{Error, Row, table};

const HEAD: [&str; 3] = [
    "                               |          ringpost             |      raw sockets     |       |",
    "path  idle      window payload |       p50       p99      MB/s |       p50       MB/s | share | allocs/op enters/op",
    "-------------------------------+-------------------------------+----------------------+-------+--------------------",
];

const LEGEND: &str = "\
Asks of a few bytes, answers of this size, carried by `Bytes`: decoding one allocates. share = ringpost's MB/s of the raw
socket's, which writes each answer from one buffer of its size and reads it into another; both spin, or block (park).
";

/// Measures the sweep and prints its table.
pub(crate) fn measure(options: &Options, cpus: &Cpus) -> Result<Vec<Row>, Error> {
    let plan = Plan::payloads(options);
    if plan.runs.is_empty() {
        return Err("--payloads goes over sockets: give tcp or unix to --path".into());
    }
    let rows = crate::measure(&plan, cpus, by_rate)?;
    print!("{}", render(&rows, &plan, cpus));
    Ok(rows)
}

fn by_rate(_run: &Run, sample: &Sample) -> f64 {
    1.0 / sample.rate
}

fn render(rows: &[Row], plan: &Plan, cpus: &Cpus) -> String {
    let mut out = table::title(plan, cpus);
    let _ = writeln!(out, "\n{}", HEAD.join("\n"));
    rows.iter().for_each(|row| out.push_str(&line(row)));
    out + LEGEND
}

fn line(Row { run, ringpost, floor, .. }: &Row) -> String {
    let megabytes = |sample: &Sample| sample.rate * run.payload as f64 / 1e6;
    let beside = floor.as_ref().map_or_else(String::new, |raw| {
        let share = 100.0 * ringpost.rate / raw.rate;
        format!("{:>9} {:>10.1} | {share:>3.0} %", table::time(raw.at(0.5)), megabytes(raw))
    });
    format!(
        "{:<5} {:<9} {:>6} {:>7} | {:>9} {:>9} {:>9.1} | {beside} | {:>9} {:>9}\n",
        run.path.name(),
        run.idle.name(),
        run.window().unwrap_or(0),
        size(run.payload),
        table::time(ringpost.at(0.5)),
        table::time(ringpost.at(0.99)),
        megabytes(ringpost),
        table::per_op(ringpost.allocs_per_op),
        table::per_op(ringpost.enters_per_op),
    )
}

fn size(bytes: usize) -> String {
    match bytes {
        _ if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) => format!("{}M", bytes >> 20),
        _ if bytes >= 1 << 10 && bytes.is_multiple_of(1 << 10) => format!("{}K", bytes >> 10),
        _ => bytes.to_string(),
    }
}

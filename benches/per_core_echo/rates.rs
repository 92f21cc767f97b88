//! The report of open loops: what an ask takes at a given rate, with the tail.

use std::fmt::Write;

use crate::cli::Options;
use crate::cpus::Cpus;
use crate::plan::{Load, Plan, Run};
use crate::sample::Sample;
use crate::{Error, Row, by_p50_or_rate, table};

const HEAD: [&str; 2] = [
    "path  idle      |   offered            |  answered |     p50      p90      p99    p99.9   p99.99      max |    late  unsent | allocs/op enters/op",
    "----------------+----------------------+-----------+------------------------------------------------------+-----------------+--------------------",
];

const LEGEND: &str = "\
Open loop: asks are due at even times, each latency counts from then (no coordinated omission); the median round by p99.
(n %) = of the maximum of that path and policy in this run, a closed loop. The asking core never rests; the policy is
that of the answering one. More than 1024 asks in flight wait, and that counts. late = sent more than 1 ms after they
were due; unsent = not sent within 1 s after the last was due: their latency is how long they waited until then.
";

/// Measures what is done at most, then the rates; prints the table. The rows are those of both.
pub(crate) fn measure(options: &Options, cpus: &Cpus) -> Result<Vec<Row>, Error> {
    let mut rows = crate::measure(&Plan::maxima(options), cpus, by_p50_or_rate)?;
    let maxima: Vec<(Run, f64)> = rows.iter().map(|row| (row.run, row.ringpost.rate)).collect();
    let plan = Plan::rates(&maxima, &options.rates, options);
    rows.extend(crate::measure(&plan, cpus, by_p99)?);
    print!("{}", render(&rows, &plan, cpus));
    Ok(rows)
}

fn by_p99(_run: &Run, sample: &Sample) -> f64 {
    sample.at(0.99) as f64
}

fn render(rows: &[Row], plan: &Plan, cpus: &Cpus) -> String {
    let mut out = table::title(plan, cpus);
    let _ = writeln!(out, "\n{}", HEAD.join("\n"));
    rows.iter().for_each(|row| out.push_str(&line(row)));
    out + LEGEND
}

fn line(Row { run, ringpost, .. }: &Row) -> String {
    let offered = match run.load {
        Load::Window(window) | Load::RoundRobin(window) => format!("as {window} in flight"),
        Load::Rate { per_second, share } => {
            let share = share.map(|share| format!("({:.0} %)", share * 100.0)).unwrap_or_default();
            format!("{} {share:>8}", table::rate(per_second))
        }
    };
    let times = [0.5, 0.9, 0.99, 0.999, 0.9999, 1.0].map(|part| format!("{:>8}", table::time(ringpost.at(part))));
    format!(
        "{:<5} {:<9} | {offered:>20} | {:>9} | {} | {:>7} {:>7} | {:>9} {:>9}\n",
        run.path.name(),
        run.idle.name(),
        table::rate(ringpost.rate),
        times.join(" "),
        ringpost.late,
        ringpost.unsent,
        table::per_op(ringpost.allocs_per_op),
        table::per_op(ringpost.enters_per_op),
    )
}

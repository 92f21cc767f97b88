//! The report of open loops: what an ask takes at a given rate, with the tail.

use std::fmt::Write;

use crate::cli::Options;
use crate::cpus::Cpus;
use crate::plan::{Load, Plan};
use crate::{Error, Measured, table};

const HEAD: &str = "\
path  system          idle     |   offered            |  answered |     p50      p90      p99    p99.9   p99.99      max |    late  unsent
-------------------------------+----------------------+-----------+------------------------------------------------------+----------------";

const LEGEND: &str = "\
Open loop: asks are due at even times, each latency counts from then (no coordinated omission); the median round by p99.
(n %) = of what that row did with so many in flight. The asking thread never rests; idle is what the answering one does.
More than 1024 asks in flight wait, and that counts. late = sent more than 1 ms after they were due; unsent = not sent
within 1 s after the last was due: their latency is how long they waited until then.
";

/// Measures what each system does at most, then the rates; prints the table. The rows are those of both.
pub(crate) fn measure(options: &Options, cpus: &Cpus) -> Result<Vec<Measured>, Error> {
    let mut rows = crate::measure(&Plan::maxima(options)?, cpus)?;
    let maxima: Vec<_> = rows.iter().map(|measured| (measured.row, measured.median.rate)).collect();
    let plan = Plan::rates(&maxima, options);
    rows.extend(crate::measure(&plan, cpus)?);
    // Each system's rates below its maximum.
    rows.sort_by_key(|measured| maxima.iter().position(|(row, _)| row.is_like(&measured.row)));
    print!("{}", render(&rows, &plan, cpus));
    Ok(rows)
}

fn render(rows: &[Measured], plan: &Plan, cpus: &Cpus) -> String {
    let mut out = table::title(plan, cpus);
    let _ = writeln!(out, "{HEAD}");
    rows.iter().for_each(|row| out.push_str(&line(row)));
    out + LEGEND
}

fn line(Measured { row, median, .. }: &Measured) -> String {
    let (offered, late) = match row.load {
        Load::Window(window) => (format!("as {window} in flight"), ["-".into(), "-".into()]),
        Load::Rate { per_second, share } => {
            let share = share.map(|share| format!("({:.0} %)", share * 100.0)).unwrap_or_default();
            let offered = format!("{} {share:>8}", table::rate(per_second));
            (offered, [median.late, median.unsent].map(|count| count.to_string()))
        }
    };
    let times = [0.5, 0.9, 0.99, 0.999, 0.9999, 1.0].map(|part| format!("{:>8}", table::time(median.at(part))));
    format!(
        "{:<5} {:<15} {:<8} | {offered:>20} | {:>9} | {} | {:>7} {:>7}\n",
        row.path.name(),
        row.system,
        row.idle.name(),
        table::rate(median.rate),
        times.join(" "),
        late[0],
        late[1],
    )
}

//! The report of several cores against one: each core is both client and server of itself.

use std::fmt::Write;

use crate::cli::Options;
use crate::cpus::Cpus;
use crate::plan::{Plan, Run};
use crate::sample::Sample;
use crate::{Error, Row, table};

const HEAD: [&str; 3] = [
    "             |              ringpost               |             raw sockets",
    "path  window |  one core     cores       p50  gain |  one core     cores  gain",
    "-------------+-------------------------------------+--------------------------",
];

const LEGEND: &str = "\
Asks per second; each core asks itself, over a connection to itself or without any. gain = how many times as much all
cores did as one. Where raw sockets gain less than there are cores, the cores share something: a physical core, memory.
";

/// Measures one core and all of them; prints the table.
pub(crate) fn measure(options: &Options, cpus: &Cpus) -> Result<Vec<Row>, Error> {
    let plan = Plan::scale(options);
    if plan.runs.is_empty() {
        return Err("--scale is about tcp, unix and local: give one of them to --path".into());
    }
    let rows = crate::measure(&plan, cpus, by_rate)?;
    let mut out = table::title(&plan, cpus);
    let _ = writeln!(out, "\n{}", HEAD.join("\n"));
    rows.chunks_exact(2).for_each(|pair| out.push_str(&line(&pair[0], &pair[1])));
    print!("{out}{LEGEND}");
    Ok(rows)
}

fn by_rate(_run: &Run, sample: &Sample) -> f64 {
    1.0 / sample.rate
}

fn line(one: &Row, all: &Row) -> String {
    let raw = one.floor.as_ref().zip(all.floor.as_ref());
    let raw = raw.map_or_else(
        || format!("{:>9} {:>9} {:>5}", "-", "-", "-"),
        |(one, all)| format!("{:>9} {:>9} {:>5.2}", table::rate(one.rate), table::rate(all.rate), all.rate / one.rate),
    );
    let (run, one, all) = (&one.run, &one.ringpost, &all.ringpost);
    format!(
        "{:<5} {:>6} | {:>9} {:>9} {:>9} {:>5.2} | {raw}\n",
        run.path.name(),
        run.window().unwrap_or(0),
        table::rate(one.rate),
        table::rate(all.rate),
        table::time(all.at(0.5)),
        all.rate / one.rate,
    )
}

//! The report of many connections: what an ask takes, and what an idle connection costs.

use std::fmt::Write;

use crate::cli::Options;
use crate::cpus::Cpus;
use crate::footprint::Memory;
use crate::plan::{Plan, Run};
use crate::sample::Sample;
use crate::{Error, Row, by_p50_or_rate, counts, files, pair, table};

const HEAD: [&str; 3] = [
    "                                    |           ringpost                    |   raw sockets    | bytes of an idle one, heap (RSS) |",
    "path  idle      connections  asks   |       p50  x one       p99      rate  |       p50  x one |         server          client   | allocs/op enters/op",
    "------------------------------------+---------------------------------------+------------------+----------------------------------+--------------------",
];

const LEGEND: &str = "\
Client and server are processes of one core each; each connection leads to an address of the server of its own. The asks
(so many in flight in all) go round: each next one takes the next connection. x one = the p50 with one connection = 1.
raw sockets: one message goes round over as many; the asking side waits on the socket, the answering one in `epoll_wait`.
bytes = what each connection beyond the first has added once it had carried an ask: what the core's allocator holds (the
client's ref included), and what the process had in memory, which says little where connections are few.
";

/// Measures the sweep and prints its table.
pub(crate) fn measure(options: &Options, cpus: &Cpus) -> Result<Vec<Row>, Error> {
    let plan = Plan::connections(options, &allowed(&options.counts)?);
    if plan.runs.is_empty() {
        return Err("a list of --connections is about sockets: give tcp or unix to --path".into());
    }
    let mut rows = crate::measure(&plan, cpus, by_p50_or_rate)?;
    weigh(&mut rows)?;
    print!("{}", render(&rows, &plan, cpus));
    Ok(rows)
}

/// Those of the counts that the limit of open files allows; says which ones it does not.
fn allowed(counts: &[usize]) -> Result<Vec<usize>, Error> {
    let wanted = counts::files(counts.iter().copied().max().unwrap_or(1));
    let limit = files::allow(wanted)?;
    let (had, missing) = counts::split(counts, limit);
    if !missing.is_empty() {
        let missing: Vec<String> = missing.iter().map(usize::to_string).collect();
        eprintln!(
            "warning: no rows of {} connections: a process may have {limit} files open here, and they take {wanted}.\n\
             `ulimit -Hn {wanted}` by root allows it, or LimitNOFILE={wanted} (systemd), --ulimit nofile={wanted} (Docker).",
            missing.join(", ")
        );
    }
    Ok(had)
}

/// Finds what an idle connection costs, and puts it into the rows.
fn weigh(rows: &mut [Row]) -> Result<(), Error> {
    let mut one: Option<Memory> = None;
    for rows in rows.chunk_by_mut(have_same_connections) {
        let run = rows[0].run;
        let connections = run.connections.unwrap_or(1);
        let memory = pair::weigh(&run).map_err(|error| format!("memory of {connections} connections: {error}"))?;
        if connections == 1 {
            one = Some(memory);
        }
        let footprint = one.and_then(|one| memory.of_each_beyond(one, connections));
        rows.iter_mut().for_each(|row| row.footprint = footprint);
    }
    Ok(())
}

fn have_same_connections(Row { run: a, .. }: &Row, Row { run: b, .. }: &Row) -> bool {
    (a.path, a.idle, a.connections) == (b.path, b.idle, b.connections)
}

fn render(rows: &[Row], plan: &Plan, cpus: &Cpus) -> String {
    let mut out = table::title(plan, cpus);
    let _ = writeln!(out, "\n{}", HEAD.join("\n"));
    rows.iter().for_each(|row| out.push_str(&line(row, base(rows, &row.run))));
    out + LEGEND
}

/// The row with one connection that a row is compared with.
fn base<'a>(rows: &'a [Row], run: &Run) -> Option<&'a Row> {
    let one = Run { connections: Some(1), ..*run };
    rows.iter().find(|row| row.run == one)
}

fn line(Row { run, ringpost, floor, footprint }: &Row, base: Option<&Row>) -> String {
    let p50 = |sample: &Sample| sample.at(0.5);
    let times = |many: &Sample, one: Option<&Sample>| {
        one.map_or_else(|| "-".into(), |one| format!("{:.2}", p50(many) as f64 / p50(one).max(1) as f64))
    };
    let beside = floor.as_ref().map_or_else(
        || format!("{:>9} {:>6}", "-", "-"),
        |raw| {
            let one = base.and_then(|base| base.floor.as_ref());
            format!("{:>9} {:>6}", table::time(p50(raw)), times(raw, one))
        },
    );
    let weight = footprint.map_or_else(
        || format!("{:>14} {:>15}", "-", "-"),
        |each| {
            let [server, client] = [(each.server_heap, each.server_resident), (each.client_heap, each.client_resident)]
                .map(|(heap, resident)| format!("{heap:.0} ({resident:.0})"));
            format!("{server:>14} {client:>15}")
        },
    );
    format!(
        "{:<5} {:<9} {:>11} {:>6}  | {:>9} {:>6} {:>9} {:>9} | {beside} | {weight}  | {:>9} {:>9}\n",
        run.path.name(),
        run.idle.name(),
        run.connections.unwrap_or(0),
        run.window().unwrap_or(0),
        table::time(p50(ringpost)),
        times(ringpost, base.map(|base| &base.ringpost)),
        table::time(ringpost.at(0.99)),
        table::rate(ringpost.rate),
        table::per_op(ringpost.allocs_per_op),
        table::per_op(ringpost.enters_per_op),
    )
}

//! All figures as JSON: an array of objects, ringpost and floor of each row.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path as FilePath;

use serde::Serialize;

use crate::Row;
use crate::footprint::Footprint;
use crate::plan::Load;
use crate::sample::Sample;

/// One object of the array. Scripts rely on these names; `null` is what does not apply.
#[derive(Serialize)]
struct Record {
    system: &'static str,
    path: &'static str,
    idle: &'static str,
    cores: usize,
    /// Each core asks itself.
    alone: bool,
    connections: Option<usize>,
    window: Option<usize>,
    /// The window is that of all connections: the asks go round over them, between two processes.
    round_robin: bool,
    /// Asks per second that an open loop was to make, and the part of the own maximum that this was meant to be.
    offered_per_s: Option<f64>,
    offered_share: Option<f64>,
    /// Asks of an open loop that were sent more than 1 ms after they were due, and those that never were.
    late: Option<u64>,
    unsent: Option<u64>,
    payload: usize,
    /// `echo`: the payload goes both ways. `fetch`: it is the answer.
    exchange: &'static str,
    /// Millions of payload bytes of answers per second.
    mb_per_s: f64,
    rate_per_s: f64,
    p50_ns: u64,
    p90_ns: u64,
    p99_ns: u64,
    p999_ns: u64,
    p9999_ns: u64,
    max_ns: u64,
    allocs_per_op: Option<f64>,
    enters_per_op: Option<f64>,
    /// How the asks are driven, who asks, and what carries the payload.
    shape: &'static str,
    caller: &'static str,
    payload_kind: &'static str,
    /// Times per ask that a thread of the process fell asleep; known where no core asks.
    sleeps_per_op: Option<f64>,
    /// Bytes of an idle connection at each end: what the core has allocated, and what of the process is in memory.
    server_heap_per_connection: Option<f64>,
    server_resident_per_connection: Option<f64>,
    client_heap_per_connection: Option<f64>,
    client_resident_per_connection: Option<f64>,
}

impl Record {
    fn new(system: &'static str, Row { run, .. }: &Row, sample: &Sample, footprint: Option<Footprint>) -> Record {
        let offered = match run.load {
            Load::Rate { per_second, share } => Some((per_second, share)),
            Load::Window(_) | Load::RoundRobin(_) => None,
        };
        Record {
            system,
            path: run.path.name(),
            idle: run.idle.name(),
            cores: run.cores,
            alone: run.alone,
            connections: run.connections,
            window: run.window(),
            round_robin: matches!(run.load, Load::RoundRobin(_)),
            offered_per_s: offered.map(|(rate, _)| rate.round()),
            offered_share: offered.and_then(|(_, share)| share),
            late: offered.map(|_| sample.late),
            unsent: offered.map(|_| sample.unsent),
            payload: run.payload,
            exchange: run.exchange.name(),
            mb_per_s: sample.rate * run.payload as f64 / 1e6,
            rate_per_s: sample.rate.round(),
            p50_ns: sample.at(0.5),
            p90_ns: sample.at(0.9),
            p99_ns: sample.at(0.99),
            p999_ns: sample.at(0.999),
            p9999_ns: sample.at(0.9999),
            max_ns: sample.latency.max(),
            allocs_per_op: sample.allocs_per_op,
            enters_per_op: sample.enters_per_op,
            shape: run.variant.shape.name(),
            caller: run.variant.caller.name(),
            payload_kind: run.variant.payload_kind.name(),
            sleeps_per_op: sample.sleeps_per_op,
            server_heap_per_connection: footprint.map(|each| each.server_heap),
            server_resident_per_connection: footprint.map(|each| each.server_resident),
            client_heap_per_connection: footprint.map(|each| each.client_heap),
            client_resident_per_connection: footprint.map(|each| each.client_resident),
        }
    }
}

/// Writes the file, over whatever it held, and makes its folder if there is none.
pub(crate) fn write(file: &FilePath, rows: &[Row]) -> io::Result<()> {
    let mut records = Vec::new();
    for row in rows {
        records.push(Record::new("ringpost", row, &row.ringpost, row.footprint));
        records.extend(row.floor.as_ref().map(|floor| Record::new("floor", row, floor, None)));
    }
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut out = BufWriter::new(File::create(file)?);
    serde_json::to_writer_pretty(&mut out, &records)?;
    out.write_all(b"\n")?;
    out.flush()
}

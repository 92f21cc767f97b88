//! All figures as JSON: an array of objects with the keys of `per_core_echo --json`, and the spread of the rounds.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path as FilePath;

use serde::Serialize;

use crate::Measured;
use crate::payload;
use crate::plan::{Load, Path};
use crate::variant::{PayloadKind, Shape};

/// One object of the array. Scripts rely on these names; `null` is what does not apply or is not counted here.
#[derive(Serialize)]
struct Record {
    system: &'static str,
    path: &'static str,
    idle: &'static str,
    cores: usize,
    alone: bool,
    connections: Option<usize>,
    window: Option<usize>,
    offered_per_s: Option<f64>,
    offered_share: Option<f64>,
    late: Option<u64>,
    unsent: Option<u64>,
    payload: usize,
    exchange: &'static str,
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
    shape: Option<&'static str>,
    caller: &'static str,
    payload_kind: Option<&'static str>,
    sleeps_per_op: Option<f64>,
    // From here on: only in this benchmark.
    rounds: u32,
    rate_min_per_s: f64,
    rate_max_per_s: f64,
    p50_min_ns: u64,
    p50_max_ns: u64,
}

impl Record {
    fn new(Measured { row, rounds, median, p50_ns, rate }: &Measured) -> Record {
        let offered = match row.load {
            Load::Rate { per_second, share } => Some((per_second, share)),
            Load::Window(_) => None,
        };
        Record {
            system: row.system,
            path: row.path.name(),
            idle: row.idle.name(),
            cores: if row.path == Path::Local { 1 } else { 2 },
            alone: false,
            connections: (row.path == Path::Tcp).then_some(1),
            window: row.window(),
            offered_per_s: offered.map(|(rate, _)| rate.round()),
            offered_share: offered.and_then(|(_, share)| share),
            late: offered.map(|_| median.late),
            unsent: offered.map(|_| median.unsent),
            payload: payload::SIZE,
            exchange: "echo",
            mb_per_s: median.rate * payload::SIZE as f64 / 1e6,
            rate_per_s: median.rate.round(),
            p50_ns: median.at(0.5),
            p90_ns: median.at(0.9),
            p99_ns: median.at(0.99),
            p999_ns: median.at(0.999),
            p9999_ns: median.at(0.9999),
            max_ns: median.latency.max(),
            allocs_per_op: None,
            enters_per_op: None,
            shape: row.shape.map(Shape::name),
            caller: row.caller.name(),
            payload_kind: row.payload_kind.map(PayloadKind::name),
            sleeps_per_op: None,
            rounds: *rounds,
            rate_min_per_s: rate.0.round(),
            rate_max_per_s: rate.1.round(),
            p50_min_ns: p50_ns.0,
            p50_max_ns: p50_ns.1,
        }
    }
}

/// Writes the file, over whatever it held, and makes its folder if there is none.
pub(crate) fn write(file: &FilePath, rows: &[Measured]) -> io::Result<()> {
    let records: Vec<Record> = rows.iter().map(Record::new).collect();
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut out = BufWriter::new(File::create(file)?);
    serde_json::to_writer_pretty(&mut out, &records)?;
    out.write_all(b"\n")?;
    out.flush()
}

//! All figures as JSON: an array of objects with the keys of `per_core_echo --json`, and the spread of the rounds.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path as FilePath;

use serde::Serialize;

use crate::Measured;
use crate::payload;
use crate::plan::{Path, Plan};

/// One object of the array. Scripts rely on these names; `null` is what does not apply or is not counted here.
#[derive(Serialize)]
struct Record {
    system: &'static str,
    path: &'static str,
    idle: &'static str,
    cores: usize,
    connections: Option<usize>,
    window: usize,
    payload: usize,
    rate_per_s: f64,
    p50_ns: u64,
    p90_ns: u64,
    p99_ns: u64,
    p999_ns: u64,
    max_ns: u64,
    allocs_per_op: Option<f64>,
    enters_per_op: Option<f64>,
    // From here on: only in this benchmark.
    rounds: u32,
    rate_min_per_s: f64,
    rate_max_per_s: f64,
    p50_min_ns: u64,
    p50_max_ns: u64,
}

impl Record {
    fn new(Measured { row, median, p50_ns, rate }: &Measured, rounds: u32) -> Record {
        Record {
            system: row.system,
            path: row.path.name(),
            idle: row.idle.name(),
            cores: if row.path == Path::Local { 1 } else { 2 },
            connections: (row.path == Path::Tcp).then_some(1),
            window: row.window,
            payload: payload::SIZE,
            rate_per_s: median.rate.round(),
            p50_ns: median.at(0.5),
            p90_ns: median.at(0.9),
            p99_ns: median.at(0.99),
            p999_ns: median.at(0.999),
            max_ns: median.latency.max(),
            allocs_per_op: None,
            enters_per_op: None,
            rounds,
            rate_min_per_s: rate.0.round(),
            rate_max_per_s: rate.1.round(),
            p50_min_ns: p50_ns.0,
            p50_max_ns: p50_ns.1,
        }
    }
}

/// Writes the file, over whatever it held, and makes its folder if there is none.
pub(crate) fn write(file: &FilePath, rows: &[Measured], plan: &Plan) -> io::Result<()> {
    let records: Vec<Record> = rows.iter().map(|row| Record::new(row, plan.rounds)).collect();
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut out = BufWriter::new(File::create(file)?);
    serde_json::to_writer_pretty(&mut out, &records)?;
    out.write_all(b"\n")?;
    out.flush()
}

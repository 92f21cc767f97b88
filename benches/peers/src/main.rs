//! ringpost beside what users would pick instead, all in one run:
//! `cargo run --release --manifest-path benches/peers/Cargo.toml`.
//!
//! Every system echoes the same 64 bytes between the same two CPUs, and the same meter times it. The rounds are
//! interleaved, so that a slow minute of the machine hits everybody. README.md tells what is compared and with which
//! settings; each file of `systems/` is one system, short enough to judge whether it was treated fairly.

mod asking;
mod cli;
#[path = "../../per_core_echo/cpus.rs"]
mod cpus;
#[path = "../../per_core_echo/crowd.rs"]
#[expect(dead_code, reason = "shared with per_core_echo, which counts more, and compares answers in the warm-up only")]
mod crowd;
mod json;
#[path = "../../per_core_echo/open_loop.rs"]
mod open_loop;
mod payload;
mod plan;
mod rates;
#[path = "../../per_core_echo/sample.rs"]
#[expect(dead_code, reason = "shared with per_core_echo, which also counts allocations")]
mod sample;
#[path = "../../per_core_echo/schedule.rs"]
mod schedule;
mod systems;
mod table;
mod threads;
#[path = "../../per_core_echo/variant.rs"]
#[expect(dead_code, reason = "shared with per_core_echo, which has more ways to ask")]
mod variant;

use std::process::{self, ExitCode};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use cli::{Command, Options};
use cpus::Cpus;
use plan::{Plan, Row};
use sample::{Sample, Span};

/// Whatever ends the measuring early; its text is shown to the user.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

/// How much longer than it was told to a measurement may take: what starting and stopping take, and the patience of an
/// open loop with the last answers.
const PATIENCE: Duration = Duration::from_secs(20);

/// One row, measured.
pub(crate) struct Measured {
    pub(crate) row: Row,
    /// How often.
    pub(crate) rounds: u32,
    /// The median round, by what `Row::merit` says.
    pub(crate) median: Sample,
    /// The lowest and the highest of all rounds.
    pub(crate) p50_ns: (u64, u64),
    pub(crate) rate: (f64, f64),
}

fn main() -> ExitCode {
    let options = match cli::parse(std::env::args_os()) {
        Ok(Command::Run(options)) => options,
        Ok(Command::Help) => {
            print!("{}", cli::help());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("peers: {error}\nTry --help.");
            return ExitCode::from(2);
        }
    };
    match bench(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(options: &Options) -> Result<(), Error> {
    let cpus = Cpus::allowed()?;
    if cpus.len() < 2 {
        eprintln!("warning: one CPU only: both sides take turns on it");
    }
    let rows = if options.rates.is_empty() { echoes(options, &cpus)? } else { rates::measure(options, &cpus)? };
    if let Some(file) = &options.json {
        json::write(file, &rows).map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    }
    Ok(())
}

/// The usual table.
fn echoes(options: &Options, cpus: &Cpus) -> Result<Vec<Measured>, Error> {
    let plan = Plan::new(options)?;
    let rows = measure(&plan, cpus)?;
    print!("{}", table::render(&rows, &plan, cpus));
    Ok(rows)
}

/// Goes through all rows once per round.
pub(crate) fn measure(plan: &Plan, cpus: &Cpus) -> Result<Vec<Measured>, Error> {
    let mut rounds: Vec<Vec<Sample>> = plan.rows.iter().map(|_| Vec::new()).collect();
    for round in 1..=plan.rounds {
        eprintln!("round {round} of {}", plan.rounds);
        for (row, samples) in plan.rows.iter().zip(&mut rounds) {
            let meter = bounded(row, plan.span, || row.measure(plan.span, cpus));
            let meter = meter.map_err(|error| format!("{row}: {error}"))?;
            samples.push(Sample::of([meter]).map_err(|error| format!("{row}: {error}"))?);
        }
    }
    plan.rows.iter().zip(rounds).map(|(&row, samples)| Measured::of(row, samples)).collect()
}

/// Runs `work`, and ends the program with the name of the row if that does not end: a lost answer is to be seen.
fn bounded<T>(row: &Row, span: Span, work: impl FnOnce() -> T) -> T {
    let (ended, end) = mpsc::channel::<()>();
    let (row, limit) = (*row, span.warm + span.steady + PATIENCE);
    thread::spawn(move || {
        if end.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            eprintln!("peers: {row}: no end after {limit:?}");
            process::exit(1);
        }
    });
    let result = work();
    drop(ended);
    result
}

impl Measured {
    fn of(row: Row, samples: Vec<Sample>) -> Result<Measured, Error> {
        let rounds = samples.len() as u32;
        let mut p50_ns = (u64::MAX, 0);
        let mut rate = (f64::INFINITY, 0.0);
        for sample in &samples {
            let p50 = sample.at(0.5);
            p50_ns = (p50.min(p50_ns.0), p50.max(p50_ns.1));
            rate = (sample.rate.min(rate.0), sample.rate.max(rate.1));
        }
        let median = Sample::median(samples, |sample| row.merit(sample)).ok_or("no round was measured")?;
        Ok(Measured { row, rounds, median, p50_ns, rate })
    }
}

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
mod json;
mod payload;
mod plan;
#[path = "../../per_core_echo/sample.rs"]
#[expect(dead_code, reason = "shared with per_core_echo, which also counts allocations")]
mod sample;
mod systems;
mod table;
mod threads;

use std::process::ExitCode;

use cli::{Command, Options};
use cpus::Cpus;
use plan::{Plan, Row};
use sample::Sample;

/// Whatever ends the measuring early; its text is shown to the user.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

/// One row, measured.
pub(crate) struct Measured {
    pub(crate) row: Row,
    /// The median round, by p50 with one ask in flight and by rate with more.
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
    let plan = Plan::new(options)?;
    let rows = measure(&plan, &cpus)?;
    print!("{}", table::render(&rows, &plan, &cpus));
    if let Some(file) = &options.json {
        json::write(file, &rows, &plan).map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    }
    Ok(())
}

/// Goes through all rows once per round.
fn measure(plan: &Plan, cpus: &Cpus) -> Result<Vec<Measured>, Error> {
    let mut rounds: Vec<Vec<Sample>> = plan.rows.iter().map(|_| Vec::new()).collect();
    for round in 1..=plan.rounds {
        eprintln!("round {round} of {}", plan.rounds);
        for (row, samples) in plan.rows.iter().zip(&mut rounds) {
            let meter = row.measure(plan.span, cpus).map_err(|error| format!("{row}: {error}"))?;
            samples.push(Sample::of([meter]).map_err(|error| format!("{row}: {error}"))?);
        }
    }
    plan.rows.iter().zip(rounds).map(|(&row, samples)| Measured::of(row, samples)).collect()
}

impl Measured {
    fn of(row: Row, rounds: Vec<Sample>) -> Result<Measured, Error> {
        let mut p50_ns = (u64::MAX, 0);
        let mut rate = (f64::INFINITY, 0.0);
        for sample in &rounds {
            let p50 = sample.at(0.5);
            p50_ns = (p50.min(p50_ns.0), p50.max(p50_ns.1));
            rate = (sample.rate.min(rate.0), sample.rate.max(rate.1));
        }
        let merit = |sample: &Sample| if row.window > 1 { 1.0 / sample.rate } else { sample.at(0.5) as f64 };
        let median = Sample::median(rounds, merit).ok_or("no round was measured")?;
        Ok(Measured { row, median, p50_ns, rate })
    }
}

//! Echo per core, beside the floor under it: `cargo bench --bench per_core_echo`.
//!
//! Every row of the table is one way to ask an endpoint (over TCP, across cores, on one core) and, measured in the same
//! process in turns with it, the least that the machine can do on that way without a runtime. Ratios carry from one
//! machine to another, absolute figures do not. `-- --help` lists the options.

mod alloc;
mod cli;
mod connections;
mod counts;
mod cpus;
mod crowd;
mod doors;
mod files;
mod floor;
mod footprint;
mod json;
mod message;
mod open_loop;
mod outside;
mod pair;
mod payloads;
mod plan;
mod progress;
mod rates;
mod ringpost_paths;
mod sample;
mod scale;
mod schedule;
mod shapes;
mod sleeps;
mod stage;
mod svg;
mod table;
mod variant;

use std::process::ExitCode;

use cli::{Command, Options, Report};
use cpus::Cpus;
use footprint::Footprint;
use plan::{Plan, Run};
use progress::Progress;
use sample::Sample;

/// Whatever ends the benchmark early; its text is shown to the user.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

/// One finished row: the median round of each side.
pub(crate) struct Row {
    pub(crate) run: Run,
    pub(crate) ringpost: Sample,
    pub(crate) floor: Option<Sample>,
    /// Where the report is about many connections.
    pub(crate) footprint: Option<Footprint>,
}

fn main() -> ExitCode {
    let options = match cli::parse(std::env::args_os()) {
        Ok(Command::Run(options)) => options,
        Ok(Command::Child) => return pair::child(),
        Ok(Command::Help) => {
            print!("{}", cli::HELP);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("per_core_echo: {error}\nTry --help.");
            return ExitCode::from(2);
        }
    };
    match bench(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("per_core_echo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(options: &Options) -> Result<(), Error> {
    let cpus = Cpus::allowed()?;
    let rows = match options.report {
        Report::Echoes => echoes(options, &cpus)?,
        Report::Rates => rates::measure(options, &cpus)?,
        Report::Scale => scale::measure(options, &cpus)?,
        Report::Payloads => payloads::measure(options, &cpus)?,
        Report::Connections => connections::measure(options, &cpus)?,
    };
    if let Some(file) = &options.json {
        json::write(file, &rows).map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    }
    Ok(())
}

/// The usual table, and its picture.
fn echoes(options: &Options, cpus: &Cpus) -> Result<Vec<Row>, Error> {
    let plan = Plan::new(options);
    let rows = measure(&plan, cpus, by_p50_or_rate)?;
    print!("{}", table::render(&rows, &plan, cpus));
    svg::write(&options.svg, &rows).map_err(|error| format!("cannot write {}: {error}", options.svg.display()))?;
    println!("latency distribution: {}", options.svg.display());
    Ok(rows)
}

/// Which round is the better one of two: that with the lower figure.
type Merit = fn(&Run, &Sample) -> f64;

/// The p50 where one ask is in flight, the time per ask where more are.
fn by_p50_or_rate(run: &Run, sample: &Sample) -> f64 {
    if run.is_ping_pong() { sample.at(0.5) as f64 } else { 1.0 / sample.rate }
}

/// Goes through all runs once per round, so that a slow minute of the machine hits every row and both sides of it.
fn measure(plan: &Plan, cpus: &Cpus, merit: Merit) -> Result<Vec<Row>, Error> {
    warn(plan, cpus);
    let progress = Progress::new(plan.slots());
    let mut ringpost: Vec<Vec<Sample>> = plan.runs.iter().map(|_| Vec::new()).collect();
    let mut floors: Vec<Vec<Sample>> = plan.runs.iter().map(|_| Vec::new()).collect();
    for round in 0..plan.rounds {
        for (i, run) in plan.runs.iter().enumerate() {
            let named = |side: &str, error: Error| format!("{side}, {run}: {error}");
            for ringpost_turn in [round % 2 == 0, round % 2 != 0] {
                if ringpost_turn {
                    progress.show("ringpost", run);
                    let sample = ringpost_paths::measure(run, plan.span, cpus);
                    ringpost[i].push(sample.map_err(|error| named("ringpost", error))?);
                } else if let Some(kind) = plan.floor(run) {
                    progress.show("floor", run);
                    floors[i].push(floor::measure(kind, run, plan.span, cpus).map_err(|error| named("floor", error))?);
                } else {
                    continue;
                }
                progress.step();
            }
        }
    }
    progress.finish();
    let sides = ringpost.into_iter().zip(floors);
    plan.runs
        .iter()
        .zip(sides)
        .map(|(&run, (ringpost, floor))| {
            let merit = |sample: &Sample| merit(&run, sample);
            let ringpost = Sample::median(ringpost, merit).ok_or("no round was measured")?;
            Ok(Row { run, ringpost, floor: Sample::median(floor, merit), footprint: None })
        })
        .collect()
}

fn warn(plan: &Plan, cpus: &Cpus) {
    if plan.most_cores() > cpus.len() {
        eprintln!("warning: {} cores on {} CPUs: threads that spin take turns", plan.most_cores(), cpus.len());
    }
}

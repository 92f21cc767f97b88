//! Echo per core, beside the floor under it: `cargo bench --bench per_core_echo`.
//!
//! Every row of the table is one way to ask an endpoint (over TCP, across cores, on one core) and, measured in the same
//! process in turns with it, the least that the machine can do on that way without a runtime. Ratios carry from one
//! machine to another, absolute figures do not. `-- --help` lists the options.

mod alloc;
mod cli;
mod cpus;
mod doors;
mod floor;
mod json;
mod message;
mod plan;
mod progress;
mod ringpost_paths;
mod sample;
mod svg;
mod table;

use std::process::ExitCode;

use cli::{Command, Options};
use cpus::Cpus;
use plan::{Plan, Run};
use progress::Progress;
use sample::Sample;

/// Whatever ends the benchmark early; its text is shown to the user.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

/// One finished row: of each side the median round, by p50 with one ask in flight and by rate with more.
pub(crate) struct Row {
    pub(crate) run: Run,
    pub(crate) ringpost: Sample,
    pub(crate) floor: Option<Sample>,
}

fn main() -> ExitCode {
    let options = match cli::parse(std::env::args_os()) {
        Ok(Command::Run(options)) => options,
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
    let plan = Plan::new(options);
    if plan.most_cores() > cpus.len() {
        eprintln!("warning: {} cores on {} CPUs: threads that spin take turns", plan.most_cores(), cpus.len());
    }
    let rows = measure(&plan, &cpus)?;
    print!("{}", table::render(&rows, &plan, &cpus));
    if let Some(file) = &options.json {
        json::write(file, &rows).map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    }
    svg::write(&options.svg, &rows).map_err(|error| format!("cannot write {}: {error}", options.svg.display()))?;
    println!("latency distribution: {}", options.svg.display());
    Ok(())
}

/// Goes through all runs once per round, so that a slow minute of the machine hits every row and both sides of it.
fn measure(plan: &Plan, cpus: &Cpus) -> Result<Vec<Row>, Error> {
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
                } else if let Some(kind) = run.floor() {
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
            let by_rate = !run.is_ping_pong();
            let ringpost = Sample::median(ringpost, by_rate).ok_or("no round was measured")?;
            Ok(Row { run, ringpost, floor: Sample::median(floor, by_rate) })
        })
        .collect()
}

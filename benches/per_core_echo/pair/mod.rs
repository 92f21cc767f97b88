//! A measurement in two processes of one core each: 10,000 connections take as many descriptors at each end.
//!
//! Both are this program once more, with the hidden argument `--child`. The first line on the standard input tells what
//! to do, as JSON; one line on the standard output tells what came of it. The input stays open for as long as the process
//! is wanted: its end ends the process, whatever that is at, so none outlives the benchmark.

mod process;
mod rest;

use std::process::ExitCode;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub(crate) use rest::held;

use crate::cpus::Cpus;
use crate::doors::{Doors, port};
use crate::footprint::Memory;
use crate::plan::Run;
use crate::sample::{Meter, Sample, Span};
use crate::stage::{Stage, serve};
use crate::{Error, floor, ringpost_paths};
use process::Process;

/// Whose connections they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum System {
    Ringpost,
    Floor,
}

/// What a process is to do.
#[derive(Serialize, Deserialize)]
enum Task {
    /// Listen at `bind`, tell the port, and answer.
    Serve { system: System, run: Run, bind: String },
    /// Ask over a connection to each of the addresses, and tell the [`Outcome`].
    Ask { system: System, run: Run, warm: Duration, steady: Duration, addresses: Vec<String> },
    /// Open a connection to each of the addresses, and tell the [`Memory`] while they are idle.
    Rest { run: Run, addresses: Vec<String> },
}

impl Task {
    /// How long it measures, if it ends by itself.
    fn measures(&self) -> Option<Duration> {
        match self {
            Task::Serve { .. } => None,
            Task::Ask { warm, steady, .. } => Some(*warm + *steady),
            Task::Rest { .. } => Some(Duration::ZERO),
        }
    }
}

/// A [`Sample`], as it goes from one process to another.
#[derive(Serialize, Deserialize)]
struct Outcome {
    /// Latencies, and how often each occurred.
    latency: Vec<(u64, u64)>,
    rate: f64,
    allocs_per_op: Option<f64>,
    enters_per_op: Option<f64>,
}

/// Measures `run` with a server and a client of their own.
pub(crate) fn measure(system: System, run: &Run, span: Span) -> Result<Sample, Error> {
    let Span { warm, steady } = span;
    let outcome = with_server(system, run, |addresses| Task::Ask { system, run: *run, warm, steady, addresses });
    Outcome::into_sample(outcome?)
}

/// Finds what server and client hold while all connections of `run` are idle.
pub(crate) fn weigh(run: &Run) -> Result<Memory, Error> {
    with_server(System::Ringpost, run, |addresses| Task::Rest { run: *run, addresses })
}

/// Starts a server, has a client do its task with it, and gives what the client told. Both are gone then.
fn with_server<T: DeserializeOwned>(
    system: System,
    run: &Run,
    client: impl FnOnce(Vec<String>) -> Task,
) -> Result<T, Error> {
    let doors = Doors::new(run.path, run.connections.unwrap_or(1))?;
    let mut server = Process::start(&Task::Serve { system, run: *run, bind: doors.bind() })?;
    let addresses = doors.addresses(server.told()?)?;
    Process::start(&client(addresses))?.told()
}

/// The program of the processes.
pub(crate) fn child() -> ExitCode {
    process::child(|task| {
        let cpus = Cpus::allowed()?;
        match task {
            Task::Serve { system: System::Ringpost, run, bind } => {
                let server = serve(&run, &cpus, &bind)?;
                process::tell(&Ok(port(&server)))?;
                process::until_killed()
            }
            Task::Serve { system: System::Floor, run, bind } => {
                floor::serve_round_robin(&run, &cpus, &bind, |port| process::tell(&Ok(port)))?;
                process::until_killed()
            }
            Task::Ask { system, run, warm, steady, addresses } => {
                let span = Span { warm, steady };
                let sample = match system {
                    System::Ringpost => ringpost_paths::ask(&Stage::asking(&run, &cpus, &addresses)?, &run, span)?,
                    System::Floor => floor::ask_round_robin(&run, &cpus, &addresses, span)?,
                };
                process::tell(&Ok(Outcome::of(&sample)))
            }
            Task::Rest { run, addresses } => process::tell(&Ok(rest::weigh(&run, &cpus, addresses)?)),
        }
    })
}

impl Outcome {
    fn of(sample: &Sample) -> Outcome {
        let latency = sample.latency.iter_recorded();
        Outcome {
            latency: latency.map(|step| (step.value_iterated_to(), step.count_since_last_iteration())).collect(),
            rate: sample.rate,
            allocs_per_op: sample.allocs_per_op,
            enters_per_op: sample.enters_per_op,
        }
    }

    fn into_sample(self) -> Result<Sample, Error> {
        let Outcome { latency: steps, rate, allocs_per_op, enters_per_op } = self;
        let mut latency: Histogram<u64> = Meter::histogram()?;
        for (value, count) in steps {
            latency.record_n(value, count)?;
        }
        Ok(Sample { latency, rate, late: 0, unsent: 0, allocs_per_op, enters_per_op, sleeps_per_op: None })
    }
}

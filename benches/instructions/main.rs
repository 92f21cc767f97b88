//! Work to be counted: `instructions SCENARIO COUNT` does one thing COUNT times, on one thread, and nothing else.
//!
//! `.ci/instructions` runs it under valgrind's callgrind, twice with different counts; the difference of the two sums
//! divided by the difference of the counts is what one costs in user space, without what it takes to start. The counts
//! are the same on a busy machine and on a quiet one.

mod bytes;
mod cores;
mod message;

use std::process::ExitCode;

type Error = Box<dyn std::error::Error>;

/// A scenario's name, and what does it as many times as it is told.
type Scenario = (&'static str, fn(u64) -> Result<(), Error>);

/// The order is that of the stored figures.
const SCENARIOS: [Scenario; 9] = [
    ("request-bytes", bytes::requests),
    ("reply-bytes", bytes::replies),
    ("cut-frames", bytes::cut_frames),
    ("local-ask", |count| cores::local(count, 1)),
    ("local-ask-64", |count| cores::local(count, 64)),
    ("core-ask", |count| cores::mesh(count, 1)),
    ("core-ask-64", |count| cores::mesh(count, 64)),
    ("tcp-ask", |count| cores::tcp(count, 1)),
    ("tcp-ask-64", |count| cores::tcp(count, 64)),
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Error> {
    // Cargo tells that it runs a benchmark.
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    let Some(name) = words.next() else {
        SCENARIOS.iter().for_each(|(name, _)| println!("{name}"));
        return Ok(());
    };
    let count = words.next().ok_or("how many times?")?.parse()?;
    let (_, scenario) = SCENARIOS.iter().find(|(known, _)| *known == name).ok_or("there is no such scenario")?;
    scenario(count)
}

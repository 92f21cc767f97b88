//! Work to be counted, as `instructions` has it: asks over TCP as users write them, and each side by itself.
//!
//! A program of its own: what the compiler inlines in `instructions` does not change with what is added here. A scenario with
//! `/asker` or `/server` behind its name does the same as the one without; `.ci/instructions` then counts what is called
//! from [`written::asker_turn`] or [`written::server_turn`] only.

#[expect(dead_code, reason = "shared with `instructions`, which asks in other ways")]
mod cores;
mod message;
mod written;

use std::process::ExitCode;

use message::Words;
use written::{Other, VecWords, in_tasks, unordered};

type Error = Box<dyn std::error::Error>;

/// A scenario's name, what there is to count of it, and what does it as many times as it is told.
type Scenario = (&'static str, &'static [&'static str], fn(u64) -> Result<(), Error>);

/// Behind the name: both sides together, or one. `instructions` counts the usual asks together.
const SIDES: &[&str] = &["/asker", "/server"];
const ALL: &[&str] = &["", "/asker", "/server"];

/// The order is that of the stored figures.
const SCENARIOS: [Scenario; 4] = [
    ("tcp-ask", SIDES, |count| in_tasks::<Words>(count, 1)),
    ("tcp-ask-64", SIDES, |count| in_tasks::<Words>(count, 64)),
    ("tcp-ask-64-unordered", ALL, |count| unordered::<Other>(count, 64)),
    ("tcp-ask-64-vec", ALL, |count| in_tasks::<VecWords>(count, 64)),
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("instructions_sides: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Error> {
    // Cargo tells that it runs a benchmark.
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    let Some(name) = words.next() else {
        for (name, parts, _) in SCENARIOS {
            parts.iter().for_each(|part| println!("{name}{part}"));
        }
        return Ok(());
    };
    let count = words.next().ok_or("how many times?")?.parse()?;
    let is_it = |(known, parts, _): &&Scenario| name.strip_prefix(known).is_some_and(|part| parts.contains(&part));
    let (.., scenario) = SCENARIOS.iter().find(is_it).ok_or("there is no such scenario")?;
    scenario(count)
}

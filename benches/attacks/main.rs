//! What hostile peers cost a well-behaved client.
//!
//! A server (the victim) answers a client that asks at a steady rate. Meanwhile attackers do one hostile thing after
//! another to the port. Each attack is measured three times: without attackers, with the attackers at the victim, and
//! with the same attackers at a second server (the decoy) that the client does not use. The decoy shows what the load
//! on the machine alone costs; what the victim's column has beyond it is what the attack costs the victim's clients.
//!
//! `.ci/attacks` runs it in about two minutes. It is a report: only a server that dies, or a client that is not served at
//! all, makes it fail. `-- --quick` measures for a shorter time, `-- NAME ..` runs the named attacks alone.

mod attack;
mod claim;
mod client;
mod frames;
mod messages;
mod peer;
mod process;
mod server;

use std::error::Error;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use attack::{ATTACKS, Attack};
use client::{Client, Latency};
use process::{Attackers, Server};

/// Asks of the good client a second: few enough that it keeps its rate on two CPUs that the attackers and the server fill.
/// One that falls behind measures the queue of its own asks, which grows until the end.
const RATE: u32 = 200;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let outcome = match arguments.first().map(String::as_str) {
        Some("--server") => server::run(&arguments[1..]).map(|()| true),
        Some("--attack") => attack::run(&arguments[1..]).map(|()| true),
        _ => report(&arguments),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("attacks: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the attacks and prints a line for each; false if a victim died or stopped serving.
fn report(arguments: &[String]) -> Result<bool, Box<dyn Error>> {
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let named: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    if let Some(unknown) = named.iter().find(|name| ATTACKS.iter().all(|a| a.name != **name) && **name != "claim") {
        return Err(format!("there is no attack {unknown:?}").into());
    }
    let wanted = |name: &str| named.is_empty() || named.iter().any(|wanted| *wanted == name);
    let span = Duration::from_millis(if quick { 500 } else { 1500 });

    println!("p99 of a client that asks {RATE} times a second, as a ratio to its undisturbed value, while attackers");
    println!("are at its own server (victim) and at another one (decoy); {span:?} each\n");
    println!(
        "{:<13} {:>11} {:>9} {:>9} {:>7} {:>8} {:>8}  attackers saw",
        "attack", "undisturbed", "victim", "decoy", "failed", "threads", "peak MiB"
    );
    let mut all_well = true;
    for attack in ATTACKS.iter().filter(|attack| wanted(attack.name)) {
        let row = measure(attack, span)?;
        all_well &= row.is_well();
        row.print(attack.name);
    }
    if wanted("claim") {
        let stolen = claim::stolen()?;
        let outcome = stolen.as_deref().unwrap_or("all went to the node itself");
        println!("{:<13} asks of a client-mode node whose incarnation a stranger says: {outcome}", "claim");
        all_well &= stolen.is_none();
    }
    Ok(all_well)
}

/// What one attack came to.
struct Row {
    undisturbed: Latency,
    victim: Latency,
    decoy: Latency,
    /// Why the victim is no more, if it is not.
    died: Option<String>,
    threads: u64,
    peak_bytes: u64,
    saw: String,
}

impl Row {
    /// Whether the victim lives and has served its client.
    fn is_well(&self) -> bool {
        self.died.is_none() && self.victim.served > 0
    }

    fn print(&self, name: &str) {
        let base = self.undisturbed.p99.as_secs_f64().max(1e-9);
        let ratio = |latency: &Latency| format!("{:.1} x", latency.p99.as_secs_f64() / base);
        println!(
            "{name:<13} {:>11} {:>9} {:>9} {:>7} {:>8} {:>8}  {}",
            format!("{:.0} us", base * 1e6),
            ratio(&self.victim),
            ratio(&self.decoy),
            self.victim.failed,
            self.threads,
            self.peak_bytes >> 20,
            self.died.as_deref().unwrap_or(&self.saw)
        );
    }
}

fn measure(attack: &Attack, span: Duration) -> Result<Row, Box<dyn Error>> {
    // The victim has a CPU for itself, as far as the attackers leave it one.
    let other = thread::available_parallelism()?.get().min(2) - 1;
    let (mut victim, decoy) = (Server::start(0)?, Server::start(other)?);
    let client = Client::of(victim.address(), other)?;
    client.measure(RATE, span / 4);
    let undisturbed = client.measure(RATE, span);

    let attackers = Attackers::start(attack.name, decoy.address(), span)?;
    let at_decoy = client.measure(RATE, span);
    attackers.end()?;
    decoy.end();

    let attackers = Attackers::start(attack.name, victim.address(), span)?;
    let at_victim = client.measure(RATE, span);
    let (threads, peak_bytes) = victim.size();
    let saw = attackers.end()?;
    let held = attack.then.and_then(|then| then(&client));
    let died = victim.died();
    victim.end();
    Ok(Row {
        undisturbed,
        victim: at_victim,
        decoy: at_decoy,
        died,
        threads,
        peak_bytes,
        saw: held.map_or(saw.clone(), |held| format!("{saw}; {held}")),
    })
}

//! What is measured, in which order and for how long.

use std::fmt;
use std::time::Duration;

use crate::Error;
use crate::cli::Options;
use crate::cpus::Cpus;
use crate::sample::{Meter, Span};
use crate::systems::{self, Run};

/// How the ask travels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Path {
    /// Over a loopback connection, from thread to thread.
    Tcp,
    /// To another thread of the same process.
    Mesh,
    /// To something on the asking thread.
    Local,
}

impl Path {
    /// All of them, in the order of the table.
    pub(crate) const ALL: [Path; 3] = [Path::Tcp, Path::Mesh, Path::Local];

    /// Its name on the command line and in the output.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Path::Tcp => "tcp",
            Path::Mesh => "mesh",
            Path::Local => "local",
        }
    }
}

/// What a thread does when it has nothing to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Idle {
    /// Spins for a while, then sleeps: ringpost's default, and only ringpost's.
    Adaptive,
    /// Never sleeps.
    Spin,
    /// Sleeps at once: what every peer does by itself.
    Park,
}

impl Idle {
    /// All of them, in the order of the table.
    pub(crate) const ALL: [Idle; 3] = [Idle::Adaptive, Idle::Spin, Idle::Park];

    /// Its name on the command line and in the output.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Idle::Adaptive => "adaptive",
            Idle::Spin => "spin",
            Idle::Park => "park",
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) system: &'static str,
    pub(crate) path: Path,
    pub(crate) idle: Idle,
    /// Asks in flight.
    pub(crate) window: usize,
    run: systems::RunFn,
}

impl Row {
    /// Measures the row once.
    pub(crate) fn measure(&self, span: Span, cpus: &Cpus) -> Result<Meter, Error> {
        (self.run)(&Run { path: self.path, idle: self.idle, window: self.window, span, cpus })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} window {}", self.system, self.path.name(), self.idle.name(), self.window)
    }
}

/// Everything one invocation measures.
pub(crate) struct Plan {
    /// The rows, in the order of the table, which is also the order within a round.
    pub(crate) rows: Vec<Row>,
    /// How often each row is measured; the median counts.
    pub(crate) rounds: u32,
    /// The time of one measurement.
    pub(crate) span: Span,
}

/// Odd, so that there is a median.
const ROUNDS: u32 = 5;
const QUICK_ROUNDS: u32 = 3;
/// Measuring time in all; setting up and tearing down comes on top. The promise is 5 minutes.
const FULL: Duration = Duration::from_secs(270);
/// The same for `--quick`; the promise is 60 s.
const QUICK: Duration = Duration::from_secs(45);
/// Longer measurements do not become better.
const LONGEST: Duration = Duration::from_secs(2);

impl Plan {
    /// Lays out the rows and shares the time among them.
    pub(crate) fn new(options: &Options) -> Result<Plan, Error> {
        let rows = rows(options);
        if rows.is_empty() {
            return Err("no system goes that way: see --help for which has which paths".into());
        }
        let rounds = options.rounds.unwrap_or(if options.quick { QUICK_ROUNDS } else { ROUNDS });
        let share = if options.quick { QUICK } else { FULL } / (rows.len() as u32 * rounds);
        let share = share.min(LONGEST);
        // Long enough for queues and tables to have grown to what they will hold.
        let warm = share / 3;
        let steady = options.seconds.map_or(share - warm, |seconds| seconds / rounds);
        Ok(Plan { rows, rounds, span: Span { warm: warm.min(steady), steady } })
    }
}

fn rows(options: &Options) -> Vec<Row> {
    let mut rows = Vec::new();
    for &path in &options.paths {
        for &window in &options.windows {
            for system in &options.systems {
                for &idle in system.idles_on(path).iter().filter(|&idle| options.idles.contains(idle)) {
                    rows.push(Row { system: system.name, path, idle, window, run: system.run });
                }
            }
        }
    }
    rows
}

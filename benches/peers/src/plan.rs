//! What is measured, in which order and for how long.

use std::fmt;
use std::time::Duration;

use crate::Error;
use crate::cli::Options;
use crate::cpus::Cpus;
use crate::sample::{Meter, Sample, Span};
use crate::schedule::Rate;
use crate::systems::{self, Run};
use crate::variant::{Caller, PayloadKind, Shape};

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

/// How much is asked.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Load {
    /// A closed loop: so many asks in flight.
    Window(usize),
    /// An open loop: so many asks a second, however long the answers take.
    Rate {
        /// Asks per second.
        per_second: f64,
        /// The part of the own maximum that this was meant to be.
        share: Option<f64>,
    },
}

/// One row of the table.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) system: &'static str,
    pub(crate) path: Path,
    pub(crate) idle: Idle,
    pub(crate) caller: Caller,
    pub(crate) load: Load,
    pub(crate) shape: Option<Shape>,
    pub(crate) payload_kind: Option<PayloadKind>,
    run: systems::RunFn,
}

impl Row {
    /// Measures the row once.
    pub(crate) fn measure(&self, span: Span, cpus: &Cpus) -> Result<Meter, Error> {
        (self.run)(&Run { path: self.path, idle: self.idle, caller: self.caller, load: self.load, span, cpus })
    }

    /// Asks in flight, in a closed loop.
    pub(crate) fn window(&self) -> Option<usize> {
        match self.load {
            Load::Window(window) => Some(window),
            Load::Rate { .. } => None,
        }
    }

    /// Whether the two differ in nothing but the load.
    pub(crate) fn is_like(&self, other: &Row) -> bool {
        (self.system, self.path, self.idle, self.caller) == (other.system, other.path, other.idle, other.caller)
    }

    /// What the median round is chosen by, and lower is better: the p50 with one ask in flight, the time per ask with
    /// more, the p99 in an open loop.
    pub(crate) fn merit(&self, sample: &Sample) -> f64 {
        match self.load {
            Load::Window(1) => sample.at(0.5) as f64,
            Load::Window(_) => 1.0 / sample.rate,
            Load::Rate { .. } => sample.at(0.99) as f64,
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} by {} ", self.system, self.path.name(), self.idle.name(), self.caller.name())?;
        match self.load {
            Load::Window(window) => write!(f, "window {window}"),
            Load::Rate { per_second, .. } => write!(f, "at {per_second:.0} per second"),
        }
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
    /// The rows of the usual table.
    pub(crate) fn new(options: &Options) -> Result<Plan, Error> {
        Ok(Plan::of(rows(options, &options.windows)?, options, 1.0))
    }

    /// What each system does at most: the largest window. A quarter of the time.
    pub(crate) fn maxima(options: &Options) -> Result<Plan, Error> {
        let largest = options.windows.iter().max().copied().unwrap_or(1);
        Ok(Plan::of(rows(options, &[largest])?, options, 0.25))
    }

    /// Open loops: each of the rates for each row, whose maximum comes with it.
    pub(crate) fn rates(maxima: &[(Row, f64)], options: &Options) -> Plan {
        let at = |row: Row, most: f64| {
            let load = move |rate: &Rate| Load::Rate { per_second: rate.per_second(most), share: rate.share() };
            options.rates.iter().map(move |rate| Row { load: load(rate), ..row })
        };
        let rows = maxima.iter().flat_map(|&(row, most)| at(row, most)).collect();
        Plan::of(rows, options, 0.75)
    }

    /// Shares this part of the time among the rows.
    fn of(rows: Vec<Row>, options: &Options, part: f64) -> Plan {
        let rounds = options.rounds.unwrap_or(if options.quick { QUICK_ROUNDS } else { ROUNDS });
        let time = if options.quick { QUICK } else { FULL }.mul_f64(part);
        let share = (time / (rows.len() as u32 * rounds)).min(LONGEST);
        // Long enough for queues and tables to have grown to what they will hold.
        let warm = share / 3;
        let steady = options.seconds.map_or(share - warm, |seconds| seconds / rounds);
        Plan { rows, rounds, span: Span { warm: warm.min(steady), steady } }
    }
}

fn rows(options: &Options, windows: &[usize]) -> Result<Vec<Row>, Error> {
    let mut rows = Vec::new();
    for &path in &options.paths {
        for &window in windows {
            for system in &options.systems {
                for &caller in &options.callers {
                    for idle in system.idles_on(path, caller).filter(|idle| options.idles.contains(idle)) {
                        rows.push(Row {
                            system: system.name,
                            path,
                            idle,
                            caller,
                            load: Load::Window(window),
                            shape: system.shape,
                            payload_kind: system.payload_kind,
                            run: system.run,
                        });
                    }
                }
            }
        }
    }
    if rows.is_empty() {
        return Err("no system goes that way: see --help for which has which paths".into());
    }
    Ok(rows)
}

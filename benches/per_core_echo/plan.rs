//! What is measured, in which order and for how long.

use std::fmt;
use std::time::Duration;

use crate::cli::Options;
use crate::sample::Span;

/// How the ask travels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Path {
    /// To another env, over a loopback connection.
    Tcp,
    /// To another env, over a Unix socket.
    Unix,
    /// To another core of the same env.
    Mesh,
    /// To an endpoint on the asking core.
    Local,
}

impl Path {
    /// All of them, in the order of the table.
    pub(crate) const ALL: [Path; 4] = [Path::Tcp, Path::Unix, Path::Mesh, Path::Local];

    /// Its name on the command line and in the output.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Path::Tcp => "tcp",
            Path::Unix => "unix",
            Path::Mesh => "mesh",
            Path::Local => "local",
        }
    }

    /// Whether it goes through sockets.
    pub(crate) fn has_connections(self) -> bool {
        matches!(self, Path::Tcp | Path::Unix)
    }
}

/// What a core does when it has nothing to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum IdlePolicy {
    /// Spins for a while, then sleeps.
    Adaptive,
    /// Never sleeps.
    Spin,
    /// Sleeps at once.
    Park,
}

impl IdlePolicy {
    /// All of them, in the order of the table.
    pub(crate) const ALL: [IdlePolicy; 3] = [IdlePolicy::Adaptive, IdlePolicy::Spin, IdlePolicy::Park];

    /// Its name on the command line and in the output.
    pub(crate) fn name(self) -> &'static str {
        match self {
            IdlePolicy::Adaptive => "adaptive",
            IdlePolicy::Spin => "spin",
            IdlePolicy::Park => "park",
        }
    }
}

/// The least that the machine can do on a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FloorKind {
    /// Ping-pong over a socket, both sides spinning on non-blocking calls.
    NonBlocking,
    /// Ping-pong over a socket, both sides asleep in `recv`.
    Blocking,
    /// Raw bytes echoed in large reads and writes, a window of frames in flight, both sides spinning.
    Pipelined,
    /// Numbers passed through shared cache lines, both sides spinning.
    CacheLine,
}

impl FloorKind {
    /// What the legends call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            FloorKind::NonBlocking => "non-blocking sockets",
            FloorKind::Blocking => "blocking sockets",
            FloorKind::Pipelined => "pipelined raw bytes",
            FloorKind::CacheLine => "cache lines",
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    pub(crate) path: Path,
    pub(crate) idle: IdlePolicy,
    /// Cores in all; half of them ask, unless there is only one.
    pub(crate) cores: usize,
    /// None where no sockets are.
    pub(crate) connections: Option<usize>,
    /// Asks in flight: per connection over sockets, per asking core else.
    pub(crate) window: usize,
    /// Bytes echoed.
    pub(crate) payload: usize,
}

impl Run {
    /// Which floor stands beside it. Nothing lies below a call on one core that would be worth the name.
    pub(crate) fn floor(&self) -> Option<FloorKind> {
        match self.path {
            Path::Local => None,
            Path::Mesh => Some(FloorKind::CacheLine),
            _ if !self.is_ping_pong() => Some(FloorKind::Pipelined),
            _ if self.idle == IdlePolicy::Park => Some(FloorKind::Blocking),
            _ => Some(FloorKind::NonBlocking),
        }
    }

    /// Asking cores, each with an answering core of its own unless the path is local.
    pub(crate) fn pairs(&self) -> usize {
        (self.cores / 2).max(1)
    }

    /// How many of the connections belong to the asking core `pair`.
    pub(crate) fn connections_of(&self, pair: usize) -> usize {
        let connections = self.connections.unwrap_or(1);
        connections / self.pairs() + usize::from(pair < connections % self.pairs())
    }

    /// Whether each asking core has one ask in flight, so that latency decides and not throughput.
    pub(crate) fn is_ping_pong(&self) -> bool {
        self.window == 1 && self.connections.unwrap_or(1) == self.pairs()
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} window {}", self.path.name(), self.idle.name(), self.window)
    }
}

/// Everything one invocation measures.
pub(crate) struct Plan {
    /// The rows, in the order of the table.
    pub(crate) runs: Vec<Run>,
    /// How often each side of each row is measured; the median counts.
    pub(crate) rounds: u32,
    /// The time of one measurement.
    pub(crate) span: Span,
}

/// Odd, so that there is a median.
const ROUNDS: u32 = 3;
/// Measuring time in all; setting up and tearing down comes on top. The promise is 90 s.
const FULL: Duration = Duration::from_secs(70);
/// The same for `--quick`; the promise is 15 s.
const QUICK: Duration = Duration::from_secs(10);
/// Longer measurements do not become better.
const LONGEST: Duration = Duration::from_secs(2);

impl Plan {
    /// Lays out the rows and shares the time among them.
    pub(crate) fn new(options: &Options) -> Plan {
        let runs = runs(options);
        let mut plan = Plan { runs, rounds: ROUNDS, span: Span { warm: Duration::ZERO, steady: Duration::ZERO } };
        let share = if options.quick { QUICK } else { FULL } / plan.slots().max(1);
        let share = share.min(LONGEST);
        // Long enough for queues and tables to have grown to what they will hold.
        let warm = share / 3;
        let steady = options.seconds.map_or(share - warm, |seconds| seconds / ROUNDS);
        plan.span = Span { warm, steady };
        plan
    }

    /// Measurements in all: both sides, all rounds.
    pub(crate) fn slots(&self) -> u32 {
        let sides: usize = self.runs.iter().map(|run| 1 + usize::from(run.floor().is_some())).sum();
        sides as u32 * self.rounds
    }

    /// The most cores that one run needs.
    pub(crate) fn most_cores(&self) -> usize {
        self.runs.iter().map(|run| run.cores).max().unwrap_or(1)
    }
}

fn runs(options: &Options) -> Vec<Run> {
    let mut runs = Vec::new();
    for &path in &options.paths {
        for &idle in &options.idles {
            // One core that asks itself is never idle: one policy says it all.
            if path == Path::Local && idle != local_idle(options) {
                continue;
            }
            for &window in &options.windows {
                let cores = if path == Path::Local { 1 } else { options.cores };
                let connections = path.has_connections().then_some(options.connections);
                runs.push(Run { path, idle, cores, connections, window, payload: options.payload });
            }
        }
    }
    runs
}

fn local_idle(options: &Options) -> IdlePolicy {
    let spin = options.idles.contains(&IdlePolicy::Spin);
    if spin { IdlePolicy::Spin } else { options.idles.first().copied().unwrap_or(IdlePolicy::Spin) }
}

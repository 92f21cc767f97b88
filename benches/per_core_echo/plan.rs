//! What is measured, in which order and for how long.

use std::fmt;
use std::iter::repeat;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cli::Options;
use crate::sample::{SAMPLED, Span};
use crate::schedule::Rate;
use crate::variant::{Caller, PayloadKind, Variant};

/// How the ask travels.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
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
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
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
    /// A few bytes ask for many, a window of such asks in flight; both sides wait as the policy says.
    Fetch,
    /// Raw bytes echoed by the thread that sent them.
    Alone,
    /// Raw bytes go round over many sockets of two processes.
    RoundRobin,
    /// Numbers passed through shared cache lines, both sides spinning.
    CacheLine,
    /// Numbers sent through a tokio channel to a thread that answers at once, through a oneshot channel.
    Hop,
}

impl FloorKind {
    /// What the legends call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            FloorKind::NonBlocking => "non-blocking sockets",
            FloorKind::Blocking => "blocking sockets",
            FloorKind::Pipelined => "pipelined raw bytes",
            FloorKind::Fetch => "raw bytes fetched",
            FloorKind::Alone => "raw bytes on one core",
            FloorKind::RoundRobin => "raw bytes round robin",
            FloorKind::CacheLine => "cache lines",
            FloorKind::Hop => "tokio channels",
        }
    }
}

/// What an ask is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Exchange {
    /// The payload goes there and back.
    Echo,
    /// A few bytes ask for the payload.
    Fetch,
}

impl Exchange {
    /// Its name in the output.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Exchange::Echo => "echo",
            Exchange::Fetch => "fetch",
        }
    }
}

/// How much is asked.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) enum Load {
    /// A closed loop: so many asks in flight, per connection over sockets, per asking core else.
    Window(usize),
    /// A closed loop over many connections: so many asks in flight in all, each next one over the next connection.
    /// Client and server are processes of their own.
    RoundRobin(usize),
    /// An open loop: so many asks a second in all, however long the answers take.
    Rate {
        /// Asks per second.
        per_second: f64,
        /// The part of the own maximum that this was meant to be.
        share: Option<f64>,
    },
}

/// One row of the table.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) path: Path,
    pub(crate) idle: IdlePolicy,
    /// Cores in all; half of them ask, unless there is only one or each asks itself.
    pub(crate) cores: usize,
    /// Each core asks itself: it is both client and server.
    pub(crate) alone: bool,
    /// None where no sockets are.
    pub(crate) connections: Option<usize>,
    pub(crate) load: Load,
    pub(crate) exchange: Exchange,
    /// Bytes of the answer, and of the ask if that is echoed.
    pub(crate) payload: usize,
    pub(crate) variant: Variant,
}

/// From this payload on each ask is timed: a reading of the clock weighs nothing there, and few asks make a measurement.
const EACH_IS_TIMED: usize = 64 << 10;

impl Run {
    /// Which floor stands beside it. Nothing lies below a call on one core that would be worth the name.
    pub(crate) fn floor(&self) -> Option<FloorKind> {
        match self.path {
            _ if self.window().is_none() => None,
            _ if self.variant.caller != Caller::Core => Some(FloorKind::Hop),
            _ if self.load == Load::RoundRobin(1) => Some(FloorKind::RoundRobin),
            _ if matches!(self.load, Load::RoundRobin(_)) => None,
            Path::Local => None,
            Path::Tcp | Path::Unix if self.alone => Some(FloorKind::Alone),
            Path::Tcp | Path::Unix if self.exchange == Exchange::Fetch => Some(FloorKind::Fetch),
            Path::Mesh => Some(FloorKind::CacheLine),
            _ if !self.is_ping_pong() => Some(FloorKind::Pipelined),
            _ if self.idle == IdlePolicy::Park => Some(FloorKind::Blocking),
            _ => Some(FloorKind::NonBlocking),
        }
    }

    /// One of so many asks is timed, here and in the floor.
    pub(crate) fn sampled(&self) -> u32 {
        let is_short = self.exchange == Exchange::Echo && self.payload < EACH_IS_TIMED;
        if is_short && self.window().is_some() { SAMPLED } else { 1 }
    }

    /// Asks in flight, in a closed loop.
    pub(crate) fn window(&self) -> Option<usize> {
        match self.load {
            Load::Window(window) | Load::RoundRobin(window) => Some(window),
            Load::Rate { .. } => None,
        }
    }

    /// What each asking core has to do of the load.
    pub(crate) fn load_of_pair(&self) -> Load {
        match self.load {
            Load::Window(_) | Load::RoundRobin(_) => self.load,
            Load::Rate { per_second, share } => Load::Rate { per_second: per_second / self.pairs() as f64, share },
        }
    }

    /// Asking cores, each with an answering core of its own unless it asks itself.
    pub(crate) fn pairs(&self) -> usize {
        if self.alone { self.cores } else { (self.cores / 2).max(1) }
    }

    /// How many of the connections belong to the asking core `pair`.
    pub(crate) fn connections_of(&self, pair: usize) -> usize {
        let connections = self.connections.unwrap_or(1);
        connections / self.pairs() + usize::from(pair < connections % self.pairs())
    }

    /// Whether each asking core has one ask in flight, so that latency decides and not throughput.
    pub(crate) fn is_ping_pong(&self) -> bool {
        match self.load {
            Load::Window(window) => window == 1 && self.connections.unwrap_or(1) == self.pairs(),
            Load::RoundRobin(window) => window == 1,
            Load::Rate { .. } => false,
        }
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.path.name(), self.idle.name())?;
        match self.load {
            Load::Window(window) => write!(f, "window {window}"),
            Load::RoundRobin(window) => {
                write!(f, "{window} in flight over {} connections", self.connections.unwrap_or(1))
            }
            Load::Rate { per_second, .. } => write!(f, "at {per_second:.0} per second"),
        }?;
        let variant = self.variant;
        if variant != Variant::usual(self.payload) { write!(f, " {variant}") } else { Ok(()) }
    }
}

/// Everything one invocation measures.
pub(crate) struct Plan {
    /// The rows, in the order of the table.
    pub(crate) runs: Vec<Run>,
    /// Whether the floors are measured as well.
    pub(crate) floors: bool,
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
    /// The rows of the usual table.
    pub(crate) fn new(options: &Options) -> Plan {
        Plan::of(runs(options, &options.windows), true, options, 1.0)
    }

    /// The sweep over these sizes of answers, over sockets.
    pub(crate) fn payloads(options: &Options) -> Plan {
        let of_size = |&payload: &usize| {
            let variant = Variant { payload_kind: PayloadKind::Bytes, ..Variant::usual(payload) };
            let fetched = move |run: Run| Run { payload, exchange: Exchange::Fetch, variant, ..run };
            runs(options, &options.windows).into_iter().filter(|run| run.path.has_connections()).map(fetched)
        };
        Plan::of(options.payloads.iter().flat_map(of_size).collect(), true, options, 1.0)
    }

    /// One core that asks itself, and as many as are wanted that each do.
    pub(crate) fn scale(options: &Options) -> Plan {
        let mut all = Vec::new();
        for run in runs(&Options { idles: vec![local_idle(options)], ..options.clone() }, &options.windows) {
            for cores in [1, options.cores] {
                let connections = run.connections.map(|_| cores);
                all.push(Run { alone: true, cores, connections, ..run });
            }
        }
        all.retain(|run| run.path != Path::Mesh);
        Plan::of(all, true, options, 1.0)
    }

    /// So many connections between two processes, with all asks going round over them.
    pub(crate) fn connections(options: &Options, counts: &[usize]) -> Plan {
        let mut all = Vec::new();
        for run in runs(options, &[1]).into_iter().filter(|run| run.path.has_connections()) {
            for &connections in counts {
                let over = Run { cores: 2, connections: Some(connections), ..run };
                all.extend(options.windows.iter().map(|&window| Run { load: Load::RoundRobin(window), ..over }));
            }
        }
        // To open the connections takes the other half of the time.
        Plan::of(all, true, options, 0.5)
    }

    /// What each path does at most: the largest window, without floors. A quarter of the time.
    pub(crate) fn maxima(options: &Options) -> Plan {
        let largest = options.windows.iter().max().copied().unwrap_or(1);
        Plan::of(runs(options, &[largest]), false, options, 0.25)
    }

    /// Open loops: each of these rates for each run, whose maximum comes with it.
    pub(crate) fn rates(maxima: &[(Run, f64)], rates: &[Rate], options: &Options) -> Plan {
        let at = |run: Run, most: f64| {
            let load = move |rate: Rate| Load::Rate { per_second: rate.per_second(most), share: rate.share() };
            rates.iter().map(move |&rate| Run { load: load(rate), ..run })
        };
        let runs = maxima.iter().flat_map(|&(run, most)| at(run, most)).collect();
        Plan::of(runs, false, options, 0.75)
    }

    /// Shares this part of the time among the rows.
    fn of(runs: Vec<Run>, floors: bool, options: &Options, part: f64) -> Plan {
        let span = Span { warm: Duration::ZERO, steady: Duration::ZERO };
        let mut plan = Plan { runs, floors, rounds: ROUNDS, span };
        let time = if options.quick { QUICK } else { FULL }.mul_f64(part);
        let share = time / plan.slots().max(1);
        let share = share.min(LONGEST);
        // Long enough for queues and tables to have grown to what they will hold.
        let warm = share / 3;
        let steady = options.seconds.map_or(share - warm, |seconds| seconds / ROUNDS);
        plan.span = Span { warm, steady };
        plan
    }

    /// Measurements in all: both sides, all rounds.
    pub(crate) fn slots(&self) -> u32 {
        let sides: usize = self.runs.iter().map(|run| 1 + usize::from(self.floor(run).is_some())).sum();
        sides as u32 * self.rounds
    }

    /// The floor that is to be measured beside this run.
    pub(crate) fn floor(&self, run: &Run) -> Option<FloorKind> {
        run.floor().filter(|_| self.floors)
    }

    /// The most cores that one run needs.
    pub(crate) fn most_cores(&self) -> usize {
        self.runs.iter().map(|run| run.cores).max().unwrap_or(1)
    }
}

fn runs(options: &Options, windows: &[usize]) -> Vec<Run> {
    let mut runs = Vec::new();
    for &path in &options.paths {
        for &idle in &options.idles {
            // One core that asks itself is never idle: one policy says it all.
            let asks_itself = |variant: &Variant| path == Path::Local && variant.caller == Caller::Core;
            let variants = options.variants.iter();
            let variants = variants.filter(|variant| !asks_itself(variant) || idle == local_idle(options));
            let cores = if path == Path::Local { 1 } else { options.cores };
            let connections = path.has_connections().then_some(options.connections);
            for (&window, &variant) in windows.iter().flat_map(|window| repeat(window).zip(variants.clone())) {
                runs.push(Run {
                    path,
                    idle,
                    cores,
                    alone: false,
                    connections,
                    load: Load::Window(window),
                    exchange: Exchange::Echo,
                    payload: options.payload,
                    variant,
                });
            }
        }
    }
    runs
}

fn local_idle(options: &Options) -> IdlePolicy {
    let spin = options.idles.contains(&IdlePolicy::Spin);
    if spin { IdlePolicy::Spin } else { options.idles.first().copied().unwrap_or(IdlePolicy::Spin) }
}

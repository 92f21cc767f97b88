//! The command line.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use lexopt::prelude::*;

use crate::Error;
use crate::counts::Counts;
use crate::plan::{IdlePolicy, Path};
use crate::schedule::Rate;
use crate::variant::{Caller, PayloadKind, Shape, Variant};

/// What `--help` prints.
pub(crate) const HELP: &str = "\
Echo through ringpost, beside the floor under it, in one table.

Usage: cargo bench --bench per_core_echo -- [OPTIONS]

  --path LIST        of tcp, unix, mesh, local               [tcp,unix,mesh,local]
  --idle LIST        of adaptive, spin, park; local takes one [adaptive,spin,park]
  --cores N          half ask, half answer; local uses one   [2]
  --connections N    connections, shared among the asking cores, at least one for each
                                                             [one per asking core]
  --connections [LIST]
                     sweep instead, with a list or without a value: so many connections over sockets between
                     two processes of one core each; the asks go round over them, --window in all [1,64].
                     Tells what an idle connection takes in memory. --path is tcp, --idle is spin then
                                                             [1,10,100,1000,10000, quick: 1,100]
  --window LIST      asks in flight: per connection, or per asking core without any
                                                             [1,64,512]
  --rate LIST        open loop instead: so many asks a second in all, as 5000, 50k or 1.5M, or as 20% of
                     what the largest window gives in the same run; latencies count from when an
                     ask was due. The asking cores never rest
  --payloads LIST    sweep instead: answers of these sizes to asks of a few bytes over sockets, as 64, 16K
                     or 1M, with the bytes per second; `all` is 64,1K,4K,16K,64K,256K,1M,4M,16M.
                     The window is [1,4] then
  --scale            instead: one core that asks itself, over sockets and without, against --cores such
                     cores
  --payload BYTES    0, 16, 64, 128, 256, 1024 and 4096 need no memory of their own; other sizes
                     are carried by `Bytes`, whose allocations are counted
                                                             [64]
  --payload-kind LIST
                     what carries it: array ([u8; N], of the sizes above), vec (Vec<u8>), bytes (Bytes)
                                                             [array if there is one of that size, else bytes]
  --shape LIST       how an asking core keeps asks in flight: task (one task for each), unordered (one task
                     with a FuturesUnordered), join_all (one task that awaits batches)
                                                             [task]
  --caller LIST      who asks: core (the asking core), thread (a thread for each ask in flight, which blocks),
                     tokio (tasks of a multi-threaded tokio runtime in the same process). The last two
                     stand beside a hop through tokio channels to a thread that answers at once, and
                     tell how often a thread fell asleep for each ask. --shape is task for them
                                                             [core]
                     These three make a row of each combination. --shape and --caller are for the usual
                     table only, --payload-kind for all but --payloads
  --seconds N        counted time of each side of each row, over 3 rounds
  --quick            finish within 15 s instead of 90 s
  --json FILE        write all figures
  --svg FILE         write the latency distribution          [target/per_core_echo.svg]
  -h, --help         show this
";

/// Above this a window is no longer a window: the default limit of pending asks of a core.
const MOST_IN_FLIGHT: usize = 65_536;
/// Stays below the default frame limit of 16 MiB.
const LARGEST_PAYLOAD: usize = 8 << 20;
/// The largest answer of the sweep.
const LARGEST_ANSWER: usize = 64 << 20;
/// What the sweep goes over.
const SWEEP: &str = "64,1K,4K,16K,64K,256K,1M,4M,16M";
/// What the sweep over connections goes over.
const CONNECTIONS: &[usize] = &[1, 10, 100, 1000, 10_000];
/// The same for `--quick`.
const QUICK_CONNECTIONS: &[usize] = &[1, 100];
/// As many as fit into the 16 bits of a core number with ease.
const MOST_CORES: usize = 1024;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Report {
    /// The usual table.
    Echoes,
    /// Open loops.
    Rates,
    /// The sweep over sizes of answers.
    Payloads,
    /// Several cores against one.
    Scale,
    /// The sweep over numbers of connections.
    Connections,
}

impl Report {
    /// The option that asks for it.
    fn option(self) -> &'static str {
        match self {
            Report::Echoes => "the usual table",
            Report::Rates => "--rate",
            Report::Payloads => "--payloads",
            Report::Scale => "--scale",
            Report::Connections => "a sweep over --connections",
        }
    }
}

/// What to do.
pub(crate) enum Command {
    /// Measure.
    Run(Box<Options>),
    /// Be one of the processes that a measurement takes.
    Child,
    /// Print the help.
    Help,
}

/// All options, checked.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) report: Report,
    pub(crate) paths: Vec<Path>,
    pub(crate) idles: Vec<IdlePolicy>,
    /// Even, or 1 rounded up to 2.
    pub(crate) cores: usize,
    /// At least one per asking core.
    pub(crate) connections: usize,
    pub(crate) windows: Vec<usize>,
    /// For open loops.
    pub(crate) rates: Vec<Rate>,
    /// For the sweep over sizes.
    pub(crate) payloads: Vec<usize>,
    /// For the sweep over numbers of connections.
    pub(crate) counts: Vec<usize>,
    pub(crate) payload: usize,
    /// The ways to write an ask; at least one.
    pub(crate) variants: Vec<Variant>,
    /// Counted time of one side of one row, over all rounds.
    pub(crate) seconds: Option<Duration>,
    pub(crate) quick: bool,
    pub(crate) json: Option<PathBuf>,
    pub(crate) svg: PathBuf,
}

/// Reads the arguments, the first being the program's name.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, Error> {
    let mut options = Options {
        report: Report::Echoes,
        paths: Vec::new(),
        idles: Vec::new(),
        cores: 2,
        connections: 0,
        windows: Vec::new(),
        rates: Vec::new(),
        payloads: Vec::new(),
        counts: Vec::new(),
        payload: 64,
        variants: Vec::new(),
        seconds: None,
        quick: false,
        json: None,
        svg: default_svg(),
    };
    let mut connections = None;
    let (mut shapes, mut callers, mut payload_kinds) = (Vec::new(), Vec::new(), Vec::new());
    let mut parser = lexopt::Parser::from_iter(arguments);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("path") => {
                options.paths = list(&parser.value()?.string()?, |name| named(Path::ALL, Path::name, name))?
            }
            Long("idle") => {
                let known = |name: &str| named(IdlePolicy::ALL, IdlePolicy::name, name);
                options.idles = list(&parser.value()?.string()?, known)?;
            }
            Long("cores") => options.cores = number("--cores", &parser.value()?.string()?, 1, MOST_CORES)?,
            Long("connections") => match counts(&mut parser)? {
                Counts::One(count) => connections = Some(count),
                Counts::Sweep(counts) => {
                    options.report = Report::Connections;
                    options.counts = counts;
                }
            },
            Long("window") => {
                let window = |text: &str| number("--window", text, 1, MOST_IN_FLIGHT);
                options.windows = list(&parser.value()?.string()?, window)?;
            }
            Long("rate") => {
                options.report = Report::Rates;
                options.rates = list(&parser.value()?.string()?, |rate| Ok(rate.parse::<Rate>()?))?;
            }
            Long("scale") => options.report = Report::Scale,
            Long("payloads") => {
                options.report = Report::Payloads;
                let sizes = parser.value()?.string()?;
                options.payloads = list(if sizes == "all" { SWEEP } else { &sizes }, size)?;
            }
            Long("payload") => options.payload = number("--payload", &parser.value()?.string()?, 0, LARGEST_PAYLOAD)?,
            Long("payload-kind") => {
                let known = |name: &str| named(PayloadKind::ALL, PayloadKind::name, name);
                payload_kinds = list(&parser.value()?.string()?, known)?;
            }
            Long("shape") => {
                shapes = list(&parser.value()?.string()?, |name| named(Shape::ALL, Shape::name, name))?;
            }
            Long("caller") => {
                callers = list(&parser.value()?.string()?, |name| named(Caller::ALL, Caller::name, name))?;
            }
            Long("seconds") => options.seconds = Some(seconds(&parser.value()?.string()?)?),
            Long("quick") => options.quick = true,
            Long("json") => options.json = Some(parser.value()?.into()),
            Long("svg") => options.svg = parser.value()?.into(),
            // cargo adds it to the arguments of every benchmark.
            Long("bench") => {}
            Long("child") => return Ok(Command::Child),
            Short('h') | Long("help") => return Ok(Command::Help),
            other => return Err(other.unexpected().into()),
        }
    }
    settle(&mut options);
    options.variants = variants(&options, &shapes, &callers, &payload_kinds)?;
    settle_cores(&mut options, connections)?;
    Ok(Command::Run(Box::new(options)))
}

/// Puts in what was not given.
fn settle(options: &mut Options) {
    let sweeps = options.report == Report::Connections;
    if options.windows.is_empty() {
        options.windows = match options.report {
            Report::Payloads => vec![1, 4],
            Report::Connections => vec![1, 64],
            _ => vec![1, 64, 512],
        };
    }
    if options.paths.is_empty() {
        options.paths = if sweeps { vec![Path::Tcp] } else { Path::ALL.to_vec() };
    }
    if options.idles.is_empty() {
        options.idles = if sweeps { vec![IdlePolicy::Spin] } else { IdlePolicy::ALL.to_vec() };
    }
    if sweeps && options.counts.is_empty() {
        options.counts = if options.quick { QUICK_CONNECTIONS.to_vec() } else { CONNECTIONS.to_vec() };
    }
}

/// All combinations of these. Fails if one makes no sense.
fn variants(
    options: &Options,
    shapes: &[Shape],
    callers: &[Caller],
    payload_kinds: &[PayloadKind],
) -> Result<Vec<Variant>, Error> {
    let is_usual = options.report == Report::Echoes;
    for (option, given) in [("--shape", !shapes.is_empty()), ("--caller", !callers.is_empty())] {
        if given && !is_usual {
            return Err(format!("{option} is for the usual table, not for {}", options.report.option()).into());
        }
    }
    if options.report == Report::Payloads && !payload_kinds.is_empty() {
        return Err("--payload-kind is not for --payloads, whose answers are Bytes".into());
    }
    let usual = Variant::usual(options.payload);
    let mut variants = Vec::new();
    for &caller in some_or(callers, &[usual.caller]) {
        for &shape in some_or(shapes, &[usual.shape]) {
            for &payload_kind in some_or(payload_kinds, &[usual.payload_kind]) {
                variants.push(Variant { shape, caller, payload_kind }.check(options.payload)?);
            }
        }
    }
    Ok(variants)
}

fn some_or<'a, T>(given: &'a [T], usual: &'a [T]) -> &'a [T] {
    if given.is_empty() { usual } else { given }
}

fn settle_cores(options: &mut Options, connections: Option<usize>) -> Result<(), Error> {
    if options.report == Report::Scale {
        return Ok(());
    }
    let asking = (options.cores / 2).max(1);
    options.cores = asking * 2;
    options.connections = connections.unwrap_or(asking);
    if options.connections < asking {
        let given = options.connections;
        return Err(format!("--connections {given} leaves some of the {asking} asking cores without any").into());
    }
    Ok(())
}

fn default_svg() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    PathBuf::from(target).join("per_core_echo.svg")
}

/// Parses `a,b,c`; what is named twice is measured once.
fn list<T: PartialEq>(text: &str, item: impl Fn(&str) -> Result<T, Error>) -> Result<Vec<T>, Error> {
    let mut items = Vec::new();
    for part in text.split(',') {
        let item = item(part.trim())?;
        if !items.contains(&item) {
            items.push(item);
        }
    }
    Ok(items)
}

/// What follows `--connections`: a number, a list, or nothing, which is a list to be filled in.
fn counts(parser: &mut lexopt::Parser) -> Result<Counts, Error> {
    let is_value = |next: &OsStr| next.as_encoded_bytes().first().is_some_and(u8::is_ascii_digit);
    let given = match parser.optional_value() {
        Some(attached) => Some(attached),
        None => parser.raw_args()?.next_if(is_value),
    };
    given.map_or(Ok(Counts::Sweep(Vec::new())), |text| Ok(text.string()?.parse()?))
}

fn named<T: Copy, const N: usize>(all: [T; N], name: fn(T) -> &'static str, wanted: &str) -> Result<T, Error> {
    let found = all.into_iter().find(|&item| name(item) == wanted);
    found.ok_or_else(|| format!("'{wanted}' is none of {}", all.map(name).join(", ")).into())
}

fn number(option: &str, text: &str, least: usize, most: usize) -> Result<usize, Error> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("{option} takes a number from {least} to {most}, not '{text}'").into())
}

/// Reads `64`, `16K` or `1M`.
fn size(text: &str) -> Result<usize, Error> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'K') => (&text[..text.len() - 1], 1 << 10),
        Some(b'M') => (&text[..text.len() - 1], 1 << 20),
        _ => (text, 1),
    };
    let size = digits.parse::<usize>().ok().and_then(|number| number.checked_mul(unit));
    let size = size.filter(|size| (1..=LARGEST_ANSWER).contains(size));
    size.ok_or_else(|| format!("--payloads takes sizes from 1 to 64M, not '{text}'").into())
}

fn seconds(text: &str) -> Result<Duration, Error> {
    let seconds = text.parse().ok().filter(|seconds| (0.01..=3600.0).contains(seconds));
    let seconds = seconds.ok_or_else(|| format!("--seconds takes a number from 0.01 to 3600, not '{text}'"))?;
    Ok(Duration::from_secs_f64(seconds))
}

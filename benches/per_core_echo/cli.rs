//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::prelude::*;

use crate::Error;
use crate::plan::{IdlePolicy, Path};
use crate::schedule::Rate;

/// What `--help` prints.
pub(crate) const HELP: &str = "\
Echo through ringpost, beside the floor under it, in one table.

Usage: cargo bench --bench per_core_echo -- [OPTIONS]

  --path LIST        of tcp, unix, mesh, local               [tcp,unix,mesh,local]
  --idle LIST        of adaptive, spin, park; local takes one [adaptive,spin,park]
  --cores N          half ask, half answer; local uses one   [2]
  --connections N    connections, shared among the asking cores, at least one for each
                                                             [one per asking core]
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
/// The loopback addresses 127.0.x.y that a server can be reached under, or names of its Unix socket.
const MOST_CONNECTIONS: usize = 10_000;
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
}

/// What to do.
pub(crate) enum Command {
    /// Measure.
    Run(Box<Options>),
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
    /// For the sweep.
    pub(crate) payloads: Vec<usize>,
    pub(crate) payload: usize,
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
        paths: Path::ALL.to_vec(),
        idles: IdlePolicy::ALL.to_vec(),
        cores: 2,
        connections: 0,
        windows: Vec::new(),
        rates: Vec::new(),
        payloads: Vec::new(),
        payload: 64,
        seconds: None,
        quick: false,
        json: None,
        svg: default_svg(),
    };
    let mut connections = None;
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
            Long("connections") => {
                connections = Some(number("--connections", &parser.value()?.string()?, 1, MOST_CONNECTIONS)?);
            }
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
            Long("seconds") => options.seconds = Some(seconds(&parser.value()?.string()?)?),
            Long("quick") => options.quick = true,
            Long("json") => options.json = Some(parser.value()?.into()),
            Long("svg") => options.svg = parser.value()?.into(),
            // cargo adds it to the arguments of every benchmark.
            Long("bench") => {}
            Short('h') | Long("help") => return Ok(Command::Help),
            other => return Err(other.unexpected().into()),
        }
    }
    if options.windows.is_empty() {
        options.windows = if options.report == Report::Payloads { vec![1, 4] } else { vec![1, 64, 512] };
    }
    settle_cores(&mut options, connections)?;
    Ok(Command::Run(Box::new(options)))
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

//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::prelude::*;

use crate::Error;
use crate::plan::{Idle, Path};
use crate::systems::{self, System};

const HELP: &str = "\
ringpost beside what users would pick instead: 64-byte echo, one run, one table.

Usage: cargo run --release --manifest-path benches/peers/Cargo.toml -- [OPTIONS]

  --system LIST   of those below                              [all]
  --path LIST     of tcp, mesh, local                         [tcp,mesh,local]
  --idle LIST     of adaptive, spin, park                     [adaptive,spin,park]
  --window LIST   asks in flight                              [1,64,512]
  --rounds N      interleaved; the median counts              [5, with --quick 3]
  --seconds S     counted time of each row over all rounds    [shared out]
  --quick         finish within 60 s instead of 5 minutes
  --json FILE     write all figures
  -h, --help      show this

";

/// What fits into the socket buffers of both directions: the hand-written echoes write before they read on.
const MOST_IN_FLIGHT: usize = 1024;

/// What `--help` prints.
pub(crate) fn help() -> String {
    let mut help = String::from(HELP);
    for system in systems::ALL {
        let paths: Vec<&str> = system.paths.iter().map(|path| path.name()).collect();
        let idles: Vec<&str> = system.idles.iter().map(|idle| idle.name()).collect();
        help += &format!("  {:<16} {:<16} {}\n", system.name, paths.join(", "), idles.join(", "));
    }
    help
}

/// What to do.
pub(crate) enum Command {
    /// Measure.
    Run(Options),
    /// Print the help.
    Help,
}

/// All options, checked.
pub(crate) struct Options {
    pub(crate) systems: Vec<System>,
    pub(crate) paths: Vec<Path>,
    pub(crate) idles: Vec<Idle>,
    pub(crate) windows: Vec<usize>,
    pub(crate) rounds: Option<u32>,
    /// Counted time of one row, over all rounds.
    pub(crate) seconds: Option<Duration>,
    pub(crate) quick: bool,
    pub(crate) json: Option<PathBuf>,
}

/// Reads the arguments, the first being the program's name.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, Error> {
    let mut options = Options {
        systems: systems::ALL.to_vec(),
        paths: Path::ALL.to_vec(),
        idles: Idle::ALL.to_vec(),
        windows: vec![1, 64, 512],
        rounds: None,
        seconds: None,
        quick: false,
        json: None,
    };
    let mut parser = lexopt::Parser::from_iter(arguments);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("system") => options.systems = named(&parser.value()?.string()?, systems::ALL, |system| system.name)?,
            Long("path") => options.paths = named(&parser.value()?.string()?, &Path::ALL, |path| path.name())?,
            Long("idle") => options.idles = named(&parser.value()?.string()?, &Idle::ALL, |idle| idle.name())?,
            Long("window") => {
                let windows = parser.value()?.string()?;
                let windows = windows.split(',').map(|window| number("--window", window.trim(), 1, MOST_IN_FLIGHT));
                options.windows = windows.collect::<Result<_, _>>()?;
            }
            Long("rounds") => options.rounds = Some(number("--rounds", &parser.value()?.string()?, 1, 1000)? as u32),
            Long("seconds") => options.seconds = Some(seconds(&parser.value()?.string()?)?),
            Long("quick") => options.quick = true,
            Long("json") => options.json = Some(parser.value()?.into()),
            Short('h') | Long("help") => return Ok(Command::Help),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Command::Run(options))
}

/// Those of `all` that `a,b,c` names, in the order of `all`.
fn named<T: Copy>(text: &str, all: &[T], name: impl Fn(&T) -> &'static str) -> Result<Vec<T>, Error> {
    let wanted: Vec<&str> = text.split(',').map(str::trim).collect();
    let known: Vec<&str> = all.iter().map(&name).collect();
    if let Some(unknown) = wanted.iter().find(|wanted| !known.contains(wanted)) {
        return Err(format!("'{unknown}' is none of {}", known.join(", ")).into());
    }
    Ok(all.iter().copied().filter(|item| wanted.contains(&name(item))).collect())
}

fn number(option: &str, text: &str, least: usize, most: usize) -> Result<usize, Error> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("{option} takes a number from {least} to {most}, not '{text}'").into())
}

fn seconds(text: &str) -> Result<Duration, Error> {
    let seconds = text.parse().ok().filter(|seconds| (0.01..=3600.0).contains(seconds));
    let seconds = seconds.ok_or_else(|| format!("--seconds takes a number from 0.01 to 3600, not '{text}'"))?;
    Ok(Duration::from_secs_f64(seconds))
}

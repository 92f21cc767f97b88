//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::prelude::*;

use crate::Error;
use crate::plan::{Idle, Path};
use crate::schedule::Rate;
use crate::systems::{self, System};
use crate::variant::Caller;

const HELP: &str = "\
ringpost beside what users would pick instead: 64-byte echo, one run, one table.

Usage: cargo run --release --manifest-path benches/peers/Cargo.toml -- [OPTIONS]

  --system LIST   of those below                              [all; with --rate those with a *]
  --path LIST     of tcp, mesh, local                         [tcp,mesh,local; with --rate tcp]
  --idle LIST     of adaptive, spin, park                     [adaptive,spin,park]
  --caller LIST   of core (the asking thread, which does the input and output as well), tokio (tasks of a
                  multi-threaded runtime; over tcp, with adaptive and park)
                                                              [core,tokio; with --rate core]
  --window LIST   asks in flight                              [1,64,512]
  --rate LIST     open loop instead: so many asks a second, as 5000, 50k or 1.5M, or as 20% of what the
                  system does with the largest window in the same run; latencies count from when an ask
                  was due. The asking threads never rest
  --rounds N      interleaved; the median counts              [5, with --quick 3]
  --seconds S     counted time of each row over all rounds    [shared out]
  --quick         finish within 60 s instead of 5 minutes
  --json FILE     write all figures
  -h, --help      show this

";

/// What fits into the socket buffers of both directions: the hand-written echoes write before they read on.
const MOST_IN_FLIGHT: usize = 1024;

/// Who asks here.
const CALLERS: [Caller; 2] = [Caller::Core, Caller::Tokio];

/// What `--help` prints.
pub(crate) fn help() -> String {
    let mut help = String::from(HELP);
    for system in systems::ALL {
        let paths: Vec<&str> = system.paths.iter().map(|path| path.name()).collect();
        let idles: Vec<&str> = system.idles.iter().map(|idle| idle.name()).collect();
        let fastest = systems::FASTEST.iter().any(|fast| fast.name == system.name);
        let name = format!("{}{}", system.name, if fastest { " *" } else { "" });
        let callers: Vec<&str> = system.callers.iter().map(|caller| caller.name()).collect();
        help += &format!("  {name:<16} {:<16} {:<22} {}\n", paths.join(", "), idles.join(", "), callers.join(", "));
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
    pub(crate) callers: Vec<Caller>,
    pub(crate) windows: Vec<usize>,
    /// For open loops; none for the usual table.
    pub(crate) rates: Vec<Rate>,
    pub(crate) rounds: Option<u32>,
    /// Counted time of one row, over all rounds.
    pub(crate) seconds: Option<Duration>,
    pub(crate) quick: bool,
    pub(crate) json: Option<PathBuf>,
}

/// Reads the arguments, the first being the program's name.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, Error> {
    let mut options = Options {
        systems: Vec::new(),
        paths: Vec::new(),
        idles: Idle::ALL.to_vec(),
        callers: Vec::new(),
        windows: vec![1, 64, 512],
        rates: Vec::new(),
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
            Long("caller") => {
                options.callers = named(&parser.value()?.string()?, &CALLERS, |caller| caller.name())?;
            }
            Long("window") => {
                let windows = parser.value()?.string()?;
                let windows = windows.split(',').map(|window| number("--window", window.trim(), 1, MOST_IN_FLIGHT));
                options.windows = windows.collect::<Result<_, _>>()?;
            }
            Long("rate") => {
                let rates = parser.value()?.string()?;
                options.rates = rates.split(',').map(|rate| rate.trim().parse()).collect::<Result<_, _>>()?;
            }
            Long("rounds") => options.rounds = Some(number("--rounds", &parser.value()?.string()?, 1, 1000)? as u32),
            Long("seconds") => options.seconds = Some(seconds(&parser.value()?.string()?)?),
            Long("quick") => options.quick = true,
            Long("json") => options.json = Some(parser.value()?.into()),
            Short('h') | Long("help") => return Ok(Command::Help),
            other => return Err(other.unexpected().into()),
        }
    }
    let usual = options.rates.is_empty();
    if options.systems.is_empty() {
        options.systems = if usual { systems::ALL } else { systems::FASTEST }.to_vec();
    }
    if options.callers.is_empty() {
        options.callers = if usual { CALLERS.to_vec() } else { vec![Caller::Core] };
    }
    if !usual && options.callers.contains(&Caller::Tokio) {
        return Err("--rate is paced by the one thread that asks: it goes with --caller core only".into());
    }
    if options.paths.is_empty() {
        options.paths = if usual { Path::ALL.to_vec() } else { vec![Path::Tcp] };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Load, Plan};

    fn parsed(arguments: &[&str]) -> Options {
        match parse(["peers"].iter().chain(arguments).map(OsString::from)) {
            Ok(Command::Run(options)) => options,
            Ok(Command::Help) => panic!("{arguments:?} asks for help"),
            Err(error) => panic!("{arguments:?}: {error}"),
        }
    }

    fn names(options: &Options) -> Vec<&str> {
        options.systems.iter().map(|system| system.name).collect()
    }

    #[test]
    fn rates_are_for_the_fastest_over_tcp_unless_others_are_named() {
        let options = parsed(&["--rate", "20%, 50%,1.5M"]);
        assert_eq!(options.rates, [Rate::Share(0.2), Rate::Share(0.5), Rate::PerSecond(1.5e6)]);
        assert_eq!((names(&options), &options.paths[..]), (vec!["ringpost", "tokio", "tokio-uring"], &[Path::Tcp][..]));
        let options = parsed(&["--rate", "5k", "--system", "kameo", "--path", "mesh,local"]);
        assert_eq!((names(&options), &options.paths[..]), (vec!["kameo"], &[Path::Mesh, Path::Local][..]));
        let options = parsed(&["--quick"]);
        assert_eq!((options.systems.len(), options.paths.len()), (systems::ALL.len(), Path::ALL.len()));
    }

    #[test]
    fn tokio_tasks_ask_over_tcp_where_nobody_spins() {
        let options = parsed(&["--caller", "tokio"]);
        let rows = Plan::new(&options).unwrap().rows;
        let rows: Vec<_> = rows.iter().filter(|row| row.window() == Some(1)).collect();
        let named: Vec<_> = rows.iter().map(|row| (row.system, row.path.name(), row.idle.name())).collect();
        let wanted = [
            ("ringpost", "tcp", "adaptive"),
            ("ringpost", "tcp", "park"),
            ("tarpc", "tcp", "park"),
            ("tonic", "tcp", "park"),
        ];
        assert_eq!(named, wanted);
        assert!(rows.iter().all(|row| row.caller == Caller::Tokio));
        assert_eq!(parsed(&[]).callers, [Caller::Core, Caller::Tokio]);
    }

    #[test]
    fn what_makes_no_sense_together_is_an_error_that_says_so() {
        let refused = |arguments: &[&str]| parse(["peers"].iter().chain(arguments).map(OsString::from)).err().unwrap();
        let rate = refused(&["--rate", "20%", "--caller", "core,tokio"]).to_string();
        assert_eq!(rate, "--rate is paced by the one thread that asks: it goes with --caller core only");
        assert_eq!(refused(&["--caller", "thread"]).to_string(), "'thread' is none of core, tokio");
        assert_eq!(parsed(&["--rate", "20%"]).callers, [Caller::Core]);
    }

    #[test]
    fn each_row_is_loaded_at_the_shares_of_its_own_maximum() {
        let options = parsed(&["--rate", "20%,80%,5k", "--system", "tokio", "--rounds", "3"]);
        let rows = Plan::maxima(&options).unwrap().rows;
        assert!(rows.iter().all(|row| row.load == Load::Window(512)), "the largest window tells the maximum");
        let maxima: Vec<_> = rows.into_iter().zip([1e6, 2e6]).collect();
        let plan = Plan::rates(&maxima, &options);
        let offered = plan.rows.iter().map(|row| match row.load {
            Load::Rate { per_second, share } => (row.idle, per_second, share),
            Load::Window(window) => panic!("a closed loop of {window}"),
        });
        let (spin, park) = (Idle::Spin, Idle::Park);
        let wanted = [
            (spin, 2e5, Some(0.2)),
            (spin, 8e5, Some(0.8)),
            (spin, 5e3, None),
            (park, 4e5, Some(0.2)),
            (park, 1.6e6, Some(0.8)),
            (park, 5e3, None),
        ];
        assert_eq!(offered.collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn a_quick_run_measures_for_less_than_a_minute() {
        for arguments in [&["--quick"][..], &["--quick", "--rate", "20%,50%,80%"]] {
            let options = parsed(arguments);
            let first = if options.rates.is_empty() { Plan::new(&options) } else { Plan::maxima(&options) }.unwrap();
            let maxima: Vec<_> = first.rows.iter().map(|&row| (row, 1e6)).collect();
            let mut plans = vec![first];
            plans.extend((!options.rates.is_empty()).then(|| Plan::rates(&maxima, &options)));
            let time: Duration = plans
                .iter()
                .map(|plan| (plan.span.warm + plan.span.steady) * plan.rounds * plan.rows.len() as u32)
                .sum();
            assert!(time <= Duration::from_secs(50), "{arguments:?}: {time:?}");
        }
    }
}

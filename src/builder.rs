//! How an env comes to be.

use std::fmt;
use std::io;
use std::iter::repeat_with;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use crate::address::Address;
use crate::config::{Config, CoreSet};
use crate::dispatch::directory::Place;
use crate::dispatch::verifier::VERIFIER;
use crate::env::RpcEnv;
use crate::error::StartError;
use crate::executor::idle::Idle;
use crate::host::Host;
use crate::host::life::{Life, Start, StartFailure};
use crate::host::thread::{self, Ready};
use crate::listen::{Listening, listen};
use crate::net::ref_policy::RefPolicy;
use crate::ring::{Capabilities, Feature};
use crate::shard::node::{Ending, Node, Reach};
use crate::shard::resolver::{Lookup, system};
use crate::wire::frame::EndpointId;

/// How an env is to be: see [`RpcEnv::builder`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `start`"]
pub struct Builder {
    name: String,
    cores: CoreSet,
    config: Config,
    idle: Option<Idle>,
    bind: Option<String>,
    advertise: Option<String>,
    without: Vec<Feature>,
    host: Host,
    ref_policy: RefPolicy,
    resolve: Resolve,
}

/// How host names are resolved.
#[derive(Clone)]
struct Resolve(Lookup);

impl fmt::Debug for Resolve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

impl RpcEnv {
    /// Begins an env with this name, which appears in logs and thread names: 1 to 255 bytes without control characters.
    pub fn builder(name: impl Into<String>) -> Builder {
        Builder {
            name: name.into(),
            cores: CoreSet::all(),
            config: Config::default(),
            idle: None,
            bind: None,
            advertise: None,
            without: Vec::new(),
            host: Host::Thread,
            ref_policy: RefPolicy::default(),
            resolve: Resolve(system()),
        }
    }
}

impl Builder {
    /// Which CPUs to use: all by default.
    pub fn cores(mut self, cores: CoreSet) -> Builder {
        self.cores = cores;
        self
    }

    /// All limits at once.
    pub fn config(mut self, config: Config) -> Builder {
        self.config = config;
        self
    }

    /// What a core does when it has nothing to do; wins over `Config::idle`.
    pub fn idle(mut self, idle: Idle) -> Builder {
        self.idle = Some(idle);
        self
    }

    /// Listens on this `host:port`, or on the Unix socket `unix:/path`. Without this the env listens nowhere and only
    /// asks others (client mode).
    ///
    /// Port 0 means any. If the port is taken, the start waits for it, up to `Config::port_wait`. After that it tries
    /// the next ports, up to `Config::port_retries`, which is none by default; then the next address, if the host is a
    /// name with several; then it fails. A move to another port or address is warned of. An unspecified host
    /// (`0.0.0.0`, `[::]`) wants [`advertise`](Self::advertise) beside it, or refs to this env do not travel: a warning
    /// says so.
    ///
    /// The file of a Unix socket is removed when the env has ended. One that was left behind, so that nobody accepts
    /// there, is replaced; one where somebody still does after `Config::port_wait` is an error. Who may connect is a
    /// matter of the permissions of the file, which follow the umask, and of its directory.
    pub fn bind(mut self, address: impl Into<String>) -> Builder {
        self.bind = Some(address.into());
        self
    }

    /// The host that refs to this env's endpoints carry, if it differs from the one it listens on; the port is the one
    /// that was bound. An error of the start if the env listens nowhere, or on a Unix socket.
    pub fn advertise(mut self, host: impl Into<String>) -> Builder {
        self.advertise = Some(host.into());
        self
    }

    /// Does without a feature of the kernel although it is there: to see what it is worth, or to test the way around
    /// it.
    pub fn without(mut self, feature: Feature) -> Builder {
        self.without.push(feature);
        self
    }

    /// What runs on the cores' threads beside them: nothing, by default.
    pub fn host(mut self, host: Host) -> Builder {
        self.host = host;
        self
    }

    /// To which addresses refs may lead that peers have told: [`RefPolicy::outward`] by default.
    pub fn ref_policy(mut self, policy: RefPolicy) -> Builder {
        self.ref_policy = policy;
        self
    }

    /// Resolves the host names of peers in this way, on threads that may block. For this crate's own tests.
    #[doc(hidden)]
    pub fn resolve_by(
        mut self,
        lookup: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Builder {
        self.resolve = Resolve(Arc::new(lookup));
        self
    }

    /// Starts the cores. Blocks until all of them run, or none does.
    pub fn start(self) -> Result<RpcEnv, StartError> {
        let (cpus, live) = (self.cores.cpus()?, self.host.live());
        let Prepared { node, address, starts } = self.prepare(cpus.len())?;
        let (told, capabilities) = (node.advertised.get(), &node.capabilities);
        tracing::info!(target: "ringpost::env", env = node.name, address = told, %capabilities, cores = ?cpus, "starting");
        start_cores(&node, cpus.into_iter().zip(starts), live)?;
        Ok(RpcEnv::started(node, address))
    }

    /// Starts an env of one core as a local task of the tokio runtime that this thread runs: that of
    /// `tokio_uring::start`, or any other with I/O and timers inside a `LocalSet`. Returns at once; the core works
    /// whenever the runtime gives its task a turn.
    ///
    /// Between its turns the thread is one like any other to the env, except that calls that would block it are refused
    /// here as on each core: use `register_async` and its like. The task ends when the env has shut
    /// down, and the runtime goes on; if the runtime goes first, the env ends hard. [`cores`](Self::cores) and
    /// [`host`](Self::host) do not matter: nothing is pinned. Some 20 ms after the core has ended the kernel interrupts
    /// the thread once, to clean up behind the core's ring: a blocking call with a time limit may end with `EINTR`
    /// then.
    ///
    /// # Errors
    /// [`StartError::NoRuntime`] if this thread runs no such runtime; tokio may have printed a panic message about that,
    /// which is caught. Otherwise as [`start`](Self::start).
    #[cfg(feature = "tokio-uring")]
    pub fn start_local(self) -> Result<RpcEnv, StartError> {
        let Prepared { node, address, starts } = self.prepare(1)?;
        let (told, capabilities) = (node.advertised.get(), &node.capabilities);
        tracing::info!(target: "ringpost::env", env = node.name, address = told, %capabilities, "starting in this thread's runtime");
        starts.into_iter().try_for_each(crate::host::tokio_uring::in_this_runtime)?;
        Ok(RpcEnv::started(node, address))
    }

    /// Checks everything, and listens; gives what each of so many cores is to start with.
    fn prepare(mut self, cores: usize) -> Result<Prepared, StartError> {
        if self.name.is_empty() || self.name.len() > 255 || self.name.chars().any(char::is_control) {
            let problem = format!("{:?} is no env name: 1 to 255 bytes without control characters", self.name);
            return Err(StartError::Config(problem.into()));
        }
        if let Some(idle) = self.idle {
            self.config.idle = idle;
        }
        self.config.check().map_err(|problem| StartError::Config(problem.into()))?;
        let probed = Capabilities::probe()?;
        let capabilities = self.without.iter().fold(probed, |capabilities, feature| capabilities.without(*feature));
        for feature in Feature::ALL.into_iter().filter(|feature| !capabilities.has(*feature)) {
            tracing::warn!(target: "ringpost::env", ?feature, since = feature.since(), "doing without a feature of newer kernels");
        }
        let numbers = core_numbers(cores, self.config.isolated)?;
        let reach = Reach { ref_policy: self.ref_policy, lookup: self.resolve.0 };
        let node = Node::reaching(self.name, self.config, numbers, capabilities.clone(), reach);
        let (listeners, address) = match &self.bind {
            Some(bind) => {
                let listening = listen(bind, cores, &node.config)?;
                let address = advertised(&listening, self.advertise.as_deref())?;
                // The first and only time that these are set.
                let _ = node.advertised.set(address.to_string());
                node.keep_file(listening.file);
                (listening.sockets, Some(address))
            }
            None if self.advertise.is_some() => {
                return Err(StartError::Config(
                    "advertise: an env that listens nowhere has no address: set bind".into(),
                ));
            }
            None => (Vec::new(), None),
        };
        let verifier = node.directory.reserve(VERIFIER, Place::EveryCore, cores as u32);
        let verifier = verifier.unwrap_or(EndpointId(0));
        let listeners = listeners.into_iter().map(Some).chain(repeat_with(|| None));
        let start = |(core, listener)| {
            let (node, capabilities) = (node.clone(), capabilities.clone());
            Start { node, core: core as u16, listener, capabilities, verifier: Some(verifier) }
        };
        let starts = (0..cores).zip(listeners).map(start).collect();
        Ok(Prepared { node, address, starts })
    }
}

/// An env whose cores have not come to life.
struct Prepared {
    node: Arc<Node>,
    address: Option<Address>,
    /// One for each core.
    starts: Vec<Start>,
}

/// The address under which others are to find an env.
fn advertised(listening: &Listening, host: Option<&str>) -> Result<Address, StartError> {
    let wrong = |problem: String| StartError::Config(format!("advertise: {problem}").into());
    match (host, listening.address.port()) {
        (Some(host), Some(port)) => Address::new(host, port).map_err(|error| wrong(error.to_string())),
        (Some(_), None) => Err(wrong("a Unix socket is found by its path, not by a host".into())),
        (None, _) => {
            if listening.unspecified {
                let bound = &listening.address;
                tracing::warn!(target: "ringpost::env", %bound, "refs to this env lead nowhere from elsewhere: set advertise(host)");
            }
            Ok(listening.address.clone())
        }
    }
}

/// Every core has a number, an isolated one too.
fn core_numbers(cores: usize, isolated: u16) -> Result<u16, StartError> {
    let cores = u16::try_from(cores).ok().filter(|cores| cores.checked_add(isolated).is_some());
    let problem = || format!("isolated is {isolated}; with the cores it must not be above 65535");
    cores.ok_or_else(|| StartError::Config(problem().into()))
}

fn start_cores(
    node: &Arc<Node>,
    starts: impl ExactSizeIterator<Item = (usize, Start)>,
    live: fn(Life, Start, Ready),
) -> Result<(), StartError> {
    let cores = starts.len();
    let (ready, outcomes) = sync_channel(cores);
    let mut failure = None;
    for (cpu, start) in starts {
        let core = start.core;
        if let Err(error) = thread::spawn(start, cpu, ready.clone(), live) {
            failure.get_or_insert(StartFailure::Thread(core, error));
            node.reach(core, Ending::Clear);
        }
    }
    drop(ready);
    let mut running = 0;
    for outcome in outcomes {
        match outcome {
            Ok(()) => running += 1,
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    let mut failure = failure.map(StartError::from);
    if running < cores {
        failure.get_or_insert_with(|| StartError::Thread { core: running, cause: "its thread panicked".into() });
    }
    match failure {
        None => Ok(()),
        Some(failure) => {
            node.shutdown(Duration::ZERO);
            node.ended.wait(None);
            Err(failure)
        }
    }
}

impl From<StartFailure> for StartError {
    fn from(failure: StartFailure) -> StartError {
        match failure {
            StartFailure::Ring(error) => StartError::Ring(error),
            StartFailure::Thread(core, error) => {
                StartError::Thread { core: core.into(), cause: error.to_string().into() }
            }
            #[cfg(feature = "tokio-uring")]
            StartFailure::NoRuntime(cause) => StartError::NoRuntime { cause: cause.into() },
        }
    }
}

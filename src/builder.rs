//! How an env comes to be.

use std::os::fd::OwnedFd;
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
use crate::host::life::{Start, StartFailure};
use crate::host::thread;
use crate::listen::{Listening, listen};
use crate::ring::{Capabilities, Feature};
use crate::shard::node::{Ending, Node};
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
    /// Port 0 means any. If the port is taken, the next ones are tried, up to `Config::port_retries`; if the host is a
    /// name, the next of its addresses after that. An unspecified host (`0.0.0.0`, `[::]`) wants [`advertise`](Self::advertise) beside it, or
    /// refs that travel to other nodes lead nowhere: a warning says so.
    ///
    /// The file of a Unix socket is removed when the env has ended. One that was left behind, so that nobody accepts
    /// there, is replaced; one where somebody does is an error. Who may connect is a matter of the permissions of the
    /// file, which follow the umask, and of its directory.
    pub fn bind(mut self, address: impl Into<String>) -> Builder {
        self.bind = Some(address.into());
        self
    }

    /// The host that refs to this env's endpoints carry, if it differs from the one it listens on; the port is the one
    /// that was bound.
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

    /// Starts the cores. Blocks until all of them run, or none does.
    pub fn start(mut self) -> Result<RpcEnv, StartError> {
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
            tracing::warn!(?feature, since = feature.since(), "doing without a feature of newer kernels");
        }
        let cpus = self.cores.cpus()?;
        let node = Node::new(self.name, self.config, cpus.len(), capabilities.clone());
        let (listeners, address) = match &self.bind {
            Some(bind) => {
                let listening = listen(bind, cpus.len(), node.config.port_retries)?;
                let address = advertised(&listening, self.advertise.as_deref())?;
                // The first and only time that these are set.
                let _ = node.advertised.set(address.to_string());
                node.keep_file(listening.file);
                (listening.sockets, Some(address))
            }
            None => (Vec::new(), None),
        };
        tracing::info!(env = node.name, address = node.advertised.get(), %capabilities, cores = ?cpus, "starting");
        start_cores(&node, &cpus, listeners, &capabilities)?;
        Ok(RpcEnv::started(node, address))
    }
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
                tracing::warn!(%bound, "refs to this env lead nowhere from elsewhere: set advertise(host)");
            }
            Ok(listening.address.clone())
        }
    }
}

fn start_cores(
    node: &Arc<Node>,
    cpus: &[usize],
    listeners: Vec<OwnedFd>,
    capabilities: &Capabilities,
) -> Result<(), StartError> {
    let verifier = node.directory.reserve(VERIFIER, Place::EveryCore, cpus.len() as u32);
    let verifier = verifier.unwrap_or(EndpointId(0));
    let mut listeners = listeners.into_iter();
    let (ready, outcomes) = sync_channel(cpus.len());
    let mut failure = None;
    for (core, &cpu) in cpus.iter().enumerate() {
        let start = Start {
            node: node.clone(),
            core: core as u16,
            listener: listeners.next(),
            capabilities: capabilities.clone(),
            verifier,
        };
        if let Err(error) = thread::spawn(start, cpu, ready.clone(), thread::alone) {
            failure.get_or_insert(StartError::Thread { core, cause: error.to_string().into() });
            node.reach(core as u16, Ending::Clear);
            node.core_ended();
        }
    }
    drop(ready);
    let mut running = 0;
    for outcome in outcomes {
        match outcome {
            Ok(()) => running += 1,
            Err(StartFailure::Ring(error)) => failure = failure.or(Some(StartError::Ring(error))),
            Err(StartFailure::Thread(core, error)) => {
                let core = usize::from(core);
                failure = failure.or(Some(StartError::Thread { core, cause: error.to_string().into() }));
            }
        }
    }
    if running < cpus.len() {
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

//! The envs of a measurement: over sockets, across cores, on one core.

use std::sync::Arc;
use std::time::Duration;

use ringpost::{Config, CoreSet, EndpointRef, Idle, RpcEnv};

use crate::Error;
use crate::cpus::Cpus;
use crate::doors::{Doors, port};
use crate::message::{Counter, Echo};
use crate::plan::{IdlePolicy, Path, Run};

/// How long an env may take to finish what is queued; then it is stopped.
const SHUTDOWN: Duration = Duration::from_secs(2);

/// The envs of one run and who asks whom.
pub(crate) struct Stage {
    /// The asking env first.
    pub(crate) envs: Vec<Arc<RpcEnv>>,
    /// For each asking core, the endpoints it asks.
    pub(crate) targets: Vec<Vec<EndpointRef>>,
    /// One for each answering core that does not ask as well.
    pub(crate) counters: Vec<EndpointRef>,
    /// Kept until the envs have stopped.
    _doors: Option<Doors>,
}

impl Stage {
    /// Starts the envs.
    pub(crate) fn set(run: &Run, cpus: &Cpus) -> Result<Stage, Error> {
        match run.path {
            Path::Tcp | Path::Unix if run.alone => Stage::alone(run, cpus),
            Path::Tcp | Path::Unix => Stage::remote(run, cpus),
            Path::Mesh => Stage::mesh(run, cpus),
            Path::Local => Stage::local(run, cpus),
        }
    }

    fn remote(run: &Run, cpus: &Cpus) -> Result<Stage, Error> {
        let doors = Doors::new(run.path, run.connections.unwrap_or(1))?;
        let server = serve(run, cpus, &doors.bind())?;
        let mut stage = Stage::asking(run, cpus, &doors.addresses(port(&server))?)?;
        stage.envs.push(Arc::new(server));
        stage._doors = Some(doors);
        Ok(stage)
    }

    /// The asking half over sockets: the env that [`serve`] started is reached under these addresses.
    pub(crate) fn asking(run: &Run, cpus: &Cpus, addresses: &[String]) -> Result<Stage, Error> {
        let pairs = run.pairs();
        let client = Stage::client(run, cpus)?;
        // Each address is a peer of its own, so each reference to `echo` has a connection of its own.
        let mut unused = addresses.iter();
        let mut targets = Vec::new();
        for pair in 0..pairs {
            let mine = unused.by_ref().take(run.connections_of(pair));
            targets.push(mine.map(|address| reference(&client, "echo", address)).collect::<Result<Vec<_>, _>>()?);
        }
        let counters = (0..pairs).map(|core| reference(&client, &format!("counter-{core}"), &addresses[0]));
        let counters = counters.collect::<Result<Vec<_>, _>>()?;
        Ok(Stage { envs: vec![Arc::new(client)], targets, counters, _doors: None })
    }

    /// An env without an address, whose cores ask over sockets.
    pub(crate) fn client(run: &Run, cpus: &Cpus) -> Result<RpcEnv, Error> {
        let client = RpcEnv::builder("bench-client").config(config(run)).cores(core_set(cpus, 0..run.pairs()));
        Ok(client.idle(idle(run.idle)).start()?)
    }

    fn mesh(run: &Run, cpus: &Cpus) -> Result<Stage, Error> {
        let pairs = run.pairs();
        let env = RpcEnv::builder("bench").cores(core_set(cpus, 0..2 * pairs)).idle(idle(run.idle)).start()?;
        let mut targets = Vec::new();
        let mut counters = Vec::new();
        for core in pairs..2 * pairs {
            targets.push(vec![env.register_on(core, &format!("echo-{core}"), Echo::default)?]);
            counters.push(env.register_on(core, &format!("counter-{core}"), Counter::default)?);
        }
        Ok(Stage { envs: vec![Arc::new(env)], targets, counters, _doors: None })
    }

    fn local(run: &Run, cpus: &Cpus) -> Result<Stage, Error> {
        let env = RpcEnv::builder("bench").cores(core_set(cpus, 0..run.pairs())).idle(idle(run.idle)).start()?;
        let echo = |core| Ok(vec![env.register_on(core, &format!("echo-{core}"), Echo::default)?]);
        let targets = (0..run.pairs()).map(echo).collect::<Result<Vec<_>, Error>>()?;
        Ok(Stage { envs: vec![Arc::new(env)], targets, counters: Vec::new(), _doors: None })
    }

    /// Cores that have a connection to themselves.
    fn alone(run: &Run, cpus: &Cpus) -> Result<Stage, Error> {
        let doors = Doors::new(run.path, run.cores)?;
        let env = RpcEnv::builder("bench")
            .cores(core_set(cpus, 0..run.cores))
            .idle(idle(run.idle))
            .bind(doors.bind())
            .start()?;
        let mut targets = Vec::new();
        for (core, address) in doors.addresses(port(&env))?.iter().enumerate() {
            env.register_on(core, &format!("echo-{core}"), Echo::default)?;
            // What is looked up is asked over connections to the core that has it.
            targets.push(vec![env.lookup_blocking(&format!("ringpost://echo-{core}@{address}"))?]);
        }
        Ok(Stage { envs: vec![Arc::new(env)], targets, counters: Vec::new(), _doors: Some(doors) })
    }

    /// Waits until all cores have ended: one that still runs would take its CPU from the next measurement.
    pub(crate) fn stop(&self) -> Result<(), Error> {
        for env in &self.envs {
            env.shutdown(SHUTDOWN);
        }
        for env in &self.envs {
            if !env.await_termination_within(2 * SHUTDOWN)? {
                return Err(format!("env {} has not stopped within {:?}", env.name(), 2 * SHUTDOWN).into());
            }
        }
        Ok(())
    }
}

/// Starts the answering env over sockets, bound to this address.
pub(crate) fn serve(run: &Run, cpus: &Cpus, bind: &str) -> Result<RpcEnv, Error> {
    let pairs = run.pairs();
    let server = RpcEnv::builder("bench-server")
        .config(config(run))
        .cores(core_set(cpus, pairs..2 * pairs))
        .idle(idle(run.idle))
        .bind(bind)
        .start()?;
    server.register_per_core("echo", |_core| Echo::default())?;
    for core in 0..pairs {
        server.register_on(core, &format!("counter-{core}"), Counter::default)?;
    }
    Ok(server)
}

/// A reference to an endpoint of that server.
pub(crate) fn reference(client: &RpcEnv, name: &str, address: &str) -> Result<EndpointRef, Error> {
    Ok(client.endpoint_ref(&format!("ringpost://{name}@{address}"))?)
}

fn core_set(cpus: &Cpus, cores: std::ops::Range<usize>) -> CoreSet {
    CoreSet::list(cores.map(|core| cpus.id(core)))
}

fn idle(policy: IdlePolicy) -> Idle {
    match policy {
        IdlePolicy::Adaptive => Idle::default(),
        IdlePolicy::Spin => Idle::Spin,
        IdlePolicy::Park => Idle::Park,
    }
}

/// The defaults, apart from what the payload and the connections do not fit into.
fn config(run: &Run) -> Config {
    let config = Config::default();
    let needed = run.payload as u32 + (64 << 10);
    let connections = run.connections.unwrap_or(1).max(config.connections);
    Config { max_frame: needed.max(config.max_frame), connections, ..config }
}

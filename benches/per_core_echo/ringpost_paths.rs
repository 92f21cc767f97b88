//! The asks that are measured: over sockets, across cores, on one core.
//!
//! Each asking core runs one task per ask in flight; each task asks, waits for the reply, asks again. The first task of
//! a core keeps the time for all of them: it asks through the warm-up, reads the counters, opens the meter, asks
//! through the counted time, closes the meter and reads the counters again, while its neighbours ask on.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringpost::{CoreSet, EndpointRef, Idle, RpcEnv};

use crate::Error;
use crate::alloc::thread_allocs;
use crate::cpus::Cpus;
use crate::doors::Doors;
use crate::message::{Allocations, AnyPayload, Counter, Echo, Echoed, Payload};
use crate::plan::{IdlePolicy, Path, Run};
use crate::sample::{Meter, Sample, Span};

/// How long an env may take to finish what is queued; then it is stopped.
const SHUTDOWN: Duration = Duration::from_secs(2);

/// Starts the envs of `run`, asks for as long as `span` says, stops them.
pub(crate) fn measure(run: &Run, span: Span, cpus: &Cpus) -> Result<Sample, Error> {
    let stage = Stage::set(run, cpus)?;
    let result = match run.payload {
        0 => ask_on_all::<Payload<0>>(&stage, run, span),
        16 => ask_on_all::<Payload<16>>(&stage, run, span),
        64 => ask_on_all::<Payload<64>>(&stage, run, span),
        128 => ask_on_all::<Payload<128>>(&stage, run, span),
        256 => ask_on_all::<Payload<256>>(&stage, run, span),
        1024 => ask_on_all::<Payload<1024>>(&stage, run, span),
        4096 => ask_on_all::<Payload<4096>>(&stage, run, span),
        _ => ask_on_all::<AnyPayload>(&stage, run, span),
    };
    let stopped = stage.stop();
    let sample = result?;
    stopped?;
    Ok(sample)
}

/// The envs of one run and who asks whom.
struct Stage {
    /// The asking env first.
    envs: Vec<Arc<RpcEnv>>,
    /// For each asking core, the endpoints it asks.
    targets: Vec<Vec<EndpointRef>>,
    /// One for each answering core that does not ask as well.
    counters: Vec<EndpointRef>,
    /// Kept until the envs have stopped.
    _doors: Option<Doors>,
}

impl Stage {
    fn set(run: &Run, cpus: &Cpus) -> Result<Stage, Error> {
        match run.path {
            Path::Tcp | Path::Unix => Stage::remote(run, cpus),
            Path::Mesh => Stage::mesh(run, cpus),
            Path::Local => Stage::local(run, cpus),
        }
    }

    fn remote(run: &Run, cpus: &Cpus) -> Result<Stage, Error> {
        let pairs = run.pairs();
        let doors = Doors::new(run.path, run.connections.unwrap_or(1))?;
        let server = RpcEnv::builder("bench-server")
            .cores(core_set(cpus, pairs..2 * pairs))
            .idle(idle(run.idle))
            .bind(doors.bind())
            .start()?;
        server.register_per_core("echo", |_core| Echo)?;
        for core in 0..pairs {
            server.register_on(core, &format!("counter-{core}"), || Counter)?;
        }
        let client = RpcEnv::builder("bench-client").cores(core_set(cpus, 0..pairs)).idle(idle(run.idle)).start()?;
        // Each address is a peer of its own, so each reference to `echo` has a connection of its own.
        let addresses = doors.addresses(&server)?;
        let reference = |name: &str, address: &str| client.endpoint_ref(&format!("ringpost://{name}@{address}"));
        let mut unused = addresses.iter();
        let mut targets = Vec::new();
        for pair in 0..pairs {
            let mine = unused.by_ref().take(run.connections_of(pair));
            targets.push(mine.map(|address| reference("echo", address)).collect::<Result<Vec<_>, _>>()?);
        }
        let counters = (0..pairs).map(|core| reference(&format!("counter-{core}"), &addresses[0]));
        let counters = counters.collect::<Result<Vec<_>, _>>()?;
        Ok(Stage { envs: vec![Arc::new(client), Arc::new(server)], targets, counters, _doors: Some(doors) })
    }

    fn mesh(run: &Run, cpus: &Cpus) -> Result<Stage, Error> {
        let pairs = run.pairs();
        let env = RpcEnv::builder("bench").cores(core_set(cpus, 0..2 * pairs)).idle(idle(run.idle)).start()?;
        let mut targets = Vec::new();
        let mut counters = Vec::new();
        for core in pairs..2 * pairs {
            targets.push(vec![env.register_on(core, &format!("echo-{core}"), || Echo)?]);
            counters.push(env.register_on(core, &format!("counter-{core}"), || Counter)?);
        }
        Ok(Stage { envs: vec![Arc::new(env)], targets, counters, _doors: None })
    }

    fn local(run: &Run, cpus: &Cpus) -> Result<Stage, Error> {
        let env = RpcEnv::builder("bench").cores(core_set(cpus, 0..1)).idle(idle(run.idle)).start()?;
        let targets = vec![vec![env.register_on(0, "echo", || Echo)?]];
        Ok(Stage { envs: vec![Arc::new(env)], targets, counters: Vec::new(), _doors: None })
    }

    /// Waits until all cores have ended: one that still runs would take its CPU from the next measurement.
    fn stop(&self) -> Result<(), Error> {
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

fn ask_on_all<M: Echoed>(stage: &Stage, run: &Run, span: Span) -> Result<Sample, Error> {
    let client = &stage.envs[0];
    let mut cores = Vec::new();
    for (core, targets) in stage.targets.iter().enumerate() {
        // The first core reads the counters of everybody who is not asking.
        let first = core == 0;
        let job = Job {
            targets: targets.clone(),
            window: run.window,
            payload: run.payload,
            span,
            envs: if first { stage.envs.clone() } else { Vec::new() },
            counters: if first { stage.counters.clone() } else { Vec::new() },
        };
        cores.push(client.spawn_on(core, move || ask_on_core::<M>(job))?);
    }
    let mut meters = Vec::new();
    let mut used = Counts::default();
    for core in cores {
        let (meter, counts) = core.join()??;
        meters.push(meter);
        used.allocs += counts.allocs;
        used.enters += counts.enters;
    }
    let asks: u64 = meters.iter().map(Meter::count).sum();
    let mut sample = Sample::of(meters)?;
    sample.allocs_per_op = Some(used.allocs as f64 / asks as f64);
    sample.enters_per_op = Some(used.enters as f64 / asks as f64);
    Ok(sample)
}

/// What one asking core has to do.
struct Job {
    targets: Vec<EndpointRef>,
    /// Asks in flight to each target.
    window: usize,
    payload: usize,
    span: Span,
    envs: Vec<Arc<RpcEnv>>,
    counters: Vec<EndpointRef>,
}

/// What was used, or a reading of the counters that say so.
#[derive(Clone, Copy, Default)]
struct Counts {
    allocs: u64,
    enters: u64,
}

async fn ask_on_core<M: Echoed>(job: Job) -> Result<(Meter, Counts), Error> {
    let meter = Rc::new(RefCell::new(Meter::new()?));
    let asker = |target: &EndpointRef| Asker {
        target: target.clone(),
        message: M::with_size(job.payload),
        meter: Rc::clone(&meter),
    };
    let first = asker(job.targets.first().ok_or("an asking core has nobody to ask")?);
    let mut others = Vec::new();
    for (i, target) in job.targets.iter().enumerate() {
        let in_flight = if i == 0 { job.window - 1 } else { job.window };
        for _ in 0..in_flight {
            let asker = asker(target);
            others.push(ringpost::spawn(async move { asker.ask_until_closed().await }));
        }
    }
    let result = keep_time(&first, &job).await;
    // Also when the first task failed: the others look at nothing else.
    meter.borrow_mut().close();
    for other in others {
        other.await??;
    }
    let used = result?;
    drop(first);
    let meter = Rc::try_unwrap(meter).map_err(|_| "a task outlived its result")?;
    Ok((meter.into_inner(), used))
}

async fn keep_time<M: Echoed>(asker: &Asker<M>, job: &Job) -> Result<Counts, Error> {
    // Connects and resolves the names, so that the warm-up is not spent on that.
    asker.ask_while(|_| false).await?;
    read_counts(job).await?;
    let opens = Instant::now() + job.span.warm;
    asker.ask_while(|now| now < opens).await?;

    let before = read_counts(job).await?;
    let own_before = thread_allocs();
    let opened = Instant::now();
    asker.meter.borrow_mut().open(opened);
    let closes = opened + job.span.steady;
    asker.ask_while(|now| now < closes).await?;
    let own_after = thread_allocs();
    asker.meter.borrow_mut().close();
    let after = read_counts(job).await?;

    let allocs = own_after - own_before + after.allocs - before.allocs;
    Ok(Counts { allocs, enters: after.enters - before.enters })
}

/// Reads the allocations of all answering cores, then the `enter` calls of all envs.
///
/// Between two readings lies one more ask to each answering core than was measured: the second reading itself.
async fn read_counts(job: &Job) -> Result<Counts, Error> {
    let mut allocs = 0;
    for counter in &job.counters {
        allocs += counter.ask(Allocations).await?;
    }
    let enters = job.envs.iter().map(|env| env.snapshot().total().enters).sum();
    Ok(Counts { allocs, enters })
}

/// One ask in flight.
struct Asker<M> {
    target: EndpointRef,
    message: M,
    meter: Rc<RefCell<Meter>>,
}

impl<M: Echoed> Asker<M> {
    async fn ask_until_closed(&self) -> Result<(), Error> {
        self.ask_while(|_| !self.meter.borrow().is_closed()).await
    }

    /// Asks at least once; `more` sees the time of each reply. Replies of the warm-up are compared with what was asked.
    async fn ask_while(&self, more: impl Fn(Instant) -> bool) -> Result<(), Error> {
        let mut sent = Instant::now();
        loop {
            let reply: M = self.target.ask(self.message.clone()).await?;
            let now = Instant::now();
            let counted = self.meter.borrow_mut().record(sent, now);
            if !counted && reply != self.message {
                return Err("a reply differs from what was asked".into());
            }
            if !more(now) {
                return Ok(());
            }
            sent = now;
        }
    }
}

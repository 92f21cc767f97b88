//! The asks that are measured.
//!
//! In a closed loop each asking core runs one task per ask in flight; each task asks, waits for the reply, asks again:
//! the same endpoint over the same connection, or whoever comes next where all tasks go round over many connections. In
//! other shapes one task drives all of them. The first task of a core keeps the time for all of them: it asks through the
//! warm-up, reads the counters, opens the meter, asks through the counted time, closes the meter and reads the counters
//! again, while its neighbours ask on. In an open loop a pacer tells when to ask. Callers that are no core ask as
//! [`outside`] says.

use std::cell::{Cell, RefCell};
use std::iter::repeat_n;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use ringpost::{EndpointRef, RpcEnv};

use crate::Error;
use crate::alloc::thread_allocs;
use crate::cpus::Cpus;
use crate::message::{AnyPayload, Fetch, Payload, Question, Use, Used, VecPayload, calls};
use crate::open_loop::{OpenLoop, WORKERS, yield_now};
use crate::outside;
use crate::pair::{self, System};
use crate::plan::{Exchange, Load, Run};
use crate::sample::{Begun, Meter, Sample, Span};
use crate::shapes::{Batches, Unordered};
use crate::stage::Stage;
use crate::variant::{Caller, PayloadKind, Shape};

/// Starts the envs of `run`, asks for as long as `span` says, stops them.
pub(crate) fn measure(run: &Run, span: Span, cpus: &Cpus) -> Result<Sample, Error> {
    if let Load::RoundRobin(_) = run.load {
        return pair::measure(System::Ringpost, run, span);
    }
    let stage = Stage::set(run, cpus)?;
    let result = ask(&stage, run, span);
    let stopped = stage.stop();
    let sample = result?;
    stopped?;
    Ok(sample)
}

/// Asks for as long as `span` says.
pub(crate) fn ask(stage: &Stage, run: &Run, span: Span) -> Result<Sample, Error> {
    if run.exchange == Exchange::Fetch {
        return ask_on_all::<Fetch>(stage, run, span);
    }
    match run.payload {
        _ if run.variant.payload_kind == PayloadKind::Vec => ask_on_all::<VecPayload>(stage, run, span),
        _ if run.variant.payload_kind == PayloadKind::Bytes => ask_on_all::<AnyPayload>(stage, run, span),
        0 => ask_on_all::<Payload<0>>(stage, run, span),
        16 => ask_on_all::<Payload<16>>(stage, run, span),
        64 => ask_on_all::<Payload<64>>(stage, run, span),
        128 => ask_on_all::<Payload<128>>(stage, run, span),
        256 => ask_on_all::<Payload<256>>(stage, run, span),
        1024 => ask_on_all::<Payload<1024>>(stage, run, span),
        4096 => ask_on_all::<Payload<4096>>(stage, run, span),
        size => Err(format!("there is no array of {size} bytes").into()),
    }
}

fn ask_on_all<M: Question>(stage: &Stage, run: &Run, span: Span) -> Result<Sample, Error> {
    let client = &stage.envs[0];
    if run.variant.caller != Caller::Core {
        return ask_from_outside::<M>(stage, run, span);
    }
    let mut cores = Vec::new();
    for (core, targets) in stage.targets.iter().enumerate() {
        // The first core reads the counters of everybody who is not asking.
        let first = core == 0;
        let job = Job {
            targets: targets.clone(),
            payload: run.payload,
            span,
            sampled: run.sampled(),
            shape: run.variant.shape,
            pairs: run.pairs(),
            asking: if first { Some(Arc::clone(client)) } else { None },
            counters: if first { stage.counters.clone() } else { Vec::new() },
        };
        cores.push(match run.load_of_pair() {
            Load::Window(window) => client.spawn_on(core, move || ask_on_core::<M>(job, window))?,
            Load::RoundRobin(window) => client.spawn_on(core, move || ask_in_turn::<M>(job, window))?,
            Load::Rate { per_second, .. } => client.spawn_on(core, move || ask_at_rate::<M>(job, per_second))?,
        });
    }
    let mut meters = Vec::new();
    let mut used = Used::default();
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

/// Asks from threads that are no core.
fn ask_from_outside<M: Question>(stage: &Stage, run: &Run, span: Span) -> Result<Sample, Error> {
    let targets = stage.targets.iter().flatten();
    let targets = targets.flat_map(|target| repeat_n(target.clone(), run.window().unwrap_or(1)));
    let targets = targets.map(|target| Outside { target, message: M::with_size(run.payload) }).collect();
    let read = || {
        let replies = stage.counters.iter().map(|counter| Ok(counter.ask_blocking(Use)?));
        let used: Vec<Used> = replies.collect::<Result<_, Error>>()?;
        Ok(all_used(used, stage.envs.first(), run.pairs()))
    };
    outside::ask(run.variant.caller, targets, span, read)
}

/// An endpoint, and what it is asked by a thread that is no core.
struct Outside<M> {
    target: EndpointRef,
    message: M,
}

impl<M: Question> outside::Target for Outside<M> {
    async fn ask(&self, checks: bool) -> Result<(), Error> {
        let reply = self.target.ask(self.message.clone()).await?;
        if checks && !self.message.fits(&reply) { Err(differs()) } else { Ok(()) }
    }

    fn ask_blocking(&self, checks: bool) -> Result<(), Error> {
        let reply = self.target.ask_blocking(self.message.clone())?;
        if checks && !self.message.fits(&reply) { Err(differs()) } else { Ok(()) }
    }
}

/// What one asking core has to do.
struct Job {
    targets: Vec<EndpointRef>,
    payload: usize,
    span: Span,
    /// One of so many asks is timed.
    sampled: u32,
    shape: Shape,
    pairs: usize,
    /// The env whose cores ask.
    asking: Option<Arc<RpcEnv>>,
    counters: Vec<EndpointRef>,
}

/// Keeps `window` asks in flight to each target.
async fn ask_on_core<M: Question>(job: Job, window: usize) -> Result<(Meter, Used), Error> {
    let targets = job.targets.iter().flat_map(|target| repeat_n(target.clone(), window));
    let (message, meter) = (M::with_size(job.payload), Meter::new(job.sampled)?);
    let meter = Rc::new(RefCell::new(meter));
    let used = match job.shape {
        Shape::Task => return ask_each::<M, _>(&job, targets).await,
        Shape::Unordered => {
            let mut unordered = Unordered::start(targets.collect(), message, Rc::clone(&meter));
            let used = keep_time(&mut unordered, &meter, &job).await?;
            unordered.finish().await?;
            used
        }
        Shape::JoinAll => {
            let mut batches = Batches::new(targets.collect(), message, Rc::clone(&meter));
            keep_time(&mut batches, &meter, &job).await?
        }
    };
    let meter = Rc::try_unwrap(meter).map_err(|_| "a task outlived its result")?;
    Ok((meter.into_inner(), used))
}

/// Keeps `window` asks in flight in all, each next one to the next target.
async fn ask_in_turn<M: Question>(job: Job, window: usize) -> Result<(Meter, Used), Error> {
    open::<M>(&job.targets, job.payload).await?;
    let all = Rc::new(InTurn { targets: job.targets.clone(), next: Cell::new(0) });
    ask_each::<M, _>(&job, repeat_n(all, window)).await
}

/// Connects to each target, one after the other, and asks it once.
pub(crate) async fn open<M: Question>(targets: &[EndpointRef], payload: usize) -> Result<(), Error> {
    let message = M::with_size(payload);
    for target in targets {
        if !message.fits(&target.ask(message.clone()).await?) {
            return Err(differs());
        }
    }
    Ok(())
}

/// Keeps one ask in flight to each of `targets`.
async fn ask_each<M: Question, T: Targets>(
    job: &Job,
    targets: impl IntoIterator<Item = T>,
) -> Result<(Meter, Used), Error> {
    let meter = Rc::new(RefCell::new(Meter::new(job.sampled)?));
    let mut askers = targets.into_iter().map(|targets| Asker {
        targets,
        message: M::with_size(job.payload),
        meter: Rc::clone(&meter),
    });
    let mut first = askers.next().ok_or("an asking core has nobody to ask")?;
    let others: Vec<_> =
        askers.map(|mut asker| ringpost::spawn(async move { asker.ask_until_closed().await })).collect();
    let result = keep_time(&mut first, &meter, job).await;
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

/// Something that asks for as long as it is told to.
pub(crate) trait Asks {
    /// Asks at least once; `more` sees the meter after each answer.
    async fn ask_while(&mut self, more: impl Fn(&Meter) -> bool) -> Result<(), Error>;
}

async fn keep_time(asks: &mut impl Asks, meter: &RefCell<Meter>, job: &Job) -> Result<Used, Error> {
    // Connects and resolves the names, so that the warm-up is not spent on that.
    asks.ask_while(|_| false).await?;
    read_counts(job).await?;
    let opens = Instant::now() + job.span.warm;
    asks.ask_while(|meter| meter.latest() < opens).await?;

    let before = read_counts(job).await?;
    let own_before = thread_allocs();
    let opened = Instant::now();
    meter.borrow_mut().open(opened);
    let closes = opened + job.span.steady;
    asks.ask_while(|meter| meter.latest() < closes).await?;
    let own_after = thread_allocs();
    meter.borrow_mut().close();
    let after = read_counts(job).await?;

    let allocs = own_after - own_before + after.allocs - before.allocs;
    Ok(Used { allocs, enters: after.enters - before.enters })
}

/// Asks when it is time to, with the targets in turn.
async fn ask_at_rate<M: Question>(job: Job, per_second: f64) -> Result<(Meter, Used), Error> {
    let message = M::with_size(job.payload);
    for target in &job.targets {
        target.ask(message.clone()).await?;
    }
    let all = Rc::new(OpenLoop::new(Instant::now(), job.span, per_second)?);
    let job = Rc::new(job);
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let (all, message) = (Rc::clone(&all), message.clone());
            let target = job.targets[worker % job.targets.len()].clone();
            ringpost::spawn(async move {
                all.work(async || {
                    let reply = target.ask(message.clone()).await?;
                    if message.fits(&reply) { Ok(()) } else { Err(differs()) }
                })
                .await
            })
        })
        .collect();
    // Beside the pacer, which must not wait for answers.
    let mut before = None;
    let begins = Rc::clone(&job);
    let opened = || {
        before = Some(ringpost::spawn(async move { read_counts(&begins).await.map(|c| (c, thread_allocs())) }));
    };
    all.pace(opened, yield_now).await?;
    for worker in workers {
        worker.await??;
    }
    let own_after = thread_allocs();
    let after = read_counts(&job).await?;
    let (before, own_before) = before.ok_or("the time was over before it began")?.await??;
    let meter = Rc::try_unwrap(all).map_err(|_| "a task outlived its result")?.into_meter();
    let allocs = own_after - own_before + after.allocs - before.allocs;
    Ok((meter, Used { allocs, enters: after.enters - before.enters }))
}

/// Reads the allocations of all answering cores, and the system calls of those and of the asking ones.
///
/// Between two readings lies one more ask to each answering core than was measured: the second reading itself.
async fn read_counts(job: &Job) -> Result<Used, Error> {
    let mut used = Vec::with_capacity(job.counters.len());
    for counter in &job.counters {
        used.push(counter.ask(Use).await?);
    }
    Ok(all_used(used, job.asking.as_ref(), job.pairs))
}

/// What all of these have used, and the asking cores of an env.
fn all_used(used: Vec<Used>, asking: Option<&Arc<RpcEnv>>, pairs: usize) -> Used {
    let mut all = Used::default();
    for Used { allocs, enters } in used {
        all.allocs += allocs;
        all.enters += enters;
    }
    if let Some(asking) = asking {
        // The asking cores come first, where one env has both.
        let cores = asking.snapshot().cores;
        all.enters += cores[..pairs].iter().map(calls).sum::<u64>();
    }
    all
}

/// Whom an asker asks.
trait Targets: 'static {
    /// The next one.
    fn next(&self) -> &EndpointRef;
}

impl Targets for EndpointRef {
    #[inline]
    fn next(&self) -> &EndpointRef {
        self
    }
}

/// All of them in turn.
struct InTurn {
    targets: Vec<EndpointRef>,
    next: Cell<usize>,
}

impl Targets for Rc<InTurn> {
    #[inline]
    fn next(&self) -> &EndpointRef {
        let next = self.next.get();
        self.next.set(if next + 1 < self.targets.len() { next + 1 } else { 0 });
        &self.targets[next]
    }
}

/// One ask in flight.
struct Asker<M, T> {
    targets: T,
    message: M,
    meter: Rc<RefCell<Meter>>,
}

impl<M: Question, T: Targets> Asker<M, T> {
    async fn ask_until_closed(&mut self) -> Result<(), Error> {
        self.ask_while(|meter| !meter.is_closed()).await
    }
}

impl<M: Question, T: Targets> Asks for Asker<M, T> {
    async fn ask_while(&mut self, more: impl Fn(&Meter) -> bool) -> Result<(), Error> {
        let mut begun: Begun = self.meter.borrow_mut().begin();
        loop {
            let reply = self.targets.next().ask(self.message.clone()).await?;
            let mut meter = self.meter.borrow_mut();
            compare(&meter, &self.message, &reply)?;
            begun = meter.next(begun);
            if !more(&meter) {
                return Ok(());
            }
        }
    }
}

/// Compares a reply of the warm-up with what was asked.
#[inline]
pub(crate) fn compare<M: Question>(meter: &Meter, message: &M, reply: &M::Reply) -> Result<(), Error> {
    if !meter.is_counting() && !message.fits(reply) { Err(differs()) } else { Ok(()) }
}

fn differs() -> Error {
    "a reply differs from what was asked".into()
}

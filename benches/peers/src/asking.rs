//! The asking side of every system that offers a call to await.
//!
//! One task per ask in flight; each asks, compares the answer, asks again, until the time is over; in an open loop, when
//! it is time to. All tasks of a measurement run on one thread and share its meter, or they are tasks of a multi-threaded
//! runtime, each of which counts for itself.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;

use tokio::runtime::Runtime;

use crate::Error;
use crate::crowd::Crowd;
use crate::open_loop::{OpenLoop, WORKERS};
use crate::payload::Payload;
use crate::plan::Load;
use crate::sample::{Begun, Meter, SAMPLED, Span, TimedMeter};

/// The meter of one asking thread.
pub(crate) struct Watch(RefCell<State>);

struct State {
    meter: TimedMeter,
    over: bool,
}

impl Watch {
    /// Starts the warm-up.
    pub(crate) fn start(span: Span) -> Result<Watch, Error> {
        Ok(Watch(RefCell::new(State { meter: TimedMeter::start(span, SAMPLED)?, over: false })))
    }

    #[inline]
    fn begin(&self) -> Begun {
        self.0.borrow_mut().meter.begin()
    }

    /// Counts one round trip and begins the next one; none if the time is over.
    #[inline]
    fn next(&self, begun: Begun) -> Option<Begun> {
        let mut state = self.0.borrow_mut();
        // What is still in flight at the end was asked within the time, but not answered.
        let next = if state.over { None } else { state.meter.next(begun) };
        state.over = next.is_none();
        next
    }

    fn end(&self) {
        self.0.borrow_mut().over = true;
    }

    /// Asks again and again. `lane` tells the tasks of one measurement apart.
    pub(crate) async fn ask_again<A>(&self, lane: usize, ask: A) -> Result<(), Error>
    where
        A: AsyncFn(Payload) -> Result<Payload, Error>,
    {
        let mut number = (lane as u64) << 40;
        let mut begun = self.begin();
        loop {
            let payload = Payload::numbered(number);
            let answer = ask(payload).await.inspect_err(|_| self.end())?;
            if answer != payload {
                self.end();
                return Err(differs());
            }
            let Some(next) = self.next(begun) else { return Ok(()) };
            number += 1;
            begun = next;
        }
    }

    /// What was counted, once all tasks have ended.
    pub(crate) fn into_meter(self: Rc<Watch>) -> Result<Meter, Error> {
        let watch = Rc::try_unwrap(self).map_err(|_| "a task outlived its result")?;
        Ok(watch.0.into_inner().meter.into_meter())
    }
}

/// An answer is not what was asked.
pub(crate) fn differs() -> Error {
    "an answer differs from what was asked".into()
}

/// One of the workers of an open loop: asks when it is told to.
pub(crate) async fn ask_when_due<A>(open_loop: &OpenLoop, lane: usize, ask: A) -> Result<(), Error>
where
    A: AsyncFn(Payload) -> Result<Payload, Error>,
{
    let number = Cell::new((lane as u64) << 40);
    let ask_next = async || {
        let payload = Payload::numbered(number.replace(number.get() + 1));
        if ask(payload).await? == payload { Ok(()) } else { Err(differs()) }
    };
    open_loop.work(ask_next).await
}

/// Something that tasks of a multi-threaded tokio runtime ask.
pub(crate) trait Ask: Clone + Send + Sync + 'static {
    /// One ask.
    fn ask(&self, payload: Payload) -> impl Future<Output = Result<Payload, Error>> + Send;
}

/// Keeps asks in flight, by a task of this runtime for each; the calling thread only waits.
pub(crate) fn ask_from_tokio(runtime: &Runtime, load: Load, span: Span, ask: &impl Ask) -> Result<Meter, Error> {
    let Load::Window(window) = load else { return Err("an open loop has one thread".into()) };
    let crowd = Crowd::new(window)?;
    let tasks: Vec<_> = (0..window)
        .map(|lane| {
            let (mut asker, ask) = (crowd.asker(lane), ask.clone());
            runtime.spawn(async move {
                let mut number = (lane as u64) << 40;
                loop {
                    let payload = Payload::numbered(number);
                    let begun = asker.begin();
                    if ask.ask(payload).await? != payload {
                        return Err(differs());
                    }
                    if !asker.end(begun) {
                        return Ok(());
                    }
                    number += 1;
                }
            })
        })
        .collect();
    let time = crowd.keep_time(span, || Ok(()));
    runtime.block_on(async {
        for task in tasks {
            task.await??;
        }
        Ok::<(), Error>(())
    })?;
    crowd.into_meter(&time?)
}

/// Asks as much as `load` says, on the tokio runtime of this thread.
pub(crate) async fn ask_all<A>(load: Load, span: Span, ask: A) -> Result<Meter, Error>
where
    A: AsyncFn(Payload) -> Result<Payload, Error> + Clone + 'static,
{
    match load {
        Load::Window(window) => ask_in_flight(window, span, ask).await,
        Load::Rate { per_second, .. } => ask_at_rate(per_second, span, ask).await,
    }
}

/// Keeps `window` asks in flight.
async fn ask_in_flight<A>(window: usize, span: Span, ask: A) -> Result<Meter, Error>
where
    A: AsyncFn(Payload) -> Result<Payload, Error> + Clone + 'static,
{
    let watch = Rc::new(Watch::start(span)?);
    let tasks: Vec<_> = (0..window)
        .map(|lane| {
            let (watch, ask) = (Rc::clone(&watch), ask.clone());
            tokio::task::spawn_local(async move { watch.ask_again(lane, ask).await })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    watch.into_meter()
}

/// Asks so many times a second.
async fn ask_at_rate<A>(per_second: f64, span: Span, ask: A) -> Result<Meter, Error>
where
    A: AsyncFn(Payload) -> Result<Payload, Error> + Clone + 'static,
{
    let open_loop = Rc::new(OpenLoop::new(Instant::now(), span, per_second)?);
    let workers: Vec<_> = (0..WORKERS)
        .map(|lane| {
            let (open_loop, ask) = (Rc::clone(&open_loop), ask.clone());
            tokio::task::spawn_local(async move { ask_when_due(&open_loop, lane, ask).await })
        })
        .collect();
    open_loop.pace(|| (), tokio::task::yield_now).await?;
    for worker in workers {
        worker.await??;
    }
    Ok(Rc::try_unwrap(open_loop).map_err(|_| "a task outlived its result")?.into_meter())
}

//! Asks of threads that are no core: tasks of a multi-threaded tokio runtime, or threads that block.
//!
//! There is an asker for each ask in flight. The threads of the runtime are as many as tokio starts by itself, one for each
//! CPU, and none of the callers is pinned: that is how users have them. The floor beside it is asked by the same code.

use std::thread;

use tokio::runtime::Builder;

use crate::Error;
use crate::alloc::AllThreads;
use crate::crowd::{Asker, Crowd, Time};
use crate::message::Used;
use crate::sample::{Sample, Span};
use crate::sleeps::sleeps;
use crate::variant::Caller;

/// The stack of a thread that blocks: 512 of them are to fit.
const STACK: usize = 256 << 10;

/// Somebody to ask, from any thread.
pub(crate) trait Target: Send + Sync + 'static {
    /// Asks and awaits the answer; compares it with what was asked if `checks`.
    fn ask(&self, checks: bool) -> impl Future<Output = Result<(), Error>> + Send;

    /// The same, blocking.
    fn ask_blocking(&self, checks: bool) -> Result<(), Error>;
}

/// Keeps one ask in flight to each of `targets` for as long as `span` says. `read` reads what cores have used.
pub(crate) fn ask<T: Target>(
    caller: Caller,
    targets: Vec<T>,
    span: Span,
    read: impl Fn() -> Result<Used, Error>,
) -> Result<Sample, Error> {
    let crowd = Crowd::new(targets.len())?;
    let all_threads = AllThreads::count();
    let keep = || crowd.keep_time(span, || Ok((read()?, all_threads.allocs(), sleeps()?)));
    let askers = targets.into_iter().enumerate().map(|(lane, target)| (crowd.asker(lane), target));
    let time = if caller == Caller::Thread { on_threads(askers, keep) } else { on_tokio(askers, keep) };
    let time = time?;
    let count = time.count as f64;
    let ((used, allocs, sleeps), (used_before, allocs_before, sleeps_before)) = (&time.after, &time.before);
    let per_op = |after: u64, before: u64| Some((after - before) as f64 / count);
    let (allocs, sleeps) = (per_op(*allocs, *allocs_before), per_op(*sleeps, *sleeps_before));
    let enters = per_op(used.enters, used_before.enters);
    let mut sample = Sample::of([crowd.into_meter(&time)?])?;
    (sample.allocs_per_op, sample.enters_per_op, sample.sleeps_per_op) = (allocs, enters, sleeps);
    Ok(sample)
}

fn on_tokio<T: Target, R>(
    askers: impl Iterator<Item = (Asker, T)>,
    keep_time: impl FnOnce() -> Result<Time<R>, Error>,
) -> Result<Time<R>, Error> {
    let runtime = Builder::new_multi_thread().build()?;
    let tasks: Vec<_> = askers.map(|(asker, target)| runtime.spawn(ask_until_over(asker, target))).collect();
    let time = keep_time();
    let ended = runtime.block_on(async {
        for task in tasks {
            task.await??;
        }
        Ok(())
    });
    ended.and(time)
}

async fn ask_until_over<T: Target>(mut asker: Asker, target: T) -> Result<(), Error> {
    loop {
        let begun = asker.begin();
        target.ask(asker.is_warming_up()).await?;
        if !asker.end(begun) {
            return Ok(());
        }
    }
}

fn on_threads<T: Target, R>(
    askers: impl Iterator<Item = (Asker, T)>,
    keep_time: impl FnOnce() -> Result<Time<R>, Error>,
) -> Result<Time<R>, Error> {
    let start = |(asker, target)| {
        thread::Builder::new().stack_size(STACK).spawn(move || ask_blocking_until_over(asker, &target))
    };
    let threads: Vec<_> = askers.map(start).collect();
    let time = keep_time();
    for thread in threads {
        thread?.join().map_err(|_| "a thread that asks has panicked")??;
    }
    time
}

fn ask_blocking_until_over<T: Target>(mut asker: Asker, target: &T) -> Result<(), Error> {
    loop {
        let begun = asker.begin();
        target.ask_blocking(asker.is_warming_up())?;
        if !asker.end(begun) {
            return Ok(());
        }
    }
}

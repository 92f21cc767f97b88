//! A core as a task of a tokio runtime, as a rule of one by `tokio_uring`, so that code on the core can use both.

use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use ::tokio_uring::Runtime;
use tokio::runtime::Handle;
use tokio::task::spawn_local;
use tokio::time::{Instant, Sleep, sleep_until};

use super::life::{Life, Place, Start, StartFailure};
use super::thread::Ready;
use crate::ring::{RingEvent, TokioRingEvent, from_io};
use crate::shard::core::{Core, Step};
use crate::shard::node::now;
use crate::shard::rest::Doze;
use crate::wire::failure::panic_text;

/// Requests of handlers that fit into the runtime's own submission queue; it is emptied whenever it is full.
const ENTRIES: u32 = 64;
/// Completions that fit there.
const COMPLETIONS: u32 = 1024;

/// Has the thread for itself, and shares it with whatever the core's code starts in a runtime of its own.
pub(crate) fn in_own_runtime(life: Life, start: Start, ready: Ready) {
    let mut flags = ::tokio_uring::uring_builder();
    flags.setup_cqsize(COMPLETIONS).setup_coop_taskrun().setup_single_issuer();
    let runtime = match Runtime::new(::tokio_uring::builder().entries(ENTRIES).uring_builder(&flags)) {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = ready.send(Err(StartFailure::Ring(from_io("making a tokio-uring runtime", &error))));
            return;
        }
    };
    runtime.block_on(async move {
        let drive = match Drive::new(life, start, None) {
            Ok(drive) => drive,
            Err(failure) => {
                let _ = ready.send(Err(failure));
                return;
            }
        };
        let _ = ready.send(Ok(()));
        drop(ready);
        // It contains its panics, and nobody aborts it.
        let _ = spawn_local(drive).await;
    });
}

/// Lives as a task of the runtime that this thread runs, until the env has shut down.
pub(crate) fn in_this_runtime(start: Start) -> Result<(), StartFailure> {
    let place = Place::new(&start.node);
    let life = Life::new(&start.node, start.core);
    Handle::try_current().map_err(|error| StartFailure::NoRuntime(error.to_string()))?;
    // Tokio tells by a panic alone that a runtime has no I/O, no timers or no local tasks.
    let spawned = catch_unwind(AssertUnwindSafe(|| {
        spawn_local(Drive::new(life, start, Some(place))?);
        Ok(())
    }));
    spawned.unwrap_or_else(|panic| Err(StartFailure::NoRuntime(panic_text(&*panic).to_owned())))
}

/// Drives a core as a task among others.
///
/// One poll is one step of the core. Then the others have their turn: at once if the core has more to do, else until
/// the ring has an event, somebody wakes the core through its door, or a timer is due.
///
/// However it ends, a drop of it in the midst of life included, the core ends with it.
struct Drive {
    /// Gone first of all.
    core: Option<Core>,
    event: TokioRingEvent,
    timer: Pin<Box<Sleep>>,
    /// When the timer is due, until it has been seen to be.
    armed: Option<u64>,
    life: Option<Life>,
    /// On somebody else's thread.
    _place: Option<Place>,
}

impl Drive {
    fn new(mut life: Life, start: Start, place: Option<Place>) -> Result<Drive, StartFailure> {
        let timer = Box::pin(sleep_until(Instant::now()));
        let (_entered, mut core) = life.begin(start)?;
        let event = core.register_event().and_then(RingEvent::in_tokio);
        let event = event.map_err(|error| from_io("polling the ring", &error))?;
        Ok(Drive { core: Some(core), event, timer, armed: None, life: Some(life), _place: place })
    }

    /// One poll's work. Ready when the core has ended.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (Some(core), Some(life)) = (&mut self.core, &self.life) else { return Poll::Ready(Ok(())) };
        self.event.await_edge(cx)?;
        core.rouse()?;
        let entered = life.enter();
        let step = core.step()?;
        drop(entered);
        let doze = match step {
            Step::Ended => return Poll::Ready(Ok(())),
            Step::Busy => Doze::Yield,
            Step::Idle => core.doze()?,
        };
        match doze {
            Doze::Yield => self.event.signal()?,
            Doze::Wait(None) => {}
            Doze::Wait(Some(deadline)) => self.wait_until(deadline, cx)?,
        }
        Poll::Pending
    }

    /// Has the task woken at this time, or before.
    fn wait_until(&mut self, deadline: u64, cx: &mut Context<'_>) -> io::Result<()> {
        loop {
            // Nearly no deadline ever comes, and most are further away than the one before: the timer stays.
            if self.armed.is_none_or(|armed| deadline < armed) {
                let left = Duration::from_nanos(deadline.saturating_sub(now()));
                self.timer.as_mut().reset(Instant::now() + left);
                self.armed = Some(deadline);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
            self.armed = None;
            if deadline <= now() {
                return self.event.signal();
            }
        }
    }
}

impl Future for Drive {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(life) = &self.life else { return Poll::Ready(()) };
        life.hosted_by(cx.waker());
        let turned = catch_unwind(AssertUnwindSafe(|| self.turn(cx)));
        let Some(life) = &mut self.life else { return Poll::Ready(()) };
        match turned {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(outcome)) => life.ended(outcome),
            Err(panic) => life.panicked(&*panic),
        }
        Poll::Ready(())
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        let Some(life) = self.life.take() else { return };
        let entered = life.enter();
        let core = self.core.take();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(core))) {
            life.panicked(&*panic);
        }
        drop(entered);
        drop(life);
    }
}

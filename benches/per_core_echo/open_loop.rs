//! An open loop for any runtime: a pacer, and workers that ask.
//!
//! The pacer never rests: a timer would be late by more than most answers take. So in an open loop the asking side is
//! always awake, and the idle policy is that of the answering side.

use std::cell::RefCell;
use std::future::poll_fn;
use std::mem;
use std::task::{Poll, Waker};
use std::time::Instant;

use crate::Error;
use crate::sample::{Meter, Span};
use crate::schedule::Schedule;

/// Workers, and with that asks in flight. What is due beyond that waits, and its time counts.
pub(crate) const WORKERS: usize = 1024;

/// What the pacer and the workers of one asking thread share.
pub(crate) struct OpenLoop(RefCell<State>);

struct State {
    schedule: Schedule,
    /// What is due from then on counts.
    opens: Instant,
    meter: Meter,
    idle: Vec<Waker>,
    /// Nothing is asked any more.
    over: bool,
}

impl OpenLoop {
    /// Begins now: the warm-up of `span` goes at the same rate, and does not count.
    pub(crate) fn start(span: Span, per_second: f64) -> Result<OpenLoop, Error> {
        let mut meter = Meter::new()?;
        let start = Instant::now();
        let opens = start + span.warm;
        meter.open(opens);
        let schedule = Schedule::new(start, span.warm + span.steady, per_second);
        Ok(OpenLoop(RefCell::new(State { schedule, opens, meter, idle: Vec::with_capacity(WORKERS), over: false })))
    }

    /// Wakes workers for what is due, until nothing will be due any more; `opened` is called once, when it begins to
    /// count.
    pub(crate) async fn pace(&self, opened: impl FnOnce()) {
        let mut opened = Some(opened);
        loop {
            let now = Instant::now();
            let (waiting, is_open, over) = {
                let state = self.0.borrow();
                (state.schedule.waiting(now), now >= state.opens, state.over || state.schedule.is_over())
            };
            if is_open && let Some(opened) = opened.take() {
                opened();
            }
            for _ in 0..waiting {
                let Some(worker) = self.0.borrow_mut().idle.pop() else { break };
                worker.wake();
            }
            if over {
                return self.end();
            }
            yield_now().await;
        }
    }

    /// Sends the workers home: also those that wait.
    pub(crate) fn end(&self) {
        let idle = {
            let mut state = self.0.borrow_mut();
            state.over = true;
            mem::take(&mut state.idle)
        };
        idle.into_iter().for_each(Waker::wake);
    }

    /// Asks whenever an ask is due and no other worker takes it.
    pub(crate) async fn work(&self, ask: impl AsyncFn() -> Result<(), Error>) -> Result<(), Error> {
        while let Some(due) = self.next().await {
            ask().await.inspect_err(|_| self.end())?;
            self.answered(due, Instant::now());
        }
        Ok(())
    }

    /// The time of the next ask, once it is due; none if there are no more.
    async fn next(&self) -> Option<Instant> {
        poll_fn(|cx| {
            let mut state = self.0.borrow_mut();
            match state.schedule.take(Instant::now()) {
                Some(due) => Poll::Ready(Some(due)),
                None if state.over => Poll::Ready(None),
                None => {
                    state.idle.push(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// The ask that was due then has its answer.
    #[inline]
    pub(crate) fn answered(&self, due: Instant, now: Instant) {
        let mut state = self.0.borrow_mut();
        if due >= state.opens {
            state.meter.record(due, now);
        }
    }

    /// What was counted, once all workers are home.
    pub(crate) fn into_meter(self) -> Meter {
        self.0.into_inner().meter
    }
}

/// Until everything else had its turn.
async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

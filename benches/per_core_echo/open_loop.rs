//! An open loop for any runtime: a pacer, and workers that ask.
//!
//! The pacer never rests: a timer would be late by more than most answers take. So in an open loop the asking side is
//! always awake, and the idle policy is that of the answering side.
//!
//! It ends, however slow the answering side is: what could not be sent in time never is, and counts as such.

use std::cell::RefCell;
use std::future::poll_fn;
use std::mem;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::Error;
use crate::sample::{Meter, Span};
use crate::schedule::Schedule;

/// Workers, and with that asks in flight. What is due beyond that waits, and its time counts.
pub(crate) const WORKERS: usize = 1024;
/// An ask that is sent later than this after it was due is counted as late.
const LATE: Duration = Duration::from_millis(1);
/// How long after the end of the schedule asks are still sent.
const GRACE: Duration = Duration::from_secs(1);
/// How long after that the last answers may take. A system that keeps an answer for longer is broken, not slow.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// What the pacer and the workers of one asking thread share.
pub(crate) struct OpenLoop(RefCell<State>);

struct State {
    schedule: Schedule,
    /// What is due from then on counts.
    opens: Instant,
    /// What is not sent by then never is.
    gives_up: Instant,
    meter: Meter,
    /// The latest time that anybody has read: a worker that is woken reads no clock.
    now: Instant,
    in_flight: usize,
    idle: Vec<Waker>,
    /// Nothing is asked any more.
    over: bool,
}

impl OpenLoop {
    /// Begins at `start`: the warm-up of `span` goes at the same rate, and does not count.
    pub(crate) fn new(start: Instant, span: Span, per_second: f64) -> Result<OpenLoop, Error> {
        let mut meter = Meter::new(1)?;
        let opens = start + span.warm;
        meter.open(opens);
        let schedule = Schedule::new(start, span.warm + span.steady, per_second);
        let (gives_up, idle) = (opens + span.steady + GRACE, Vec::with_capacity(WORKERS));
        let now = start;
        Ok(OpenLoop(RefCell::new(State { schedule, opens, gives_up, meter, now, in_flight: 0, idle, over: false })))
    }

    /// Wakes workers for what is due, until all is asked and answered; `opened` is called once, when it begins to
    /// count, `turn` gives everything else on this thread its turn. Fails if answers stay away for good.
    pub(crate) async fn pace(&self, opened: impl FnOnce(), turn: impl AsyncFn()) -> Result<(), Error> {
        let mut opened = Some(opened);
        loop {
            let now = Instant::now();
            let done = self.is_done(now).inspect_err(|_| self.end())?;
            let (waiting, is_open, over) = {
                let mut state = self.0.borrow_mut();
                state.now = now;
                (state.schedule.waiting(now), now >= state.opens, state.over)
            };
            if is_open && let Some(opened) = opened.take() {
                opened();
            }
            for _ in 0..waiting {
                let Some(worker) = self.0.borrow_mut().idle.pop() else { break };
                worker.wake();
            }
            if done || over {
                self.end();
                return Ok(());
            }
            turn().await;
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
            let (now, over) = {
                let state = self.0.borrow();
                (state.now, state.over)
            };
            if over {
                return Poll::Ready(None);
            }
            let due = self.take(now);
            if due.is_none() {
                self.0.borrow_mut().idle.push(cx.waker().clone());
            }
            due.map_or(Poll::Pending, |due| Poll::Ready(Some(due)))
        })
        .await
    }

    /// Takes the next ask if it is due at the time `now`: the time at which it became due. It is in flight then.
    #[inline]
    pub(crate) fn take(&self, now: Instant) -> Option<Instant> {
        let mut state = self.0.borrow_mut();
        let due = state.schedule.take(now)?;
        state.in_flight += 1;
        if due >= state.opens && now.duration_since(due) > LATE {
            state.meter.count_late();
        }
        Some(due)
    }

    /// The ask that was due then has its answer.
    #[inline]
    pub(crate) fn answered(&self, due: Instant, now: Instant) {
        let mut state = self.0.borrow_mut();
        state.now = now;
        state.in_flight -= 1;
        if due >= state.opens {
            state.meter.record(due, now);
        }
    }

    /// Whether all is asked and answered. Gives up what is late for good; fails if answers stay away for good.
    #[inline]
    pub(crate) fn is_done(&self, now: Instant) -> Result<bool, Error> {
        let mut state = self.0.borrow_mut();
        if now > state.gives_up {
            state.give_up(now);
            if state.in_flight > 0 && now > state.gives_up + LAST_ANSWERS {
                let (asks, seconds) = (state.in_flight, (GRACE + LAST_ANSWERS).as_secs());
                return Err(format!("{asks} asks have no answer {seconds} s after the last one was due").into());
            }
        }
        Ok(state.in_flight == 0 && state.schedule.is_over())
    }

    /// What was counted, once all workers are home.
    pub(crate) fn into_meter(self) -> Meter {
        self.0.into_inner().meter
    }
}

impl State {
    /// Asks no more: each ask that is left out counts as one that waited until now.
    fn give_up(&mut self, now: Instant) {
        while let Some(due) = self.schedule.take(now) {
            if due >= self.opens {
                self.meter.record_unsent(due, now);
            }
        }
    }
}

/// Until everything else had its turn, on runtimes that look at everything before they poll a task again that woke
/// itself.
pub(crate) async fn yield_now() {
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

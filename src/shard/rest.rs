//! What a core does when it has nothing to do.

use std::io;
use std::time::Duration;

use super::core::{Core, Step};
use super::node::now;
use crate::executor::idle::SpinFor;
use crate::ring::RingEvent;

/// How often a core that spins looks at the clock, in looks at its memory.
const LOOKS_PER_CLOCK: u32 = 64;
/// Nanoseconds that a core on a shared thread spins before it lets others run.
const SHARED_SPIN: u64 = 4_000;

/// What a core on a shared thread is to do when nothing is left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doze {
    /// Go on after the others have had their turn.
    Yield,
    /// Wait for an event of the ring, a wake through the door, or this time if there is one.
    Wait(Option<u64>),
}

impl Core {
    /// Runs until the env has shut down, on a thread that the core has for itself.
    pub fn run(&mut self) -> io::Result<()> {
        loop {
            match self.step()? {
                Step::Busy => {}
                Step::Idle => self.rest()?,
                Step::Ended => return Ok(()),
            }
        }
    }

    /// Nothing is left to do: spin for a while, then sleep.
    pub(super) fn rest(&mut self) -> io::Result<()> {
        let Some(until) = self.spin_until() else { return self.submit() };
        if until <= self.shard.clock() || !self.spin(until)? {
            self.park()?;
        }
        Ok(())
    }

    /// Until when to spin, and with that the pause has begun; nothing if there is something to reap.
    fn spin_until(&mut self) -> Option<u64> {
        // Our own sends complete at once as a rule: that says nothing about how soon others answer.
        if self.ring.has_completions() {
            return None;
        }
        let now = self.tick();
        let began = *self.resting.get_or_insert(now);
        Some(match self.idle.spin_for() {
            SpinFor::No => began,
            SpinFor::Until(nanoseconds) => began.saturating_add(nanoseconds),
            SpinFor::Forever => u64::MAX,
        })
    }

    /// Reads the clock for the next turn.
    fn tick(&mut self) -> u64 {
        self.knows_time = true;
        self.shard.tick()
    }

    /// Looks at memory, and at probed connections, until something has arrived; false if the time is up first.
    fn spin(&mut self, until: u64) -> io::Result<bool> {
        // Whatever ends the spin, the next turn may run code that blocks.
        self.issue_wakes()?;
        let timer = self.shard.next_deadline().unwrap_or(u64::MAX);
        // With more under way, the kernel has more to tell than a look finds.
        let awaits_one = self.shard.pending.borrow().len() == 1;
        let mut look = 0u32;
        loop {
            // It may spin for hours: the count only paces the looks at the clock.
            look = look.wrapping_add(1);
            if self.ring.has_completions() || self.something_arrived() {
                return Ok(true);
            }
            // Before the kernel is entered for it: that takes longer.
            let awaited = awaits_one && self.probes.look_for_answer(&mut self.ring, &mut self.completions);
            if !self.completions.is_empty() {
                return Ok(true);
            }
            if self.ring.wants_enter() {
                self.submit()?;
                return Ok(true);
            }
            let probed = self.probes.look(&mut self.ring, &mut self.completions);
            if !self.completions.is_empty() {
                return Ok(true);
            }
            // Such looks take as long as many at memory.
            if probed || awaited || look.is_multiple_of(LOOKS_PER_CLOCK) {
                let now = self.tick();
                if now >= timer {
                    return Ok(true);
                }
                if now >= until {
                    return Ok(false);
                }
            }
            std::hint::spin_loop();
        }
    }

    /// Whether connections that talk much are to be probed: while the core spins, on a thread of its own.
    #[inline]
    pub(super) fn may_probe(&self) -> bool {
        !self.hosted && !matches!(self.idle.spin_for(), SpinFor::No)
    }

    pub(super) fn something_arrived(&self) -> bool {
        !self.shard.door().injector.is_empty() || !self.shard.lanes.borrow().nothing_arrived()
    }

    pub(super) fn something_to_do(&self) -> bool {
        self.something_arrived() || self.ring.has_completions() || !self.backlog.is_empty()
    }

    /// Sleeps until a completion, a wake-up or a timer.
    fn park(&mut self) -> io::Result<()> {
        self.probes.end(&mut self.ring);
        if !self.prepare_to_park() {
            // The next turn's user code may block: what was sent leaves before, and what has come is read.
            return self.submit();
        }
        let timer = self.shard.next_deadline();
        let timeout = timer.map(|deadline| Duration::from_nanos(deadline.saturating_sub(now())));
        let waited = self.wait(timeout);
        self.wake_up();
        waited
    }

    /// Says that this core sleeps, unless something has arrived. Others see the flag before this core looks a last
    /// time, so whatever they add after that look comes with a wake-up.
    fn prepare_to_park(&mut self) -> bool {
        self.shard.door().park.prepare();
        if self.something_to_do() {
            self.cancel_park();
            return false;
        }
        self.shard.count(|counters| counters.parks += 1);
        self.publish();
        true
    }

    /// A wait is over that was to end at the next deadline.
    fn wake_up(&mut self) {
        self.knows_time = true;
        self.shard.tick_after_wait();
        self.cancel_park();
    }

    fn cancel_park(&self) {
        self.shard.door().park.cancel();
    }

    /// For a host that waits in the ring's stead: an event for whatever arrives in the ring. Once.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn register_event(&mut self) -> io::Result<RingEvent> {
        self.hosted = true;
        self.ring.register_event()
    }

    /// What [`rest`](Self::rest) is to a core that has its thread for itself: to be called after a step that was idle,
    /// outside of the turn, by whoever has asked for the next event before that step. After a wait the core is to be
    /// [roused](Self::rouse).
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn doze(&mut self) -> io::Result<Doze> {
        let doze = self.doze_or_yield()?;
        if doze == Doze::Yield {
            // What else runs on this thread may block.
            self.submit()?;
        }
        Ok(doze)
    }

    fn doze_or_yield(&mut self) -> io::Result<Doze> {
        let Some(until) = self.spin_until() else { return Ok(Doze::Yield) };
        let now = self.shard.clock();
        if now < until && (self.spin(until.min(now.saturating_add(SHARED_SPIN)))? || now + SHARED_SPIN < until) {
            return Ok(Doze::Yield);
        }
        if !self.prepare_to_park() {
            return Ok(Doze::Yield);
        }
        if self.ring.wants_enter() || self.shard.owes_wakes() {
            let submitted = self.submit();
            if submitted.is_err() || self.ring.has_completions() || self.ring.wants_enter() {
                self.cancel_park();
                submitted?;
                return Ok(Doze::Yield);
            }
        }
        self.is_waited_for = true;
        Ok(Doze::Wait(self.shard.next_deadline()))
    }

    /// The wait is over: collects what it was for.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn rouse(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.is_waited_for) {
            self.wake_up();
        } else {
            // Its host came back without a wait: the time since the last turn was spent elsewhere.
            self.tick();
            self.cancel_park();
        }
        self.submit()
    }
}

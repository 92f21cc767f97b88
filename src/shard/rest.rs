//! What a core does when it has nothing to do.

use std::io;
use std::time::Duration;

use super::core::{Core, Step};
use super::node::now;
use crate::executor::idle::SpinFor;

/// How often a core that spins looks at the clock, in looks at its memory.
const LOOKS_PER_CLOCK: u32 = 64;

impl Core {
    /// Runs until the env has shut down, on a thread that the core has for itself.
    pub fn run(&mut self) -> io::Result<()> {
        loop {
            match self.step()? {
                Step::Busy => {}
                Step::Idle { .. } => self.rest()?,
                Step::Ended => return Ok(()),
            }
        }
    }

    /// Nothing is left to do: spin for a while, then sleep.
    fn rest(&mut self) -> io::Result<()> {
        // Our own sends complete at once as a rule: that says nothing about how soon others answer.
        if self.ring.has_completions() {
            return Ok(());
        }
        let began = now();
        let until = match self.idle.spin_for() {
            SpinFor::No => began,
            SpinFor::Until(nanoseconds) => began.saturating_add(nanoseconds),
            SpinFor::Forever => u64::MAX,
        };
        if until == began || !self.spin(until)? {
            self.park()?;
        }
        self.idle.learn(now().saturating_sub(began));
        Ok(())
    }

    /// Looks at memory until something has arrived; false if the time is up first.
    fn spin(&mut self, until: u64) -> io::Result<bool> {
        let timer = self.shard.timers.borrow().next_deadline().unwrap_or(u64::MAX);
        let mut look = 0u32;
        loop {
            // It may spin for hours: the count only paces the looks at the clock.
            look = look.wrapping_add(1);
            if self.ring.has_completions() || self.something_arrived() {
                return Ok(true);
            }
            if self.ring.wants_enter() {
                self.ring.submit()?;
                return Ok(true);
            }
            if look.is_multiple_of(LOOKS_PER_CLOCK) {
                let now = now();
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

    pub(super) fn something_arrived(&self) -> bool {
        !self.shard.node.cores[usize::from(self.shard.core)].injector.is_empty()
            || !self.shard.lanes.borrow().nothing_arrived()
    }

    /// Sleeps until a completion, a wake-up or a timer. Others see the flag before this core looks a last time, so
    /// whatever they add after that look comes with a wake-up.
    fn park(&mut self) -> io::Result<()> {
        let node = self.shard.node.clone();
        let door = &node.cores[usize::from(self.shard.core)];
        door.park.prepare();
        if self.something_arrived() || self.ring.has_completions() {
            door.park.cancel();
            return Ok(());
        }
        self.shard.count(|counters| counters.parks += 1);
        self.publish();
        let timer = self.shard.timers.borrow().next_deadline();
        let timeout = timer.map(|deadline| Duration::from_nanos(deadline.saturating_sub(now())));
        let waited = self.ring.wait(timeout);
        door.park.cancel();
        waited
    }
}

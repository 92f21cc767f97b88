//! A core's part in the shutdown of its env.

use std::io;

use super::core::Core;
use super::node::Ending;

/// How far this core has come, and told the others.
///
/// `Core::next_ending` is the only place that says what a step waits for. The core asks it in two places: at the
/// end of a turn, to make every step that is possible, and after the flush, before it may park. What the flush sends at
/// once makes a step possible without an event, so a core that parked on anything but the same answer could sleep until
/// the shutdown's deadline.
#[derive(Debug)]
pub(super) struct EndingProgress(Ending);

impl EndingProgress {
    pub(super) fn new() -> EndingProgress {
        EndingProgress(Ending::Draining)
    }
}

impl Core {
    /// Makes every step of the shutdown that is possible. Whether it is over for this core: all cores are done, or the
    /// deadline has passed.
    #[inline]
    pub(super) fn has_ended(&mut self) -> bool {
        self.shard.closing.get().is_some() && self.advance_ending()
    }

    #[cold]
    fn advance_ending(&mut self) -> bool {
        while let Some(next) = self.next_ending() {
            self.ending = EndingProgress(next);
            self.shard.node.reach(self.shard.core, next);
        }
        self.is_over()
    }

    /// Whether the shutdown goes on without an event: this core must not park.
    #[inline]
    pub(super) fn owes_ending(&self) -> bool {
        self.shard.closing.get().is_some() && (self.next_ending().is_some() || self.is_over())
    }

    /// The next step, if nothing is left that it waits for.
    #[cold]
    fn next_ending(&self) -> Option<Ending> {
        let (shard, node) = (&self.shard, &self.shard.node);
        match self.ending.0 {
            Ending::Draining => shard.is_quiet().then_some(Ending::Quiet),
            // In this order: what others sent before they were quiet is seen to be there.
            Ending::Quiet => (node.all_reached(Ending::Quiet) && !self.something_arrived() && shard.is_clear())
                .then_some(Ending::Clear),
            Ending::Clear => None,
        }
    }

    #[cold]
    fn is_over(&self) -> bool {
        let deadline = self.shard.closing.get().unwrap_or(u64::MAX);
        self.shard.node.all_reached(Ending::Clear) || self.shard.clock() >= deadline
    }

    /// Closes everything that is left.
    pub(super) fn end(&mut self) -> io::Result<()> {
        self.shard.settle_deferred();
        self.flush();
        // Out of here before the connections close.
        self.submit()?;
        self.shard.end();
        self.flush();
        self.submit()?;
        self.publish();
        Ok(())
    }
}

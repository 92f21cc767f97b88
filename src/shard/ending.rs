//! A core's part in the shutdown of its env.

use std::fmt::Write;
use std::io;
use std::sync::atomic::Ordering;

use super::core::Core;
use super::counters::Snapshot;
use super::node::{Ending, Node};
use crate::dispatch::directory::Place;
use crate::dispatch::verifier::VERIFIER;

/// Endpoints that have not ended in time and are named: enough to find the cause.
const NAMED: usize = 8;

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
        if !self.shard.node.all_reached(Ending::Clear) {
            self.warn_of_what_is_left();
        }
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

impl Core {
    /// The deadline of the shutdown has passed: the first core that finds something left tells what all cores have,
    /// which of the others is as old as their last turn.
    #[cold]
    fn warn_of_what_is_left(&mut self) {
        self.publish();
        let (shard, node) = (&self.shard, &self.shard.node);
        let endpoints = endpoints_left(node);
        let is_done = endpoints.is_empty() && shard.dispatcher.deferrals().is_empty() && shard.is_clear();
        if is_done || node.ended_hard.swap(true, Ordering::Relaxed) {
            return;
        }
        let cores = left_by_core(&node.snapshot());
        tracing::warn!(
            target: "ringpost::env",
            env = node.name, %endpoints, %cores,
            "the deadline of the shutdown has passed: what has not ended is dropped, endpoints without on_stop"
        );
    }
}

/// The endpoints of an env that have not ended, for people.
fn endpoints_left(node: &Node) -> String {
    let left: Vec<_> = node.directory.alive().into_iter().filter(|(name, _)| **name != *VERIFIER).collect();
    let mut text = String::new();
    for (name, place) in left.iter().take(NAMED) {
        let comma = if text.is_empty() { "" } else { ", " };
        // Into memory, so it does not fail.
        let _ = match place {
            Place::Core(core) => write!(text, "{comma}{name} on core {core}"),
            Place::EveryCore => write!(text, "{comma}{name} on every core"),
        };
    }
    if left.len() > NAMED {
        let _ = write!(text, " and {} more", left.len() - NAMED);
    }
    text
}

/// What the cores of an env hold, by the names of the counters, for people.
fn left_by_core(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    for (core, counters) in snapshot.cores.iter().chain(&snapshot.isolated).enumerate() {
        let left = [
            (counters.inbox_messages, "inbox_messages"),
            (counters.deferred, "deferred"),
            (counters.pending_asks, "pending_asks"),
            (counters.connections, "connections"),
        ];
        let mut before = if text.is_empty() { format!("core {core}: ") } else { format!("; core {core}: ") };
        for (count, what) in left.into_iter().filter(|(count, _)| *count > 0) {
            // Into memory, so it does not fail.
            let _ = write!(text, "{before}{count} {what}");
            before = ", ".into();
        }
    }
    text
}

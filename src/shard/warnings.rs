//! How often a core warns of what others can cause.

use std::fmt::Display;

use super::shard::Shard;
use super::timeouts::Timer;
use crate::executor::rate_limit::{RateLimit, RateLimits, Summary};
use crate::net::remote::Remote;
use crate::net::roster::Peer;

/// The rates of the warnings of a core, one for each kind.
pub(super) struct Warnings {
    faulty: RateLimit,
    pub(super) events_lost: RateLimit,
    pub(super) connections_full: RateLimit,
    sends_lost: RateLimit,
    pub(super) refs_forbidden: RateLimit,
    impostors: RateLimit,
}

impl Warnings {
    /// Those of the core with these limits.
    pub(super) fn new(limits: &RateLimits) -> Warnings {
        Warnings {
            faulty: limits.burst("closed a connection"),
            events_lost: limits.single("an event is lost: too much waits for its core"),
            connections_full: limits.single("too many connections to open another"),
            sends_lost: limits.single("a one-way message was lost"),
            refs_forbidden: limits.single("a ref that was told is not used"),
            impostors: limits.single("a node has the id of one at another address"),
        }
    }
}

impl Shard {
    /// Has the core wake when the second of a warning without a line is over.
    #[inline]
    pub(super) fn tell_suppressed_later(&self) {
        if self.dispatcher.rate_limits.wants_timer() {
            self.arm_summary();
        }
    }

    #[cold]
    fn arm_summary(&self) {
        if let Some(at) = self.dispatcher.rate_limits.next() {
            self.timers.borrow_mut().arm(at, Timer::Summary.pack());
        }
    }

    /// Tells how many warnings of the seconds that are over had no line.
    pub(super) fn tell_suppressed(&self) {
        self.tell_summaries(self.dispatcher.rate_limits.due(self.clock()));
    }

    /// The same of all, at the end.
    pub(super) fn tell_all_suppressed(&self) {
        self.tell_summaries(self.dispatcher.rate_limits.rest());
    }

    fn tell_summaries(&self, summaries: Vec<Summary>) {
        let (node, core) = (&self.node.name, self.core);
        for Summary { what, endpoint, untold } in summaries {
            let endpoint = endpoint.as_deref();
            tracing::warn!(target: "ringpost::core", node, core, endpoint, warning = what, untold, "warnings were suppressed");
        }
    }

    /// A connection is closed by the fault of its peer.
    #[cold]
    pub(super) fn warn_faulty(&self, peer: &Remote, cause: &dyn Display) {
        if let Some(untold) = self.warnings.faulty.allow(self.clock()) {
            tracing::warn!(target: "ringpost::connection", peer = %peer, %cause, untold, "closed a connection");
        }
    }

    /// A node that was dialled says that it is one that is known from another address.
    #[cold]
    pub(super) fn warn_impostor(&self, dialled: Option<&str>, peer: &Peer) {
        if let Some(untold) = self.warnings.impostors.allow(self.clock()) {
            tracing::warn!(
                target: "ringpost::connection", dialled, peer = %peer, id = peer.node_id(), untold,
                "a node has the id of one at another address, and counts as another node: if they are one, use one of its addresses"
            );
        }
    }

    /// A one-way message that was accepted here could not be sent; its kind, if that is known.
    #[cold]
    pub fn warn_lost(&self, kind: Option<&str>, error: &dyn Display) {
        if let Some(untold) = self.warnings.sends_lost.allow(self.clock()) {
            tracing::warn!(target: "ringpost::connection", kind, %error, untold, "a one-way message was lost");
        }
    }
}

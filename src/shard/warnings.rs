//! How often a core warns of what others can cause.

use std::fmt::Display;

use super::shard::Shard;
use crate::executor::rate_limit::RateLimit;
use crate::net::remote::Remote;

/// The rates of the warnings of a core, one for each kind.
pub(super) struct Warnings {
    faulty: RateLimit,
    pub(super) events_lost: RateLimit,
    pub(super) connections_full: RateLimit,
    sends_lost: RateLimit,
}

impl Default for Warnings {
    fn default() -> Warnings {
        Warnings {
            faulty: RateLimit::burst(),
            events_lost: RateLimit::default(),
            connections_full: RateLimit::default(),
            sends_lost: RateLimit::default(),
        }
    }
}

impl Shard {
    /// A connection is closed by the fault of its peer.
    #[cold]
    pub(super) fn warn_faulty(&self, peer: &Remote, cause: &dyn Display) {
        if let Some(untold) = self.warnings.faulty.allow(self.clock()) {
            tracing::warn!(target: "ringpost::connection", peer = %peer, %cause, untold, "closed a connection");
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

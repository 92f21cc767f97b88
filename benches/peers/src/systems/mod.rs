//! The systems that are measured, one a file.
//!
//! Each file opens with the settings that were chosen and why. All share: the payload of `payload.rs`, one connection
//! with TCP_NODELAY, the pinned threads of `threads.rs`, the meter of `sample.rs`, every answer compared.

mod capnp_rpc;
mod frames;
mod kameo;
mod ractor;
mod ringpost;
mod tarpc;
mod tokio;
mod tokio_uring;
mod tonic;

use crate::Error;
use crate::cpus::Cpus;
use crate::plan::{Idle, Load, Path};
use crate::sample::{Meter, Span};

/// Measures a system once: starts it, asks, stops it.
pub(crate) type RunFn = fn(&Run) -> Result<Meter, Error>;

/// Something that answers calls.
#[derive(Clone, Copy)]
pub(crate) struct System {
    /// Its name on the command line and in the output.
    pub(crate) name: &'static str,
    /// The ways it goes.
    pub(crate) paths: &'static [Path],
    /// What its threads can do when they have nothing to do.
    pub(crate) idles: &'static [Idle],
    pub(crate) run: RunFn,
}

/// What a system is asked to do.
pub(crate) struct Run<'a> {
    pub(crate) path: Path,
    pub(crate) idle: Idle,
    pub(crate) load: Load,
    pub(crate) span: Span,
    pub(crate) cpus: &'a Cpus,
}

/// In the order of the table.
pub(crate) const ALL: &[System] = &[
    ringpost::SYSTEM,
    tokio::SYSTEM,
    tokio_uring::SYSTEM,
    tarpc::SYSTEM,
    tonic::SYSTEM,
    capnp_rpc::SYSTEM,
    kameo::SYSTEM,
    ractor::SYSTEM,
];

/// ringpost and the two fastest peers: whose answers at given rates are looked at if nobody is named. README.md says
/// how they were found.
pub(crate) const FASTEST: &[System] = &[ringpost::SYSTEM, tokio::SYSTEM, tokio_uring::SYSTEM];

impl System {
    /// The idle policies that make a row on this path; none if the system does not go there.
    pub(crate) fn idles_on(&self, path: Path) -> &'static [Idle] {
        if !self.paths.contains(&path) {
            return &[];
        }
        // A thread that asks itself is never idle: one policy says it all.
        if path == Path::Local { &[Idle::Spin] } else { self.idles }
    }
}

//! The systems that are measured, one a file.
//!
//! Each file opens with the settings that were chosen and why. All share: the payload of `payload.rs`, one connection
//! with TCP_NODELAY, the pinned threads of `threads.rs`, the meter of `sample.rs`, every answer compared.

mod capnp_rpc;
mod frames;
mod kameo;
mod protosocket;
mod ractor;
mod ringpost;
mod tarpc;
mod tokio;
mod tokio_uring;
mod tonic;
mod volo;

use crate::Error;
use crate::cpus::Cpus;
use crate::plan::{Idle, Load, Path};
use crate::sample::{Meter, Span};
use crate::variant::{Caller, PayloadKind, Shape};

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
    /// Who can ask: the asking thread, which does the input and output as well, or tasks of a multi-threaded runtime.
    pub(crate) callers: &'static [Caller],
    /// How the asks in flight are driven; none if by no future at all.
    pub(crate) shape: Option<Shape>,
    /// What carries the payload in its messages; none if they are no Rust types.
    pub(crate) payload_kind: Option<PayloadKind>,
    pub(crate) run: RunFn,
}

/// What a system is asked to do.
pub(crate) struct Run<'a> {
    pub(crate) path: Path,
    pub(crate) idle: Idle,
    pub(crate) caller: Caller,
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
    protosocket::SYSTEM,
    volo::SYSTEM,
    tonic::SYSTEM,
    capnp_rpc::SYSTEM,
    kameo::SYSTEM,
    ractor::SYSTEM,
];

/// ringpost and the two fastest peers: whose answers at given rates are looked at if nobody is named. README.md says
/// how they were found.
pub(crate) const FASTEST: &[System] = &[ringpost::SYSTEM, tokio::SYSTEM, tokio_uring::SYSTEM];

impl System {
    /// The idle policies that make a row on this path with this caller; none if the system does not go there.
    pub(crate) fn idles_on(&self, path: Path, caller: Caller) -> impl Iterator<Item = Idle> {
        let goes = self.paths.contains(&path) && self.callers.contains(&caller);
        let fits = move |idle: &Idle| match (caller, path) {
            // A thread that asks itself is never idle: one policy says it all.
            (Caller::Core, Path::Local) => *idle == Idle::Spin,
            (Caller::Core, _) => true,
            // Somewhere the tasks have to run; and within a process they are asked nothing that others are.
            _ => path == Path::Tcp && *idle != Idle::Spin,
        };
        self.idles.iter().copied().filter(move |idle| goes && fits(idle))
    }
}

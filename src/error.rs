//! Every error that a user can meet.

use std::sync::Arc;
use std::time::Duration;

pub use crate::dispatch::directory::NameError;
pub use crate::net::errors::{AskError, SendError};
pub use crate::ring::SetupError;
pub use crate::shard::spawn::{JoinError, SpawnError};
pub use crate::wire::failure::HandlerError;

use crate::address::AddressError;
use crate::shard::sleep::NotOnCore;

/// Any error of an env, for a `main` that passes all of them on with `?`.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An env did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// An endpoint was not registered.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// A URI is no URI of an endpoint.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A look-up failed.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// An ask failed.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// A send was refused.
    #[error(transparent)]
    Send(#[from] SendError),
    /// A task was not started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// A task did not end well.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// A sleep was awaited on a thread that is no core.
    #[error(transparent)]
    Sleep(#[from] NotOnCore),
    /// The end of an env was awaited on a core's own thread.
    #[error(
        "a core that waits for the end of an env waits for itself: call `shutdown` there, and wait on another thread"
    )]
    AwaitOnCore,
}

/// Why an env did not start. Nothing is left behind.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// This kernel, or its settings, cannot serve. The text names the cause and the remedy.
    #[error(transparent)]
    Ring(#[from] SetupError),
    /// The configuration is out of bounds.
    #[error("the configuration cannot be used: {0}")]
    Config(Arc<str>),
    /// The bind address is no address of this machine, or cannot be used.
    #[error("cannot listen on {address}: {cause}")]
    Bind {
        /// What was asked for.
        address: Arc<str>,
        /// What the system said.
        cause: Arc<str>,
    },
    /// The wished port and all that may be tried instead are taken.
    #[error(
        "{}, and that did not change within {waited:?} (Config::port_wait): stop the process that listens there, choose \
         another port, or raise Config::port_retries",
        taken(host, *first, *last)
    )]
    PortsTaken {
        /// The host part of the bind address.
        host: Arc<str>,
        /// The wished port.
        first: u16,
        /// The last one that was tried.
        last: u16,
        /// How long the start waited in all.
        waited: Duration,
    },
    /// `Builder::start_local` was called on a thread that runs no fitting runtime.
    #[error(
        "cannot start in this thread's runtime: {cause}: use tokio_uring::start, or a LocalSet with I/O and timers"
    )]
    NoRuntime {
        /// What tokio said.
        cause: Arc<str>,
    },
    /// A core's thread could not be made.
    #[error("cannot start core {core}: {cause}")]
    Thread {
        /// Number of the core.
        core: usize,
        /// What the system said.
        cause: Arc<str>,
    },
}

fn taken(host: &str, first: u16, last: u16) -> String {
    match (first, last) {
        (0, _) => format!("cannot listen on {host}:0: all ports are taken"),
        _ if first == last => format!("cannot listen on {host}:{first}: the port is taken"),
        _ => format!("cannot listen on {host}:{first}: ports {first} to {last} are taken"),
    }
}

/// Why an endpoint was not registered. Its name is free again.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The name is taken, or is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The factory panicked, `on_start` failed, or two messages of the endpoint have the same id.
    #[error("endpoint {name:?} did not start: {}", failed_start(error))]
    Failed {
        /// Its name.
        name: Arc<str>,
        /// What went wrong.
        error: HandlerError,
    },
    /// There is no such core.
    #[error("there is no core {core}; the env has {cores}")]
    NoSuchCore {
        /// The number that was given.
        core: usize,
        /// How many there are.
        cores: usize,
    },
    /// The env is shutting down.
    #[error("env {env:?} is shutting down and takes no more endpoints")]
    Stopped {
        /// Its name.
        env: Arc<str>,
    },
    /// Too many jobs from other threads wait for a core already.
    #[error("a core of env {env:?} takes no more jobs: try again, or raise Config::injected")]
    Overloaded {
        /// Its name.
        env: Arc<str>,
    },
    /// As many endpoints with a thread of their own are registered as the env may have.
    #[error("env {env:?} has {max} isolated endpoints already: stop one, or raise Config::isolated")]
    TooManyIsolated {
        /// Its name.
        env: Arc<str>,
        /// `Config::isolated`.
        max: u16,
    },
    /// The thread of an isolated endpoint, or its ring, could not be made.
    #[error("endpoint {name:?} got no thread of its own: {cause}")]
    NoThread {
        /// The endpoint's name.
        name: Arc<str>,
        /// What went wrong, and what helps.
        cause: Arc<str>,
    },
    /// A blocking form waits for the endpoint's core, and a core must not wait for itself or for another.
    #[error(
        "registering on a core's own thread would block everything on it: await `register_async` and the like there"
    )]
    BlockingOnCore,
}

/// It was no handler that panicked.
fn failed_start(error: &HandlerError) -> String {
    match error.is_panic() {
        true => format!("its factory or on_start panicked: {}", error.text()),
        false => error.to_string(),
    }
}

/// Why a look-up found no endpoint.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    /// The URI is none.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The node answered that it has no such endpoint.
    #[error("no endpoint is registered as {uri}")]
    NotFound {
        /// What was looked for.
        uri: Arc<str>,
    },
    /// Refs with more different names than one peer may have are alive.
    #[error("refs to more than {max} names at {address} are in use", max = crate::net::peer::MAX_NAMES)]
    TooManyNames {
        /// The peer.
        address: Arc<str>,
    },
    /// `lookup_blocking` was called on a core's own thread.
    #[error("lookup_blocking on a core's own thread would block everything on it: use `lookup(..).await` there")]
    BlockingOnCore,
    /// The node could not be asked.
    #[error("cannot look up {uri}: {error}")]
    Ask {
        /// What was looked for.
        uri: Arc<str>,
        /// What went wrong.
        error: AskError,
    },
}

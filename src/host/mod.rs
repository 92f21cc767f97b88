//! Ways to run a core: on a thread of its own, or as a task of a runtime.

pub(crate) mod isolated;
pub(crate) mod life;
pub(crate) mod thread;
#[cfg(feature = "tokio-uring")]
pub(crate) mod tokio_uring;

use self::life::{Life, Start};
use self::thread::Ready;

/// What runs on the thread of each core: see [`Builder::host`](crate::Builder::host).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Host {
    /// The core alone. Lowest latency.
    #[default]
    Thread,
    /// A `tokio_uring` runtime, and the core as a task of it: handlers can use `tokio_uring::fs`, and all of tokio that
    /// works on one thread, such as `tokio::time`, `tokio::sync`, `tokio::net` and `spawn_local`. Waiting and waking
    /// pass through the runtime, so a message that finds the core asleep takes longer.
    ///
    /// What the runtime's own ring was given leaves when the thread has nothing else to do: a tokio task that yields
    /// without end holds up `tokio_uring::fs`. Tasks of the runtime that are left when the env has shut down are
    /// dropped; blocking ones, from `spawn_blocking`, are waited for.
    #[cfg(feature = "tokio-uring")]
    TokioUring,
}

impl Host {
    /// How a core lives on its thread.
    pub(crate) fn live(self) -> fn(Life, Start, Ready) {
        match self {
            Host::Thread => thread::alone,
            #[cfg(feature = "tokio-uring")]
            Host::TokioUring => tokio_uring::in_own_runtime,
        }
    }
}

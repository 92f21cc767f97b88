//! A core's life, wherever it is led.

use std::any::Any;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use crate::dispatch::verifier::{EndpointVerifier, VERIFIER};
use crate::executor::tasks::Executor;
use crate::executor::waker::claim_core;
use crate::ring::{Capabilities, Ring, RingConfig, SetupError};
use crate::shard::config::Config;
use crate::shard::core::Core;
use crate::shard::current::{self, Entered, Serving};
use crate::shard::node::{Ending, Node};
use crate::shard::placement::Placement;
use crate::shard::shard::Shard;
use crate::wire::failure::panic_text;
use crate::wire::frame::EndpointId;

/// What a core comes to life with.
pub(crate) struct Start {
    /// The env.
    pub(crate) node: Arc<Node>,
    /// Number of the core.
    pub(crate) core: u16,
    /// The listening socket, in server mode.
    pub(crate) listener: Option<OwnedFd>,
    /// What the kernel offers.
    pub(crate) capabilities: Capabilities,
    /// Id of the built-in endpoint; an isolated core has none.
    pub(crate) verifier: Option<EndpointId>,
}

/// Why a core did not come to life.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartFailure {
    /// Its ring could not be made.
    #[error(transparent)]
    Ring(#[from] SetupError),
    /// Its thread or its runtime could not be made, or this process has too many cores.
    #[error("cannot start core {0}: {1}")]
    Thread(u16, io::Error),
    /// The runtime that it was to live in is none, or lacks something.
    #[cfg(feature = "tokio-uring")]
    #[error("{0}")]
    NoRuntime(String),
}

/// A core's thread, or its place on one. Dropped last, when nothing of the core is left.
pub(crate) struct Place(Arc<Node>);

impl Place {
    pub(crate) fn new(node: &Arc<Node>) -> Place {
        Place(node.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.core_ended();
    }
}

/// A core's life on its thread. When it is dropped the core has ended, however that came about, and whoever waits for
/// the core is told: asks fail, and the other cores of the env shut down.
///
/// Made on the core's thread, whether or not the core then comes to life, and dropped there.
pub(crate) struct Life {
    node: Arc<Node>,
    core: u16,
    /// From birth to a natural end.
    shard: Option<Rc<Shard>>,
    /// Not on an isolated core, which may block.
    _serving: Option<Serving>,
}

impl Life {
    pub(crate) fn new(node: &Arc<Node>, core: u16) -> Life {
        let serving = (!node.is_isolated(core)).then(current::serve);
        Life { node: node.clone(), core, shard: None, _serving: serving }
    }

    /// Makes the core. It is entered as long as the first value lives, which should be dropped after the second.
    pub(crate) fn begin(&mut self, start: Start) -> Result<(Entered, Core), StartFailure> {
        let Start { node, core, listener, capabilities, verifier } = start;
        let ring_config = if node.is_isolated(core) { ISOLATED_RING } else { ring_config(&node.config) };
        let ring = Ring::new(&ring_config, &capabilities)?;
        if *ring.capabilities() != capabilities {
            tracing::warn!(target: "ringpost::core", core, got = %ring.capabilities(), "the kernel refused a feature to this core's ring");
        }
        let index = claim_core(node.remote_wake(core)).map_err(|e| StartFailure::Thread(core, io::Error::other(e)))?;
        let executor = Executor::new(&index, node.config.tasks);
        // The first to set it, as the door is this core's alone.
        let _ = node.cores[usize::from(core)].waker.set(ring.waker());
        let steers = node.config.placement == Placement::Steered;
        let endpoint_verifier = EndpointVerifier::new(node.directory.clone(), node.core_count(), steers);
        let shard = Rc::new(Shard::new(node, core, executor));
        self.shard = Some(shard.clone());
        let entered = current::enter(&shard);
        if let Some(verifier) = verifier {
            shard.host(verifier, VERIFIER.into(), || endpoint_verifier, Box::new(|_| ()));
        }
        if self.node.is_isolated(core) && !self.node.isolated_runs(core) {
            return Err(StartFailure::Thread(core, io::Error::other("the env is shutting down")));
        }
        Ok((entered, Core::new(ring, shard, listener)))
    }

    /// Enters the core, for a turn of it.
    #[cfg(feature = "tokio-uring")]
    pub(crate) fn enter(&self) -> Option<Entered> {
        self.shard.as_ref().map(current::enter)
    }

    /// The core is driven by a task with this waker.
    #[cfg(feature = "tokio-uring")]
    pub(crate) fn hosted_by(&self, task: &std::task::Waker) {
        // The first time counts: a task's waker stays the same.
        let _ = self.node.cores[usize::from(self.core)].host.set(task.clone());
    }

    /// The core has ended by a panic.
    pub(crate) fn panicked(&self, panic: &(dyn Any + Send)) {
        tracing::error!(target: "ringpost::core", core = self.core, panic = panic_text(panic), "a core has ended by a panic: its env shuts down");
    }

    /// The core has come to its natural end, or to one by an error.
    pub(crate) fn ended(&mut self, outcome: io::Result<()>) {
        match outcome {
            Ok(()) => self.shard = None,
            Err(error) => {
                tracing::error!(target: "ringpost::core", core = self.core, %error, "a core has ended: the kernel refused to serve its ring");
            }
        }
    }
}

/// For wake-ups alone: an isolated core has no sockets.
const ISOLATED_RING: RingConfig = RingConfig { sq_entries: 8, cq_entries: 64, buffers: 1, buffer_size: 256 };

fn ring_config(config: &Config) -> RingConfig {
    RingConfig {
        cq_entries: config.completions,
        buffers: config.receive_buffers,
        buffer_size: config.receive_buffer_bytes,
        // A queue of completions is never shorter than that of submissions.
        sq_entries: RingConfig::default().sq_entries.min(config.completions),
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        if let Some(shard) = self.shard.take() {
            let _ = catch_unwind(AssertUnwindSafe(|| {
                let _entered = current::enter(&shard);
                shard.end();
            }));
        }
        if !self.node.has_core(self.core) {
            // An isolated core that has not come to life: another try may go better.
            return;
        }
        drop(self.node.cores[usize::from(self.core)].injector.close());
        self.node.reach(self.core, Ending::Clear);
        self.node.shutdown(self.node.config.drain);
    }
}

//! A core on a thread of its own, pinned to a CPU.

use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use crate::dispatch::verifier::{EndpointVerifier, VERIFIER};
use crate::executor::local::Bound;
use crate::executor::tasks::Executor;
use crate::executor::waker::{CoreIndex, claim_core};
use crate::ring::{Capabilities, Ring, RingConfig, SetupError};
use crate::shard::core::Core;
use crate::shard::current;
use crate::shard::node::{Ending, Node};
use crate::shard::shard::Shard;
use crate::wire::failure::panic_text;
use crate::wire::frame::EndpointId;

/// What a core's thread is given.
pub(crate) struct Start {
    /// The env.
    pub(crate) node: Arc<Node>,
    /// Number of the core.
    pub(crate) core: u16,
    /// The CPU to run on; none to let the scheduler choose.
    pub(crate) cpu: Option<usize>,
    /// The listening socket, in server mode.
    pub(crate) listener: Option<OwnedFd>,
    /// What the kernel offers.
    pub(crate) capabilities: Capabilities,
    /// Id of the built-in endpoint.
    pub(crate) verifier: EndpointId,
    /// Told once whether the core has come to life.
    pub(crate) ready: SyncSender<Result<(), StartFailure>>,
}

/// Why a core did not come to life.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartFailure {
    /// Its ring could not be made.
    #[error(transparent)]
    Ring(#[from] SetupError),
    /// Its thread could not be made, or this process has too many cores.
    #[error("cannot start core {0}: {1}")]
    Thread(u16, io::Error),
}

/// Starts a core on a thread of its own. The thread ends with the env's shutdown.
pub(crate) fn spawn(start: Start) -> io::Result<()> {
    let name = format!("{}-{}", start.node.name, start.core);
    std::thread::Builder::new().name(name).spawn(move || run(start)).map(|_| ())
}

fn run(start: Start) {
    let node = start.node.clone();
    let core = start.core;
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| serve(start))) {
        tracing::error!(core, panic = panic_text(&*panic), "a core has ended by a panic: its env shuts down");
        if let Some(shard) = current::get() {
            // Whoever waits for this core is told.
            let _ = catch_unwind(AssertUnwindSafe(|| shard.end()));
        }
    }
    drop(node.cores[usize::from(core)].injector.close());
    node.reach(core, Ending::Clear);
    node.shutdown(node.config.drain);
    node.core_ended();
}

fn serve(start: Start) {
    let Start { node, core, cpu, listener, capabilities, verifier, ready } = start;
    if let Some(cpu) = cpu
        && !core_affinity::set_for_current(core_affinity::CoreId { id: cpu })
    {
        tracing::warn!(core, cpu, "a core could not be pinned: it runs wherever the scheduler puts it");
    }
    let made = make(&node, core, listener, &capabilities, verifier);
    let (mut runner, _bound, _index) = match made {
        Ok(made) => made,
        Err(failure) => {
            let _ = ready.send(Err(failure));
            return;
        }
    };
    let _ = ready.send(Ok(()));
    drop(ready);
    if let Err(error) = runner.run() {
        tracing::error!(core, %error, "a core has ended: the kernel refused to serve its ring");
        if let Some(shard) = current::get() {
            // Whoever waits for this core is told.
            shard.end();
        }
    }
}

fn make(
    node: &Arc<Node>,
    core: u16,
    listener: Option<OwnedFd>,
    capabilities: &Capabilities,
    verifier: EndpointId,
) -> Result<(Core, Bound, CoreIndex), StartFailure> {
    let config = &node.config;
    let ring_config = RingConfig {
        cq_entries: config.completions,
        buffers: config.receive_buffers,
        buffer_size: config.receive_buffer_bytes,
        // A queue of completions is never shorter than that of submissions.
        sq_entries: RingConfig::default().sq_entries.min(config.completions),
    };
    let ring = Ring::new(&ring_config, capabilities)?;
    if ring.capabilities() != capabilities {
        tracing::warn!(core, got = %ring.capabilities(), "the kernel refused a feature to this core's ring");
    }
    let index = claim_core(node.remote_wake(core)).map_err(|e| StartFailure::Thread(core, io::Error::other(e)))?;
    let executor = Executor::new(&index, config.tasks);
    let bound = executor.bind_thread();
    // The first to set it, as the door is this core's alone.
    let _ = node.cores[usize::from(core)].waker.set(ring.waker());
    let shard = Rc::new(Shard::new(node.clone(), core, executor));
    current::enter(shard.clone());
    let directory = node.directory.clone();
    shard.host(verifier, VERIFIER.into(), || EndpointVerifier::new(directory), Box::new(|_| ()));
    shard.verifier.set(Some(verifier));
    Ok((Core::new(ring, shard, listener), bound, index))
}

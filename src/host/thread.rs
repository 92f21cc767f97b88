//! A core on a thread of its own, pinned to a CPU.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::SyncSender;

use super::life::{Life, Place, Start, StartFailure};

/// Told once whether a core has come to life. Nobody listens any more if the builder's thread is gone.
pub(crate) type Ready = SyncSender<Result<(), StartFailure>>;

/// Starts a thread for a core, which lives there as `live` says. The thread ends with the env's shutdown.
pub(crate) fn spawn(start: Start, cpu: usize, ready: Ready, live: fn(Life, Start, Ready)) -> io::Result<()> {
    let name = format!("{}-{}", start.node.name, start.core);
    let place = Place::new(&start.node);
    std::thread::Builder::new().name(name).spawn(move || {
        let _place = place;
        let core = start.core;
        if !core_affinity::set_for_current(core_affinity::CoreId { id: cpu }) {
            tracing::warn!(target: "ringpost::core", core, cpu, "a core could not be pinned: it runs wherever the scheduler puts it");
        }
        live(Life::new(&start.node, core), start, ready);
    })?;
    Ok(())
}

/// Has the thread for itself: it sleeps in the core's ring.
pub(crate) fn alone(mut life: Life, start: Start, ready: Ready) {
    let lived = catch_unwind(AssertUnwindSafe(|| {
        let (_entered, mut core) = match life.begin(start) {
            Ok(made) => made,
            Err(failure) => {
                let _ = ready.send(Err(failure));
                return;
            }
        };
        let _ = ready.send(Ok(()));
        drop(ready);
        let outcome = core.run();
        life.ended(outcome);
    }));
    if let Err(panic) = lived {
        life.panicked(&*panic);
    }
}

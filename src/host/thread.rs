//! A core on a thread of its own, pinned to a CPU.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::SyncSender;

use super::life::{Life, Start, StartFailure};
use crate::wire::failure::panic_text;

/// Told once whether a core has come to life.
pub(crate) type Ready = SyncSender<Result<(), StartFailure>>;

/// Starts a thread for a core, which lives there as `live` says. The thread ends with the env's shutdown.
pub(crate) fn spawn(start: Start, cpu: usize, ready: Ready, live: fn(&mut Life, Start, Ready)) -> io::Result<()> {
    let name = format!("{}-{}", start.node.name, start.core);
    std::thread::Builder::new().name(name).spawn(move || run(start, cpu, ready, live)).map(|_| ())
}

fn run(start: Start, cpu: usize, ready: Ready, live: fn(&mut Life, Start, Ready)) {
    let core = start.core;
    let mut life = Life::new(&start.node, core);
    if !core_affinity::set_for_current(core_affinity::CoreId { id: cpu }) {
        tracing::warn!(core, cpu, "a core could not be pinned: it runs wherever the scheduler puts it");
    }
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| live(&mut life, start, ready))) {
        tracing::error!(core, panic = panic_text(&*panic), "a core has ended by a panic: its env shuts down");
    }
}

/// Has the thread for itself: it sleeps in the core's ring.
pub(crate) fn alone(life: &mut Life, start: Start, ready: Ready) {
    let (_entered, mut core) = match life.begin(start) {
        Ok(made) => made,
        Err(failure) => {
            // Nobody listens any more if the builder's thread is gone.
            let _ = ready.send(Err(failure));
            return;
        }
    };
    let _ = ready.send(Ok(()));
    drop(ready);
    let outcome = core.run();
    life.ended(outcome);
}

//! An isolated core on a thread of its own, made when it is first needed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use super::life::{Life, Start, StartFailure};
use crate::shard::node::Node;

/// Told once whether the core has come to life; on its own thread, unless that could not be made.
pub(crate) type Then = Box<dyn FnOnce(Result<(), StartFailure>) + Send>;

/// Starts the thread of an isolated core. It ends with the env's shutdown, or if the core does not come to life.
pub(crate) fn start(node: &Arc<Node>, core: u16, then: Then) {
    let name = format!("{}-{core}", node.name);
    let thread = Thread::new(node.clone());
    // What a thread that cannot be made was given is lost, and `then` must not be.
    let (give, take) = sync_channel::<Then>(1);
    let spawned = std::thread::Builder::new().name(name).spawn(move || {
        if let Ok(then) = take.recv() {
            run(&thread, core, then);
        }
    });
    match spawned {
        // The thread receives it before it does anything else.
        Ok(_) => drop(give.send(then)),
        Err(error) => then(Err(StartFailure::Thread(core, error))),
    }
}

fn run(Thread(node): &Thread, core: u16, then: Then) {
    node.isolated.unpin();
    let mut life = Life::new(node, core);
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| live(&mut life, node, core, then))) {
        life.panicked(&*panic);
    }
}

fn live(life: &mut Life, node: &Arc<Node>, core: u16, then: Then) {
    let capabilities = node.capabilities.clone();
    let start = Start { node: node.clone(), core, listener: None, capabilities, verifier: None };
    let (_entered, mut core) = match life.begin(start) {
        Ok(made) => made,
        Err(failure) => return then(Err(failure)),
    };
    then(Ok(()));
    let outcome = core.run();
    life.ended(outcome);
}

/// Counted from before the thread is made until nothing is left of it.
struct Thread(Arc<Node>);

impl Thread {
    fn new(node: Arc<Node>) -> Thread {
        node.isolated.thread_begins();
        Thread(node)
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.0.isolated.thread_ended();
    }
}

//! Gates: a handler waits at one until the test opens it, wherever the handler runs.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{LazyLock, Mutex};

use futures::channel::oneshot;

use super::LIMIT;

static GATES: LazyLock<Mutex<HashMap<u64, Side>>> = LazyLock::new(Mutex::default);

/// The handler's side.
struct Side {
    tell: Sender<Event>,
    opened: oneshot::Receiver<()>,
}

/// What happens at a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// A handler has come to the gate, and waits.
    Entered,
    /// It has gone through.
    Passed,
    /// It was dropped while it waited.
    Dropped,
}

/// The test's side of a gate. The id travels in messages.
pub(crate) struct Gate {
    pub(crate) id: u64,
    events: Receiver<Event>,
    open: Option<oneshot::Sender<()>>,
}

impl Gate {
    pub(crate) fn new() -> Gate {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let (tell, events) = channel();
        let (open, opened) = oneshot::channel();
        GATES.lock().unwrap().insert(id, Side { tell, opened });
        Gate { id, events, open: Some(open) }
    }

    /// Waits for the next event, which must be this one.
    pub(crate) fn expect(&self, event: Event) {
        assert_eq!(self.events.recv_timeout(LIMIT), Ok(event), "at gate {}", self.id);
    }

    /// Whether nobody has come so far.
    pub(crate) fn is_untouched(&self) -> bool {
        self.events.try_recv().is_err()
    }

    /// Lets the handler through.
    pub(crate) fn open(&mut self) {
        // Whoever waited may be gone.
        let _ = self.open.take().unwrap().send(());
    }
}

/// Waits at the gate; each gate is for one visitor.
pub(crate) async fn pass(id: u64) {
    let Side { tell, opened } = GATES.lock().unwrap().remove(&id).unwrap();
    let mut visit = Visit { tell, outcome: Event::Dropped };
    visit.tell.send(Event::Entered).unwrap();
    let _ = opened.await;
    visit.outcome = Event::Passed;
}

struct Visit {
    tell: Sender<Event>,
    outcome: Event,
}

impl Drop for Visit {
    fn drop(&mut self) {
        // The test may have ended.
        let _ = self.tell.send(self.outcome);
    }
}

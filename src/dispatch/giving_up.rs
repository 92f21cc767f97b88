//! Work that nobody waits for any longer.

use super::call::Origin;
use super::dispatcher::{Dispatcher, contain};
use super::slot::Phase;
use crate::wire::frame::EndpointId;

impl Dispatcher {
    /// A connection has ended: nobody waits for the asks that came from there, so their handlers are stopped and their
    /// repliers told. Those that still wait in an inbox are dropped when their turn comes, or their deadline.
    pub fn give_up(&self, origin: Origin) {
        while self.deferrals.end_one_of(origin) {}
        let slots: Vec<_> = self.slots.borrow().iter().flatten().cloned().collect();
        for slot in slots {
            slot.requests_of(origin).into_iter().for_each(|request| self.cancel(slot.id, origin, request));
            contain(|| drop(slot));
        }
    }

    /// The asker of a call has given up: takes its message out of the inbox, stops its handler, or tells its replier.
    pub fn cancel(&self, id: EndpointId, origin: Origin, request: u64) {
        if self.deferrals.cancel(origin, request) {
            return self.count(|stats| stats.cancelled += 1);
        }
        let Some(slot) = self.find(id) else { return };
        if slot.phase.get() == Phase::Busy && slot.current.get() == Some((origin, request)) {
            // Borrowed means that this very handler runs and drops the ask itself: then it goes on.
            let Ok(mut cell) = slot.cell.try_borrow_mut() else { return };
            contain(|| cell.clear());
            drop(cell);
            slot.phase.set(Phase::Idle);
            slot.current.set(None);
            self.count(|stats| stats.cancelled += 1);
            self.executor.wake(slot.key);
        } else if let Some(task) = slot.in_flight.as_ref().and_then(|all| all.task_of(origin, request)) {
            self.executor.abort(task);
            self.count(|stats| stats.cancelled += 1);
        } else if let Some(envelope) = { slot.inbox.borrow_mut().remove(origin, request) } {
            self.queued.set(self.queued.get() - 1);
            self.count(|stats| stats.cancelled += 1);
            self.recycle(envelope.body);
            // What stood behind it may begin now.
            self.executor.wake(slot.key);
        }
    }
}

//! Work that nobody waits for any longer.

use std::rc::Rc;

use super::call::Origin;
use super::dispatcher::{Dispatcher, contain};
use super::slot::{Phase, Slot};
use super::suspended::ToStop;
use crate::executor::key::WakeKey;
use crate::wire::frame::EndpointId;

impl Dispatcher {
    /// A connection has ended: nobody waits for the asks that came from there, so their handlers are stopped and their
    /// repliers told. Does that for one of them, if there is one.
    ///
    /// An ask that is still queued here is dropped in its turn if this core owns the connection. One that another core
    /// passed on is decoded and handled like any other, unless its deadline passes first; its answer is dropped.
    pub fn give_up_one(&self, origin: Origin) -> bool {
        if self.deferrals.end_one_of(origin) {
            return true;
        }
        let next = self.suspended.borrow_mut().next_of(origin);
        let Some(ToStop { endpoint, request, task }) = next else { return false };
        match (task, self.find(endpoint)) {
            (Some(task), _) => self.abort(task),
            (None, Some(slot)) => self.stop_current(&slot, origin, request),
            (None, None) => {}
        }
        true
    }

    /// The asker of a call has given up: takes its message out of the inbox, stops its handler, or tells its replier.
    pub fn cancel(&self, id: EndpointId, origin: Origin, request: u64) {
        if self.deferrals.cancel(origin, request) {
            return self.count(|stats| stats.cancelled += 1);
        }
        let Some(slot) = self.find(id) else { return };
        if slot.phase.get() == Phase::Busy && slot.current.get() == Some((origin, request)) {
            self.stop_current(&slot, origin, request);
        } else if slot.in_flight.is_some()
            && let Some(task) = { self.suspended.borrow_mut().task_of(id, origin, request) }
        {
            self.abort(task);
        } else if let Some(envelope) = { slot.inbox.borrow_mut().remove(origin, request) } {
            self.queued.set(self.queued.get() - 1);
            self.count(|stats| stats.cancelled += 1);
            self.recycle(envelope.body);
            // What stood behind it may begin now.
            self.executor.wake(slot.key);
        }
    }

    fn abort(&self, task: WakeKey) {
        self.executor.abort(task);
        self.count(|stats| stats.cancelled += 1);
    }

    /// Stops the handler of this call, if it is the one that its endpoint is suspended in.
    fn stop_current(&self, slot: &Rc<Slot>, origin: Origin, request: u64) {
        if slot.phase.get() != Phase::Busy || slot.current.get() != Some((origin, request)) {
            return;
        }
        // Borrowed means that this very handler runs and drops the ask itself: then it goes on.
        let Ok(mut cell) = slot.cell.try_borrow_mut() else { return };
        contain(|| cell.clear());
        drop(cell);
        slot.phase.set(Phase::Idle);
        self.end_current(slot);
        self.count(|stats| stats.cancelled += 1);
        self.executor.wake(slot.key);
    }
}

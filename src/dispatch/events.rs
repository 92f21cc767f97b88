//! Telling endpoints about connections.

use std::task::Context;

use super::call::NO_DEADLINE;
use super::dispatcher::Dispatcher;
use super::event::Event;
use super::slot::{Phase, Slot};
use crate::wire::frame::EndpointId;

impl Dispatcher {
    /// This endpoint is told about connections with higher numbers than `last`.
    pub fn listen(&self, id: EndpointId, last: u64) {
        self.listeners.0.borrow_mut().push((id, last));
    }

    /// An endpoint has ended; true if it was told about connections.
    pub fn unlisten(&self, id: EndpointId) -> bool {
        let mut listeners = self.listeners.0.borrow_mut();
        let at = listeners.iter().position(|listener| listener.0 == id);
        at.map(|at| listeners.swap_remove(at)).is_some()
    }

    /// Puts an event into the inbox of each endpoint that wants it, at the time `now`.
    pub fn deliver_event(&self, event: &Event, now: u64) {
        let number = event.peer().connection();
        for &(id, _) in self.listeners.0.borrow().iter().filter(|(_, last)| number > *last) {
            let Some(slot) = self.find(id).filter(|slot| !slot.closing.get()) else { continue };
            if slot.inbox.borrow_mut().push_event(event.clone(), &self.limits) {
                self.executor.wake(slot.key);
            } else {
                self.count(|stats| stats.events_lost += 1);
                if let Some(untold) = slot.events_lost.allow(now) {
                    tracing::warn!(
                        target: "ringpost::endpoint", endpoint = &*slot.name,
                        event = event.name(),
                        peer = %event.peer(),
                        untold,
                        "an event is lost: too many wait (Config::inbox_messages)"
                    );
                }
            }
        }
    }

    /// Tells an endpoint, which is idle.
    pub(super) fn tell(&self, slot: &Slot, event: Event) {
        let waker = self.executor.waker(slot.key);
        let mut cx = Context::from_waker(&waker);
        slot.phase.set(Phase::Busy);
        slot.deadline.set(NO_DEADLINE);
        slot.overdue_at.set(NO_DEADLINE);
        let told = slot.endpoint.tell(event, &mut slot.cell.borrow_mut(), &mut cx);
        if told.is_ready() {
            slot.phase.set(Phase::Idle);
        }
    }
}

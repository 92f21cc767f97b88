//! Telling the endpoints of all cores that a connection has opened or ended.

use std::sync::atomic::Ordering;

use super::lanes::LaneItem;
use super::shard::Shard;
use crate::dispatch::event::Event;
use crate::wire::frame::EndpointId;

impl Shard {
    /// An endpoint of this core is told about connections that open from now on.
    pub(super) fn listen(&self, id: EndpointId) {
        self.node.cores[usize::from(self.core)].listeners.fetch_add(1, Ordering::Relaxed);
        // In this order: a core that enters a later connection into the roster finds that somebody listens, since both
        // lock it. So an endpoint is told of both ends of a connection, or of none.
        self.dispatcher.listen(id, self.node.roster.last());
    }

    /// An endpoint of this core has ended.
    pub(super) fn unlisten(&self, id: EndpointId) {
        if self.dispatcher.unlisten(id) {
            self.node.cores[usize::from(self.core)].listeners.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Tells every endpoint that wants to know, after everything that this connection has brought so far. The end of
    /// the env itself is no event.
    pub(super) fn tell(&self, event: &Event) {
        if self.node.closing.load(Ordering::Relaxed) {
            return;
        }
        for (core, door) in (0..).zip(&self.node.cores) {
            if door.listeners.load(Ordering::Relaxed) == 0 {
                continue;
            }
            if core == self.core {
                self.dispatcher.deliver_event(event, self.clock());
            } else if !self.lane_event(core, LaneItem::Event(event.clone())) {
                self.count(|counters| counters.events_lost += 1);
                if let Some(untold) = self.warnings.events_lost.allow(self.clock()) {
                    tracing::warn!(
                        target: "ringpost::connection", core,
                        event = event.name(),
                        peer = %event.peer(),
                        untold,
                        "an event is lost: too much waits for its core (Config::lane_overflow)"
                    );
                }
            }
        }
    }
}

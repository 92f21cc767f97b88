//! The lanes of a core, and what travels in them.

use crate::dispatch::call::Origin;
use crate::dispatch::inbox::Envelope;
use crate::mesh::lane::{LaneReceiver, LaneSender, lane};
use crate::mesh::parcel::Parcel;
use crate::net::connection::ConnectionId;
use crate::wire::failure::FailureCode;
use crate::wire::frame::EndpointId;

use super::node::Injected;
use super::shard::Shard;

/// What one core tells another.
pub enum LaneItem {
    /// Deliver this.
    Request {
        /// To this endpoint.
        endpoint: EndpointId,
        /// The message.
        envelope: Envelope,
    },
    /// The answer to an ask of yours.
    Answer {
        /// The ask.
        request: u64,
        /// The reply, or what went wrong.
        answer: Result<Parcel, (FailureCode, Box<str>)>,
    },
    /// The answer to a request that you passed on: a whole frame for its connection.
    Frame {
        /// The connection that the request came over.
        connection: ConnectionId,
        /// The request, to tell the peer if the frame does not fit.
        request: u64,
        /// The frame.
        frame: Vec<u8>,
    },
    /// The asker has given up.
    Cancel {
        /// The endpoint that was asked.
        endpoint: EndpointId,
        /// Where the ask came from, as the endpoint's core knows it.
        origin: Origin,
        /// The ask.
        request: u64,
    },
}

/// A lane and its overflow are full.
#[derive(Debug)]
pub struct LaneFull;

/// A core's ends of its lanes.
#[derive(Default)]
pub struct Lanes {
    senders: Vec<Option<LaneSender<LaneItem>>>,
    /// Cores that were sent something in this turn, or whose lane is full.
    touched: Vec<u16>,
    receivers: Vec<LaneReceiver<LaneItem>>,
}

impl Lanes {
    /// No lanes yet, among `cores` cores.
    pub fn new(cores: usize) -> Lanes {
        Lanes { senders: (0..cores).map(|_| None).collect(), ..Lanes::default() }
    }

    /// Whether everything that was sent is in a lane.
    pub fn is_clear(&self) -> bool {
        self.senders.iter().flatten().all(|sender| sender.overflow_len() == 0)
    }

    /// Whether nothing waits in the lanes to this core. Looks at memory only.
    #[inline]
    pub fn nothing_arrived(&self) -> bool {
        self.receivers.iter().all(LaneReceiver::is_empty)
    }
}

impl Shard {
    /// Sends a request or a cancellation; drops it if the lane and its overflow are full.
    pub fn lane_request(&self, core: u16, item: LaneItem) -> Result<(), LaneFull> {
        self.with_lane(core, |sender| sender.try_send(item).map_err(|_| LaneFull))
    }

    /// Sends an answer. It is never refused: there is at most one for each request that the other core sent, and
    /// those are bounded there.
    pub fn lane_answer(&self, core: u16, item: LaneItem) {
        self.with_lane(core, |sender| sender.send(item));
    }

    fn with_lane<R>(&self, core: u16, send: impl FnOnce(&mut LaneSender<LaneItem>) -> R) -> R {
        let config = &self.node.config;
        let mut lanes = self.lanes.borrow_mut();
        let lanes = &mut *lanes;
        let sender = lanes.senders[usize::from(core)].get_or_insert_with(|| {
            let (sender, receiver) = lane(config.lane_messages, config.lane_overflow);
            self.node.cores[usize::from(core)].inject_always(Injected::Lane(receiver));
            sender
        });
        if !lanes.touched.contains(&core) {
            lanes.touched.push(core);
        }
        self.count(|counters| counters.lane_sent += 1);
        send(sender)
    }

    /// The lane of another core has arrived.
    pub fn attach_lane(&self, receiver: LaneReceiver<LaneItem>) {
        self.lanes.borrow_mut().receivers.push(receiver);
    }

    /// Takes up to `budget` items from each lane, in order.
    pub fn receive_lanes(&self, budget: usize, into: &mut Vec<LaneItem>) {
        let mut lanes = self.lanes.borrow_mut();
        for receiver in &mut lanes.receivers {
            let waiting = receiver.depth() as u64;
            if waiting == 0 {
                continue;
            }
            into.extend(std::iter::from_fn(|| receiver.pop()).take(budget));
            self.count(|counters| counters.lane_depth_max = counters.lane_depth_max.max(waiting));
        }
        self.count(|counters| counters.lane_received += into.len() as u64);
    }

    /// Moves what overflowed into the lanes as far as it goes, and calls `wake` for each core that was sent
    /// something and sleeps. True if something did not fit: try again soon.
    pub fn flush_lanes(&self, mut wake: impl FnMut(u16)) -> bool {
        let mut lanes = self.lanes.borrow_mut();
        let Lanes { senders, touched, .. } = &mut *lanes;
        touched.retain(|&core| {
            let Some(sender) = &mut senders[usize::from(core)] else { return false };
            let left = if sender.overflow_len() > 0 { sender.flush() } else { 0 };
            if self.node.cores[usize::from(core)].park.claim_wake() {
                self.count(|counters| counters.wakes_sent += 1);
                wake(core);
            } else {
                self.count(|counters| counters.wakes_suppressed += 1);
            }
            // A core that has ended takes nothing any more.
            left > 0 && sender.is_connected()
        });
        !touched.is_empty()
    }
}

//! The lanes of a core, and what travels in them.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

use crate::dispatch::call::Origin;
use crate::dispatch::event::Event;
use crate::dispatch::inbox::Envelope;
use crate::dispatch::reply_path::ReplyPath;
use crate::mesh::lane::{LaneReceiver, LaneSender, lane};
use crate::mesh::parcel::Parcel;
use crate::net::connection_id::ConnectionId;
use crate::net::errors::AskError;
use crate::wire::failure::OwnedFailure;
use crate::wire::frame::EndpointId;

use super::node::Injected;
use super::relay::Relay;
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
        answer: Result<Parcel, OwnedFailure>,
    },
    /// The answer to a request that you passed on: a whole frame for its connection.
    Frame {
        /// The connection that the request came over.
        connection: ConnectionId,
        /// The request, to tell the peer if the frame does not fit.
        request: u64,
        /// The frame.
        frame: Vec<u8>,
        /// Whether a ref is in it that leads back over this very connection.
        way_back: bool,
    },
    /// A connection of the sender has ended, over which requests may have been passed on.
    ConnectionEnded {
        /// The core that owned it.
        core: u16,
        /// The connection.
        connection: ConnectionId,
    },
    /// Send this to a peer that only you have a connection with.
    Relay(Box<Relay>),
    /// The answer to an ask that you relayed.
    Relayed {
        /// The ask.
        request: u64,
        /// The reply, or what went wrong.
        answer: Box<Result<Parcel, AskError>>,
    },
    /// An ask that was relayed to you has been given up.
    CancelRelayed {
        /// The core that relayed it.
        core: u16,
        /// The ask, as that core knows it.
        request: u64,
    },
    /// A connection of the sender has opened or ended.
    Event(Event),
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

impl LaneItem {
    /// Bytes that it has outside of itself. What is inside is bounded by the number of items.
    #[inline]
    fn bytes(&self) -> usize {
        match self {
            LaneItem::Request { envelope, .. } => envelope.body.bytes_outside(),
            LaneItem::Relay(relay) => relay.bytes(),
            _ => 0,
        }
    }
}

/// A lane takes no more.
#[derive(Debug)]
pub struct LaneFull {
    /// What bounds it.
    setting: &'static str,
}

impl LaneFull {
    /// What is full, and what bounds it.
    pub fn describe(&self, from: u16, to: u16) -> String {
        format!("the lane from core {from} to core {to} ({})", self.setting)
    }
}

/// A core's ends of its lanes.
#[derive(Default)]
pub struct Lanes {
    senders: Vec<Option<To>>,
    /// Cores that were sent something in this turn, or whose lane is full.
    touched: Vec<u16>,
    receivers: Vec<From>,
}

/// A lane to another core.
struct To {
    lane: LaneSender<LaneItem>,
    ends: Arc<LaneEnds>,
    /// What bounds the number of its messages.
    setting: &'static str,
}

/// A lane from another core.
struct From {
    lane: LaneReceiver<LaneItem>,
    ends: Arc<LaneEnds>,
}

impl To {
    /// Sends what may be refused, or gives it back with the setting that bounds the lane.
    #[inline]
    fn try_send(&mut self, item: LaneItem, limit: usize) -> Option<(LaneItem, &'static str)> {
        let size = item.bytes();
        if size > 0 {
            // As with an inbox, a large message still fits an empty lane.
            let waiting = self.ends.bytes.load(Ordering::Relaxed);
            if waiting > 0 && waiting + size > limit {
                return Some((item, "Config::inbox_bytes"));
            }
            self.ends.bytes.fetch_add(size, Ordering::Relaxed);
        }
        let refused = self.lane.try_send(item).err()?;
        self.ends.bytes.fetch_sub(size, Ordering::Relaxed);
        Some((refused, self.setting))
    }
}

/// What the two ends of a lane know of each other.
pub struct LaneEnds {
    /// The sender.
    from: u16,
    /// Bytes that the requests in the lane have outside of their items: added by its sender, taken off by its receiver.
    bytes: AtomicUsize,
    /// The sender has more than fits, and sleeps over it until the receiver has made room.
    stalled: AtomicBool,
}

impl To {
    /// Moves what overflowed toward a core that may stand still. Returns how much is left, and then the receiver tells
    /// when there is room.
    fn flush_or_stall(&mut self) -> usize {
        if self.lane.flush() == 0 {
            return 0;
        }
        self.ends.stalled.store(true, Ordering::Relaxed);
        // Pairs with the fence in `tell_if_stalled`: either that sees the flag, or this second try the room.
        fence(Ordering::SeqCst);
        self.lane.flush()
    }
}

impl Lanes {
    /// No lanes yet, among `cores` cores.
    pub fn new(cores: usize) -> Lanes {
        Lanes { senders: (0..cores).map(|_| None).collect(), ..Lanes::default() }
    }

    /// Whether everything that was sent is in a lane.
    pub fn is_clear(&self) -> bool {
        // What waits for a core that has ended waits in vain.
        self.senders.iter().flatten().all(|to| to.lane.overflow_len() == 0 || !to.lane.is_connected())
    }

    /// Whether nothing waits in the lanes to this core. Looks at memory only.
    #[inline]
    pub fn nothing_arrived(&self) -> bool {
        self.receivers.iter().all(|from| from.lane.is_empty())
    }
}

impl Shard {
    /// Sends a request; drops it if too many wait in the lane and its overflow, or too many bytes.
    #[inline]
    pub fn lane_request(&self, core: u16, item: LaneItem) -> Result<(), LaneFull> {
        let limit = self.node.config.inbox_bytes;
        // What is refused is dropped out here, where the lanes are not borrowed: its drop is the user's code.
        let refused = self.with_lane(core, |to| to.try_send(item, limit));
        if let Some((_, setting)) = refused {
            return Err(LaneFull { setting });
        }
        self.count(|counters| counters.lane_sent += 1);
        Ok(())
    }

    /// Sends a cancellation. A full lane drops it, which only means that the work is done in vain.
    pub fn lane_cancel(&self, core: u16, item: LaneItem) {
        if self.lane_request(core, item).is_err() {
            self.count(|counters| counters.cancels_lost += 1);
        }
    }

    /// Sends an answer. It is never refused: there is at most one for each request that the other core sent, and
    /// those are bounded there.
    pub fn lane_answer(&self, core: u16, item: LaneItem) {
        self.with_lane(core, |to| to.lane.send(item));
        self.count(|counters| counters.lane_sent += 1);
        if self.node.is_isolated(self.core) {
            // The next handler may block before this turn ends.
            self.node.cores[usize::from(core)].wake();
        }
    }

    /// Sends word of a connection, which a full lane does not refuse. False if as many wait there beyond it as there may be
    /// connections: each has brought one since, at least, and the other core has not looked.
    pub(super) fn lane_event(&self, core: u16, item: LaneItem) -> bool {
        let limit = self.node.config.lane_overflow.saturating_add(self.node.config.connections);
        let sent = self.with_lane(core, |to| {
            let room = to.lane.overflow_len() < limit;
            if room {
                to.lane.send(item);
            }
            room
        });
        self.count(|counters| counters.lane_sent += u64::from(sent));
        sent
    }

    /// Tells the cores that may have been passed requests of this connection that it has ended.
    pub(super) fn tell_connection_ended(&self, connection: ConnectionId) {
        let lanes: Vec<_> = self.lanes.borrow().senders.iter().map(Option::is_some).collect();
        for core in (0..).zip(lanes).filter_map(|(core, exists)| exists.then_some(core)) {
            // Connections come and go while a core stands still. It finds what it does for them in vain by the deadlines.
            if !self.lane_event(core, LaneItem::ConnectionEnded { core: self.core, connection }) {
                self.count(|counters| counters.cancels_lost += 1);
            }
        }
    }

    fn with_lane<R>(&self, core: u16, send: impl FnOnce(&mut To) -> R) -> R {
        let config = &self.node.config;
        let mut lanes = self.lanes.borrow_mut();
        let lanes = &mut *lanes;
        let sender = lanes.senders[usize::from(core)].get_or_insert_with(|| {
            // A core that stands still must not keep the others trying to get rid of an overflow.
            let (overflow, setting) = match self.node.is_isolated(core) {
                true => (0, "Config::lane_messages"),
                false => (config.lane_overflow, "Config::lane_overflow"),
            };
            let (sender, receiver) = lane(config.lane_messages, overflow);
            let ends =
                Arc::new(LaneEnds { from: self.core, bytes: AtomicUsize::new(0), stalled: AtomicBool::new(false) });
            self.node.cores[usize::from(core)].inject_always(Injected::Lane(receiver, ends.clone()));
            To { lane: sender, ends, setting }
        });
        if !lanes.touched.contains(&core) {
            lanes.touched.push(core);
        }
        send(sender)
    }

    /// The lane of another core has arrived.
    pub fn attach_lane(&self, lane: LaneReceiver<LaneItem>, ends: Arc<LaneEnds>) {
        self.lanes.borrow_mut().receivers.push(From { lane, ends });
    }

    /// Handles what waits in the lanes to this core: up to `budget` items of each, in order.
    pub fn receive_lanes(&self, budget: usize, path: &Rc<dyn ReplyPath>) {
        let lanes = self.lanes.borrow().receivers.len();
        for lane in 0..lanes {
            let waiting = self.lanes.borrow().receivers[lane].lane.depth();
            let items = waiting.min(budget);
            // One at a time, since handling one may come back here.
            for _ in 0..items {
                let Some(item) = self.take_lane_item(lane) else { break };
                self.on_lane_item(item, path);
            }
            if items > 0 {
                self.count(|counters| {
                    counters.lane_received += items as u64;
                    counters.lane_depth_max = counters.lane_depth_max.max(waiting as u64);
                });
            }
        }
    }

    #[inline]
    fn take_lane_item(&self, lane: usize) -> Option<LaneItem> {
        let From { lane, ends } = &mut self.lanes.borrow_mut().receivers[lane];
        let item = lane.pop()?;
        let size = item.bytes();
        if size > 0 {
            ends.bytes.fetch_sub(size, Ordering::Relaxed);
        }
        if self.node.is_isolated(self.core) {
            self.tell_if_stalled(ends);
        }
        Some(item)
    }

    /// There is room again in a lane to this core, which stood still: its sender has a turn if it has more.
    fn tell_if_stalled(&self, ends: &LaneEnds) {
        // Pairs with the fence in `flush_or_stall`.
        fence(Ordering::SeqCst);
        if ends.stalled.swap(false, Ordering::Relaxed) {
            self.node.cores[usize::from(ends.from)].inject_always(Injected::Job(Box::new(|_| ())));
        }
    }

    /// Moves what overflowed into the lanes as far as it goes, and calls `wake` for each core that was sent
    /// something and sleeps. True if something did not fit: try again soon.
    pub fn flush_lanes(&self, mut wake: impl FnMut(u16)) -> bool {
        let mut lanes = self.lanes.borrow_mut();
        let Lanes { senders, touched, .. } = &mut *lanes;
        touched.retain(|&core| {
            let Some(to) = &mut senders[usize::from(core)] else { return false };
            let left = match to.lane.overflow_len() {
                0 => 0,
                _ if self.node.is_isolated(core) => to.flush_or_stall(),
                _ => to.lane.flush(),
            };
            if self.node.cores[usize::from(core)].park.claim_wake() {
                self.count(|counters| counters.wakes_sent += 1);
                wake(core);
            } else {
                self.count(|counters| counters.wakes_suppressed += 1);
            }
            // A core that has ended takes nothing any more.
            left > 0 && to.lane.is_connected()
        });
        // One that stands still is tried again with the next turn, which it asks for when it goes on.
        touched.iter().any(|&core| !self.node.is_isolated(core) || self.closing.get().is_some())
    }
}

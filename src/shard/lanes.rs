//! The lanes of a core, and what travels in them.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

use crate::dispatch::call::{Call, Origin};
use crate::dispatch::event::Event;
use crate::dispatch::reply_path::{Reply, ReplyPath};
use crate::mesh::lane::{LaneReceiver, LaneSender, lane};
use crate::mesh::parcel::Parcel;
use crate::net::connection_id::ConnectionId;
use crate::net::errors::AskError;
use crate::wire::failure::OwnedFailure;
use crate::wire::frame::EndpointId;
use crate::wire::message::{Message, MessageId};

use super::node::Injected;
use super::relay::Relay;
use super::shard::Shard;

/// What one core tells another: the head of a letter, which says what is in its parcel.
#[derive(Clone, Copy, Debug, Default)]
pub enum Head {
    /// A message of the sender's.
    Request {
        /// To this endpoint.
        endpoint: EndpointId,
        /// Its type.
        message: MessageId,
        /// The ask, as the sender knows it; 0 for a one-way message.
        request: u64,
        /// When the asker gives up.
        deadline: u64,
    },
    /// The reply to an ask of yours.
    Reply {
        /// The ask.
        request: u64,
    },
    /// A [`LaneItem`].
    #[default]
    Item,
}

/// What one core tells another beside the messages and replies of its own.
pub enum LaneItem {
    /// Deliver this message of a peer.
    Request {
        /// To this endpoint.
        endpoint: EndpointId,
        /// Which peer asks, and until when.
        call: Call,
        /// Its type.
        message: MessageId,
        /// The message.
        bytes: Vec<u8>,
    },
    /// An ask of yours failed.
    Failure {
        /// The ask.
        request: u64,
        /// What went wrong.
        failure: OwnedFailure,
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

// Else a parcel would allocate for each.
const _: () = assert!(size_of::<LaneItem>() <= Parcel::INLINE && align_of::<LaneItem>() <= 16);

impl LaneItem {
    /// Bytes that it has outside of itself. What is inside is bounded by the number of items.
    #[inline]
    fn bytes(&self) -> usize {
        match self {
            LaneItem::Request { bytes, .. } => bytes.len(),
            LaneItem::Relay(relay) => relay.bytes(),
            _ => 0,
        }
    }
}

/// Bytes that a letter has outside of itself.
#[inline]
fn bytes_outside(head: Head, parcel: &Parcel) -> usize {
    match head {
        Head::Request { .. } if parcel.is_boxed() => parcel.size(),
        Head::Request { .. } | Head::Reply { .. } => 0,
        Head::Item => parcel.get::<LaneItem>().map_or(0, LaneItem::bytes),
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
    /// Cores that were sent something before the last flush, and are not woken yet.
    pub(super) unwoken: Vec<u16>,
    receivers: Vec<From>,
}

/// A lane to another core.
struct To {
    lane: LaneSender<Head>,
    ends: Arc<LaneEnds>,
    /// What bounds the number of its messages.
    setting: &'static str,
}

/// A lane from another core.
struct From {
    lane: LaneReceiver<Head>,
    ends: Arc<LaneEnds>,
}

impl To {
    /// The setting that refuses a request which has `size` bytes outside of its letter, if one does. Else those are
    /// counted: it is sent next.
    #[inline]
    fn refusing(&mut self, size: usize, limit: usize) -> Option<&'static str> {
        if !self.lane.has_room() {
            return Some(self.setting);
        }
        if size > 0 {
            // As with an inbox, a large message still fits an empty lane.
            let waiting = self.ends.bytes.load(Ordering::Relaxed);
            if waiting > 0 && waiting + size > limit {
                return Some("Config::inbox_bytes");
            }
            self.ends.bytes.fetch_add(size, Ordering::Relaxed);
        }
        None
    }

    #[inline]
    fn send_item(&mut self, item: LaneItem) {
        self.lane.send(Head::Item, |parcel| parcel.fill(item));
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

impl From {
    /// Where it comes from, and how many letters wait.
    #[inline]
    fn waiting(&self) -> (u16, usize) {
        (self.ends.from, self.lane.depth())
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
    /// Sends a message; drops it if too many wait in the lane and its overflow, or too many bytes.
    #[inline]
    pub fn lane_request<M: Message>(
        &self,
        core: u16,
        endpoint: EndpointId,
        call: &Call,
        message: M,
    ) -> Result<(), LaneFull> {
        let size = if Parcel::has_place_for::<M>() { 0 } else { size_of::<M>() };
        let Call { request, deadline, .. } = *call;
        let head = Head::Request { endpoint, message: M::ID, request, deadline };
        // What is refused is dropped out here, where the lanes are not borrowed: its drop is the user's code.
        let mut message = Some(message);
        self.lane_try(core, size, |to| {
            to.lane.send(head, |parcel| {
                if let Some(message) = message.take() {
                    parcel.fill(message)
                }
            })
        })
    }

    /// Sends something else that may be refused.
    pub fn lane_item(&self, core: u16, item: LaneItem) -> Result<(), LaneFull> {
        let size = item.bytes();
        let mut item = Some(item);
        self.lane_try(core, size, |to| item.take().into_iter().for_each(|item| to.send_item(item)))
    }

    #[inline]
    fn lane_try(&self, core: u16, size: usize, send: impl FnOnce(&mut To)) -> Result<(), LaneFull> {
        let limit = self.node.config.inbox_bytes;
        let refusing = self.with_lane(core, |to| {
            let refusing = to.refusing(size, limit);
            if refusing.is_none() {
                send(to);
            }
            refusing
        });
        if let Some(setting) = refusing {
            return Err(LaneFull { setting });
        }
        self.count(|counters| counters.lane_sent += 1);
        Ok(())
    }

    /// Sends a cancellation. A full lane drops it, which only means that the work is done in vain.
    pub fn lane_cancel(&self, core: u16, item: LaneItem) {
        if self.lane_item(core, item).is_err() {
            self.count(|counters| counters.cancels_lost += 1);
        }
    }

    /// Sends the reply to an ask of another core. It is never refused, as all [answers](Self::lane_answer).
    #[inline]
    pub fn lane_reply(&self, core: u16, request: u64, reply: &mut dyn Reply) {
        self.with_lane(core, |to| to.lane.send(Head::Reply { request }, |parcel| reply.pack(parcel)));
        self.answered(core);
    }

    /// Sends an answer. It is never refused: there is at most one for each request that the other core sent, and
    /// those are bounded there.
    pub fn lane_answer(&self, core: u16, item: LaneItem) {
        self.with_lane(core, |to| to.send_item(item));
        self.answered(core);
    }

    #[inline]
    fn answered(&self, core: u16) {
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
                to.send_item(item);
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

    #[inline]
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
    pub fn attach_lane(&self, lane: LaneReceiver<Head>, ends: Arc<LaneEnds>) {
        self.lanes.borrow_mut().receivers.push(From { lane, ends });
    }

    /// Handles what waits in the lanes to this core: up to `budget` letters of each, in order.
    pub fn receive_lanes(&self, budget: usize, path: &Rc<dyn ReplyPath>) {
        let lanes = self.lanes.borrow().receivers.len();
        let mut parcel = Parcel::default();
        for lane in 0..lanes {
            let (from, waiting) = self.lanes.borrow().receivers[lane].waiting();
            let letters = waiting.min(budget);
            // Each has left its place when it is handled, which may block the core, or come back here.
            for _ in 0..letters {
                let Some(head) = self.take_letter(lane, &mut parcel) else { break };
                self.on_letter(head, &mut parcel, from, path);
                parcel.clear();
            }
            if letters > 0 {
                self.count(|counters| {
                    counters.lane_received += letters as u64;
                    counters.lane_depth_max = counters.lane_depth_max.max(waiting as u64);
                });
            }
        }
    }

    #[inline]
    fn take_letter(&self, lane: usize, parcel: &mut Parcel) -> Option<Head> {
        let From { lane, ends } = &mut self.lanes.borrow_mut().receivers[lane];
        let head = lane.receive(parcel)?;
        let bytes = bytes_outside(head, parcel);
        if bytes > 0 {
            ends.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        if self.node.is_isolated(self.core) {
            self.tell_if_stalled(ends);
        }
        Some(head)
    }

    /// There is room again in a lane to this core, which stood still: its sender has a turn if it has more.
    fn tell_if_stalled(&self, ends: &LaneEnds) {
        // Pairs with the fence in `flush_or_stall`.
        fence(Ordering::SeqCst);
        if ends.stalled.swap(false, Ordering::Relaxed) {
            self.node.cores[usize::from(ends.from)].inject_always(Injected::Job(Box::new(|_| ())));
        }
    }

    /// Moves what overflowed into the lanes as far as it goes. Each core that was sent something is to be woken before
    /// the next turn. True if something did not fit: try again soon.
    pub fn flush_lanes(&self) -> bool {
        let mut lanes = self.lanes.borrow_mut();
        let Lanes { senders, touched, unwoken, .. } = &mut *lanes;
        touched.retain(|&core| {
            let Some(to) = &mut senders[usize::from(core)] else { return false };
            let left = match to.lane.overflow_len() {
                0 => 0,
                _ if self.node.is_isolated(core) => to.flush_or_stall(),
                _ => to.lane.flush(),
            };
            if !unwoken.contains(&core) {
                unwoken.push(core);
            }
            // A core that has ended takes nothing any more.
            left > 0 && to.lane.is_connected()
        });
        // One that stands still is tried again with the next turn, which it asks for when it goes on.
        touched.iter().any(|&core| !self.node.is_isolated(core) || self.closing.get().is_some())
    }
}

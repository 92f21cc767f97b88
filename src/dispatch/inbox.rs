//! The queue in front of an endpoint.

use std::collections::VecDeque;

use super::ask_index::AskIndex;
use super::call::{Call, Origin};
use super::erased::Payload;
use super::event::Event;
use crate::mesh::parcel::Parcel;
use crate::wire::limits::DecodeLimits;
use crate::wire::message::MessageId;

/// A message that waits for its endpoint.
#[derive(Debug)]
pub struct Envelope {
    /// Who asks, and until when.
    pub call: Call,
    /// The type of the message.
    pub message: MessageId,
    /// The message.
    pub body: Body,
}

/// A message that waits: moved here, or still encoded. It is decoded only when its turn comes, so that expired work
/// costs no decoding.
#[derive(Debug)]
pub enum Body {
    /// The value, from a core of this env. Boxed, so that it is not moved about with its place in the inbox.
    Value(Box<Parcel>),
    /// The bytes, from a peer.
    Bytes(Vec<u8>),
}

impl Body {
    /// As the handler takes it; what it may cost if it is encoded still.
    #[inline]
    pub fn payload<'a>(&'a mut self, limits: &'a DecodeLimits) -> Payload<'a> {
        match self {
            Body::Value(parcel) => Payload::Value(parcel),
            Body::Bytes(bytes) => Payload::Bytes(bytes, limits),
        }
    }

    /// Size of the message: of its encoding, or of the value itself. What a value owns elsewhere is not seen.
    #[inline]
    pub fn bytes(&self) -> usize {
        match self {
            Body::Value(parcel) => parcel.size(),
            Body::Bytes(bytes) => bytes.len(),
        }
    }

    /// Bytes that the message has outside of this body, which itself has one size: 0 for most values.
    #[inline]
    pub fn bytes_outside(&self) -> usize {
        match self {
            Body::Value(parcel) if !parcel.is_boxed() => 0,
            body => body.bytes(),
        }
    }
}

/// What waits in an inbox.
#[derive(Debug)]
pub enum Item {
    /// A message.
    Message(Envelope),
    /// News of a connection.
    Event(Event),
    /// Nothing: its ask was cancelled. Never at the front.
    Gap,
}

impl Item {
    #[inline]
    fn bytes(&self) -> usize {
        match self {
            Item::Message(envelope) => envelope.body.bytes(),
            Item::Event(_) | Item::Gap => 0,
        }
    }
}

/// How much an inbox holds.
#[derive(Clone, Copy, Debug)]
pub struct InboxLimits {
    /// Messages, and as many events.
    pub messages: usize,
    /// Bytes of messages.
    pub bytes: usize,
}

impl InboxLimits {
    /// Which setting refuses a message of `size` bytes, if `messages` wait that have `bytes`. A message larger than the
    /// byte limit still fits where no other waits, or it could never be handled.
    #[inline]
    fn refusing(&self, messages: usize, bytes: usize, size: usize) -> Option<&'static str> {
        if messages >= self.messages {
            Some("Config::inbox_messages")
        } else if bytes > 0 && bytes + size > self.bytes {
            Some("Config::inbox_bytes")
        } else {
            None
        }
    }
}

/// A message that found no room.
#[derive(Debug)]
pub struct Refused {
    /// It comes back: its drop is the user's code, and is not for the inbox.
    pub envelope: Envelope,
    /// What bounds the inbox.
    pub setting: &'static str,
}

/// A bounded queue of messages and events, first in, first out.
///
/// An ask that is cancelled leaves a gap, so that nothing behind it moves. The front is never a gap, and there are
/// never more than half as many gaps as places, beyond a few.
#[derive(Debug, Default)]
pub struct Inbox {
    queue: VecDeque<Item>,
    events: usize,
    gaps: usize,
    bytes: usize,
    /// The asks by their places, which count from the oldest that the index has seen; there are gaps only while it
    /// exists.
    index: AskIndex,
    /// The place of the front.
    first: u64,
}

/// Gaps that are too few to close.
const FEW_GAPS: usize = 32;

impl Inbox {
    /// Appends a message, or gives it back if there is no room.
    #[inline]
    pub fn push(&mut self, envelope: Envelope, limits: &InboxLimits) -> Result<(), Refused> {
        let bytes = envelope.body.bytes();
        if let Some(setting) = limits.refusing(self.messages(), self.bytes, bytes) {
            return Err(Refused { envelope, setting });
        }
        self.bytes += bytes;
        self.queue.push_back(Item::Message(envelope));
        if self.index.is_built() {
            self.index_last();
        }
        Ok(())
    }

    /// Appends an event; false if there is no room. Events take no room from messages.
    pub fn push_event(&mut self, event: Event, limits: &InboxLimits) -> bool {
        let room = self.events < limits.messages;
        if room {
            self.events += 1;
            self.queue.push_back(Item::Event(event));
        }
        room
    }

    /// Which setting would refuse a message of `size` bytes, if any.
    pub fn refusing(&self, size: usize, limits: &InboxLimits) -> Option<&'static str> {
        limits.refusing(self.messages(), self.bytes, size)
    }

    /// What has waited longest.
    #[inline]
    pub fn pop(&mut self) -> Option<Item> {
        // Before the item moves: it is moved once.
        if self.index.is_built() {
            self.unindex_front();
        }
        let front = self.queue.front()?;
        self.bytes -= front.bytes();
        self.events -= usize::from(matches!(front, Item::Event(_)));
        self.queue.pop_front()
    }

    /// What has waited longest, which stays.
    pub fn front(&self) -> Option<&Item> {
        self.queue.front()
    }

    /// Takes an ask out whose asker no longer waits: one lookup, however much waits and whether the ask does.
    pub fn remove(&mut self, origin: Origin, request: u64) -> Option<Envelope> {
        // A one-way message has no id to be cancelled by.
        if self.queue.is_empty() || request == 0 {
            return None;
        }
        if !self.index.is_built() {
            self.build_index();
        }
        let place = self.index.take(origin, request)?.checked_sub(self.first)?;
        let item = self.queue.get_mut(usize::try_from(place).ok()?)?;
        let Item::Message(envelope) = std::mem::replace(item, Item::Gap) else { return None };
        self.bytes -= envelope.body.bytes();
        self.gaps += 1;
        self.drop_front_gaps();
        if self.gaps > FEW_GAPS && self.gaps > self.queue.len() / 2 {
            self.close_gaps();
            self.build_index();
        }
        Some(envelope)
    }

    fn build_index(&mut self) {
        self.first = 0;
        let asks = (0..).zip(&self.queue).filter_map(|(place, item)| match item {
            Item::Message(Envelope { call, .. }) if call.request != 0 => Some((call.origin, call.request, place)),
            _ => None,
        });
        self.index.build(asks);
    }

    /// A message was queued.
    #[cold]
    fn index_last(&mut self) {
        let place = self.first + self.queue.len() as u64 - 1;
        if let Some(Item::Message(Envelope { call, .. })) = self.queue.back()
            && call.request != 0
            && !self.index.insert(call.origin, call.request, place)
        {
            self.index.clear();
            self.close_gaps();
        }
    }

    /// The front is about to leave, and what is behind it becomes the front.
    #[cold]
    fn unindex_front(&mut self) {
        if let Some(Item::Message(Envelope { call, .. })) = self.queue.front()
            && call.request != 0
        {
            self.index.remove(call.origin, call.request, self.first);
        }
        self.first += 1;
        while let Some(Item::Gap) = self.queue.get(1) {
            self.queue.swap_remove_front(1);
            self.gaps -= 1;
            self.first += 1;
        }
        if self.queue.len() <= 1 {
            self.index.clear();
        }
    }

    fn drop_front_gaps(&mut self) {
        while let Some(Item::Gap) = self.queue.front() {
            self.queue.pop_front();
            self.gaps -= 1;
            self.first += 1;
        }
        if self.queue.is_empty() {
            self.index.clear();
        }
    }

    fn close_gaps(&mut self) {
        if self.gaps > 0 {
            self.index.steps.add(self.queue.len());
            self.queue.retain(|item| !matches!(item, Item::Gap));
            self.gaps = 0;
        }
    }

    #[inline]
    fn messages(&self) -> usize {
        self.queue.len() - self.events - self.gaps
    }

    /// Whether nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::call::NO_DEADLINE;

    fn envelope(request: u64, bytes: usize) -> Envelope {
        let call = Call { origin: Origin::Here, request, deadline: NO_DEADLINE, resolved: None, near: true };
        Envelope { call, message: MessageId(1), body: Body::Bytes(vec![0; bytes]) }
    }

    /// The next messages, up to `count`.
    fn requests(inbox: &mut Inbox, count: usize) -> Vec<u64> {
        let pop = || match inbox.pop()? {
            Item::Message(envelope) => Some(envelope.call.request),
            other => panic!("{other:?}"),
        };
        std::iter::from_fn(pop).take(count).collect()
    }

    #[test]
    fn events_make_no_message_larger() {
        assert_eq!(size_of::<Item>(), size_of::<Envelope>());
    }

    #[test]
    fn both_limits_hold_and_room_comes_back() {
        let limits = InboxLimits { messages: 3, bytes: 100 };
        let mut inbox = Inbox::default();
        assert!(inbox.push(envelope(1, 500), &limits).is_ok(), "a large one fits an empty inbox");
        assert_eq!(inbox.push(envelope(2, 1), &limits).unwrap_err().setting, "Config::inbox_bytes");
        assert_eq!(requests(&mut inbox, 1), [1]);
        for request in 0..3 {
            assert!(inbox.push(envelope(request, 10), &limits).is_ok());
        }
        assert_eq!(inbox.push(envelope(4, 1), &limits).unwrap_err().setting, "Config::inbox_messages");
        assert_eq!(inbox.remove(Origin::Here, 1).unwrap().call.request, 1);
        assert!(inbox.remove(Origin::Core(1), 0).is_none());
        assert_eq!((requests(&mut inbox, 3), inbox.bytes), (vec![0, 2], 0));
    }

    #[test]
    fn a_cancellation_looks_at_no_other_message() {
        let limits = InboxLimits { messages: 4096, bytes: 1 << 20 };
        let mut inbox = Inbox::default();
        for request in 1..=4096 {
            inbox.push(envelope(request, 10), &limits).unwrap();
        }
        for unknown in 10_001..=20_000 {
            assert!(inbox.remove(Origin::Here, unknown).is_none());
        }
        for known in (1..=4096).rev() {
            assert_eq!(inbox.remove(Origin::Here, known).unwrap().call.request, known);
        }
        assert!(inbox.is_empty());
        let steps = inbox.index.steps.taken();
        assert!(steps <= 4 * (4096 + 10_000 + 4096), "{steps} steps");
    }

    #[test]
    fn what_is_cancelled_leaves_its_room_and_the_order_of_the_others() {
        let limits = InboxLimits { messages: 100, bytes: 1 << 20 };
        let mut inbox = Inbox::default();
        for request in 1..=100 {
            inbox.push(envelope(request, 10), &limits).unwrap();
        }
        // All but each tenth, from the middle outwards, so that gaps are closed on the way.
        for request in (50..=100).chain(1..50).filter(|request| request % 10 != 0) {
            assert_eq!(inbox.remove(Origin::Here, request).unwrap().call.request, request);
            assert!(inbox.remove(Origin::Here, request).is_none(), "it is gone");
        }
        for request in 101..=190 {
            inbox.push(envelope(request, 10), &limits).unwrap();
        }
        assert!(inbox.push(envelope(191, 10), &limits).is_err(), "{inbox:?}");
        assert_eq!(requests(&mut inbox, 12), [10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 101, 102]);
        assert_eq!(inbox.remove(Origin::Here, 104).unwrap().call.request, 104);
        assert_eq!(requests(&mut inbox, 2), [103, 105]);
        assert_eq!((requests(&mut inbox, 1000).len(), inbox.bytes, inbox.gaps, inbox.is_empty()), (85, 0, 0, true));
    }

    #[test]
    fn an_id_that_repeats_means_the_last_ask_and_the_others_stay() {
        let limits = InboxLimits { messages: 10, bytes: 100 };
        let mut inbox = Inbox::default();
        for bytes in [1, 2, 3] {
            inbox.push(envelope(7, bytes), &limits).unwrap();
        }
        inbox.push(envelope(0, 4), &limits).unwrap();
        assert_eq!(inbox.remove(Origin::Here, 7).unwrap().body.bytes(), 3);
        assert!(inbox.remove(Origin::Here, 7).is_none() && inbox.remove(Origin::Here, 0).is_none());
        assert_eq!((requests(&mut inbox, 5), inbox.bytes), (vec![7, 7, 0], 0));
    }

    #[test]
    fn asks_pay_for_an_index_only_for_a_while_after_a_cancellation() {
        let limits = InboxLimits { messages: 100, bytes: 100 };
        let mut inbox = Inbox::default();
        inbox.push(envelope(1, 1), &limits).unwrap();
        inbox.push(envelope(2, 1), &limits).unwrap();
        assert!(inbox.remove(Origin::Here, 2).is_some());
        for request in 3..1000 {
            inbox.push(envelope(request, 1), &limits).unwrap();
            assert_eq!(requests(&mut inbox, 1).len(), 1);
        }
        let steps = inbox.index.steps.taken();
        assert!(steps < 200 && inbox.gaps == 0, "{steps} steps, {} gaps", inbox.gaps);
        assert_eq!(inbox.remove(Origin::Here, 999).unwrap().call.request, 999);
    }

    #[test]
    fn a_value_counts_with_its_own_size() {
        let size = |value: Body| (value.bytes(), value.bytes_outside());
        assert_eq!(size(Body::Value(Parcel::new([0u8; 100]).into())), (100, 0));
        assert_eq!(size(Body::Value(Parcel::new([0u8; 1000]).into())), (1000, 1000));
        assert_eq!(size(Body::Bytes(vec![0; 10])), (10, 10));
    }
}

//! The queue in front of an endpoint.

use std::collections::VecDeque;

use super::call::{Call, Origin};
use super::erased::Payload;
use super::event::Event;
use crate::mesh::parcel::Parcel;
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
    /// The value, from a core of this env.
    Value(Parcel),
    /// The bytes, from a peer.
    Bytes(Vec<u8>),
}

impl Body {
    /// As the handler takes it.
    #[inline]
    pub fn payload(&mut self) -> Payload<'_> {
        match self {
            Body::Value(parcel) => Payload::Value(parcel),
            Body::Bytes(bytes) => Payload::Bytes(bytes),
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
}

impl Item {
    #[inline]
    fn bytes(&self) -> usize {
        match self {
            Item::Message(envelope) => envelope.body.bytes(),
            Item::Event(_) => 0,
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
#[derive(Debug, Default)]
pub struct Inbox {
    queue: VecDeque<Item>,
    events: usize,
    bytes: usize,
}

impl Inbox {
    /// Appends a message, or gives it back if there is no room.
    #[inline]
    #[expect(clippy::result_large_err, reason = "the message itself comes back, and moves are what it is made for")]
    pub fn push(&mut self, envelope: Envelope, limits: &InboxLimits) -> Result<(), Refused> {
        let bytes = envelope.body.bytes();
        if let Some(setting) = limits.refusing(self.messages(), self.bytes, bytes) {
            return Err(Refused { envelope, setting });
        }
        self.bytes += bytes;
        self.queue.push_back(Item::Message(envelope));
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
        let item = self.queue.pop_front()?;
        self.bytes -= item.bytes();
        self.events -= usize::from(matches!(item, Item::Event(_)));
        Some(item)
    }

    /// What has waited longest, which stays.
    pub fn front(&self) -> Option<&Item> {
        self.queue.front()
    }

    /// Takes an ask out whose asker no longer waits.
    pub fn remove(&mut self, origin: Origin, request: u64) -> Option<Envelope> {
        let is_it =
            |item: &Item| matches!(item, Item::Message(e) if e.call.origin == origin && e.call.request == request);
        let at = self.queue.iter().position(is_it)?;
        let Item::Message(envelope) = self.queue.remove(at)? else { return None };
        self.bytes -= envelope.body.bytes();
        Some(envelope)
    }

    #[inline]
    fn messages(&self) -> usize {
        self.queue.len() - self.events
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
        let call = Call { origin: Origin::Here, request, deadline: NO_DEADLINE, resolved: None };
        Envelope { call, message: MessageId(1), body: Body::Bytes(vec![0; bytes]) }
    }

    /// The next messages, up to `count`.
    fn requests(inbox: &mut Inbox, count: usize) -> Vec<u64> {
        let pop = || match inbox.pop()? {
            Item::Message(envelope) => Some(envelope.call.request),
            Item::Event(event) => panic!("{event:?}"),
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
    fn a_value_counts_with_its_own_size() {
        let size = |value: Body| (value.bytes(), value.bytes_outside());
        assert_eq!(size(Body::Value(Parcel::new([0u8; 100]))), (100, 0));
        assert_eq!(size(Body::Value(Parcel::new([0u8; 1000]))), (1000, 1000));
        assert_eq!(size(Body::Bytes(vec![0; 10])), (10, 10));
    }
}

//! The queue in front of an endpoint.

use std::collections::VecDeque;

use super::call::{Call, Origin};
use super::erased::Payload;
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
    pub fn payload(&mut self) -> Payload<'_> {
        match self {
            Body::Value(parcel) => Payload::Value(std::mem::replace(parcel, Parcel::new(()))),
            Body::Bytes(bytes) => Payload::Bytes(bytes),
        }
    }

    /// Size of a message that is still encoded; 0 for a value.
    pub fn bytes(&self) -> usize {
        match self {
            Body::Value(_) => 0,
            Body::Bytes(bytes) => bytes.len(),
        }
    }
}

/// How much an inbox holds.
#[derive(Clone, Copy, Debug)]
pub struct InboxLimits {
    /// Messages.
    pub messages: usize,
    /// Bytes of encoded messages.
    pub bytes: usize,
}

/// A bounded queue of messages, first in, first out.
#[derive(Debug, Default)]
pub struct Inbox {
    queue: VecDeque<Envelope>,
    bytes: usize,
}

impl Inbox {
    /// Appends a message, or gives it back if there is no room: its drop is the user's code, and is not for here.
    #[inline]
    #[expect(clippy::result_large_err, reason = "the message itself comes back, and moves are what it is made for")]
    pub fn push(&mut self, envelope: Envelope, limits: &InboxLimits) -> Result<(), Envelope> {
        let bytes = envelope.body.bytes();
        // A message larger than the byte limit still fits an empty inbox, or it could never be handled.
        if self.queue.len() >= limits.messages || (self.bytes > 0 && self.bytes + bytes > limits.bytes) {
            return Err(envelope);
        }
        self.bytes += bytes;
        self.queue.push_back(envelope);
        Ok(())
    }

    /// The oldest message.
    #[inline]
    pub fn pop(&mut self) -> Option<Envelope> {
        let envelope = self.queue.pop_front()?;
        self.bytes -= envelope.body.bytes();
        Some(envelope)
    }

    /// Takes an ask out whose asker no longer waits.
    pub fn remove(&mut self, origin: Origin, request: u64) -> Option<Envelope> {
        let at = self.queue.iter().position(|e| e.call.origin == origin && e.call.request == request)?;
        let envelope = self.queue.remove(at)?;
        self.bytes -= envelope.body.bytes();
        Some(envelope)
    }

    /// Messages that wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether none waits.
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

    #[test]
    fn both_limits_hold_and_room_comes_back() {
        let limits = InboxLimits { messages: 3, bytes: 100 };
        let mut inbox = Inbox::default();
        assert!(inbox.push(envelope(1, 500), &limits).is_ok(), "a large one fits an empty inbox");
        assert!(inbox.push(envelope(2, 1), &limits).is_err());
        assert_eq!(inbox.pop().unwrap().call.request, 1);
        for request in 0..3 {
            assert!(inbox.push(envelope(request, 10), &limits).is_ok());
        }
        assert!(inbox.push(envelope(4, 1), &limits).is_err());
        assert_eq!(inbox.remove(Origin::Here, 1).unwrap().call.request, 1);
        assert!(inbox.remove(Origin::Core(1), 0).is_none());
        let order: Vec<_> = std::iter::from_fn(|| inbox.pop()).map(|e| e.call.request).collect();
        assert_eq!((order, inbox.bytes), (vec![0, 2], 0));
    }
}

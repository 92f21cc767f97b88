//! Messages on their way into an endpoint: handled at once, queued or refused.

use std::rc::Rc;

use super::call::{Call, NO_DEADLINE};
use super::dispatcher::Dispatcher;
use super::erased::Payload;
use super::inbox::{Body, Envelope};
use super::reply_path::{ReplyPath, refuse};
use super::slot::Slot;
use crate::mesh::parcel::Parcel;
use crate::wire::failure::FailureCode;
use crate::wire::frame::EndpointId;
use crate::wire::message::MessageId;

impl Dispatcher {
    /// Delivers a message that lies in a receive buffer: handled at once if its endpoint is idle.
    #[inline]
    pub fn deliver_bytes(
        &self,
        id: EndpointId,
        call: Call,
        message: MessageId,
        bytes: &[u8],
        path: &Rc<dyn ReplyPath>,
    ) {
        let Some(slot) = self.accepting(id, &call, path) else { return };
        if slot.is_free_for(message) {
            self.handle(&slot, &call, message, Payload::Bytes(bytes, &self.decode_limits), path);
            return;
        }
        let body = self.spares.borrow_mut().copy(bytes);
        self.queue(&slot, Envelope { call, message, body: Body::Bytes(body) }, path);
    }

    /// Delivers a message of another core: handled at once, where it lies, if its endpoint is idle and `now` allows it.
    #[inline]
    pub fn deliver_parcel(
        &self,
        id: EndpointId,
        call: Call,
        message: MessageId,
        parcel: &mut Parcel,
        now: bool,
        path: &Rc<dyn ReplyPath>,
    ) {
        let Some(slot) = self.accepting(id, &call, path) else { return };
        if now && slot.is_free_for(message) {
            self.handle(&slot, &call, message, Payload::Value(parcel), path);
        } else if !self.has_expired(&call, path) {
            let mut waiting = self.parcels.take();
            parcel.move_into(&mut waiting);
            self.queue(&slot, Envelope { call, message, body: Body::Value(waiting) }, path);
        }
    }

    /// Delivers a message of a peer that another core has passed on: likewise.
    pub fn deliver_passed(
        &self,
        id: EndpointId,
        call: Call,
        message: MessageId,
        bytes: Vec<u8>,
        now: bool,
        path: &Rc<dyn ReplyPath>,
    ) {
        let Some(slot) = self.accepting(id, &call, path) else { return };
        if now && slot.is_free_for(message) {
            self.handle(&slot, &call, message, Payload::Bytes(&bytes, &self.decode_limits), path);
            self.spares.borrow_mut().give(bytes);
        } else if !self.has_expired(&call, path) {
            self.queue(&slot, Envelope { call, message, body: Body::Bytes(bytes) }, path);
        }
    }

    /// Whether a message could be handled at once: its endpoint exists, takes messages and has nothing else to do.
    #[inline]
    pub fn is_free(&self, id: EndpointId, message: MessageId) -> bool {
        let slots = self.slots.borrow();
        let slot = slots.get(id.slot()).and_then(Option::as_ref).filter(|slot| slot.id == id);
        slot.is_some_and(|slot| !slot.closing.get() && slot.is_free_for(message))
    }

    /// Delivers a message into its endpoint's inbox.
    #[inline]
    pub fn deliver(&self, id: EndpointId, envelope: Envelope, path: &Rc<dyn ReplyPath>) {
        if let Some(slot) = self.accepting(id, &envelope.call, path) {
            self.queue(&slot, envelope, path);
        }
    }

    /// A message as it waits in an inbox.
    #[inline]
    pub fn pack<M: Send + 'static>(&self, message: M) -> Body {
        let mut parcel = self.parcels.take();
        parcel.fill(message);
        Body::Value(parcel)
    }

    /// The endpoint, or the asker is told that there is none.
    #[inline]
    fn accepting(&self, id: EndpointId, call: &Call, path: &Rc<dyn ReplyPath>) -> Option<Rc<Slot>> {
        match self.find(id) {
            Some(slot) if !slot.closing.get() => Some(slot),
            Some(_) => self.refuse(FailureCode::Stopped, id, call, path),
            None => self.refuse(self.missing(), id, call, path),
        }
    }

    #[cold]
    fn refuse(&self, refusal: FailureCode, id: EndpointId, call: &Call, path: &Rc<dyn ReplyPath>) -> Option<Rc<Slot>> {
        self.count(|stats| stats.unknown += 1);
        if call.request == 0 {
            path.gone(call.origin, id);
        }
        refuse(call, path, refusal, "");
        None
    }

    /// Why there is no such endpoint.
    fn missing(&self) -> FailureCode {
        if self.stopping.get() { FailureCode::Stopped } else { FailureCode::NoEndpoint }
    }

    #[inline]
    fn queue(&self, slot: &Slot, envelope: Envelope, path: &Rc<dyn ReplyPath>) {
        let pushed = slot.inbox.borrow_mut().push(envelope, &self.limits);
        match pushed {
            Ok(()) => {
                self.queued.set(self.queued.get() + 1);
                self.executor.wake(slot.key);
            }
            Err(refused) => {
                self.count(|stats| stats.overloaded += 1);
                let call = &refused.envelope.call;
                if !call.is_ask() {
                    return self.dropped(slot, call, refused.setting, &**path);
                }
                refuse(call, path, FailureCode::Overloaded, &full_inbox(slot, refused.setting));
            }
        }
    }

    /// Whether an inbox takes one more message of `size` bytes, or why not; for senders on the same core, who are told
    /// at once.
    pub fn has_room(&self, id: EndpointId, size: usize) -> Result<(), (FailureCode, String)> {
        let Some(slot) = self.find(id) else { return Err((self.missing(), String::new())) };
        if slot.closing.get() {
            return Err((FailureCode::Stopped, String::new()));
        }
        let refusing = slot.inbox.borrow().refusing(size, &self.limits);
        refusing.map_or(Ok(()), |setting| {
            self.count(|stats| stats.overloaded += 1);
            Err((FailureCode::Overloaded, full_inbox(&slot, setting)))
        })
    }

    /// Whether the time of a call is up; then it is refused.
    #[inline]
    pub fn has_expired(&self, call: &Call, path: &Rc<dyn ReplyPath>) -> bool {
        let expired = call.deadline != NO_DEADLINE && call.deadline <= path.now();
        if expired {
            self.count(|stats| stats.expired += 1);
            refuse(call, path, FailureCode::Expired, "");
        }
        expired
    }
}

/// What is full, and what bounds it.
fn full_inbox(slot: &Slot, setting: &str) -> String {
    format!("the inbox of {} ({setting})", slot.name)
}

//! Handlers that do not await, called like functions by asks of their own core.

use std::cell::RefCell;
use std::rc::Rc;

use super::call::Call;
use super::context::CallContext;
use super::dispatcher::Dispatcher;
use super::endpoint::HandleSync;
use super::endpoint_context::EndpointContext;
use super::erased::caught_now;
use super::notices::log_failure;
use super::reply_path::ReplyPath;
use super::responder::Responder;
use super::slot::{Phase, Slot};
use super::trace;
use crate::mesh::parcel::Parcel;
use crate::wire::failure::HandlerError;
use crate::wire::frame::EndpointId;
use crate::wire::message::{Ask, MessageId};

/// Runs a handler on the message in a parcel.
pub(super) type Direct<E> = fn(&Rc<RefCell<E>>, &mut Parcel, &mut CallContext) -> Called;

/// What came of a call.
pub enum Called {
    /// The reply has taken the message's place.
    Replied,
    /// The handler failed.
    Failed(Box<HandlerError>),
    /// The message is where it was: its handler may await, or has to wait for others.
    NotNow,
}

/// The [`Direct`] of `M`.
pub(super) fn direct<E: HandleSync<M>, M: Ask>(
    endpoint: &Rc<RefCell<E>>,
    parcel: &mut Parcel,
    context: &mut CallContext,
) -> Called {
    // Message and reply move straight from place to place.
    let handled = caught_now(|| {
        let Some(message) = parcel.remove::<M>() else { return Ok(false) };
        let reply = endpoint.borrow_mut().handle(message, context)?;
        parcel.fill(reply);
        Ok(true)
    });
    match handled {
        Ok(true) => Called::Replied,
        Ok(false) => Called::NotNow,
        Err(error) => Called::Failed(Box::new(error)),
    }
}

impl Dispatcher {
    /// Handles the ask in `parcel` if its endpoint is idle and its handler does not await, and puts the reply in its place.
    #[inline]
    pub fn call(
        &self,
        id: EndpointId,
        call: Call,
        message: MessageId,
        parcel: &mut Parcel,
        path: Rc<dyn ReplyPath>,
    ) -> Called {
        let Some(slot) = self.find(id).filter(|slot| !slot.closing.get() && slot.is_free_for(message)) else {
            return Called::NotNow;
        };
        // What handlers that ran side by side have left to be told comes first.
        if slot.in_flight.is_some() {
            return Called::NotNow;
        }
        if trace::is_on() && slot.endpoint.is_direct(message) {
            slot.trace(call.origin, message, path.core());
        }
        slot.phase.set(Phase::Busy);
        let polling = self.handling.enter(call.deadline);
        let mut context = CallContext { responder: Responder::answered(call, EndpointContext::new(id, path)) };
        let called = slot.endpoint.call(message, parcel, &mut context);
        match &called {
            Called::Replied => self.count(|stats| stats.handled += 1),
            Called::Failed(error) => self.tell_failed(&slot, message, &context, error),
            Called::NotNow => {}
        }
        drop(polling);
        slot.phase.set(Phase::Idle);
        called
    }

    /// A handler that was called has failed. Its endpoint is still busy, and still in this call: it may ask itself.
    #[cold]
    fn tell_failed(&self, slot: &Slot, message: MessageId, context: &CallContext, error: &HandlerError) {
        self.count(|stats| stats.handled += 1);
        let name = slot.endpoint.message_name(message).unwrap_or_default();
        log_failure(&slot.name, name, context.responder.call().origin, context.path(), error);
        slot.endpoint.report(error);
    }
}

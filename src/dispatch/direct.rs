//! Handlers that do not await, called like functions by asks of their own core.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use super::call::Call;
use super::context::CallContext;
use super::dispatcher::Dispatcher;
use super::endpoint::HandleSync;
use super::endpoint_context::EndpointContext;
use super::notices::log_failure;
use super::reply_path::ReplyPath;
use super::responder::Responder;
use super::slot::Phase;
use super::trace;
use crate::mesh::parcel::Parcel;
use crate::wire::failure::{HandlerError, panicked_with};
use crate::wire::frame::EndpointId;
use crate::wire::message::{Ask, Message};

/// The handler of `M` of an endpoint whose type is forgotten, while those of message and reply are not.
pub(super) struct Direct<M: Message>(Box<Handler<M>>);

type Handler<M> = dyn Fn(M, &mut CallContext) -> Result<<M as Message>::Reply, HandlerError>;

/// The `Direct` of an endpoint for one of its messages.
pub(super) type MakeDirect<E> = fn(&Rc<RefCell<E>>) -> Box<dyn Any>;

/// Makes the [`Direct`] of `M`.
pub(super) fn direct<E: HandleSync<M>, M: Message>(endpoint: &Rc<RefCell<E>>) -> Box<dyn Any> {
    let endpoint = endpoint.clone();
    Box::new(Direct::<M>(Box::new(move |message, context| endpoint.borrow_mut().handle(message, context))))
}

/// What came of a call.
pub enum Called {
    /// The reply has taken the message's place.
    Replied,
    /// The handler failed.
    Failed(HandlerError),
    /// The message is where it was: its handler may await, or has to wait for others.
    NotNow,
}

impl Dispatcher {
    /// Handles the ask in `parcel` if its endpoint is idle and its handler does not await, and puts the reply in its place.
    #[inline]
    pub fn call<M: Ask>(&self, id: EndpointId, call: Call, parcel: &mut Parcel, path: Rc<dyn ReplyPath>) -> Called {
        let Some(slot) = self.find(id).filter(|slot| !slot.closing.get() && slot.is_free_for(M::ID)) else {
            return Called::NotNow;
        };
        // What handlers that ran side by side have left to be told comes first.
        if slot.in_flight.is_some() {
            return Called::NotNow;
        }
        let Some(Direct(handler)) = slot.endpoint.direct(M::ID).and_then(|direct| direct.downcast_ref::<Direct<M>>())
        else {
            return Called::NotNow;
        };
        let Some(message) = parcel.remove::<M>() else { return Called::NotNow };
        if trace::is_on() {
            slot.trace(call.origin, M::ID, path.core());
        }
        self.count(|stats| stats.handled += 1);
        slot.phase.set(Phase::Busy);
        let polling = self.handling.enter(call.deadline);
        let mut context = CallContext { responder: Responder::answered(call, EndpointContext::new(id, path)) };
        let handling = AssertUnwindSafe(|| handler(message, &mut context).map(|reply| parcel.fill(reply)));
        let result = catch_unwind(handling).unwrap_or_else(|panic| Err(HandlerError::panicked(panicked_with(panic))));
        let called = match result {
            Ok(()) => Called::Replied,
            Err(error) => {
                log_failure(&slot.name, M::NAME, call.origin, context.path(), &error);
                // Still busy, and still in this call: it may ask its own endpoint.
                slot.endpoint.report(&error);
                Called::Failed(error)
            }
        };
        drop(polling);
        slot.phase.set(Phase::Idle);
        called
    }
}

//! The typed side of an endpoint, behind an untyped door.

#![expect(
    clippy::await_holding_refcell_ref,
    reason = "a handler keeps its endpoint borrowed across awaits: the dispatcher runs one at a time"
)]

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::context::CallContext;
use super::direct::{Called, Direct};
use super::endpoint::{Endpoint, Handle, HandleDeferred, HandleShared, HandleSync, Handlers, HandlersError};
use super::endpoint_context::EndpointContext;
use super::event::Event;
use super::notices::{log_callback, log_failed, log_undecodable};
use super::replier::Replier;
use super::reply_path::Answer;
use super::responder::{Arrival, Responder};
use super::shared::Flight;
use super::unhandled::{Unhandled, what};
use crate::executor::catch::catch;
use crate::executor::future_cell::FutureCell;
use crate::executor::key::WakeKey;
use crate::executor::tasks::Executor;
use crate::mesh::parcel::Parcel;
use crate::wire::codec::{self, CodecError};
use crate::wire::failure::{Failure, FailureCode, HandlerError, panicked_with};
use crate::wire::limits::DecodeLimits;
use crate::wire::message::{Ask, Message, MessageId};

/// A message as it reaches its endpoint.
pub enum Payload<'a> {
    /// Moved here by a core of this env.
    Value(&'a mut Parcel),
    /// As it lies in a receive buffer, and what it may cost.
    Bytes(&'a [u8], &'a DecodeLimits),
}

/// What has become of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandlerState {
    /// Its handler has ended.
    Ended,
    /// Its handler waits: poll the cell later.
    Suspended,
    /// No handler is for it, or only for the other kind of request. Its asker has been told.
    Missing,
}

/// What the dispatcher can do with an endpoint of any type. Each call runs until the future in `cell` suspends
/// (`Pending`: poll the cell later) or ends (`Ready`).
pub trait AnyEndpoint {
    /// Runs `on_start`; its outcome is in [`started`](Self::started) afterwards.
    fn start(&self, context: EndpointContext, cell: &mut FutureCell, cx: &mut Context<'_>) -> Poll<()>;
    /// The outcome of `on_start`; once.
    fn started(&self) -> Result<(), HandlerError>;
    /// Runs the handler of a message.
    fn handle(
        &self,
        message: MessageId,
        payload: Payload<'_>,
        arrival: &Arrival<'_>,
        cell: &mut FutureCell,
        cx: &mut Context<'_>,
    ) -> HandlerState;
    /// Runs the handler of the ask in `parcel` and puts its reply there, if that handler does not await.
    fn call(&self, message: MessageId, parcel: &mut Parcel, context: &mut CallContext) -> Called;
    /// Whether `call` does that with this message.
    fn is_direct(&self, message: MessageId) -> bool;
    /// What is said of this message, for which no handler is, as an ask or not.
    fn unhandled(&self, message: MessageId, is_ask: bool) -> Rc<HandlerError>;
    /// The name of a message that it handles.
    fn message_name(&self, message: MessageId) -> Option<&'static str>;
    /// How many shared handlers may be in flight.
    fn concurrency(&self) -> usize;
    /// Whether the handler of this message is a shared one.
    fn is_shared(&self, message: MessageId) -> bool;
    /// Whether it is, and is for asks, or for one-way messages.
    fn shares(&self, message: MessageId, is_ask: bool) -> bool;
    /// Runs the shared handler of a message; its task, if it waits.
    fn share(
        &self,
        message: MessageId,
        payload: Payload<'_>,
        arrival: &Arrival<'_>,
        flight: Flight,
        executor: &Executor,
    ) -> Option<WakeKey>;
    /// Whether it wants to be told of connections.
    fn wants_events(&self) -> bool;
    /// Runs `on_connected` or `on_disconnected`.
    fn tell(&self, event: Event, cell: &mut FutureCell, cx: &mut Context<'_>) -> Poll<()>;
    /// Runs `on_error`.
    fn report(&self, error: &HandlerError);
    /// Runs `on_stop`.
    fn stop(&self, cell: &mut FutureCell, cx: &mut Context<'_>) -> Poll<()>;
}

/// How one message type reaches its handler.
pub struct Entry<E> {
    pub(super) id: MessageId,
    pub(super) name: &'static str,
    pub(super) version: u16,
    /// Whether it answers.
    pub(super) is_ask: bool,
    pub(super) run: Run<E>,
    /// How to run it beside others, if it may.
    pub(super) share: Option<Share<E>>,
    /// How to call it like a function, if it does not await.
    pub(super) direct: Option<Direct<E>>,
}

/// Decodes the payload, runs the handler, answers.
pub(super) type Run<E> = fn(&Rc<RefCell<E>>, Payload<'_>, &Arrival<'_>, &mut FutureCell, &mut Context<'_>) -> Poll<()>;

/// The same as a task of its own.
pub(super) type Share<E> = fn(&Rc<RefCell<E>>, Payload<'_>, &Arrival<'_>, Flight, &Executor) -> Option<WakeKey>;

/// An endpoint with its handlers.
///
/// The endpoint sits in a `RefCell` that a running handler keeps borrowed across its awaits. That is no conflict,
/// since the dispatcher runs one at a time, or several that only read, and it is what lets a handler's future outlive
/// the call that made it without any unsafe code: the future owns a share of the endpoint.
pub struct Erased<E> {
    endpoint: Rc<RefCell<E>>,
    handlers: Handlers<E>,
    started: Rc<Cell<Option<Result<(), HandlerError>>>>,
    /// The endpoint's name, for the log.
    name: Arc<str>,
    unhandled: Unhandled,
}

impl<E: Endpoint> Erased<E> {
    /// Wraps an endpoint, unless something is wrong with its handlers.
    pub fn new(endpoint: E, name: Arc<str>) -> Result<Erased<E>, HandlersError> {
        let handlers = Handlers::of_endpoint()?;
        let endpoint = Rc::new(RefCell::new(endpoint));
        Ok(Erased { endpoint, handlers, started: Rc::default(), name, unhandled: Unhandled::default() })
    }

    #[inline]
    fn entry(&self, message: MessageId) -> Option<&Entry<E>> {
        self.handlers.entries.iter().find(|entry| entry.id == message)
    }
}

impl<E: Endpoint> AnyEndpoint for Erased<E> {
    fn start(&self, context: EndpointContext, cell: &mut FutureCell, cx: &mut Context<'_>) -> Poll<()> {
        let (endpoint, started) = (self.endpoint.clone(), self.started.clone());
        let start = async move {
            let mut endpoint = endpoint.borrow_mut();
            started.set(Some(caught(async { endpoint.on_start(&context).await }).await));
        };
        cell.run(start, cx)
    }

    fn started(&self) -> Result<(), HandlerError> {
        self.started.take().unwrap_or_else(|| Err(HandlerError::panicked("on_start did not end")))
    }

    #[inline]
    fn handle(
        &self,
        message: MessageId,
        payload: Payload<'_>,
        arrival: &Arrival<'_>,
        cell: &mut FutureCell,
        cx: &mut Context<'_>,
    ) -> HandlerState {
        let is_ask = arrival.call.is_ask();
        match self.entry(message) {
            Some(entry) if entry.is_ask == is_ask => match (entry.run)(&self.endpoint, payload, arrival, cell, cx) {
                Poll::Ready(()) => HandlerState::Ended,
                Poll::Pending => HandlerState::Suspended,
            },
            _ => {
                // Nobody is told about a one-way message but the endpoint.
                if is_ask {
                    arrival.responder().fail(FailureCode::UnknownMessage, what(&self.unhandled(message, is_ask)));
                }
                HandlerState::Missing
            }
        }
    }

    #[cold]
    fn unhandled(&self, message: MessageId, is_ask: bool) -> Rc<HandlerError> {
        self.unhandled.error(&self.handlers.entries, message, is_ask)
    }

    #[inline]
    fn call(&self, message: MessageId, parcel: &mut Parcel, context: &mut CallContext) -> Called {
        match self.entry(message).and_then(|entry| entry.direct) {
            Some(direct) => direct(&self.endpoint, parcel, context),
            None => Called::NotNow,
        }
    }

    fn is_direct(&self, message: MessageId) -> bool {
        self.entry(message).is_some_and(|entry| entry.direct.is_some())
    }

    fn message_name(&self, message: MessageId) -> Option<&'static str> {
        self.entry(message).map(|entry| entry.name)
    }

    fn concurrency(&self) -> usize {
        self.handlers.concurrency
    }

    fn is_shared(&self, message: MessageId) -> bool {
        self.entry(message).is_some_and(|entry| entry.share.is_some())
    }

    fn shares(&self, message: MessageId, is_ask: bool) -> bool {
        self.entry(message).is_some_and(|entry| entry.share.is_some() && entry.is_ask == is_ask)
    }

    fn share(
        &self,
        message: MessageId,
        payload: Payload<'_>,
        arrival: &Arrival<'_>,
        flight: Flight,
        executor: &Executor,
    ) -> Option<WakeKey> {
        let share = self.entry(message)?.share?;
        share(&self.endpoint, payload, arrival, flight, executor)
    }

    fn wants_events(&self) -> bool {
        self.handlers.events
    }

    fn tell(&self, event: Event, cell: &mut FutureCell, cx: &mut Context<'_>) -> Poll<()> {
        let (endpoint, name) = (self.endpoint.clone(), self.name.clone());
        let telling = async move {
            let endpoint = &mut *endpoint.borrow_mut();
            match event {
                Event::Connected(peer) => {
                    called(endpoint, (&name, "on_connected"), async |endpoint| endpoint.on_connected(&peer).await)
                        .await;
                }
                Event::Disconnected { peer, error } => {
                    if let Some(cause) = error {
                        called(endpoint, (&name, "on_network_error"), async |endpoint| {
                            endpoint.on_network_error(&peer, &cause).await
                        })
                        .await;
                    }
                    called(endpoint, (&name, "on_disconnected"), async |endpoint| {
                        endpoint.on_disconnected(&peer).await
                    })
                    .await;
                }
            }
        };
        cell.run(telling, cx)
    }

    fn report(&self, error: &HandlerError) {
        report(&mut *self.endpoint.borrow_mut(), error);
    }

    fn stop(&self, cell: &mut FutureCell, cx: &mut Context<'_>) -> Poll<()> {
        let (endpoint, name) = (self.endpoint.clone(), self.name.clone());
        let stop = async move {
            called(&mut *endpoint.borrow_mut(), (&name, "on_stop"), async |endpoint| endpoint.on_stop().await).await;
        };
        cell.run(stop, cx)
    }
}

pub(super) fn run_async<E: Handle<M>, M: Message>(
    endpoint: &Rc<RefCell<E>>,
    payload: Payload<'_>,
    arrival: &Arrival<'_>,
    cell: &mut FutureCell,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let mut responder = arrival.responder();
    let Some(message) = open::<M>(payload, &mut responder) else { return Poll::Ready(()) };
    let endpoint = endpoint.clone();
    let handling = async move {
        let mut context = CallContext { responder };
        let mut endpoint = endpoint.borrow_mut();
        let result = caught(async { endpoint.handle(message, &mut context).await }).await;
        answer::<E, M>(&mut *endpoint, context, result);
    };
    cell.run(handling, cx)
}

pub(super) fn run_sync<E: HandleSync<M>, M: Message>(
    endpoint: &Rc<RefCell<E>>,
    payload: Payload<'_>,
    arrival: &Arrival<'_>,
    _: &mut FutureCell,
    _: &mut Context<'_>,
) -> Poll<()> {
    let mut context = CallContext { responder: arrival.responder() };
    let mut endpoint = endpoint.borrow_mut();
    // Opened and answered in here, so that message and reply move straight from place to place.
    let failed = caught_now(|| {
        let Some(message) = open::<M>(payload, &mut context.responder) else { return Ok(None) };
        let result = endpoint.handle(message, &mut context);
        Ok(context.responder.finish(result))
    });
    let failed = failed.unwrap_or_else(|panic| context.responder.finish::<M::Reply>(Err(panic)));
    if let Some(error) = failed {
        log_failed(&context, M::NAME, &error);
        report(&mut *endpoint, &error);
    }
    Poll::Ready(())
}

/// A shared handler of an endpoint that has one in flight at a time.
pub(super) fn run_alone<E: HandleShared<M>, M: Message>(
    endpoint: &Rc<RefCell<E>>,
    payload: Payload<'_>,
    arrival: &Arrival<'_>,
    cell: &mut FutureCell,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let mut responder = arrival.responder();
    let Some(message) = open::<M>(payload, &mut responder) else { return Poll::Ready(()) };
    let endpoint = endpoint.clone();
    let handling = async move {
        let mut context = CallContext { responder };
        let mut endpoint = endpoint.borrow_mut();
        let result = caught(async { HandleShared::handle(&*endpoint, message, &mut context).await }).await;
        answer::<E, M>(&mut *endpoint, context, result);
    };
    cell.run(handling, cx)
}

/// A shared handler among others.
pub(super) fn run_shared<E: HandleShared<M>, M: Message>(
    endpoint: &Rc<RefCell<E>>,
    payload: Payload<'_>,
    arrival: &Arrival<'_>,
    flight: Flight,
    executor: &Executor,
) -> Option<WakeKey> {
    let mut responder = arrival.responder();
    let message = open::<M>(payload, &mut responder)?;
    let endpoint = endpoint.clone();
    let (calls, deadline) = flight.deadline();
    let handling = async move {
        // Dropped last, when the endpoint is not borrowed any more.
        let flight = flight;
        let mut context = CallContext { responder };
        let result = {
            let endpoint = endpoint.borrow();
            caught(async { endpoint.handle(message, &mut context).await }).await
        };
        if let Some(error) = context.responder.finish(result) {
            log_failed(&context, M::NAME, &error);
            flight.failed(error);
        }
    };
    // The dispatcher has made sure that there is room.
    executor.start(calls.run(deadline, handling)).ok().flatten()
}

pub(super) fn run_deferred<E: HandleDeferred<M>, M: Ask>(
    endpoint: &Rc<RefCell<E>>,
    payload: Payload<'_>,
    arrival: &Arrival<'_>,
    _: &mut FutureCell,
    _: &mut Context<'_>,
) -> Poll<()> {
    let mut responder = arrival.responder();
    let path = responder.here().path();
    if !path.deferrals().make_room(path.now()) {
        let text = format!("the table of deferred asks of core {} (Config::deferred)", path.core());
        responder.fail(FailureCode::Overloaded, &text);
        return Poll::Ready(());
    }
    let Some(message) = open::<M>(payload, &mut responder) else { return Poll::Ready(()) };
    let mut context = CallContext { responder };
    let (replier, deferred) = Replier::new(&mut context);
    let mut endpoint = endpoint.borrow_mut();
    let result = caught_now(|| endpoint.handle(message, replier, &mut context));
    let path = context.path();
    let unanswered = path.deferrals().handled(&deferred);
    let failure = match &result {
        Err(error) => Some(error.failure()),
        Ok(()) => unanswered.then(|| Failure::new(FailureCode::NeverReplied, "")),
    };
    if let Some(failure) = failure
        && path.deferrals().take(&deferred)
    {
        path.answer(deferred.call(), Answer::Failure(failure));
    }
    if let Err(error) = result {
        log_failed(&context, M::NAME, &error);
        report(&mut *endpoint, &error);
    }
    Poll::Ready(())
}

/// The message itself, or the asker is told why not.
#[inline]
fn open<M: Message>(payload: Payload<'_>, responder: &mut Responder) -> Option<M> {
    match payload {
        Payload::Value(parcel) => {
            let message = parcel.remove::<M>();
            if message.is_none() {
                refuse_other_type::<M>(parcel, responder);
            }
            message
        }
        Payload::Bytes(bytes, limits) => {
            let teller = responder.call().teller();
            let decoded = codec::decode_then(bytes, limits, teller.as_ref(), |message: M| message);
            decoded.map_err(|error| refuse_undecodable(&error, M::NAME, responder)).ok()
        }
    }
}

#[cold]
fn refuse_other_type<M: Message>(parcel: &Parcel, responder: &mut Responder) {
    let (name, expected) = (parcel.type_name(), std::any::type_name::<M>());
    refuse_unopened(&format!("{name} and {expected} share the message id of {:?}", M::NAME), M::NAME, responder);
}

#[cold]
fn refuse_undecodable(error: &CodecError, message: &str, responder: &mut Responder) {
    if let CodecError::Beyond(_) = error {
        responder.here().path().count_beyond_limits();
    }
    refuse_unopened(&error.to_string(), message, responder);
}

fn refuse_unopened(reason: &str, message: &str, responder: &mut Responder) {
    log_undecodable(responder, message, reason);
    responder.fail(FailureCode::Undecodable, reason);
}

/// Answers with what a handler returned, then tells the endpoint if that was an error.
#[inline]
fn answer<E: Endpoint, M: Message>(endpoint: &mut E, mut context: CallContext, result: Result<M::Reply, HandlerError>) {
    if let Some(error) = context.responder.finish(result) {
        log_failed(&context, M::NAME, &error);
        report(endpoint, &error);
    }
}

/// Tells the endpoint about a failure. A panic in `on_error` itself is only logged.
#[cold]
fn report<E: Endpoint>(endpoint: &mut E, error: &HandlerError) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| endpoint.on_error(error))) {
        tracing::error!(target: "ringpost::endpoint", panic = panicked_with(panic), "on_error panicked");
    }
}

/// Runs a callback that cannot fail but panic; then the endpoint is told.
async fn called<E: Endpoint>(endpoint: &mut E, (name, what): (&str, &str), callback: impl AsyncFnOnce(&mut E)) {
    let calling = async {
        callback(endpoint).await;
        Ok(())
    };
    if let Err(error) = caught(calling).await {
        log_callback(name, what, &error);
        report(endpoint, &error);
    }
}

/// Turns a panic into an error. The endpoint is used again afterwards: what the panic left half done in it is the
/// user's to mend, as with any other error.
async fn caught<T>(future: impl Future<Output = Result<T, HandlerError>>) -> Result<T, HandlerError> {
    catch(future).await.unwrap_or_else(|text| Err(HandlerError::panicked(text)))
}

/// The same for a handler that does not await.
#[inline]
pub(super) fn caught_now<T>(handler: impl FnOnce() -> Result<T, HandlerError>) -> Result<T, HandlerError> {
    catch_unwind(AssertUnwindSafe(handler)).unwrap_or_else(|panic| Err(HandlerError::panicked(panicked_with(panic))))
}

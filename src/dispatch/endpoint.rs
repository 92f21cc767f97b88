//! What a user implements: endpoints and their handlers.

use std::fmt;
use std::future::Future;

use super::context::CallContext;
use super::direct::{Direct, direct};
use super::endpoint_context::EndpointContext;
use super::erased::{Entry, Run, Share, run_alone, run_async, run_deferred, run_shared, run_sync};
use super::protocol::{Accepted, Protocol};
use super::replier::Replier;
use crate::net::roster::Peer;
use crate::wire::failure::HandlerError;
use crate::wire::message::{Ask, Message, MessageId, OneWay};

/// An object that messages reach by its name.
///
/// An endpoint is made on the core that owns it and never leaves it, so it may hold `Rc` and `RefCell`. It handles
/// one message at a time, in the order in which they arrived; a handler that awaits keeps the next message waiting,
/// though not the other endpoints of its core. Handlers that may be in flight together are a choice: [`HandleShared`].
///
/// `on_start` runs before the first message, and `on_stop` once after the last, unless the endpoint is
/// [ended without it](Endpoint::on_stop).
pub trait Endpoint: Sized + 'static {
    /// Names the messages that this endpoint handles. The compiler checks that each has its handler.
    fn handlers(handlers: &mut Handlers<Self>);

    /// Runs before the first message. On an error the endpoint is unregistered, its queued messages are refused,
    /// and whoever registered it gets the error. The endpoint's own ref, [`EndpointContext::myself`], works from here on:
    /// what is sent to it waits until this has ended, so only a task, and not `on_start` itself, may await an answer.
    fn on_start(&mut self, _context: &EndpointContext) -> impl Future<Output = Result<(), HandlerError>> {
        std::future::ready(Ok(()))
    }

    /// Runs once, after the last message that was queued when the endpoint was stopped, by whomever: itself,
    /// [`RpcEnv::stop`](crate::RpcEnv::stop) or the shutdown of its env. The endpoint is dropped after it.
    ///
    /// It does not run, and the endpoint is only dropped, if `on_start` failed; if messages or this callback have not ended
    /// at the deadline of the [shutdown](crate::RpcEnv::shutdown), or by `Config::drain` once the last handle of the env is
    /// dropped, which is warned of by name; and if the endpoint's core ends by an error. This future is dropped where it
    /// waits then. What must be done in any case belongs in `Drop`, which cannot await.
    fn on_stop(&mut self) -> impl Future<Output = ()> {
        std::future::ready(())
    }

    /// A handler, or `on_stop`, returned an error or panicked; or a message came that no handler is for. The asker, if
    /// there is one, has been answered by then; an answer to another core or a peer leaves at the end of the turn, so
    /// this must not block either. Does nothing by default: the env itself logs errors, at DEBUG, and panics and
    /// messages that nobody handles as warnings.
    fn on_error(&mut self, _error: &HandlerError) {}

    /// A connection of the env is open, in whichever direction: once for each, as soon as the peer has introduced itself.
    /// Endpoints that ask for it with [`Handlers::events`] are told, on whichever core they are.
    ///
    /// Like the other two it runs alone and in order with the messages of that connection: before all of them. An
    /// endpoint hears nothing, to the end, of connections that were open before it was registered. A panic goes to
    /// [`on_error`](Self::on_error).
    fn on_connected(&mut self, _peer: &Peer) -> impl Future<Output = ()> {
        std::future::ready(())
    }

    /// A connection has ended: once for each, after all messages that it brought. [`Peer::connections`] tells whether the
    /// env has others to the same node. Connections that end with the env itself are no event.
    fn on_disconnected(&mut self, _peer: &Peer) -> impl Future<Output = ()> {
        std::future::ready(())
    }

    /// A connection has ended by an error: of the socket, of the protocol, or since the peer gave no sign of life. It is
    /// told right before [`on_disconnected`](Self::on_disconnected); of a connection that a side just closes it is not.
    fn on_network_error(&mut self, _peer: &Peer, _cause: &str) -> impl Future<Output = ()> {
        std::future::ready(())
    }
}

/// Handles messages of type `M`; the handler may await.
///
/// A handler that does not suspend costs no task and no allocation, and one that does suspend none either, once
/// the endpoint has handled the first of its kind.
pub trait Handle<M: Message>: Endpoint {
    /// Handles one message. An error goes to the asker as [`AskError::Handler`](crate::AskError::Handler), then to
    /// [`Endpoint::on_error`].
    fn handle(&mut self, message: M, context: &mut CallContext)
    -> impl Future<Output = Result<M::Reply, HandlerError>>;
}

/// Handles messages of type `M` without awaiting anything.
pub trait HandleSync<M: Message>: Endpoint {
    /// Handles one message; see [`Handle::handle`]. It must not block: everything else on the core would wait.
    fn handle(&mut self, message: M, context: &mut CallContext) -> Result<M::Reply, HandlerError>;
}

/// Handles messages of type `M` side by side with others: up to [`Handlers::concurrency`] such handlers of an endpoint are
/// in flight at once. They take turns at their awaits on the endpoint's core and never run in parallel, so `Cell` and
/// `RefCell` are what they change state with; no borrow of a `RefCell` should be held across an await.
///
/// Messages begin in the order in which they arrived, and none overtakes another. A message of this kind waits until fewer
/// than the limit are in flight, and none that needs the endpoint for itself is before it; any other message, and every
/// callback of the lifecycle, `on_error` included, waits until none is in flight, and then runs alone.
pub trait HandleShared<M: Message>: Endpoint {
    /// Handles one message; see [`Handle::handle`].
    fn handle(&self, message: M, context: &mut CallContext) -> impl Future<Output = Result<M::Reply, HandlerError>>;
}

/// Handles asks of type `M` whose answer comes later: from another handler, a task or another thread.
pub trait HandleDeferred<M: Ask>: Endpoint {
    /// Takes one ask and sees to it that `replier` is used, at any time. It must not block.
    ///
    /// An error goes to the asker, unless the replier was quicker, and then to [`Endpoint::on_error`]; what the replier
    /// says afterwards is dropped.
    fn handle(&mut self, message: M, replier: Replier<M::Reply>, context: &mut CallContext)
    -> Result<(), HandlerError>;
}

/// The list of messages that an endpoint handles; filled in by [`Endpoint::handlers`].
pub struct Handlers<E> {
    pub(super) entries: Vec<Entry<E>>,
    pub(super) concurrency: usize,
    pub(super) events: bool,
    /// The messages of the protocols that are implemented, with the protocols' names.
    required: Vec<(&'static str, Accepted)>,
}

impl<E: Endpoint> Handlers<E> {
    /// What the endpoint lists, unless it cannot be served like that.
    pub(super) fn of_endpoint() -> Result<Handlers<E>, HandlersError> {
        let mut handlers = Handlers { entries: Vec::new(), concurrency: 1, events: false, required: Vec::new() };
        E::handlers(&mut handlers);
        if handlers.concurrency == 0 {
            return Err(HandlersError::NoConcurrency);
        }
        match find_clash(&handlers.entries).or_else(|| handlers.find_missing()) {
            Some(error) => Err(error),
            None => Ok(handlers),
        }
    }

    /// The endpoint implements the protocol `P`: its registration fails if a message of `P` has no handler here. It may
    /// implement several, and handle further messages.
    ///
    /// ```
    /// # use ringpost::*;
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct Deposit(i64);
    /// # message!(Deposit as "doc.Deposit" => i64);
    /// # struct BankApi;
    /// # protocol!(BankApi: Deposit);
    /// # struct Bank;
    /// # impl HandleSync<Deposit> for Bank {
    /// #     fn handle(&mut self, m: Deposit, _: &mut CallContext) -> Result<i64, HandlerError> { Ok(m.0) }
    /// # }
    /// impl Endpoint for Bank {
    ///     fn handlers(handlers: &mut Handlers<Self>) {
    ///         handlers.implements::<BankApi>().ask_sync::<Deposit>();
    ///     }
    /// }
    /// ```
    pub fn implements<P: Protocol>(&mut self) -> &mut Self {
        self.required.extend(P::MESSAGES.iter().map(|message| (std::any::type_name::<P>(), *message)));
        self
    }

    fn find_missing(&self) -> Option<HandlersError> {
        let missing = |(_, message): &&(_, Accepted)| self.entries.iter().all(|entry| entry.id != message.id);
        self.required.iter().find(missing).map(|&(protocol, message)| HandlersError::Missing { protocol, message })
    }

    /// How many handlers of the kind [`HandleShared`] may be in flight at once: 1 unless given. 0 is an error of the
    /// registration. All other handlers run alone, whatever this is.
    pub fn concurrency(&mut self, limit: usize) -> &mut Self {
        self.concurrency = limit;
        self
    }

    /// The endpoint is told about connections: [`Endpoint::on_connected`] and its siblings. At most `Config::inbox_messages`
    /// events wait in its inbox, besides the messages; a further one is dropped, logged and counted in
    /// [`events_lost`](crate::CoreSnapshot::events_lost).
    pub fn events(&mut self) -> &mut Self {
        self.events = true;
        self
    }

    /// Asks of type `M` are answered by [`HandleShared`].
    pub fn ask_shared<M: Ask>(&mut self) -> &mut Self
    where
        E: HandleShared<M>,
    {
        self.add_shared::<M>(true)
    }

    /// One-way messages of type `M` are handled by [`HandleShared`].
    pub fn send_shared<M: OneWay>(&mut self) -> &mut Self
    where
        E: HandleShared<M>,
    {
        self.add_shared::<M>(false)
    }

    /// Asks of type `M` are answered by [`Handle`].
    pub fn ask<M: Ask>(&mut self) -> &mut Self
    where
        E: Handle<M>,
    {
        self.add::<M>(true, run_async::<E, M>)
    }

    /// Asks of type `M` are answered by [`HandleSync`].
    pub fn ask_sync<M: Ask>(&mut self) -> &mut Self
    where
        E: HandleSync<M>,
    {
        self.add_entry::<M>(true, run_sync::<E, M>, None, Some(direct::<E, M>))
    }

    /// Asks of type `M` are taken by [`HandleDeferred`] and answered later.
    pub fn ask_deferred<M: Ask>(&mut self) -> &mut Self
    where
        E: HandleDeferred<M>,
    {
        self.add::<M>(true, run_deferred::<E, M>)
    }

    /// One-way messages of type `M` are handled by [`Handle`].
    pub fn send<M: OneWay>(&mut self) -> &mut Self
    where
        E: Handle<M>,
    {
        self.add::<M>(false, run_async::<E, M>)
    }

    /// One-way messages of type `M` are handled by [`HandleSync`].
    pub fn send_sync<M: OneWay>(&mut self) -> &mut Self
    where
        E: HandleSync<M>,
    {
        self.add::<M>(false, run_sync::<E, M>)
    }

    fn add<M: Message>(&mut self, is_ask: bool, run: Run<E>) -> &mut Self {
        self.add_entry::<M>(is_ask, run, None, None)
    }

    fn add_shared<M: Message>(&mut self, is_ask: bool) -> &mut Self
    where
        E: HandleShared<M>,
    {
        self.add_entry::<M>(is_ask, run_alone::<E, M>, Some(run_shared::<E, M>), None)
    }

    fn add_entry<M: Message>(
        &mut self,
        is_ask: bool,
        run: Run<E>,
        share: Option<Share<E>>,
        direct: Option<Direct<E>>,
    ) -> &mut Self {
        self.entries.push(Entry { id: M::ID, name: M::NAME, version: M::VERSION, is_ask, run, share, direct });
        self
    }
}

impl<E> fmt::Debug for Handlers<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries.iter().map(|entry| (entry.name, entry.version))).finish()
    }
}

/// Why an endpoint cannot be served with the handlers that it lists.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandlersError {
    /// Two of its messages have the same id.
    #[error(
        "its messages {:?} and {:?} have the same id {:#010x}: list each once, and give others another name or version",
        names.0, names.1, id.0
    )]
    Clash {
        /// The shared id.
        id: MessageId,
        /// The two names.
        names: (&'static str, &'static str),
    },
    /// It implements a protocol, but lists no handler for one of its messages.
    #[error("it implements {protocol}, but has no handler for {:?} v{}", message.name, message.version)]
    Missing {
        /// The protocol's type.
        protocol: &'static str,
        /// The message.
        message: Accepted,
    },
    /// It allows no handler at all.
    #[error("its concurrency is 0; it must be at least 1")]
    NoConcurrency,
}

/// Finds two entries with one id: a message listed twice, or two names that hash alike.
fn find_clash<E>(entries: &[Entry<E>]) -> Option<HandlersError> {
    entries.iter().enumerate().find_map(|(i, a)| {
        let b = entries[..i].iter().find(|b| b.id == a.id)?;
        Some(HandlersError::Clash { id: a.id, names: (b.name, a.name) })
    })
}

//! How an ask or a send can fail.

use std::sync::Arc;
use std::time::Duration;

use crate::ring::stack_floor;
use crate::wire::failure::{Failure, FailureCode, HandlerError, WireError};
use crate::wire::limits::DecodeLimits;

/// How an ask failed. Each ask ends exactly once: with a reply or with one of these.
///
/// The same failure gives the same variant whether the endpoint lives on the same core, on another core or in
/// another process.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// No answer came in time, or none but a failure after that. The message may have been handled.
    #[error("no reply from {target} within {after:?}; this limit is set by {setting}")]
    Timeout {
        /// The endpoint and where it is; with the cause, if the last attempt to connect to its node has failed.
        target: Arc<str>,
        /// How long the ask waited.
        after: Duration,
        /// Where the limit can be changed.
        setting: &'static str,
    },
    /// Nobody with that name, or no longer.
    #[error("no endpoint {target}: it was never registered there, or has stopped")]
    NoEndpoint {
        /// The endpoint and where it was looked for.
        target: Arc<str>,
    },
    /// The handler answered with an error.
    #[error("{target} answered with an error: {error}")]
    Handler {
        /// The endpoint.
        target: Arc<str>,
        /// What the handler said.
        error: HandlerError,
    },
    /// The endpoint does not handle this message, or not this version of it.
    #[error("{target} has no handler for {message}")]
    UnknownMessage {
        /// The endpoint.
        target: Arc<str>,
        /// Name and version of the message.
        message: Arc<str>,
    },
    /// The receiver could not decode the message: the two sides disagree about its fields, or it goes beyond what the receiver
    /// lets a message cost (`Config::decode_depth`, `decode_bytes`, `decode_elements`).
    #[error("{target} could not decode the message: {reason}")]
    Undecodable {
        /// The endpoint.
        target: Arc<str>,
        /// What the decoder said.
        reason: Arc<str>,
    },
    /// The reply is not of the type that this side expects.
    #[error("the reply of {target} could not be decoded: {reason}")]
    UndecodableReply {
        /// The endpoint.
        target: Arc<str>,
        /// What the decoder said.
        reason: Arc<str>,
    },
    /// The message cannot be sent: it does not serialise, or is larger than the peer accepts. Nothing left this node.
    #[error("the message for {target} cannot be sent: {reason}")]
    Unsendable {
        /// The endpoint.
        target: Arc<str>,
        /// What is wrong with it.
        reason: Arc<str>,
    },
    /// The reply could not be serialised, or is larger than this node accepts.
    #[error("{target} could not send its reply: {reason}")]
    BadReply {
        /// The endpoint.
        target: Arc<str>,
        /// What is wrong with it.
        reason: Arc<str>,
    },
    /// A queue on the way is full; nothing was handled.
    #[error("{queue} is full: {remedy}")]
    Overloaded {
        /// Which queue, and where.
        queue: Arc<str>,
        /// Which setting bounds it.
        remedy: &'static str,
    },
    /// The connection ended while the ask was under way. The message may have been handled.
    #[error("the connection to {peer} ended: {cause}")]
    Disconnected {
        /// The address of the peer.
        peer: Arc<str>,
        /// What the socket said.
        cause: Arc<str>,
    },
    /// No connection to the peer could be made, or it does not listen and has none open; nothing was sent.
    #[error("cannot reach {peer}: {cause}")]
    Unreachable {
        /// The address of the peer.
        peer: Arc<str>,
        /// What went wrong.
        cause: Arc<str>,
    },
    /// The ref came from a peer, and this env does not connect to such addresses on a peer's word; nothing was sent.
    #[error("{}", forbidden(address, policy))]
    ForbiddenAddress {
        /// The address in the ref.
        address: Arc<str>,
        /// Which policy forbids it.
        policy: &'static str,
    },
    /// The handler ended, or its endpoint stopped, without an answer.
    #[error("{target} dropped the ask without an answer")]
    NeverReplied {
        /// The endpoint.
        target: Arc<str>,
    },
    /// The endpoint, or the env at either side, is shutting down.
    #[error("{target} is shutting down")]
    Stopped {
        /// The endpoint or env.
        target: Arc<str>,
    },
    /// `ask_blocking` was called on a core's own thread, which would wait for itself.
    #[error("ask_blocking on a core's own thread would block everything on it: use `ask(..).await` there")]
    BlockingOnCore,
}

impl AskError {
    /// The error that the handler made with [`HandlerError::typed`], if that is what went wrong and it is of this type
    /// and version.
    pub fn downcast<E: WireError>(&self) -> Option<E> {
        match self {
            AskError::Handler { error, .. } => error.downcast(),
            _ => None,
        }
    }

    /// The error for a failure that a receiver told, about `target`.
    pub(crate) fn from_failure(failure: &Failure<'_>, target: Arc<str>) -> AskError {
        let text = failure.text;
        let reason = || Arc::from(text);
        match failure.code {
            FailureCode::NoEndpoint => AskError::NoEndpoint { target },
            FailureCode::UnknownMessage => AskError::UnknownMessage { target, message: reason() },
            FailureCode::Undecodable => AskError::Undecodable { target, reason: reason() },
            FailureCode::Panicked => AskError::Handler { target, error: HandlerError::panicked(text) },
            FailureCode::Overloaded => AskError::Overloaded {
                queue: if text.is_empty() { target } else { reason() },
                remedy: "send more slowly, or raise that setting at the receiver",
            },
            FailureCode::NeverReplied => AskError::NeverReplied { target },
            FailureCode::Stopped => AskError::Stopped { target },
            FailureCode::BadReply => AskError::BadReply { target, reason: reason() },
            // `Expired` never comes here: the asker's own deadline says so.
            FailureCode::Handler | FailureCode::Expired | FailureCode::Unknown => {
                AskError::Handler { target, error: HandlerError::told(failure) }
            }
        }
    }
}

fn forbidden(address: &str, policy: &str) -> String {
    format!(
        "no connection to {address} is made on a peer's word, as {policy} says: make the ref with RpcEnv::endpoint_ref, \
         or choose another Builder::ref_policy"
    )
}

impl HandlerError {
    /// The error that a handler made with [`typed`](HandlerError::typed); none if it was of another type or version, or
    /// told as text only. One that nests deeper than 128 levels, or than the stack of this thread allows, is none
    /// either, and logged.
    pub fn downcast<E: WireError>(&self) -> Option<E> {
        self.typed_within(&DecodeLimits::DEFAULT.on_stack(stack_floor()))
    }
}

/// Why a one-way message was refused at the sender. Once accepted, it is delivered at most once, and what happens
/// to it is not told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The endpoint lives in this env and has stopped, or was never there.
    #[error("no endpoint {target}: it was never registered there, or has stopped")]
    NoEndpoint {
        /// The endpoint.
        target: Arc<str>,
    },
    /// The message does not serialise, or is larger than the peer accepts.
    #[error("the message for {target} cannot be sent: {reason}")]
    Unsendable {
        /// The endpoint.
        target: Arc<str>,
        /// What is wrong with it.
        reason: Arc<str>,
    },
    /// A queue on the way is full.
    #[error("{queue} is full: {remedy}")]
    Overloaded {
        /// Which queue, and where.
        queue: Arc<str>,
        /// Which setting bounds it.
        remedy: &'static str,
    },
    /// The peer does not listen, and no connection from it is open.
    #[error("cannot reach {peer}: {cause}")]
    Unreachable {
        /// The endpoint and its node.
        peer: Arc<str>,
        /// What went wrong.
        cause: Arc<str>,
    },
    /// The ref came from a peer, and this env does not connect to such addresses on a peer's word.
    #[error("{}", forbidden(address, policy))]
    ForbiddenAddress {
        /// The address in the ref.
        address: Arc<str>,
        /// Which policy forbids it.
        policy: &'static str,
    },
    /// A message was to be sent with `send_blocking` on a core's own thread, which would wait for itself.
    #[error("send_blocking on a core's own thread would block everything on it: use `send(..).await` there")]
    BlockingOnCore,
    /// This env is shutting down.
    #[error("{target} is shutting down")]
    Stopped {
        /// The env.
        target: Arc<str>,
    },
}

//! How an ask that failed at the other side is told.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::codec::{self, CodecError, Written};
use super::limits::DecodeLimits;
use super::message::MessageId;
use super::told::{Alias, Teller, Told, encode_own};

/// Most bytes that a typed error may have.
pub const MAX_TYPED: usize = 2048;

/// What went wrong with a request at the side that received it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
#[non_exhaustive]
pub enum FailureCode {
    /// A code that this version does not know; the text still tells.
    Unknown = 0,
    /// No endpoint with that name or id lives at the receiver.
    NoEndpoint = 1,
    /// The endpoint has no handler for that message and version.
    UnknownMessage = 2,
    /// The payload is no value of the message's type.
    Undecodable = 3,
    /// The handler returned an error.
    Handler = 4,
    /// The handler panicked.
    Panicked = 5,
    /// A queue on the way is full.
    Overloaded = 6,
    /// The handler ended without answering.
    NeverReplied = 7,
    /// The endpoint is stopping; or its env is, which says so of every endpoint, known or not.
    Stopped = 8,
    /// The deadline passed before the handler ran, or before it failed.
    Expired = 9,
    /// The reply could not be serialised, or is larger than the largest frame.
    BadReply = 10,
}

impl FailureCode {
    /// The code with this number, `Unknown` for one that this version does not have.
    pub fn from_wire(code: u16) -> FailureCode {
        use FailureCode::*;
        match code {
            1 => NoEndpoint,
            2 => UnknownMessage,
            3 => Undecodable,
            4 => Handler,
            5 => Panicked,
            6 => Overloaded,
            7 => NeverReplied,
            8 => Stopped,
            9 => Expired,
            10 => BadReply,
            _ => Unknown,
        }
    }
}

/// What the receiver of a request says of its failure, as it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure<'a> {
    /// What went wrong.
    pub code: FailureCode,
    /// The same in words.
    pub text: &'a str,
    /// The handler's error itself, if it has a type that both sides may know.
    pub typed: Option<Typed<&'a [u8]>>,
}

/// A [`Failure`] on its way between two cores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedFailure {
    code: FailureCode,
    text: Box<str>,
    typed: Option<Box<Typed<Vec<u8>>>>,
}

/// An encoded error with the id of its type.
#[derive(Clone, Copy, Debug, Eq, Serialize, Deserialize)]
pub struct Typed<B> {
    /// [`WireError::ID`].
    pub id: u32,
    /// The error, encoded with postcard; at most [`MAX_TYPED`] bytes.
    pub bytes: B,
    /// Whether a ref is in it that leads back over the connection that carries it. Does not travel.
    #[serde(skip)]
    pub way_back: bool,
    /// Who told it: how far its refs are trusted. Does not travel, and makes no difference between two errors.
    #[serde(skip)]
    pub told: Told,
    /// The node id that means another node in its refs than here. Does not travel, and makes no difference either.
    #[serde(skip)]
    pub alias: Option<Alias>,
}

impl<B: PartialEq> PartialEq for Typed<B> {
    fn eq(&self, other: &Typed<B>) -> bool {
        (self.id, self.way_back) == (other.id, other.way_back) && self.bytes == other.bytes
    }
}

impl<'a> Failure<'a> {
    /// A failure without a typed error.
    pub fn new(code: FailureCode, text: &'a str) -> Failure<'a> {
        Failure { code, text, typed: None }
    }

    /// Whether a ref is in it that leads back over the connection that carries it.
    pub fn way_back(&self) -> bool {
        self.typed.is_some_and(|typed| typed.way_back)
    }

    /// A copy that can travel.
    pub fn to_owned(&self) -> OwnedFailure {
        OwnedFailure { code: self.code, text: self.text.into(), typed: self.typed.map(Typed::to_boxed) }
    }
}

impl OwnedFailure {
    /// As it is told.
    pub fn as_failure(&self) -> Failure<'_> {
        Failure { code: self.code, text: &self.text, typed: self.typed.as_deref().map(Typed::as_slice) }
    }
}

impl<B> Typed<B> {
    /// The same, in other bytes.
    fn with<C>(&self, bytes: C) -> Typed<C> {
        Typed { id: self.id, bytes, way_back: self.way_back, told: self.told, alias: self.alias }
    }
}

impl Typed<&[u8]> {
    fn to_boxed(self) -> Box<Typed<Vec<u8>>> {
        Box::new(self.with(self.bytes.to_vec()))
    }
}

impl Typed<Vec<u8>> {
    fn as_slice(&self) -> Typed<&[u8]> {
        self.with(&self.bytes)
    }
}

/// A handler's error: what it said went wrong.
///
/// It carries text, since the two sides need not share any error type. Anything that implements
/// [`std::error::Error`] turns into one with `?`; its sources are kept in the text. An error whose type both sides know
/// can travel whole beside the text: see [`typed`](HandlerError::typed).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandlerError {
    text: Box<str>,
    panicked: bool,
    typed: Option<Box<Typed<Vec<u8>>>>,
}

impl HandlerError {
    /// An error that says `text`.
    pub fn new(text: impl Into<String>) -> HandlerError {
        HandlerError { text: text.into().into(), panicked: false, typed: None }
    }

    /// An error that whoever asks can get back as it is, with [`downcast`](HandlerError::downcast), if it knows the type
    /// too. Its text, sources included, travels in any case.
    ///
    /// An error that takes more than 2,048 bytes when encoded, or does not encode, travels as text alone, which then
    /// says so.
    pub fn typed<E: WireError>(error: E) -> HandlerError {
        let mut bytes = Vec::new();
        let (encoded, by) = encode_own(|| codec::encode(&error, &mut bytes));
        let encoded = match encoded {
            Ok(written) if bytes.len() <= MAX_TYPED => Ok(written),
            Ok(_) => Err(format!("it has {} bytes, and {MAX_TYPED} may travel", bytes.len())),
            Err(error) => Err(error.to_string()),
        };
        let told = HandlerError::from(error);
        match encoded {
            Ok(Written { way_back }) => {
                let typed = Typed { id: E::ID, bytes, way_back, told: by, alias: None };
                HandlerError { typed: Some(Box::new(typed)), ..told }
            }
            Err(problem) => HandlerError::new(format!("{} ({} is told as text only: {problem})", told.text, E::NAME)),
        }
    }

    /// The error that a handler made with [`typed`](HandlerError::typed).
    pub(crate) fn typed_within<E: WireError>(&self, limits: &DecodeLimits) -> Option<E> {
        let typed = self.typed.as_ref().filter(|typed| typed.id == E::ID)?;
        let beyond = |error: &CodecError| {
            if let CodecError::Beyond(_) = error {
                tracing::warn!(target: "ringpost::endpoint", kind = E::NAME, %error, "a typed error could not be decoded");
            }
        };
        let teller = Teller::Error { told: typed.told, alias: typed.alias };
        codec::decode_told(&typed.bytes, limits, &teller).inspect_err(beyond).ok()
    }

    /// The error that was told with this failure.
    pub(crate) fn told(failure: &Failure<'_>) -> HandlerError {
        HandlerError { typed: failure.typed.map(Typed::to_boxed), ..HandlerError::new(failure.text) }
    }

    /// As it is told to the asker.
    pub(crate) fn failure(&self) -> Failure<'_> {
        let code = if self.panicked { FailureCode::Panicked } else { FailureCode::Handler };
        Failure { code, text: &self.text, typed: self.typed.as_deref().map(Typed::as_slice) }
    }

    /// The error that a panic with this text becomes.
    pub(crate) fn panicked(text: impl Into<String>) -> HandlerError {
        HandlerError { text: text.into().into(), panicked: true, typed: None }
    }

    /// What went wrong.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the handler panicked rather than returned an error.
    pub fn is_panic(&self) -> bool {
        self.panicked
    }
}

impl std::fmt::Display for HandlerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.panicked { "the handler panicked: " } else { "" })?;
        f.write_str(&self.text)
    }
}

// `HandlerError` does not implement `Error` itself: that is what lets every other error turn into one (as in `anyhow`).
impl<E: std::error::Error> From<E> for HandlerError {
    fn from(error: E) -> HandlerError {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        HandlerError::new(text)
    }
}

/// An error that travels whole, and is the same error for whoever asked: see [`HandlerError::typed`].
///
/// As with a message, name and version say what the bytes are: both sides give them alike, and a change of the fields is
/// a change of the version. Use [`wire_error!`](crate::wire_error) to implement it.
pub trait WireError: std::error::Error + Serialize + DeserializeOwned + 'static {
    /// The name on the wire, `"service.Error"` by custom.
    const NAME: &'static str;
    /// The version of the layout.
    const VERSION: u16 = 1;
    /// What travels: a hash of name and version, made like that of a message.
    const ID: u32 = MessageId::of(Self::NAME, Self::VERSION).0;
}

/// Makes a serde type that is an error a [`WireError`](crate::WireError).
///
/// ```
/// use ringpost::{HandlerError, wire_error};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, Serialize, Deserialize, thiserror::Error)]
/// #[error("{missing} cents are missing")]
/// struct InsufficientFunds { missing: i64 }
/// wire_error!(InsufficientFunds as "bank.InsufficientFunds");
///
/// #[derive(Debug, Serialize, Deserialize, thiserror::Error)]
/// #[error("the account is closed since {since}")]
/// struct Closed { since: u64 }
/// wire_error!(Closed as "bank.Closed", version 2);
///
/// // A handler returns this; the asker takes it out of the `AskError` in the same way.
/// let error = HandlerError::typed(InsufficientFunds { missing: 7 });
/// assert_eq!(error.downcast::<InsufficientFunds>().unwrap().missing, 7);
/// assert!(error.downcast::<Closed>().is_none());
/// ```
#[macro_export]
macro_rules! wire_error {
    ($type:ty as $name:literal $(, version $version:literal)?) => {
        impl $crate::WireError for $type {
            const NAME: &'static str = $name;
            $(const VERSION: u16 = $version;)?
        }
    };
}

/// What a panic said, which is dropped: that is the user's code too, and may panic itself.
#[cold]
pub fn panicked_with(panic: Box<dyn Any + Send>) -> String {
    let text = panic_text(&*panic).to_owned();
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        // And so on: enough of it.
        std::mem::forget(again);
    }
    text
}

/// What a panic said.
pub fn panic_text(panic: &(dyn Any + Send)) -> &str {
    if let Some(text) = panic.downcast_ref::<&str>() {
        text
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text
    } else {
        "a panic without text"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_survive_the_wire_and_unknown_ones_stay_unknown() {
        for code in 0..=10u16 {
            assert_eq!(FailureCode::from_wire(code) as u16, code);
        }
        assert_eq!(FailureCode::from_wire(999), FailureCode::Unknown);
    }

    #[test]
    fn any_error_becomes_a_handler_error_with_its_sources() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] std::num::ParseIntError);
        let error: HandlerError = Outer("x".parse::<i32>().unwrap_err()).into();
        assert_eq!(error.text(), "outer: invalid digit found in string");
    }
}

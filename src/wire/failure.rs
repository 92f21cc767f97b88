//! How an ask that failed at the other side is told.

use std::any::Any;

use serde::{Deserialize, Serialize};

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
    /// The endpoint or its env is stopping.
    Stopped = 8,
    /// The deadline passed before the handler ran.
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

/// A handler's error: what it said went wrong.
///
/// It carries text, since the two sides need not share any error type. Anything that implements
/// [`std::error::Error`] turns into one with `?`; its sources are kept in the text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandlerError {
    text: Box<str>,
    panicked: bool,
}

impl HandlerError {
    /// An error that says `text`.
    pub fn new(text: impl Into<String>) -> HandlerError {
        HandlerError { text: text.into().into(), panicked: false }
    }

    /// The error that a panic with this text becomes.
    pub(crate) fn panicked(text: impl Into<String>) -> HandlerError {
        HandlerError { text: text.into().into(), panicked: true }
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

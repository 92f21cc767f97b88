//! The duty to answer.

use std::rc::Rc;

use serde::Serialize;

use super::call::Call;
use super::endpoint_context::EndpointContext;
use super::reply_path::{Answer, ReplyPath, ReplyValue};
use crate::wire::failure::{Failure, FailureCode, HandlerError};
use crate::wire::frame::EndpointId;

/// A call that has reached its endpoint. The duty to answer it begins with `responder`, where it is to
/// lie, so that it is not moved about.
#[derive(Clone, Copy)]
pub struct Arrival<'a> {
    pub(super) call: &'a Call,
    pub(super) endpoint: EndpointId,
    pub(super) path: &'a Rc<dyn ReplyPath>,
}

impl Arrival<'_> {
    /// The duty to answer; taken once.
    #[inline]
    pub(super) fn responder(&self) -> Responder {
        Responder::new(*self.call, EndpointContext::new(self.endpoint, self.path.clone()))
    }
}

/// The duty to answer one call.
///
/// Whoever holds it answers once, and a second answer goes nowhere; if it is dropped instead, the asker is told so at
/// once and does not wait for its timeout.
pub struct Responder {
    call: Call,
    here: EndpointContext,
    /// Whether the answer is still to be given.
    owed: bool,
}

impl Responder {
    /// The duty of an endpoint to answer `call`.
    #[inline]
    pub fn new(call: Call, here: EndpointContext) -> Responder {
        Responder { call, here, owed: call.request != 0 }
    }

    /// No duty: whoever called the handler of `call` has its answer from it.
    #[inline]
    pub(super) fn answered(call: Call, here: EndpointContext) -> Responder {
        Responder { call, here, owed: false }
    }

    /// The call.
    #[inline]
    pub fn call(&self) -> &Call {
        &self.call
    }

    /// The endpoint that is to answer.
    pub fn here(&self) -> &EndpointContext {
        &self.here
    }

    /// Somebody else has taken over the duty.
    pub(super) fn pass_on(&mut self) {
        self.owed = false;
    }

    /// Answers with what a handler returned, and gives the error back if it was one.
    #[inline]
    pub fn finish<R: Serialize + Send + 'static>(&mut self, result: Result<R, HandlerError>) -> Option<HandlerError> {
        match result {
            Ok(value) => {
                self.answer(Answer::Value(&mut ReplyValue::new(value)));
                None
            }
            Err(error) => {
                self.answer(Answer::Failure(error.failure()));
                Some(error)
            }
        }
    }

    /// Answers with an error.
    #[cold]
    pub fn fail(&mut self, code: FailureCode, text: &str) {
        self.answer(Answer::Failure(Failure::new(code, text)));
    }

    #[inline]
    fn answer(&mut self, answer: Answer<'_>) {
        if std::mem::take(&mut self.owed) {
            self.here.path().answer(&self.call, answer);
        }
    }
}

impl Drop for Responder {
    #[inline]
    fn drop(&mut self) {
        if self.owed {
            let failure = Failure::new(FailureCode::NeverReplied, "");
            self.here.path().answer(&self.call, Answer::Failure(failure));
        }
    }
}

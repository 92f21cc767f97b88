//! Errors of handlers that travel whole: the asker gets back what the handler returned.

mod common;

use std::sync::mpsc::{Sender, channel};

use common::scene::at_every_distance;
use common::{LIMIT, bounded, config};
use ringpost::{AskError, CallContext, Endpoint, Handle, HandlerError, Handlers, message, wire_error};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Debug, Serialize, Deserialize, PartialEq, Clone, thiserror::Error)]
#[error("{missing} cents are missing")]
struct InsufficientFunds {
    missing: i64,
    #[source]
    source: Cause,
}
wire_error!(InsufficientFunds as "errors.InsufficientFunds");

#[derive(Debug, Serialize, Deserialize, PartialEq, Clone, thiserror::Error)]
#[error("the vault is {0}")]
struct Cause(String);

/// As a newer program knows it.
#[derive(Debug, Serialize, Deserialize, thiserror::Error)]
#[error("newer")]
struct NewerFunds {
    missing: (i64, i64),
}
wire_error!(NewerFunds as "errors.InsufficientFunds", version 2);

/// As another program knows it, by mistake.
#[derive(Debug, Serialize, Deserialize, thiserror::Error)]
#[error("other")]
struct OtherFunds {
    missing: bool,
}
wire_error!(OtherFunds as "errors.InsufficientFunds");

#[derive(Debug, Serialize, Deserialize, PartialEq, thiserror::Error)]
#[error("a long story")]
struct Long(Vec<u8>);
wire_error!(Long as "errors.Long");

/// Its serde code, or its drop, panics.
#[derive(Debug, thiserror::Error)]
#[error("rude")]
struct Rude(Manner);
wire_error!(Rude as "errors.Rude");

#[derive(Debug, Serialize, Deserialize, Clone, Copy, PartialEq)]
enum Manner {
    Encode,
    Decode,
    Drop,
}

impl Serialize for Rude {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert!(self.0 != Manner::Encode, "rude in encode");
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Rude {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Rude, D::Error> {
        panic!("rude in decode")
    }
}

impl Drop for Rude {
    fn drop(&mut self) {
        assert!(self.0 != Manner::Drop, "rude in drop");
    }
}

/// Answered with an error.
#[derive(Serialize, Deserialize, Clone)]
enum Fail {
    Funds(InsufficientFunds),
    /// With a source of this many bytes.
    Long(usize),
    Rude(Manner),
    Untyped,
}
message!(Fail as "errors.Fail" => ());

struct Failing(Sender<HandlerError>);

impl Endpoint for Failing {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask::<Fail>();
    }

    fn on_error(&mut self, error: &HandlerError) {
        let _ = self.0.send(error.clone());
    }
}

impl Handle<Fail> for Failing {
    async fn handle(&mut self, fail: Fail, _: &mut CallContext) -> Result<(), HandlerError> {
        Err(match fail {
            Fail::Funds(funds) => HandlerError::typed(funds),
            Fail::Long(length) => HandlerError::typed(Long(vec![7; length])),
            Fail::Rude(manner) => HandlerError::typed(Rude(manner)),
            Fail::Untyped => Cause("shut".into()).into(),
        })
    }
}

fn funds() -> InsufficientFunds {
    InsufficientFunds { missing: 7, source: Cause("shut".into()) }
}

fn handler_error(outcome: Result<(), AskError>) -> HandlerError {
    let Err(AskError::Handler { error, .. }) = outcome else { panic!("{outcome:?}") };
    error
}

#[test]
fn an_error_that_both_sides_know_arrives_as_it_was_with_its_text_and_its_sources() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let (tell, told) = channel();
            let failing = scene.place("failing", move || Failing(tell));
            for outcome in scene.outcomes(&failing, Fail::Funds(funds())) {
                let error = outcome.unwrap_err();
                assert_eq!(error.downcast::<InsufficientFunds>(), Some(funds()));
                assert!(error.to_string().ends_with("7 cents are missing: the vault is shut"), "{error}");
                let own = told.recv_timeout(LIMIT).unwrap();
                assert_eq!(own.downcast::<InsufficientFunds>(), Some(funds()), "on_error sees it too");
            }
        });
    });
}

#[test]
fn an_error_of_another_type_version_or_layout_is_told_as_text() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let (tell, _told) = channel();
            let failing = scene.place("failing", move || Failing(tell));
            for outcome in scene.outcomes(&failing, Fail::Funds(funds())) {
                let error = outcome.unwrap_err();
                assert!(error.downcast::<Long>().is_none() && error.downcast::<NewerFunds>().is_none());
                assert!(error.downcast::<OtherFunds>().is_none(), "it does not decode");
            }
            for outcome in scene.outcomes(&failing, Fail::Untyped) {
                let error = outcome.unwrap_err();
                assert!(error.downcast::<InsufficientFunds>().is_none());
                assert_eq!(handler_error(Err(error)).text(), "the vault is shut");
            }
        });
    });
}

#[test]
fn an_error_above_the_limit_leaves_its_text_which_says_so() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let (tell, _told) = channel();
            let failing = scene.place("failing", move || Failing(tell));
            for outcome in scene.outcomes(&failing, Fail::Long(2046)) {
                assert_eq!(outcome.unwrap_err().downcast::<Long>(), Some(Long(vec![7; 2046])), "2,048 bytes go");
            }
            for outcome in scene.outcomes(&failing, Fail::Long(2047)) {
                let error = handler_error(outcome);
                assert!(error.downcast::<Long>().is_none());
                assert!(error.text().starts_with("a long story") && error.text().contains("2049"), "{error}");
            }
        });
    });
}

#[test]
fn an_error_whose_own_code_panics_is_an_error_all_the_same_and_the_endpoint_lives_on() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let (tell, _told) = channel();
            let failing = scene.place("failing", move || Failing(tell));
            for (manner, text) in [
                (
                    Manner::Encode,
                    "rude (errors.Rude is told as text only: its serde implementation panicked: rude in encode)",
                ),
                (Manner::Decode, "rude"),
                (Manner::Drop, "rude in drop"),
            ] {
                for outcome in scene.outcomes(&failing, Fail::Rude(manner)) {
                    let error = handler_error(outcome);
                    assert_eq!((error.text(), error.is_panic()), (text, manner == Manner::Drop));
                    assert!(error.downcast::<Rude>().is_none());
                }
            }
            let outcome = failing.ask_blocking(Fail::Funds(funds()));
            assert_eq!(outcome.unwrap_err().downcast::<InsufficientFunds>(), Some(funds()));
        });
    });
}

//! How users write an ask: its shape, who makes it, what its payload is.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Error;

/// Sizes of `[u8; N]` that a message type exists for.
pub(crate) const ARRAY_SIZES: [usize; 7] = [0, 16, 64, 128, 256, 1024, 4096];

/// How the asks in flight are driven.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Shape {
    /// One task per ask in flight.
    Task,
    /// One task with a `FuturesUnordered`, filled up after each answer.
    Unordered,
    /// One task that makes a batch of asks and awaits all of them with `join_all`.
    JoinAll,
}

impl Shape {
    /// All of them.
    pub(crate) const ALL: [Shape; 3] = [Shape::Task, Shape::Unordered, Shape::JoinAll];

    /// Its name on the command line and in the output.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Shape::Task => "task",
            Shape::Unordered => "unordered",
            Shape::JoinAll => "join_all",
        }
    }
}

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Caller {
    /// The asking core itself.
    Core,
    /// Threads of their own, each of which blocks until it has its answer.
    Thread,
    /// Tasks of a multi-threaded tokio runtime in the same process.
    Tokio,
}

impl Caller {
    /// All of them.
    pub(crate) const ALL: [Caller; 3] = [Caller::Core, Caller::Thread, Caller::Tokio];

    /// Its name on the command line and in the output.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Caller::Core => "core",
            Caller::Thread => "thread",
            Caller::Tokio => "tokio",
        }
    }
}

/// What carries the payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum PayloadKind {
    /// `[u8; N]`, which lives wherever the message lives.
    Array,
    /// `Vec<u8>`, as serde derives it.
    Vec,
    /// `bytes::Bytes`.
    Bytes,
}

impl PayloadKind {
    /// All of them.
    pub(crate) const ALL: [PayloadKind; 3] = [PayloadKind::Array, PayloadKind::Vec, PayloadKind::Bytes];

    /// Its name on the command line and in the output.
    pub(crate) fn name(self) -> &'static str {
        match self {
            PayloadKind::Array => "array",
            PayloadKind::Vec => "vec",
            PayloadKind::Bytes => "bytes",
        }
    }

    /// What carries so many bytes if nothing else is wanted: an array if there is one of that size.
    pub(crate) fn usual(payload: usize) -> PayloadKind {
        if ARRAY_SIZES.contains(&payload) { PayloadKind::Array } else { PayloadKind::Bytes }
    }
}

/// One way to write an ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Variant {
    pub(crate) shape: Shape,
    pub(crate) caller: Caller,
    pub(crate) payload_kind: PayloadKind,
}

impl Variant {
    /// What is measured if nothing else is wanted.
    pub(crate) fn usual(payload: usize) -> Variant {
        Variant { shape: Shape::Task, caller: Caller::Core, payload_kind: PayloadKind::usual(payload) }
    }

    /// Fails if it makes no sense for a payload of so many bytes.
    pub(crate) fn check(self, payload: usize) -> Result<Variant, Error> {
        let Variant { shape, caller, payload_kind } = self;
        if shape != Shape::Task && caller != Caller::Core {
            let (shape, caller) = (shape.name(), caller.name());
            return Err(format!(
                "--shape {shape} is driven on a core, so it goes with --caller core only, not with {caller}: ask for them \
                 in two runs"
            )
            .into());
        }
        if payload_kind == PayloadKind::Array && !ARRAY_SIZES.contains(&payload) {
            return Err(format!(
                "--payload-kind array has {} bytes, not {payload}: take one of these with --payload, or vec or bytes",
                ARRAY_SIZES.map(|size| size.to_string()).join(", ")
            )
            .into());
        }
        Ok(self)
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<9} {:<6} {:<5}", self.shape.name(), self.caller.name(), self.payload_kind.name())
    }
}

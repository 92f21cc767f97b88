//! What is echoed, for every size of payload.

use std::fmt;

use bytes::Bytes;
use ringpost::{Ask, CallContext, CoreSnapshot, Endpoint, HandleSync, HandlerError, Handlers, Message, message};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::alloc::thread_allocs;
use crate::footprint::Held;
use crate::pair::held;
use crate::variant::ARRAY_SIZES;

/// A payload whose size the type knows: it lives wherever the message lives and needs no memory of its own.
#[derive(Clone, PartialEq)]
pub(crate) struct Payload<const N: usize>([u8; N]);

impl<const N: usize> Serialize for Payload<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Payload<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(PayloadVisitor)
    }
}

struct PayloadVisitor<const N: usize>;

impl<const N: usize> Visitor<'_> for PayloadVisitor<N> {
    type Value = Payload<N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{N} bytes")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Payload<N>, E> {
        bytes.try_into().map(Payload).map_err(|_| E::invalid_length(bytes.len(), &self))
    }
}

/// A payload of any size in `Bytes`. Decoding it takes memory, and the table says how often.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct AnyPayload(Bytes);

/// A payload of any size in a `Vec<u8>`, as serde derives it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct VecPayload(Vec<u8>);

/// A message whose answer can be checked.
pub(crate) trait Question: Ask + Message + Clone + Sync {
    /// One with `size` bytes of payload, or whose answer has them; types that know their size ignore it.
    fn with_size(size: usize) -> Self;

    /// Whether this is the answer.
    fn fits(&self, reply: &Self::Reply) -> bool;
}

/// The endpoint: gives back what it gets, or as many bytes as are wanted.
#[derive(Default)]
pub(crate) struct Echo {
    /// What was wanted last.
    stored: Bytes,
}

macro_rules! sizes {
    ($($size:literal as $name:literal),+ $(,)?) => {
        $(
            message!(Payload<$size> as $name => Payload<$size>);

            impl Question for Payload<$size> {
                fn with_size(_size: usize) -> Self {
                    Payload([0x5a; $size])
                }

                fn fits(&self, reply: &Self) -> bool {
                    reply == self
                }
            }

        )+

        impl Endpoint for Echo {
            fn handlers(handlers: &mut Handlers<Self>) {
                $(handlers.ask_sync::<Payload<$size>>();)+
                handlers.ask_sync::<AnyPayload>();
                handlers.ask_sync::<VecPayload>();
                handlers.ask_sync::<Fetch>();
            }
        }

        // The options are checked against that list.
        const _: () = {
            let (sizes, mut i) = ([$($size),+], 0);
            while i < ARRAY_SIZES.len() {
                assert!(sizes[i] == ARRAY_SIZES[i]);
                i += 1;
            }
        };
    };
}

sizes! {
    0 as "bench.Echo0",
    16 as "bench.Echo16",
    64 as "bench.Echo64",
    128 as "bench.Echo128",
    256 as "bench.Echo256",
    1024 as "bench.Echo1024",
    4096 as "bench.Echo4096",
}

message!(AnyPayload as "bench.Echo" => AnyPayload);

impl Question for AnyPayload {
    fn with_size(size: usize) -> Self {
        AnyPayload(Bytes::from(vec![0x5a; size]))
    }

    fn fits(&self, reply: &Self) -> bool {
        reply == self
    }
}

message!(VecPayload as "bench.EchoVec" => VecPayload);

impl Question for VecPayload {
    fn with_size(size: usize) -> Self {
        VecPayload(vec![0x5a; size])
    }

    fn fits(&self, reply: &Self) -> bool {
        reply == self
    }
}

/// Asks for so many bytes.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Fetch(usize);
message!(Fetch as "bench.Fetch" => AnyPayload);

impl Question for Fetch {
    fn with_size(size: usize) -> Self {
        Fetch(size)
    }

    fn fits(&self, reply: &AnyPayload) -> bool {
        reply.0.len() == self.0
    }
}

impl HandleSync<Fetch> for Echo {
    fn handle(&mut self, Fetch(size): Fetch, _context: &mut CallContext) -> Result<AnyPayload, HandlerError> {
        if self.stored.len() != size {
            self.stored = vec![0x5a; size].into();
        }
        Ok(AnyPayload(self.stored.clone()))
    }
}

impl<M: Question + Message<Reply = M>> HandleSync<M> for Echo {
    fn handle(&mut self, message: M, _context: &mut CallContext) -> Result<M, HandlerError> {
        Ok(message)
    }
}

/// Asks an answering core what it has used so far.
#[derive(Serialize, Deserialize)]
pub(crate) struct Use;
message!(Use as "bench.Use" => Used);

/// The system calls by which a core has sent or waited so far: `enter` calls, and sends without one.
pub(crate) fn calls(core: &CoreSnapshot) -> u64 {
    core.enters + core.direct_sends
}

/// What a core has used so far.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Used {
    pub(crate) allocs: u64,
    pub(crate) enters: u64,
}

/// Asks an answering core what it holds.
#[derive(Serialize, Deserialize)]
pub(crate) struct Hold;
message!(Hold as "bench.Hold" => Held);

/// The endpoint that answers [`Use`] and [`Hold`] for the core it lives on.
#[derive(Default)]
pub(crate) struct Counter {
    /// Allocations that reading the counters has taken, which are nobody else's.
    own: u64,
}

impl Endpoint for Counter {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<Use>().ask_sync::<Hold>();
    }
}

impl HandleSync<Use> for Counter {
    fn handle(&mut self, _message: Use, context: &mut CallContext) -> Result<Used, HandlerError> {
        let before = thread_allocs();
        let enters = calls(&context.env().snapshot().cores[context.core()]);
        self.own += thread_allocs() - before;
        Ok(Used { enters, allocs: thread_allocs() - self.own })
    }
}

impl HandleSync<Hold> for Counter {
    fn handle(&mut self, _message: Hold, _context: &mut CallContext) -> Result<Held, HandlerError> {
        Ok(held()?)
    }
}

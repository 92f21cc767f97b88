//! What is echoed.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

/// Bytes that every system echoes.
pub(crate) const SIZE: usize = 64;

/// 64 bytes, as one run of bytes to every serde format: the cheapest way through each of them.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Payload([u8; SIZE]);

impl Payload {
    /// One that differs from all others of a run, so that a mixed-up answer does not pass for the right one.
    #[inline]
    pub(crate) fn numbered(number: u64) -> Payload {
        // The number all over: written as wide as it is read next, which a store of 8 bytes in front would not be.
        let mut bytes = [0; SIZE];
        for chunk in bytes.chunks_exact_mut(8) {
            chunk.copy_from_slice(&number.to_le_bytes());
        }
        Payload(bytes)
    }

    #[inline]
    pub(crate) fn as_bytes(&self) -> &[u8; SIZE] {
        &self.0
    }

    /// Takes bytes that a peer hands out as a slice.
    #[inline]
    pub(crate) fn from_slice(bytes: &[u8]) -> Result<Payload, crate::Error> {
        let bytes = bytes.try_into().map_err(|_| format!("an answer has {} bytes, not {SIZE}", bytes.len()))?;
        Ok(Payload(bytes))
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(PayloadVisitor)
    }
}

struct PayloadVisitor;

impl Visitor<'_> for PayloadVisitor {
    type Value = Payload;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SIZE} bytes")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Payload, E> {
        bytes.try_into().map(Payload).map_err(|_| E::invalid_length(bytes.len(), &self))
    }
}

//! A deserialiser of postcard's format that bounds what its input may cost.
//!
//! A few bytes can stand for much: an empty `Option` of a large type is one byte, an element without fields is none,
//! and a type that holds itself nests as deep as its bytes say. So each value carries along how deep it may still nest
//! and how many bytes its place has, and what does not fit its place is charged to a budget of the whole message. The
//! sizes are those of the types, known to the compiler: a message without sequences, options and enums costs nothing.
//!
//! Numbers and text are postcard's own.

use std::marker::PhantomData;

use postcard::de_flavors::Slice;
use postcard::{Deserializer, Error, Result};
use serde::de::{self, Visitor};

use super::bounded_parts::{Elements, Entries, Fields, Variant};
use super::limits::{DecodeLimits, Limit};
use super::told::{self, Teller, told_by};

/// Sequences inside one another that may reserve memory ahead of their elements, up to a MiB each (that bound is
/// serde's). Those inside of them grow with what is there.
const RESERVING: u16 = 8;

/// What is left of a message, and of its limits.
pub(super) struct Source<'de> {
    message: &'de [u8],
    /// How much of it has been read: a byte more writes less than it would to shorten a slice.
    read: usize,
    /// Bytes that the values may still take up.
    bytes: usize,
    /// Elements that sequences and maps may still have.
    elements: usize,
    stack_floor: usize,
    teller: Option<&'de Teller>,
    /// The limit that was reached.
    pub(super) exceeded: Option<Limit>,
}

/// A value that is about to be read.
pub(super) struct Value<'a, 'de> {
    pub(super) source: &'a mut Source<'de>,
    pub(super) nesting: Nesting,
    /// Bytes that its place has, in a value around it.
    pub(super) place: usize,
    /// Size of the struct or tuple around it, if no other kind of value is between. What is in it and smaller is not
    /// checked: sizes do not shrink for ever.
    pub(super) around: usize,
}

/// What may still nest.
#[derive(Clone, Copy)]
pub(super) struct Nesting {
    pub(super) levels: u32,
    /// Sequences that may reserve memory.
    pub(super) reserving: u16,
}

impl<'de> Source<'de> {
    #[inline]
    pub(super) fn new(bytes: &'de [u8], limits: &DecodeLimits, teller: Option<&'de Teller>) -> Source<'de> {
        Source {
            message: bytes,
            read: 0,
            bytes: limits.bytes,
            elements: limits.elements.saturating_add(bytes.len()),
            stack_floor: limits.stack_floor,
            teller,
            exceeded: None,
        }
    }

    /// The value that takes up the message.
    #[inline]
    pub(super) fn value<T>(&mut self, limits: &DecodeLimits) -> Value<'_, 'de> {
        let nesting = Nesting { levels: limits.depth, reserving: RESERVING };
        Value { source: self, nesting, place: size_of::<T>(), around: usize::MAX }
    }

    /// Whether the value was within its limits and took up all bytes. A `Deserialize` implementation may have gone on
    /// after an error.
    #[inline]
    pub(super) fn is_used_up(&self) -> bool {
        self.read == self.message.len() && self.exceeded.is_none()
    }

    /// What is to be read.
    #[inline]
    pub(super) fn rest(&self) -> &'de [u8] {
        self.message.get(self.read..).unwrap_or_default()
    }

    /// Has postcard read something that nests nothing.
    #[inline]
    pub(super) fn read<T>(&mut self, read: impl FnOnce(&mut Deserializer<'de, Slice<'de>>) -> Result<T>) -> Result<T> {
        let mut postcard = Deserializer::from_bytes(self.rest());
        let value = read(&mut postcard)?;
        self.read = self.message.len() - postcard.finalize()?.len();
        Ok(value)
    }

    #[inline]
    fn byte(&mut self) -> Result<u8> {
        let &byte = self.message.get(self.read).ok_or(Error::DeserializeUnexpectedEnd)?;
        self.read += 1;
        Ok(byte)
    }

    /// A length. Most have one byte.
    #[inline]
    fn length(&mut self) -> Result<usize> {
        if let Some(&byte @ 0..0x80) = self.message.get(self.read) {
            self.read += 1;
            return Ok(usize::from(byte));
        }
        let (length, rest) = long_length(self.rest())?;
        self.read = self.message.len() - rest.len();
        Ok(length)
    }

    /// As many bytes as stand in front of them.
    #[inline]
    fn slice(&mut self) -> Result<&'de [u8]> {
        let length = self.length()?;
        let end = self.read.checked_add(length).ok_or(Error::DeserializeUnexpectedEnd)?;
        let bytes = self.message.get(self.read..end).ok_or(Error::DeserializeUnexpectedEnd)?;
        self.read = end;
        Ok(bytes)
    }

    /// The length of a sequence or map, whose elements are counted.
    #[inline]
    fn elements(&mut self) -> Result<usize> {
        let length = self.length()?;
        match self.elements.checked_sub(length) {
            Some(left) => self.elements = left,
            None => return Err(self.exceed(Limit::Elements)),
        }
        Ok(length)
    }

    /// Charges bytes that values take up beyond their place.
    #[inline]
    pub(super) fn charge(&mut self, count: usize, size: usize) -> Result<()> {
        match self.bytes.checked_sub(count.saturating_mul(size)) {
            Some(left) => {
                self.bytes = left;
                Ok(())
            }
            None => Err(self.exceed(Limit::Bytes)),
        }
    }

    /// Makes sure that the stack has room for reading a `T`.
    #[inline(always)]
    fn check_stack<T>(&mut self) -> Result<()> {
        if stack_pointer() < self.stack_floor.saturating_add(stack_for::<T>()) {
            return Err(self.exceed(Limit::Stack));
        }
        Ok(())
    }

    #[inline]
    fn exceed(&mut self, limit: Limit) -> Error {
        self.exceeded = Some(limit);
        Error::SerdeDeCustom
    }

    /// Memory that a visitor may reserve for so many elements, as [`Elements::size_hint`] tells.
    #[inline]
    pub(super) fn hint(&self, left: usize, nesting: Nesting) -> Option<usize> {
        (nesting.reserving > 0 && left <= self.message.len() - self.read).then_some(left)
    }
}

/// A length that has more than one byte, and what is behind it. It takes no source: that would have to be in memory,
/// and is in registers where everything is inlined.
#[inline(never)]
fn long_length(bytes: &[u8]) -> Result<(usize, &[u8])> {
    postcard::take_from_bytes(bytes)
}

/// Stack that reading a value of this type takes at most, beside the reserve that each thread keeps: a build without
/// optimisation moves it through some 20 frames.
const fn stack_for<T>() -> usize {
    if size_of::<T>() <= 128 { 0 } else { size_of::<T>().saturating_mul(32) }
}

/// An address in the frame of the caller.
#[inline(always)]
fn stack_pointer() -> usize {
    let mark = 0u8;
    &raw const mark as usize
}

impl<'a, 'de> Value<'a, 'de> {
    /// Makes sure that a `T` may be here.
    #[inline]
    pub(super) fn fit<T>(&mut self) -> Result<()> {
        if size_of::<T>() > self.place {
            // It lies behind a pointer, so its type may hold itself.
            self.source.charge(1, size_of::<T>())?;
            self.source.check_stack::<T>()?;
        }
        Ok(())
    }

    /// Makes sure that a `T` may be here, and that what is in it may be one level deeper.
    #[inline]
    fn descend<T>(&mut self) -> Result<Nesting> {
        self.fit::<T>()?;
        let Some(levels) = self.nesting.levels.checked_sub(1) else { return Err(self.source.exceed(Limit::Depth)) };
        self.source.check_stack::<T>()?;
        Ok(Nesting { levels, ..self.nesting })
    }

    /// Reads the fields of a struct, a tuple or an array.
    #[inline]
    pub(super) fn fields<V: Visitor<'de>>(mut self, left: usize, visitor: V) -> Result<V::Value> {
        let (mut nesting, mut around) = (self.nesting, size_of::<V::Value>());
        if around < self.around {
            self.fit::<V::Value>()?;
        } else {
            (nesting, around) = (self.descend::<V::Value>()?, usize::MAX);
        }
        visitor.visit_seq(Fields { source: self.source, nesting, around, left, room: size_of::<V::Value>() })
    }
}

/// What postcard reads, nothing nested.
macro_rules! as_postcard_does {
    ($($method:ident)*) => {
        $(#[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
            self.source.read(|postcard| postcard.$method(visitor))
        })*
    };
}

/// What postcard cannot read.
macro_rules! never {
    ($($method:ident)*) => {
        $(#[inline]
        fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value> {
            Err(Error::WontImplement)
        })*
    };
}

impl<'a, 'de> de::Deserializer<'de> for Value<'a, 'de> {
    type Error = Error;

    as_postcard_does! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64
        deserialize_char
    }
    never! { deserialize_any deserialize_identifier deserialize_ignored_any }

    /// By itself, since a vector may have many.
    #[inline]
    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_u8(self.source.byte()?)
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }

    #[inline]
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let text = std::str::from_utf8(self.source.slice()?).map_err(|_| Error::DeserializeBadUtf8)?;
        visitor.visit_borrowed_str(text)
    }

    #[inline]
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_str(visitor)
    }

    #[inline]
    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_borrowed_bytes(self.source.slice()?)
    }

    #[inline]
    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_bytes(visitor)
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value> {
        match self.source.byte()? {
            0 => visitor.visit_none(),
            1 => {
                let nesting = self.descend::<V::Value>()?;
                let place = size_of::<V::Value>();
                visitor.visit_some(Value { source: self.source, nesting, place, around: usize::MAX })
            }
            _ => Err(Error::DeserializeBadOption),
        }
    }

    #[inline]
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(mut self, name: &'static str, visitor: V) -> Result<V::Value> {
        self.fit::<V::Value>()?;
        let value = Value { place: size_of::<V::Value>(), ..self };
        // The compiler knows the name: it costs nothing in a message without refs.
        if name == told::REF {
            return told_by(value.source.teller.copied(), || visitor.visit_newtype_struct(value));
        }
        visitor.visit_newtype_struct(value)
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value> {
        let left = self.source.elements()?;
        let nesting = self.descend::<V::Value>()?;
        visitor.visit_seq(Elements { source: self.source, nesting, left, charged: 1 })
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value> {
        self.fields(len, visitor)
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(self, _: &'static str, len: usize, visitor: V) -> Result<V::Value> {
        self.fields(len, visitor)
    }

    #[inline]
    fn deserialize_map<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value> {
        let left = self.source.elements()?;
        let nesting = self.descend::<V::Value>()?;
        let keys = Elements { source: self.source, nesting, left, charged: 1 };
        visitor.visit_map(Entries { keys, charged: 1 })
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.fields(fields.len(), visitor)
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        mut self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        let nesting = self.descend::<V::Value>()?;
        visitor.visit_enum(Variant { source: self.source, nesting, size: PhantomData::<V::Value> })
    }
}

//! What a bounded value consists of: fields, elements, entries, and what is in a variant.

use std::marker::PhantomData;

use postcard::{Error, Result};
use serde::Deserialize;
use serde::de::{DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor};

use super::bounded::{Nesting, Source, Value};

/// Elements that a sequence or map counts as at least: the smallest hash table has 4 places.
const LEAST_PLACES: usize = 4;

/// The fields of a struct, a tuple or an array.
pub(super) struct Fields<'a, 'de> {
    pub(super) source: &'a mut Source<'de>,
    pub(super) nesting: Nesting,
    pub(super) around: usize,
    pub(super) left: usize,
    /// Bytes of the whole that are not yet used by fields.
    pub(super) room: usize,
}

impl<'de> SeqAccess<'de> for Fields<'_, 'de> {
    type Error = Error;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let place = size_of::<S::Value>();
        match self.room.checked_sub(place) {
            Some(room) => self.room = room,
            // It goes elsewhere, such as into a vector.
            None => self.source.charge(1, place)?,
        }
        let (nesting, around) = (self.nesting, self.around);
        seed.deserialize(Value { source: self.source, nesting, place, around }).map(Some)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

/// The elements of a sequence, or the keys of a map.
pub(super) struct Elements<'a, 'de> {
    pub(super) source: &'a mut Source<'de>,
    pub(super) nesting: Nesting,
    pub(super) left: usize,
    /// Bytes that are charged for each element. One is: it is bounded with the number of elements.
    pub(super) charged: usize,
}

impl<'de> Elements<'_, 'de> {
    /// Makes sure that elements of this size are charged, the ones to come included.
    #[inline]
    fn charge(&mut self, size: usize) -> Result<()> {
        if size > 1 && size > self.charged {
            self.source.charge(self.left.saturating_add(1).max(LEAST_PLACES), size)?;
            self.charged = size;
        }
        Ok(())
    }

    #[inline]
    fn value(&mut self, place: usize) -> Value<'_, 'de> {
        let nesting = Nesting { reserving: self.nesting.reserving.saturating_sub(1), ..self.nesting };
        Value { source: self.source, nesting, place, around: usize::MAX }
    }
}

impl<'de> SeqAccess<'de> for Elements<'_, 'de> {
    type Error = Error;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        self.charge(size_of::<S::Value>())?;
        seed.deserialize(self.value(size_of::<S::Value>())).map(Some)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.source.hint(self.left, self.nesting)
    }
}

/// The entries of a map.
pub(super) struct Entries<'a, 'de> {
    pub(super) keys: Elements<'a, 'de>,
    /// Bytes that are charged for each value.
    pub(super) charged: usize,
}

impl<'de> MapAccess<'de> for Entries<'_, 'de> {
    type Error = Error;

    #[inline]
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        self.keys.next_element_seed(seed)
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value> {
        let size = size_of::<S::Value>();
        if size > self.charged {
            self.keys.source.charge(self.keys.left.saturating_add(1).max(LEAST_PLACES), size)?;
            self.charged = size;
        }
        seed.deserialize(self.keys.value(size))
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.keys.size_hint()
    }
}

/// A variant of the enum `T`.
pub(super) struct Variant<'a, 'de, T> {
    pub(super) source: &'a mut Source<'de>,
    pub(super) nesting: Nesting,
    pub(super) size: PhantomData<T>,
}

impl<'a, 'de, T> EnumAccess<'de> for Variant<'a, 'de, T> {
    type Error = Error;
    type Variant = Self;

    #[inline]
    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self)> {
        let index: u32 = self.source.read(|postcard| Deserialize::deserialize(postcard))?;
        let variant = seed.deserialize(IntoDeserializer::<Error>::into_deserializer(index))?;
        Ok((variant, self))
    }
}

impl<'a, 'de, T> Variant<'a, 'de, T> {
    #[inline]
    fn content(self) -> Value<'a, 'de> {
        Value { source: self.source, nesting: self.nesting, place: size_of::<T>(), around: usize::MAX }
    }
}

impl<'de, T> VariantAccess<'de> for Variant<'_, 'de, T> {
    type Error = Error;

    #[inline]
    fn unit_variant(self) -> Result<()> {
        Ok(())
    }

    #[inline]
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value> {
        let mut content = self.content();
        content.fit::<S::Value>()?;
        seed.deserialize(Value { place: size_of::<S::Value>(), ..content })
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value> {
        self.content().fields(len, visitor)
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value> {
        self.content().fields(fields.len(), visitor)
    }
}

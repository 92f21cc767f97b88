//! postcard, straight into and out of the buffers that the sockets use.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use postcard::ser_flavors::Flavor;
use serde::{Serialize, Serializer, de::DeserializeOwned};

use super::bounded::Source;
use super::failure::panicked_with;
use super::limits::{Beyond, DecodeLimits, Limit};
use super::told::Teller;

/// Why a value could not be written or read. The text is postcard's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// A `Serialize` implementation refused, or used something that postcard cannot write.
    #[error("cannot be serialised: {0}")]
    Encode(String),
    /// The bytes are not a value of the expected type.
    #[error("cannot be decoded: {0}")]
    Decode(String),
    /// The value would cost more than the receiver allows.
    #[error("cannot be decoded: {0}")]
    Beyond(Beyond),
    /// A `Serialize` or `Deserialize` implementation panicked.
    #[error("its serde implementation panicked: {0}")]
    Panicked(String),
    /// The value ended before its bytes did: the two sides disagree on the layout.
    #[error("{0} bytes are left over after decoding: the two sides disagree about this message's fields")]
    Trailing(usize),
}

/// Appends to a buffer that belongs to somebody else.
struct Append<'a>(&'a mut Vec<u8>);

impl Flavor for Append<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// What a value consists of, beside its bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Whether it holds a ref that leads back over the connection that carries it: that connection has to stay.
    pub way_back: bool,
}

thread_local! {
    /// Calls of [`note_way_back`]. [`encode`] compares it before and after, so a call outside of any encode has no
    /// effect.
    static WAYS_BACK: Cell<u64> = const { Cell::new(0) };
}

/// Tells the encode that is running on this thread, if any, that its value holds a ref that leads back over the
/// connection that carries it. To be called by the ref's `Serialize` implementation.
///
/// A text format, such as a log line that another `Serialize` implementation writes meanwhile, has no effect.
pub fn note_way_back<S: Serializer>(serializer: &S) {
    if !serializer.is_human_readable() {
        WAYS_BACK.set(WAYS_BACK.get() + 1);
    }
}

/// Appends `value` to `out`. On an error `out` holds a part of the value: the caller cuts it off.
#[inline(always)]
pub fn encode<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<Written, CodecError> {
    let before = WAYS_BACK.get();
    let encoded =
        contain(|| postcard::serialize_with_flavor(value, Append(out)).map_err(|e| CodecError::Encode(e.to_string())));
    let way_back = WAYS_BACK.get() != before;
    if way_back {
        // An encode around this one, which writes something else, is not concerned.
        WAYS_BACK.set(before);
    }
    encoded.map(|()| Written { way_back })
}

/// Reads one value that takes up all of `bytes`, within the limits of a default configuration.
#[inline]
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    decode_within(bytes, &DecodeLimits::DEFAULT)
}

/// Reads one value that takes up all of `bytes`.
#[inline]
pub fn decode_within<T: DeserializeOwned>(bytes: &[u8], limits: &DecodeLimits) -> Result<T, CodecError> {
    decode_then(bytes, limits, None, |value| value)
}

/// Reads one value, told by `teller`, that takes up all of `bytes`.
#[inline]
pub fn decode_told<T: DeserializeOwned>(bytes: &[u8], limits: &DecodeLimits, teller: &Teller) -> Result<T, CodecError> {
    decode_then(bytes, limits, Some(teller), |value| value)
}

/// Reads one value that takes up all of `bytes`, and gives it to `then`: a large value moves less than as a result. A
/// panic of `then` counts as one of the value's.
#[inline]
pub fn decode_then<T: DeserializeOwned, R>(
    bytes: &[u8],
    limits: &DecodeLimits,
    teller: Option<&Teller>,
    then: impl FnOnce(T) -> R,
) -> Result<R, CodecError> {
    contain(|| {
        let mut source = Source::new(bytes, limits, teller);
        match T::deserialize(source.value::<T>(limits)) {
            Ok(value) if source.is_used_up() => Ok(then(value)),
            Ok(_) => Err(not_whole(None, source.exceeded, source.rest().len(), limits)),
            Err(error) => Err(not_whole(Some(error), source.exceeded, source.rest().len(), limits)),
        }
    })
}

/// Why there is no value.
#[cold]
fn not_whole(
    error: Option<postcard::Error>,
    exceeded: Option<Limit>,
    left: usize,
    limits: &DecodeLimits,
) -> CodecError {
    match (exceeded, error) {
        (Some(limit), _) => CodecError::Beyond(Beyond { limit, limits: *limits }),
        (None, Some(error)) => CodecError::Decode(error.to_string()),
        (None, None) => CodecError::Trailing(left),
    }
}

/// Keeps a panic of user code to the one message that it concerns.
#[inline]
fn contain<R>(code: impl FnOnce() -> Result<R, CodecError>) -> Result<R, CodecError> {
    catch_unwind(AssertUnwindSafe(code)).unwrap_or_else(|panic| Err(CodecError::Panicked(panicked_with(panic))))
}

#[cfg(test)]
mod tests {
    use serde::de::{Deserialize, Deserializer, Error, Visitor};

    use super::*;
    use crate::wire::told::{REF, teller};

    #[test]
    fn a_value_survives_the_trip_behind_what_the_buffer_already_holds() {
        let mut out = vec![9];
        encode(&(7u32, "seven"), &mut out).unwrap();
        assert_eq!(decode::<(u32, String)>(&out[1..]).unwrap(), (7, "seven".to_owned()));
    }

    /// A ref that leads back over the connection that carries it; fails or panics behind it if told to.
    struct Ref(Result<(), &'static str>);

    impl Serialize for Ref {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            note_way_back(&serializer);
            match self.0 {
                Ok(()) => serializer.serialize_u8(1),
                Err("panic") => panic!("as told"),
                Err(text) => Err(serde::ser::Error::custom(text)),
            }
        }
    }

    /// A text format.
    struct Shown<T>(T);

    impl<T: Serialize> std::fmt::Display for Shown<T> {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            self.0.serialize(f)
        }
    }

    /// Serialises something else, in the middle of its own encode.
    struct Around(fn());

    impl Serialize for Around {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            self.0();
            serializer.serialize_u8(2)
        }
    }

    fn way_back<T: Serialize>(value: &T) -> bool {
        encode(value, &mut Vec::new()).unwrap().way_back
    }

    #[test]
    fn an_encode_tells_of_the_refs_that_it_wrote_itself_and_of_no_others() {
        assert!(way_back(&(1u8, [Ref(Ok(()))])));
        assert!(!way_back(&7u8), "the one before had it");

        assert_eq!(Shown(Ref(Ok(()))).to_string(), "1");
        postcard::to_allocvec(&Ref(Ok(()))).unwrap();
        assert!(!way_back(&7u8), "no encode wrote it");

        for end in ["an error", "panic"] {
            encode(&Ref(Err(end)), &mut Vec::new()).unwrap_err();
            assert!(!way_back(&7u8), "an encode that failed wrote nothing");
        }

        assert!(!way_back(&Around(|| assert!(way_back(&Ref(Ok(())))))), "the inner encode wrote it");
        assert!(!way_back(&Around(|| drop(Shown(Ref(Ok(()))).to_string()))), "a log line");
        assert!(way_back(&(Ref(Ok(())), Around(|| assert!(!way_back(&7u8))))), "the inner encode does not take it");
    }

    /// Who told a ref, as it learns when it is decoded: the ref itself, or one in bytes that it decodes on its own.
    #[derive(Debug, PartialEq)]
    struct ToldBy<const OWN: bool>(Option<Teller>);

    impl<'de, const OWN: bool> Deserialize<'de> for ToldBy<OWN> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Ask;
            impl<'de> Visitor<'de> for Ask {
                type Value = Option<Teller>;

                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("a ref")
                }

                fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Option<Teller>, D::Error> {
                    <&[u8]>::deserialize(inner).map(|_| teller())
                }
            }
            if OWN {
                let bytes = <&[u8]>::deserialize(deserializer)?;
                let ToldBy(by) = postcard::from_bytes::<ToldBy<false>>(bytes).map_err(Error::custom)?;
                return Ok(ToldBy(by));
            }
            deserializer.deserialize_newtype_struct(REF, Ask).map(ToldBy)
        }
    }

    #[test]
    fn a_ref_is_told_by_who_sent_the_bytes_and_one_that_user_code_decodes_by_nobody() {
        let sender = Teller::Peer { core: Some(1), connection: 7, near: true };
        let told = |teller| {
            let bytes = [1, b'x', 1, 0, 1, b'y'];
            let limits = DecodeLimits::DEFAULT;
            decode_then(&bytes, &limits, teller, |(a, b, c): (ToldBy<false>, ToldBy<true>, ToldBy<false>)| {
                (a.0, b.0, c.0)
            })
        };
        assert_eq!(told(Some(&sender)), Ok((Some(sender), None, Some(sender))));
        assert_eq!(told(None), Ok((None, None, None)));
        assert_eq!(teller(), None);
    }

    #[test]
    fn trailing_and_missing_bytes_are_errors() {
        let mut out = Vec::new();
        encode(&300u32, &mut out).unwrap();
        out.push(0);
        assert_eq!(decode::<u32>(&out), Err(CodecError::Trailing(1)));
        assert!(matches!(decode::<u32>(&out[..1]), Err(CodecError::Decode(_))));
    }

    #[test]
    fn a_claimed_length_allocates_nothing_near_its_size() {
        // A vector of 2^40 elements in six bytes: an error, not an attempt.
        let claim = [0x80, 0x80, 0x80, 0x80, 0x80, 0x20];
        assert!(decode::<Vec<u64>>(&claim).is_err());
    }
}

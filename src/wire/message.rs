//! What makes a type a message: its wire name, its version, its reply.

use serde::{Serialize, de::DeserializeOwned};

/// A type that travels between endpoints.
///
/// A message is a serde type with a name that is the same in every program that speaks it, and a version.
/// postcard does not describe its own layout, so a change of fields is a change of version: a peer that knows only
/// another version answers "unknown message", and never decodes the wrong one.
///
/// It is encoded into the buffer of the connection by which it leaves. So its `Serialize` may not ask or send to a peer
/// itself: the ask for which it is encoded ends as [unsendable](crate::AskError::Unsendable) then.
///
/// # Values that nest
/// Decoding is bounded (`Config::decode_depth`), encoding is not: it recurses by the `Serialize` of the type on the
/// thread that sends, and a value that nests many thousands of levels deep, such as a long list of boxes, overflows the
/// stack there, which ends the process. No bytes of a peer can cause that, since what is decoded nests no deeper than
/// the limit; only values that this process builds. A receiver refuses what is deeper than its limit anyway, 128 levels by
/// default, so send such data flat: a `Vec` of nodes that refer to each other by index, or bytes.
///
/// Use [`message!`](crate::message) to implement it.
pub trait Message: Serialize + DeserializeOwned + Send + 'static {
    /// What the handler answers; `()` for a one-way message.
    type Reply: Serialize + DeserializeOwned + Send + 'static;
    /// The name on the wire, `"service.Message"` by custom.
    const NAME: &'static str;
    /// The version of the layout; raise it whenever the fields change.
    const VERSION: u16 = 1;
    /// What travels in the frame header: a hash of name and version.
    const ID: MessageId = MessageId::of(Self::NAME, Self::VERSION);
}

/// A message that is answered: usable with `ask`.
pub trait Ask: Message {}

/// A message that is not answered: usable with `send`.
pub trait OneWay: Message<Reply = ()> {}

/// The identity of a message type in a frame header: 64-bit FNV-1a of name, a zero byte and the little-endian
/// version, its two halves combined by exclusive or.
///
/// Two messages of one endpoint with the same id are found when the endpoint is registered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MessageId(pub u32);

impl MessageId {
    /// The id of the message with this name and version.
    pub const fn of(name: &str, version: u16) -> MessageId {
        const PRIME: u64 = 0x0000_0100_0000_01b3;
        let bytes = name.as_bytes();
        let version = version.to_le_bytes();
        let tail = [0, version[0], version[1]];
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        let mut i = 0;
        while i < bytes.len() {
            hash = (hash ^ bytes[i] as u64).wrapping_mul(PRIME);
            i += 1;
        }
        i = 0;
        while i < tail.len() {
            hash = (hash ^ tail[i] as u64).wrapping_mul(PRIME);
            i += 1;
        }
        MessageId((hash ^ (hash >> 32)) as u32)
    }
}

/// Makes a serde type a [`Message`](crate::Message).
///
/// ```
/// use ringpost::message;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Deposit { account: u64, cents: i64 }
/// message!(Deposit as "bank.Deposit" => i64);          // an ask, answered with the new balance
///
/// #[derive(Serialize, Deserialize)]
/// struct Audit { account: u64 }
/// message!(Audit as "bank.Audit");                     // one-way
///
/// #[derive(Serialize, Deserialize)]
/// struct Close { account: u64, reason: String }
/// message!(Close as "bank.Close", version 2 => bool);  // the second layout of this message
/// ```
#[macro_export]
macro_rules! message {
    ($type:ty as $name:literal $(, version $version:literal)?) => {
        impl $crate::Message for $type {
            type Reply = ();
            const NAME: &'static str = $name;
            $(const VERSION: u16 = $version;)?
        }
        impl $crate::OneWay for $type {}
    };
    ($type:ty as $name:literal $(, version $version:literal)? => $reply:ty) => {
        impl $crate::Message for $type {
            type Reply = $reply;
            const NAME: &'static str = $name;
            $(const VERSION: u16 = $version;)?
        }
        impl $crate::Ask for $type {}
    };
}

#[cfg(test)]
mod tests {
    use super::MessageId;

    #[test]
    fn the_id_depends_on_name_and_version_and_stays_what_it_was() {
        assert_ne!(MessageId::of("a", 1), MessageId::of("a", 2));
        assert_ne!(MessageId::of("a", 1), MessageId::of("b", 1));
        assert_eq!(MessageId::of("ringpost.Lookup", 1).0, 0xfc0d_2993);
    }
}

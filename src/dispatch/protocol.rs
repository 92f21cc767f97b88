//! The messages that a kind of endpoint accepts, as a type.

use crate::wire::message::{Message, MessageId};

/// A kind of endpoint, by the messages that it accepts: what a [`TypedRef`](crate::TypedRef) is typed by.
///
/// The type that implements it is a mere name, and no endpoint: who asks needs to know neither the endpoint's type nor
/// that of its state. Use [`protocol!`](crate::protocol) to implement it.
pub trait Protocol: 'static {
    /// The messages, for [`Handlers::implements`](crate::Handlers::implements).
    const MESSAGES: &'static [Accepted];
}

/// The protocol has the message `M`.
#[diagnostic::on_unimplemented(
    message = "the protocol `{Self}` has no message `{M}`",
    note = "list the message in its `protocol!`, or use `TypedRef::untyped`"
)]
pub trait Accepts<M: Message>: Protocol {}

/// A message of a protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Accepted {
    /// Its id.
    pub id: MessageId,
    /// Its name on the wire.
    pub name: &'static str,
    /// The version of its layout.
    pub version: u16,
}

impl Accepted {
    /// The message `M`.
    pub const fn of<M: Message>() -> Accepted {
        Accepted { id: M::ID, name: M::NAME, version: M::VERSION }
    }
}

/// Makes a type a [`Protocol`](crate::Protocol) with these messages.
///
/// It belongs beside the messages, in the code that both sides share. The endpoint says that it
/// [implements](crate::Handlers::implements) the protocol, its clients make their refs
/// [typed](crate::EndpointRef::typed) by it, and from then on a message that it does not list does not compile.
///
/// ```
/// # use ringpost::*;
/// # use serde::{Deserialize, Serialize};
/// #[derive(Serialize, Deserialize)]
/// pub struct Deposit { pub account: u64, pub cents: i64 }
/// message!(Deposit as "bank.Deposit" => i64);
///
/// #[derive(Serialize, Deserialize)]
/// pub struct Audit { pub account: u64 }
/// message!(Audit as "bank.Audit");
///
/// pub struct BankApi;
/// protocol!(BankApi: Deposit, Audit);
///
/// async fn pay(bank: &TypedRef<BankApi>) -> Result<i64, Error> {
///     bank.send(Audit { account: 7 })?;
///     Ok(bank.ask(Deposit { account: 7, cents: 500 }).await?)
/// }
/// ```
#[macro_export]
macro_rules! protocol {
    ($protocol:ty: $($message:ty),+ $(,)?) => {
        impl $crate::Protocol for $protocol {
            const MESSAGES: &'static [$crate::Accepted] = &[$($crate::Accepted::of::<$message>()),+];
        }
        $(impl $crate::Accepts<$message> for $protocol {})+
    };
}

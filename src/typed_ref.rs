//! Refs that know what their endpoint accepts.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::asking::Asking;
use crate::dispatch::protocol::{Accepts, Protocol};
use crate::endpoint_ref::EndpointRef;
use crate::net::errors::{AskError, SendError};
use crate::wire::message::{Ask, OneWay};

/// An [`EndpointRef`] to an endpoint whose [`Protocol`] is known: only messages of that protocol compile.
///
/// It is the same ref otherwise: as cheap, usable from any thread, and able to travel in messages, as the same bytes. So
/// one side may be typed and the other not. The endpoint itself is not asked whether it speaks the protocol; if it does
/// not, its answer is [`AskError::UnknownMessage`], as for any ref.
///
/// ```no_run
/// # use ringpost::*;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize)] struct Deposit { account: u64, cents: i64 }
/// # message!(Deposit as "doc.Deposit" => i64);
/// struct BankApi;
/// protocol!(BankApi: Deposit);
///
/// # async fn f(env: RpcEnv) -> Result<(), Error> {
/// let bank = env.endpoint_ref("ringpost://accounts@127.0.0.1:7077")?.typed::<BankApi>();
/// let balance = bank.by_key(7).ask(Deposit { account: 7, cents: 500 }).await?;
/// # Ok(()) }
/// ```
///
/// A message of another protocol does not compile:
///
/// ```compile_fail,E0277
/// # use ringpost::*;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize)] struct Deposit { account: u64, cents: i64 }
/// # message!(Deposit as "doc.Deposit" => i64);
/// # #[derive(Serialize, Deserialize)] struct Launch;
/// # message!(Launch as "doc.Launch" => ());
/// # struct BankApi;
/// # protocol!(BankApi: Deposit);
/// # async fn f(bank: TypedRef<BankApi>) -> Result<(), Error> {
/// bank.ask(Launch).await?;
/// # Ok(()) }
/// ```
pub struct TypedRef<P> {
    endpoint: EndpointRef,
    /// A protocol is a name: no value of it is in here.
    protocol: PhantomData<fn() -> P>,
}

impl EndpointRef {
    /// This ref, for an endpoint that is known to accept the messages of `P`. Nothing is checked here: see [`TypedRef`].
    pub fn typed<P: Protocol>(&self) -> TypedRef<P> {
        TypedRef { endpoint: self.clone(), protocol: PhantomData }
    }
}

impl<P: Protocol> TypedRef<P> {
    /// The same ref, for any message, and for all else that an [`EndpointRef`] can do.
    pub fn untyped(&self) -> &EndpointRef {
        &self.endpoint
    }

    /// As [`EndpointRef::by_key`].
    pub fn by_key(&self, key: u64) -> TypedRef<P> {
        self.endpoint.by_key(key).typed()
    }

    /// As [`EndpointRef::ask`].
    #[inline]
    pub fn ask<M: Ask>(&self, message: M) -> Asking<M::Reply>
    where
        P: Accepts<M>,
    {
        self.endpoint.ask(message)
    }

    /// As [`EndpointRef::ask_within`].
    #[inline]
    pub fn ask_within<M: Ask>(&self, message: M, timeout: Duration) -> Asking<M::Reply>
    where
        P: Accepts<M>,
    {
        self.endpoint.ask_within(message, timeout)
    }

    /// As [`EndpointRef::ask_blocking`].
    pub fn ask_blocking<M: Ask>(&self, message: M) -> Result<M::Reply, AskError>
    where
        P: Accepts<M>,
    {
        self.endpoint.ask_blocking(message)
    }

    /// As [`EndpointRef::ask_blocking_within`].
    pub fn ask_blocking_within<M: Ask>(&self, message: M, timeout: Duration) -> Result<M::Reply, AskError>
    where
        P: Accepts<M>,
    {
        self.endpoint.ask_blocking_within(message, timeout)
    }

    /// As [`EndpointRef::send`].
    #[inline]
    pub fn send<M: OneWay>(&self, message: M) -> Result<(), SendError>
    where
        P: Accepts<M>,
    {
        self.endpoint.send(message)
    }
}

// By hand, since a derive would demand all of this of the protocol.

impl<P> Clone for TypedRef<P> {
    fn clone(&self) -> TypedRef<P> {
        TypedRef { endpoint: self.endpoint.clone(), protocol: PhantomData }
    }
}

impl<P> fmt::Debug for TypedRef<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.endpoint.fmt(f)
    }
}

impl<P> fmt::Display for TypedRef<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.endpoint, f)
    }
}

/// As for the untyped refs.
impl<P> PartialEq for TypedRef<P> {
    fn eq(&self, other: &TypedRef<P>) -> bool {
        self.endpoint == other.endpoint
    }
}

impl<P> Eq for TypedRef<P> {}

impl<P> Hash for TypedRef<P> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.endpoint.hash(state);
    }
}

/// As the untyped ref.
impl<P> Serialize for TypedRef<P> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.endpoint.serialize(serializer)
    }
}

/// As an untyped ref.
impl<'de, P> Deserialize<'de> for TypedRef<P> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TypedRef<P>, D::Error> {
        Ok(TypedRef { endpoint: EndpointRef::deserialize(deserializer)?, protocol: PhantomData })
    }
}

impl<P> From<TypedRef<P>> for EndpointRef {
    fn from(typed: TypedRef<P>) -> EndpointRef {
        typed.endpoint
    }
}

/// Whatever its protocol is, a typed ref goes anywhere; a change that broke this would break users.
const _: () = {
    const fn anywhere<T: Send + Sync>() {}
    anywhere::<TypedRef<std::rc::Rc<()>>>();
};

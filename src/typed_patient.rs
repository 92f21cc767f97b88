//! Typed refs that wait for room.

use std::fmt;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::time::Duration;

use crate::dispatch::protocol::{Accepts, Protocol};
use crate::net::errors::{AskError, SendError};
use crate::patient::PatientRef;
use crate::typed_ref::TypedRef;
use crate::wire::message::{Ask, OneWay};

/// A [`PatientRef`] to an endpoint whose [`Protocol`] is known, as a [`TypedRef`] is an
/// [`EndpointRef`](crate::EndpointRef) to one.
pub struct TypedPatientRef<P> {
    patient: PatientRef,
    protocol: PhantomData<fn() -> P>,
}

impl<P: Protocol> TypedRef<P> {
    /// This ref, waiting for room where it would fail with `Overloaded`: see [`PatientRef`].
    pub fn patient(&self) -> TypedPatientRef<P> {
        TypedPatientRef { patient: self.untyped().patient(), protocol: PhantomData }
    }
}

impl<P: Protocol> TypedPatientRef<P> {
    /// The same ref, for any message.
    pub fn untyped(&self) -> &PatientRef {
        &self.patient
    }

    /// As [`EndpointRef::by_key`](crate::EndpointRef::by_key).
    pub fn by_key(&self, key: u64) -> TypedPatientRef<P> {
        TypedPatientRef { patient: self.patient.by_key(key), protocol: PhantomData }
    }

    /// As [`PatientRef::ask`].
    pub fn ask<M>(&self, message: M) -> impl Future<Output = Result<M::Reply, AskError>> + Send + use<M, P>
    where
        M: Ask + Clone,
        P: Accepts<M>,
    {
        self.patient.ask(message)
    }

    /// As [`PatientRef::ask_within`].
    pub fn ask_within<M>(
        &self,
        message: M,
        timeout: Duration,
    ) -> impl Future<Output = Result<M::Reply, AskError>> + Send + use<M, P>
    where
        M: Ask + Clone,
        P: Accepts<M>,
    {
        self.patient.ask_within(message, timeout)
    }

    /// As [`PatientRef::ask_blocking`].
    pub fn ask_blocking<M>(&self, message: M) -> Result<M::Reply, AskError>
    where
        M: Ask + Clone,
        P: Accepts<M>,
    {
        self.patient.ask_blocking(message)
    }

    /// As [`PatientRef::ask_blocking_within`].
    pub fn ask_blocking_within<M>(&self, message: M, timeout: Duration) -> Result<M::Reply, AskError>
    where
        M: Ask + Clone,
        P: Accepts<M>,
    {
        self.patient.ask_blocking_within(message, timeout)
    }

    /// As [`PatientRef::send`].
    pub fn send<M>(&self, message: M) -> impl Future<Output = Result<(), SendError>> + Send + use<M, P>
    where
        M: OneWay + Clone,
        P: Accepts<M>,
    {
        self.patient.send(message)
    }

    /// As [`PatientRef::send_within`].
    pub fn send_within<M>(
        &self,
        message: M,
        timeout: Duration,
    ) -> impl Future<Output = Result<(), SendError>> + Send + use<M, P>
    where
        M: OneWay + Clone,
        P: Accepts<M>,
    {
        self.patient.send_within(message, timeout)
    }

    /// As [`PatientRef::send_blocking`].
    pub fn send_blocking<M>(&self, message: M) -> Result<(), SendError>
    where
        M: OneWay + Clone,
        P: Accepts<M>,
    {
        self.patient.send_blocking(message)
    }

    /// As [`PatientRef::send_blocking_within`].
    pub fn send_blocking_within<M>(&self, message: M, timeout: Duration) -> Result<(), SendError>
    where
        M: OneWay + Clone,
        P: Accepts<M>,
    {
        self.patient.send_blocking_within(message, timeout)
    }
}

impl<P> Clone for TypedPatientRef<P> {
    fn clone(&self) -> TypedPatientRef<P> {
        TypedPatientRef { patient: self.patient.clone(), protocol: PhantomData }
    }
}

impl<P> fmt::Debug for TypedPatientRef<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.patient.fmt(f)
    }
}

impl<P> fmt::Display for TypedPatientRef<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.patient, f)
    }
}

/// As for the untyped refs.
impl<P> PartialEq for TypedPatientRef<P> {
    fn eq(&self, other: &TypedPatientRef<P>) -> bool {
        self.patient == other.patient
    }
}

impl<P> Eq for TypedPatientRef<P> {}

impl<P> Hash for TypedPatientRef<P> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.patient.hash(state);
    }
}

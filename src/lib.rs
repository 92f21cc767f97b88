//! An RPC runtime for latency-sensitive Linux services, on io_uring and thread-per-core.

#![deny(unsafe_code, missing_docs)]

pub mod wire;

pub use wire::message::{Ask, Message, MessageId, OneWay};

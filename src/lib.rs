//! An RPC runtime for latency-sensitive Linux services, on io_uring and thread-per-core.

#![deny(unsafe_code, missing_docs)]

pub mod dispatch;
#[expect(unsafe_code, reason = "a room for unsafe code: tasks, wakers and the memory of suspended handlers")]
pub mod executor;
#[expect(unsafe_code, reason = "a room for unsafe code: type-erased messages and the models of the lanes")]
pub mod mesh;
pub mod net;
#[expect(unsafe_code, reason = "a room for unsafe code: system calls and memory that the kernel writes")]
pub mod ring;
pub mod wire;

pub use wire::message::{Ask, Message, MessageId, OneWay};

//! io_uring alone: what the kernel can do, one ring per thread, and safe operations on sockets.
//!
//! A [`Ring`] is made on the thread that drives it and never leaves it. Calls such as [`Ring::recv`] or [`Ring::send`]
//! only queue a request; [`Ring::submit`] and [`Ring::wait`] are the two places that enter the kernel, and
//! [`Ring::reap`] turns what the kernel has finished into [`Completion`]s. Reactions belong to the caller and run after
//! the reap, so nothing the caller does can re-enter the completion loop.
//!
//! Memory that the kernel reads or writes is owned here: send buffers move in and come back with [`Completion::Sent`],
//! received bytes lie in provided buffers and are handed out as [`Chunk`] tokens. Nothing is freed before the kernel has
//! said that it is done with it.

mod affinity;
mod buffers;
mod capabilities;
mod close;
mod complete;
mod completion;
mod config;
mod event;
mod facts;
mod operations;
mod probe;
mod random;
mod receive;
mod sending;
mod setup_error;
mod sock_addr;
mod sockets;
mod stack;
mod stats;
mod submit;
mod syscalls;
mod tag;
mod waker;

#[expect(clippy::module_inception, reason = "the ring is the concept that this floor is named for")]
mod ring;

pub use affinity::Affinity;
pub use buffers::Chunk;
pub use capabilities::{Capabilities, Feature};
pub use completion::{Completion, RecvEnd};
pub use config::RingConfig;
pub use event::RingEvent;
#[cfg(feature = "tokio-uring")]
pub use event::TokioRingEvent;
pub use random::random;
pub use ring::Ring;
pub use setup_error::SetupError;
pub(crate) use setup_error::from_io;
pub use sock_addr::{MAX_UNIX_PATH, SockAddr};
pub use sockets::SocketId;
pub use stack::stack_floor;
pub use stats::RingStats;
pub use waker::RingWaker;

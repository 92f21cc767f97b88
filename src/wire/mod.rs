//! The wire format, and nothing else: bytes in, values out.
//!
//! Everything here is pure: no sockets, no clock, no threads. `docs/WIRE.md` describes the same format for
//! whoever writes a second implementation; the two must be changed together.

mod bounded;
mod bounded_parts;
pub mod codec;
pub mod failure;
pub mod frame;
pub mod handshake;
pub mod limits;
pub mod message;
pub mod told;

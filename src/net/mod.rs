//! Connections as state machines: bytes in, events out; frames in, bytes out.
//!
//! No system call, no clock and no socket in here. The shard feeds what the ring delivers and sends what these
//! types hold ready, so all of it runs under plain tests.

mod absent;
pub mod ask_cell;
pub mod ask_key;
pub mod asked;
mod asks_by_peer;
mod connected;
pub mod connection;
pub mod connection_id;
mod deadlines;
pub mod errors;
pub mod fences;
pub mod handoff;
pub mod keepalive;
pub mod node_ids;
pub mod outbox;
pub mod peer;
pub mod pending;
pub mod reader;
pub mod ref_policy;
pub mod remote;
pub mod roster;
pub mod waiter;
pub mod writer;

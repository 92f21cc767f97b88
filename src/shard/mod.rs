//! One core put together: ring, connections, lanes and dispatcher.
//!
//! [`Core`](core::Core) owns the ring and runs the turns; [`Shard`](shard::Shard) is everything else, shared with
//! the code that runs on the core. Only the core touches the ring, so no handler can disturb it: what a handler
//! causes is noted in the shard and done at the end of the turn.

mod absence;
#[cfg(test)]
mod actions_tests;
pub mod answers;
pub mod ask;
pub mod config;
pub mod connections;
pub mod core;
pub mod counters;
pub mod current;
pub mod destination;
pub mod early;
mod ended;
mod ending;
pub mod endpoints;
pub mod events;
pub mod isolated;
pub mod keepalive;
pub mod lanes;
pub mod links;
mod losses;
pub mod node;
#[cfg(test)]
mod parking_tests;
pub mod placement;
mod probes;
mod received;
#[cfg(test)]
mod received_tests;
pub mod relay;
pub mod requests;
pub mod resolver;
pub mod rest;
pub mod room;
#[expect(clippy::module_inception, reason = "the shard of a core is the concept that this floor is named for")]
pub mod shard;
pub mod sleep;
pub mod socket_file;
pub mod spawn;
#[cfg(test)]
mod stage;
pub mod timeouts;
mod tokens;
mod wakes;
mod warnings;

//! Endpoints and how messages reach them: one core's shard of the dispatcher.
//!
//! Nothing in here knows about sockets or other threads: a message comes in as a value or as bytes, and the answer
//! leaves through [`ReplyPath`](reply_path::ReplyPath).

mod ask_index;
pub mod call;
pub mod context;
pub mod deferred;
mod deliver;
mod direct;
pub mod directory;
pub mod dispatcher;
pub mod endpoint;
pub mod endpoint_context;
pub mod erased;
pub mod event;
mod events;
mod giving_up;
pub mod handling;
pub mod inbox;
pub mod notices;
mod one_way_limit;
pub mod protocol;
pub mod replier;
pub mod reply_path;
pub mod responder;
pub mod shared;
mod slot;
mod spare_parcels;
mod suspended;
pub mod trace;
mod unhandled;
pub mod verifier;

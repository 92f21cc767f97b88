//! What cores say to each other, and how a sleeping one is told to listen.
//!
//! Cores share no mutable state. A message crosses from one to another as a [`Parcel`](parcel::Parcel) through a
//! [`lane`], a queue with exactly one sender and one receiver. Threads that are no core use the
//! [`Injector`](injector::Injector) instead. A core with nothing to do says so in its [`ParkFlag`](park::ParkFlag), so
//! that a sender pays for a wake only when there is somebody to wake.
//!
//! Nothing here makes a system call except the injector's lock when it is contended: the wake itself is the caller's.

pub mod injector;
pub mod lane;
pub mod parcel;
pub mod park;

mod queue;
#[cfg(ringpost_loom)]
mod queue_model;
mod sync;

#[cfg(all(test, not(ringpost_loom)))]
mod lane_tests;
#[cfg(all(test, ringpost_loom))]
mod models;
#[cfg(all(test, not(ringpost_loom)))]
mod parcel_tests;

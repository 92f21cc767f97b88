//! What runs on a core: tasks and their wakers, timers, the idle policy.
//!
//! Everything here belongs to one thread, apart from wakers, which any thread may hold and use. Nothing here does a
//! system call or reads a clock: the core tells the time and decides when to sleep.

pub mod catch;
pub mod future_cell;
pub mod idle;
pub mod key;
pub mod local;
pub mod rate_limit;
pub mod rc_cell;
mod slots;
pub mod steps;
pub mod tasks;
pub mod timers;
pub mod waker;

#[cfg(test)]
mod future_cell_tests;
#[cfg(test)]
mod tasks_tests;
#[cfg(test)]
mod timers_tests;
#[cfg(test)]
mod waker_tests;

//! The ring against the real kernel, starved and cut on purpose. Every wait is bounded.

mod closing;
mod detaching;
mod events;
mod pressure;
mod probing;
mod receiving;
mod sending;
mod support;
mod waking;

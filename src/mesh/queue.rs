//! The bounded ring below a lane: `rtrb`, or a model of it for loom.

#[cfg(not(ringpost_loom))]
pub(super) use rtrb::{Consumer, Producer, PushError};

#[cfg(ringpost_loom)]
pub(super) use super::queue_model::{Consumer, Producer, PushError};

/// Makes a ring for `capacity` items.
#[cfg(not(ringpost_loom))]
pub(super) fn ring<T>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    rtrb::RingBuffer::new(capacity)
}

#[cfg(ringpost_loom)]
pub(super) use super::queue_model::ring;

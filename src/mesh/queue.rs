//! The bounded ring below a lane: `rtrb`, or a model of it for loom.

#[cfg(not(ringpost_loom))]
pub(super) use rtrb::{Consumer, Producer, PushError};

#[cfg(ringpost_loom)]
pub(super) use super::queue_model::{Consumer, Producer, PushError, has_room, pop_with, push_with};

/// Makes a ring for `capacity` items.
#[cfg(not(ringpost_loom))]
pub(super) fn ring<T>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    rtrb::RingBuffer::new(capacity)
}

/// Whether there is a free place in the ring. Reads the other core's cache line only if it has none by what is known.
#[cfg(not(ringpost_loom))]
#[inline]
pub(super) fn has_room<T>(producer: &mut Producer<T>) -> bool {
    producer.write_chunk_uninit(1).is_ok()
}

/// Lets `fill` change a default value in the next free place of the ring, if there is one.
#[cfg(not(ringpost_loom))]
#[inline]
pub(super) fn push_with<T: Default>(producer: &mut Producer<T>, fill: impl FnOnce(&mut T)) {
    if let Ok(mut chunk) = producer.write_chunk(1) {
        if let Some(place) = chunk.as_mut_slices().0.first_mut() {
            fill(place);
        }
        chunk.commit_all();
    }
}

/// Reads the oldest value where it lies, if there is one, then drops it.
#[cfg(not(ringpost_loom))]
#[inline]
pub(super) fn pop_with<T, R>(consumer: &mut Consumer<T>, read: impl FnOnce(&mut T) -> R) -> Option<R> {
    let mut chunk = consumer.read_chunk(1).ok()?;
    let read = chunk.as_mut_slices().0.first_mut().map(read);
    chunk.commit_all();
    read
}

#[cfg(ringpost_loom)]
pub(super) use super::queue_model::ring;

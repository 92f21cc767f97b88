//! Provided receive buffers: memory that the kernel fills and hands back by number.

use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

/// The buffer group of a ring's only pool.
pub(super) const GROUP: u16 = 0;

/// Buffers that are not provided to the kernel, for bytes that the owner asks for itself.
const PRIVATE: u16 = 4;

/// Received bytes, waiting in one of the ring's buffers.
///
/// A token, not the bytes: [`Ring::bytes`](super::Ring::bytes) shows them, [`Ring::release`](super::Ring::release) ends
/// it and gives the buffer back to the kernel. It cannot be copied, so a buffer cannot be given back twice.
///
/// A chunk that is dropped without `release` keeps its buffer for the life of the ring; with none left, receives stop.
#[derive(Debug)]
#[must_use = "release the chunk, or its buffer is lost to the ring"]
pub struct Chunk {
    pool: u32,
    buffer: u16,
    len: u32,
}

impl Chunk {
    /// Number of bytes received.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there are no bytes; never the case for a chunk of a completion.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// One anonymous mapping: the array of descriptors the kernel reads, the buffers it fills, then a few private ones.
///
/// The descriptor array is a queue from us to the kernel. Its tail, which shares memory with the first descriptor, is
/// ours alone to write; the kernel's head is not visible, so what is out is counted here: a buffer leaves when a
/// completion names it and comes back when its chunk is released.
///
/// A released buffer is visible to the kernel only after [`Pool::publish`]. The kernel takes buffers during an enter
/// only, so publishing once before each enter is enough.
#[derive(Debug)]
pub(super) struct Pool {
    id: u32,
    memory: NonNull<u8>,
    mapped: usize,
    buffers_at: usize,
    entries: u16,
    buffer_size: u32,
    tail: u16,
    free: usize,
    /// Numbers of the private buffers that are free, from `entries` on.
    private: Vec<u16>,
    leaked: bool,
}

/// Told apart so that a chunk of one ring is refused by another.
static NEXT_POOL: AtomicU32 = AtomicU32::new(0);

const PAGE: usize = 4096;

impl Pool {
    /// `entries` is a power of two, at most 32,768; all buffers start free.
    pub(super) fn new(entries: u16, buffer_size: u32) -> io::Result<Pool> {
        let count = usize::from(entries);
        let buffers_at = (count * size_of::<BufRingEntry>()).next_multiple_of(PAGE);
        let mapped = buffers_at + (count + usize::from(PRIVATE)) * buffer_size as usize;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let memory = unsafe { libc::mmap(ptr::null_mut(), mapped, protection, flags, -1, 0) };
        let memory = match NonNull::new(memory.cast::<u8>()) {
            Some(memory) if memory.as_ptr().cast() != libc::MAP_FAILED => memory,
            _ => return Err(io::Error::last_os_error()),
        };
        // SAFETY: the mapping just made. A forked child has no use for it; failing to exclude it is harmless.
        unsafe { libc::madvise(memory.as_ptr().cast(), mapped, libc::MADV_DONTFORK) };
        let id = NEXT_POOL.fetch_add(1, Ordering::Relaxed);
        let private = (entries..entries + PRIVATE).collect();
        let mut pool =
            Pool { id, memory, mapped, buffers_at, entries, buffer_size, tail: 0, free: 0, private, leaked: false };
        for buffer in 0..entries {
            pool.give(buffer);
        }
        pool.publish();
        Ok(pool)
    }

    /// Tells the kernel about the pool.
    pub(super) fn register(&self, submitter: &Submitter<'_>) -> io::Result<()> {
        let address = self.memory.as_ptr() as u64;
        // SAFETY: the descriptor array starts the page-aligned mapping, which lives until the ring has unregistered it
        // and all requests have ended (`Ring::drop`), or for ever.
        unsafe { submitter.register_buf_ring_with_flags(address, self.entries, GROUP, 0) }
    }

    fn buffer_at(&self, buffer: u16) -> NonNull<u8> {
        debug_assert!(buffer < self.entries + PRIVATE);
        // SAFETY: `buffer` is below `entries + PRIVATE` at every caller, so the offset stays inside the mapping.
        unsafe { self.memory.add(self.buffers_at + usize::from(buffer) * self.buffer_size as usize) }
    }

    #[inline]
    fn give(&mut self, buffer: u16) {
        let address = self.buffer_at(buffer).as_ptr() as u64;
        let index = usize::from(self.tail & (self.entries - 1));
        // SAFETY: `index` is below `entries`, so the descriptor is inside the array. The kernel reads only up to the
        // published tail, which is behind this one. The fields are written one by one because the last two bytes of
        // the first descriptor are the tail.
        unsafe {
            let entry = &mut *self.memory.cast::<BufRingEntry>().add(index).as_ptr();
            entry.set_addr(address);
            entry.set_len(self.buffer_size);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
        self.free += 1;
    }

    /// Lets the kernel see all buffers given back so far.
    #[inline]
    pub(super) fn publish(&self) {
        // SAFETY: the mapping starts with the first descriptor, whose reserved field is the tail by the kernel's ABI:
        // two aligned bytes that only this thread writes and that the kernel reads atomically.
        let tail = unsafe { &*BufRingEntry::tail(self.memory.as_ptr().cast()).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }

    /// A completion says that the kernel has filled `buffer` with `len` bytes. `None` for a number we never gave.
    #[inline]
    pub(super) fn filled(&mut self, buffer: u16, len: u32) -> Option<Chunk> {
        if buffer >= self.entries || self.free == 0 {
            return None;
        }
        self.free -= 1;
        Some(Chunk { pool: self.id, buffer, len: len.min(self.buffer_size) })
    }

    /// Room for bytes that the owner asks for itself, if a private buffer is free.
    #[inline]
    pub(super) fn private(&mut self) -> Option<&mut [u8]> {
        let buffer = *self.private.last()?;
        let (at, size) = (self.buffer_at(buffer).as_ptr(), self.buffer_size as usize);
        // SAFETY: the buffer is in the mapping, whose bytes are all initialised; the kernel has not been given it, no
        // chunk names it while it is on the list, and the slice borrows the pool.
        Some(unsafe { std::slice::from_raw_parts_mut(at, size) })
    }

    /// The first `len` bytes of what [`private`](Self::private) gave last have been written.
    #[inline]
    pub(super) fn take_private(&mut self, len: u32) -> Option<Chunk> {
        let buffer = self.private.pop()?;
        Some(Chunk { pool: self.id, buffer, len: len.min(self.buffer_size) })
    }

    /// The bytes of a chunk; nothing for a chunk of another ring.
    #[inline]
    pub(super) fn bytes(&self, chunk: &Chunk) -> &[u8] {
        if chunk.pool != self.id {
            return &[];
        }
        // SAFETY: the chunk was made by `filled` or `take_private`, so number and length are inside the pool, and the
        // kernel has written the bytes. It does not touch the buffer again before `release`, which takes the chunk,
        // which is borrowed.
        unsafe { std::slice::from_raw_parts(self.buffer_at(chunk.buffer).as_ptr(), chunk.len()) }
    }

    /// Gives the chunk's buffer back; ignores a chunk of another ring.
    #[inline]
    pub(super) fn release(&mut self, chunk: Chunk) {
        if chunk.pool != self.id {
            return;
        }
        if chunk.buffer < self.entries {
            self.give(chunk.buffer);
        } else {
            self.private.push(chunk.buffer);
        }
    }

    #[inline]
    pub(super) fn free(&self) -> usize {
        self.free
    }

    /// Free buffers from which on starved receives are armed again: an eighth, at least one.
    #[inline]
    pub(super) fn low_water(&self) -> usize {
        usize::from(self.entries / 8).max(1)
    }

    /// Keeps the memory for ever, because the kernel may still write to it.
    pub(super) fn leak(&mut self) {
        self.leaked = true;
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if !self.leaked {
            // SAFETY: the mapping made in `new`; no slice into it outlives the pool, and the kernel has let go of it
            // (`Ring::drop` unregisters it after the last request, or leaks it).
            unsafe { libc::munmap(self.memory.as_ptr().cast(), self.mapped) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_counted_out_and_in() {
        let mut pool = Pool::new(4, 100).unwrap();
        assert_eq!((pool.free(), pool.low_water()), (4, 1));
        let chunk = pool.filled(3, 60).unwrap();
        assert_eq!((pool.free(), chunk.len(), pool.bytes(&chunk).len()), (3, 60, 60));
        pool.release(chunk);
        assert_eq!(pool.free(), 4);
        assert!(pool.filled(4, 1).is_none(), "a number that was never given");
        assert_eq!(pool.filled(0, 1_000).unwrap().len(), 100, "never longer than the buffer");
    }

    #[test]
    fn chunks_of_another_pool_are_refused() {
        let mut one = Pool::new(1, 16).unwrap();
        let mut two = Pool::new(1, 16).unwrap();
        let chunk = one.filled(0, 16).unwrap();
        assert!(two.bytes(&chunk).is_empty());
        two.release(chunk);
        assert_eq!((one.free(), two.free()), (0, 1));
    }

    #[test]
    fn private_buffers_are_taken_apart_from_the_others_and_come_back() {
        let mut pool = Pool::new(2, 8).unwrap();
        for _ in 0..3 {
            let mut chunks = Vec::new();
            while let Some(space) = pool.private() {
                space.fill(chunks.len() as u8);
                chunks.extend(pool.take_private(8));
            }
            assert_eq!((chunks.len(), pool.free()), (usize::from(PRIVATE), 2));
            for (at, chunk) in chunks.into_iter().enumerate() {
                assert_eq!(pool.bytes(&chunk), [at as u8; 8]);
                pool.release(chunk);
            }
        }
        assert_eq!(pool.free(), 2, "the kernel is given none of them");
    }

    #[test]
    fn the_tail_wraps() {
        let mut pool = Pool::new(2, 8).unwrap();
        for round in 0..200_000_u32 {
            let chunk = pool.filled((round % 2) as u16, 8).unwrap();
            pool.release(chunk);
            pool.publish();
        }
        assert_eq!(pool.free(), 2);
    }
}

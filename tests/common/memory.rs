//! An allocator that counts, for a test binary to declare as its global one.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static LARGEST: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, with counters of bytes for the whole process.
pub(crate) struct Counting;

fn note(size: usize) {
    LARGEST.fetch_max(size, Relaxed);
    PEAK.fetch_max(LIVE.fetch_add(size, Relaxed) + size, Relaxed);
}

// SAFETY: everything is passed on to the system's allocator as it came; counting touches nothing of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: our caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: our caller keeps the contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: our caller keeps the contract.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: our caller keeps the contract.
        unsafe { System.realloc(memory, layout, size) }
    }
}

/// What was allocated since it was made.
pub(crate) struct Watch {
    live: usize,
}

impl Watch {
    pub(crate) fn begin() -> Watch {
        let live = LIVE.load(Relaxed);
        LARGEST.store(0, Relaxed);
        PEAK.store(live, Relaxed);
        Watch { live }
    }

    /// The largest single allocation, in bytes.
    pub(crate) fn largest(&self) -> usize {
        LARGEST.load(Relaxed)
    }

    /// How far the memory in use rose above what it was at the beginning, in bytes.
    pub(crate) fn growth(&self) -> usize {
        PEAK.load(Relaxed).saturating_sub(self.live)
    }
}

//! A global allocator that counts what each thread asks of it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

thread_local! {
    // Const-initialised and without a destructor: reading it never allocates, and it is there as long as the thread.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static HELD: Cell<i64> = const { Cell::new(0) };
    static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Whether the allocations of all threads are counted together as well: where threads come and go.
static COUNTS_ALL: AtomicBool = AtomicBool::new(false);
/// What they are counted in, each thread in one of them.
static ALL: [Shard; 16] = [const { Shard(AtomicU64::new(0)) }; 16];
static NEXT_SHARD: AtomicUsize = AtomicUsize::new(0);

#[repr(align(128))]
struct Shard(AtomicU64);

/// The system's allocator with two counters per thread.
///
/// A core is a thread, so the difference of two readings on a core's thread is what that core allocated in between.
/// A reallocation counts as one allocation; what is freed does not count.
pub(crate) struct Counting;

/// Allocations that the calling thread has made so far.
pub(crate) fn thread_allocs() -> u64 {
    ALLOCATIONS.get()
}

/// Bytes that the calling thread has allocated and not freed; below zero if it has freed what others had allocated.
pub(crate) fn thread_held() -> i64 {
    HELD.get()
}

/// While it lives, the allocations of all threads are counted together.
pub(crate) struct AllThreads;

impl AllThreads {
    /// Begins to count.
    pub(crate) fn count() -> AllThreads {
        COUNTS_ALL.store(true, Ordering::Relaxed);
        AllThreads
    }

    /// Allocations of all threads while there was such a count.
    pub(crate) fn allocs(&self) -> u64 {
        ALL.iter().map(|shard| shard.0.load(Ordering::Relaxed)).sum()
    }
}

impl Drop for AllThreads {
    fn drop(&mut self) {
        COUNTS_ALL.store(false, Ordering::Relaxed);
    }
}

fn count(bytes: usize) {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
    HELD.set(HELD.get() + bytes as i64);
    if COUNTS_ALL.load(Ordering::Relaxed) {
        count_in_all();
    }
}

#[cold]
fn count_in_all() {
    if SHARD.get() == usize::MAX {
        SHARD.set(NEXT_SHARD.fetch_add(1, Ordering::Relaxed) % ALL.len());
    }
    ALL[SHARD.get()].0.fetch_add(1, Ordering::Relaxed);
}

fn uncount(bytes: usize) {
    HELD.set(HELD.get() - bytes as i64);
}

// SAFETY: every method hands its arguments unchanged to `System`, which keeps the contract of `GlobalAlloc`; counting
// touches thread-local cells and atomics, and neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`; it is passed on as it came.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract of `alloc_zeroed`; it is passed on as it came.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        uncount(layout.size());
        count(new_size);
        // SAFETY: the caller keeps the contract of `realloc`; `pointer` came from `System`, as all of ours do.
        unsafe { System.realloc(pointer, layout, new_size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        uncount(layout.size());
        // SAFETY: the caller keeps the contract of `dealloc`; `pointer` came from `System`, as all of ours do.
        unsafe { System.dealloc(pointer, layout) }
    }
}

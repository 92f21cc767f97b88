//! Memory in which one future after another is run.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll};

/// Holds at most one future, of any type, in memory that it keeps for the next.
///
/// `Box<dyn Future>` allocates for each future. An endpoint whose handlers suspend would pay that for each message.
/// A cell allocates when a future is larger than all before it, and never again: futures of a handful of types
/// soon settle on the size of the largest.
///
/// The future is written to its place once and stays there until it is dropped, wherever the cell itself moves: this
/// is what makes polling it in place sound. It is dropped as soon as it is ready or has panicked.
pub struct FutureCell {
    memory: Memory,
    /// How to poll and drop what is in the memory; none if nothing is.
    future: Option<&'static Erased>,
}

impl FutureCell {
    /// An empty cell, without memory.
    pub const fn new() -> FutureCell {
        FutureCell { memory: Memory::NONE, future: None }
    }

    /// Puts a future in, after dropping the one that is there. Allocates only if it is larger, or needs a stricter
    /// alignment, than any before it.
    #[inline]
    pub fn put<F: Future<Output = ()> + 'static>(&mut self, future: F) {
        self.clear();
        let place = self.memory.reserve(Layout::new::<F>()).cast::<F>();
        // SAFETY: `reserve` returns memory of this cell that is large and aligned enough for an F, and `clear` has
        // left no other future in it.
        unsafe { place.write(future) };
        self.future = Some(&Of::<F>::ERASED);
    }

    /// Polls the future. When it is ready, or if it panics, it is dropped and the cell is empty; the panic goes on.
    /// An empty cell is ready.
    #[inline]
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.future {
            // SAFETY: `future` describes what is in the memory.
            Some(erased) => unsafe { self.poll_as(erased, cx) },
            None => Poll::Ready(()),
        }
    }

    /// [`put`](FutureCell::put), then [`poll`](FutureCell::poll), without an indirect call: the short way of a future
    /// that does not suspend.
    #[inline]
    pub fn run<F: Future<Output = ()> + 'static>(&mut self, future: F, cx: &mut Context<'_>) -> Poll<()> {
        self.put(future);
        // SAFETY: an F was put into the memory by the line above.
        unsafe { self.poll_as(&Of::<F>::ERASED, cx) }
    }

    /// # Safety
    /// The memory holds a future, and `erased` belongs to its type.
    #[inline(always)]
    unsafe fn poll_as(&mut self, erased: &'static Erased, cx: &mut Context<'_>) -> Poll<()> {
        // Empty, whatever happens from here on; the guard drops the future, also when its poll unwinds.
        self.future = None;
        let guard = DropOnExit { place: self.memory.start, erased };
        // SAFETY: by this function's contract. The future was written here by `put` and has not moved since; it is
        // not dropped before the guard is.
        let polled = unsafe { (erased.poll)(guard.place, cx) };
        if polled.is_pending() {
            mem::forget(guard);
            self.future = Some(erased);
        }
        polled
    }

    /// Whether no future is in the cell.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.future.is_none()
    }

    /// Drops the future, if there is one. The memory is kept.
    #[inline]
    pub fn clear(&mut self) {
        if let Some(erased) = self.future.take() {
            drop(DropOnExit { place: self.memory.start, erased });
        }
    }

    /// Bytes that a future can have without an allocation.
    pub(super) fn capacity(&self) -> usize {
        self.memory.layout.size()
    }
}

impl Default for FutureCell {
    fn default() -> FutureCell {
        FutureCell::new()
    }
}

impl Drop for FutureCell {
    fn drop(&mut self) {
        // The memory goes after this, also if the future's drop panics.
        self.clear();
    }
}

impl fmt::Debug for FutureCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FutureCell").field("empty", &self.is_empty()).field("capacity", &self.capacity()).finish()
    }
}

/// What is known of a future whose type is forgotten.
struct Erased {
    poll: unsafe fn(NonNull<u8>, &mut Context<'_>) -> Poll<()>,
    drop: unsafe fn(NonNull<u8>),
}

struct Of<F>(PhantomData<F>);

impl<F: Future<Output = ()>> Of<F> {
    const ERASED: Erased = Erased { poll: Self::poll, drop: Self::drop };

    /// # Safety
    /// `place` holds an F that nobody else uses and that stays there until it is dropped.
    #[inline]
    unsafe fn poll(place: NonNull<u8>, cx: &mut Context<'_>) -> Poll<()> {
        // SAFETY: by this function's contract, which the only caller, `FutureCell::poll_as`, keeps.
        unsafe { Pin::new_unchecked(place.cast::<F>().as_mut()) }.poll(cx)
    }

    /// # Safety
    /// `place` holds an F, which nobody uses any more.
    #[inline]
    unsafe fn drop(place: NonNull<u8>) {
        // SAFETY: by this function's contract, which the only caller, the drop of `DropOnExit`, keeps.
        unsafe { place.cast::<F>().drop_in_place() }
    }
}

/// Drops the future in `place`. Whoever makes one gives up the future, unless it forgets the guard.
struct DropOnExit {
    place: NonNull<u8>,
    erased: &'static Erased,
}

impl Drop for DropOnExit {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: `clear` and `poll_as` make a guard only for the future that is in the cell, and have marked the
        // cell as empty, so that this is the only drop.
        unsafe { (self.erased.drop)(self.place) }
    }
}

/// A block of memory, or none if the layout's size is 0.
struct Memory {
    start: NonNull<u8>,
    layout: Layout,
}

impl Memory {
    const NONE: Memory = Memory { start: NonNull::dangling(), layout: Layout::new::<()>() };

    /// The start of a block that has room for `need`. What was in the old block is not kept.
    #[inline]
    fn reserve(&mut self, need: Layout) -> NonNull<u8> {
        if need.size() > self.layout.size() || need.align() > self.layout.align() {
            self.grow(need);
        }
        self.start
    }

    #[cold]
    fn grow(&mut self, need: Layout) {
        // Whole cache lines, and never less in one respect than before, so that a mix of futures settles.
        let size = need.size().max(self.layout.size()).max(1).next_multiple_of(64);
        let align = need.align().max(self.layout.align());
        let Ok(layout) = Layout::from_size_align(size, align) else { handle_alloc_error(need) };
        // The old block goes first: its future is gone, and both need not exist at once.
        *self = Memory::NONE;
        // SAFETY: the size is not 0.
        let Some(start) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
        *self = Memory { start, layout };
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.layout.size() != 0 {
            // SAFETY: a size other than 0 is set by `grow` only, together with the block that was allocated with this
            // very layout; the cell has dropped the future in it.
            unsafe { dealloc(self.start.as_ptr(), self.layout) }
        }
    }
}

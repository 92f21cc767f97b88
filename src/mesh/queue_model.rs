//! A model of `rtrb` for loom: the same indices, orderings and cached copies, in cells that loom watches.
//!
//! It must be no stronger than the original, or the models would prove too much; in particular it takes no lock. As in
//! `rtrb`, an index counts to twice the capacity, so that full and empty differ.

use std::cell::Cell;
use std::mem::MaybeUninit;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The value came back: the ring was full.
pub(crate) enum PushError<T> {
    /// The ring was full.
    Full(T),
}

/// The ring was empty.
pub(crate) struct Empty;

/// What both ends share.
pub(crate) struct Shared<T> {
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
    head: AtomicUsize,
    tail: AtomicUsize,
    abandoned: AtomicBool,
}

// SAFETY: a slot is written only by the producer while it lies outside `head..tail`, and read only by the consumer while
// it lies inside; the Release stores and Acquire loads of the indices hand it over. Loom checks exactly that.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as for `Send`; no reference to a slot's value is ever given out.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(crate) fn capacity(&self) -> usize {
        self.slots.len()
    }

    fn slot(&self, at: usize) -> &UnsafeCell<MaybeUninit<T>> {
        &self.slots[at % self.slots.len()]
    }

    fn next(&self, at: usize) -> usize {
        (at + 1) % (2 * self.slots.len())
    }

    fn distance(&self, head: usize, tail: usize) -> usize {
        (tail + 2 * self.slots.len() - head) % (2 * self.slots.len())
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let (mut head, tail) = (self.head.load(Ordering::Relaxed), self.tail.load(Ordering::Relaxed));
        while head != tail {
            // SAFETY: both ends are gone, and all slots from head to tail hold a value.
            self.slot(head).with_mut(|slot| unsafe { (*slot).assume_init_drop() });
            head = self.next(head);
        }
    }
}

/// The writing end.
pub(crate) struct Producer<T> {
    shared: Arc<Shared<T>>,
    head: Cell<usize>,
    tail: Cell<usize>,
}

/// The reading end.
pub(crate) struct Consumer<T> {
    shared: Arc<Shared<T>>,
    head: Cell<usize>,
    tail: Cell<usize>,
}

pub(crate) fn ring<T>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    let shared = Arc::new(Shared {
        slots: (0..capacity).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect(),
        head: AtomicUsize::new(0),
        tail: AtomicUsize::new(0),
        abandoned: AtomicBool::new(false),
    });
    let producer = Producer { shared: shared.clone(), head: Cell::new(0), tail: Cell::new(0) };
    (producer, Consumer { shared, head: Cell::new(0), tail: Cell::new(0) })
}

impl<T> Producer<T> {
    pub(crate) fn push(&mut self, value: T) -> Result<(), PushError<T>> {
        let tail = self.tail.get();
        if self.shared.distance(self.head.get(), tail) == self.shared.capacity() && self.slots() == 0 {
            return Err(PushError::Full(value));
        }
        // SAFETY: the slot at tail is empty, and the consumer does not touch it before the Release store below.
        self.shared.slot(tail).with_mut(|slot| unsafe { (*slot).write(value) });
        let tail = self.shared.next(tail);
        self.shared.tail.store(tail, Ordering::Release);
        self.tail.set(tail);
        Ok(())
    }

    pub(crate) fn slots(&self) -> usize {
        self.head.set(self.shared.head.load(Ordering::Acquire));
        self.shared.capacity() - self.shared.distance(self.head.get(), self.tail.get())
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.shared.abandoned.load(Ordering::Acquire)
    }

    pub(crate) fn buffer(&self) -> &Shared<T> {
        &self.shared
    }
}

impl<T> Consumer<T> {
    pub(crate) fn pop(&mut self) -> Result<T, Empty> {
        if self.is_empty() {
            return Err(Empty);
        }
        let head = self.head.get();
        // SAFETY: the slot at head holds a value, and the producer does not touch it before the Release store below.
        let value = self.shared.slot(head).with(|slot| unsafe { (*slot).assume_init_read() });
        let head = self.shared.next(head);
        self.shared.head.store(head, Ordering::Release);
        self.head.set(head);
        Ok(value)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.head.get() == self.tail.get() && self.slots() == 0
    }

    pub(crate) fn slots(&self) -> usize {
        self.tail.set(self.shared.tail.load(Ordering::Acquire));
        self.shared.distance(self.head.get(), self.tail.get())
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.shared.abandoned.load(Ordering::Acquire)
    }
}

/// As [`super::queue::has_room`].
pub(crate) fn has_room<T>(producer: &mut Producer<T>) -> bool {
    let known = producer.shared.distance(producer.head.get(), producer.tail.get()) < producer.shared.capacity();
    known || producer.slots() > 0
}

/// As [`super::queue::push_with`]; what is written is the same, in one step.
pub(crate) fn push_with<T: Default>(producer: &mut Producer<T>, fill: impl FnOnce(&mut T)) {
    if has_room(producer) {
        let mut value = T::default();
        fill(&mut value);
        let _ = producer.push(value);
    }
}

/// As [`super::queue::pop_with`], with the value moved out for the while.
pub(crate) fn pop_with<T, R>(consumer: &mut Consumer<T>, read: impl FnOnce(&mut T) -> R) -> Option<R> {
    consumer.pop().ok().map(|mut value| read(&mut value))
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        self.shared.abandoned.store(true, Ordering::Release);
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        self.shared.abandoned.store(true, Ordering::Release);
    }
}

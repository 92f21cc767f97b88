//! The table of what can be woken on a core, and the queue of what is ready. No user code runs in here.

use slab::Slab;

use super::future_cell::FutureCell;
use super::key::{GENERATION_MASK, WakeKey};

const NONE: u32 = u32::MAX;

/// What a slot holds.
pub(super) enum Body {
    /// A task that waits for its turn.
    Task(FutureCell),
    /// A task whose future is out for being polled.
    Polled,
    /// Something that is run elsewhere, by its owner's number for it.
    External(u32),
}

struct Slot {
    key: WakeKey,
    body: Body,
    queued: bool,
    /// Neighbours in the ready queue, if queued.
    before: u32,
    after: u32,
}

/// Slots with generations; those that are ready form a list.
///
/// The ready queue is a list through the slots themselves. So it needs no memory of its own, a slot is in it at
/// most once, and one that ends leaves it at once: nothing stale is ever queued.
pub(super) struct Slots {
    slots: Slab<Slot>,
    core: u16,
    generation: u32,
    first: u32,
    last: u32,
    ready: usize,
}

impl Slots {
    pub(super) fn new(core: u16, first_generation: u32) -> Slots {
        Slots { slots: Slab::new(), core, generation: first_generation, first: NONE, last: NONE, ready: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    #[inline]
    pub(super) fn ready(&self) -> usize {
        self.ready
    }

    /// A new slot, not queued. The caller has made sure that there are fewer than a key can name.
    pub(super) fn insert(&mut self, body: Body) -> WakeKey {
        let place = self.slots.vacant_entry();
        let key = WakeKey::new(self.core, place.key(), self.generation);
        place.insert(Slot { key, body, queued: false, before: NONE, after: NONE });
        self.generation = (self.generation + 1) & GENERATION_MASK;
        key
    }

    #[inline]
    fn get(&mut self, key: WakeKey) -> Option<&mut Slot> {
        self.slots.get_mut(key.slot()).filter(|slot| slot.key == key)
    }

    /// What the slot held, or nothing if the key is stale.
    pub(super) fn remove(&mut self, key: WakeKey) -> Option<Body> {
        let (queued, before, after) = self.get(key).map(|slot| (slot.queued, slot.before, slot.after))?;
        if queued {
            self.unlink(before, after);
        }
        Some(self.slots.remove(key.slot()).body)
    }

    /// Any slot that is still there.
    pub(super) fn any(&self) -> Option<WakeKey> {
        self.slots.iter().next().map(|(_, slot)| slot.key)
    }

    /// Takes a task's future out for being polled; nothing if there is none in the slot.
    #[inline]
    pub(super) fn take(&mut self, key: WakeKey) -> Option<FutureCell> {
        let slot = self.get(key)?;
        match std::mem::replace(&mut slot.body, Body::Polled) {
            Body::Task(cell) => Some(cell),
            other => {
                slot.body = other;
                None
            }
        }
    }

    /// Puts it back and tells whether it is queued again, or returns it if the slot is gone.
    #[inline]
    pub(super) fn put_back(&mut self, key: WakeKey, cell: FutureCell) -> Result<bool, FutureCell> {
        match self.get(key) {
            Some(slot) => {
                slot.body = Body::Task(cell);
                Ok(slot.queued)
            }
            None => Err(cell),
        }
    }

    /// Queues the slot, unless it is queued or the key is stale.
    #[inline]
    pub(super) fn queue(&mut self, key: WakeKey) {
        let last = self.last;
        let Some(slot) = self.get(key) else { return };
        if slot.queued {
            return;
        }
        slot.queued = true;
        slot.before = last;
        slot.after = NONE;
        let this = key.slot() as u32;
        match self.slots.get_mut(last as usize) {
            Some(last) => last.after = this,
            None => self.first = this,
        }
        self.last = this;
        self.ready += 1;
    }

    /// Takes the slot that was queued first out of the queue.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<(WakeKey, &Body)> {
        let this = self.first as usize;
        let slot = self.slots.get_mut(this)?;
        slot.queued = false;
        let after = slot.after;
        self.unlink(NONE, after);
        self.slots.get(this).map(|slot| (slot.key, &slot.body))
    }

    #[inline]
    fn unlink(&mut self, before: u32, after: u32) {
        match self.slots.get_mut(before as usize) {
            Some(slot) => slot.after = after,
            None => self.first = after,
        }
        match self.slots.get_mut(after as usize) {
            Some(slot) => slot.before = before,
            None => self.last = before,
        }
        self.ready -= 1;
    }
}

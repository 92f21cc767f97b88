//! The name of something that can be woken.

#[cfg(not(target_pointer_width = "64"))]
compile_error!("a wake key is packed into a waker's data word, which must have 64 bits");

const SLOT_BITS: u32 = 24;
const GENERATION_BITS: u32 = 24;

/// Slots that a core can have.
pub(super) const MAX_SLOTS: usize = 1 << SLOT_BITS;
/// Generations are counted modulo this power of two.
pub(super) const GENERATION_MASK: u32 = (1 << GENERATION_BITS) - 1;

/// Names a task, or an external runnable, of one core of this process: core, slot and generation in one word.
///
/// A slot is used again when its holder has ended, with another generation; a key of the former holder is then
/// stale, and everything that takes keys ignores it. Generations repeat after 2^24 tasks of a core. A key that was
/// kept for longer can, at worst, wake a task that has nothing to do, which every future must bear anyway.
///
/// It fits a waker's data word, so a waker is a key and nothing else: no allocation, no count of references. It
/// means nothing outside its process.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct WakeKey(u64);

impl WakeKey {
    /// `slot` and `generation` are below 2^24.
    #[inline]
    pub(crate) fn new(core: u16, slot: usize, generation: u32) -> WakeKey {
        debug_assert!(slot < MAX_SLOTS && generation <= GENERATION_MASK);
        WakeKey(
            u64::from(core) << (SLOT_BITS + GENERATION_BITS) | (slot as u64) << GENERATION_BITS | u64::from(generation),
        )
    }

    #[inline]
    pub(super) fn from_word(word: usize) -> WakeKey {
        WakeKey(word as u64)
    }

    #[inline]
    pub(super) fn word(self) -> usize {
        self.0 as usize
    }

    /// The index of the core, as given out by [`claim_core`](super::waker::claim_core).
    #[inline]
    pub fn core(self) -> u16 {
        (self.0 >> (SLOT_BITS + GENERATION_BITS)) as u16
    }

    #[inline]
    pub(super) fn slot(self) -> usize {
        (self.0 >> GENERATION_BITS) as usize & (MAX_SLOTS - 1)
    }

    #[inline]
    fn generation(self) -> u32 {
        self.0 as u32 & GENERATION_MASK
    }
}

impl std::fmt::Debug for WakeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WakeKey({}:{}:{})", self.core(), self.slot(), self.generation())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back_as_they_were_put_in() {
        for (core, slot, generation) in [(0, 0, 0), (u16::MAX, MAX_SLOTS - 1, GENERATION_MASK), (7, 1, 2), (1, 0, 0)] {
            let key = WakeKey::new(core, slot, generation);
            assert_eq!((key.core(), key.slot(), key.generation()), (core, slot, generation));
            assert_eq!(WakeKey::from_word(key.word()), key);
        }
        assert_eq!(format!("{:?}", WakeKey::new(3, 5, 8)), "WakeKey(3:5:8)");
    }
}

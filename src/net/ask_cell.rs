//! Where a thread that is no core waits for the answer to its ask.

use std::sync::atomic::{AtomicU64, Ordering};

use super::ask_key::AskKey;
use super::errors::AskError;
use super::handoff::Handoff;
use crate::mesh::parcel::Parcel;

/// No core has made the ask yet. No key has this number.
const NOT_MADE: u64 = 0;
/// Nobody waits any longer. No key has this number either.
const GIVEN_UP: u64 = u64::MAX;

/// Where a thread that is no core waits for the answer to its ask.
///
/// The thread hands its ask to a core, which makes it some time later under a key of its own. Each of the two settles
/// once how that goes on: either the core makes the ask first, and whoever gives it up later knows the key; or it is
/// given up first, and is never made.
#[derive(Debug, Default)]
pub struct AskCell {
    /// The answer.
    pub answer: Handoff<Result<Parcel, AskError>>,
    /// The number of the key, or one of the above. Nothing else is guarded by it.
    key: AtomicU64,
}

impl AskCell {
    /// Whether nobody waits any longer.
    pub fn is_given_up(&self) -> bool {
        self.key.load(Ordering::Relaxed) == GIVEN_UP
    }

    /// Called by the core: the ask has this key. False if it was given up before.
    #[must_use = "an ask that was given up is to be ended"]
    pub fn made(&self, key: AskKey) -> bool {
        self.settle(key.0).is_ok()
    }

    /// Called by who waits: nobody does any longer. Gives the key, if the ask has one already.
    #[must_use = "the ask that has the key is to be ended"]
    pub fn give_up(&self) -> Option<AskKey> {
        self.settle(GIVEN_UP).err().map(AskKey)
    }

    fn settle(&self, to: u64) -> Result<u64, u64> {
        self.key.compare_exchange(NOT_MADE, to, Ordering::Relaxed, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_comes_first_settles_it() {
        let key = AskKey::new(3, 7);
        let cell = AskCell::default();
        assert!(cell.made(key) && !cell.is_given_up());
        assert_eq!(cell.give_up(), Some(key));
        let cell = AskCell::default();
        assert_eq!(cell.give_up(), None);
        assert!(cell.is_given_up() && !cell.made(key));
    }
}

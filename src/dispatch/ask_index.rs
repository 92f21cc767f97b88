//! Finds an ask by its origin and request id.

use std::collections::HashMap;

use super::call::Origin;
use crate::executor::steps::Steps;

/// Lookups without a cancellation in between, beyond four for each ask, that an index is kept for.
const KEPT_FOR: usize = 64;
/// An index with room for more asks than this gives its memory back when it is dropped.
const KEPT_ROOM: usize = 1024;

/// The places of the asks in a queue, by origin and request id.
///
/// Nearly no ask is cancelled, so an ask that is not costs nothing here: the index is built by the first cancellation,
/// from all that is queued, and dropped once nothing is queued or nothing was cancelled for a while. An ask is
/// therefore indexed at most once for each four that are queued after it, and a cancellation costs one lookup, whether
/// its ask is there or not.
///
/// The ids are the peers' choice and may repeat: an id means the ask that was queued last.
#[derive(Debug, Default)]
pub(super) struct AskIndex {
    places: HashMap<(Origin, u64), u64>,
    /// Insertions that the index is kept for; 0 while there is none.
    credit: usize,
    pub(super) steps: Steps,
}

impl AskIndex {
    /// Whether the index exists, and has to be told of what is queued and leaves.
    #[inline]
    pub(super) fn is_built(&self) -> bool {
        self.credit > 0
    }

    /// Builds the index, and replaces the one that there is.
    pub(super) fn build(&mut self, asks: impl Iterator<Item = (Origin, u64, u64)>) {
        self.places.clear();
        for (origin, request, place) in asks {
            self.steps.add(1);
            self.places.insert((origin, request), place);
        }
        self.keep();
    }

    /// Takes an ask out and tells its place.
    pub(super) fn take(&mut self, origin: Origin, request: u64) -> Option<u64> {
        self.steps.add(1);
        let place = self.places.remove(&(origin, request));
        self.keep();
        place
    }

    /// The place of an ask, which stays.
    pub(super) fn find(&mut self, origin: Origin, request: u64) -> Option<u64> {
        self.steps.add(1);
        self.keep();
        self.places.get(&(origin, request)).copied()
    }

    /// An ask was queued. False if the index was dropped, since nothing was cancelled for a while.
    pub(super) fn insert(&mut self, origin: Origin, request: u64, place: u64) -> bool {
        self.steps.add(1);
        self.places.insert((origin, request), place);
        self.credit -= 1;
        self.credit > 0
    }

    /// An ask has left its place by itself.
    pub(super) fn remove(&mut self, origin: Origin, request: u64, place: u64) {
        self.steps.add(1);
        if self.places.get(&(origin, request)) == Some(&place) {
            self.places.remove(&(origin, request));
        }
    }

    /// Drops the index.
    pub(super) fn clear(&mut self) {
        self.credit = 0;
        if self.places.capacity() > KEPT_ROOM {
            self.places = HashMap::new();
        } else {
            self.places.clear();
        }
    }

    fn keep(&mut self) {
        self.credit = KEPT_FOR + 4 * self.places.len();
    }
}

//! Parcels for messages that wait.

use std::cell::RefCell;

use crate::mesh::parcel::Parcel;

/// Empty parcels that are used again, so that a message that waits costs no allocation in the steady state.
#[derive(Debug)]
pub(super) struct SpareParcels {
    #[expect(clippy::vec_box, reason = "they are used as boxes, so that nothing of them is moved about")]
    spares: RefCell<Vec<Box<Parcel>>>,
    most: usize,
}

impl SpareParcels {
    /// None yet; up to `most` are kept.
    pub(super) fn new(most: usize) -> SpareParcels {
        SpareParcels { spares: RefCell::default(), most }
    }

    /// One that is empty.
    #[inline]
    pub(super) fn take(&self) -> Box<Parcel> {
        let spare = self.spares.borrow_mut().pop();
        spare.unwrap_or_default()
    }

    /// Keeps one. What is left in it is dropped, which is the user's code: nothing is borrowed.
    #[inline]
    pub(super) fn give(&self, mut parcel: Box<Parcel>) {
        parcel.clear();
        let mut spares = self.spares.borrow_mut();
        if spares.len() < self.most {
            spares.push(parcel);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn no_more_are_kept_than_may_be_and_what_is_left_in_them_is_dropped() {
        let spares = SpareParcels::new(2);
        let left = Arc::new(());
        let used: Vec<_> = (0..3).map(|_| Box::new(Parcel::new(left.clone()))).collect();
        used.into_iter().for_each(|parcel| spares.give(parcel));
        assert_eq!((Arc::strong_count(&left), spares.spares.borrow().len()), (1, 2));
    }

    #[test]
    fn one_that_was_used_is_used_again_empty() {
        let spares = SpareParcels::new(2);
        let mut parcel = spares.take();
        parcel.fill(7u32);
        let place: *const Parcel = &raw const *parcel;
        spares.give(parcel);
        let again = spares.take();
        assert!(std::ptr::eq(place, &raw const *again) && again.is::<()>());
    }
}

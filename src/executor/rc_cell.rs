//! A place for an `Rc` that may be looked at while it is changed.

use std::cell::UnsafeCell;
use std::rc::Rc;

/// Holds an `Rc` or nothing; gives clones of it away.
///
/// It exists for the thread-local that each ask and send looks at: a `RefCell` would keep count of borrows that last
/// for one clone, and a `OnceCell` could not be emptied.
#[derive(Debug)]
pub struct RcCell<T>(UnsafeCell<Option<Rc<T>>>);

impl<T> RcCell<T> {
    /// An empty cell.
    pub const fn new() -> RcCell<T> {
        RcCell(UnsafeCell::new(None))
    }

    /// What it holds.
    #[inline]
    pub fn get(&self) -> Option<Rc<T>> {
        // SAFETY: the cell is not `Sync`, and this borrow ends with the line. Cloning an `Rc` only counts, so nothing
        // comes back to this cell meanwhile.
        unsafe { (*self.0.get()).clone() }
    }

    /// Whether it holds nothing.
    #[inline]
    pub fn is_empty(&self) -> bool {
        // SAFETY: as in `get`; a look runs no code of `T`.
        unsafe { (*self.0.get()).is_none() }
    }

    /// Changes what it holds, and gives back what it held.
    pub fn replace(&self, value: Option<Rc<T>>) -> Option<Rc<T>> {
        // SAFETY: as in `get`; the old value moves out, so no drop runs under the borrow.
        unsafe { std::mem::replace(&mut *self.0.get(), value) }
    }
}

impl<T> Default for RcCell<T> {
    fn default() -> RcCell<T> {
        RcCell::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_gives_clones_and_gives_back_what_it_held() {
        let cell = RcCell::default();
        assert!(cell.is_empty() && cell.get().is_none());
        let first = Rc::new(1);
        assert_eq!(cell.replace(Some(first.clone())), None);
        assert!(cell.get().is_some_and(|got| Rc::ptr_eq(&got, &first)));
        assert_eq!(Rc::strong_count(&first), 2);
        assert!(cell.replace(None).is_some_and(|got| Rc::ptr_eq(&got, &first)));
        assert!(cell.is_empty());
    }

    #[test]
    fn a_drop_may_come_back_to_the_cell_that_gave_its_value_up() {
        struct Visitor(Rc<RcCell<Visitor>>);
        impl Drop for Visitor {
            fn drop(&mut self) {
                assert!(self.0.is_empty());
            }
        }
        let cell = Rc::new(RcCell::new());
        cell.replace(Some(Rc::new(Visitor(cell.clone()))));
        drop(cell.replace(None));
        assert_eq!(Rc::strong_count(&cell), 1);
    }
}

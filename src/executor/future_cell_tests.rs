//! Tests: the future cell.

use std::cell::Cell;
use std::future::{pending, poll_fn, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::future_cell::FutureCell;

fn context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// Counts its drops.
struct Counted(Rc<Cell<usize>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

async fn yield_once() {
    let mut yielded = false;
    poll_fn(|_| if std::mem::replace(&mut yielded, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

#[test]
fn an_empty_cell_is_ready_and_has_no_memory() {
    let mut cell = FutureCell::new();
    assert!(cell.is_empty());
    assert!(cell.poll(&mut context()).is_ready());
    assert_eq!(cell.capacity(), 0);
    assert!(cell.run(ready(()), &mut context()).is_ready());
    cell.clear();
}

#[test]
fn a_future_is_dropped_once_whichever_way_it_ends() {
    let drops = Rc::new(Cell::new(0));
    let mut cell = FutureCell::new();
    let suspended = |drops: &Rc<Cell<usize>>| {
        let counted = Counted(drops.clone());
        async move {
            let _counted = counted;
            yield_once().await;
        }
    };
    assert!(cell.run(suspended(&drops), &mut context()).is_pending());
    assert_eq!((drops.get(), cell.is_empty()), (0, false));
    assert!(cell.poll(&mut context()).is_ready());
    assert_eq!((drops.get(), cell.is_empty()), (1, true));

    cell.put(suspended(&drops));
    cell.put(suspended(&drops));
    assert_eq!(drops.get(), 2, "put drops the one before");
    cell.clear();
    assert_eq!((drops.get(), cell.is_empty()), (3, true));

    cell.put(suspended(&drops));
    drop(cell);
    assert_eq!(drops.get(), 4);
}

/// Owns a value beside its code, so that it is dropped by the cell and not by the unwinding poll.
struct Panics(#[expect(dead_code, reason = "only its drop matters")] Counted);

impl Future for Panics {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        panic!("in poll")
    }
}

#[test]
fn a_panic_in_poll_empties_the_cell_and_goes_on() {
    let drops = Rc::new(Cell::new(0));
    let mut cell = FutureCell::new();
    for round in 1..=4 {
        let future = Panics(Counted(drops.clone()));
        let polled = catch_unwind(AssertUnwindSafe(|| {
            if round % 2 == 0 {
                cell.run(future, &mut context())
            } else {
                cell.put(future);
                cell.poll(&mut context())
            }
        }));
        assert_eq!(polled.unwrap_err().downcast_ref::<&str>(), Some(&"in poll"));
        assert_eq!((drops.get(), cell.is_empty()), (round, true));
    }
    assert!(cell.run(ready(()), &mut context()).is_ready());
}

struct PanicsInDrop;

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        panic!("in drop");
    }
}

#[test]
fn a_panic_in_drop_leaves_an_empty_cell() {
    let mut cell = FutureCell::new();
    let bomb = || {
        let bomb = PanicsInDrop;
        async move {
            let _bomb = bomb;
            pending().await
        }
    };
    cell.put(bomb());
    assert!(catch_unwind(AssertUnwindSafe(|| cell.clear())).is_err());
    assert!(cell.is_empty());
    cell.put(bomb());
    assert!(catch_unwind(AssertUnwindSafe(|| drop(cell))).is_err());
}

#[repr(align(64))]
struct Aligned(u8);

#[test]
fn alignment_is_kept() {
    let mut cell = FutureCell::new();
    cell.put(ready(()));
    let aligned = async {
        let value = Aligned(7);
        yield_once().await;
        assert_eq!(&raw const value as usize % 64, 0);
        assert_eq!(value.0, 7);
    };
    assert!(cell.run(aligned, &mut context()).is_pending());
    // The cell may move, the future does not.
    let mut moved = Box::new(cell);
    assert!(moved.poll(&mut context()).is_ready());
    // A type without a size, but with an alignment.
    #[repr(align(4096))]
    struct Nothing;
    impl Future for Nothing {
        type Output = ();
        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            assert_eq!(&raw const *self as usize % 4096, 0);
            Poll::Ready(())
        }
    }
    assert!(moved.run(Nothing, &mut context()).is_ready());
}

#[test]
fn memory_is_reused_and_grows_only_for_a_larger_future() {
    let mut cell = FutureCell::new();
    let sized = |cell: &mut FutureCell, small: bool| {
        let polled = if small {
            let data = [1u8; 16];
            cell.run(
                async move {
                    yield_once().await;
                    assert_eq!(data, [1; 16])
                },
                &mut context(),
            )
        } else {
            let data = [2u8; 900];
            cell.run(
                async move {
                    yield_once().await;
                    assert_eq!(data, [2; 900])
                },
                &mut context(),
            )
        };
        assert!(polled.is_pending());
        assert!(cell.poll(&mut context()).is_ready());
        cell.capacity()
    };
    let small = sized(&mut cell, true);
    assert!((16..200).contains(&small));
    let large = sized(&mut cell, false);
    assert!(large >= 900);
    for round in 0..100 {
        assert_eq!(sized(&mut cell, round % 3 != 0), large);
    }
}

#[test]
fn a_future_may_refer_to_itself() {
    let mut cell = FutureCell::new();
    let done = Rc::new(Cell::new(false));
    let seen = done.clone();
    cell.put(async move {
        let values = [1, 2, 3];
        let borrowed = &values[1];
        yield_once().await;
        seen.set(*borrowed == 2);
    });
    assert!(cell.poll(&mut context()).is_pending());
    let mut cells = [FutureCell::new(), cell];
    cells.swap(0, 1);
    assert!(cells[0].poll(&mut context()).is_ready());
    assert!(done.get());
}

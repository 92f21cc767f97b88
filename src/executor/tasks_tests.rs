//! Tests: tasks.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use super::key::WakeKey;
use super::local::Bound;
use super::tasks::{Executor, Polled, Ready, TooManyTasks};
use super::waker::{RemoteWake, claim_core};

struct NoDoor;

impl RemoteWake for NoDoor {
    fn wake(&self, key: WakeKey) {
        panic!("{key:?} was woken from elsewhere");
    }
}

fn executor(max_tasks: usize) -> (Rc<Executor>, Bound) {
    let index = claim_core(Arc::new(NoDoor)).unwrap();
    let executor = Executor::new(&index, max_tasks);
    let bound = executor.bind_thread();
    (executor, bound)
}

/// Runs what is ready, and what becomes ready by that, for a bounded number of polls.
fn run(executor: &Executor) -> Vec<Polled> {
    let mut polled = Vec::new();
    while let Some(Ready::Task(key)) = executor.pop() {
        polled.push(executor.poll(key));
        assert!(polled.len() < 1_000);
    }
    polled
}

/// Does something when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// A future that never ends and calls `dropped` when it is dropped.
fn hangs(dropped: impl FnMut() + 'static) -> impl Future<Output = ()> + 'static {
    let guard = OnDrop(dropped);
    async move {
        let _guard = guard;
        pending().await
    }
}

#[test]
fn tasks_run_in_the_order_in_which_they_became_ready() {
    let (executor, _bound) = executor(10);
    let order = Rc::new(RefCell::new(Vec::new()));
    for number in 0..3 {
        let order = order.clone();
        executor.spawn(async move { order.borrow_mut().push(number) }).unwrap();
    }
    assert_eq!((executor.ready_len(), executor.live()), (3, 3));
    assert_eq!(run(&executor), [Polled::Done, Polled::Done, Polled::Done]);
    assert_eq!(*order.borrow(), [0, 1, 2]);
    assert_eq!((executor.ready_len(), executor.live()), (0, 0));
}

#[test]
fn two_wakes_make_one_pop() {
    let (executor, _bound) = executor(10);
    let first = executor.attach(1).unwrap();
    let second = executor.attach(2).unwrap();
    executor.wake(second);
    executor.wake(first);
    executor.wake(second);
    executor.waker(second).wake();
    assert_eq!(executor.pop(), Some(Ready::External(2)));
    executor.wake(second);
    assert_eq!(executor.pop(), Some(Ready::External(1)));
    assert_eq!(executor.pop(), Some(Ready::External(2)));
    assert_eq!(executor.pop(), None);
}

#[test]
fn a_stale_key_does_nothing_to_the_next_in_its_slot() {
    let (executor, _bound) = executor(1);
    let old = executor.attach(1).unwrap();
    executor.detach(old);
    let new = executor.attach(2).unwrap();
    assert_ne!(old, new);
    executor.wake(old);
    executor.waker(old).wake();
    executor.detach(old);
    executor.abort(old);
    assert_eq!(executor.poll(old), Polled::Done);
    assert_eq!((executor.ready_len(), executor.live()), (0, 1));
    executor.wake(new);
    assert_eq!(executor.pop(), Some(Ready::External(2)));
}

#[test]
fn what_ends_leaves_the_ready_queue() {
    let (executor, _bound) = executor(10);
    let keys: Vec<_> = (0..5).map(|token| executor.attach(token).unwrap()).collect();
    for ends in [[0, 2], [4, 1], [2, 3], [3, 4]] {
        let keys: Vec<_> = (0..5).map(|token| executor.attach(10 + token).unwrap()).collect();
        keys.iter().for_each(|&key| executor.wake(key));
        ends.iter().for_each(|&end| executor.detach(keys[end as usize]));
        assert_eq!(executor.ready_len(), 3);
        let left: Vec<_> = std::iter::from_fn(|| executor.pop()).collect();
        let expected: Vec<_> = (0..5).filter(|n| !ends.contains(n)).map(|n| Ready::External(10 + n)).collect();
        assert_eq!(left, expected);
        keys.iter().for_each(|&key| executor.detach(key));
    }
    assert_eq!(executor.live(), keys.len());
}

#[test]
fn a_wake_during_the_poll_queues_again() {
    let (executor, _bound) = executor(10);
    let polls = Rc::new(Cell::new(0));
    let seen = polls.clone();
    let key = executor.spawn(poll_fn(move |cx| {
        seen.set(seen.get() + 1);
        cx.waker().wake_by_ref();
        cx.waker().wake_by_ref();
        if seen.get() < 3 { Poll::Pending } else { Poll::Ready(()) }
    }));
    assert_eq!(run(&executor), [Polled::Yielded, Polled::Yielded, Polled::Done]);
    assert_eq!((polls.get(), executor.ready_len(), executor.live()), (3, 0, 0));
    executor.wake(key.unwrap());
    assert_eq!(executor.pop(), None);
}

#[test]
fn one_task_wakes_another() {
    let (executor, _bound) = executor(10);
    let place: Rc<RefCell<Option<Waker>>> = Rc::default();
    let (waits, wakes) = (place.clone(), place);
    let mut first = true;
    let waiting = poll_fn(move |cx| {
        waits.replace(Some(cx.waker().clone()));
        if std::mem::take(&mut first) { Poll::Pending } else { Poll::Ready(()) }
    });
    executor.spawn(waiting).unwrap();
    executor.spawn(async move { wakes.take().unwrap().wake() }).unwrap();
    assert_eq!(run(&executor), [Polled::Pending, Polled::Done, Polled::Done]);
}

#[test]
fn the_limit_counts_tasks_and_external_runnables() {
    let (executor, _bound) = executor(2);
    let external = executor.attach(0).unwrap();
    executor.spawn(async {}).unwrap();
    let dropped = Rc::new(Cell::new(false));
    let seen = dropped.clone();
    let refused: TooManyTasks = executor.spawn(hangs(move || seen.set(true))).unwrap_err();
    assert_eq!((refused.limit, dropped.get()), (2, true));
    assert_eq!(executor.attach(1), Err(refused));
    executor.detach(external);
    executor.spawn(async {}).unwrap();
    assert_eq!(run(&executor).len(), 2);
}

#[test]
fn a_panic_ends_the_task_and_nothing_else() {
    let (executor, _bound) = executor(10);
    let (dropped, seen) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let (in_drop, after) = (dropped.clone(), seen.clone());
    let guard = OnDrop(move || in_drop.set(in_drop.get() + 1));
    let panics = async move {
        let _guard = guard;
        panic!("plain");
    };
    executor.spawn(panics).unwrap();
    executor.spawn(async { panic!("with {}", 1) }).unwrap();
    executor.spawn(async { std::panic::panic_any(5) }).unwrap();
    executor.spawn(async move { after.set(1) }).unwrap();
    let texts = ["plain", "with 1", "a panic without text"].map(|text| Polled::Panicked(text.to_owned()));
    let polled = run(&executor);
    assert_eq!(polled[..3], texts);
    assert_eq!(polled[3], Polled::Done);
    assert_eq!((dropped.get(), seen.get(), executor.live()), (1, 1, 0));
}

#[test]
fn an_aborted_task_is_dropped_and_never_polled() {
    let (executor, _bound) = executor(10);
    let drops = Rc::new(Cell::new(0));
    let seen = drops.clone();
    let key = executor.spawn(hangs(move || seen.set(seen.get() + 1))).unwrap();
    executor.abort(key);
    executor.abort(key);
    assert_eq!((drops.get(), executor.live(), executor.ready_len()), (1, 0, 0));
    // A panic in the drop stays with the task.
    let key = executor.spawn(hangs(|| panic!("in drop"))).unwrap();
    executor.abort(key);
    assert_eq!(executor.live(), 0);
}

#[test]
fn a_task_may_abort_itself() {
    let (executor, _bound) = executor(10);
    let drops = Rc::new(Cell::new(0));
    for ends in [false, true] {
        let key = Rc::new(Cell::new(None));
        let (own_key, own_executor, seen) = (key.clone(), Rc::downgrade(&executor), drops.clone());
        let guard = OnDrop(move || seen.set(seen.get() + 1));
        let task = async move {
            let guard = guard;
            let executor = own_executor.upgrade().unwrap();
            executor.abort(own_key.get().unwrap());
            assert_eq!(executor.live(), 0);
            // The slot is free already; its next holder must not be touched by what comes.
            executor.spawn(hangs(|| ())).unwrap();
            executor.waker(own_key.get().unwrap()).wake();
            if !ends {
                pending::<()>().await;
            }
            drop(guard);
        };
        key.set(Some(executor.spawn(task).unwrap()));
        assert_eq!(executor.pop(), key.get().map(Ready::Task));
        assert_eq!(executor.poll(key.get().unwrap()), Polled::Done);
        assert_eq!((executor.live(), executor.ready_len()), (1, 1));
        assert_eq!(run(&executor), [Polled::Pending]);
        executor.clear();
    }
    assert_eq!(drops.get(), 2);
}

#[test]
fn futures_may_come_back_in_their_drop() {
    let (executor, _bound) = executor(10);
    let other = executor.attach(9).unwrap();
    let key = Rc::new(Cell::new(None));
    let (own_key, weak) = (key.clone(), Rc::downgrade(&executor));
    let come_back = move || {
        let executor = weak.upgrade().unwrap();
        let own: WakeKey = own_key.get().unwrap();
        executor.waker(own).wake();
        executor.waker(other).wake();
        executor.abort(own);
        assert_eq!(executor.poll(own), Polled::Done);
        executor.spawn(async {}).unwrap();
    };
    // Dropped by an abort.
    key.set(Some(executor.spawn(hangs(come_back.clone())).unwrap()));
    executor.abort(key.get().unwrap());
    assert_eq!(executor.pop(), Some(Ready::External(9)));
    assert_eq!(run(&executor), [Polled::Done]);
    // Dropped at the end of its poll.
    let guard = OnDrop(come_back);
    key.set(Some(executor.spawn(async move { drop(guard) }).unwrap()));
    assert_eq!(executor.pop(), key.get().map(Ready::Task));
    assert_eq!(executor.poll(key.get().unwrap()), Polled::Done);
    assert_eq!(executor.pop(), Some(Ready::External(9)));
    assert_eq!(run(&executor), [Polled::Done]);
    assert_eq!(executor.live(), 1);
}

#[test]
fn clear_leaves_nothing_even_if_drops_spawn() {
    let (executor, _bound) = executor(10);
    let refused = Rc::new(Cell::new(0));
    for _ in 0..3 {
        let (weak, refused) = (Rc::downgrade(&executor), refused.clone());
        let spawns = move || {
            let again = weak.upgrade().map(|executor| executor.spawn(async {}));
            refused.set(refused.get() + usize::from(matches!(again, Some(Err(_)))));
        };
        executor.spawn(hangs(spawns)).unwrap();
    }
    executor.attach(1).unwrap();
    run(&executor);
    executor.clear();
    assert_eq!((refused.get(), executor.live(), executor.ready_len()), (3, 0, 0));
    executor.spawn(async {}).unwrap();
    assert_eq!(run(&executor), [Polled::Done]);
}

#[test]
fn a_task_may_clear_the_executor_that_polls_it() {
    let (executor, _bound) = executor(10);
    let (weak, drops) = (Rc::downgrade(&executor), Rc::new(Cell::new(0)));
    let seen = drops.clone();
    let guard = OnDrop(move || seen.set(seen.get() + 1));
    let task = async move {
        let _guard = guard;
        weak.upgrade().unwrap().clear();
        pending().await
    };
    executor.spawn(task).unwrap();
    assert_eq!(run(&executor), [Polled::Done]);
    assert_eq!((drops.get(), executor.live()), (1, 0));
}

#[test]
fn the_last_handle_drops_the_futures() {
    let (executor, bound) = executor(10);
    let drops = Rc::new(Cell::new(0));
    let seen = drops.clone();
    executor.spawn(hangs(move || seen.set(seen.get() + 1))).unwrap();
    drop(executor);
    assert_eq!(drops.get(), 0);
    drop(bound);
    assert_eq!(drops.get(), 1);
}

#[test]
fn a_task_that_is_started_is_polled_at_once_and_kept_only_if_it_waits() {
    let (executor, _bound) = executor(2);
    assert_eq!(executor.start(async {}), Ok(None));
    assert_eq!((executor.live(), executor.ready_len()), (0, 0));
    let waker = Rc::new(RefCell::new(None::<Waker>));
    let (there, mut polls) = (waker.clone(), 0);
    let waits = poll_fn(move |cx| {
        *there.borrow_mut() = Some(cx.waker().clone());
        polls += 1;
        if polls < 2 { Poll::Pending } else { Poll::Ready(()) }
    });
    assert!(executor.start(waits).unwrap().is_some());
    assert_eq!(run(&executor), []);
    waker.take().unwrap().wake();
    assert_eq!(run(&executor), [Polled::Done]);
    assert_eq!(executor.start(async { panic!("at once") }), Ok(None));
    assert_eq!(executor.live(), 0);
    let kept = [executor.start(pending()), executor.start(pending())];
    assert!(kept.iter().all(|started| matches!(started, Ok(Some(_)))));
    assert_eq!(executor.start(async {}), Err(TooManyTasks { limit: 2 }));
}

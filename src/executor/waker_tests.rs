//! Tests: wakers.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::key::WakeKey;
use super::tasks::{Executor, Ready};
use super::waker::{CoreIndex, RemoteWake, claim_core};

const BOUND: Duration = Duration::from_secs(10);

/// Stands for the ring of a core: keys come out at the other end.
struct Door(Mutex<Sender<WakeKey>>);

impl RemoteWake for Door {
    fn wake(&self, key: WakeKey) {
        // Nobody listens any more: then nobody needs the wake.
        let _ = self.0.lock().unwrap_or_else(PoisonError::into_inner).send(key);
    }
}

fn core() -> (CoreIndex, Receiver<WakeKey>) {
    let (send, receive) = channel();
    (claim_core(Arc::new(Door(Mutex::new(send)))).unwrap(), receive)
}

#[test]
fn a_waker_on_the_core_s_thread_pushes_at_once() {
    let (index, remote) = core();
    let executor = Executor::new(&index, 10);
    let bound = executor.bind_thread();
    let key = executor.attach(5).unwrap();
    executor.waker(key).wake();
    assert_eq!(executor.pop(), Some(Ready::External(5)));
    drop(bound);
    executor.waker(key).wake_by_ref();
    assert_eq!(executor.ready_len(), 0);
    assert_eq!(remote.try_recv(), Ok(key));
}

#[test]
fn a_waker_on_another_thread_goes_through_the_door() {
    let (index, remote) = core();
    let executor = Executor::new(&index, 10);
    let _bound = executor.bind_thread();
    let key = executor.attach(5).unwrap();
    let waker = executor.waker(key);
    assert!(waker.will_wake(&waker.clone()));
    let other = std::thread::spawn(move || {
        waker.wake_by_ref();
        waker.wake();
    });
    other.join().unwrap();
    assert_eq!(executor.ready_len(), 0);
    for _ in 0..2 {
        executor.wake(remote.recv_timeout(BOUND).unwrap());
    }
    assert_eq!(executor.pop(), Some(Ready::External(5)));
    assert_eq!(executor.pop(), None);
    assert!(remote.try_recv().is_err());
}

#[test]
fn two_cores_wake_each_other() {
    let (index, own) = core();
    let executor = Executor::new(&index, 10);
    let _bound = executor.bind_thread();
    let waker = executor.waker(executor.attach(1).unwrap());
    let other = std::thread::spawn(move || {
        let (index, own) = core();
        let executor = Executor::new(&index, 10);
        let _bound = executor.bind_thread();
        waker.wake();
        assert_eq!((executor.ready_len(), own.try_recv().is_err()), (0, true));
    });
    other.join().unwrap();
    executor.wake(own.recv_timeout(BOUND).unwrap());
    assert_eq!(executor.pop(), Some(Ready::External(1)));
}

#[test]
fn the_innermost_core_of_a_thread_is_the_local_one() {
    let ((outer, outer_door), (inner, inner_door)) = (core(), core());
    let (outer, inner) = (Executor::new(&outer, 10), Executor::new(&inner, 10));
    let (outer_key, inner_key) = (outer.attach(1).unwrap(), inner.attach(2).unwrap());
    let outer_bound = outer.bind_thread();
    let inner_bound = inner.bind_thread();
    outer.waker(outer_key).wake();
    inner.waker(inner_key).wake();
    assert_eq!(outer_door.try_recv(), Ok(outer_key));
    assert_eq!((outer.ready_len(), inner.ready_len()), (0, 1));
    // Guards may go in any order.
    drop(outer_bound);
    inner.waker(inner.attach(3).unwrap()).wake();
    assert_eq!(inner.ready_len(), 2);
    drop(inner_bound);
    inner.waker(inner_key).wake();
    assert_eq!(inner_door.try_recv(), Ok(inner_key));
}

#[test]
fn a_waker_outlives_its_core() {
    let (index, remote) = core();
    let executor = Executor::new(&index, 10);
    let waker = executor.waker(executor.attach(1).unwrap());
    drop(index);
    waker.wake_by_ref();
    assert!(remote.try_recv().is_ok(), "the executor keeps the index claimed");
    drop(executor);
    waker.wake_by_ref();
    assert!(remote.try_recv().is_err());
}

#[test]
fn a_core_that_gets_a_used_index_is_not_woken_by_old_wakers() {
    // Other tests claim cores too, so the index comes round at some time, not at once.
    let (index, _door) = core();
    let used = index.get();
    let executor = Executor::new(&index, 10);
    let old = executor.attach(1).unwrap();
    drop((index, executor));
    for _ in 0..100_000 {
        let (index, remote) = core();
        if index.get() != used {
            continue;
        }
        let executor = Executor::new(&index, 10);
        let _bound = executor.bind_thread();
        let new = executor.attach(2).unwrap();
        assert_ne!(old, new);
        executor.waker(old).wake();
        assert_eq!((executor.ready_len(), remote.try_recv().is_err()), (0, true));
        return;
    }
    panic!("index {used} never came round");
}

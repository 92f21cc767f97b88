use std::cell::Cell;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::lane::{LaneReceiver, lane};
use super::parcel::Parcel;

fn drain<T: Send>(receiver: &mut LaneReceiver<T>) -> Vec<T> {
    std::iter::from_fn(|| receiver.pop()).collect()
}

#[test]
fn items_pass_in_order() {
    let (mut tx, mut rx) = lane(4, 0);
    assert!(rx.is_empty());
    for n in 0..4 {
        tx.try_send(n).unwrap();
    }
    assert_eq!((tx.depth(), rx.depth(), rx.is_empty()), (4, 4, false));
    assert_eq!(drain(&mut rx), [0, 1, 2, 3]);
    assert_eq!((tx.depth(), rx.depth(), rx.is_empty()), (0, 0, true));
}

#[test]
fn a_lane_without_overflow_refuses_when_full() {
    let (mut tx, mut rx) = lane(1, 0);
    assert_eq!(tx.try_send("a"), Ok(()));
    assert_eq!(tx.try_send("b"), Err("b"));
    assert_eq!(rx.pop(), Some("a"));
    assert_eq!(tx.try_send("b"), Ok(()));
}

#[test]
fn a_lane_of_capacity_zero_still_carries() {
    let (mut tx, mut rx) = lane(0, 0);
    assert_eq!(tx.try_send(1), Ok(()));
    assert_eq!(rx.pop(), Some(1));
}

#[test]
fn the_overflow_is_bounded_for_requests_only() {
    let (mut tx, mut rx) = lane(2, 2);
    for n in 0..4 {
        tx.try_send(n).unwrap();
    }
    assert_eq!(tx.overflow_len(), 2);
    assert_eq!(tx.try_send(4), Err(4));
    tx.send(5);
    assert_eq!((tx.overflow_len(), tx.depth(), rx.depth()), (3, 5, 2));

    assert_eq!(rx.pop(), Some(0));
    assert_eq!(tx.try_send(6), Err(6), "the reply counts as backpressure");
    assert_eq!(tx.overflow_len(), 2);
    assert_eq!(drain(&mut rx), [1, 2]);
    assert_eq!(tx.flush(), 0);
    assert_eq!(drain(&mut rx), [3, 5]);
}

#[test]
fn a_new_item_never_overtakes_the_overflow() {
    let (mut tx, mut rx) = lane(2, 10);
    let mut got = Vec::new();
    for n in 0..8 {
        tx.try_send(n).unwrap();
        if n % 3 == 0 {
            got.extend(rx.pop());
        }
    }
    while tx.flush() > 0 || !rx.is_empty() {
        got.extend(drain(&mut rx));
    }
    assert_eq!(got, [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn each_end_notices_that_the_other_is_gone() {
    let (mut tx, mut rx) = lane(2, 0);
    assert!(tx.is_connected() && !rx.is_closed());
    tx.send(1);
    drop(tx);
    assert!(!rx.is_closed(), "one item is left");
    assert_eq!(rx.pop(), Some(1));
    assert!(rx.is_closed());

    let (tx, rx) = lane::<u8>(2, 0);
    drop(rx);
    assert!(!tx.is_connected());
}

#[test]
fn what_nobody_took_is_dropped_with_the_lane() {
    let item = Arc::new(());
    let (mut tx, rx) = lane(1, 1);
    tx.send(Parcel::new(item.clone()));
    tx.send(Parcel::new(item.clone()));
    assert_eq!((tx.overflow_len(), Arc::strong_count(&item)), (1, 3));
    drop(rx);
    drop(tx);
    assert_eq!(Arc::strong_count(&item), 1);
}

#[test]
fn the_ends_may_move_to_other_threads_even_if_items_may_not_be_shared() {
    fn assert_send<T: Send>(_: T) {}
    let (tx, rx) = lane::<Cell<u8>>(1, 0);
    assert_send(tx);
    assert_send(rx);
}

/// Two real threads; the receiver stalls now and then, so that ring, overflow and refusal all happen.
#[test]
fn a_million_items_pass_between_two_threads_in_order() {
    let count: u64 = if cfg!(miri) { 2_000 } else { 1_000_000 };
    let limit = Instant::now() + Duration::from_secs(60);
    let (mut tx, mut rx) = lane(64, 64);

    let sender = thread::spawn(move || {
        for n in 0..count {
            let mut parcel = Parcel::new(n);
            while let Err(back) = tx.try_send(parcel) {
                parcel = back;
                assert!(Instant::now() < limit, "the receiver takes nothing");
                thread::yield_now();
            }
        }
        while tx.flush() > 0 {
            assert!(Instant::now() < limit, "the receiver takes nothing");
            thread::yield_now();
        }
    });

    let mut next = 0;
    while !rx.is_closed() {
        match rx.pop() {
            Some(parcel) => {
                assert_eq!(parcel.take::<u64>().unwrap(), next);
                next += 1;
                if next % 1000 == 0 {
                    thread::yield_now();
                }
            }
            None => {
                assert!(Instant::now() < limit, "the sender sends nothing");
                thread::yield_now();
            }
        }
    }
    sender.join().unwrap();
    assert_eq!(next, count);
}

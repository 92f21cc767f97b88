use std::cell::Cell;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::lane::{LaneReceiver, LaneSender, lane};
use super::parcel::Parcel;

/// Sends a letter that says all with its head, or is refused.
fn try_send(sender: &mut LaneSender<u64>, head: u64) -> Result<(), u64> {
    if !sender.has_room() {
        return Err(head);
    }
    send(sender, head);
    Ok(())
}

fn send(sender: &mut LaneSender<u64>, head: u64) {
    sender.send(head, |_| ());
}

fn pop(receiver: &mut LaneReceiver<u64>) -> Option<u64> {
    receiver.receive(&mut Parcel::default())
}

fn drain(receiver: &mut LaneReceiver<u64>) -> Vec<u64> {
    std::iter::from_fn(|| pop(receiver)).collect()
}

#[test]
fn letters_pass_in_order() {
    let (mut tx, mut rx) = lane(4, 0);
    assert!(rx.is_empty());
    for n in 0..4 {
        try_send(&mut tx, n).unwrap();
    }
    assert_eq!((tx.depth(), rx.depth(), rx.is_empty()), (4, 4, false));
    assert_eq!(drain(&mut rx), [0, 1, 2, 3]);
    assert_eq!((tx.depth(), rx.depth(), rx.is_empty()), (0, 0, true));
}

#[test]
fn a_lane_without_overflow_refuses_when_full() {
    let (mut tx, mut rx) = lane(1, 0);
    assert_eq!(try_send(&mut tx, 1), Ok(()));
    assert_eq!(try_send(&mut tx, 2), Err(2));
    assert_eq!(pop(&mut rx), Some(1));
    assert_eq!(try_send(&mut tx, 2), Ok(()));
}

#[test]
fn a_lane_of_capacity_zero_still_carries() {
    let (mut tx, mut rx) = lane(0, 0);
    assert_eq!(try_send(&mut tx, 1), Ok(()));
    assert_eq!(pop(&mut rx), Some(1));
}

#[test]
fn the_overflow_is_bounded_for_requests_only() {
    let (mut tx, mut rx) = lane(2, 2);
    for n in 0..4 {
        try_send(&mut tx, n).unwrap();
    }
    assert_eq!(tx.overflow_len(), 2);
    assert_eq!(try_send(&mut tx, 4), Err(4));
    send(&mut tx, 5);
    assert_eq!((tx.overflow_len(), tx.depth(), rx.depth()), (3, 5, 2));

    assert_eq!(pop(&mut rx), Some(0));
    assert_eq!(try_send(&mut tx, 6), Err(6), "the reply counts as backpressure");
    assert_eq!(tx.overflow_len(), 2);
    assert_eq!(drain(&mut rx), [1, 2]);
    assert_eq!(tx.flush(), 0);
    assert_eq!(drain(&mut rx), [3, 5]);
}

#[test]
fn a_new_letter_never_overtakes_the_overflow() {
    let (mut tx, mut rx) = lane(2, 10);
    let mut got = Vec::new();
    for n in 0..8 {
        try_send(&mut tx, n).unwrap();
        if n % 3 == 0 {
            got.extend(pop(&mut rx));
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
    send(&mut tx, 1);
    drop(tx);
    assert!(!rx.is_closed(), "one letter is left");
    assert_eq!(pop(&mut rx), Some(1));
    assert!(rx.is_closed());

    let (tx, rx) = lane::<u8>(2, 0);
    drop(rx);
    assert!(!tx.is_connected());
}

#[test]
fn a_parcel_arrives_whether_it_went_through_the_ring_or_the_overflow() {
    let (mut tx, mut rx) = lane(1, 1);
    for n in 0..2 {
        tx.send(n, |parcel| parcel.fill(format!("parcel {n}")));
    }
    for n in 0..2 {
        let mut parcel = Parcel::default();
        assert_eq!((rx.receive(&mut parcel), parcel.remove()), (Some(n), Some(format!("parcel {n}"))));
        tx.flush();
    }
}

#[test]
fn what_nobody_took_is_dropped_with_the_lane() {
    let item = Arc::new(());
    let (mut tx, rx) = lane(1, 1);
    tx.send(0u8, |parcel| parcel.fill(item.clone()));
    tx.send(0u8, |parcel| parcel.fill(item.clone()));
    assert_eq!((tx.overflow_len(), Arc::strong_count(&item)), (1, 3));
    drop(rx);
    drop(tx);
    assert_eq!(Arc::strong_count(&item), 1);
}

#[test]
fn the_ends_may_move_to_other_threads_even_if_what_they_carry_may_not_be_shared() {
    fn assert_send<T: Send>(_: T) {}
    let (mut tx, rx) = lane::<u8>(1, 0);
    tx.send(0, |parcel| parcel.fill(Cell::new(0)));
    assert_send(tx);
    assert_send(rx);
}

/// Bounds one wait for the other thread. All of them together take as long as the machine needs.
#[derive(Default)]
struct Patience(Option<Instant>);

impl Patience {
    fn wait(&mut self, lack: &str) {
        let begin = *self.0.get_or_insert_with(Instant::now);
        assert!(begin.elapsed() < Duration::from_secs(60), "{lack}");
        thread::yield_now();
    }
}

/// Two real threads; the receiver stalls now and then, so that ring, overflow and refusal all happen.
#[test]
fn a_million_letters_pass_between_two_threads_in_order() {
    let count: u64 = if cfg!(miri) { 2_000 } else { 1_000_000 };
    let (mut tx, mut rx) = lane(64, 64);

    let sender = thread::spawn(move || {
        for n in 0..count {
            let mut patience = Patience::default();
            while !tx.has_room() {
                patience.wait("the receiver takes nothing");
            }
            tx.send(n, |parcel| parcel.fill([n; 9]));
        }
        let mut patience = Patience::default();
        while tx.flush() > 0 {
            patience.wait("the receiver takes nothing");
        }
    });

    let (mut next, mut patience) = (0, Patience::default());
    while !rx.is_closed() {
        let mut parcel = Parcel::default();
        match rx.receive(&mut parcel) {
            Some(head) => {
                assert_eq!((head, parcel.remove()), (next, Some([next; 9])));
                next += 1;
                patience = Patience::default();
                if next % 1000 == 0 {
                    thread::yield_now();
                }
            }
            None => patience.wait("the sender sends nothing"),
        }
    }
    sender.join().unwrap();
    assert_eq!(next, count);
}

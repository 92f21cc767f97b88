//! Wakes between rings and from plain threads.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use ringpost::ring::{Capabilities, Completion, Feature, Ring, RingWaker};

use crate::support::*;

/// Waits for one wake without any timeout of its own that could hide a lost one.
fn await_wake(ring: &mut Ring) {
    let start = Instant::now();
    let mut completions = Vec::new();
    while completions.is_empty() {
        assert!(start.elapsed() < LIMIT, "the wake was lost");
        ring.wait(Some(LIMIT)).unwrap();
        ring.reap(&mut completions);
    }
    assert!(completions.iter().all(|completion| matches!(completion, Completion::Woken)), "{completions:?}");
}

/// A thread with a ring that answers each wake by sending its number; ends after `rounds`.
fn sleeper(capabilities: Capabilities, rounds: u32) -> (RingWaker, mpsc::Receiver<u32>, thread::JoinHandle<()>) {
    let (tell, told) = mpsc::channel();
    let (hand, handed) = mpsc::channel();
    let running = thread::spawn(move || {
        let mut ring = Ring::new(&small(), &capabilities).unwrap();
        hand.send(ring.waker()).unwrap();
        for round in 0..rounds {
            await_wake(&mut ring);
            tell.send(round).unwrap();
        }
    });
    (handed.recv_timeout(LIMIT).unwrap(), told, running)
}

#[test]
fn one_ring_wakes_another_that_waits() {
    for capabilities in [capabilities(), capabilities().without(Feature::SyncMsgRing)] {
        let (waker, told, running) = sleeper(capabilities, 200);
        let mut ring = ring(&small());
        for round in 0..200 {
            ring.wake(&waker, 0);
            ring.submit().unwrap();
            assert_eq!(told.recv_timeout(LIMIT).unwrap(), round);
        }
        running.join().unwrap();
        assert!(turn(&mut ring).is_empty(), "a wake that went well completes nothing here");
        assert_eq!(ring.stats().failed_wakes, 0);
    }
}

#[test]
fn a_plain_thread_wakes_a_ring_by_message_and_by_eventfd() {
    for capabilities in [capabilities(), capabilities().without(Feature::SyncMsgRing)] {
        let (waker, told, running) = sleeper(capabilities, 200);
        for round in 0..200 {
            waker.clone().wake().unwrap();
            assert_eq!(told.recv_timeout(LIMIT).unwrap(), round);
        }
        running.join().unwrap();
    }
}

#[test]
fn a_wake_before_the_wait_is_kept() {
    for capabilities in [capabilities(), capabilities().without(Feature::SyncMsgRing)] {
        let mut ring = Ring::new(&small(), &capabilities).unwrap();
        for _ in 0..3 {
            let waker = ring.waker();
            thread::spawn(move || waker.wake().unwrap()).join().unwrap();
            await_wake(&mut ring);
        }
        let start = Instant::now();
        ring.wait(Some(Duration::from_millis(20))).unwrap();
        assert!(start.elapsed() >= Duration::from_millis(20), "no wake is left over");
        assert!(!ring.has_completions());
    }
}

#[test]
fn waking_a_ring_that_is_gone_is_an_error_and_not_a_wake_of_a_stranger() {
    for capabilities in [capabilities(), capabilities().without(Feature::SyncMsgRing)] {
        let gone = Ring::new(&small(), &capabilities).unwrap().waker();
        let mut ring = ring(&small());
        assert_eq!(gone.wake().unwrap_err().raw_os_error(), Some(libc::EOWNERDEAD));
        ring.wake(&gone, 0);
        assert!(turn(&mut ring).is_empty());
        assert_eq!(ring.stats().failed_wakes, 1);
    }
}

#[test]
fn a_wake_queued_before_its_target_went_reaches_no_stranger() {
    let mut ring = ring(&small());
    let target = self::ring(&small());
    ring.wake(&target.waker(), 0);
    drop(target);
    // Would take over the target's descriptor number if the queued wake did not hold it.
    let mut stranger = self::ring(&small());
    assert!(turn(&mut ring).is_empty());
    assert!(turn(&mut stranger).is_empty());
}

#[test]
fn every_optional_feature_can_be_missing() {
    let mut none = capabilities();
    for feature in Feature::ALL {
        none = none.without(feature);
    }
    let mut ring = Ring::new(&small(), &none).unwrap();
    assert_eq!(ring.capabilities(), &none);
    let (connection, theirs) = adopted(&mut ring);
    ring.recv(connection);
    let writing = writer(theirs, pattern(9, 100));
    let Some(Completion::Received { chunk, .. }) = next(&mut ring).pop() else { panic!("no bytes") };
    assert_eq!(ring.bytes(&chunk), pattern(9, 100));
    ring.release(chunk);
    drop(writing.join().unwrap());
}

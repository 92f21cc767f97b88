//! Stopping, trying, waiting.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use ringpost::ring::{Completion, RecvEnd, Ring, RingConfig, SocketId};
use socket2::SockRef;

use crate::support::*;

/// Collects `len` bytes of one socket.
fn collect(ring: &mut Ring, from: SocketId, len: usize) -> Vec<u8> {
    let mut all = Vec::new();
    drive(ring, |ring, completion| {
        match completion {
            Completion::Received { socket, chunk } if socket == from => {
                all.extend_from_slice(ring.bytes(&chunk));
                ring.release(chunk);
            }
            other => panic!("{other:?}"),
        }
        all.len() >= len
    });
    all
}

fn stopped(completions: &[Completion]) -> bool {
    matches!(completions, [Completion::RecvEnded { reason: RecvEnd::Cancelled, .. }])
}

#[test]
fn a_stopped_receive_is_told_once_and_loses_nothing() {
    let mut ring = ring(&small());
    let (connection, mut theirs) = adopted(&mut ring);
    ring.stop_recv(connection);
    assert!(turn(&mut ring).is_empty(), "nothing to stop yet");
    ring.recv(connection);
    theirs.write_all(b"first").unwrap();
    assert_eq!(collect(&mut ring, connection, 5), b"first");
    ring.stop_recv(connection);
    ring.stop_recv(connection);
    assert!(stopped(&next(&mut ring)));
    theirs.write_all(b"second").unwrap();
    assert!(turn(&mut ring).is_empty(), "stopped");
    ring.recv(connection);
    assert_eq!(collect(&mut ring, connection, 6), b"second");
    close(&mut ring, connection);
    assert_eq!(ring.free_buffers(), 8);
}

#[test]
fn a_stop_taken_back_is_not_told() {
    let mut ring = ring(&small());
    let (connection, mut theirs) = adopted(&mut ring);
    ring.recv(connection);
    assert!(turn(&mut ring).is_empty());
    ring.stop_recv(connection);
    ring.recv(connection);
    for _ in 0..3 {
        assert!(turn(&mut ring).is_empty(), "the stop was taken back");
    }
    theirs.write_all(b"still here").unwrap();
    assert_eq!(collect(&mut ring, connection, 10), b"still here");
}

#[test]
fn a_starved_receive_can_be_stopped_and_resumed() {
    let mut ring = ring(&RingConfig { buffers: 1, buffer_size: 4, ..small() });
    let (connection, mut theirs) = adopted(&mut ring);
    theirs.write_all(b"abcdefgh").unwrap();
    ring.recv(connection);
    let Some(Completion::Received { chunk, .. }) = next(&mut ring).pop() else { panic!("no bytes") };
    while ring.stats().buffer_starvations == 0 {
        assert!(turn(&mut ring).is_empty(), "no buffer is free");
    }
    ring.stop_recv(connection);
    ring.recv(connection);
    assert!(turn(&mut ring).is_empty(), "the stop was taken back");
    ring.stop_recv(connection);
    assert!(stopped(&next(&mut ring)));
    assert_eq!(ring.bytes(&chunk), b"abcd");
    ring.release(chunk);
    assert!(turn(&mut ring).is_empty(), "stopped");
    ring.recv(connection);
    assert_eq!(collect(&mut ring, connection, 4), b"efgh");
}

#[test]
fn a_non_blocking_descriptor_is_served_or_told_and_does_not_spin() {
    let mut ring = ring(&small());
    let (ours, mut theirs) = pair();
    SockRef::from(&ours).set_nonblocking(true).unwrap();
    let connection = ring.adopt(ours.into());
    ring.recv(connection);
    let mut completions = turn(&mut ring);
    if completions.is_empty() {
        theirs.write_all(b"x").unwrap();
        completions = next(&mut ring);
    }
    match &completions[..] {
        [Completion::Received { .. }] => {}
        [Completion::RecvEnded { reason: RecvEnd::Error(error), .. }] => {
            assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
        }
        other => panic!("{other:?}"),
    }
    assert!(turn(&mut ring).is_empty());
    assert_eq!(ring.stats().rearms, 0);
}

#[test]
fn wait_ends_by_timeout_or_at_once_if_something_is_there() {
    let mut ring = ring(&small());
    let start = Instant::now();
    ring.wait(Some(Duration::from_millis(30))).unwrap();
    assert!((Duration::from_millis(30)..LIMIT).contains(&start.elapsed()));
    ring.wait(Some(Duration::ZERO)).unwrap();
    let (connection, mut theirs) = adopted(&mut ring);
    theirs.write_all(b"x").unwrap();
    ring.recv(connection);
    ring.submit().unwrap();
    assert!(ring.has_completions());
    let start = Instant::now();
    ring.wait(Some(LIMIT)).unwrap();
    assert!(start.elapsed() < LIMIT);
    assert_eq!(collect(&mut ring, connection, 1), b"x");
}

#[test]
fn memory_alone_tells_whether_an_enter_is_worth_it() {
    for capabilities in ways_to_wake() {
        let mut ring = settled(&capabilities);
        let (connection, mut theirs) = adopted(&mut ring);
        assert!(!ring.wants_enter() && !ring.has_completions());
        ring.recv(connection);
        assert!(ring.wants_enter(), "a request is queued");
        ring.submit().unwrap();
        assert!(!ring.wants_enter() && !ring.has_completions());
        let enters = ring.stats().enters;
        theirs.write_all(b"hello").unwrap();
        let end = Instant::now() + LIMIT;
        while !ring.wants_enter() {
            assert!(Instant::now() < end, "the kernel never asked for an enter");
            std::hint::spin_loop();
        }
        assert!(!ring.has_completions(), "nothing completes before an enter");
        assert_eq!(ring.stats().enters, enters);
        ring.submit().unwrap();
        assert!(ring.has_completions());
        assert_eq!(collect(&mut ring, connection, 5), b"hello");
        let mut rest = [0; 1];
        close(&mut ring, connection);
        assert_eq!(theirs.read(&mut rest).unwrap(), 0);
    }
}

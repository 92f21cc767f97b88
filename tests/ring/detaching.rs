//! Giving a socket away.

use std::io::{Read, Write};

use ringpost::ring::Completion;

use crate::support::*;

#[test]
fn a_detached_socket_goes_on_in_another_ring() {
    let (mut first, mut second) = (ring(&small()), ring(&small()));
    let (connection, mut theirs) = adopted(&mut first);
    first.recv(connection);
    theirs.write_all(b"one").unwrap();
    let completions = next(&mut first);
    let [Completion::Received { chunk, .. }] = &completions[..] else { panic!("{completions:?}") };
    assert_eq!(first.bytes(chunk), b"one");
    drop(completions);
    first.detach(connection);
    first.detach(connection);
    let mut detached = None;
    drive(&mut first, |_, completion| match completion {
        Completion::Detached { socket, fd } => {
            assert_eq!(socket, connection);
            detached = Some(fd);
            true
        }
        other => panic!("{other:?}"),
    });
    assert!(turn(&mut first).is_empty(), "it is the last completion");
    assert_eq!((first.open_sockets(), first.stats().stale_completions), (0, 0));
    first.recv(connection);
    first.close(connection);
    first.detach(connection);
    assert!(!first.wants_enter(), "the old id starts nothing");

    theirs.write_all(b"two").unwrap();
    let connection = second.adopt(detached.unwrap());
    second.recv(connection);
    second.send(connection, b"answer".to_vec()).unwrap();
    let (mut received, mut sent) = (false, false);
    drive(&mut second, |second, completion| {
        match completion {
            Completion::Received { chunk, .. } => {
                assert_eq!(second.bytes(&chunk), b"two");
                received = true;
            }
            Completion::Sent { result, .. } => sent = result.is_ok(),
            other => panic!("{other:?}"),
        }
        received && sent
    });
    let mut answer = [0; 6];
    theirs.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"answer");
    close(&mut second, connection);
}

#[test]
fn what_was_received_before_a_detach_is_reported_before_its_end() {
    let mut ring = ring(&small());
    let (connection, mut theirs) = adopted(&mut ring);
    ring.recv(connection);
    theirs.write_all(b"early").unwrap();
    ring.submit().unwrap();
    assert!(ring.has_completions(), "bytes wait to be reaped");
    ring.detach(connection);
    let mut bytes = Vec::new();
    drive(&mut ring, |ring, completion| match completion {
        Completion::Received { chunk, .. } => {
            bytes.extend_from_slice(ring.bytes(&chunk));
            ring.release(chunk);
            false
        }
        Completion::Detached { .. } => true,
        other => panic!("{other:?}"),
    });
    assert_eq!(bytes, b"early");
    assert_eq!((ring.open_sockets(), ring.free_buffers()), (0, 8));
    // Nobody kept the descriptor.
    assert_eq!(theirs.read(&mut [0]).unwrap_or(0), 0);
}

#[test]
fn a_socket_without_requests_and_one_at_its_end_are_detached_too() {
    for ended in [false, true] {
        let mut ring = ring(&small());
        let (connection, theirs) = adopted(&mut ring);
        if ended {
            drop(theirs);
            ring.recv(connection);
            assert!(matches!(next(&mut ring)[..], [Completion::Eof { .. }]));
        }
        ring.detach(connection);
        let Some(Completion::Detached { fd, .. }) = next(&mut ring).pop() else { panic!("nothing but this is left") };
        if ended {
            let again = ring.adopt(fd);
            ring.recv(again);
            assert!(matches!(next(&mut ring)[..], [Completion::Eof { .. }]), "the next one meets the end as well");
        }
    }
}

#[test]
fn a_close_wins_over_a_detach() {
    let mut ring = ring(&small());
    let (connection, mut theirs) = adopted(&mut ring);
    ring.recv(connection);
    ring.submit().unwrap();
    ring.detach(connection);
    close(&mut ring, connection);
    assert!(turn(&mut ring).is_empty());
    assert_eq!((theirs.read(&mut [0]).unwrap_or(0), ring.open_sockets()), (0, 0));
}

#[test]
fn dropping_a_ring_closes_what_was_being_detached() {
    let mut ring = ring(&small());
    let (connection, mut theirs) = adopted(&mut ring);
    ring.recv(connection);
    ring.detach(connection);
    drop(ring);
    assert_eq!(theirs.read(&mut [0]).unwrap_or(0), 0);
}

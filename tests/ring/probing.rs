//! Sockets that their owner looks at itself.

use std::io::Write;
use std::thread;
use std::time::Instant;

use ringpost::ring::{Completion, RecvEnd, Ring, RingConfig, SocketId};

use crate::support::*;

/// A connection that is probed, with nothing of the kernel's receive left.
fn probed(ring: &mut Ring) -> (SocketId, std::net::TcpStream) {
    let (connection, theirs) = adopted(ring);
    ring.recv(connection);
    ring.recv_by_probe(connection);
    assert!(turn(ring).is_empty(), "no end of the receive is told");
    (connection, theirs)
}

/// Looks until something has come.
fn look(ring: &mut Ring, connection: SocketId) -> Vec<Completion> {
    let end = Instant::now() + LIMIT;
    let mut found = Vec::new();
    while found.is_empty() {
        assert!(Instant::now() < end, "nothing came: {:?}", ring.stats());
        assert!(ring.probe(connection, &mut found), "it is probed");
    }
    found
}

fn bytes(ring: &mut Ring, mut completions: Vec<Completion>) -> Vec<u8> {
    let Some(Completion::Received { chunk, .. }) = completions.pop() else { panic!("no bytes") };
    assert!(completions.is_empty(), "{completions:?}");
    let bytes = ring.bytes(&chunk).to_vec();
    ring.release(chunk);
    bytes
}

#[test]
fn a_probe_finds_nothing_then_bytes_then_the_end() {
    let mut ring = ring(&small());
    let (connection, mut theirs) = probed(&mut ring);
    let mut found = Vec::new();
    assert!(ring.probe(connection, &mut found) && found.is_empty(), "{found:?}");
    theirs.write_all(b"bytes").unwrap();
    let found = look(&mut ring, connection);
    assert_eq!(bytes(&mut ring, found), b"bytes");
    assert!(!ring.wants_enter() && turn(&mut ring).is_empty(), "the kernel is asked for nothing");
    drop(theirs);
    let found = look(&mut ring, connection);
    assert!(matches!(found[..], [Completion::Eof { socket }] if socket == connection), "{found:?}");
    assert!(!ring.probe(connection, &mut Vec::new()), "it has ended");
    close(&mut ring, connection);
    assert_eq!((ring.open_sockets(), ring.free_buffers()), (0, 8));
}

#[test]
fn only_a_socket_that_is_received_by_probes_is_looked_at() {
    let mut ring = ring(&small());
    let (connection, mut theirs) = adopted(&mut ring);
    theirs.write_all(b"x").unwrap();
    let mut found = Vec::new();
    ring.recv_by_probe(connection);
    assert!(!ring.probe(connection, &mut found), "it does not receive");
    ring.recv(connection);
    assert!(!ring.probe(connection, &mut found), "the kernel receives");
    ring.recv_by_probe(connection);
    ring.recv_unprobed(connection);
    assert!(!ring.probe(connection, &mut found), "the kernel receives again");
    assert!(found.is_empty() && ring.stats().probes == 0);
    let found = next(&mut ring);
    assert_eq!(bytes(&mut ring, found), b"x");
    ring.stop_recv(connection);
    assert!(matches!(next(&mut ring)[..], [Completion::RecvEnded { reason: RecvEnd::Cancelled, .. }]));
    ring.recv_unprobed(connection);
    theirs.write_all(b"y").unwrap();
    assert!(turn(&mut ring).is_empty(), "it does not receive, and was not probed");
}

#[test]
fn the_bytes_of_a_stream_stay_in_order_while_the_way_of_receiving_changes() {
    const LEN: usize = 1 << 20;
    for buffers in [1, 64] {
        let mut ring = ring(&RingConfig { buffers, buffer_size: 1000, ..small() });
        let (connection, theirs) = adopted(&mut ring);
        ring.recv(connection);
        let sender = writer(theirs, pattern(3, LEN));
        let end = Instant::now() + LIMIT;
        let (mut at, mut completions) = (0, Vec::new());
        for round in 0_usize.. {
            assert!(Instant::now() < end, "{at} bytes came: {:?}", ring.stats());
            match round % 7 {
                0 => ring.recv_by_probe(connection),
                4 => ring.recv_unprobed(connection),
                _ => {}
            }
            if round % 3 != 0 {
                ring.submit().unwrap();
            }
            // The kernel may have brought something by now that nobody has reaped yet.
            ring.probe(connection, &mut completions);
            ring.reap(&mut completions);
            for completion in completions.drain(..) {
                let Completion::Received { chunk, .. } = completion else { panic!("{completion:?}") };
                let part = ring.bytes(&chunk);
                assert!(part.iter().zip(at..).all(|(byte, at)| *byte == pattern_at(3, at)), "behind {at} bytes");
                at += part.len();
                ring.release(chunk);
            }
            if at == LEN {
                break;
            }
            thread::yield_now();
        }
        drop(sender.join().unwrap());
        assert!(ring.stats().probes > 0);
        close(&mut ring, connection);
        assert_eq!((ring.open_sockets(), ring.free_buffers()), (0, usize::from(buffers)));
    }
}

/// Looks ahead of the kernel until something has come.
fn look_ahead(ring: &mut Ring, connection: SocketId) -> Vec<Completion> {
    let end = Instant::now() + LIMIT;
    let mut found = Vec::new();
    while found.is_empty() {
        assert!(Instant::now() < end, "nothing came: {:?}", ring.stats());
        assert!(ring.recv_ahead(connection, &mut found), "the kernel receives for it");
    }
    found
}

#[test]
fn bytes_that_are_received_ahead_of_the_kernel_come_once_and_the_end_is_the_kernels_to_tell() {
    let mut ring = ring(&small());
    let (connection, mut theirs) = adopted(&mut ring);
    ring.recv(connection);
    assert!(turn(&mut ring).is_empty());
    for round in 0..10_u8 {
        theirs.write_all(&[round; 3]).unwrap();
        let found = look_ahead(&mut ring, connection);
        assert_eq!(bytes(&mut ring, found), [round; 3]);
        assert!(turn(&mut ring).is_empty(), "nothing is left for the kernel");
    }
    theirs.write_all(b"the kernel's").unwrap();
    let found = next(&mut ring);
    assert_eq!(bytes(&mut ring, found), b"the kernel's", "its receive is armed still");
    drop(theirs);
    let mut found = Vec::new();
    for _ in 0..100 {
        assert!(ring.recv_ahead(connection, &mut found) && found.is_empty(), "{found:?}");
    }
    assert!(matches!(next(&mut ring)[..], [Completion::Eof { socket }] if socket == connection));
    assert!(!ring.recv_ahead(connection, &mut found), "it has ended");
    close(&mut ring, connection);
    assert_eq!((ring.open_sockets(), ring.free_buffers()), (0, 8));
}

#[test]
fn an_error_that_is_found_ahead_of_the_kernel_is_told() {
    let mut ring = ring(&small());
    let (connection, theirs) = adopted(&mut ring);
    ring.recv(connection);
    assert!(turn(&mut ring).is_empty());
    socket2::SockRef::from(&theirs).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(theirs);
    let found = look_ahead(&mut ring, connection);
    let [Completion::RecvEnded { socket, reason: RecvEnd::Error(error) }] = &found[..] else { panic!("{found:?}") };
    assert_eq!((*socket, error.raw_os_error()), (connection, Some(libc::ECONNRESET)));
    close(&mut ring, connection);
    assert_eq!(ring.open_sockets(), 0);
}

#[test]
fn only_a_socket_that_the_kernel_receives_for_is_received_ahead_of_it() {
    let mut ring = ring(&small());
    let (connection, mut theirs) = adopted(&mut ring);
    theirs.write_all(b"x").unwrap();
    let mut found = Vec::new();
    assert!(!ring.recv_ahead(connection, &mut found), "it does not receive");
    ring.recv(connection);
    ring.recv_by_probe(connection);
    assert!(!ring.recv_ahead(connection, &mut found), "it is probed");
    ring.stop_recv(connection);
    assert!(!ring.recv_ahead(connection, &mut found), "it was stopped");
    assert!(found.is_empty() && ring.stats().probes == 0);
}

#[test]
fn bytes_that_are_received_ahead_of_the_kernel_never_overtake_those_that_it_has_received() {
    const LEN: usize = 1 << 20;
    // A queue of two completions overflows: what the kernel has received then lies aside.
    for cq_entries in [2, 64] {
        let mut ring = ring(&RingConfig { sq_entries: 2, cq_entries, buffers: 64, buffer_size: 1000 });
        let (connection, theirs) = adopted(&mut ring);
        ring.recv(connection);
        let sender = writer(theirs, pattern(3, LEN));
        let end = Instant::now() + LIMIT;
        let (mut at, mut completions) = (0, Vec::new());
        for round in 0_usize.. {
            assert!(Instant::now() < end, "{at} bytes came: {:?}", ring.stats());
            if round % 3 != 0 {
                ring.submit().unwrap();
            }
            // Now and then twice without an enter between, when the queue has been emptied and what lies aside is next.
            for _ in 0..1 + round % 2 {
                ring.recv_ahead(connection, &mut completions);
                ring.reap(&mut completions);
            }
            for completion in completions.drain(..) {
                let Completion::Received { chunk, .. } = completion else { panic!("{completion:?}") };
                let part = ring.bytes(&chunk);
                assert!(part.iter().zip(at..).all(|(byte, at)| *byte == pattern_at(3, at)), "behind {at} bytes");
                at += part.len();
                ring.release(chunk);
            }
            if at == LEN {
                break;
            }
            thread::yield_now();
        }
        drop(sender.join().unwrap());
        let stats = ring.stats();
        assert!(stats.probes > 0 && (cq_entries > 2 || stats.cq_overflows > 0), "{stats:?}");
        close(&mut ring, connection);
        assert_eq!((ring.open_sockets(), ring.free_buffers()), (0, 64));
    }
}

#[test]
fn a_stop_of_a_probed_receive_is_told_once() {
    let mut ring = ring(&small());
    let (connection, mut theirs) = probed(&mut ring);
    ring.stop_recv(connection);
    assert!(matches!(next(&mut ring)[..], [Completion::RecvEnded { reason: RecvEnd::Cancelled, .. }]));
    theirs.write_all(b"later").unwrap();
    assert!(!ring.probe(connection, &mut Vec::new()) && turn(&mut ring).is_empty(), "stopped");
    ring.recv(connection);
    let found = next(&mut ring);
    assert_eq!(bytes(&mut ring, found), b"later");
}

#[test]
fn a_starved_receive_can_be_probed_and_is_armed_once_afterwards() {
    let mut ring = ring(&RingConfig { buffers: 1, buffer_size: 4, ..small() });
    let (connection, mut theirs) = adopted(&mut ring);
    theirs.write_all(b"abcdefghij").unwrap();
    ring.recv(connection);
    let Some(Completion::Received { chunk, .. }) = next(&mut ring).pop() else { panic!("no bytes") };
    while ring.stats().buffer_starvations == 0 {
        assert!(turn(&mut ring).is_empty(), "no buffer is free");
    }
    ring.recv_by_probe(connection);
    let found = look(&mut ring, connection);
    assert_eq!(bytes(&mut ring, found), b"efgh", "a look needs none of the kernel's buffers");
    ring.recv_unprobed(connection);
    assert_eq!(ring.bytes(&chunk), b"abcd");
    ring.release(chunk);
    let found = next(&mut ring);
    assert_eq!(bytes(&mut ring, found), b"ij");
    ring.stop_recv(connection);
    assert!(matches!(next(&mut ring)[..], [Completion::RecvEnded { reason: RecvEnd::Cancelled, .. }]));
    theirs.write_all(b"kl").unwrap();
    assert!(turn(&mut ring).is_empty(), "a second receive was armed");
    close(&mut ring, connection);
    assert_eq!((ring.open_sockets(), ring.free_buffers()), (0, 1));
}

#[test]
fn looks_stop_while_nobody_gives_buffers_back() {
    let mut ring = ring(&RingConfig { buffer_size: 1, ..small() });
    let (connection, mut theirs) = probed(&mut ring);
    theirs.write_all(b"0123456789").unwrap();
    let mut found = look(&mut ring, connection);
    for _ in 0..20 {
        assert!(ring.probe(connection, &mut found));
    }
    let held = found.len();
    assert!(held < 10, "{held} bytes in buffers of one");
    let (mut all, end) = (Vec::new(), Instant::now() + LIMIT);
    while all.len() < 10 {
        assert!(Instant::now() < end, "{all:?} came");
        for completion in found.drain(..) {
            let Completion::Received { chunk, .. } = completion else { panic!("{completion:?}") };
            all.extend_from_slice(ring.bytes(&chunk));
            ring.release(chunk);
        }
        ring.probe(connection, &mut found);
    }
    assert_eq!(all, b"0123456789");
}

#[test]
fn a_probed_socket_can_be_given_away() {
    let mut ring = ring(&small());
    let (connection, mut theirs) = probed(&mut ring);
    theirs.write_all(b"for another").unwrap();
    ring.detach(connection);
    assert!(!ring.probe(connection, &mut Vec::new()), "it is leaving");
    let mut completions = next(&mut ring);
    let Some(Completion::Detached { fd, .. }) = completions.pop() else { panic!("{completions:?}") };
    let connection = ring.adopt(fd);
    ring.recv(connection);
    let found = next(&mut ring);
    assert_eq!(bytes(&mut ring, found), b"for another");
}

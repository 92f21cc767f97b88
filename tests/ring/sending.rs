//! Echo, short sends, connect.

use std::io::{self, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;

use ringpost::ring::{Completion, Ring, SocketId};
use socket2::{Domain, SockRef, Socket, Type};

use crate::support::*;

#[test]
fn echo_as_a_server() {
    let mut ring = ring(&small());
    let (listening, address) = listener();
    let listener = ring.adopt(listening.into());
    ring.accept(listener);
    let sent = pattern(1, 1 << 20);
    let client = thread::spawn({
        let sent = sent.clone();
        move || {
            let stream = bounded(TcpStream::connect(address).unwrap());
            let writing = writer(stream.try_clone().unwrap(), sent.clone());
            let back = reader(stream, sent.len()).join().unwrap();
            drop(writing.join().unwrap());
            back
        }
    });
    let mut waiting = Vec::new();
    let mut sending = false;
    let mut done = false;
    drive(&mut ring, |ring, completion| {
        let connection = match completion {
            Completion::Accepted { listener: by, socket } => {
                assert_eq!(by, listener);
                let connection = ring.adopt(socket);
                ring.recv(connection);
                return false;
            }
            Completion::Received { socket, chunk } => {
                waiting.extend_from_slice(ring.bytes(&chunk));
                ring.release(chunk);
                socket
            }
            Completion::Sent { socket, result, .. } => {
                result.unwrap();
                sending = false;
                socket
            }
            Completion::Eof { socket } => {
                ring.close(socket);
                return false;
            }
            Completion::Closed { .. } => {
                done = true;
                return true;
            }
            other => panic!("{other:?}"),
        };
        if !sending && !waiting.is_empty() {
            ring.send(connection, std::mem::take(&mut waiting)).unwrap();
            sending = true;
        }
        false
    });
    assert!(client.join().unwrap() == sent, "the echo differs");
    close(&mut ring, listener);
    assert_eq!((ring.open_sockets(), ring.free_buffers()), (0, 8));
    assert_eq!(ring.stats().stale_completions, 0);
}

/// Sends `buf` and waits for its outcome.
fn send(ring: &mut Ring, socket: SocketId, buf: Vec<u8>) -> (Vec<u8>, io::Result<()>) {
    ring.send(socket, buf).unwrap();
    let mut outcome = None;
    drive(ring, |_, completion| {
        if let Completion::Sent { socket: from, buf, result } = completion {
            assert_eq!(from, socket);
            outcome = Some((buf, result));
        }
        outcome.is_some()
    });
    outcome.unwrap()
}

fn connect(ring: &mut Ring, domain: Domain, address: SocketAddr) -> (SocketId, io::Result<()>) {
    let plain = Socket::new(domain, Type::STREAM, None).unwrap();
    let connecting = ring.adopt(plain.into());
    ring.connect(connecting, address);
    match next(ring).pop().unwrap() {
        Completion::Connected { socket, result } if socket == connecting => (socket, result),
        other => panic!("{other:?}"),
    }
}

#[test]
fn echo_as_a_client() {
    let mut ring = ring(&small());
    let (listening, address) = listener();
    let (connection, result) = connect(&mut ring, Domain::IPV4, address);
    result.unwrap();
    let mut peer = bounded(listening.accept().unwrap().0);
    let sent = pattern(2, 10_000);
    let (buf, result) = send(&mut ring, connection, sent.clone());
    result.unwrap();
    assert!(buf == sent, "the buffer comes back unchanged");
    let mut back = vec![0; sent.len()];
    peer.read_exact(&mut back).unwrap();
    assert!(back == sent, "the peer read something else");
    close(&mut ring, connection);
    assert_eq!(peer.read(&mut back).unwrap(), 0);
}

#[test]
fn connect_speaks_ipv6_and_tells_a_refusal() {
    let mut ring = ring(&small());
    let listening = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    let address = listening.local_addr().unwrap();
    let (connection, result) = connect(&mut ring, Domain::IPV6, address);
    result.unwrap();
    close(&mut ring, connection);
    drop(listening);
    let (refused, result) = connect(&mut ring, Domain::IPV6, address);
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    let _listening = TcpListener::bind(address).unwrap();
    ring.connect(refused, address);
    let completions = next(&mut ring);
    assert!(matches!(completions[..], [Completion::Connected { result: Ok(()), .. }]), "a second try: {completions:?}");
}

#[test]
fn eight_mebibytes_to_a_slow_reader_arrive_in_order_and_their_parts_are_told() {
    let mut ring = ring(&small());
    let (ours, mut theirs) = pair();
    SockRef::from(&ours).set_send_buffer_size(4096).unwrap();
    let connection = ring.adopt(ours.into());
    let sent = pattern(3, 8 << 20);
    let reading = thread::spawn(move || {
        let mut all = Vec::new();
        let mut piece = [0; 3001];
        while all.len() < 8 << 20 {
            let read = theirs.read(&mut piece).unwrap();
            assert!(read > 0, "ended after {} bytes", all.len());
            all.extend_from_slice(&piece[..read]);
        }
        all
    });
    let mut parts = 0;
    ring.send(connection, sent.clone()).unwrap();
    drive(&mut ring, |_, completion| match completion {
        Completion::SentPart { socket } => {
            assert_eq!(socket, connection);
            parts += 1;
            false
        }
        Completion::Sent { buf, result, .. } => {
            result.unwrap();
            assert!(buf == sent, "the buffer has changed");
            true
        }
        other => panic!("{other:?}"),
    });
    assert!(parts >= 7, "each MiB but the last is told: {parts}");
    assert!(reading.join().unwrap() == sent, "order or content is lost");
}

#[test]
fn a_peer_that_resets_midway_fails_the_send_and_the_buffer_comes_back() {
    let mut ring = ring(&small());
    let (connection, mut theirs) = adopted(&mut ring);
    let sent = pattern(4, 32 << 20);
    ring.send(connection, sent.clone()).unwrap();
    // It is more than the socket buffers hold.
    fill(&mut ring);
    theirs.read_exact(&mut [0; 1000]).unwrap();
    // With unread bytes this is a reset.
    drop(theirs);
    drive(&mut ring, |_, completion| match completion {
        // What the peer has read made room for it.
        Completion::SentPart { .. } => false,
        Completion::Sent { buf, result, .. } => {
            let kind = result.unwrap_err().kind();
            assert!(matches!(kind, io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe), "{kind}");
            assert!(buf == sent, "the buffer has changed");
            true
        }
        other => panic!("{other:?}"),
    });
    assert_eq!(ring.stats().short_sends, 1, "a part had left, the rest was tried");
}

#[test]
fn a_second_send_is_refused_with_its_buffer() {
    let mut ring = ring(&small());
    let (connection, mut theirs) = adopted(&mut ring);
    ring.send(connection, vec![1; 100]).unwrap();
    assert_eq!(ring.send(connection, vec![2; 3]), Err(vec![2; 3]));
    drive(&mut ring, |_, completion| matches!(completion, Completion::Sent { result: Ok(()), .. }));
    let (_, result) = send(&mut ring, connection, Vec::new());
    result.unwrap();
    close(&mut ring, connection);
    assert_eq!(ring.send(connection, vec![3]), Err(vec![3]));
    let mut all = Vec::new();
    theirs.read_to_end(&mut all).unwrap();
    assert_eq!(all, vec![1; 100]);
}

#[test]
fn a_send_at_once_needs_no_enter_and_gives_its_buffer_back() {
    for capabilities in ways_to_wake() {
        let mut ring = settled(&capabilities);
        let (connection, mut theirs) = adopted(&mut ring);
        let before = ring.stats();
        let Ok(Some(Completion::Sent { socket, buf, result })) = ring.send_now(connection, vec![7; 100]) else {
            panic!("not sent at once")
        };
        result.unwrap();
        assert_eq!((socket, buf), (connection, vec![7; 100]));
        assert!(!ring.wants_enter());
        assert_eq!((ring.stats().direct_sends, ring.stats().enters), (before.direct_sends + 1, before.enters));
        let mut read = [0; 100];
        theirs.read_exact(&mut read).unwrap();
        assert_eq!(read, [7; 100]);
        close(&mut ring, connection);
        assert!(matches!(ring.send_now(connection, vec![3]), Err(buf) if buf == [3]));
    }
}

#[test]
fn what_a_send_at_once_finds_no_room_for_follows_in_order() {
    let mut ring = ring(&small());
    let (ours, theirs) = pair();
    SockRef::from(&ours).set_send_buffer_size(4096).unwrap();
    let connection = ring.adopt(ours.into());
    let sent = pattern(5, 1 << 20);
    assert!(matches!(ring.send_now(connection, sent.clone()), Ok(None)));
    assert_eq!(ring.stats().short_sends, 1);
    assert!(ring.send_now(connection, vec![1]).is_err(), "one at a time");
    assert!(ring.send(connection, vec![1]).is_err(), "one at a time");
    let reading = reader(theirs, sent.len());
    let Some(Completion::Sent { buf, result, .. }) = next(&mut ring).pop() else { panic!("no outcome") };
    result.unwrap();
    assert!(buf == sent && reading.join().unwrap() == sent, "order or content is lost");
}

#[test]
fn a_send_at_once_that_finds_no_room_at_all_waits_for_it() {
    let mut ring = ring(&small());
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut filled = 0;
    while let Ok(written) = ours.write(&[0; 4096]) {
        filled += written;
    }
    ours.set_nonblocking(false).unwrap();
    let connection = ring.adopt(ours.into());
    assert!(matches!(ring.send_now(connection, vec![9; 10]), Ok(None)));
    assert_eq!(ring.stats().short_sends, 0);
    assert!(turn(&mut ring).is_empty());
    let reading = thread::spawn(move || {
        let mut read = vec![1; filled + 10];
        theirs.read_exact(&mut read).map(|()| read)
    });
    let Some(Completion::Sent { result: Ok(()), .. }) = next(&mut ring).pop() else { panic!("not sent") };
    assert_eq!(reading.join().unwrap().unwrap()[filled..], [9; 10]);
}

#[test]
fn a_send_at_once_tells_why_it_failed() {
    for capabilities in ways_to_wake() {
        let mut ring = settled(&capabilities);
        let (connection, theirs) = adopted(&mut ring);
        let Ok(Some(_)) = ring.send_now(connection, vec![1; 100]) else { panic!("not sent at once") };
        // With unread bytes this is a reset.
        drop(theirs);
        let Ok(Some(Completion::Sent { buf, result, .. })) = ring.send_now(connection, vec![2; 100]) else {
            panic!("no outcome")
        };
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(buf, vec![2; 100]);
        assert!(!ring.wants_enter(), "it is over");
    }
}

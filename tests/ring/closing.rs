//! Closing sockets and rings with requests in flight, and running out of descriptors.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use ringpost::ring::{Completion, Feature, Ring, RingConfig, SocketId};
use socket2::{Domain, Socket, Type};

use crate::support::*;

/// Reads to the end; a reset is an end too.
fn ends(mut stream: TcpStream) -> bool {
    let mut sink = vec![0; 1 << 20];
    loop {
        match stream.read(&mut sink) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == io::ErrorKind::ConnectionReset,
        }
    }
}

/// A socket with a receive armed and a send that does not fit the peer's buffers.
fn busy(ring: &mut Ring) -> (SocketId, TcpStream) {
    let (connection, theirs) = adopted(ring);
    ring.recv(connection);
    ring.send(connection, pattern(0, 32 << 20)).unwrap();
    fill(ring);
    (connection, theirs)
}

#[test]
fn close_with_receive_and_send_in_flight_gives_the_buffer_then_closed() {
    let mut ring = ring(&small());
    let (connection, theirs) = busy(&mut ring);
    ring.stop_recv(connection);
    ring.close(connection);
    ring.close(connection);
    let mut seen = Vec::new();
    drive(&mut ring, |_, completion| {
        seen.push(completion);
        matches!(seen.last(), Some(Completion::Closed { .. }))
    });
    let [Completion::Sent { buf, result, .. }, Completion::Closed { socket }] = &seen[..] else { panic!("{seen:?}") };
    assert!(buf == &pattern(0, 32 << 20) && result.is_err() && *socket == connection);
    assert!(ends(theirs));
    assert_eq!((ring.open_sockets(), ring.free_buffers()), (0, 8));
    assert!(turn(&mut ring).is_empty(), "closed is the last");
    assert_eq!(ring.stats().stale_completions, 0);
}

#[test]
fn the_place_of_a_socket_is_free_once_its_owner_has_handled_its_end() {
    let mut ring = ring(&small());
    for detach in [false, true] {
        let (old, _theirs) = adopted(&mut ring);
        if detach {
            ring.detach(old)
        } else {
            ring.close(old)
        }
        let mut completions = next(&mut ring);
        // Completions that came before the end may have the owner adopt another one.
        let (meanwhile, _theirs) = adopted(&mut ring);
        assert_ne!(meanwhile.slot, old.slot);
        assert!(matches!(completions.pop(), Some(Completion::Closed { .. } | Completion::Detached { .. })));
        assert!(turn(&mut ring).is_empty());
        let (later, _theirs) = adopted(&mut ring);
        assert_eq!(later.slot, old.slot);
        [meanwhile, later].into_iter().for_each(|id| close(&mut ring, id));
    }
}

#[test]
fn close_ends_the_connection_though_someone_holds_a_duplicate() {
    let mut ring = ring(&small());
    let (ours, theirs) = pair();
    let _duplicate = ours.try_clone().unwrap();
    let connection = ring.adopt(ours.into());
    ring.recv(connection);
    close(&mut ring, connection);
    assert!(ends(theirs));
}

#[test]
fn close_reaches_requests_that_are_still_queued() {
    let mut ring = ring(&RingConfig { sq_entries: 1, ..small() });
    let (connection, theirs) = adopted(&mut ring);
    ring.recv(connection);
    ring.send(connection, vec![1; 10]).unwrap();
    close(&mut ring, connection);
    assert!(ends(theirs));
    assert_eq!((ring.open_sockets(), ring.free_buffers()), (0, 8));
}

#[test]
fn completions_after_close_reach_nobody_and_give_their_buffers_back() {
    let mut ring = ring(&small());
    let (old, mut theirs) = adopted(&mut ring);
    ring.recv(old);
    theirs.write_all(b"too late").unwrap();
    ring.submit().unwrap();
    assert!(ring.has_completions(), "bytes wait to be reaped");
    ring.close(old);
    let mut seen = Vec::new();
    drive(&mut ring, |_, completion| {
        seen.push(completion);
        matches!(seen.last(), Some(Completion::Closed { .. }))
    });
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(ring.free_buffers(), 8);

    let (new, mut theirs) = adopted(&mut ring);
    assert_ne!(old, new);
    ring.recv(old);
    assert!(!ring.probe(old, &mut Vec::new()));
    ring.accept(old);
    ring.stop_recv(old);
    ring.close(old);
    assert_eq!(ring.send(old, vec![1]), Err(vec![1]));
    assert!(!ring.wants_enter(), "an old id starts nothing, whoever has its slot");
    ring.recv(new);
    theirs.write_all(b"new").unwrap();
    let completions = next(&mut ring);
    let [Completion::Received { socket, chunk }] = &completions[..] else { panic!("{completions:?}") };
    assert_eq!((*socket, ring.bytes(chunk)), (new, &b"new"[..]));
}

#[test]
fn a_closed_listener_closes_what_nobody_took() {
    let mut ring = ring(&small());
    let (listening, address) = listener();
    let listener = ring.adopt(listening.into());
    ring.accept(listener);
    ring.accept(listener);
    ring.submit().unwrap();
    let client = bounded(TcpStream::connect(address).unwrap());
    ring.wait(Some(LIMIT)).unwrap();
    assert!(ring.has_completions(), "the connection waits to be reaped");
    close(&mut ring, listener);
    assert!(ends(client));
    assert_eq!(ring.open_sockets(), 0);
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
}

/// A connect that hangs: the listener's queue is full, so the handshake is not answered.
fn hanging(ring: &mut Ring) -> (SocketId, Vec<Socket>) {
    let stream = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let listening = stream();
    listening.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    listening.listen(0).unwrap();
    let address = listening.local_addr().unwrap();
    let first = stream();
    first.connect(&address).unwrap();
    let connection = ring.adopt(stream().into());
    ring.connect(connection, address.as_socket().unwrap());
    assert!(turn(ring).is_empty(), "the connect hangs");
    (connection, vec![listening, first])
}

#[test]
fn a_hanging_connect_can_be_closed() {
    let mut ring = ring(&small());
    let (connection, _rest) = hanging(&mut ring);
    let mut seen = Vec::new();
    ring.close(connection);
    drive(&mut ring, |_, completion| {
        seen.push(completion);
        matches!(seen.last(), Some(Completion::Closed { .. }))
    });
    assert_eq!(seen.len(), 1, "closed and nothing else: {seen:?}");
}

#[test]
fn dropping_a_busy_ring_ends_everything_in_time() {
    for feature in [None, Some(Feature::SyncMsgRing)] {
        let capabilities = feature.into_iter().fold(capabilities(), |all, feature| all.without(feature));
        let mut ring = Ring::new(&small(), &capabilities).unwrap();
        let (listening, address) = listener();
        let listener = ring.adopt(listening.into());
        ring.accept(listener);
        let (_, _rest) = hanging(&mut ring);
        let (_, theirs) = busy(&mut ring);
        let (_, mut talking) = busy(&mut ring);
        talking.write_all(b"unread").unwrap();
        let start = Instant::now();
        drop(ring);
        assert!(start.elapsed() < Duration::from_millis(900), "requests did not end: {:?}", start.elapsed());
        assert!(ends(theirs) && ends(talking));
        assert!(TcpStream::connect(address).is_err());
    }
}

#[test]
fn registered_descriptors_are_given_back_and_running_out_of_them_steps_down() {
    for _ in 0..40 {
        assert!(ring(&small()).capabilities().has(Feature::RegisteredRingFd));
    }
    let mut rings: Vec<Ring> = (0..20).map(|_| ring(&small())).collect();
    let registered = rings.iter().filter(|ring| ring.capabilities().has(Feature::RegisteredRingFd)).count();
    assert_eq!(registered, 16);
    for ring in &mut rings {
        let (connection, mut theirs) = adopted(ring);
        ring.recv(connection);
        theirs.write_all(b"x").unwrap();
        assert!(matches!(next(ring)[..], [Completion::Received { .. }]));
    }
}

const CHILD: &str = "RINGPOST_TEST_FEW_DESCRIPTORS";

/// Runs itself again under a limit of 40 descriptors, so that no other test suffers.
#[test]
fn accept_survives_a_lack_of_descriptors() {
    if std::env::var_os(CHILD).is_some() {
        return few_descriptors();
    }
    let child = Command::new("sh")
        .args(["-c", "ulimit -n 40; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "closing::accept_survives_a_lack_of_descriptors", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout).into_owned() + &String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && output.contains("1 passed"), "{output}");
}

fn few_descriptors() {
    let mut ring = ring(&small());
    let (listening, address) = listener();
    let listener = ring.adopt(listening.into());
    let clients: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut ballast: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    assert!(ballast.len() > 8, "the limit leaves some descriptors");
    ballast.truncate(ballast.len() - 3);

    let mut accepted = Vec::new();
    let ended = |ring: &mut Ring, accepted: &mut Vec<_>| {
        drive(ring, |_, completion| match completion {
            Completion::Accepted { socket, .. } => {
                accepted.push(socket);
                false
            }
            Completion::AcceptEnded { error, .. } => {
                assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
                true
            }
            other => panic!("{other:?}"),
        });
    };
    ring.accept(listener);
    ended(&mut ring, &mut accepted);
    assert_eq!(accepted.len(), 3, "as many as there are descriptors");
    assert!(turn(&mut ring).is_empty(), "the ring does not try again by itself");
    ring.accept(listener);
    ended(&mut ring, &mut accepted);
    assert_eq!(accepted.len(), 3, "still none");
    drop(ballast);
    ring.accept(listener);
    drive(&mut ring, |_, completion| {
        let Completion::Accepted { socket, .. } = completion else { panic!("{completion:?}") };
        accepted.push(socket);
        accepted.len() == clients.len()
    });
}

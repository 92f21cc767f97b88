//! Driving a ring with a bound on every wait.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ringpost::ring::{Capabilities, Completion, Feature, Ring, RingConfig, SocketId};

/// No test waits longer than this for anything.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

pub(crate) fn capabilities() -> Capabilities {
    Capabilities::probe().expect("these tests need a kernel that can serve")
}

/// The two ways by which threads wake a ring: by message where the kernel has them, and by an eventfd that the ring
/// polls, as each kernel before 6.13 does.
pub(crate) fn ways_to_wake() -> [Capabilities; 2] {
    [capabilities(), capabilities().without(Feature::SyncMsgRing)]
}

pub(crate) fn small() -> RingConfig {
    RingConfig { sq_entries: 8, cq_entries: 64, buffers: 8, buffer_size: 4096 }
}

pub(crate) fn ring(config: &RingConfig) -> Ring {
    Ring::new(config, &capabilities()).unwrap()
}

/// A small ring that has nothing to submit: the poll of its eventfd, if it has one, is with the kernel.
pub(crate) fn settled(capabilities: &Capabilities) -> Ring {
    let mut ring = Ring::new(&small(), capabilities).unwrap();
    assert!(turn(&mut ring).is_empty());
    ring
}

/// Turns the ring until `on` says that it has seen enough.
pub(crate) fn drive(ring: &mut Ring, mut on: impl FnMut(&mut Ring, Completion) -> bool) {
    let end = Instant::now() + LIMIT;
    let mut completions = Vec::new();
    loop {
        assert!(Instant::now() < end, "not done in time: {:?}", ring.stats());
        ring.wait(Some(Duration::from_millis(200))).unwrap();
        ring.reap(&mut completions);
        let mut done = false;
        for completion in completions.drain(..) {
            done |= on(ring, completion);
        }
        if done {
            return;
        }
    }
}

/// Reaps what one submit brings.
pub(crate) fn turn(ring: &mut Ring) -> Vec<Completion> {
    let mut completions = Vec::new();
    ring.submit().unwrap();
    ring.reap(&mut completions);
    completions
}

/// Lets a send go on until the peer's buffers are full.
pub(crate) fn fill(ring: &mut Ring) {
    loop {
        match &turn(ring)[..] {
            [] => return,
            parts => assert!(parts.iter().all(|part| matches!(part, Completion::SentPart { .. })), "{parts:?}"),
        }
    }
}

/// Waits for the first completion and gives it with whatever came along.
pub(crate) fn next(ring: &mut Ring) -> Vec<Completion> {
    let end = Instant::now() + LIMIT;
    let mut completions = Vec::new();
    while completions.is_empty() {
        assert!(Instant::now() < end, "nothing completed: {:?}", ring.stats());
        ring.wait(Some(Duration::from_millis(200))).unwrap();
        ring.reap(&mut completions);
    }
    completions
}

pub(crate) fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Both ends of a connection, with bounded blocking calls.
pub(crate) fn pair() -> (TcpStream, TcpStream) {
    let (listener, address) = listener();
    let ours = TcpStream::connect(address).unwrap();
    let theirs = listener.accept().unwrap().0;
    (bounded(ours), bounded(theirs))
}

pub(crate) fn bounded(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    stream
}

/// A connection between a socket of the ring and a plain one.
pub(crate) fn adopted(ring: &mut Ring) -> (SocketId, TcpStream) {
    let (ours, theirs) = pair();
    (ring.adopt(ours.into()), theirs)
}

/// A byte that depends on its position, so that a lost or swapped piece shows.
pub(crate) fn pattern(seed: usize, len: usize) -> Vec<u8> {
    /// After this many bytes a pattern repeats. Copying them keeps long ones cheap in a build without optimisation.
    const PERIOD: usize = 1 << 16;
    let mut bytes: Vec<u8> = (0..len.min(PERIOD)).map(|at| pattern_at(seed, at)).collect();
    while bytes.len() < len {
        bytes.extend_from_within(..PERIOD.min(len - bytes.len()));
    }
    bytes
}

pub(crate) fn pattern_at(seed: usize, at: usize) -> u8 {
    (at.wrapping_mul(31) ^ (at >> 8) ^ seed) as u8
}

/// Writes `bytes` from a thread of its own.
pub(crate) fn writer(mut stream: TcpStream, bytes: Vec<u8>) -> JoinHandle<TcpStream> {
    thread::spawn(move || {
        stream.write_all(&bytes).unwrap();
        stream
    })
}

/// Reads exactly `len` bytes on a thread of its own.
pub(crate) fn reader(mut stream: TcpStream, len: usize) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = vec![0; len];
        stream.read_exact(&mut bytes).unwrap();
        bytes
    })
}

/// Closes and waits for the end.
pub(crate) fn close(ring: &mut Ring, socket: SocketId) {
    ring.close(socket);
    drive(ring, |_, completion| matches!(completion, Completion::Closed { socket: closed } if closed == socket));
}

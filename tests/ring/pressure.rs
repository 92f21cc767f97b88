//! Too few buffers, too small queues.

use std::collections::HashMap;
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ringpost::ring::{Chunk, Completion, Ring, RingConfig, SocketId};

use crate::support::*;

/// Receives until every socket has `len` bytes; chunks are released after each reap, as an owner does.
fn collect_all(ring: &mut Ring, sockets: &[SocketId], len: usize) -> (HashMap<SocketId, Vec<u8>>, u64) {
    let mut all: HashMap<SocketId, Vec<u8>> = HashMap::new();
    let mut held: Vec<Chunk> = Vec::new();
    let mut chunks = 0;
    let mut completions = Vec::new();
    let end = Instant::now() + LIMIT;
    while all.values().map(Vec::len).sum::<usize>() < sockets.len() * len {
        assert!(Instant::now() < end, "not all bytes came: {:?}", ring.stats());
        ring.wait(Some(Duration::from_millis(200))).unwrap();
        ring.reap(&mut completions);
        for completion in completions.drain(..) {
            let Completion::Received { socket, chunk } = completion else { panic!("{completion:?}") };
            all.entry(socket).or_default().extend_from_slice(ring.bytes(&chunk));
            held.push(chunk);
            chunks += 1;
        }
        held.drain(..).for_each(|chunk| ring.release(chunk));
    }
    (all, chunks)
}

fn check(all: &HashMap<SocketId, Vec<u8>>, sockets: &[SocketId], len: usize) {
    for (seed, socket) in sockets.iter().enumerate() {
        assert!(all[socket] == pattern(seed, len), "bytes of connection {seed} are lost or swapped");
    }
}

#[test]
fn two_buffers_serve_eight_connections_in_order_without_spinning() {
    const LEN: usize = 64 * 1024;
    let mut ring = ring(&RingConfig { buffers: 2, buffer_size: 2048, ..small() });
    let mut writers = Vec::new();
    let sockets: Vec<SocketId> = (0..8)
        .map(|seed| {
            let (connection, theirs) = adopted(&mut ring);
            ring.recv(connection);
            writers.push(writer(theirs, pattern(seed, LEN)));
            connection
        })
        .collect();
    let (all, chunks) = collect_all(&mut ring, &sockets, LEN);
    check(&all, &sockets, LEN);
    let stats = ring.stats();
    assert!(stats.buffer_starvations > 0, "{stats:?}");
    assert!(stats.enters <= 2 * chunks + 64, "{chunks} chunks took too many enters: {stats:?}");
    assert!(stats.rearms <= 4 * chunks + 64, "{chunks} chunks took too many rearms: {stats:?}");
    assert_eq!(ring.free_buffers(), 2);
}

#[test]
fn a_starved_ring_sleeps_until_a_buffer_is_released() {
    let mut ring = ring(&RingConfig { buffers: 2, buffer_size: 8, ..small() });
    let (connection, mut theirs) = adopted(&mut ring);
    theirs.write_all(&pattern(0, 24)).unwrap();
    ring.recv(connection);
    let mut held = Vec::new();
    drive(&mut ring, |_, completion| {
        let Completion::Received { chunk, .. } = completion else { panic!("{completion:?}") };
        held.push(chunk);
        held.len() == 2
    });
    let mut nothing = Vec::new();
    // Takes in the end of the multishot.
    ring.wait(Some(Duration::from_millis(10))).unwrap();
    ring.reap(&mut nothing);
    let before = ring.stats();
    for _ in 0..5 {
        ring.wait(Some(Duration::from_millis(10))).unwrap();
        ring.reap(&mut nothing);
    }
    assert!(nothing.is_empty() && !ring.wants_enter());
    assert_eq!(ring.stats().enters, before.enters + 5, "each wait slept");
    assert_eq!(ring.stats().rearms, before.rearms, "nothing is armed without a buffer");
    let mut all: Vec<u8> = held.iter().flat_map(|chunk| ring.bytes(chunk).to_vec()).collect();
    held.drain(..).for_each(|chunk| ring.release(chunk));
    assert!(ring.wants_enter(), "the starved receive can go on");
    drive(&mut ring, |ring, completion| {
        let Completion::Received { chunk, .. } = completion else { panic!("{completion:?}") };
        all.extend_from_slice(ring.bytes(&chunk));
        ring.release(chunk);
        true
    });
    assert_eq!(all, pattern(0, 24));
}

#[test]
fn many_idle_starved_receives_do_not_keep_another_from_its_data() {
    let mut ring = ring(&RingConfig { buffers: 1, buffer_size: 8, ..small() });
    let (first, mut feeder) = adopted(&mut ring);
    feeder.write_all(b"x").unwrap();
    ring.recv(first);
    let Some(Completion::Received { chunk, .. }) = next(&mut ring).pop() else { panic!("no bytes") };
    // All of these are armed without a free buffer; only the one at the end of the queue has data.
    let mut others: Vec<(SocketId, TcpStream)> = (0..6).map(|_| adopted(&mut ring)).collect();
    others.iter().for_each(|(socket, _)| ring.recv(*socket));
    others[5].1.write_all(b"y").unwrap();
    let mut completions = turn(&mut ring);
    completions.extend(turn(&mut ring));
    assert!(completions.is_empty() && ring.stats().buffer_starvations >= 6, "{:?}", ring.stats());
    ring.release(chunk);
    let start = Instant::now();
    while completions.is_empty() {
        assert!(start.elapsed() < LIMIT, "slept though a receive with data was not armed");
        ring.wait(Some(LIMIT)).unwrap();
        ring.reap(&mut completions);
    }
    assert!(matches!(completions[..], [Completion::Received { socket, .. }] if socket == others[5].0));
}

#[test]
fn a_tiny_completion_queue_loses_nothing() {
    const LEN: usize = 32 * 1024;
    let config = RingConfig { sq_entries: 16, cq_entries: 16, buffers: 512, buffer_size: 1024 };
    let mut ring = ring(&config);
    let mut streams = Vec::new();
    let sockets: Vec<SocketId> = (0..200)
        .map(|_| {
            let (connection, theirs) = adopted(&mut ring);
            ring.recv(connection);
            streams.push(theirs);
            connection
        })
        .collect();
    let writing = std::thread::spawn(move || {
        for (seed, stream) in streams.iter_mut().enumerate() {
            stream.write_all(&pattern(seed, LEN)).unwrap();
        }
        streams
    });
    let (all, _) = collect_all(&mut ring, &sockets, LEN);
    check(&all, &sockets, LEN);
    let stats = ring.stats();
    assert!(stats.cq_overflows > 0 && stats.rearms > 0, "not provoked: {stats:?}");
    assert_eq!((stats.stale_completions, ring.free_buffers()), (0, 512));
    drop(writing.join().unwrap());
}

#[test]
fn a_tiny_submission_queue_loses_nothing() {
    let mut ring = ring(&RingConfig { sq_entries: 2, cq_entries: 4, ..small() });
    let mut connections: Vec<(SocketId, TcpStream)> = (0..50).map(|_| adopted(&mut ring)).collect();
    for (seed, (socket, theirs)) in connections.iter_mut().enumerate() {
        theirs.write_all(&pattern(seed, 100)).unwrap();
        ring.recv(*socket);
        ring.send(*socket, pattern(seed + 100, 100)).unwrap();
    }
    assert_eq!(ring.stats().enters, 0, "queueing never enters");
    let mut received = HashMap::new();
    let mut sent = 0;
    drive(&mut ring, |ring, completion| {
        match completion {
            Completion::Received { socket, chunk } => {
                assert!(received.insert(socket, ring.bytes(&chunk).to_vec()).is_none());
                ring.release(chunk);
            }
            Completion::Sent { result, .. } => {
                result.unwrap();
                sent += 1;
            }
            other => panic!("{other:?}"),
        }
        received.len() == 50 && sent == 50
    });
    for (seed, (socket, theirs)) in connections.into_iter().enumerate() {
        assert!(received[&socket] == pattern(seed, 100));
        assert!(reader(theirs, 100).join().unwrap() == pattern(seed + 100, 100));
    }
}

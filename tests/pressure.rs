//! Too much at once: peers that do not read, queues that are full, rings that are too small.

mod common;

use std::future::Future;
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use common::echo::{
    Echo, Note, Random, alone, cut, dialler, echo_blocking, echo_once, on_core, payload, refer, serve, until, within,
};
use common::memory::{Counting, Watch};
use common::raw::{self, RawPeer, hello, request};
use common::{LIMIT, bounded, config, eventually, turn};
use ringpost::net::reader::Incoming;
use ringpost::wire::frame::Frame;
use ringpost::{AskError, Config, RpcEnv, SendError};

#[global_allocator]
static MEMORY: Counting = Counting;

fn address(env: &RpcEnv) -> SocketAddr {
    env.address().unwrap().to_string().parse().unwrap()
}

/// Writes as much as the other side takes; returns how much that was once it has taken nothing for a while.
fn write_until_stuck(stream: &TcpStream, bytes: &[u8]) -> usize {
    let mut writer = stream;
    stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut written = 0;
    while written < bytes.len() {
        match writer.write(&bytes[written..]) {
            Ok(count) => written += count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) => panic!("{error}"),
        }
    }
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    written
}

#[test]
fn a_client_that_does_not_read_stops_being_served_until_it_reads() {
    const ASKS: u64 = 1000;
    const SIZE: usize = 64 << 10;
    const OUTBOX: usize = 256 << 10;
    let _alone = alone();
    bounded(|| {
        let limits = Config { outbox_bytes: OUTBOX, receive_buffers: 16, ..config() };
        let server = serve("127.0.0.1:0", limits);
        let client = dialler(config());
        let echo = refer(&client, "echo", &server);
        echo_blocking(&echo, 1, 100).unwrap();

        let mut all = hello();
        (1..=ASKS).for_each(|id| request(&mut all, id, "echo", &Echo { payload: payload(id, SIZE) }));
        let mut peer = RawPeer::connect_narrow(address(&server));
        let watch = Watch::begin();
        let written = write_until_stuck(&peer.stream, &all);
        let paused = eventually(&server, "it stops reading", |c| c.reads_paused > 0);
        assert!(written < all.len() / 2, "{written} of {} bytes were taken", all.len());
        assert!(paused.requests_in < ASKS / 2, "{} requests were handled", paused.requests_in);
        // The outbox, as much again while it grows, and what was received before reading stopped.
        let allowed = 4 * OUTBOX + 4 * (16 * (16 << 10)) + 4 * SIZE;
        assert!(watch.growth() < allowed, "the server took {} bytes, above {allowed}", watch.growth());
        for round in 0..50 {
            echo_blocking(&echo, round, 10_000).unwrap();
        }
        let held = eventually(&server, "others are served", |c| c.connections == 2);
        assert_eq!(held.requests_in, paused.requests_in + 50, "the client that does not read is not served");

        // It reads again, and writes the rest meanwhile.
        let stream = peer.stream.try_clone().unwrap();
        let writer = std::thread::spawn(move || (&stream).write_all(&all[written..]).unwrap());
        peer.next(|incoming| assert!(matches!(incoming, Incoming::Hello(_))));
        for id in 1..=ASKS {
            peer.expect_echo(id, &payload(id, SIZE));
        }
        writer.join().unwrap();
        drop(peer);
        let end = eventually(&server, "it is gone", |c| c.connections == 1);
        assert_eq!(end.free_buffers, 16);
        cut([client, server]);
    });
}

/// A server by hand that accepts one connection, and says hello or does not, and reads nothing but the hello.
fn deaf_server(greets: bool) -> (SocketAddr, mpsc::Receiver<RawPeer>) {
    let (listener, at) = raw::listener();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut peer = RawPeer::over(listener.accept().unwrap().0);
        if greets {
            peer.next(|incoming| assert!(matches!(incoming, Incoming::Hello(_))));
            peer.stream.write_all(&hello()).unwrap();
        }
        let _ = tell.send(peer);
    });
    (at, told)
}

#[test]
fn a_full_outbox_refuses_further_asks_and_keeps_those_it_took() {
    const SIZE: usize = 16 << 10;
    let _alone = alone();
    for greets in [true, false] {
        bounded(move || {
            let client = dialler(Config { outbox_bytes: 8 * SIZE, handshake_timeout: LIMIT, ..config() });
            let (at, told) = deaf_server(greets);
            let echo = client.endpoint_ref(&format!("ringpost://echo@{at}")).unwrap();
            // With a connection, or for ever without one.
            let first = echo.ask(Echo { payload: payload(1, 10) });
            eventually(&client, "the connection is begun", |c| c.pending_asks == 1 && c.dialled == u64::from(greets));
            drop(first);
            let watch = Watch::begin();
            let mut context = Context::from_waker(Waker::noop());
            let mut asks = Vec::new();
            // The kernel's buffers take some of it too, a few MiB.
            let error = loop {
                assert!(asks.len() < 4000, "at some number of asks the outbox is full");
                let mut asking = echo.ask(Echo { payload: payload(asks.len() as u64, SIZE) });
                // The core has taken the ask by then, or refused it, and sends in between.
                turn(&client);
                match Pin::new(&mut asking).poll(&mut context) {
                    Poll::Pending => asks.push(asking),
                    Poll::Ready(answer) => break answer.unwrap_err(),
                }
            };
            let taken = asks.len();
            let AskError::Overloaded { queue, remedy } = error else { panic!("{error}") };
            assert!(queue.contains(&at.to_string()) && remedy.contains("outbox_bytes"), "{queue}: {remedy}");
            assert_eq!(greets, taken > 8, "without a connection nothing leaves: {taken} asks were taken");
            assert!(watch.growth() < 40 * SIZE, "it took {} bytes", watch.growth());
            let counters = eventually(&client, "it is counted", |c| c.overloaded_outbox == 1);
            assert_eq!(counters.pending_asks, taken as u64);
            drop(told.recv_timeout(LIMIT).unwrap());
            for ask in asks {
                match within(ask) {
                    Err(AskError::Disconnected { peer, .. } | AskError::Unreachable { peer, .. }) => {
                        assert_eq!(*peer, *at.to_string());
                    }
                    other => panic!("{other:?}"),
                }
            }
            until("no slot is left", || client.snapshot().total().pending_asks == 0);
            drop(echo);
            cut([client]);
        });
    }
}

#[test]
fn one_way_messages_to_a_peer_that_does_not_read_are_refused_until_it_reads() {
    const SIZE: usize = 16 << 10;
    let _alone = alone();
    bounded(|| {
        let client = dialler(Config { outbox_bytes: 8 * SIZE, ..config() });
        let (at, told) = deaf_server(true);
        let echo = client.endpoint_ref(&format!("ringpost://echo@{at}")).unwrap();
        let watch = Watch::begin();
        let to = echo.clone();
        let (taken, refused) = on_core(&client, move || async move {
            for taken in 0..4000 {
                if let Err(refused) = to.send(Note { payload: payload(taken, SIZE) }) {
                    return (taken, refused);
                }
                // The core sends in between.
                ringpost::sleep(Duration::from_micros(1)).await.unwrap();
            }
            panic!("at some number of messages the outbox is full");
        });
        let text = refused.to_string();
        assert!(matches!(refused, SendError::Overloaded { .. }) && text.contains("Config::outbox_bytes"), "{text}");
        assert!(watch.growth() < 40 * SIZE, "it took {} bytes", watch.growth());
        eventually(&client, "it is counted", |c| (c.overloaded_outbox, c.sends_peer, c.sends_lost) == (1, taken, 0));
        // One that waits for room has it as soon as the peer reads.
        let patient = echo.patient();
        let waiting = std::thread::spawn(move || within(patient.send(Note { payload: payload(taken, SIZE) })));
        eventually(&client, "it waits", |c| c.waiting == 1);
        let mut peer = told.recv_timeout(LIMIT).unwrap();
        for number in 0..=taken {
            peer.next(|incoming| match incoming {
                Incoming::Frame(Frame::Request { payload: bytes, .. }) => {
                    let note: Note = ringpost::wire::codec::decode(bytes).unwrap();
                    assert!(note.payload == payload(number, SIZE), "message {number} has other bytes");
                }
                other => panic!("{other:?}"),
            });
        }
        waiting.join().unwrap().unwrap();
        drop(peer);
        cut([client]);
    });
}

#[test]
fn nothing_is_lost_with_two_receive_buffers_and_sixteen_completions() {
    const CONNECTIONS: usize = 24;
    const TASKS: usize = 4;
    const ASKS: usize = 12;
    const MOST_ROUNDS: usize = 20;
    let _alone = alone();
    bounded(|| {
        let tiny = Config { receive_buffers: 2, receive_buffer_bytes: 4096, completions: 16, ..config() };
        let server = serve("0.0.0.0:0", tiny.clone());
        let client = dialler(tiny);
        let port = address(&server).port();
        let uri = |i| format!("ringpost://echo@127.2.0.{}:{port}", i + 1);
        let refs: Vec<_> = (0..CONNECTIONS).map(|i| client.endpoint_ref(&uri(i)).unwrap()).collect();
        let overflowed = |env: &RpcEnv| env.snapshot().total().cq_overflows > 0;
        let mut rounds = 0;
        // As a rule one is enough.
        while rounds == 0 || (rounds < MOST_ROUNDS && !(overflowed(&server) && overflowed(&client))) {
            rounds += 1;
            let refs = refs.clone();
            on_core(&client, move || async move {
                let mut tasks = Vec::new();
                for (number, echo) in refs.into_iter().cycle().take(CONNECTIONS * TASKS).enumerate() {
                    tasks.push(ringpost::spawn(async move {
                        let mut random = Random(number as u64 + 1);
                        for ask in 0..ASKS {
                            let size = [random.below(100), random.below(5000), random.below(200_000)][random.below(3)];
                            echo_once(echo.clone(), (number * ASKS + ask) as u64, size).await.unwrap();
                        }
                    }));
                }
                for task in tasks {
                    task.await.unwrap();
                }
            });
        }
        for (env, name) in [(&server, "server"), (&client, "client")] {
            let end = eventually(env, "all is quiet", |c| c.free_buffers == 2 && c.pending_asks == 0);
            assert!(end.buffer_starvations > 0, "the {name} never ran out of buffers: the test is too easy");
            assert!(end.cq_overflows > 0, "the {name}'s completions never overflowed: the test is too easy");
            assert_eq!((end.protocol_errors, end.timeouts, end.replies_late), (0, 0, 0), "{name}");
        }
        let handled = server.snapshot().total().handled;
        assert_eq!(handled, (rounds * CONNECTIONS * TASKS * ASKS) as u64, "each ask was handled once");
        cut([client, server]);
    });
}

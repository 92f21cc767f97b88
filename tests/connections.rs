//! Connections come and go, many at once, and leave nothing behind.

mod common;

use std::future::Future;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::time::{Duration, Instant};

use common::echo::{
    Echo, Hang, Note, alone, cut, dialler, echo_blocking, echo_once, on_core, open_files, payload, refer, serve, until,
    within,
};
use common::raw::{self, RawPeer, hello};
use common::{LIMIT, bounded, config, eventually};
use ringpost::net::reader::Incoming;
use ringpost::wire::frame::Frame;
use ringpost::{AskError, Asking, Config, CoreSnapshot, EndpointRef, RpcEnv};
use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};

/// What an env holds, as opposed to what it has done.
fn held(counters: &CoreSnapshot) -> [u64; 6] {
    let CoreSnapshot { connections, pending_asks, tasks, sockets, free_buffers, timers, .. } = *counters;
    [connections, pending_asks, tasks, sockets, free_buffers, timers]
}

fn address(env: &RpcEnv) -> SocketAddr {
    env.address().unwrap().to_string().parse().unwrap()
}

/// Address number `i` of this machine, of 62,500.
fn loopback(i: usize) -> String {
    format!("127.1.{}.{}", i / 250, 1 + i % 250)
}

#[test]
fn two_thousand_connections_are_served_at_once_and_leave_nothing_behind() {
    const COUNT: usize = 2000;
    let _alone = alone();
    bounded(|| {
        // All at once is more than a starved server accepts at once, and what it misses comes again after seconds.
        let patient = Config { connect_timeout: LIMIT, handshake_timeout: LIMIT, ..config() };
        let server = serve("0.0.0.0:0", patient.clone());
        let client = dialler(patient);
        let idle = |env: &RpcEnv| held(&eventually(env, "it has started", |c| c.endpoints > 0));
        let (at_server, at_client, files) = (idle(&server), idle(&client), open_files());
        let port = address(&server).port();
        let refs: Vec<EndpointRef> = (0..COUNT)
            .map(|i| client.endpoint_ref(&format!("ringpost://echo@{}:{port}", loopback(i))).unwrap())
            .collect();
        // Twice, so that all are open while each asks again.
        for round in 0..2 {
            let all = refs.clone();
            on_core(&client, move || async move {
                let ask = |(i, echo)| ringpost::spawn(echo_once(echo, (round * COUNT + i) as u64, i));
                let asks: Vec<_> = all.into_iter().enumerate().map(ask).collect();
                for ask in asks {
                    ask.await.unwrap().unwrap();
                }
            });
            let served = eventually(&server, "all are connected", |c| c.connections == COUNT as u64);
            assert_eq!((served.accepted, served.requests_in), (COUNT as u64, (COUNT * (round + 1)) as u64));
            assert_eq!(open_files(), files + 2 * COUNT, "one descriptor at each end");
        }
        drop(refs);
        eventually(&server, "the server holds what it held", |c| held(c) == at_server);
        eventually(&client, "the client holds what it held", |c| held(c) == at_client);
        assert_eq!(open_files(), files);
        cut([client, server]);
    });
}

#[test]
fn connections_above_the_limit_are_closed_at_once_and_room_comes_back() {
    let _alone = alone();
    bounded(|| {
        let server = serve("127.0.0.1:0", Config { connections: 3, ..config() });
        let mut peers: Vec<RawPeer> = (0..3).map(|_| RawPeer::greet(address(&server))).collect();
        for refused in 1..=3 {
            let mut peer = RawPeer::connect(address(&server));
            let end = peer.stream.read(&mut [0]);
            let closed = matches!(&end, Ok(0)) || end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset);
            assert!(closed, "a connection above the limit is closed");
            eventually(&server, "it is counted", |c| c.connections_refused == refused && c.connections == 3);
        }
        peers.iter_mut().for_each(|peer| {
            peer.ask(1, &Echo { payload: payload(1, 100) });
            peer.expect_echo(1, &payload(1, 100));
        });
        drop(peers.pop());
        eventually(&server, "the closed one has left", |c| c.connections == 2);
        RawPeer::greet(address(&server));
        cut([server]);
    });
}

#[test]
fn connections_that_end_while_others_are_accepted_give_their_room_back() {
    const AT_ONCE: usize = 20;
    let _alone = alone();
    bounded(|| {
        let server = serve("127.0.0.1:0", Config { connections: 4 * AT_ONCE, ..config() });
        for _ in 0..100 {
            // The server closes each as soon as it has read that, while the next ones come in.
            let intrude = |_| {
                let peer = RawPeer::connect(address(&server));
                let _ = (&peer.stream).write_all(b"GET / HTTP/1.1");
                peer
            };
            for mut peer in (0..AT_ONCE).map(intrude).collect::<Vec<_>>() {
                peer.expect_end();
            }
        }
        let end = eventually(&server, "all have gone", |c| c.connections == 0);
        assert_eq!((end.accepted, end.connections_refused), (100 * AT_ONCE as u64, 0));
        let _peers: Vec<_> = (0..4 * AT_ONCE).map(|_| RawPeer::greet(address(&server))).collect();
        cut([server]);
    });
}

/// Asks whose futures are polled on this thread.
fn hang(hang: &EndpointRef, count: usize) -> Vec<Asking<()>> {
    (0..count).map(|_| hang.ask(Hang)).collect()
}

/// A server by hand: says hello, and reads until it has seen this many requests.
fn read_requests(peer: &mut RawPeer, count: usize) {
    peer.next(|incoming| assert!(matches!(incoming, Incoming::Hello(_))));
    peer.stream.write_all(&hello()).unwrap();
    for _ in 0..count {
        peer.next(|incoming| assert!(matches!(incoming, Incoming::Frame(Frame::Request { .. }))));
    }
}

#[test]
fn a_peer_that_closes_ends_all_asks_to_it_at_once_and_no_others() {
    const COUNT: usize = 300;
    let _alone = alone();
    bounded(|| {
        let client = dialler(Config { ask_timeout: LIMIT * 10, ..config() });
        let server = serve("127.0.0.1:0", config());
        let elsewhere = refer(&client, "hang", &server);
        let other = hang(&elsewhere, 1);
        let (listener, at) = raw::listener();
        let here = client.endpoint_ref(&format!("ringpost://hang@{at}")).unwrap();
        let asks = hang(&here, COUNT);
        let mut peer = RawPeer::over(listener.accept().unwrap().0);
        read_requests(&mut peer, COUNT);
        eventually(&client, "all wait", |c| c.pending_asks == COUNT as u64 + 1);
        drop(peer);
        let began = Instant::now();
        for ask in asks {
            match within(ask) {
                Err(AskError::Disconnected { peer, .. }) => assert_eq!(*peer, *at.to_string()),
                other => panic!("{other:?}"),
            }
        }
        assert!(began.elapsed() < LIMIT / 4, "they ended after {:?}", began.elapsed());
        eventually(&client, "their slots are free", |c| (c.pending_asks, c.connections, c.sockets) == (1, 1, 1));
        drop(other);
        cut([client, server]);
    });
}

#[test]
fn an_unreachable_peer_is_named_then_tried_again_after_a_pause_until_it_is_there() {
    const PAUSE: Duration = Duration::from_millis(400);
    let _alone = alone();
    bounded(|| {
        let client = dialler(Config { backoff_first: PAUSE, backoff_last: PAUSE, ..config() });
        // An address of its own, so that no other socket gets this port there in the meantime.
        let at = TcpListener::bind("127.77.0.1:0").unwrap().local_addr().unwrap();
        let echo = client.endpoint_ref(&format!("ringpost://echo@{at}")).unwrap();
        let refused = |result: Result<_, AskError>| match result {
            Err(AskError::Unreachable { peer, .. }) => assert_eq!(*peer, *at.to_string()),
            other => panic!("{other:?}"),
        };
        refused(echo_blocking(&echo, 1, 10));
        let began = Instant::now();
        eventually(&client, "it is counted", |c| (c.dial_failures, c.connections) == (1, 0));
        // All of these wait for the one attempt that comes after the pause.
        let asks: Vec<_> = (0..20).map(|_| echo.ask(Echo { payload: payload(1, 10) })).collect();
        for ask in asks {
            refused(within(ask).map(drop));
        }
        // The pause is drawn from the upper half of its range.
        assert!(began.elapsed() >= PAUSE / 3, "the second attempt came after {:?}", began.elapsed());
        let failures = eventually(&client, "the second attempt is counted", |c| c.dial_failures > 1).dial_failures;
        assert_eq!(failures, 2, "asks that wait share an attempt");

        let server = serve(&at.to_string(), config());
        echo_blocking(&echo, 2, 1000).unwrap();
        assert_eq!(eventually(&client, "it is connected", |c| c.connections == 1).dialled, 1);
        cut([client, server]);
    });
}

#[test]
fn an_ask_that_ends_before_the_next_attempt_to_connect_tells_why_the_last_one_failed() {
    let _alone = alone();
    bounded(|| {
        let client = dialler(Config { backoff_first: LIMIT, backoff_last: LIMIT, ..config() });
        let at = TcpListener::bind("127.77.0.2:0").unwrap().local_addr().unwrap();
        let echo = client.endpoint_ref(&format!("ringpost://echo@{at}")).unwrap();
        let refused = "Connection refused (os error 111); is the server started there?";
        let first = echo_blocking(&echo, 1, 10).unwrap_err();
        assert_eq!(first.to_string(), format!("cannot reach {at}: {refused}"));
        let waits = within(echo.ask_within(Echo { payload: payload(1, 10) }, Duration::from_millis(20))).unwrap_err();
        let told = format!("no reply from echo@{at} (the last attempt to connect failed: {refused}) within 20ms;");
        assert_eq!(waits.to_string(), format!("{told} this limit is set by the timeout given to ask_within"));
        cut([client]);
    });
}

/// A listener whose queue is full: the system no longer answers who connects. Good as long as what it returns lives.
fn swallowing() -> (Socket, Vec<TcpStream>, SocketAddr) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let at = listener.local_addr().unwrap().as_socket().unwrap();
    let connect = || TcpStream::connect_timeout(&at, Duration::from_millis(100)).ok();
    let queued: Vec<_> = std::iter::from_fn(connect).take(10).collect();
    assert!(queued.len() < 10, "the queue is never full");
    (listener, queued, at)
}

#[test]
fn a_peer_that_does_not_answer_is_given_up_after_the_connect_or_the_handshake_timeout() {
    const TIMEOUT: Duration = Duration::from_millis(300);
    let _alone = alone();
    bounded(|| {
        let swallowing = swallowing();
        let (silent, at) = raw::listener();
        let long = Config { connect_timeout: LIMIT, handshake_timeout: LIMIT, ..config() };
        for (at, setting, limits) in [
            (swallowing.2, "Config::connect_timeout", Config { connect_timeout: TIMEOUT, ..long.clone() }),
            (at, "Config::handshake_timeout", Config { handshake_timeout: TIMEOUT, ..long }),
        ] {
            let client = dialler(limits);
            let echo = client.endpoint_ref(&format!("ringpost://echo@{at}")).unwrap();
            let began = Instant::now();
            let error = echo_blocking(&echo, 1, 10).unwrap_err();
            let after = began.elapsed();
            let AskError::Unreachable { peer, cause } = error else { panic!("{error:?}") };
            assert!(*peer == *at.to_string() && cause.contains(setting), "{peer}: {cause}");
            assert!(after >= TIMEOUT && after < LIMIT / 2, "it ended after {after:?}");
            let end = eventually(&client, "its socket is closed", |c| (c.connections, c.pending_asks) == (0, 0));
            assert_eq!((end.dial_failures, end.protocol_errors, end.dialled), (1, 1, 0));
            cut([client]);
        }
        drop(silent);
    });
}

#[test]
fn a_connection_closes_when_its_last_ref_is_gone() {
    let _alone = alone();
    bounded(|| {
        let (server, client) = (serve("127.0.0.1:0", config()), dialler(config()));
        let echo = refer(&client, "echo", &server);
        echo_blocking(&echo, 1, 10).unwrap();
        let second = echo.clone();
        drop(echo);
        echo_blocking(&second, 2, 10).unwrap();
        assert_eq!(client.snapshot().total().dialled, 1, "a clone keeps the connection");
        drop(second);
        for (env, sockets) in [(&client, 0), (&server, 1)] {
            eventually(env, "the connection is closed", |c| (c.connections, c.sockets) == (0, sockets));
        }
        echo_blocking(&refer(&client, "echo", &server), 3, 10).unwrap();
        cut([client, server]);
    });
}

#[test]
fn an_ask_outlives_its_ref() {
    let _alone = alone();
    bounded(|| {
        let (server, client) = (serve("127.0.0.1:0", config()), dialler(config()));
        let uri = common::uri(&server, "echo");
        // With a name to be resolved it takes longer until there is a connection.
        for uri in [uri.clone(), uri.replace("127.0.0.1", "localhost")] {
            for round in 0..3 {
                let echo = client.endpoint_ref(&uri).unwrap();
                let asking = echo.ask(Echo { payload: payload(round, 100) });
                drop(echo);
                assert_eq!(within(asking).unwrap(), payload(round, 100), "round {round} with {uri}");
                eventually(&client, "the connection is closed", |c| c.connections == 0);
            }
        }
        cut([client, server]);
    });
}

#[test]
fn a_one_way_message_outlives_its_ref() {
    let _alone = alone();
    bounded(|| {
        let (server, client) = (serve("127.0.0.1:0", config()), dialler(config()));
        for (round, size) in (1..).zip([0, 100, 2 << 20, 100, 2 << 20]) {
            let echo = refer(&client, "echo", &server);
            // There is a connection, so the message is sent at once.
            echo_blocking(&echo, round, 10).unwrap();
            echo.send(Note { payload: payload(round, size) }).unwrap();
            drop(echo);
            eventually(&server, "the message is handled", |c| c.handled == 2 * round);
            eventually(&client, "the connection is closed", |c| c.connections == 0);
        }
        cut([client, server]);
    });
}

#[test]
fn an_ask_whose_ref_is_gone_is_not_disturbed_by_asks_to_other_peers() {
    let _alone = alone();
    bounded(|| {
        let (first, second) = (serve("127.0.0.1:0", config()), serve("127.0.0.1:0", config()));
        let client = dialler(config());
        let old = refer(&client, "hang", &first);
        let mut asking = hang(&old, 2);
        eventually(&first, "they have arrived", |c| c.requests_in == 2);
        drop(old);
        // The new peer may take the place of the forgotten one in any table.
        let echo = refer(&client, "echo", &second);
        for round in 0..5 {
            echo_blocking(&echo, round, 100).unwrap();
        }
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        for ask in &mut asking {
            let polled = Pin::new(ask).poll(&mut context);
            assert!(polled.is_pending(), "it still waits for its answer, but has {polled:?}");
        }
        drop(asking);
        eventually(&client, "the old connection is closed", |c| (c.pending_asks, c.connections) == (0, 1));
        until("the first server sees it", || first.snapshot().total().connections == 0);
        cut([client, first, second]);
    });
}

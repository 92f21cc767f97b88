//! A peer that has gone silent is noticed within `Config::keepalive`, and one that lives is left alone.

mod common;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use common::echo::{Echo, Hang, cut, dialler, echo_blocking, payload, refer, serve, within};
use common::gate::{Event, Gate, pass};
use common::raw::{RawPeer, hello, listener, request};
use common::{LIMIT, bounded, config, eventually};
use ringpost::net::reader::Incoming;
use ringpost::wire::frame::{Frame, write_ping, write_pong};
use ringpost::{AskError, CallContext, Config, Endpoint, Handle, HandlerError, Handlers, RpcEnv, message};
use serde::{Deserialize, Serialize};
use socket2::SockRef;

const PERIOD: Duration = Duration::from_millis(50);
/// Long enough for a peer that shares two busy CPUs with others to show that it lives.
const CALM: Duration = Duration::from_millis(250);

/// Finds a silent peer soon; a test that wants a peer to live gives it a [`CALM`] period.
fn impatient() -> Config {
    Config { keepalive: PERIOD, keepalive_misses: 2, ..config() }
}

fn address(env: &RpcEnv) -> std::net::SocketAddr {
    env.address().unwrap().to_string().parse().unwrap()
}

#[test]
fn a_peer_that_says_hello_and_nothing_else_is_asked_for_a_sign_of_life_and_closed() {
    bounded(|| {
        let server = serve("127.0.0.1:0", impatient());
        let greeted = Instant::now();
        let mut peer = RawPeer::greet(address(&server));
        for _ in 0..2 {
            peer.next(|incoming| assert_eq!(incoming, Incoming::Frame(Frame::Ping)));
        }
        peer.expect_end();
        let took = greeted.elapsed();
        assert!(took >= PERIOD * 3 && took < LIMIT / 4, "it was closed after {took:?}");
        let end = eventually(&server, "it is closed", |c| c.connections == 0);
        assert_eq!((end.pings_sent, end.keepalive_closed, end.protocol_errors), (2, 1, 0));
        cut([server]);
    });
}

#[test]
fn asks_to_a_peer_that_goes_silent_end_as_disconnected_by_the_name_of_the_setting() {
    bounded(|| {
        let (listener, address) = listener();
        let client = dialler(Config { ask_timeout: LIMIT * 10, ..impatient() });
        let hang = client.endpoint_ref(&format!("ringpost://hang@{address}")).unwrap();
        let ask = hang.ask(Hang);
        let mut peer = RawPeer::over(listener.accept().unwrap().0);
        assert!(peer.next(|incoming| matches!(incoming, Incoming::Hello(_))));
        peer.stream.write_all(&hello()).unwrap();
        match within(ask) {
            Err(AskError::Disconnected { peer, cause }) => {
                assert_eq!(*peer, *address.to_string());
                assert!(cause.contains("2 pings, one each 50ms") && cause.contains("Config::keepalive"), "{cause}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(eventually(&client, "it is counted", |c| c.connections == 0).keepalive_closed, 1);
        cut([client]);
    });
}

#[test]
fn a_peer_that_answers_every_ping_at_once_keeps_its_connection() {
    bounded(|| {
        let server = serve("127.0.0.1:0", Config { keepalive: CALM, ..config() });
        let mut peer = RawPeer::greet(address(&server));
        let mut pong = Vec::new();
        write_pong(&mut pong);
        for _ in 0..12 {
            peer.next(|incoming| assert_eq!(incoming, Incoming::Frame(Frame::Ping)));
            peer.stream.write_all(&pong).unwrap();
        }
        let end = eventually(&server, "it is open", |c| c.connections == 1);
        assert!(end.pings_sent >= 12 && end.keepalive_closed == 0, "{end:?}");
        cut([server]);
    });
}

#[derive(Serialize, Deserialize)]
struct Slow {
    gate: u64,
}
message!(Slow as "keepalive.Slow" => u64);

struct Gated;

impl Endpoint for Gated {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask::<Slow>();
    }
}

impl Handle<Slow> for Gated {
    async fn handle(&mut self, slow: Slow, _: &mut CallContext) -> Result<u64, HandlerError> {
        pass(slow.gate).await;
        Ok(slow.gate)
    }
}

#[test]
fn a_peer_that_only_takes_its_time_answers_pings_and_keeps_its_connection() {
    bounded(|| {
        let calm = || Config { keepalive: CALM, ..config() };
        let (server, client) = (serve("127.0.0.1:0", calm()), dialler(calm()));
        server.register("slow", || Gated).unwrap();
        let mut gate = Gate::new();
        let ask = refer(&client, "slow", &server).ask(Slow { gate: gate.id });
        gate.expect(Event::Entered);
        // Both sides ask, though nothing travels but that.
        eventually(&client, "pings", |c| c.pings_sent + server.snapshot().total().pings_sent >= 16);
        for env in [&client, &server] {
            let before = eventually(env, "a ping", |c| c.pings_sent > 0).bytes_in;
            eventually(env, "signs of life", |c| c.bytes_in > before);
        }
        gate.open();
        assert_eq!(within(ask), Ok(gate.id));
        for env in [&client, &server] {
            let end = eventually(env, "it is open", |c| c.connections == 1);
            assert_eq!((end.keepalive_closed, end.accepted + end.dialled), (0, 1));
        }
        cut([client, server]);
    });
}

/// A receive buffer that does not hold much of a large frame.
const NARROW: usize = 256 << 10;

/// Reads 2 MiB at the beginning of each of four periods, which is one more than a dead peer is given, and then the rest of
/// 12 MiB. The kernels on the way hold less than what is left by then.
fn take_time(slow: &mut RawPeer, period: Duration) {
    let (began, mut buffer) = (Instant::now(), vec![0; 2 << 20]);
    for part in 1..=6 {
        slow.stream.read_exact(&mut buffer).unwrap_or_else(|error| panic!("it was closed in part {part}: {error}"));
        while part <= 4 && began.elapsed() < period * part {
            std::thread::park_timeout((period * part).saturating_sub(began.elapsed()));
        }
    }
}

#[test]
fn a_peer_that_takes_its_time_over_a_large_request_is_not_taken_for_dead() {
    const SIZE: usize = 12 << 20;
    bounded(|| {
        let (listener, address) = listener();
        SockRef::from(&listener).set_recv_buffer_size(NARROW).unwrap();
        let client = dialler(Config { keepalive: CALM, keepalive_misses: 2, ..config() });
        let echo = client.endpoint_ref(&format!("ringpost://echo@{address}")).unwrap();
        let ask = echo.ask(Echo { payload: payload(1, SIZE) });
        let mut slow = RawPeer::over(listener.accept().unwrap().0);
        assert!(slow.next(|incoming| matches!(incoming, Incoming::Hello(_))));
        slow.stream.write_all(&hello()).unwrap();
        // It says nothing, and the pings wait behind the request.
        take_time(&mut slow, CALM);
        assert_eq!(client.snapshot().total().keepalive_closed, 0);
        drop(slow);
        assert!(matches!(within(ask), Err(AskError::Disconnected { .. })));
        cut([client]);
    });
}

/// A server with this keepalive that has stopped to read a peer, since that has not taken its answer yet.
fn unread(period: Duration, size: usize) -> (RpcEnv, RawPeer) {
    let limits = Config { outbox_bytes: 64 << 10, keepalive: period, keepalive_misses: 2, ..config() };
    let server = serve("127.0.0.1:0", limits);
    let mut slow = RawPeer::connect_with(address(&server), NARROW);
    let mut bytes = hello();
    request(&mut bytes, 1, "echo", &Echo { payload: payload(1, size) });
    slow.stream.write_all(&bytes).unwrap();
    eventually(&server, "reading stops", |c| c.reads_paused > 0);
    (server, slow)
}

#[test]
fn a_peer_that_we_do_not_read_ourselves_is_not_taken_for_dead_while_it_takes_its_answers() {
    const SIZE: usize = 12 << 20;
    bounded(|| {
        let (server, mut slow) = unread(CALM, SIZE);
        take_time(&mut slow, CALM);
        let end = server.snapshot().total();
        assert_eq!((end.keepalive_closed, end.connections), (0, 1));
        cut([server]);
    });
}

#[test]
fn a_peer_that_takes_no_answers_is_taken_for_dead_though_we_do_not_read_it() {
    bounded(|| {
        let (server, slow) = unread(CALM, 12 << 20);
        eventually(&server, "it is closed", |c| (c.keepalive_closed, c.connections) == (1, 0));
        drop(slow);
        cut([server]);
    });
}

#[test]
fn a_ping_is_answered_and_a_flood_of_pings_by_few_pongs() {
    const PINGS: usize = 20_000;
    bounded(|| {
        let server = serve("127.0.0.1:0", config());
        let mut peer = RawPeer::greet(address(&server));
        let mut ping = Vec::new();
        write_ping(&mut ping);
        peer.stream.write_all(&ping).unwrap();
        peer.next(|incoming| assert_eq!(incoming, Incoming::Frame(Frame::Pong)));
        let before = eventually(&server, "it is counted", |_| true).bytes_out;
        peer.stream.write_all(&ping.repeat(PINGS)).unwrap();
        peer.ask(1, &Echo { payload: payload(1, 10) });
        let is_pong = |incoming: Incoming<'_>| incoming == Incoming::Frame(Frame::Pong);
        while peer.next(is_pong) {}
        let sent = eventually(&server, "they are counted", |_| true).bytes_out - before;
        assert!(sent < (PINGS * ping.len() / 10) as u64, "{sent} bytes for {PINGS} pings");
        cut([server]);
    });
}

#[test]
fn without_a_keepalive_a_silent_peer_stays() {
    bounded(|| {
        let lenient = serve("127.0.0.1:0", Config { keepalive: Duration::ZERO, ..impatient() });
        let strict = serve("127.0.0.1:0", impatient());
        let (mut kept, mut closed) = (RawPeer::greet(address(&lenient)), RawPeer::greet(address(&strict)));
        (0..2).for_each(|_| closed.next(|incoming| assert_eq!(incoming, Incoming::Frame(Frame::Ping))));
        closed.expect_end();
        kept.ask(1, &Echo { payload: payload(1, 10) });
        kept.expect_echo(1, &payload(1, 10));
        assert_eq!(eventually(&lenient, "it is counted", |_| true).pings_sent, 0);
        let client = dialler(Config { keepalive_misses: 1, ..config() });
        echo_blocking(&refer(&client, "echo", &lenient), 1, 10).unwrap();
        cut([client, lenient, strict]);
    });
}

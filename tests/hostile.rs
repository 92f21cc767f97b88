//! Whatever comes to the port, or from a server, that is not what it should be: the connection ends cleanly, one
//! line of log says why, and nobody else notices.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::echo::{Echo, Hang, Random, alone, cut, dialler, echo_blocking, payload, refer, serve, until, within};
use common::memory::{Counting, Watch};
use common::raw::{self, RawPeer, hello, request};
use common::{LIMIT, bounded, config, eventually, log};
use ringpost::net::reader::Incoming;
use ringpost::wire::frame::{EndpointId, Frame};
use ringpost::wire::handshake::VERSION;
use ringpost::{AskError, Config, RpcEnv};
use tracing::Level;

#[global_allocator]
static MEMORY: Counting = Counting;

/// Asks all the time over a connection of its own, to find out whether others suffer.
struct Bystander {
    env: RpcEnv,
    rounds: Arc<AtomicU64>,
    done: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Bystander {
    fn begin(server: &RpcEnv) -> Bystander {
        let env = dialler(config());
        let echo = refer(&env, "echo", server);
        let (rounds, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end) = (rounds.clone(), done.clone());
        let thread = std::thread::spawn(move || {
            while !end.load(Relaxed) {
                let round = count.load(Relaxed);
                echo_blocking(&echo, round, (round % 500) as usize).unwrap();
                count.fetch_add(1, Relaxed);
            }
        });
        let bystander = Bystander { env, rounds, done, thread };
        bystander.goes_on();
        bystander
    }

    fn goes_on(&self) {
        let before = self.rounds.load(Relaxed);
        until("others are served", || self.rounds.load(Relaxed) > before + 2 || self.thread.is_finished());
        assert!(!self.thread.is_finished(), "an ask over another connection failed");
    }

    fn end(self) {
        self.done.store(true, Relaxed);
        self.thread.join().unwrap();
        let counters = self.env.snapshot().total();
        assert_eq!((counters.dialled, counters.timeouts), (1, 0), "its connection was never interrupted");
        cut([self.env]);
    }
}

fn address(server: &RpcEnv) -> SocketAddr {
    server.address().unwrap().to_string().parse().unwrap()
}

/// Reads until the env closes the connection; the bytes that came before, and whether it was closed rather than reset.
fn read_to_end(peer: &mut RawPeer) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    match peer.stream.read_to_end(&mut bytes) {
        Ok(_) => (bytes, true),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => (bytes, false),
        Err(error) => panic!("the connection was not closed: {error}"),
    }
}

fn with_hello(frame: &[u8]) -> Vec<u8> {
    [&hello(), frame].concat()
}

/// A hello of a node that speaks versions 2 and 3.
fn of_the_future() -> Vec<u8> {
    let mut bytes = hello();
    bytes[10..14].copy_from_slice(&[2, 0, 3, 0]);
    bytes
}

/// A frame header that claims this length, and some bytes of the frame.
fn claiming(length: u32) -> Vec<u8> {
    let mut frame = Vec::new();
    request(&mut frame, 1, "echo", &Echo { payload: payload(1, 100) });
    frame[..4].copy_from_slice(&length.to_le_bytes());
    frame
}

#[test]
fn bad_bytes_are_turned_away_with_one_warning_and_nobody_else_notices() {
    const MAX_FRAME: u32 = 16 << 20;
    let mut long_name = hello();
    long_name[32..34].copy_from_slice(&4000u16.to_le_bytes());
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("random bytes", payload(99, 64).to_vec(), "does not speak ringpost"),
        ("one wrong byte", b"rngposX".to_vec(), "does not speak ringpost"),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), "HTTP"),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), "HTTP"),
        ("a TLS hello", [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &payload(7, 32)].concat(), "TLS"),
        ("a hello whose name leaves it", long_name, "malformed hello"),
        ("a hello of another version", of_the_future(), "version"),
        ("a frame of 4 GiB", with_hello(&claiming(u32::MAX)), "limit"),
        ("a frame of 3 GiB", with_hello(&claiming(3 << 30)), "limit"),
        ("a frame one byte too long", with_hello(&claiming(MAX_FRAME + 1)), "limit"),
        ("a frame of length 0", with_hello(&claiming(0)), "shorter than its header"),
        ("a frame of length 15", with_hello(&claiming(15)), "shorter than its header"),
        (
            "an unknown frame kind",
            with_hello(&[16, 0, 0, 0, 99, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]),
            "unknown frame kind",
        ),
        ("an unknown flag", with_hello(&[16, 0, 0, 0, 3, 64, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]), "unknown frame flags"),
    ];
    let _alone = alone();
    bounded(move || {
        log::keep();
        // Far above what is allowed below: these are not closed by a timer.
        let server = serve("127.0.0.1:0", Config { handshake_timeout: LIMIT * 2, ..config() });
        let bystander = Bystander::begin(&server);
        for (number, (case, bytes, cause)) in (1..).zip(cases) {
            log::take();
            let watch = Watch::begin();
            let mut peer = RawPeer::connect(address(&server));
            let from = peer.address().to_string();
            let began = Instant::now();
            peer.stream.write_all(&bytes).unwrap();
            let (answer, closed) = read_to_end(&mut peer);
            assert!(closed, "{case}: the connection is closed, not reset");
            assert!(began.elapsed() < LIMIT / 2, "{case}: it took {:?}", began.elapsed());
            let greeted = bytes.starts_with(&hello()) || bytes == of_the_future();
            assert!(answer.is_empty() || greeted, "{case}: only a hello is answered");
            assert!(watch.largest() < 256 << 10, "{case}: {} bytes were allocated at once", watch.largest());
            let counters = eventually(&server, case, |c| c.protocol_errors == number && c.connections == 1);
            assert_eq!(counters.sockets, 2, "{case}: the listener and the bystander are left");
            bystander.goes_on();
            let lines = log::take();
            let [(Level::WARN, line)] = &lines[..] else { panic!("{case}: one warning is due, not {lines:?}") };
            assert!(
                line.contains(&from) && line.contains(cause),
                "{case}: {line:?} names neither {from} nor {cause:?}"
            );
        }
        bystander.end();
        cut([server]);
    });
}

#[test]
fn silence_ends_with_the_handshake_timeout_and_one_warning() {
    const TIMEOUT: Duration = Duration::from_millis(300);
    let half = hello()[..20].to_vec();
    let _alone = alone();
    bounded(move || {
        log::keep();
        let server = serve("127.0.0.1:0", Config { handshake_timeout: TIMEOUT, ..config() });
        let bystander = Bystander::begin(&server);
        for (number, (case, bytes)) in
            (1..).zip([("no word", vec![]), ("half a hello", half), ("a letter", b"r".to_vec())])
        {
            log::take();
            let mut peer = RawPeer::connect(address(&server));
            let (from, began) = (peer.address().to_string(), Instant::now());
            peer.stream.write_all(&bytes).unwrap();
            let (answer, closed) = read_to_end(&mut peer);
            let after = began.elapsed();
            assert!(closed && answer.is_empty(), "{case}: {answer:?}");
            assert!(
                after >= TIMEOUT - Duration::from_millis(50) && after < LIMIT / 2,
                "{case}: closed after {after:?}"
            );
            eventually(&server, case, |c| c.protocol_errors == number && c.connections == 1);
            bystander.goes_on();
            let lines = log::take();
            let [(Level::WARN, line)] = &lines[..] else { panic!("{case}: one warning is due, not {lines:?}") };
            assert!(line.contains(&from) && line.contains("handshake_timeout"), "{case}: {line}");
        }
        // Who has said hello may be silent for as long as it likes.
        let mut peer = RawPeer::greet(address(&server));
        peer.stream.set_read_timeout(Some(TIMEOUT * 2)).unwrap();
        let kind = peer.stream.read(&mut [0]).unwrap_err().kind();
        assert_eq!(kind, ErrorKind::WouldBlock, "nothing comes, and the connection stays");
        peer.ask(1, &Echo { payload: payload(1, 10) });
        peer.stream.set_read_timeout(Some(LIMIT)).unwrap();
        peer.expect_echo(1, &payload(1, 10));
        bystander.end();
        cut([server]);
    });
}

#[test]
fn a_client_that_dribbles_single_bytes_is_served() {
    let _alone = alone();
    bounded(|| {
        let server = serve("127.0.0.1:0", config());
        log::keep();
        let mut bytes = hello();
        for id in 1..=3 {
            request(&mut bytes, id, "echo", &Echo { payload: payload(id, 40) });
        }
        let mut peer = RawPeer::connect(address(&server));
        // A byte leaves only when the env has read the one before, so that none are received together.
        for (byte, received) in bytes.iter().zip(0u64..) {
            eventually(&server, "the byte before was read", |c| c.bytes_in == received);
            peer.stream.write_all(&[*byte]).unwrap();
        }
        peer.next(|incoming| assert!(matches!(incoming, Incoming::Hello(_))));
        (1..=3).for_each(|id| peer.expect_echo(id, &payload(id, 40)));
        assert_eq!(log::count(), 0);
        cut([server]);
    });
}

#[test]
fn bytes_behind_a_bad_frame_take_no_buffer_along() {
    let _alone = alone();
    bounded(|| {
        let server = serve("127.0.0.1:0", Config { receive_buffers: 8, ..config() });
        log::keep();
        let start = eventually(&server, "it has started", |c| c.endpoints > 0);
        assert_eq!(start.free_buffers, 8);
        let flood = [with_hello(&claiming(0)), payload(1, 512 << 10).to_vec()].concat();
        for number in 1..=50 {
            let mut peer = RawPeer::connect(address(&server));
            // The env may close while this is on its way.
            let _ = peer.stream.write_all(&flood);
            drop(peer);
            eventually(&server, "it is closed", |c| (c.protocol_errors, c.connections) == (number, 0));
            assert_eq!(log::take().len(), 1, "whatever follows is not worth another line");
        }
        eventually(&server, "all buffers are back", |c| (c.free_buffers, c.sockets) == (8, 1));
        cut([server]);
    });
}

#[test]
fn a_flood_of_bad_connections_is_told_in_few_lines_and_counted() {
    const BAD: u64 = 1000;
    let _alone = alone();
    bounded(|| {
        let server = serve("127.0.0.1:0", config());
        eventually(&server, "it has started", |c| c.endpoints > 0);
        log::keep();
        let began = Instant::now();
        for _ in 0..BAD {
            let mut peer = RawPeer::connect(address(&server));
            peer.stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            read_to_end(&mut peer);
        }
        eventually(&server, "all are counted", |c| (c.protocol_errors, c.connections) == (BAD, 0));
        // A core begins a second when it warns, so a core may begin one more than have passed.
        let most = 64 * server.core_count() * (1 + began.elapsed().as_secs() as usize);
        let told = log::count();
        assert!((1..=most).contains(&told), "{told} lines, and {most} at most");
        cut([server]);
    });
}

/// The id of the endpoint `echo`.
fn echo_id(server: &RpcEnv) -> EndpointId {
    let mut peer = RawPeer::greet(address(server));
    peer.ask(1, &Echo { payload: payload(1, 10) });
    peer.next(|incoming| match incoming {
        Incoming::Frame(Frame::Reply { resolved: Some(resolved), .. }) => resolved.endpoint,
        other => panic!("{other:?}"),
    })
}

/// A stream of a well-behaved client, in which each kind of frame occurs. `echo_id` is that of an endpoint that exists.
fn valid_stream(random: &mut Random, echo_id: EndpointId) -> Vec<u8> {
    use ringpost::wire::failure::{Failure, FailureCode};
    use ringpost::wire::frame::{Draft, RequestHead, Resolved, Route, Target, write_cancel, write_failure};
    let mut out = hello();
    for id in 1..=1 + random.below(5) as u64 {
        let echo = Echo { payload: payload(id, random.below(300)) };
        match random.below(7) {
            0 => request(&mut out, id, "hang", &Hang),
            1 => request(&mut out, 0, "echo", &echo),
            2 => write_cancel(&mut out, id, Target::Name("hang"), Route::Here),
            3 => write_failure(&mut out, id, None, &Failure::new(FailureCode::NoEndpoint, "text")),
            4 => {
                let resolved = Resolved { endpoint: EndpointId::new(1, 0), core: Some(0) };
                let mut draft = Draft::reply(&mut out, id, Some(resolved));
                draft.payload().extend_from_slice(&echo.payload);
                draft.finish(u32::MAX).unwrap();
            }
            5 => {
                let head = RequestHead {
                    request: id,
                    target: Target::Id([echo_id, EndpointId::new(1, 0)][random.below(2)]),
                    route: [Route::Core(0), Route::Core(7), Route::Key(9)][random.below(3)],
                    message: <Echo as ringpost::Message>::ID,
                    deadline_us: Some(random.below(1 << 20) as u32),
                };
                let mut draft = Draft::request(&mut out, &head);
                draft.payload().extend_from_slice(&echo.payload);
                draft.finish(u32::MAX).unwrap();
            }
            _ => request(&mut out, id, "echo", &echo),
        }
    }
    out
}

fn mutate(stream: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..random.below(4) {
        let at = random.below(stream.len());
        match random.below(7) {
            0 => stream[at] ^= 1 << random.below(8),
            1 => stream[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            2 => stream.truncate(at.max(1)),
            3 => {
                let count = random.below(40);
                let bytes = random.bytes(count);
                stream.splice(at..at, bytes);
            }
            4 => drop(stream.drain(at..(at + random.below(40)).min(stream.len() - 1).max(at))),
            5 => stream.extend_from_within(at..),
            _ => {
                // Frames begin behind the hello: a length that is somewhat wrong.
                let start = hello().len();
                if let Some(length) = stream.get_mut(start..start + 4) {
                    length.copy_from_slice(&(random.below(600) as u32).to_le_bytes());
                }
            }
        }
    }
}

#[test]
fn mutated_streams_of_clients_never_harm_an_env() {
    let _alone = alone();
    bounded(|| {
        let server = serve("127.0.0.1:0", config());
        let echo_id = echo_id(&server);
        let bystander = Bystander::begin(&server);
        log::keep();
        let start = eventually(&server, "the start", |c| c.connections == 1);
        let mut random = Random(0x5eed);
        let watch = Watch::begin();
        for round in 0..1500 {
            let mut stream = valid_stream(&mut random, echo_id);
            mutate(&mut stream, &mut random);
            let mut peer = RawPeer::connect(address(&server));
            for piece in stream.chunks(1 + random.below(stream.len())) {
                if peer.stream.write_all(piece).is_err() {
                    // It was closed already.
                    break;
                }
            }
            let _ = peer.stream.shutdown(Shutdown::Write);
            read_to_end(&mut peer);
            if round % 100 == 0 {
                bystander.goes_on();
            }
        }
        let end = eventually(&server, "all are closed", |c| c.connections == start.connections);
        assert_eq!((end.sockets, end.free_buffers, end.tasks), (start.sockets, start.free_buffers, start.tasks));
        assert!(end.protocol_errors > 100, "the mutations do break streams: {}", end.protocol_errors);
        // Mutated lengths stay below the limit, or are refused.
        assert!(watch.largest() <= 16 << 20);
        let known = ["closed a connection", "could not be decoded", "nobody handles a message"];
        let expected = |line: &str| known.iter().any(|known| line.contains(known));
        let lines = log::take();
        let other = lines.iter().find(|(level, line)| *level == Level::ERROR || !expected(line));
        assert!(other.is_none(), "{other:?}");
        bystander.end();
        cut([server]);
    });
}

/// A server that accepts one connection at a time, reads its hello and some of its ask, answers with these bytes, and
/// waits until the client closes.
fn answer_with(listener: TcpListener, answers: Vec<Vec<u8>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for answer in answers {
            let mut peer = RawPeer::over(listener.accept().unwrap().0);
            peer.next(|incoming| assert!(matches!(incoming, Incoming::Hello(_))));
            // The client may close while this is on its way.
            let _ = peer.stream.write_all(&answer);
            let _ = peer.stream.shutdown(Shutdown::Write);
            read_to_end(&mut peer);
        }
    })
}

#[test]
fn a_hostile_server_costs_the_ask_and_nothing_else() {
    let mut random = Random(0xbad);
    let mut answers = vec![
        payload(5, 100).to_vec(),
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        with_hello(&claiming(u32::MAX)),
        with_hello(&claiming(0)),
        hello()[..30].to_vec(),
        Vec::new(),
    ];
    answers.extend((0..300).map(|_| {
        let mut stream = valid_stream(&mut random, EndpointId::new(1, 0));
        mutate(&mut stream, &mut random);
        stream
    }));
    let _alone = alone();
    bounded(move || {
        log::keep();
        let pauses = Duration::from_millis(1);
        let env = dialler(Config { backoff_first: pauses, backoff_last: pauses, ..config() });
        let server = serve("127.0.0.1:0", config());
        let good = refer(&env, "echo", &server);
        let (listener, at) = raw::listener();
        let bad = env.endpoint_ref(&format!("ringpost://echo@{at}")).unwrap();
        let rounds = answers.len() as u64;
        let thread = answer_with(listener, answers);
        let watch = Watch::begin();
        for round in 1..=rounds {
            match bad.ask_blocking(Echo { payload: payload(round, 100) }) {
                Err(AskError::Disconnected { peer, .. } | AskError::Unreachable { peer, .. }) => {
                    assert_eq!(*peer, *at.to_string());
                }
                Err(error @ (AskError::Timeout { .. } | AskError::Overloaded { .. })) => {
                    panic!("round {round}: {error}")
                }
                // It may happen to be a well-formed answer to this very ask.
                Err(_) | Ok(_) => {}
            }
            echo_blocking(&good, round, 100).unwrap();
            eventually(&env, "the bad connection is closed", |c| c.connections == 1 && c.pending_asks == 0);
        }
        thread.join().unwrap();
        assert!(watch.largest() <= 16 << 20);
        assert_eq!(env.snapshot().total().timeouts, 0, "each ask ended when its connection did");
        assert!(log::take().iter().all(|(level, line)| *level != Level::ERROR && !line.contains("panic")));
        cut([env, server]);
    });
}

#[test]
fn nodes_without_a_version_in_common_tell_each_other_what_they_speak() {
    let _alone = alone();
    bounded(|| {
        let server = serve("127.0.0.1:0", config());
        let mut dialler = RawPeer::connect(server.address().unwrap().to_string().parse().unwrap());
        // Frames may follow at once; they are not looked at.
        dialler.stream.write_all(&[of_the_future(), vec![0xff; 1000]].concat()).unwrap();
        dialler.next(|incoming| match incoming {
            Incoming::Hello(hello) => assert_eq!((hello.versions, &*hello.name), ((VERSION, VERSION), "server")),
            other => panic!("{other:?}"),
        });
        dialler.expect_end();
        let end = eventually(&server, "it is closed", |c| c.connections == 0);
        assert_eq!(end.protocol_errors, 1);

        let (listener, address) = raw::listener();
        let client = self::dialler(config());
        let ask = client.endpoint_ref(&format!("ringpost://hang@{address}")).unwrap().ask(Hang);
        let mut acceptor = RawPeer::over(listener.accept().unwrap().0);
        assert!(acceptor.next(|incoming| matches!(incoming, Incoming::Hello(_))));
        acceptor.stream.write_all(&of_the_future()).unwrap();
        match within(ask) {
            Err(AskError::Unreachable { cause, .. }) => {
                assert!(cause.contains("versions 2 to 3, this node speaks 1"), "{cause}");
            }
            other => panic!("{other:?}"),
        }
        cut([client, server]);
    });
}

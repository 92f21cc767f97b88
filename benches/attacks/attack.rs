//! The attacks. Each works for a bounded time and tells what it saw.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::frames::{ASK, CANCEL, ONE_WAY, hello, reference, to_id, to_name, varint};
use crate::peer::{Peer, Tally, greet};

/// Something hostile.
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    run: fn(&Target) -> Outcome,
    /// What the good client finds afterwards.
    pub(crate) then: Option<fn(&Client) -> Option<String>>,
}

type Outcome = io::Result<String>;

const fn attack(name: &'static str, run: fn(&Target) -> Outcome) -> Attack {
    Attack { name, run, then: None }
}

pub(crate) const ATTACKS: [Attack; 13] = [
    // Messages that are larger decoded than encoded.
    attack("depth", |target| repeat(target, 4, || ask("plain", "attacks.Tree", &deep(43_900)))),
    attack("width", |target| repeat(target, 1, || ask("plain", "attacks.Blocks", &wide(8 << 20)))),
    attack("units", |target| repeat(target, 64, || ask("plain", "attacks.Units", &varint(1 << 63)))),
    // A message that its sender claims to need no answer, for a handler that never returns.
    Attack { name: "hold", run: hold, then: Some(is_held) },
    // Refs that make the server resolve and dial.
    attack("names", names),
    attack("dial", dial),
    // Work that grows with what others have waiting.
    attack("cancels", cancels),
    attack("disconnects", disconnects),
    // Guesses.
    attack("ids", ids),
    // Plain floods.
    attack("asks", |target| repeat(target, 256, || ask("plain", "attacks.Echo", &[1, 7]))),
    attack("unknown", |target| repeat(target, 256, || one_way("plain", "attacks.Unknown", &[]))),
    attack("hellos", hellos),
    attack("silent", silent),
];

/// Where to, and for how long.
pub(crate) struct Target<'a> {
    server: &'a str,
    span: Duration,
}

impl Target<'_> {
    /// Tells that all is prepared. Returns the end of the attack.
    fn ready(&self) -> Instant {
        println!("ready");
        Instant::now() + self.span
    }
}

pub(crate) fn run(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let [name, server, span] = arguments else { return Err("which attack, at which server, for how long?".into()) };
    let attack = ATTACKS.iter().find(|attack| attack.name == name).ok_or("there is no such attack")?;
    let target = Target { server, span: Duration::from_millis(span.parse()?) };
    match (attack.run)(&target) {
        Ok(saw) => println!("{saw}"),
        Err(error) => println!("ready\nit ended early: {error}"),
    }
    Ok(())
}

fn ask(endpoint: &str, message: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    to_name(&mut out, ASK, 1, endpoint, message, payload);
    out
}

fn one_way(endpoint: &str, message: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    to_name(&mut out, ONE_WAY, 0, endpoint, message, payload);
    out
}

/// A tree of one branch.
fn deep(depth: usize) -> Vec<u8> {
    let mut out = vec![1; depth];
    out.push(0);
    out
}

/// So many times nothing, in a vector of large options.
fn wide(count: usize) -> Vec<u8> {
    let mut out = varint(count as u64);
    out.resize(out.len() + count, 0);
    out
}

/// Sends the same frame over and over, `batch` at a time, over a connection that is made again when the server closes it.
fn repeat(target: &Target, batch: usize, frame: impl Fn() -> Vec<u8>) -> Outcome {
    let frames = frame().repeat(batch);
    let mut peer = Peer::greet(target.server, 1)?;
    let end = target.ready();
    let (mut sent, mut closed) = (0, 0);
    while Instant::now() < end {
        if peer.send(&frames).is_err() {
            closed += 1;
            peer = Peer::greet(target.server, 1)?;
        }
        sent += batch;
        // The point is what one frame costs, not to fill the connection.
        if frames.len() > 16 << 10 {
            thread::sleep(Duration::from_millis(5));
        }
    }
    Ok(format!("{sent} sent: {}, closed {closed} times", peer.end()))
}

fn hold(target: &Target) -> Outcome {
    let end = target.ready();
    let mut sent = 0;
    while Instant::now() < end {
        let mut peer = Peer::greet(target.server, 1)?;
        // It may be closed for that.
        let _ = peer.send(&one_way("slow", "attacks.Wait", &[]));
        sent += 1;
        peer.end();
    }
    Ok(format!("{sent} sent"))
}

fn is_held(client: &Client) -> Option<String> {
    Some(if client.finds_slow_free() { "the endpoint is free" } else { "THE ENDPOINT IS HELD" }.to_owned())
}

/// 3,000 refs to host names that nobody has.
fn names(target: &Target) -> Outcome {
    let mut peer = Peer::greet(target.server, 1)?;
    let end = target.ready();
    for number in 0..3000_u64 {
        let mut payload = reference(&format!("ringpost://knock@host-{number}.invalid:1"));
        payload.extend(varint(1));
        let mut frame = Vec::new();
        to_name(&mut frame, ASK, number + 1, "guide", "attacks.Follow", &payload);
        peer.send(&frame)?;
    }
    thread::sleep(end.saturating_duration_since(Instant::now()));
    Ok(format!("3000 sent: {}", peer.end()))
}

/// Refs to 2,000 addresses of ours, ten asks to each, and all connections ended at once.
fn dial(target: &Target) -> Outcome {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let port = listener.local_addr()?.port();
    listener.set_nonblocking(true)?;
    let mut peer = Peer::greet(target.server, 1)?;
    let end = target.ready();
    for number in 0..2000_u64 {
        let host = Ipv4Addr::new(127, 1, (number >> 8) as u8, number as u8);
        let mut payload = reference(&format!("ringpost://knock@{host}:{port}"));
        payload.extend(varint(10));
        let mut frame = Vec::new();
        to_name(&mut frame, ASK, number + 1, "guide", "attacks.Follow", &payload);
        peer.send(&frame)?;
    }
    let mut accepted: Vec<TcpStream> = Vec::new();
    let half = end - target.span / 2;
    while Instant::now() < half {
        match listener.accept() {
            Ok((mut stream, _)) => {
                stream.set_nonblocking(false)?;
                // The dialler may have given up.
                let _ = stream.write_all(&hello(2));
                accepted.push(stream);
            }
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
    let dialled = accepted.len();
    drop(accepted);
    thread::sleep(end.saturating_duration_since(Instant::now()));
    Ok(format!("{dialled} dialled: {}", peer.end()))
}

/// Cancels asks that nobody has made, while as many as fit wait in the same inbox.
fn cancels(target: &Target) -> Outcome {
    let mut waiting = Peer::greet(target.server, 1)?;
    let mut frames = Vec::new();
    for request in 0..5000 {
        to_name(&mut frames, ASK, request + 1, "slow", "attacks.Wait", &[]);
    }
    waiting.send(&frames)?;
    let mut frames = Vec::new();
    for request in 0..256 {
        to_name(&mut frames, CANCEL, request + 1_000_000, "slow", "attacks.Wait", &[]);
    }
    let mut peer = Peer::greet(target.server, 2)?;
    let end = target.ready();
    let mut sent = 0;
    while Instant::now() < end {
        peer.send(&frames)?;
        sent += 256;
    }
    peer.end();
    Ok(format!("{sent} sent; {}", waiting.end()))
}

/// Many connections with asks whose answers are deferred, which end all at once; again and again.
fn disconnects(target: &Target) -> Outcome {
    let mut frames = Vec::new();
    for request in 0..25 {
        to_name(&mut frames, ASK, request + 1, "later", "attacks.Later", &[]);
    }
    let round = || -> io::Result<Vec<TcpStream>> {
        let open = |incarnation| {
            let (mut stream, _) = greet(target.server, incarnation)?;
            stream.write_all(&frames)?;
            Ok(stream)
        };
        (0..500).map(open).collect()
    };
    let mut streams = round()?;
    let end = target.ready();
    let mut ended = 0;
    while Instant::now() < end {
        ended += streams.len();
        drop(std::mem::take(&mut streams));
        streams = round()?;
    }
    Ok(format!("{ended} ended with 25 asks each"))
}

/// Guesses ids of endpoints.
fn ids(target: &Target) -> Outcome {
    let mut peer = Peer::greet(target.server, 1)?;
    let end = target.ready();
    // SplitMix64 (Steele, Lea, Flood 2014) from a fixed seed.
    let mut state = 42_u64;
    let mut random = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 32
    };
    let mut tally = Tally::default();
    let mut sent = 0;
    while Instant::now() < end && sent < 1_000_000 {
        let mut frames = Vec::new();
        for _ in 0..256 {
            sent += 1;
            // Low ids first: those a counter would give. Then those of low slots.
            let guess = if sent <= 20_000 { sent } else { (random() << 20) | (sent % 8) };
            to_id(&mut frames, sent, guess, "attacks.Echo", &[0]);
        }
        if peer.send(&frames).is_err() {
            let closed = std::mem::replace(&mut peer, Peer::greet(target.server, 1)?);
            tally = closed.end();
        }
    }
    Ok(format!("{sent} ids guessed: {} hits", tally.hits() + peer.end().hits()))
}

/// Connects, says hello and leaves.
fn hellos(target: &Target) -> Outcome {
    let end = target.ready();
    let mut count = 0_u64;
    while Instant::now() < end {
        greet(target.server, count)?;
        count += 1;
    }
    Ok(format!("{count} came and went"))
}

/// 2,000 connections that say nothing.
fn silent(target: &Target) -> Outcome {
    let streams = (0..2000).map(|_| TcpStream::connect(target.server)).collect::<io::Result<Vec<_>>>()?;
    let end = target.ready();
    thread::sleep(end.saturating_duration_since(Instant::now()));
    let is_closed = |mut stream: &TcpStream| {
        let read = stream.set_nonblocking(true).and_then(|()| stream.read(&mut [0]));
        !matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    };
    let closed = streams.iter().filter(|stream| is_closed(stream)).count();
    Ok(format!("{closed} of {} closed", streams.len()))
}

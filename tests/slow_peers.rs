//! Peers that do not take what they are owed are closed; those that do are not, however much it is.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::echo::{alone, cut, dialler, payload, until, within};
use common::gate::{Event, Gate, pass};
use common::memory::{Counting, Watch};
use common::raw::{self, RawPeer, hello, request};
use common::{LIMIT, bounded, builder, config, eventually, seen_from};
use ringpost::net::reader::Incoming;
use ringpost::{
    AskError, CallContext, Config, Endpoint, EndpointRef, Handle, HandleSync, HandlerError, Handlers, RpcEnv, message,
};
use serde::{Deserialize, Serialize};

#[global_allocator]
static MEMORY: Counting = Counting;

/// Waits at a gate.
#[derive(Serialize, Deserialize)]
struct Wait(u64);
message!(Wait as "slow_peers.Wait" => ());

/// Answered with this many bytes.
#[derive(Serialize, Deserialize)]
struct Fetch(usize);
message!(Fetch as "slow_peers.Fetch" => Bytes);

struct Store;

impl Endpoint for Store {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask::<Wait>().ask_sync::<Fetch>();
    }
}

impl Handle<Wait> for Store {
    async fn handle(&mut self, wait: Wait, _: &mut CallContext) -> Result<(), HandlerError> {
        pass(wait.0).await;
        Ok(())
    }
}

impl HandleSync<Fetch> for Store {
    fn handle(&mut self, fetch: Fetch, _: &mut CallContext) -> Result<Bytes, HandlerError> {
        Ok(payload(fetch.0 as u64, fetch.0))
    }
}

/// What a server owes in [`owing_all_but_one`], in bytes and less the frames around it.
const OWED: usize = 24 << 20;

/// A server whose answers, but the last, wait for a peer that has read none of them, and the gate before the last one.
fn owing_all_but_one() -> (RpcEnv, RawPeer, Gate) {
    const SIZE: usize = 1 << 20;
    let asks = (OWED / SIZE) as u64;
    let limits = Config { outbox_bytes: 64 << 10, max_frame: 2 * SIZE as u32, ..config() };
    let server = builder("server", 1, limits).bind("127.0.0.1:0").start().unwrap();
    server.register("store", || Store).unwrap();
    let (mut first, last) = (Gate::new(), Gate::new());
    let mut peer = RawPeer::connect_narrow(server.address().unwrap().to_string().parse().unwrap());
    let mut bytes = hello();
    request(&mut bytes, 1, "store", &Wait(first.id));
    (0..asks).for_each(|ask| request(&mut bytes, 2 + ask, "store", &Fetch(SIZE)));
    request(&mut bytes, 2 + asks, "store", &Wait(last.id));
    peer.stream.write_all(&bytes).unwrap();
    first.expect(Event::Entered);
    eventually(&server, "all have been read", |c| c.inbox_messages == asks + 1);
    first.open();
    // From now on the peer has a second to take some of what was given to the socket.
    last.expect(Event::Entered);
    (server, peer, last)
}

#[test]
fn a_peer_that_takes_none_of_many_answers_is_closed_after_a_second() {
    let _alone = alone();
    bounded(|| {
        let (server, _peer, mut last) = owing_all_but_one();
        let began = Instant::now();
        until("its time is over", || began.elapsed() > Duration::from_millis(1200));
        assert_eq!(eventually(&server, "it is still there", |c| c.connections == 1).slow_peers_closed, 0);
        last.open();
        eventually(&server, "it is closed", |c| (c.slow_peers_closed, c.connections) == (1, 0));
        cut([server]);
    });
}

#[test]
fn small_requests_that_come_in_one_piece_are_handled_only_while_their_answers_have_room() {
    const ASKS: u64 = 200;
    const SIZE: usize = 64 << 10;
    const OUTBOX: usize = 256 << 10;
    let _alone = alone();
    bounded(|| {
        let server =
            builder("server", 1, Config { outbox_bytes: OUTBOX, ..config() }).bind("127.0.0.1:0").start().unwrap();
        server.register("store", || Store).unwrap();
        let mut peer = RawPeer::connect_narrow(server.address().unwrap().to_string().parse().unwrap());
        peer.stream.write_all(&hello()).unwrap();
        assert!(peer.next(|incoming| matches!(incoming, Incoming::Hello(_))));
        let mut piece = Vec::new();
        (1..=ASKS).for_each(|id| request(&mut piece, id, "store", &Fetch(SIZE)));
        assert!(piece.len() < 16 << 10, "it fits one receive buffer");
        let watch = Watch::begin();
        peer.stream.write_all(&piece).unwrap();
        eventually(&server, "reading stops", |c| c.reads_paused > 0);
        // The outbox, as much again while it grows, and one answer too many.
        let allowed = 3 * OUTBOX + 2 * SIZE;
        assert!(watch.growth() < allowed, "it took {} bytes, above {allowed}", watch.growth());
        (1..=ASKS).for_each(|id| peer.expect_echo(id, &payload(SIZE as u64, SIZE)));
        assert_eq!(eventually(&server, "all are answered", |c| c.requests_in == ASKS).connections, 1);
        cut([server]);
    });
}

/// Reads this much, a few MiB a second for two seconds.
fn read_slowly(peer: &RawPeer, mut left: usize) {
    let began = Instant::now();
    let mut buffer = vec![0; 64 << 10];
    while left > 0 {
        match (&peer.stream).read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => panic!("the connection ended with {left} bytes to come"),
            Ok(count) => left = left.saturating_sub(count),
        }
        if began.elapsed() < Duration::from_secs(2) {
            thread::park_timeout(Duration::from_millis(4));
        }
    }
}

#[test]
fn a_peer_that_reads_many_answers_slowly_and_steadily_keeps_its_connection() {
    let _alone = alone();
    bounded(|| {
        let (server, peer, mut last) = owing_all_but_one();
        // One more answer, while most of the others still wait for the peer, after more than a second.
        let began = Instant::now();
        let reader = thread::spawn(move || read_slowly(&peer, OWED));
        until("a second is over", || began.elapsed() > Duration::from_millis(1200));
        last.open();
        reader.join().unwrap();
        assert_eq!(server.snapshot().total().slow_peers_closed, 0);
        cut([server]);
    });
}

#[test]
fn a_server_that_floods_its_client_and_reads_nothing_is_refused_and_then_closed() {
    const SIZE: usize = 80 << 10;
    let _alone = alone();
    bounded(|| {
        // One answer is above what may wait.
        let client = dialler(Config { outbox_bytes: 64 << 10, max_frame: 128 << 10, ..config() });
        client.register("store", || Store).unwrap();
        let (listener, at) = raw::listener();
        let asking = client.endpoint_ref(&format!("ringpost://any@{at}")).unwrap().ask(Fetch(1));
        let mut peer = RawPeer::over(listener.accept().unwrap().0);
        assert!(peer.next(|incoming| matches!(incoming, Incoming::Hello(_))));
        peer.stream.write_all(&hello()).unwrap();
        let mut batch = Vec::new();
        (1..=100).for_each(|id| request(&mut batch, id, "store", &Fetch(SIZE)));
        until("it is closed", || {
            // It fails in the end.
            let _ = peer.stream.write_all(&batch);
            client.snapshot().total().slow_peers_closed == 1
        });
        let lost = within(asking);
        assert!(matches!(lost, Err(AskError::Disconnected { .. })), "{lost:?}");
        let end = eventually(&client, "its socket is closed", |c| c.connections == 0);
        assert!(end.overloaded_outbox > 0, "it was refused before");
        cut([client]);
    });
}

#[test]
fn a_server_that_floods_its_client_with_small_asks_takes_little_of_its_memory() {
    let _alone = alone();
    bounded(|| {
        let limits = Config { outbox_bytes: 64 << 10, max_frame: 128 << 10, ..config() };
        // What is answered, what is refused until it is too much, and as much again while the buffer grows.
        let allowed = 2 * 2 * (4 * limits.outbox_bytes + limits.max_frame as usize) + (1 << 20);
        let client = dialler(limits);
        client.register("store", || Store).unwrap();
        let (listener, at) = raw::listener();
        let asking = client.endpoint_ref(&format!("ringpost://any@{at}")).unwrap().ask(Fetch(1));
        let mut peer = RawPeer::over(listener.accept().unwrap().0);
        assert!(peer.next(|incoming| matches!(incoming, Incoming::Hello(_))));
        peer.stream.write_all(&hello()).unwrap();
        let mut batch = Vec::new();
        (1..=10_000).for_each(|id| request(&mut batch, id, "nobody", &Fetch(0)));
        let watch = Watch::begin();
        until("it is closed", || {
            // It fails in the end.
            let _ = peer.stream.write_all(&batch);
            client.snapshot().total().slow_peers_closed == 1
        });
        assert!(watch.growth() < allowed, "it took {} bytes, above {allowed}", watch.growth());
        let lost = within(asking);
        assert!(matches!(lost, Err(AskError::Disconnected { .. })), "{lost:?}");
        cut([client]);
    });
}

/// Keeps a ref for the test.
#[derive(Serialize, Deserialize)]
struct Offer(EndpointRef);
message!(Offer as "slow_peers.Offer" => ());

struct Desk(Sender<EndpointRef>);

impl Endpoint for Desk {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<Offer>();
    }
}

impl HandleSync<Offer> for Desk {
    fn handle(&mut self, offer: Offer, _: &mut CallContext) -> Result<(), HandlerError> {
        Ok(self.0.send(offer.0)?)
    }
}

#[test]
fn a_client_that_sends_large_replies_to_a_server_that_reads_keeps_its_connection() {
    const SIZE: usize = 1 << 20;
    let _alone = alone();
    bounded(|| {
        let server = builder("server", 1, config()).bind("127.0.0.1:0").start().unwrap();
        let (tell, told) = channel();
        let desk = server.register("desk", move || Desk(tell)).unwrap();
        // Each reply is far above what may wait.
        let client = dialler(Config { outbox_bytes: 64 << 10, ..config() });
        let store = client.register("store", || Store).unwrap();
        seen_from(&client, &desk).ask_blocking(Offer(store)).unwrap();
        let store = told.recv_timeout(LIMIT).unwrap();
        let asks: Vec<_> = (0..20).map(|number| store.ask(Fetch(SIZE + number))).collect();
        for (number, ask) in asks.into_iter().enumerate() {
            match within(ask) {
                Ok(bytes) => assert_eq!(bytes.len(), SIZE + number),
                Err(AskError::Overloaded { queue, .. }) => assert!(queue.contains("Config::outbox_bytes"), "{queue}"),
                Err(error) => panic!("{number}: {error}"),
            }
        }
        let end = client.snapshot().total();
        assert_eq!((end.slow_peers_closed, end.connections), (0, 1));
        drop(store);
        cut([client, server]);
    });
}

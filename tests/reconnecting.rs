//! A node that connects anew, and others that say that they are this node.

mod common;

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use common::echo::cut;
use common::proxy::Proxy;
use common::raw::{RawPeer, introduction, request};
use common::{LIMIT, bounded, builder, client, config, end, eventually, kind, seen_from, server, serving, turn};
use ringpost::net::reader::Incoming;
use ringpost::wire::codec;
use ringpost::wire::frame::{Draft, Frame};
use ringpost::wire::handshake::{Hello, OutboxTag, Token};
use ringpost::{
    AskError, CallContext, Caller, Config, Endpoint, EndpointRef, HandleSync, HandlerError, Handlers, RpcEnv, message,
};
use serde::{Deserialize, Serialize};

/// Written down.
#[derive(Serialize, Deserialize)]
struct Line(u32);
message!(Line as "reconnecting.Line");

/// Answered with all that was written down.
#[derive(Serialize, Deserialize)]
struct Lines;
message!(Lines as "reconnecting.Lines" => Vec<u32>);

/// Answered with the id of the node that asks.
#[derive(Serialize, Deserialize)]
struct WhoAmI;
message!(WhoAmI as "reconnecting.WhoAmI" => u64);

/// Keeps lines, and blocks before line 0 if it is told to.
#[derive(Default)]
struct Book(Vec<u32>, Option<Blocking>);

impl Endpoint for Book {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.send_sync::<Line>().ask_sync::<Lines>().ask_sync::<WhoAmI>();
    }
}

impl HandleSync<Line> for Book {
    fn handle(&mut self, line: Line, _: &mut CallContext) -> Result<(), HandlerError> {
        if let (0, Some(blocking)) = (line.0, &self.1) {
            blocking.block();
        }
        self.0.push(line.0);
        Ok(())
    }
}

impl HandleSync<Lines> for Book {
    fn handle(&mut self, _: Lines, _: &mut CallContext) -> Result<Vec<u32>, HandlerError> {
        Ok(self.0.clone())
    }
}

impl HandleSync<WhoAmI> for Book {
    fn handle(&mut self, _: WhoAmI, context: &mut CallContext) -> Result<u64, HandlerError> {
        match context.caller() {
            Caller::Peer(peer) => Ok(peer.node_id()),
            other => Err(HandlerError::new(format!("{other:?} is no peer"))),
        }
    }
}

/// Blocks its core until the test lets it go on.
#[derive(Serialize, Deserialize)]
struct Block;
message!(Block as "reconnecting.Block");

struct Blocking {
    entered: Sender<()>,
    go_on: Receiver<()>,
}

impl Blocking {
    /// It, what tells that it blocks, and what lets it go on.
    fn new() -> (Blocking, Receiver<()>, Sender<()>) {
        let ((entered, blocks), (lets, go_on)) = (channel(), channel());
        (Blocking { entered, go_on }, blocks, lets)
    }

    fn block(&self) {
        self.entered.send(()).unwrap();
        self.go_on.recv_timeout(LIMIT).unwrap();
    }
}

impl Endpoint for Blocking {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.send_sync::<Block>();
    }
}

impl HandleSync<Block> for Blocking {
    fn handle(&mut self, _: Block, _: &mut CallContext) -> Result<(), HandlerError> {
        self.block();
        Ok(())
    }
}

fn address(env: &RpcEnv) -> SocketAddr {
    env.address().unwrap().to_string().parse().unwrap()
}

/// The hello of a connection of outbox 1 of a node, for this core.
fn hello(core: u16, token: u8, ordinal: u64) -> Hello {
    Hello {
        wanted_core: Some(core),
        token: Some(Token([token; 16])),
        outbox: Some(OutboxTag { id: 1, ordinal }),
        ..introduction()
    }
}

fn send(peer: &mut RawPeer, name: &str, line: u32) {
    let mut bytes = Vec::new();
    request(&mut bytes, 0, name, &Line(line));
    // It may be closed already.
    let _ = std::io::Write::write_all(&mut peer.stream, &bytes);
}

/// What is written down once everything has arrived that this peer has sent before.
fn lines(peer: &mut RawPeer, name: &str) -> Vec<u32> {
    let mut bytes = Vec::new();
    request(&mut bytes, 9, name, &Lines);
    std::io::Write::write_all(&mut peer.stream, &bytes).unwrap();
    peer.next(|incoming| match incoming {
        Incoming::Frame(Frame::Reply { request: 9, payload, .. }) => codec::decode(payload).unwrap(),
        other => panic!("{other:?}"),
    })
}

#[test]
fn what_an_old_connection_brings_after_its_successor_is_not_handled() {
    bounded(|| {
        for (old, new) in [(0, 0), (0, 1), (1, 0)] {
            let env = server(2);
            env.register_on(0, "book", Book::default).unwrap();
            let mut first = RawPeer::greet_as(address(&env), &hello(old, 1, 1));
            send(&mut first, "book", 1);
            assert_eq!(lines(&mut first, "book"), [1]);
            let mut second = RawPeer::greet_as(address(&env), &hello(new, 1, 2));
            send(&mut second, "book", 2);
            assert_eq!(lines(&mut second, "book"), [1, 2]);
            send(&mut first, "book", 3);
            first.expect_end();
            assert_eq!(lines(&mut second, "book"), [1, 2], "from core {old}, then {new}");
            eventually(&env, "it was closed", |now| (now.connections_displaced, now.connections) == (1, 1));
            // Its dialler has given up this one before the second: it was only accepted late.
            let mut late = RawPeer::connect(address(&env));
            let mut bytes = Vec::new();
            hello(old, 1, 1).encode(&mut bytes);
            std::io::Write::write_all(&mut late.stream, &bytes).unwrap();
            late.expect_end();
            cut([env]);
        }
    });
}

#[test]
fn what_a_blocked_core_has_not_read_when_the_node_connects_anew_is_not_handled() {
    bounded(|| {
        let env = server(2);
        let (blocking, blocks, go_on) = Blocking::new();
        env.register_on(0, "blocking", || blocking).unwrap();
        env.register_on(1, "book", Book::default).unwrap();
        let mut first = RawPeer::greet_as(address(&env), &hello(0, 1, 1));
        // A socket that core 1 has accepted.
        let on_core_1 = |env: &RpcEnv| {
            turn(env);
            turn(env);
            env.snapshot().cores[1].accepted
        };
        let before = on_core_1(&env);
        let mut sockets = Vec::new();
        while on_core_1(&env) == before {
            assert!(sockets.len() < 100, "the kernel gives core 1 nothing");
            sockets.push(RawPeer::connect(address(&env)));
            let count = sockets.len() as u64 + 1;
            eventually(&env, "it is accepted", |now| now.accepted == count);
        }
        let mut second = sockets.pop().unwrap();
        let mut bytes = Vec::new();
        request(&mut bytes, 0, "blocking", &Block);
        std::io::Write::write_all(&mut first.stream, &bytes).unwrap();
        blocks.recv_timeout(LIMIT).unwrap();
        send(&mut first, "book", 1);
        second.say_hello(&hello(1, 1, 2));
        send(&mut second, "book", 2);
        assert_eq!(lines(&mut second, "book"), [2]);
        go_on.send(()).unwrap();
        first.expect_end();
        assert_eq!(lines(&mut second, "book"), [2]);
        cut([env]);
    });
}

#[test]
fn what_waits_between_two_cores_when_the_node_connects_anew_is_dropped_and_counted() {
    bounded(|| {
        let env = server(2);
        let (blocking, blocks, go_on) = Blocking::new();
        env.register_isolated("book", || Book(Vec::new(), Some(blocking))).unwrap();
        // The lane from core 1 is there first, so it is looked at first.
        let other = Hello { outbox: Some(OutboxTag { id: 2, ordinal: 1 }), ..hello(1, 1, 1) };
        let mut other = RawPeer::greet_as(address(&env), &other);
        send(&mut other, "book", 9);
        assert_eq!(lines(&mut other, "book"), [9]);
        let mut first = RawPeer::greet_as(address(&env), &hello(0, 1, 1));
        send(&mut first, "book", 0);
        blocks.recv_timeout(LIMIT).unwrap();
        send(&mut first, "book", 1);
        eventually(&env, "it is passed on", |now| now.requests_passed == 4);
        let mut second = RawPeer::greet_as(address(&env), &hello(1, 1, 2));
        send(&mut second, "book", 2);
        eventually(&env, "it is passed on", |now| now.requests_passed == 5);
        go_on.send(()).unwrap();
        // The second ask comes behind all that waited.
        assert_eq!([(); 2].map(|()| lines(&mut second, "book")), [[9, 0, 2], [9, 0, 2]]);
        eventually(&env, "one was dropped", |now| now.requests_fenced == 1);
        cut([env]);
    });
}

#[test]
fn connections_of_two_outboxes_and_of_nodes_without_a_token_leave_each_other_alone() {
    bounded(|| {
        let env = server(2);
        env.register_on(0, "book", Book::default).unwrap();
        let other = Hello { outbox: Some(OutboxTag { id: 2, ordinal: 1 }), ..hello(0, 1, 1) };
        let nobody = Hello { token: None, ..hello(0, 1, 9) };
        let mut peers = [hello(0, 1, 1), other, nobody.clone(), nobody, hello(0, 2, 9)]
            .map(|hello| RawPeer::greet_as(address(&env), &hello));
        for (peer, line) in peers.iter_mut().zip(0..) {
            send(peer, "book", line);
            assert_eq!(lines(peer, "book"), (0..=line).collect::<Vec<_>>());
        }
        cut([env]);
    });
}

/// A ref of `env` to the endpoint `book` of the node with this id, which does not listen.
fn book_of(env: &RpcEnv, node: u64) -> EndpointRef {
    env.endpoint_ref(&format!("ringpost-client://book@{node:016x}")).unwrap()
}

/// Answers one ask that has arrived with this line.
fn answer(peer: &mut RawPeer, line: u32) {
    let asked = peer.next(|incoming| match incoming {
        Incoming::Frame(Frame::Request { head, .. }) => head.request,
        other => panic!("{other:?}"),
    });
    let mut bytes = Vec::new();
    let mut draft = Draft::reply(&mut bytes, asked, None);
    codec::encode(&vec![line], draft.payload()).unwrap();
    draft.finish(u32::MAX).unwrap();
    std::io::Write::write_all(&mut peer.stream, &bytes).unwrap();
}

/// What each core of `env` is answered, asked ten times.
fn ask_from_each_core(env: &RpcEnv, to: &EndpointRef) -> Vec<Result<Vec<u32>, AskError>> {
    let all = (0..20).map(|round| {
        let to = to.clone();
        let ask = move || async move { to.ask_within(Lines, Duration::from_secs(2)).await };
        env.spawn_on(round % 2, ask).unwrap().join().unwrap()
    });
    all.collect()
}

#[test]
fn a_claimed_incarnation_gets_none_of_a_clients_messages() {
    bounded(|| {
        let (env, asking) = (server(2), client(1));
        let proxy = Proxy::before(env.address().unwrap().to_string());
        env.register("book", Book::default).unwrap();
        let guest = asking.register("book", || Book(vec![7], None)).unwrap();
        let there = asking.endpoint_ref((proxy.address.to_string().as_str(), "book")).unwrap();
        let node = there.ask_blocking(WhoAmI).unwrap();
        let back = env.endpoint_ref(&guest.uri()).unwrap();
        assert_eq!(back, book_of(&env, node));
        // One on each core, without a token and with one that is made up.
        let claims = [(0, None), (1, None), (0, Some(Token([9; 16]))), (1, Some(Token([9; 16])))];
        let mut claimants = claims.map(|(core, token)| {
            let outbox = Some(OutboxTag { id: u64::from(core), ordinal: 99 });
            RawPeer::greet_as(address(&env), &Hello { incarnation: node, token, outbox, ..hello(core, 0, 0) })
        });
        let answers = ask_from_each_core(&env, &back);
        assert_eq!(answers, vec![Ok(vec![7]); 20]);
        // They are no better off while the client is away,
        proxy.cut();
        eventually(&env, "the client has gone", |now| now.connections == 4);
        assert!(
            ask_from_each_core(&env, &back).iter().all(|answer| kind(answer.as_ref().unwrap_err()) == "Unreachable")
        );
        // nor once it has come back.
        eventually(&asking, "it has noticed", |now| now.connections == 0);
        assert_eq!(there.ask_blocking(WhoAmI), Ok(node));
        assert_eq!(ask_from_each_core(&env, &back), vec![Ok(vec![7]); 20]);
        // Each is a node of its own that can be asked itself.
        for claimant in &mut claimants {
            let mut bytes = Vec::new();
            request(&mut bytes, 3, "book", &WhoAmI);
            std::io::Write::write_all(&mut claimant.stream, &bytes).unwrap();
            let id: u64 = claimant.next(|incoming| match incoming {
                Incoming::Frame(Frame::Reply { payload, .. }) => codec::decode(payload).unwrap(),
                other => panic!("{other:?}"),
            });
            assert_ne!(id, node);
        }
        end(&asking);
        cut([env]);
    });
}

#[test]
fn a_node_that_connects_anew_is_asked_over_the_new_connection_at_once() {
    bounded(|| {
        let env = server(2);
        let to = book_of(&env, introduction().incarnation);
        for ((old, new), ordinal) in [(0, 0), (0, 1), (1, 0)].into_iter().zip([1, 3, 5]) {
            // Half-open: nothing tells the acceptor that it has ended.
            let mut first = RawPeer::greet_as(address(&env), &hello(old, 1, ordinal));
            let waiting = to.ask(Lines);
            first.next(|_| ());
            let mut second = RawPeer::greet_as(address(&env), &hello(new, 1, ordinal + 1));
            let error = common::echo::within(waiting).unwrap_err();
            let AskError::Disconnected { cause, .. } = &error else { panic!("{error:?}") };
            assert!(cause.contains("has connected anew"), "{error}");
            first.expect_end();
            for core in [0, 1] {
                let to = to.clone();
                let asked = env.spawn_on(core, move || async move { to.ask(Lines).await }).unwrap();
                answer(&mut second, 5);
                assert_eq!(asked.join().unwrap(), Ok(vec![5]));
            }
            drop((first, second));
            eventually(&env, "all have gone", |now| now.connections == 0);
        }
        cut([env]);
    });
}

#[test]
fn all_cores_of_a_client_are_one_node_to_a_server_that_has_started_again_too() {
    bounded(|| {
        let asking = client(2);
        let mut bind = "127.0.0.1:0".to_owned();
        let mut there = None;
        for _ in 0..5 {
            let env = builder("server", 2, config()).bind(&bind).start().unwrap();
            bind = env.address().unwrap().to_string();
            let own = env.register_per_core("book", |_| Book::default()).unwrap();
            let book = there.get_or_insert_with(|| seen_from(&asking, &own)).clone();
            // All at once: whichever comes first.
            let asked = [0, 1].map(|core| {
                let book = book.clone();
                asking.spawn_on(core, move || async move { book.ask(WhoAmI).await }).unwrap()
            });
            let ids = asked.map(|asked| asked.join().unwrap().unwrap());
            assert_eq!(ids[0], ids[1]);
            assert_eq!(
                asking.lookup_blocking(&own.uri()).unwrap().by_key(1).ask_blocking(WhoAmI),
                Ok(ids[0]),
                "steered"
            );
            cut([env]);
            eventually(&asking, "all have noticed", |now| now.connections == 0);
        }
        end(&asking);
    });
}

#[test]
fn the_identities_of_nodes_that_have_left_are_bounded_and_the_next_one_is_forgotten_and_counted() {
    bounded(|| {
        let env = serving(1, Config { absent_nodes: 1, ..config() });
        env.register("book", Book::default).unwrap();
        for (incarnation, ordinal) in [(1, 1), (2, 1), (1, 2)] {
            let peer = RawPeer::greet_as(address(&env), &Hello { incarnation, ..hello(0, 1, ordinal) });
            drop(peer);
            eventually(&env, "it has gone", |now| now.connections == 0);
        }
        assert_eq!(eventually(&env, "one is forgotten", |now| now.nodes_forgotten == 1).nodes_forgotten, 1);
        cut([env]);
    });
}

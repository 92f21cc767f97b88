//! Endpoints are told of connections: once, in order with their messages, and not of the end of their own env.

mod common;

use std::io::Write;
use std::net::{Shutdown, SocketAddr};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use common::echo::{dialler, within};
use common::gate::{Event, Gate, pass};
use common::raw::{RawPeer, hello, listener, request};
use common::{LIMIT, bounded, builder, config, end, eventually, log, server, serving, turn, unix_socket, uri};
use ringpost::net::reader::Incoming;
use ringpost::wire::frame::Frame;
use ringpost::{
    CallContext, Config, Endpoint, Handle, HandleShared, HandleSync, HandlerError, Handlers, Peer, RpcEnv, message,
};
use serde::{Deserialize, Serialize};
use socket2::SockRef;

#[derive(Serialize, Deserialize, Clone)]
struct Note(u64);
message!(Note as "events.Note");

#[derive(Serialize, Deserialize, Clone)]
struct Pass {
    gate: u64,
}
message!(Pass as "events.Pass" => ());

/// What an endpoint was told.
#[derive(Debug, Clone, PartialEq)]
enum Seen {
    Connected(Peer),
    Disconnected(Peer),
    Error(Peer, String),
    Note(u64),
    Reported(String),
}

/// Tells what it is told. Its channel ends with it.
struct Watch(Sender<Seen>);

impl Endpoint for Watch {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.events().send_sync::<Note>();
    }
    async fn on_connected(&mut self, peer: &Peer) {
        self.0.send(Seen::Connected(peer.clone())).unwrap();
    }
    async fn on_disconnected(&mut self, peer: &Peer) {
        self.0.send(Seen::Disconnected(peer.clone())).unwrap();
    }
    async fn on_network_error(&mut self, peer: &Peer, cause: &str) {
        self.0.send(Seen::Error(peer.clone(), cause.to_owned())).unwrap();
    }
}

impl HandleSync<Note> for Watch {
    fn handle(&mut self, note: Note, _: &mut CallContext) -> Result<(), HandlerError> {
        self.0.send(Seen::Note(note.0)).unwrap();
        Ok(())
    }
}

/// Registers a watching endpoint on a core.
fn watch(env: &RpcEnv, core: usize, name: &str) -> Receiver<Seen> {
    let (tell, seen) = channel();
    env.register_on(core, name, move || Watch(tell)).unwrap();
    seen
}

/// One on each core of the env, of which at most one owns a connection.
fn watch_all(env: &RpcEnv) -> Vec<Receiver<Seen>> {
    (0..env.core_count()).map(|core| watch(env, core, &format!("watch{core}"))).collect()
}

fn next(seen: &Receiver<Seen>) -> Seen {
    seen.recv_timeout(LIMIT).expect("it is told more")
}

fn connected(seen: &Receiver<Seen>) -> Peer {
    match next(seen) {
        Seen::Connected(peer) => peer,
        other => panic!("{other:?}"),
    }
}

fn address(env: &RpcEnv) -> SocketAddr {
    env.address().unwrap().to_string().parse().unwrap()
}

#[test]
fn a_connection_is_told_once_before_its_messages_and_once_after_them() {
    const NOTES: u64 = 200;
    bounded(|| {
        let env = server(2);
        let mut watches = watch_all(&env);
        // Not least one that has a thread of its own.
        let (tell, seen) = channel();
        env.register_isolated("watch2", move || Watch(tell)).unwrap();
        watches.push(seen);
        let mut peers = Vec::new();
        for _ in 0..20 {
            // All of the connection's life may lie in one receive buffer.
            let mut bytes = hello();
            for note in 0..NOTES {
                (0..3).for_each(|core| request(&mut bytes, 0, &format!("watch{core}"), &Note(note)));
            }
            let mut raw = RawPeer::connect(address(&env));
            raw.stream.write_all(&bytes).unwrap();
            raw.stream.shutdown(Shutdown::Write).unwrap();
            for seen in &watches {
                let peer = connected(seen);
                assert_eq!((peer.name(), peer.address(), peer.node_id()), ("raw", None, 77));
                (0..NOTES).for_each(|note| assert_eq!(next(seen), Seen::Note(note)));
                assert_eq!(next(seen), Seen::Disconnected(peer.clone()));
                peers.push(peer);
            }
        }
        peers.dedup();
        assert_eq!(peers.len(), 20, "one for each connection, the same on all cores");
        assert_eq!(peers[0].connections(), 0);
        end(&env);
        assert!(watches.iter().all(|seen| seen.recv().is_err()), "no more was told");
    });
}

#[test]
fn both_sides_are_told_with_the_address_of_a_peer_that_listens() {
    bounded(|| {
        for bind in ["127.0.0.1:0", &unix_socket()] {
            let server = builder("server", 2, config()).bind(bind).start().unwrap();
            let listening = builder("listening", 1, config()).bind("127.0.0.1:0").start().unwrap();
            let client = dialler(config());
            let at_server = watch_all(&server);
            for (env, name) in [(&listening, "listening"), (&client, "client")] {
                let at_env = watch(env, 0, "watch");
                let note = env.endpoint_ref(&uri(&server, "watch0")).unwrap();
                note.send(Note(1)).unwrap();
                let peer = connected(&at_env);
                assert_eq!(peer.address(), Some(&*server.address().unwrap().to_string()));
                assert_eq!((peer.name(), peer.connections()), ("server", 1));
                let known: Vec<_> = at_server.iter().map(connected).collect();
                let own = env.address().map(|address| address.to_string());
                assert_eq!((known[0].name(), known[0].address()), (name, own.as_deref()));
                assert_eq!(next(&at_server[0]), Seen::Note(1));
                // The last ref to a peer takes the connection along.
                drop(note);
                assert_eq!(next(&at_env), Seen::Disconnected(peer));
                for (seen, peer) in at_server.iter().zip(known) {
                    assert_eq!(next(seen), Seen::Disconnected(peer));
                }
            }
            [client, listening, server].iter().for_each(end);
        }
    });
}

#[test]
fn a_connection_that_ends_by_an_error_is_told_with_its_cause() {
    type Break = fn(&mut RawPeer);
    let breaks: [(Break, &str); 4] = [
        (|raw| raw.stream.write_all(&[16, 0, 0, 0, 99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap(), "frame kind 99"),
        (
            |raw| raw.stream.write_all(&[16, 0, 0, 0, 1]).and_then(|()| raw.stream.shutdown(Shutdown::Both)).unwrap(),
            "middle",
        ),
        (|raw| SockRef::from(&raw.stream).set_linger(Some(Duration::ZERO)).unwrap(), "reset"),
        (|raw| raw.next(|incoming| assert_eq!(incoming, Incoming::Frame(Frame::Ping))), "Config::keepalive"),
    ];
    bounded(move || {
        let keepalive = Duration::from_millis(500);
        let env = serving(2, Config { keepalive, keepalive_misses: 1, ..config() });
        let watches = watch_all(&env);
        for (accepted, (act, cause)) in breaks.iter().flat_map(|one| [(true, one), (false, one)]) {
            let (listener, there) = listener();
            let note = env.endpoint_ref(&format!("ringpost://note@{there}")).unwrap();
            let mut raw = if accepted {
                RawPeer::greet(address(&env))
            } else {
                note.send(Note(1)).unwrap();
                let mut raw = RawPeer::over(listener.accept().unwrap().0);
                assert!(raw.next(|incoming| matches!(incoming, Incoming::Hello(_))));
                raw.stream.write_all(&hello()).unwrap();
                assert!(raw.next(|incoming| matches!(incoming, Incoming::Frame(Frame::Request { .. }))));
                raw
            };
            let peers: Vec<_> = watches.iter().map(connected).collect();
            act(&mut raw);
            // Only the one that waits for the keepalive keeps its end.
            let _silent = (*cause == "Config::keepalive").then_some(raw);
            for (seen, peer) in watches.iter().zip(peers) {
                match next(seen) {
                    Seen::Error(of, text) => assert!(of == peer && text.contains(cause), "{text} is not {cause}"),
                    other => panic!("{other:?} instead of {cause}"),
                }
                assert_eq!(next(seen), Seen::Disconnected(peer));
            }
        }
        end(&env);
    });
}

#[test]
fn the_end_of_the_env_itself_is_no_event_but_the_others_are_told() {
    bounded(|| {
        let (server, client) = (server(2), dialler(config()));
        let (at_server, at_client) = (watch_all(&server), watch(&client, 0, "watch"));
        let note = client.endpoint_ref(&uri(&server, "watch1")).unwrap();
        note.send(Note(1)).unwrap();
        let peer = connected(&at_client);
        at_server.iter().for_each(|seen| assert_eq!(connected(seen).name(), "client"));
        assert_eq!(next(&at_server[1]), Seen::Note(1));
        end(&server);
        at_server.iter().for_each(|seen| assert!(seen.recv().is_err()));
        assert_eq!(next(&at_client), Seen::Disconnected(peer));
        end(&client);
        assert!(at_client.recv().is_err());
    });
}

#[test]
fn an_endpoint_hears_nothing_of_connections_that_were_open_before_it() {
    bounded(|| {
        let env = server(2);
        let before = RawPeer::greet(address(&env));
        let watches = watch_all(&env);
        let after = RawPeer::greet(address(&env));
        drop(before);
        eventually(&env, "the first one ends", |c| c.connections == 1);
        drop(after);
        for seen in &watches {
            let peer = connected(seen);
            assert_eq!(next(seen), Seen::Disconnected(peer));
        }
        end(&env);
        assert!(watches.iter().all(|seen| seen.recv().is_err()), "no more was told");
    });
}

#[test]
fn an_endpoint_registered_while_connections_come_and_go_hears_of_both_ends_or_of_none() {
    bounded(|| {
        let env = server(2);
        let (stop, stopped) = channel::<()>();
        let to = address(&env);
        let connecting = std::thread::spawn(move || {
            while stopped.try_recv().is_err() {
                let both = [RawPeer::greet(to), RawPeer::greet(to)];
                drop(both);
            }
        });
        let watches: Vec<_> = (0..100).map(|i| watch(&env, i % 2, &format!("watch{i}"))).collect();
        stop.send(()).unwrap();
        connecting.join().unwrap();
        eventually(&env, "all have ended", |c| c.connections == 0);
        turn(&env);
        end(&env);
        for seen in watches {
            let mut open = Vec::new();
            for event in seen {
                match event {
                    Seen::Connected(peer) => open.push(peer),
                    Seen::Disconnected(peer) => {
                        let at = open.iter().position(|one| *one == peer).expect("its beginning was told");
                        open.swap_remove(at);
                    }
                    // How a peer ends that has not read everything is up to its kernel.
                    Seen::Error(..) => {}
                    other => panic!("{other:?}"),
                }
            }
            assert!(open.is_empty(), "{open:?} have ended unheard");
        }
    });
}

/// Panics in its events.
struct Broken(Sender<Seen>);

impl Endpoint for Broken {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.events();
    }
    async fn on_connected(&mut self, _: &Peer) {
        panic!("connected");
    }
    async fn on_disconnected(&mut self, peer: &Peer) {
        self.0.send(Seen::Disconnected(peer.clone())).unwrap();
    }
    async fn on_network_error(&mut self, _: &Peer, _: &str) {
        panic!("network error");
    }
    fn on_error(&mut self, error: &HandlerError) {
        self.0.send(Seen::Reported(error.to_string())).unwrap();
    }
}

#[test]
fn a_panic_in_an_event_goes_to_on_error_and_the_endpoint_lives_on() {
    bounded(|| {
        let env = server(1);
        let (tell, seen) = channel();
        env.register("broken", move || Broken(tell)).unwrap();
        for _ in 0..2 {
            let raw = RawPeer::greet(address(&env));
            let reported = |what| match next(&seen) {
                Seen::Reported(text) => assert!(text.contains(what), "{text}"),
                other => panic!("{other:?}"),
            };
            reported("connected");
            SockRef::from(&raw.stream).set_linger(Some(Duration::ZERO)).unwrap();
            drop(raw);
            reported("network error");
            assert!(matches!(next(&seen), Seen::Disconnected(_)));
        }
        end(&env);
    });
}

/// Waits at a gate when it is told of the first connection.
struct Slow {
    gate: Option<u64>,
    tell: Sender<Seen>,
}

impl Endpoint for Slow {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.events().ask::<Pass>();
    }
    async fn on_connected(&mut self, peer: &Peer) {
        if let Some(gate) = self.gate.take() {
            pass(gate).await;
        }
        self.tell.send(Seen::Connected(peer.clone())).unwrap();
    }
}

impl Handle<Pass> for Slow {
    async fn handle(&mut self, _: Pass, _: &mut CallContext) -> Result<(), HandlerError> {
        Ok(())
    }
}

#[test]
fn events_beyond_the_limit_are_dropped_and_counted_and_take_no_room_from_messages() {
    bounded(|| {
        log::keep();
        let began = Instant::now();
        let env = serving(1, Config { inbox_messages: 2, ..config() });
        let (mut gate, (tell, seen)) = (Gate::new(), channel());
        let id = gate.id;
        let slow = env.register("slow", move || Slow { gate: Some(id), tell }).unwrap();
        let mut raw = vec![RawPeer::greet(address(&env))];
        gate.expect(Event::Entered);
        raw.extend((0..5).map(|_| RawPeer::greet(address(&env))));
        assert_eq!(eventually(&env, "three are lost", |c| c.events_lost > 2).events_lost, 3);
        // Other tests run beside this one, but none has an endpoint of this name.
        let told = log::take().iter().filter(|(_, line)| line.contains("endpoint=\"slow\"")).count();
        let most = 1 + began.elapsed().as_secs() as usize;
        assert!((1..=most).contains(&told), "{told} warnings, and {most} at most");
        let asks = [(); 2].map(|()| slow.ask(Pass { gate: 0 }));
        gate.open();
        for ask in asks {
            within(ask).unwrap();
        }
        let numbers: Vec<_> = (0..3).map(|_| connected(&seen).connection()).collect();
        assert_eq!(numbers, [1, 2, 3]);
        end(&env);
        assert!(seen.recv().is_err());
    });
}

/// Its handlers run side by side.
struct Sharing(Sender<Seen>);

impl Endpoint for Sharing {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.concurrency(4).events().ask_shared::<Pass>().send_shared::<Note>();
    }
    async fn on_connected(&mut self, peer: &Peer) {
        self.0.send(Seen::Connected(peer.clone())).unwrap();
    }
}

impl HandleShared<Pass> for Sharing {
    async fn handle(&self, ask: Pass, _: &mut CallContext) -> Result<(), HandlerError> {
        pass(ask.gate).await;
        self.0.send(Seen::Note(ask.gate)).unwrap();
        Ok(())
    }
}

impl HandleShared<Note> for Sharing {
    async fn handle(&self, note: Note, _: &mut CallContext) -> Result<(), HandlerError> {
        self.0.send(Seen::Note(note.0)).unwrap();
        Ok(())
    }
}

#[test]
fn an_event_runs_alone_and_in_its_place_among_handlers_that_run_side_by_side() {
    bounded(|| {
        let env = server(1);
        let (mut gate, (tell, seen)) = (Gate::new(), channel());
        let sharing = env.register("sharing", move || Sharing(tell)).unwrap();
        let ask = sharing.ask(Pass { gate: gate.id });
        gate.expect(Event::Entered);
        let _raw = RawPeer::greet(address(&env));
        sharing.send(Note(0)).unwrap();
        turn(&env);
        gate.open();
        within(ask).unwrap();
        assert_eq!(next(&seen), Seen::Note(gate.id));
        assert_eq!(connected(&seen).name(), "raw");
        assert_eq!(next(&seen), Seen::Note(0));
        end(&env);
    });
}

#[test]
fn where_nobody_wants_events_no_other_core_is_told() {
    bounded(|| {
        let env = server(2);
        let visit = || {
            let before = env.snapshot().total();
            (0..10).for_each(|_| drop(RawPeer::greet(address(&env))));
            let after =
                eventually(&env, "they have ended", |c| c.accepted == before.accepted + 10 && c.connections == 0);
            turn(&env);
            after.lane_sent - before.lane_sent
        };
        assert_eq!(visit(), 0);
        for core in 0..2 {
            let name = format!("watch{core}");
            let seen = watch(&env, core, &name);
            visit();
            assert_eq!(connected(&seen).name(), "raw");
            assert!(env.stop(&env.endpoint_ref(&uri(&env, &name)).unwrap()));
            eventually(&env, "it has stopped", |c| c.endpoints == 2);
        }
        // The core at the other end of a lane is told that requests over a connection are owed no answer, and no more.
        assert!(visit() <= 10);
        end(&env);
    });
}

//! Received bytes have a budget in each turn, and connections share it.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use super::stage::{Drive, Stage, Turn, node};
use crate::net::connection::{Connection, Phase, Role};
use crate::net::connection_id::ConnectionId;
use crate::net::remote::Remote;
use crate::wire::handshake::{Hello, VERSION};

/// A whole ping frame, by docs/WIRE.md.
const PING: [u8; 16] = [16, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// A whole pong frame.
const PONG: [u8; 16] = [16, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// Budget of a turn, and the receive buffer by which it may be exceeded.
const MOST_IN_A_TURN: u64 = 131_072 + 16_384;
/// No test takes more turns.
const TURNS: u32 = 100_000;

/// A server of one core that parks whenever it may.
struct Scene {
    stage: Stage,
    server: usize,
    address: SocketAddr,
}

impl Scene {
    fn new(drive: Drive) -> Scene {
        let stage = Stage::new(drive);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = stage.core(&node("server", 1), 0, Some(listener));
        Scene { stage, server, address }
    }

    fn turn(&self) -> Turn {
        self.stage.turn(self.server)
    }

    fn bytes_in(&self) -> u64 {
        self.stage.shard(self.server).counters.borrow().bytes_in
    }

    /// A peer that has said its hello and has read the answer.
    fn peer(&self, incarnation: u64) -> TcpStream {
        let mut peer = TcpStream::connect(self.address).unwrap();
        peer.set_nonblocking(true).unwrap();
        let mut hello = Vec::new();
        Hello {
            versions: (VERSION, VERSION),
            max_frame: 16 << 20,
            cores: 1,
            wanted_core: None,
            incarnation,
            name: "raw".into(),
            advertised: None,
            token: None,
            outbox: None,
            given: None,
        }
        .encode(&mut hello);
        peer.write_all(&hello).unwrap();
        for _ in 0..TURNS {
            self.turn();
            match peer.read(&mut [0; 4096]) {
                Ok(0) => panic!("the server has closed the connection"),
                Ok(_) => return peer,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        panic!("the server did not answer a hello");
    }
}

/// Writes what fits of `bytes`, and takes that off.
fn write_some(peer: &mut TcpStream, bytes: &mut &[u8]) {
    while !bytes.is_empty() {
        match peer.write(bytes) {
            Ok(written) => *bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_flood_on_one_connection_leaves_each_turn_short_and_the_other_connection_served() {
    for drive in [Drive::Alone, Drive::Hosted] {
        let scene = Scene::new(drive);
        let (mut flooding, mut good) = (scene.peer(1), scene.peer(2));
        let flood = PING.repeat(65_536);
        let (mut unsent, before) = (&flood[..], scene.bytes_in());
        write_some(&mut flooding, &mut unsent);
        assert!(flood.len() - unsent.len() > 300_000, "the scene is too easy: {} bytes wait", unsent.len());
        good.write_all(&PING).unwrap();

        let (mut most, mut turns, mut answered_after) = (0, 0, None);
        while scene.bytes_in() - before < flood.len() as u64 + 16 {
            let earlier = scene.bytes_in();
            scene.turn();
            most = most.max(scene.bytes_in() - earlier);
            turns += 1;
            assert!(turns < TURNS, "{drive:?}: the server sleeps over what it has received");
            let mut answer = [0; 64];
            match good.read(&mut answer) {
                Ok(16) if answer[..16] == PONG => answered_after = answered_after.or(Some(turns)),
                Ok(other) => panic!("{:?}", &answer[..other]),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            write_some(&mut flooding, &mut unsent);
        }
        assert!(most <= MOST_IN_A_TURN, "{drive:?}: {most} bytes in one turn");
        assert!(answered_after.is_some_and(|turns| turns <= 4), "{drive:?}: after {answered_after:?} of {turns} turns");
    }
}

#[test]
fn a_flood_leaves_receive_buffers_for_the_other_connections() {
    let scene = Scene::new(Drive::Alone);
    let mut flooding = scene.peer(1);
    // Four times as much as the 64 buffers hold.
    let flood = PING.repeat(262_144);
    let (mut unsent, before) = (&flood[..], scene.bytes_in());
    for _ in 0..TURNS {
        write_some(&mut flooding, &mut unsent);
        scene.turn();
        if scene.bytes_in() - before == flood.len() as u64 {
            break;
        }
    }
    assert_eq!(scene.bytes_in() - before, flood.len() as u64);
    // Each time that it fills all buffers, and not with each buffer that is given back.
    let starvations = scene.stage.with(scene.server, |core| core.ring.stats().buffer_starvations);
    assert!(starvations <= 8, "the buffers ran out {starvations} times");
}

#[test]
fn everything_that_a_peer_sent_before_its_end_is_handled_before_the_end() {
    let scene = Scene::new(Drive::Alone);
    let mut flooding = scene.peer(1);
    let flood = PING.repeat(65_536);
    let (mut unsent, before) = (&flood[..], scene.bytes_in());
    let mut turns = 0;
    while !unsent.is_empty() {
        write_some(&mut flooding, &mut unsent);
        scene.turn();
        turns += 1;
        assert!(turns < TURNS);
    }
    flooding.shutdown(std::net::Shutdown::Write).unwrap();
    let shard = scene.stage.shard(scene.server);
    while !shard.connections.borrow().is_empty() {
        scene.turn();
        turns += 1;
        assert!(turns < TURNS, "the end of the stream is lost");
    }
    assert_eq!(scene.bytes_in() - before, flood.len() as u64);
    assert_eq!(shard.counters.borrow().protocol_errors, 0);
    assert_eq!(scene.stage.with(scene.server, |core| core.ring.free_buffers()), 64);
}

#[test]
fn what_was_held_back_is_handled_by_a_turns_budget_at_a_time() {
    let stage = Stage::new(Drive::Alone);
    let core = stage.core(&node("server", 1), 0, None);
    let shard = stage.shard(core);
    let id = ConnectionId { slot: 0, generation: 0 };
    let mut connection = Connection::new(id, Role::Accepted, Remote::Unix, 16 << 20);
    connection.phase = Phase::Greeting;
    connection.paused = true;
    // A hello, and pings.
    let mut held = Vec::new();
    Hello {
        versions: (VERSION, VERSION),
        max_frame: 16 << 20,
        cores: 1,
        wanted_core: None,
        incarnation: 3,
        name: "raw".into(),
        advertised: None,
        token: None,
        outbox: None,
        given: None,
    }
    .encode(&mut held);
    held.extend_from_slice(&PING.repeat(20_000));
    connection.held.extend_from_slice(&held);
    let all = connection.held.len();
    shard.connections.borrow_mut().insert(connection);
    let held = || shard.connections.borrow_mut().get(id).unwrap().held.len();

    assert!(!shard.resume(id, &shard.path()));

    assert_eq!(all - held(), 131_072);
    assert!(!shard.resume(id, &shard.path()));
    assert_eq!(all - held(), 262_144);
    assert!(shard.resume(id, &shard.path()), "nothing is left: reading goes on");
    assert_eq!(held(), 0);
}

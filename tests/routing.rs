//! Which core a connection comes to, and which one a message.

mod common;

use std::io::{Read, Write};
use std::net::SocketAddr;

use common::echo::{Echo, Echoing, alone, cut, open_files, payload, until};
use common::raw::{RawPeer, hello_to, request};
use common::{bounded, builder, config, eventually, serving, turn};
use ringpost::{Config, CoreSnapshot, Placement, RpcEnv};

fn placing(placement: Placement) -> RpcEnv {
    serving(2, Config { placement, ..config() })
}

fn address(env: &RpcEnv) -> SocketAddr {
    env.address().unwrap().to_string().parse().unwrap()
}

/// A number of each core, once every core has published it.
fn per_core(env: &RpcEnv, what: impl Fn(&CoreSnapshot) -> u64) -> Vec<u64> {
    turn(env);
    turn(env);
    env.snapshot().cores.iter().map(what).collect()
}

fn steered(env: &RpcEnv) -> u64 {
    per_core(env, |core| core.connections_steered).iter().sum()
}

/// Sixteen peers, of which each second one wants the same core.
fn peers(env: &RpcEnv) -> Vec<RawPeer> {
    (0..16).map(|i| RawPeer::greet_core(address(env), Some(i % 2))).collect()
}

#[test]
fn kernel_placement_leaves_a_connection_where_it_was_accepted() {
    let _alone = alone();
    bounded(|| {
        let env = placing(Placement::Kernel);
        let _peers = peers(&env);
        assert_eq!(per_core(&env, |core| core.connections), per_core(&env, |core| core.accepted));
        assert_eq!(steered(&env), 0);
        cut([env]);
    });
}

#[test]
fn least_loaded_placement_evens_out_whatever_peers_want() {
    let _alone = alone();
    bounded(|| {
        let env = placing(Placement::LeastLoaded);
        let mut peers: Vec<_> = (0..16).map(|_| RawPeer::greet_core(address(&env), Some(0))).collect();
        assert_eq!(per_core(&env, |core| core.connections), [8, 8]);
        // What goes makes room: the next ones come there.
        let held = per_core(&env, |core| core.accepted);
        peers.truncate(4);
        eventually(&env, "twelve have gone", |c| c.connections == 4);
        peers.extend((0..12).map(|_| RawPeer::greet(address(&env))));
        assert_eq!(per_core(&env, |core| core.connections), [8, 8], "{held:?}");
        cut([env]);
    });
}

#[test]
fn steered_placement_takes_a_connection_to_the_core_that_its_peer_wants() {
    let _alone = alone();
    bounded(|| {
        let env = placing(Placement::Steered);
        let there = [0, 1].map(|core| env.register_on(core, &format!("echo-{core}"), || Echoing).unwrap());
        let mut peers = peers(&env);
        assert_eq!(per_core(&env, |core| core.connections), [8, 8]);
        assert_eq!(per_core(&env, |core| core.accepted).iter().sum::<u64>(), 16);
        for (i, peer) in peers.iter_mut().enumerate() {
            let mut bytes = Vec::new();
            request(&mut bytes, 7, &format!("echo-{}", i % 2), &Echo { payload: payload(1, 100) });
            peer.stream.write_all(&bytes).unwrap();
            peer.expect_echo(7, &payload(1, 100));
        }
        assert_eq!(per_core(&env, |core| core.requests_passed), [0, 0]);
        drop(there);
        cut([env]);
    });
}

#[test]
fn a_wanted_core_that_does_not_exist_is_ignored() {
    let _alone = alone();
    bounded(|| {
        let env = placing(Placement::Steered);
        env.register("echo", || Echoing).unwrap();
        let mut peers: Vec<_> = [2, 7, u16::MAX - 1].map(|core| RawPeer::greet_core(address(&env), Some(core))).into();
        assert_eq!(per_core(&env, |core| core.connections), per_core(&env, |core| core.accepted));
        assert_eq!(steered(&env), 0);
        for peer in &mut peers {
            peer.ask(3, &Echo { payload: payload(1, 10) });
            peer.expect_echo(3, &payload(1, 10));
        }
        cut([env]);
    });
}

#[test]
fn a_peer_that_sends_frames_behind_its_hello_stays_where_it_is_and_is_answered() {
    let _alone = alone();
    bounded(|| {
        let env = placing(Placement::Steered);
        env.register("echo", || Echoing).unwrap();
        let mut peers: Vec<_> = (0..8).map(|_| RawPeer::connect(address(&env))).collect();
        for (i, peer) in peers.iter_mut().enumerate() {
            let mut bytes = hello_to(Some(i as u16 % 2));
            request(&mut bytes, 5, "echo", &Echo { payload: payload(2, 50) });
            peer.stream.write_all(&bytes).unwrap();
            peer.next(|_| ());
            peer.expect_echo(5, &payload(2, 50));
        }
        assert_eq!(per_core(&env, |core| core.connections), per_core(&env, |core| core.accepted));
        assert_eq!(steered(&env), 0);
        cut([env]);
    });
}

#[test]
fn a_core_that_has_all_its_connections_is_handed_no_more() {
    let _alone = alone();
    for placement in [Placement::Steered, Placement::LeastLoaded] {
        bounded(move || {
            let env = serving(2, Config { placement, connections: 2, ..config() });
            let peers: Vec<_> = (0..4).map(|i| RawPeer::greet_core(address(&env), Some(i % 2))).collect();
            assert_eq!(per_core(&env, |core| core.connections), [2, 2]);
            for core in [0, 1] {
                let mut refused = RawPeer::connect(address(&env));
                // It may be closed before it has read this.
                let _ = refused.stream.write_all(&hello_to(Some(core)));
                assert_eq!(refused.stream.read(&mut [0]).unwrap_or(0), 0, "closed without an answer");
            }
            eventually(&env, "both are counted", |c| c.connections_refused == 2);
            drop(peers);
            eventually(&env, "all have gone", |c| (c.connections, c.sockets) == (0, 2));
            let _again = RawPeer::greet_core(address(&env), Some(1));
            cut([env]);
        });
    }
}

#[test]
fn peers_that_break_off_while_they_are_steered_leave_nothing_behind() {
    let _alone = alone();
    bounded(|| {
        let env = placing(Placement::Steered);
        env.register("echo", || Echoing).unwrap();
        eventually(&env, "it has started", |c| c.sockets == 2);
        let files = open_files();
        for i in 0..400 {
            let hello = hello_to(Some(i % 2));
            let mut peer = RawPeer::connect(address(&env));
            let mut ask = Vec::new();
            request(&mut ask, 5, "echo", &Echo { payload: payload(2, 50) });
            // All of these may fail once the env has closed the connection.
            let _ = match i / 2 % 5 {
                // Gone while the socket is on its way.
                0 => peer.stream.write_all(&hello),
                1 => peer.stream.write_all(&hello[..hello.len() - 1]),
                // It does not wait for the answer to its hello: a breach that is met on one core or on the other.
                2 => peer.stream.write_all(&hello).and_then(|()| peer.stream.write_all(b"GET / HTTP/1.1")),
                3 => peer.stream.write_all(&hello).and_then(|()| peer.stream.write_all(&ask)),
                _ => peer.stream.write_all(&hello).and_then(|()| peer.stream.shutdown(std::net::Shutdown::Write)),
            };
        }
        eventually(&env, "all have gone", |c| (c.connections, c.sockets, c.timers) == (0, 2, 0));
        until("no descriptor is left", || open_files() == files);
        assert!(steered(&env) > 0);
        cut([env]);
    });
}

#[test]
fn an_env_that_ends_while_connections_are_steered_leaves_no_socket() {
    let _alone = alone();
    bounded(|| {
        let files = open_files();
        for _ in 0..20 {
            let env = builder("server", 2, config()).bind("127.0.0.1:0").start().unwrap();
            let mut peers: Vec<_> = (0..8).map(|_| RawPeer::connect(address(&env))).collect();
            for (i, peer) in peers.iter_mut().enumerate() {
                let _ = peer.stream.write_all(&hello_to(Some(i as u16 % 2)));
            }
            cut([env]);
            // Either it had its answer before, or the end comes at once.
            peers.iter_mut().for_each(|peer| while peer.stream.read(&mut [0; 100]).is_ok_and(|count| count > 0) {});
        }
        until("no descriptor is left", || open_files() == files);
    });
}

//! Which core a connection comes to, and which one a message.

mod common;

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::net::SocketAddr;

use common::echo::{Echo, Echoing, alone, cut, open_files, payload, until};
use common::raw::{RawPeer, hello_to, request};
use common::scene::at_every_distance;
use common::{LIMIT, bounded, builder, client, config, end, eventually, seen_from, serving, turn, unix_socket, uri};
use ringpost::net::reader::Incoming;
use ringpost::{
    AskError, CallContext, Config, CoreSnapshot, Endpoint, EndpointRef, HandleSync, HandlerError, Handlers, Placement,
    RpcEnv, message,
};
use serde::{Deserialize, Serialize};

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
fn connections_that_are_steered_while_others_are_accepted_all_arrive() {
    const AT_ONCE: u16 = 40;
    let _alone = alone();
    bounded(|| {
        let env = serving(2, Config { connections: usize::from(AT_ONCE), ..config() });
        for _ in 0..50 {
            let greet = |i| {
                let mut peer = RawPeer::connect(address(&env));
                peer.stream.write_all(&hello_to(Some(i % 2))).unwrap();
                peer
            };
            for mut peer in (0..AT_ONCE).map(greet).collect::<Vec<_>>() {
                assert!(peer.next(|incoming| matches!(incoming, Incoming::Hello(_))));
            }
            eventually(&env, "all have gone", |c| c.connections == 0);
        }
        let end = env.snapshot().total();
        assert!(end.connections_steered > 0 && end.connections_refused == 0, "{end:?}");
        cut([env]);
    });
}

#[test]
fn peers_that_break_off_while_they_are_steered_leave_nothing_behind() {
    let _alone = alone();
    bounded(|| {
        let env = placing(Placement::Steered);
        env.register("echo", || Echoing).unwrap();
        eventually(&env, "it has started", |c| c.sockets == 2);
        let files = open_files();
        for i in 0..480 {
            let hello = hello_to(Some(i % 2));
            let mut peer = RawPeer::connect(address(&env));
            let mut ask = Vec::new();
            request(&mut ask, 5, "echo", &Echo { payload: payload(2, 50) });
            // All of these may fail once the env has closed the connection.
            let _ = match i / 2 % 6 {
                // Gone while the socket is on its way.
                0 => peer.stream.write_all(&hello),
                1 => peer.stream.write_all(&hello[..hello.len() - 1]),
                // It does not wait for the answer to its hello: a breach that is met on one core or on the other.
                2 => peer.stream.write_all(&hello).and_then(|()| peer.stream.write_all(b"GET / HTTP/1.1")),
                3 => peer.stream.write_all(&hello).and_then(|()| peer.stream.write_all(&ask)),
                4 => peer.stream.write_all(&hello).and_then(|()| peer.stream.shutdown(std::net::Shutdown::Write)),
                // Gone when it has arrived. The others may be gone before their hello is read, and are not steered then.
                _ => peer.stream.write_all(&hello).and_then(|()| peer.stream.read_exact(&mut [0])),
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

/// One-way: keep this number for this key.
#[derive(Serialize, Deserialize)]
struct Put {
    key: u64,
    number: u32,
}
message!(Put as "routing.Put");

/// Which core has this key, and which numbers has it kept?
#[derive(Serialize, Deserialize)]
struct Get {
    key: u64,
}
message!(Get as "routing.Get" => (usize, Vec<u32>));

#[derive(Default)]
struct Store(HashMap<u64, Vec<u32>>);

impl Endpoint for Store {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<Get>().send_sync::<Put>();
    }
}

impl HandleSync<Put> for Store {
    fn handle(&mut self, put: Put, _: &mut CallContext) -> Result<(), HandlerError> {
        self.0.entry(put.key).or_default().push(put.number);
        Ok(())
    }
}

impl HandleSync<Get> for Store {
    fn handle(&mut self, get: Get, context: &mut CallContext) -> Result<(usize, Vec<u32>), HandlerError> {
        Ok((context.core(), self.0.get(&get.key).cloned().unwrap_or_default()))
    }
}

/// Sends and asks on this core, in turn and with refs of all these keys; gives the core that has each key.
fn use_keys(env: &RpcEnv, core: usize, store: &EndpointRef, keys: std::ops::Range<u64>) -> Vec<usize> {
    let store = store.clone();
    let work = move || async move {
        for number in 0..20 {
            for key in keys.clone() {
                store.by_key(key).send(Put { key, number }).unwrap();
            }
        }
        let mut cores = Vec::new();
        for key in keys {
            let (core, numbers) = store.by_key(key).ask(Get { key }).await.unwrap();
            assert_eq!(numbers, (0..20).collect::<Vec<_>>(), "in order, and all on one core");
            cores.push(core);
        }
        cores
    };
    env.spawn_on(core, work).unwrap().join().unwrap()
}

#[test]
fn a_key_means_the_same_core_at_every_distance_and_keys_spread() {
    let _alone = alone();
    bounded(|| {
        let seen = std::cell::RefCell::new(HashSet::new());
        at_every_distance(config(), |scene| {
            let own = scene.answering.register_per_core("store", |_| Store::default()).unwrap();
            let uri = own.uri();
            let refs = match scene.distance.is_remote() {
                false => vec![own],
                true => vec![seen_from(&scene.asking, &own), scene.asking.lookup_blocking(&uri).unwrap()],
            };
            for (keys, store) in [0..40, 1000..1040].into_iter().zip(refs.iter().cycle()) {
                let cores = use_keys(&scene.asking, 0, store, keys.clone());
                for core in [0, 1] {
                    let count = cores.iter().filter(|&&on| on == core).count();
                    assert!((10..=30).contains(&count), "core {core} has {count} keys of 40");
                }
                seen.borrow_mut().insert((keys.start, cores));
            }
        });
        assert_eq!(seen.borrow().len(), 2, "for each range of keys the same cores at every distance");
    });
}

#[test]
fn messages_over_steered_connections_take_no_lane_hop() {
    let _alone = alone();
    for bind in ["127.0.0.1:0".to_owned(), unix_socket()] {
        bounded(move || {
            let (env, asking) = (builder("server", 2, config()).bind(bind).start().unwrap(), client(2));
            let names = ["store-0", "store-1"];
            for (core, name) in names.iter().enumerate() {
                env.register_on(core, name, Store::default).unwrap();
            }
            env.register_per_core("stores", |_| Store::default()).unwrap();
            let looked_up = names.map(|name| asking.lookup_blocking(&uri(&env, name)).unwrap());
            let stores = asking.lookup_blocking(&uri(&env, "stores")).unwrap();
            let before = per_core(&env, |core| core.requests_in);
            for core in [0, 1] {
                for (there, store) in looked_up.iter().enumerate() {
                    let cores = use_keys(&asking, core, store, core as u64 * 10..core as u64 * 10 + 5);
                    assert_eq!(cores, [there; 5]);
                }
                use_keys(&asking, core, &stores, core as u64 * 100..core as u64 * 100 + 10);
            }
            let after = per_core(&env, |core| core.requests_in);
            assert_eq!(after.iter().sum::<u64>() - before.iter().sum::<u64>(), 2 * (2 * 5 + 10) * 21);
            assert_eq!(per_core(&env, |core| core.requests_passed), [0, 0]);
            // One of each core there to each core here, and the one by which `stores` was looked up.
            assert_eq!(per_core(&env, |core| core.connections).iter().sum::<u64>(), 5);
            // Without a look-up a core has one connection, so one of the two endpoints is behind the wrong core.
            for core in [0, 1] {
                for name in names {
                    let lazy = asking.endpoint_ref(&uri(&env, name)).unwrap();
                    asking
                        .spawn_on(core, move || async move { lazy.ask(Get { key: 9 }).await })
                        .unwrap()
                        .join()
                        .unwrap()
                        .unwrap();
                }
            }
            assert_eq!(per_core(&env, |core| core.requests_passed).iter().sum::<u64>(), 2, "the counter counts");
            end(&asking);
            end(&env);
        });
    }
}

#[test]
fn a_looked_up_ref_equals_a_lazy_one_and_names_the_endpoint_in_errors() {
    let _alone = alone();
    bounded(|| {
        let (env, asking) = (placing(Placement::Steered), client(1));
        let own = env.register_on(1, "store", Store::default).unwrap();
        let (lazy, found) = (seen_from(&asking, &own), asking.lookup_blocking(&uri(&env, "store")).unwrap());
        assert_eq!(lazy, found);
        assert_eq!(lazy.by_key(3), found.by_key(3));
        assert_ne!(lazy, found.by_key(3));
        assert_eq!(HashSet::from([lazy.clone(), found.clone(), own.clone()]).len(), 2);
        assert_eq!(found.uri(), own.uri());
        assert!(env.stop(&own));
        let [a, b] = [&lazy, &found].map(|store| store.ask_blocking(Get { key: 0 }).unwrap_err());
        assert_eq!(a, b);
        assert!(matches!(&a, AskError::NoEndpoint { target } if target.contains("store@127.0.0.1:")), "{a:?}");
        end(&asking);
        end(&env);
    });
}

#[test]
fn an_endpoint_that_has_moved_to_another_core_is_reached_by_a_looked_up_ref() {
    let _alone = alone();
    bounded(|| {
        let (env, asking) = (placing(Placement::Steered), client(1));
        let first = env.register_on(0, "store", Store::default).unwrap();
        let store = asking.lookup_blocking(&uri(&env, "store")).unwrap();
        assert_eq!(store.ask_blocking(Get { key: 0 }).unwrap().0, 0);
        assert!(env.stop(&first));
        env.register_on(1, "store", Store::default).unwrap();
        common::echo::until("the new one answers", || {
            store.ask_blocking(Get { key: 0 }).is_ok_and(|(core, _)| core == 1)
        });
        assert!(per_core(&env, |core| core.requests_passed).iter().sum::<u64>() > 0);
        end(&asking);
        end(&env);
    });
}

#[test]
fn a_looked_up_ref_asks_no_core_of_a_node_that_does_not_steer() {
    let _alone = alone();
    bounded(|| {
        let (env, asking) = (placing(Placement::Kernel), client(1));
        let names = ["store-0", "store-1"];
        for (core, name) in names.iter().enumerate() {
            env.register_on(core, name, Store::default).unwrap();
        }
        let refs = names.map(|name| asking.lookup_blocking(&uri(&env, name)).unwrap());
        for (core, store) in refs.iter().enumerate() {
            assert_eq!(store.ask_blocking_within(Get { key: 0 }, LIMIT).unwrap().0, core);
        }
        assert_eq!(eventually(&asking, "they share", |c| c.connections == 1).connections, 1);
        end(&asking);
        end(&env);
    });
}

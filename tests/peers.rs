//! Who asks: what an endpoint learns of the node at the other end.

mod common;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use common::echo::within;
use common::scene::{Scene, at_every_distance};
use common::{LIMIT, bounded, builder, client, config, end, eventually, seen_from, server};
use ringpost::{
    CallContext, Caller, Endpoint, EndpointRef, HandleDeferred, HandleSync, HandlerError, Handlers, Peer, Remote,
    Replier, RpcEnv, message,
};
use serde::{Deserialize, Serialize};

/// Look who asks.
#[derive(Serialize, Deserialize)]
struct Knock;
message!(Knock as "peers.Knock" => ());

/// As [`Knock`], to be answered later.
#[derive(Serialize, Deserialize)]
struct Wait;
message!(Wait as "peers.Wait" => ());

/// Tells the test who asks.
struct Porter {
    callers: Sender<Caller>,
    waiting: Sender<Replier<()>>,
}

impl Endpoint for Porter {
    fn handlers(handlers: &mut Handlers<Self>) {
        handlers.ask_sync::<Knock>().ask_deferred::<Wait>();
    }
}

impl HandleSync<Knock> for Porter {
    fn handle(&mut self, _: Knock, context: &mut CallContext) -> Result<(), HandlerError> {
        self.callers.send(context.caller()).unwrap();
        Ok(())
    }
}

impl HandleDeferred<Wait> for Porter {
    fn handle(&mut self, _: Wait, replier: Replier<()>, _: &mut CallContext) -> Result<(), HandlerError> {
        self.waiting.send(replier).unwrap();
        Ok(())
    }
}

/// The test's side of a porter.
struct Lodge {
    callers: Receiver<Caller>,
    waiting: Receiver<Replier<()>>,
}

impl Lodge {
    fn porter() -> (Porter, Lodge) {
        let ((callers, heard), (waiting, kept)) = (channel(), channel());
        (Porter { callers, waiting }, Lodge { callers: heard, waiting: kept })
    }

    /// Who was there last.
    fn caller(&self) -> Caller {
        self.callers.recv_timeout(LIMIT).unwrap()
    }

    fn peer(&self) -> Peer {
        match self.caller() {
            Caller::Peer(peer) => peer,
            other => panic!("{other:?} is no peer"),
        }
    }
}

/// A porter of this env.
fn host(env: &RpcEnv) -> (EndpointRef, Lodge) {
    let (porter, lodge) = Lodge::porter();
    (env.register("porter", || porter).unwrap(), lodge)
}

fn knock(scene: &Scene, door: &EndpointRef) {
    let there = door.clone();
    scene.run(move || async move { there.ask(Knock).await }).unwrap();
}

#[test]
fn a_handler_and_a_replier_learn_the_same_about_who_asks() {
    bounded(|| {
        at_every_distance(config(), |scene| {
            let (porter, lodge) = Lodge::porter();
            let door = scene.place("porter", || porter);
            knock(scene, &door);
            let first = lodge.caller();
            knock(scene, &door);
            assert_eq!(lodge.caller(), first, "it came the same way");
            match &first {
                Caller::Core(core) => assert_eq!((*core, scene.distance.is_remote()), (0, false)),
                Caller::Peer(peer) => {
                    assert!(scene.distance.is_remote(), "{peer:?}");
                    assert_eq!((peer.name(), peer.address(), peer.connections()), ("asker", None, 1));
                    assert_ne!(peer.node_id(), 0);
                }
                other => panic!("{other:?}"),
            }
            let there = door.clone();
            let asking = scene.asking.spawn_on(0, move || async move { there.ask(Wait).await }).unwrap();
            let replier = lodge.waiting.recv_timeout(LIMIT).unwrap();
            assert_eq!(replier.caller(), first, "seen from another thread");
            replier.reply(());
            asking.join().unwrap().unwrap();
        });
    });
}

#[test]
fn a_peer_that_listens_is_known_by_the_address_that_it_advertises() {
    bounded(|| {
        let (near, far) = (server(1), server(1));
        let (door, lodge) = host(&near);
        seen_from(&far, &door).ask_blocking(Knock).unwrap();
        let peer = lodge.peer();
        let listens = far.address().unwrap().to_string();
        assert_eq!(peer.address(), Some(&*listens));
        let Remote::Tcp(socket) = peer.remote() else { panic!("{peer:?}") };
        assert_ne!(socket.to_string(), listens, "it connected from another port");
        [&far, &near].into_iter().for_each(end);
    });
}

#[test]
fn two_clients_of_the_same_name_are_two_nodes() {
    bounded(|| {
        let env = server(1);
        let (door, lodge) = host(&env);
        let clients = [client(1), client(1)];
        let doors = clients.each_ref().map(|client| seen_from(client, &door));
        let [one, other] = doors.each_ref().map(|door| {
            door.ask_blocking(Knock).unwrap();
            lodge.peer()
        });
        assert_eq!(one.name(), other.name());
        assert_ne!(one.node_id(), other.node_id());
        assert_ne!(one, other);
        assert_eq!((one.connections(), other.connections()), (1, 1));
        clients.iter().for_each(end);
        end(&env);
    });
}

#[test]
fn connections_to_two_envs_of_one_process_are_never_equal() {
    bounded(|| {
        let servers = [server(1), server(1)];
        let asking = client(1);
        let hosts = servers.each_ref().map(host);
        // Each is its env's first connection, and leads to the same node.
        let [one, other] = hosts.each_ref().map(|(door, lodge)| {
            seen_from(&asking, door).ask_blocking(Knock).unwrap();
            lodge.peer()
        });
        assert_eq!((one.node_id(), one.connection()), (other.node_id(), other.connection()));
        assert_ne!(one, other);
        end(&asking);
        servers.iter().for_each(end);
    });
}

#[test]
fn the_connections_of_all_cores_of_a_node_are_counted_until_they_end() {
    bounded(|| {
        let env = server(2);
        let (door, lodge) = host(&env);
        let asking = builder("client", 2, config()).start().unwrap();
        let there = seen_from(&asking, &door);
        let peers = [0, 1].map(|core| {
            let door = there.clone();
            asking.spawn_on(core, move || async move { door.ask(Knock).await }).unwrap().join().unwrap().unwrap();
            lodge.peer()
        });
        assert_eq!(peers[0].node_id(), peers[1].node_id());
        assert_ne!(peers[0], peers[1], "each core has a connection of its own");
        assert_eq!(peers.each_ref().map(Peer::connections), [2, 2]);
        end(&asking);
        eventually(&env, "the connections have ended", |now| now.connections == 0);
        assert_eq!(peers.each_ref().map(Peer::connections), [0, 0]);
        end(&env);
    });
}

#[test]
fn a_caller_whose_connection_has_ended_is_gone() {
    bounded(|| {
        let (env, asking) = (server(2), client(1));
        let (door, lodge) = host(&env);
        let waiting = seen_from(&asking, &door).ask(Wait);
        let replier = lodge.waiting.recv_timeout(LIMIT).unwrap();
        assert!(matches!(replier.caller(), Caller::Peer(_)), "{:?}", replier.caller());
        asking.shutdown(Duration::ZERO);
        assert!(asking.await_termination_within(LIMIT).unwrap());
        within(waiting).unwrap_err();
        eventually(&env, "the connection has ended", |now| now.connections == 0);
        assert_eq!(replier.caller(), Caller::Gone);
        end(&env);
    });
}

#[test]
fn a_node_at_several_addresses_is_asked_at_each_and_counts_as_another_one_at_the_second_with_a_warning() {
    bounded(|| {
        common::log::keep();
        let env = builder("server", 2, config()).bind("0.0.0.0:0").advertise("127.0.0.1").start().unwrap();
        let asking = builder("client", 2, config()).start().unwrap();
        let (_, lodge) = host(&env);
        let port = env.address().unwrap().port().unwrap();
        // Two names of one socket, and another socket.
        let addresses = ["127.0.0.1", "localhost", "127.0.0.2"].map(|host| format!("{host}:{port}"));
        let doors = addresses.each_ref().map(|at| asking.endpoint_ref((at.as_str(), "porter")).unwrap());
        for (door, core) in doors.iter().zip([0, 1, 0]).chain(doors.iter().zip([1, 0, 1])) {
            let door = door.clone();
            asking.spawn_on(core, move || async move { door.ask(Knock).await }).unwrap().join().unwrap().unwrap();
            assert_eq!(lodge.peer().name(), "client");
        }
        let warned = common::log::take().into_iter().filter(|(_, line)| line.contains("counts as another node"));
        let warned: Vec<_> = warned.filter(|(_, line)| line.contains(&port.to_string())).collect();
        assert!((1..=2).contains(&warned.len()), "one for each core at most: {warned:?}");
        assert!(warned.iter().all(|(_, line)| line.contains(&addresses[2])), "{warned:?}");
        [&asking, &env].into_iter().for_each(end);
    });
}

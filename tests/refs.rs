//! Refs to nodes that do not listen: they lead back over the connection that the node has opened, and nowhere else.

mod common;

use std::collections::HashSet;
use std::time::Duration;

use common::echo::{cut, within};
use common::gate::{Event, Gate};
use common::guest::{Collect, Desk, Fail, Leave, Note, Notes, Number, Unknown, Wait, WhoAreYou, desk, guest, left, on};
use common::proxy::Proxy;
use common::{LIMIT, bounded, client, end, eventually, kind, seen_from, server, turn};
use ringpost::{AskError, EndpointRef, message};
use serde::{Deserialize, Serialize};

#[test]
fn a_server_asks_its_client_from_every_core_over_the_connection_that_the_client_opened() {
    bounded(|| {
        let (server, client) = (server(2), client(2));
        let desk = desk(&server, &client);
        for core in 0..2 {
            let guest = guest(&client, core, &format!("guest{core}"), core as u64);
            let there = left(&desk, &guest);
            for from in 0..2 {
                let to = there.clone();
                let answer = on(&server, from, move || async move { to.ask(Number(7)).await });
                assert_eq!(answer.unwrap(), (7, core as u64));
            }
            assert_eq!(there.ask_blocking(Number(8)).unwrap(), (8, core as u64));
            assert!(there.uri().starts_with("ringpost-client://guest"), "{there}");
            assert_eq!(there.uri(), guest.uri());
        }
        assert_eq!(server.snapshot().total().dialled, 0);
        end(&client);
        end(&server);
    });
}

#[test]
fn what_one_core_sends_to_a_client_arrives_in_order_whoever_owns_the_connection() {
    const COUNT: u64 = 2000;
    bounded(|| {
        let (server, client) = (server(2), client(1));
        let desk = desk(&server, &client);
        for from in 0..2 {
            let there = left(&desk, &guest(&client, 0, &format!("guest{from}"), 0));
            let notes = on(&server, from, move || async move {
                let mut asks = Vec::new();
                for number in 0..COUNT {
                    if number % 3 == 0 {
                        asks.push(there.ask(Number(number)));
                    } else {
                        there.send(Note(number)).unwrap();
                    }
                }
                for ask in asks {
                    ask.await.unwrap();
                }
                there.ask(Notes).await.unwrap()
            });
            assert_eq!(notes, (0..COUNT).collect::<Vec<_>>(), "from core {from}");
        }
        end(&client);
        end(&server);
    });
}

#[test]
fn asks_of_a_client_fail_as_any_others_do() {
    bounded(|| {
        let (server, client) = (server(2), client(1));
        let desk = desk(&server, &client);
        let guest = guest(&client, 0, "guest", 0);
        let there = left(&desk, &guest);
        for from in 0..2 {
            let to = there.clone();
            let [failed, panicked, unknown] = on(&server, from, move || async move {
                let ends = [to.ask(Fail(false)).await, to.ask(Fail(true)).await, to.ask(Unknown).await];
                ends.map(Result::unwrap_err)
            });
            let AskError::Handler { error, target } = failed else { panic!("{failed:?}") };
            assert!(error.text() == "no room" && target.contains("guest@client:"), "{target}");
            assert!(matches!(panicked, AskError::Handler { error, .. } if error.is_panic()));
            assert_eq!(kind(&unknown), "UnknownMessage");

            // What nobody waits for any more is stopped where it runs: after its time, or when it is dropped.
            let (timed, dropped) = (Gate::new(), Gate::new());
            let (to, ids) = (there.clone(), (timed.id, dropped.id));
            let late = on(&server, from, move || async move {
                to.ask_within(Wait(ids.0), Duration::from_millis(30)).await.unwrap_err()
            });
            let AskError::Timeout { target, setting, .. } = late else { panic!("{late:?}") };
            assert!(target.contains("guest@client:") && setting.contains("ask_within"), "{target}, {setting}");
            assert!(target.contains("(\"client\" from 127.0.0.1:"), "{target}");
            timed.expect(Event::Entered);
            timed.expect(Event::Dropped);
            let asking = on(&server, from, {
                let to = there.clone();
                move || std::future::ready(to.ask(Wait(ids.1)))
            });
            dropped.expect(Event::Entered);
            drop(asking);
            dropped.expect(Event::Dropped);
        }
        assert!(client.stop(&guest));
        eventually(&client, "the guest has gone", |now| now.endpoints == 1);
        for from in 0..2 {
            let to = there.clone();
            let gone = on(&server, from, move || async move { to.ask(Number(1)).await.unwrap_err() });
            assert_eq!(kind(&gone), "NoEndpoint");
        }
        eventually(&server, "nothing is left", |now| now.pending_asks == 0);
        end(&client);
        end(&server);
    });
}

#[test]
fn a_ref_that_was_passed_on_reaches_its_own_node_or_nobody() {
    bounded(|| {
        let (second, third, client) = (server(1), server(2), client(1));
        let desk = desk(&second, &client);
        let there = left(&desk, &guest(&client, 0, "guest", 1));
        // The third node has an endpoint with that name too, and is not connected with the client.
        guest(&third, 0, "guest", 3);
        let counter = third.register("counter", Desk::default).unwrap();
        seen_from(&second, &counter).ask_blocking(Leave(there.clone())).unwrap();
        let passed_on = counter.ask_blocking(Collect).unwrap().unwrap();
        let error = passed_on.ask_blocking(Number(1)).unwrap_err();
        let AskError::Unreachable { peer, cause } = &error else { panic!("{error:?}") };
        assert!(peer.contains("guest@client:") && cause.contains("listens nowhere"), "{error}");
        let to = passed_on.clone();
        let refused = on(&third, 1, move || async move { to.send(Note(1)).unwrap_err().to_string() });
        assert!(refused.contains("listens nowhere"), "{refused}");
        // Once it is, the ref works.
        let connected = seen_from(&client, &counter);
        connected.ask_blocking(Collect).unwrap();
        for from in 0..2 {
            let to = passed_on.clone();
            assert_eq!(on(&third, from, move || async move { to.ask(Number(2)).await }).unwrap(), (2, 1));
        }
        [client, second, third].iter().for_each(end);
    });
}

#[test]
fn a_ref_works_again_after_its_node_has_connected_again() {
    bounded(|| {
        let (server, client) = (server(2), client(1));
        let proxy = Proxy::before(server.address().unwrap().to_string());
        let own = server.register("desk", Desk::default).unwrap();
        let seen = client.endpoint_ref((proxy.address.to_string().as_str(), "desk")).unwrap();
        let desk = (own, seen);
        let there = left(&desk, &guest(&client, 0, "guest", 5));
        assert_eq!(there.ask_blocking(Number(1)).unwrap(), (1, 5));
        for round in 2..5 {
            let gate = Gate::new();
            let hanging = there.ask(Wait(gate.id));
            gate.expect(Event::Entered);
            proxy.cut();
            assert_eq!(kind(&within(hanging).unwrap_err()), "Disconnected");
            gate.expect(Event::Dropped);
            eventually(&server, "the connection has ended", |now| now.connections == 0);
            assert_eq!(kind(&there.ask_blocking(Number(round)).unwrap_err()), "Unreachable");
            eventually(&client, "the connection has ended", |now| now.connections == 0);
            desk.1.ask_blocking(Collect).unwrap();
            for from in 0..2 {
                let to = there.clone();
                let answer = on(&server, from, move || async move { to.ask(Number(round)).await });
                assert_eq!(answer.unwrap(), (round, 5));
            }
        }
        end(&client);
        end(&server);
    });
}

#[test]
fn two_clients_are_never_taken_for_each_other() {
    bounded(|| {
        let (server, clients) = (server(1), [client(1), client(1)]);
        let own = server.register("desk", Desk::default).unwrap();
        let there: Vec<_> = clients
            .iter()
            .zip(0..)
            .map(|(client, id)| left(&(own.clone(), seen_from(client, &own)), &guest(client, 0, "guest", id)))
            .collect();
        assert_ne!(there[0], there[1]);
        assert_eq!(there.iter().cloned().collect::<HashSet<_>>().len(), 2);
        for (id, to) in (0..).zip(&there) {
            assert_eq!(to.ask_blocking(Number(9)).unwrap(), (9, id));
        }
        // One of them goes: its name does not lead to the other.
        let [first, second] = clients;
        let gate = Gate::new();
        let hanging = there[0].ask(Wait(gate.id));
        gate.expect(Event::Entered);
        cut([first]);
        assert_eq!(kind(&within(hanging).unwrap_err()), "Disconnected");
        eventually(&server, "its connection has ended", |now| now.connections == 1);
        assert_eq!(kind(&there[0].ask_blocking(Number(1)).unwrap_err()), "Unreachable");
        assert_eq!(there[1].ask_blocking(Number(1)).unwrap(), (1, 1));
        end(&second);
        end(&server);
    });
}

#[test]
fn a_ref_that_comes_home_is_the_endpoint_itself() {
    bounded(|| {
        let (server, client) = (server(1), client(1));
        let desk = desk(&server, &client);
        let guest = guest(&client, 0, "guest", 4);
        left(&desk, &guest);
        let home = desk.1.ask_blocking(Collect).unwrap().unwrap();
        assert_eq!(home, guest);
        assert!(client.stop(&home), "it is the very endpoint");
        let looked_up = client.lookup_blocking(&guest.uri()).unwrap_err();
        assert!(looked_up.to_string().contains("no endpoint"), "{looked_up}");
        end(&client);
        end(&server);
    });
}

#[test]
fn a_server_can_look_up_an_endpoint_of_its_client() {
    bounded(|| {
        let (server, client) = (server(2), client(1));
        let desk = desk(&server, &client);
        let there = left(&desk, &guest(&client, 0, "guest", 4));
        let found = server.lookup_blocking(&there.uri()).unwrap();
        assert_eq!((found.ask_blocking(Number(2)).unwrap(), &found), ((2, 4), &there));
        let missing = server.lookup_blocking(&there.uri().replace("guest", "ghost")).unwrap_err();
        assert!(missing.to_string().contains("ringpost-client://ghost"), "{missing}");
        end(&client);
        end(&server);
    });
}

#[test]
fn a_connection_stays_open_for_a_ref_that_went_over_it() {
    bounded(|| {
        let (server, client) = (server(1), client(1));
        let own = server.register("desk", Desk::default).unwrap();
        // A connection over which no ref went closes with the last ref to the peer.
        seen_from(&client, &own).ask_blocking(Collect).unwrap();
        eventually(&client, "the connection has closed", |now| now.connections == 0);
        let guest = guest(&client, 0, "guest", 4);
        seen_from(&client, &own).ask_blocking(Leave(guest)).unwrap();
        let there = own.ask_blocking(Collect).unwrap().unwrap();
        for _ in 0..10 {
            turn(&client);
        }
        assert_eq!(within(there.ask_within(Number(1), LIMIT)), Ok((1, 4)));
        assert_eq!(client.snapshot().total().connections, 1);
        drop(there);
        end(&client);
        end(&server);
    });
}

/// A ref and a field that does not serialise.
#[derive(Serialize, Deserialize)]
struct Torn(EndpointRef, #[serde(serialize_with = "refuse")] u8);
message!(Torn as "refs.Torn" => ());

fn refuse<S: serde::Serializer>(_: &u8, _: S) -> Result<S::Ok, S::Error> {
    Err(serde::ser::Error::custom("as told"))
}

#[test]
fn a_ref_that_left_in_no_frame_keeps_no_connection_open() {
    bounded(|| {
        let (server, client) = (server(1), client(1));
        let own = server.register("desk", Desk::default).unwrap();
        let guest = guest(&client, 0, "guest", 4);
        for written_to in ["a log line", "a frame that was not sent"] {
            let (seen, guest) = (seen_from(&client, &own), guest.clone());
            on(&client, 0, move || async move {
                if written_to == "a log line" {
                    assert!(serde_json::to_string(&guest).unwrap().contains("guest"));
                } else {
                    assert_eq!(kind(&seen.ask(Torn(guest, 0)).await.unwrap_err()), "Unsendable");
                }
                seen.ask(Collect).await.unwrap();
            });
            eventually(&client, written_to, |now| now.connections == 0);
        }
        end(&client);
        end(&server);
    });
}

#[test]
fn an_ask_outlives_its_ref_beside_those_of_the_next_ref_and_all_end_with_their_connection() {
    bounded(|| {
        for cuts in [false, true] {
            let (server, client) = (server(1), client(1));
            let desk = desk(&server, &client);
            let there = left(&desk, &guest(&client, 0, "first", 1));
            let mut gates = [Gate::new(), Gate::new()];
            let first = there.ask(Wait(gates[0].id));
            gates[0].expect(Event::Entered);
            drop(there);
            drop(desk.0.ask_blocking(Leave(desk.0.clone())).unwrap());
            turn(&server);
            let there = left(&desk, &guest(&client, 0, "second", 2));
            let second = there.ask(Wait(gates[1].id));
            gates[1].expect(Event::Entered);
            if cuts {
                cut([client]);
                for ask in [first, second] {
                    assert_eq!(kind(&within(ask).unwrap_err()), "Disconnected");
                }
            } else {
                gates[0].open();
                assert_eq!(within(first), Ok(()));
                // The connection's timer, and that of the second ask.
                eventually(&server, "what is left of the first ref is gone", |now| now.timers == 2);
                gates[1].open();
                assert_eq!(within(second), Ok(()));
                let gate = Gate::new();
                let third = there.ask(Wait(gate.id));
                gate.expect(Event::Entered);
                cut([client]);
                assert_eq!(kind(&within(third).unwrap_err()), "Disconnected");
            }
            end(&server);
        }
    });
}

#[test]
fn a_connection_stays_open_for_a_ref_that_was_answered_over_it_from_any_core() {
    bounded(|| {
        for core in 0..2 {
            let (server, client) = (server(1), client(2));
            let desk = desk(&server, &client);
            let guest = guest(&client, core, "guest", 3);
            // The connection is that of core 0.
            let seen = desk.1.clone();
            on(&client, 0, move || async move { seen.ask(Collect).await.map(drop) }).unwrap();
            let there = server.lookup_blocking(&guest.uri()).unwrap();
            let there = there.ask_blocking(WhoAreYou).unwrap();
            drop(desk);
            for _ in 0..10 {
                turn(&client);
            }
            assert_eq!(within(there.ask_within(Number(1), LIMIT)), Ok((1, 3)), "on core {core}");
            end(&client);
            end(&server);
        }
    });
}

/// Sends a note and panics when it is dropped where it was sent.
#[derive(Serialize, Deserialize)]
struct Sharp(Option<EndpointRef>, #[serde(skip)] bool);
message!(Sharp as "refs.Sharp" => ());

impl Drop for Sharp {
    fn drop(&mut self) {
        if let (true, Some(to)) = (self.1, &self.0) {
            to.send(Note(1)).unwrap();
            panic!("a drop panics");
        }
    }
}

#[test]
fn a_message_may_do_anything_when_the_core_that_relayed_it_drops_it() {
    bounded(|| {
        let (server, client) = (server(2), client(1));
        let desk = desk(&server, &client);
        let there = left(&desk, &guest(&client, 0, "guest", 6));
        turn(&server);
        turn(&server);
        let owner = server.snapshot().cores.iter().position(|core| core.connections == 1).unwrap();
        let to = there.clone();
        let answer = on(&server, 1 - owner, move || async move { to.ask(Sharp(Some(to.clone()), true)).await });
        assert_eq!(kind(&answer.unwrap_err()), "UnknownMessage");
        assert_eq!(within(there.ask(Notes)), Ok(vec![1]));
        end(&client);
        end(&server);
    });
}

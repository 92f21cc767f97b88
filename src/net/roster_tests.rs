use std::time::Duration;

use super::*;
use crate::wire::handshake::OutboxTag;

const MEMORY: Memory = Memory { nodes: 2, time: Duration::from_nanos(100) };

fn roster() -> Roster {
    Roster::new(4, 64, MEMORY)
}

fn hello(incarnation: u64) -> Hello {
    Hello {
        versions: (1, 1),
        max_frame: 4096,
        cores: 1,
        wanted_core: None,
        incarnation,
        name: "n".into(),
        advertised: None,
        token: None,
        outbox: None,
        given: None,
    }
}

/// With this token, from the connection of an outbox with this id and ordinal.
fn known(incarnation: u64, token: u8, (id, ordinal): (u64, u64)) -> Hello {
    Hello { token: Some(Token([token; 16])), outbox: Some(OutboxTag { id, ordinal }), ..hello(incarnation) }
}

fn id(slot: u32) -> ConnectionId {
    ConnectionId { slot, generation: 0 }
}

fn arrive(roster: &Roster, core: u16, slot: u32, hello: &Hello, now: u64) -> Result<Arrived, Superseded> {
    let (connection, fresh) = (id(slot), 1000 + u64::from(slot));
    roster.enter(&Arrival { core, connection, remote: Remote::Unix, hello, dialled: None, now, fresh })
}

fn dial(roster: &Roster, slot: u32, hello: &Hello) -> Peer {
    let (connection, fresh) = (id(slot), 1000 + u64::from(slot));
    let arrival = Arrival { core: 0, connection, remote: Remote::Unix, hello, dialled: Some("h:1"), now: 0, fresh };
    roster.enter(&arrival).unwrap().peer
}

fn over(roster: &Roster, node: u64, core: u16) -> Option<(u16, u32)> {
    roster.route_to(node, core).map(|route| (route.core, route.connection.slot))
}

#[test]
fn a_node_is_reached_over_its_open_connections_the_own_core_first() {
    let roster = roster();
    let first = arrive(&roster, 1, 7, &known(42, 1, (1, 1)), 0).unwrap().peer;
    let second = arrive(&roster, 0, 7, &known(42, 1, (2, 1)), 0).unwrap().peer;
    let other = dial(&roster, 8, &hello(43));
    assert!(first != second && first.node_id() == second.node_id() && second != other);
    assert_eq!((first.connections(), other.connections()), (2, 1));
    assert_eq!(roster.peer(0, id(7)), Some(second.clone()));
    assert_eq!(over(&roster, 43, 0), None, "nobody is asked over a connection that we opened");
    assert_eq!([0, 1, 2].map(|core| over(&roster, 42, core)), [Some((0, 7)), Some((1, 7)), Some((1, 7))]);
    let route = roster.route_to(42, 1).unwrap();
    assert_eq!(&*route.node, "\"n\" from a process behind a Unix socket");
    assert!(roster.leave(1, id(7), 0) && !route.is_open());
    assert_eq!((first.connections(), over(&roster, 42, 1)), (1, Some((0, 7))));
    assert!(roster.leave(0, id(7), 0));
    assert_eq!((second.connections(), over(&roster, 42, 0), roster.peer(0, id(7))), (0, None, None));
}

#[test]
fn whoever_claims_an_incarnation_without_its_token_is_another_node() {
    let roster = roster();
    let first = arrive(&roster, 0, 1, &known(42, 1, (1, 1)), 0).unwrap().peer;
    // With another token, twice the same, and without one.
    let claims = [known(42, 2, (1, 9)), known(42, 2, (2, 9)), hello(42), hello(42)];
    let claimants: Vec<_> = (2..)
        .zip(&claims)
        .map(|(slot, hello)| arrive(&roster, 1, slot, hello, 0).unwrap())
        .inspect(|arrived| assert_eq!(arrived.displaced, None))
        .map(|arrived| arrived.peer)
        .collect();
    assert_eq!(first.node_id(), 42);
    assert_eq!(claimants.iter().map(Peer::node_id).collect::<Vec<_>>(), [1002, 1002, 1004, 1005]);
    assert_eq!(claimants.iter().map(Peer::connections).collect::<Vec<_>>(), [2, 2, 1, 1]);
    assert_eq!((first.connections(), over(&roster, 42, 1)), (1, Some((0, 1))), "the first one is undisturbed");
    assert_eq!([1002, 1004, 1005].map(|node| over(&roster, node, 0)), [Some((1, 2)), Some((1, 4)), Some((1, 5))]);
    assert!((2..6).all(|slot| roster.leave(1, id(slot), 0)));
    assert_eq!(over(&roster, 1002, 0), None);
    let table = roster.lock();
    assert_eq!((table.nodes.len(), table.others.len()), (1, 0));
}

#[test]
fn a_later_connection_of_an_outbox_displaces_the_one_before_and_an_earlier_one_comes_too_late() {
    let roster = roster();
    let arrived = |core, slot, outbox| arrive(&roster, core, slot, &known(42, 1, outbox), 0);
    assert_eq!(arrived(0, 1, (5, 1)).unwrap().displaced, None);
    assert_eq!(arrived(0, 2, (6, 1)).unwrap().displaced, None, "another outbox of the same node");
    let old = roster.route_to(42, 0).unwrap();
    assert!(!roster.is_fenced(0, id(1)));
    assert_eq!(arrived(1, 3, (5, 3)).unwrap().displaced, Some((0, id(1))));
    assert!(roster.is_fenced(0, id(1)) && !roster.is_fenced(0, id(2)) && !old.is_open());
    assert_eq!([0, 1].map(|core| over(&roster, 42, core)), [Some((0, 2)), Some((1, 3))]);
    // Given up by its dialler, and accepted only now.
    assert_eq!(arrived(2, 4, (5, 2)).unwrap_err(), Superseded);
    assert_eq!(arrived(2, 4, (5, 3)).unwrap_err(), Superseded);
    assert_eq!(roster.peer(1, id(3)).unwrap().connections(), 3, "the old one is still to be closed");
    assert!(roster.leave(0, id(1), 0));
    assert_eq!(
        arrived(0, 6, (5, 4)).unwrap().displaced,
        Some((1, id(3))),
        "its end did not make the new one forgotten"
    );
    assert_eq!(arrived(0, 7, (5, 5)).unwrap().displaced, Some((0, id(6))));
    assert!(!roster.is_fenced(0, id(6)), "it is closed before its successor is read");
}

#[test]
fn a_node_that_has_left_is_remembered_for_a_while() {
    let roster = roster();
    let come = |hello: &Hello, now| arrive(&roster, 0, 1, hello, now).unwrap().peer;
    let first = come(&known(42, 1, (1, 1)), 0);
    assert!(roster.leave(0, id(1), 10));
    assert_eq!(come(&known(42, 2, (1, 1)), 109).node_id(), 1001, "it is still remembered");
    assert!(roster.leave(0, id(1), 109));
    let back = come(&known(42, 1, (1, 2)), 109);
    assert_eq!((back.node_id(), back.connections(), first.connections()), (42, 1, 0));
    assert!(roster.leave(0, id(1), 120));
    assert_eq!(come(&known(42, 2, (1, 1)), 220).node_id(), 42, "forgotten after its time");
    assert_eq!(roster.lock().absent.len(), 0);
}

#[test]
fn no_more_nodes_are_remembered_than_the_limit_says_and_those_without_a_token_never() {
    let roster = roster();
    let come_and_go = |hello: &Hello| {
        arrive(&roster, 0, 1, hello, 0).unwrap();
        roster.leave(0, id(1), 0)
    };
    assert_eq!([1, 2, 3].map(|node| come_and_go(&known(node, 1, (1, 1)))), [true, true, false]);
    assert!(come_and_go(&hello(4)), "it is nothing to remember");
    assert_eq!(roster.lock().nodes.len(), 2);
    assert!(come_and_go(&known(1, 1, (1, 2))), "one of those that are remembered");
}

#[test]
fn connections_in_both_directions_count_for_a_node_that_listens_alone() {
    let roster = roster();
    let listens = |hello: Hello| Hello { advertised: Some("h:1".into()), ..hello };
    let there = dial(&roster, 1, &listens(hello(42)));
    let back = arrive(&roster, 0, 2, &listens(known(42, 1, (1, 1))), 0).unwrap().peer;
    assert_eq!((there.node_id(), back.node_id(), there.connections(), back.connections()), (42, 42, 2, 2));
    let client = arrive(&roster, 0, 3, &known(43, 1, (1, 1)), 0).unwrap().peer;
    let claims = dial(&roster, 4, &listens(hello(43)));
    assert_eq!((client.node_id(), claims.node_id(), client.connections()), (43, 1004, 1));
}

#[test]
fn an_id_that_was_given_is_for_nobody_to_claim_and_leads_to_its_node_whatever_id_that_has_by_now() {
    const GIVEN: u64 = 1 << 63 | 5;
    let roster = roster();
    let arrive = |slot, hello: &Hello, now, fresh| {
        let (connection, remote) = (id(slot), Remote::Unix);
        roster.enter(&Arrival { core: 0, connection, remote, hello, dialled: None, now, fresh }).unwrap().peer.node_id()
    };
    let other = |outbox| known(42, 2, (outbox, 1));
    assert_eq!(arrive(1, &known(42, 1, (1, 1)), 0, GIVEN + 1), 42);
    assert_eq!(arrive(2, &other(1), 0, GIVEN), GIVEN);
    assert!(roster.leave(0, id(1), 0));
    assert_eq!(arrive(3, &other(2), 200, GIVEN), GIVEN, "it stays the other one though the first is forgotten");
    assert_eq!(arrive(4, &known(GIVEN, 3, (1, 1)), 200, GIVEN + 2), GIVEN + 2);
    assert_eq!(arrive(5, &hello(GIVEN), 200, GIVEN + 3), GIVEN + 3);
    assert_eq!(over(&roster, GIVEN, 0), Some((0, 2)));
    assert!(roster.leave(0, id(2), 200) && roster.leave(0, id(3), 200));
    assert_eq!(over(&roster, GIVEN, 0), None);
    assert_eq!(arrive(6, &other(3), 200, GIVEN), 42, "the first one by now");
    assert_eq!([42, GIVEN].map(|node| over(&roster, node, 0)), [Some((0, 6)), Some((0, 6))]);
    assert!([4, 5, 6].into_iter().all(|slot| roster.leave(0, id(slot), 200)));
    assert!(arrive(7, &hello(7), 400, GIVEN + 4) == 7 && roster.leave(0, id(7), 400));
    let table = roster.lock();
    assert_eq!((table.nodes.len(), table.others.len()), (0, 0), "all is forgotten");
}

#[test]
fn the_ids_in_what_a_connection_has_brought_are_understood_after_its_end_until_its_place_is_used_again() {
    let roster = roster();
    let at = |slot, generation| ConnectionId { slot, generation };
    let arrive = |connection, hello: &Hello, accepted: bool, fresh| {
        let dialled = Some("h:1").filter(|_| !accepted);
        roster.enter(&Arrival { core: 1, connection, remote: Remote::Unix, hello, dialled, now: 0, fresh }).unwrap();
    };
    arrive(at(1, 0), &hello(42), true, 1001);
    arrive(at(2, 0), &hello(42), true, 1002);
    arrive(at(3, 0), &Hello { given: Some(1003), ..hello(43) }, false, 1009);
    let alias = |id, means| Ok(Some(Alias { id, means }));
    let understood = || [1, 2, 3].map(|slot| roster.alias_of(1, at(slot, 0)));
    assert_eq!(understood(), [Ok(None), alias(42, Some(1002)), alias(1003, None)]);
    assert!([1, 2, 3].into_iter().all(|slot| roster.leave(1, at(slot, 0), 0)));
    assert_eq!(understood(), [Ok(None), alias(42, Some(1002)), alias(1003, None)]);
    arrive(at(1, 1), &hello(44), true, 1004);
    arrive(at(2, 1), &hello(45), true, 1005);
    assert_eq!(understood(), [Ok(None), alias(42, Some(1002)), alias(1003, None)], "the next there is as it says");
    arrive(at(3, 1), &hello(44), true, 1006);
    assert_eq!(understood(), [Ok(None), alias(42, Some(1002)), Err(Forgotten)]);
    assert_eq!(roster.alias_of(1, at(2, 1)), Ok(None));
}

#[test]
fn a_late_connection_of_an_outbox_is_known_as_such_though_the_later_one_has_closed() {
    let roster = roster();
    let arrived =
        |slot, outbox, now| arrive(&roster, 0, slot, &known(42, 1, outbox), now).map(|arrived| arrived.displaced);
    assert_eq!((arrived(1, (5, 2), 0), arrived(2, (6, 1), 0)), (Ok(None), Ok(None)));
    assert!(roster.leave(0, id(1), 0));
    assert_eq!(
        [1, 2].map(|ordinal| arrived(3, (5, ordinal), 0)),
        [Err(Superseded), Err(Superseded)],
        "the node is connected"
    );
    assert!(roster.leave(0, id(2), 10));
    assert_eq!([1, 2].map(|ordinal| arrived(3, (5, ordinal), 20)), [Err(Superseded), Err(Superseded)], "it is away");
    assert_eq!((arrived(3, (5, 3), 20), over(&roster, 42, 0)), (Ok(None), Some((0, 3))), "and comes back");
    assert!(roster.leave(0, id(3), 20));
    assert_eq!(arrived(4, (5, 1), 120), Ok(None), "it was forgotten meanwhile");
}

#[test]
fn of_the_closed_outboxes_of_a_node_as_many_are_known_as_the_limit_and_the_oldest_goes_first() {
    let roster = roster();
    let arrived = |slot, outbox| arrive(&roster, 0, slot, &known(42, 1, outbox), 0).map(drop);
    assert_eq!(arrived(1, (1000, 1)), Ok(()));
    for outbox in 0..10_000 {
        assert_eq!(arrived(2, (outbox % 1000, outbox)), Ok(()));
        assert!(roster.leave(0, id(2), 0));
    }
    assert_eq!(arrived(2, (936, 1)), Err(Superseded));
    assert_eq!(arrived(2, (935, 1)), Ok(()));
    assert_eq!(roster.lock().nodes.values().map(|node| node.closed.len()).sum::<usize>(), 64);
}

#[test]
fn a_stranger_that_comes_under_many_names_takes_no_memory_of_nodes_at_other_addresses() {
    let roster = Roster::new(4, 64, Memory { nodes: 1600, time: Duration::from_secs(1) });
    let ordinal = std::cell::Cell::new(0);
    let come_and_go = |node, address: &str| {
        ordinal.set(ordinal.get() + 1);
        let (connection, remote) = (id(1), address.parse().map_or(Remote::Unix, Remote::Tcp));
        let (hello, fresh) = (known(node, 1, (1, ordinal.get())), 1000);
        roster.enter(&Arrival { core: 0, connection, remote, hello: &hello, dialled: None, now: 0, fresh }).unwrap();
        roster.leave(0, connection, 0)
    };
    let remembered = |nodes: std::ops::Range<u64>, address: fn(u64) -> String| {
        nodes.filter(|node| come_and_go(*node, &address(*node))).count()
    };
    assert_eq!(remembered(10_000..20_000, |node| format!("10.0.0.1:{node}")), 100);
    assert_eq!(remembered(20_000..30_000, |node| format!("[2001:db8::{node:x}]:1")), 100, "one network");
    assert_eq!(remembered(30_000..40_000, |_| "unix".into()), 100);
    assert!(!come_and_go(1, "127.0.0.1:1"), "this machine, too");
    assert!(come_and_go(2, "10.0.0.2:1") && come_and_go(3, "[2001:db8:1::1]:1"));
    assert!(come_and_go(10_000, "10.0.0.1:1"), "one of those that are remembered");
}

#[test]
fn a_node_that_was_dialled_is_no_node_that_is_known_from_elsewhere_whatever_it_says() {
    let roster = roster();
    let tcp = |at: &str| Remote::Tcp(at.parse().unwrap());
    let enter = |slot, dialled, remote, hello: &Hello| {
        let (connection, fresh) = (id(slot), 1000 + u64::from(slot));
        let arrived = roster.enter(&Arrival { core: 0, connection, remote, hello, dialled, now: 0, fresh }).unwrap();
        (arrived.peer.node_id(), arrived.peer.connections(), arrived.impostor)
    };
    let listens = |incarnation| Hello { advertised: Some("h:1".into()), ..hello(incarnation) };
    let dial =
        |slot, address, remote: &str, incarnation| enter(slot, Some(address), tcp(remote), &listens(incarnation));
    assert_eq!(dial(1, "h:1", "10.0.0.1:1", 42), (42, 1, false));
    assert_eq!(dial(2, "h:1", "10.0.0.9:1", 42), (42, 2, false), "one host name, another of its addresses");
    assert_eq!(dial(3, "10.0.0.1:1", "10.0.0.1:1", 42), (42, 3, false), "one socket, another name");
    // Others, each of which is one node as long as it is connected.
    assert_eq!(dial(4, "e:1", "10.0.0.2:1", 42), (1004, 1, true));
    assert_eq!(dial(5, "e:1", "10.0.0.2:1", 42), (1004, 2, true));
    assert_eq!(dial(6, "10.0.0.1:2", "10.0.0.1:2", 42), (1006, 1, true), "another port");
    assert_eq!(enter(7, Some("unix:/a"), Remote::Unix, &listens(43)), (43, 1, false));
    assert_eq!(enter(8, Some("unix:/b"), Remote::Unix, &listens(43)), (1008, 1, true), "another path");
    assert_eq!(dial(9, "e:1", "10.0.0.2:1", 1 << 63 | 5), (1009, 1, true), "a given id is for nobody to claim");
    // One that has connected here itself is dialled where it says that it listens, or where it comes from.
    assert_eq!(enter(10, None, tcp("10.0.0.4:999"), &listens(44)), (44, 1, false));
    assert_eq!(dial(11, "h:1", "10.0.0.5:1", 44), (44, 2, false));
    assert!(roster.leave(0, id(11), 0));
    assert_eq!(dial(12, "other:1", "10.0.0.4:1", 44), (44, 2, false));
    assert!(roster.leave(0, id(12), 0));
    assert_eq!(dial(13, "e:1", "10.0.0.2:1", 44), (1013, 1, true));
    // Once nobody is known from elsewhere, it is as good as any.
    assert!((1..=3).all(|slot| roster.leave(0, id(slot), 0)));
    assert_eq!(dial(14, "e:2", "10.0.0.2:2", 42), (42, 1, false));
}

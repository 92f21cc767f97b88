use super::*;
use crate::net::peer::Peers;
use crate::wire::frame::{Draft, RequestHead, Route};
use crate::wire::message::MessageId;

fn push(out: &mut Vec<u8>, request: u64, payload: usize) {
    let head = RequestHead {
        request,
        target: Target::Name("x"),
        route: Route::Here,
        message: MessageId(1),
        deadline_us: None,
    };
    let mut draft = Draft::request(out, &head);
    draft.payload().extend(std::iter::repeat_n(0, payload));
    draft.finish(u32::MAX).unwrap();
}

#[test]
fn waiting_frames_leave_in_order_without_the_dead_and_the_too_large() {
    let mut outbox = Outbox::new(&Peers::new(|_, _| ()).at("h:1", None));
    for (request, payload) in [(1, 0), (2, 0), (0, 0), (3, 1000), (0, 1000), (4, 0)] {
        push(&mut outbox.waiting, request, payload);
    }
    let mut out = Vec::new();
    let (refused, lost) = outbox.release(&mut out, 100, |request| (request != 2).then_some(1));
    assert_eq!((refused, lost), (vec![3], 1));
    let left: Vec<_> = frames(&out).map(|(_, request)| request.unwrap()).collect();
    assert_eq!(left, [1, 0, 4]);
    assert!(outbox.waiting.is_empty());
}

#[test]
fn lost_one_way_messages_are_counted() {
    let mut outbox = Outbox::new(&Peers::new(|_, _| ()).at("h:1", None));
    for request in [1, 0, 0] {
        push(&mut outbox.waiting, request, 3);
    }
    assert_eq!(outbox.link_lost(), 2);
    assert!(outbox.waiting.is_empty());
}

/// All orders of the numbers below `count`.
fn orders(count: usize) -> Vec<Vec<usize>> {
    match count {
        0 => vec![Vec::new()],
        _ => orders(count - 1)
            .into_iter()
            .flat_map(|order| (0..count).map(move |at| [&order[..at], &[count - 1], &order[at..]].concat()))
            .collect(),
    }
}

fn at(endpoint: u64) -> Option<Resolved> {
    Some(Resolved { endpoint: EndpointId(endpoint), core: Some(0) })
}

/// The outbox hears what an ask has found.
fn hear(outbox: &mut Outbox, asked: Addressed, found: Option<Resolved>) {
    match found {
        Some(resolved) => outbox.found(0, asked.number, resolved),
        None => outbox.missed(0, asked.number),
    }
}

#[test]
fn in_whatever_order_answers_come_the_ask_that_left_last_tells_who_has_the_name() {
    let name: Arc<str> = "x".into();
    // Two asks find the first holder, one finds nobody, two find the next holder.
    let found = [at(1), at(1), None, at(2), at(2)];
    for order in orders(found.len()) {
        let mut outbox = Outbox::new(&Peers::new(|_, _| ()).at("h:1", None));
        let asked = found.map(|_| outbox.address(0, &name, true));
        let mut last = 0;
        for answer in &order {
            hear(&mut outbox, asked[*answer], found[*answer]);
            last = last.max(*answer);
            assert_eq!(outbox.address(0, &name, false).resolved, found[last], "{order:?} after {answer}");
        }
    }
}

#[test]
fn once_an_id_is_known_to_be_stale_no_earlier_ask_brings_it_back() {
    let name: Arc<str> = "x".into();
    for order in orders(3) {
        for by_gone in [false, true] {
            let mut outbox = Outbox::new(&Peers::new(|_, _| ()).at("h:1", None));
            let asked = [(); 3].map(|()| outbox.address(0, &name, true));
            // The first answer tells an id, which the next ask carries in vain.
            hear(&mut outbox, asked[order[0]], at(1));
            let by_id = outbox.address(0, &name, true);
            assert_eq!(by_id.resolved, at(1));
            match by_gone {
                true => outbox.unresolve(EndpointId(1)),
                false => outbox.missed(0, by_id.number),
            }
            let next = outbox.address(0, &name, true);
            assert_eq!(next.resolved, None);
            for late in &order[1..] {
                hear(&mut outbox, asked[*late], at(1));
                assert_eq!(outbox.address(0, &name, false).resolved, None, "{order:?}");
            }
            hear(&mut outbox, next, at(2));
            hear(&mut outbox, by_id, None);
            assert_eq!(outbox.address(0, &name, false).resolved, at(2), "an old failure takes nothing back");
        }
    }
}

/// The names that an id of the peer is known for, as they are and as the index has them.
fn known(outbox: &Outbox) -> [Vec<(u64, u32)>; 2] {
    let names = outbox.names.iter().flatten().zip(0..);
    let mut known: Vec<_> = names.filter_map(|(name, at)| Some((name.resolved?.endpoint.0, at))).collect();
    known.sort_unstable();
    [known, outbox.by_id.iter().copied().collect()]
}

#[test]
fn a_peer_that_says_an_id_is_gone_has_no_other_name_looked_at() {
    let mut outbox = Outbox::new(&Peers::new(|_, _| ()).at("h:1", None));
    for index in 0..20_000 {
        let asked = outbox.address(index, &"x".into(), true);
        outbox.found(index, asked.number, at(u64::from(index / 2)).unwrap());
    }
    for unknown in 10_000..20_000 {
        outbox.unresolve(EndpointId(unknown));
    }
    assert_eq!(outbox.by_id.len(), 20_000);
    outbox.unresolve(EndpointId(7));
    outbox.unresolve(EndpointId(7));
    let told = |index| matches!(outbox.target(index), Some((Target::Id(_), _)));
    assert_eq!((13..17).map(told).collect::<Vec<_>>(), [true, false, false, true]);
    let steps = outbox.steps.taken();
    assert!(steps <= 3 * 10_000, "{steps} steps");
}

#[test]
fn whatever_becomes_known_of_a_name_its_id_finds_it_or_nothing_does() {
    let name: Arc<str> = "x".into();
    let mut outbox = Outbox::new(&Peers::new(|_, _| ()).at("h:1", None));
    let first = [0, 1, 2].map(|index| outbox.address(index, &name, true).number);
    let later = [0, 1, 2].map(|index| outbox.address(index, &name, true).number);
    (0..3).for_each(|index| outbox.found(index, first[index as usize], at(5).unwrap()));
    assert_eq!(known(&outbox), [vec![(5, 0), (5, 1), (5, 2)], vec![(5, 0), (5, 1), (5, 2)]]);
    // Another holder, nobody, and the same one again, which is then gone.
    outbox.found(0, later[0], at(6).unwrap());
    outbox.missed(1, later[1]);
    outbox.found(2, later[2], at(5).unwrap());
    assert_eq!(known(&outbox), [vec![(5, 2), (6, 0)], vec![(5, 2), (6, 0)]]);
    outbox.unresolve(EndpointId(5));
    assert_eq!(known(&outbox), [vec![(6, 0)], vec![(6, 0)]]);
    outbox.missed(0, later[0]);
    assert_eq!(known(&outbox), [vec![], vec![]]);
    let again = outbox.address(1, &name, true);
    outbox.found(1, again.number, at(8).unwrap());
    outbox.link_lost();
    assert_eq!(known(&outbox), [vec![], vec![]]);
}

#[test]
fn a_new_connection_knows_nothing_and_learns_again() {
    let name: Arc<str> = "x".into();
    let mut outbox = Outbox::new(&Peers::new(|_, _| ()).at("h:1", None));
    // The numbers are about to wrap around.
    outbox.enter(0, &name);
    outbox.names[0].iter_mut().for_each(|name| (name.asked, name.told) = (u32::MAX - 1, u32::MAX - 1));
    let asked = [(); 2].map(|()| outbox.address(0, &name, true));
    hear(&mut outbox, asked[0], at(7));
    outbox.link_lost();
    hear(&mut outbox, asked[1], at(7));
    assert_eq!(outbox.address(0, &name, false).resolved, None, "ids of the old connection are worthless");
    let asked = outbox.address(0, &name, true);
    hear(&mut outbox, asked, at(1));
    assert_eq!(outbox.address(0, &name, true), Addressed { resolved: at(1), number: asked.number });
}

#[test]
fn pauses_grow_to_their_limit_and_are_spread() {
    let backoff = Backoff { first: Duration::from_millis(50), last: Duration::from_secs(5) };
    assert_eq!(backoff.pause(1, u64::MAX), Duration::from_millis(50));
    assert_eq!(backoff.pause(1, 0), Duration::from_millis(25));
    assert_eq!(backoff.pause(2, u64::MAX), Duration::from_millis(100));
    assert_eq!(backoff.pause(1000, u64::MAX), Duration::from_secs(5));
    assert!(backoff.pause(8, 0) >= Duration::from_millis(2500));
}

use super::*;
use crate::executor::timers::TICK;
use crate::wire::told::Told;

const TELLER: Teller = Teller::Error { told: Told::Unknown, alias: None };

fn insert(pending: &mut Pending, waiter: Waiter, peer: u32, deadline: u64) -> AskKey {
    let asked = Asked {
        via: Via::Peer { peer, name: 0, key: None, number: 0 },
        kind: &AskKind { name: "m", version: 1, end_with_bytes: end_with_bytes::<()> },
        timeout_ns: 1,
        limited_by: LimitedBy::Config,
    };
    pending.insert(waiter, asked, deadline)
}

fn ask(pending: &mut Pending) -> AskKey {
    insert(pending, Waiter::Future(None), 1, 1)
}

/// The next ask of a batch.
fn next_of(pending: &mut Pending, batch: &Batch) -> Option<AskKey> {
    loop {
        match pending.next_of(batch) {
            Next::Ask(key) => return Some(key),
            Next::Later => {}
            Next::Nothing => return None,
        }
    }
}

/// What ends with a peer.
fn ends(pending: &mut Pending, peer: u32) -> Vec<AskKey> {
    let Some(batch) = pending.detach(peer) else { return Vec::new() };
    let keys = std::iter::from_fn(|| next_of(pending, &batch)).collect();
    pending.end_batch(batch);
    keys
}

#[test]
fn a_late_answer_never_reaches_the_next_ask_in_the_slot() {
    let mut pending = Pending::new(10);
    let first = ask(&mut pending);
    assert!(pending.forget(first).is_some());
    let second = ask(&mut pending);
    assert_eq!(first.slot(), second.slot());
    assert!(pending.complete(first, Ok(Parcel::new(1u32))).is_none());
    pending.complete(second, Ok(Parcel::new(2u32))).unwrap().wake();
    assert!(matches!(pending.poll::<u32>(second, &mut None), Poll::Ready(Ok(2))));
    assert!(pending.is_empty());
}

#[test]
fn an_ask_ends_once() {
    let mut pending = Pending::new(10);
    let key = ask(&mut pending);
    assert!(pending.complete(key, Ok(Parcel::new(1u32))).is_some());
    assert!(pending.complete(key, Ok(Parcel::new(2u32))).is_none());
    assert!(matches!(pending.forget(key), Some(Forgotten::Answered(Ok(_)))));
    assert!(pending.forget(key).is_none() && pending.is_empty());
}

#[test]
fn a_cell_gets_its_answer_whether_it_came_before_or_after_the_hand_over() {
    let mut pending = Pending::new(10);
    for before in [false, true] {
        let key = ask(&mut pending);
        let cell = Arc::<AskCell>::default();
        if before {
            pending.complete(key, Ok(Parcel::new(5u8))).unwrap().wake();
        }
        if let Forgotten::Answered(answer) = pending.hand_over(key, cell.clone()) {
            cell.answer.put(answer);
        }
        if !before {
            pending.complete(key, Ok(Parcel::new(5u8))).unwrap().wake();
        }
        assert_eq!(cell.answer.wait().unwrap().take::<u8>().unwrap(), 5);
        assert!(pending.is_empty());
    }
}

#[test]
fn a_relayed_ask_is_found_by_its_asker_and_its_answer_goes_there() {
    let mut pending = Pending::new(10);
    let key = insert(&mut pending, Waiter::Core { core: 3, request: 7 }, 1, 1);
    assert_eq!((pending.relayed(3, 7), pending.relayed(7, 3)), (Some(key), None));
    let (core, request, answer) = pending.complete(key, Ok(Parcel::new(5u8))).unwrap().wake().unwrap();
    assert_eq!((core, request, answer.unwrap().take::<u8>().unwrap()), (3, 7, 5));
    assert!(pending.is_empty() && pending.relayed(3, 7).is_none());
    let key = insert(&mut pending, Waiter::Core { core: 3, request: 8 }, 1, 1);
    assert!(pending.forget(key).is_some() && pending.relayed.is_empty());
}

#[test]
fn asks_are_found_by_where_they_went_and_bounded() {
    let mut pending = Pending::new(2);
    let key = ask(&mut pending);
    insert(&mut pending, Waiter::Future(None), 2, 1);
    assert!(!pending.has_room());
    assert_eq!(ends(&mut pending, 1), [key]);
}

#[test]
fn a_failed_ask_gives_its_error_also_where_nothing_is_expected() {
    let mut pending = Pending::new(10);
    let key = ask(&mut pending);
    pending.complete(key, Err(ended_before())).unwrap().wake();
    let polled = pending.poll::<()>(key, &mut None);
    assert!(matches!(polled, Poll::Ready(Err(unread)) if matches!(*unread, Unread::Failed(_))));
    assert!(pending.is_empty());
}

#[test]
fn a_reply_of_another_type_comes_back_whole() {
    let mut pending = Pending::new(10);
    let key = ask(&mut pending);
    pending.reply(key, |into| into.fill(String::from("text"))).unwrap().wake();
    let polled = pending.poll::<u32>(key, &mut None);
    let Poll::Ready(Err(unread)) = polled else { panic!("{polled:?}") };
    let Unread::Other(other) = *unread else { panic!("{unread:?}") };
    assert_eq!(other.take::<String>().unwrap(), "text");
    assert!(pending.is_empty());
}

#[test]
fn bytes_end_an_ask_once_and_only_if_they_are_its_reply() {
    let table = RefCell::new(Pending::new(10));
    let key = ask(&mut table.borrow_mut());
    assert!(end_with_bytes::<String>(&table, key, &[9, b'x'], &DecodeLimits::DEFAULT, &TELLER).is_err());
    assert!(table.borrow().is_waiting(key));
    assert!(end_with_bytes::<String>(&table, key, &[1, b'x'], &DecodeLimits::DEFAULT, &TELLER).unwrap().is_some());
    assert!(end_with_bytes::<String>(&table, key, &[1, b'x'], &DecodeLimits::DEFAULT, &TELLER).unwrap().is_none());
    let polled = table.borrow_mut().poll::<String>(key, &mut None);
    assert!(matches!(polled, Poll::Ready(Ok(text)) if text == "x"));
}

#[test]
fn only_asks_that_still_wait_expire_each_once() {
    let mut pending = Pending::new(10);
    let [late, soon, answered, dropped] =
        [9, 3, 3, 3].map(|ticks| insert(&mut pending, Waiter::Future(None), 1, ticks * TICK));
    pending.reply(answered, |_| ()).unwrap().wake();
    assert!(pending.forget(dropped).is_some());
    assert_eq!(pending.next_deadline(), Some(3 * TICK));
    assert_eq!((pending.expired(3 * TICK - 1), pending.expired(3 * TICK)), (vec![], vec![soon]));
    assert!(pending.is_waiting(soon), "whoever asked ends it");
    assert_eq!((pending.next_deadline(), pending.deadline(late)), (Some(9 * TICK), Some(9 * TICK)));
    assert_eq!(pending.expired(8 * TICK), []);
}

#[test]
fn an_empty_table_waits_for_no_deadline() {
    let mut pending = Pending::new(10);
    let key = ask(&mut pending);
    assert!(pending.next_deadline().is_some());
    assert!(pending.forget(key).is_some());
    assert_eq!(pending.next_deadline(), None);
}

#[test]
fn the_end_of_a_peer_costs_what_its_own_asks_cost() {
    let mut pending = Pending::new(50_000);
    for peer in (0..5_000).cycle().take(50_000) {
        insert(&mut pending, Waiter::Future(None), peer, 1);
    }
    for peer in 0..5_000 {
        let keys = ends(&mut pending, peer);
        assert_eq!(keys.len(), 10);
        for key in keys {
            pending.complete(key, Err(ended_before())).unwrap().wake();
            pending.forget(key);
        }
        assert!(!pending.refer_to(peer));
    }
    let steps = pending.by_peer.steps.taken();
    assert!(steps <= 2 * 50_000, "{steps} steps");
}

#[test]
fn asks_to_a_peer_that_come_after_its_end_do_not_end_with_the_asks_before() {
    let mut pending = Pending::new(10);
    let [first, second, given_up, answered] = std::array::from_fn(|_| ask(&mut pending));
    let batch = pending.detach(1).unwrap();
    assert!(pending.detach(1).is_none() && pending.refer_to(1));
    let later = ask(&mut pending);
    assert_eq!(next_of(&mut pending, &batch), Some(first));
    assert!(pending.forget(given_up).is_some() && pending.reply(answered, |_| ()).is_some());
    assert!(pending.complete(first, Err(ended_before())).is_some());
    assert_eq!((next_of(&mut pending, &batch), next_of(&mut pending, &batch)), (Some(second), None));
    pending.end_batch(batch);
    assert!(pending.is_waiting(second), "whoever took it out ends it");
    assert_eq!(ends(&mut pending, 1), [later]);
}

#[test]
fn an_ask_that_another_core_sends_keeps_its_peer_and_does_not_end_with_this_cores_connection() {
    let mut pending = Pending::new(10);
    let asked = Asked { via: Via::Relayed { core: 2, peer: 1, name: 0 }, ..Asked::NOTHING };
    let key = pending.insert(Waiter::Future(None), asked, 1);
    assert!(pending.refer_to(1) && ends(&mut pending, 1).is_empty());
    assert!(pending.complete(key, Ok(Parcel::new(1u8))).is_some());
    assert!(!pending.refer_to(1));
}

#[test]
fn a_place_in_a_batch_that_another_ask_has_taken_meanwhile_does_not_end_it() {
    let mut pending = Pending::new(10);
    let [to_peer, to_other, to_env] = std::array::from_fn(|_| ask(&mut pending));
    let batch = pending.detach(1).unwrap();
    for key in [to_env, to_other, to_peer] {
        assert!(pending.forget(key).is_some());
    }
    let again = [
        insert(&mut pending, Waiter::Future(None), 1, 1),
        insert(&mut pending, Waiter::Future(None), 2, 1),
        pending.insert(Waiter::Future(None), Asked::NOTHING, 1),
    ];
    assert_eq!(again.map(AskKey::slot), [to_peer, to_other, to_env].map(AskKey::slot));
    assert_eq!(next_of(&mut pending, &batch), None);
    pending.end_batch(batch);
    assert_eq!((ends(&mut pending, 1), ends(&mut pending, 2)), (vec![again[0]], vec![again[1]]));
}

#[test]
fn asks_that_have_ended_are_left_out_once() {
    let mut pending = Pending::new(10_000);
    for _ in 0..10 {
        let keys: Vec<_> = (0..1_000).map(|_| ask(&mut pending)).collect();
        keys.into_iter().for_each(|key| drop(pending.forget(key)));
    }
    for _ in 0..1_000 {
        assert!(!pending.refer_to(1));
        assert!(pending.detach(1).is_none());
    }
    let steps = pending.by_peer.steps.taken();
    assert!(steps <= 2_100, "{steps} steps");
}

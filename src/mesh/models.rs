//! Loom runs these through every order of steps, and every value that a weak memory model lets a load return:
//! `RUSTFLAGS="--cfg ringpost_loom" cargo test --release --lib mesh::models`.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use super::injector::{Injector, PushError};
use super::lane::{LaneReceiver, LaneSender, lane};
use super::parcel::Parcel;
use super::park::{ParkFlag, WakeClaim};

/// Explores `model` with at most three preemptions in a run, or `LOOM_MAX_PREEMPTIONS`: without a bound the models with
/// three threads take too long.
fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.check(model);
}

/// Stands for the core's ring: blocks until a wake has been posted, and keeps one that comes early. Nobody posts but who
/// claimed the wake, so a lost wake leaves the core blocked for ever, which loom reports as a deadlock.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.changed.notify_one();
    }

    fn wait(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.changed.wait(rung).unwrap();
        }
        *rung = false;
    }
}

/// One core's flag and bell, with a count of parks and wakes that loom does not see and so does not order by.
#[derive(Default)]
struct Core {
    flag: ParkFlag,
    bell: Bell,
    parks: AtomicUsize,
    wakes: AtomicUsize,
}

impl Core {
    fn wake(&self) {
        if let Some(claim) = self.flag.claim_wake() {
            self.issue(claim);
        }
    }

    fn issue(&self, claim: WakeClaim<'_>) {
        let wakes = self.wakes.fetch_add(1, SeqCst) + 1;
        assert!(wakes <= self.parks.load(SeqCst), "two wakes for one park");
        self.bell.ring();
        claim.issued();
    }

    /// Blocks until woken, unless the second look finds something.
    fn park(&self, is_empty: impl FnOnce() -> bool) {
        self.parks.fetch_add(1, SeqCst);
        self.flag.prepare();
        if is_empty() {
            self.bell.wait();
        }
        self.flag.cancel();
    }
}

fn flush_all(sender: &mut LaneSender<u32>, mut moved: impl FnMut()) {
    while sender.overflow_len() > 0 {
        let before = sender.overflow_len();
        if sender.flush() < before {
            moved();
        } else {
            thread::yield_now();
        }
    }
}

/// Takes `count` items in order, parking whenever there are none.
fn receive(core: &Core, receiver: &mut LaneReceiver<u32>, count: u32) {
    let mut next = 0;
    while next < count {
        match receiver.receive(&mut Parcel::default()) {
            Some(item) => {
                assert_eq!(item, next);
                next += 1;
            }
            None => core.park(|| receiver.is_empty()),
        }
    }
}

#[test]
fn a_lane_delivers_everything_in_order_through_ring_and_overflow() {
    check(|| {
        let (mut tx, mut rx) = lane(1, 1);
        let sender = thread::spawn(move || {
            for item in 0..3 {
                assert!(tx.has_room() || item == 2);
                tx.send(item, |_| ());
            }
            flush_all(&mut tx, || ());
        });
        let mut got = Vec::new();
        while !rx.is_closed() {
            match rx.receive(&mut Parcel::default()) {
                Some(item) => got.push(item),
                None => thread::yield_now(),
            }
        }
        assert_eq!(got, [0, 1, 2]);
        sender.join().unwrap();
    });
}

#[test]
fn no_wake_is_lost_between_a_lane_and_a_parking_core() {
    // The heart of the protocol, so without a bound.
    loom::model(|| {
        let core = Arc::new(Core::default());
        let (mut tx, mut rx) = lane(2, 0);
        let sender = thread::spawn({
            let core = core.clone();
            move || {
                for item in 0..2 {
                    assert!(tx.has_room());
                    tx.send(item, |_| ());
                    core.wake();
                }
            }
        });
        receive(&core, &mut rx, 2);
        sender.join().unwrap();
    });
}

#[test]
fn no_wake_is_lost_when_the_item_came_through_the_overflow() {
    check(|| {
        let core = Arc::new(Core::default());
        let (mut tx, mut rx) = lane(1, 0);
        let sender = thread::spawn({
            let core = core.clone();
            move || {
                tx.send(0, |_| ());
                tx.send(1, |_| ());
                core.wake();
                flush_all(&mut tx, || core.wake());
            }
        });
        receive(&core, &mut rx, 2);
        sender.join().unwrap();
    });
}

#[test]
fn no_wake_is_lost_when_two_lanes_lead_to_one_core() {
    check(|| {
        let core = Arc::new(Core::default());
        let mut receivers = Vec::new();
        for item in 0..2 {
            let (mut tx, rx) = lane(1, 0);
            receivers.push(rx);
            let core = core.clone();
            thread::spawn(move || {
                tx.send(item, |_| ());
                core.wake();
            });
        }
        let mut got = 0;
        while got < 2 {
            let taken = receivers
                .iter_mut()
                .filter_map(|rx: &mut LaneReceiver<u32>| rx.receive(&mut Parcel::default()))
                .count();
            got += taken;
            if taken == 0 {
                core.park(|| receivers.iter().all(LaneReceiver::is_empty));
            }
        }
    });
}

#[test]
fn two_threads_inject_and_one_of_them_wakes() {
    check(|| {
        let core = Arc::new(Core::default());
        let injector = Arc::new(Injector::new(2, usize::MAX));
        for item in 0..2 {
            let (core, injector) = (core.clone(), injector.clone());
            thread::spawn(move || {
                injector.push(item, 0).unwrap();
                core.wake();
            });
        }
        let (mut got, mut batch) = (Vec::new(), VecDeque::new());
        while got.len() < 2 {
            injector.drain(&mut batch);
            if batch.is_empty() {
                core.park(|| injector.is_empty());
            }
            got.extend(batch.drain(..));
        }
        got.sort_unstable();
        assert_eq!(got, [0, 1]);
    });
}

/// When a core claims the wakes of those that it has sent something in a turn.
#[derive(Clone, Copy)]
enum Claimed {
    /// Right before the enter that issues them.
    AtTheEnter,
    /// As it flushes its lanes; the enter may come after the next turn.
    AtTheFlush,
}

/// A core answers another one, flushes, finds that more has arrived instead of parking, and then its user code blocks
/// until that other core has done something for a third thread.
fn a_handler_blocks_until_another_core_has_run_a_job(claimed: Claimed) {
    let core = Arc::new(Core::default());
    let injector = Arc::new(Injector::new(1, usize::MAX));
    let ran = Arc::new(Bell::default());
    let (mut tx, mut rx) = lane(1, 0);
    thread::spawn({
        let (core, ran) = (core.clone(), ran.clone());
        move || {
            tx.send(0, |_| ());
            // An answer of an isolated core wakes at once; the flush comes to the same core again.
            core.wake();
            match claimed {
                Claimed::AtTheEnter => {
                    core.wake();
                    ran.wait();
                }
                Claimed::AtTheFlush => {
                    let queued = core.flag.claim_wake();
                    ran.wait();
                    queued.into_iter().for_each(|claim| core.issue(claim));
                }
            }
        }
    });
    thread::spawn({
        let (core, injector) = (core.clone(), injector.clone());
        move || {
            injector.push(1, 0).unwrap();
            core.wake();
        }
    });
    let (mut answered, mut batch) = (false, VecDeque::new());
    while !answered || batch.is_empty() {
        answered |= rx.receive(&mut Parcel::default()).is_some();
        injector.drain(&mut batch);
        if !answered || batch.is_empty() {
            core.park(|| rx.is_empty() && injector.is_empty());
        }
    }
    ran.ring();
}

#[test]
fn no_wake_is_lost_to_user_code_that_blocks() {
    check(|| a_handler_blocks_until_another_core_has_run_a_job(Claimed::AtTheEnter));
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_wake_that_is_claimed_before_user_code_blocks_is_lost() {
    check(|| a_handler_blocks_until_another_core_has_run_a_job(Claimed::AtTheFlush));
}

/// What a sender does when it learns that the wake which it claimed and issued has failed.
#[derive(Clone, Copy)]
enum Failed {
    /// It wakes the core by other means.
    WakesAgain,
    /// It counts.
    Counts,
}

/// The wake of one sender fails after it was issued; another sender relies on it.
fn a_wake_fails(failed: Failed) {
    let core = Arc::new(Core::default());
    let injector = Arc::new(Injector::new(2, usize::MAX));
    thread::spawn({
        let (core, injector) = (core.clone(), injector.clone());
        move || {
            injector.push(0, 0).unwrap();
            if let Some(claim) = core.flag.claim_wake() {
                claim.issued();
                // The kernel tells later.
                thread::yield_now();
                match failed {
                    Failed::WakesAgain => core.issue(core.flag.reclaim()),
                    Failed::Counts => {}
                }
            }
        }
    });
    thread::spawn({
        let (core, injector) = (core.clone(), injector.clone());
        move || {
            injector.push(1, 0).unwrap();
            core.wake();
        }
    });
    let (mut got, mut batch) = (0, VecDeque::new());
    while got < 2 {
        injector.drain(&mut batch);
        if batch.is_empty() {
            core.park(|| injector.is_empty());
        }
        got += batch.drain(..).count();
    }
}

#[test]
fn no_wake_is_lost_to_one_that_fails_after_it_was_issued() {
    check(|| a_wake_fails(Failed::WakesAgain));
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_wake_that_fails_and_is_only_counted_is_lost() {
    check(|| a_wake_fails(Failed::Counts));
}

#[test]
fn close_loses_nothing_that_is_pushed_at_the_same_time() {
    check(|| {
        let injector = Arc::new(Injector::new(1, usize::MAX));
        let pusher = thread::spawn({
            let injector = injector.clone();
            move || {
                let mut back = Vec::new();
                match injector.push(0, 0) {
                    Ok(()) => (),
                    Err(PushError::Full(item) | PushError::TooManyBytes(item) | PushError::Closed(item)) => {
                        back.push(item)
                    }
                }
                back.extend(injector.push_unbounded(1).err());
                back
            }
        });
        let closer = thread::spawn({
            let injector = injector.clone();
            move || injector.close()
        });
        let mut all = VecDeque::new();
        injector.drain(&mut all);
        all.extend(closer.join().unwrap());
        all.extend(pusher.join().unwrap());
        assert!(injector.is_empty());
        all.make_contiguous().sort_unstable();
        assert_eq!(all, [0, 1]);
    });
}

//! A ring that is waited for elsewhere, by an edge of its descriptors.

use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::thread;

use ringpost::ring::{Capabilities, Completion, Feature, Ring, RingEvent, RingWaker};

use crate::support::*;

/// An epoll that waits for edges of an event's descriptors, as tokio does.
struct Poller(OwnedFd);

impl Poller {
    fn of(event: &RingEvent) -> Poller {
        // SAFETY: no memory is passed; the new descriptor is nobody else's.
        let epoll = unsafe { OwnedFd::from_raw_fd(libc::epoll_create1(libc::EPOLL_CLOEXEC)) };
        for fd in event.descriptors() {
            let mut wish = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: 0 };
            // SAFETY: the kernel reads the live struct during the call.
            let added = unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &mut wish) };
            assert_eq!(added, 0);
        }
        Poller(epoll)
    }

    /// Whether there is an edge within the limit.
    fn edge(&self, limit: libc::c_int) -> bool {
        let mut got = libc::epoll_event { events: 0, u64: 0 };
        loop {
            // SAFETY: room for one event, which the kernel fills during the call.
            let count = unsafe { libc::epoll_wait(self.0.as_raw_fd(), &mut got, 1, limit) };
            let error = io::Error::last_os_error();
            match count {
                -1 if error.kind() == io::ErrorKind::Interrupted => {}
                -1 => panic!("{error}"),
                count => return count == 1,
            }
        }
    }

    fn expect_edge(&self) {
        assert!(self.edge(LIMIT.as_millis() as libc::c_int), "the event was lost");
    }

    fn forget_edges(&self) {
        while self.edge(0) {}
    }
}

#[test]
fn what_arrives_while_nobody_waits_in_the_ring_is_an_edge_each_time() {
    let mut ring = ring(&small());
    let event = ring.register_event().unwrap();
    let poller = Poller::of(&event);
    let (socket, mut peer) = adopted(&mut ring);
    ring.recv(socket);
    assert!(turn(&mut ring).is_empty());
    for round in 0..100 {
        poller.forget_edges();
        peer.write_all(&[round]).unwrap();
        poller.expect_edge();
        assert!(ring.wants_enter(), "memory says so too");
        let Some(Completion::Received { chunk, .. }) = turn(&mut ring).pop() else { panic!("no bytes") };
        assert_eq!(ring.bytes(&chunk), [round]);
        ring.release(chunk);
    }
}

#[test]
fn a_wake_by_a_thread_is_an_edge() {
    let by_message = capabilities();
    if by_message.has(Feature::SyncMsgRing) {
        wakes_are_edges(&by_message, |waker, _| waker.wake().unwrap());
    }
    // One eventfd does not reliably signal another: who wakes by the first gives the edge as well.
    wakes_are_edges(&by_message.without(Feature::SyncMsgRing), |waker, event| {
        waker.wake().unwrap();
        event.signal().unwrap();
    });
}

#[test]
fn a_wake_by_another_ring_is_an_edge() {
    for capabilities in ways_to_wake() {
        wakes_are_edges(&capabilities, |waker, _| {
            let mut other = ring(&small());
            other.wake(&waker, 0);
            other.submit().unwrap();
        });
    }
}

fn wakes_are_edges(capabilities: &Capabilities, wake: fn(RingWaker, &RingEvent)) {
    let mut ring = Ring::new(&small(), capabilities).unwrap();
    let event = ring.register_event().unwrap();
    let poller = Poller::of(&event);
    for _ in 0..100 {
        assert!(turn(&mut ring).is_empty());
        poller.forget_edges();
        let waker = ring.waker();
        thread::scope(|scope| {
            scope.spawn(|| wake(waker, &event));
            poller.expect_edge();
        });
        let woken = next(&mut ring);
        assert!(matches!(woken[..], [Completion::Woken]), "{woken:?}");
    }
}

#[test]
fn a_signal_of_one_s_own_is_an_edge_without_completions() {
    let mut ring = ring(&small());
    let event = ring.register_event().unwrap();
    let poller = Poller::of(&event);
    poller.forget_edges();
    for _ in 0..3 {
        event.signal().unwrap();
        poller.expect_edge();
        assert!(!poller.edge(0) && turn(&mut ring).is_empty());
    }
    assert_eq!(ring.register_event().unwrap_err().raw_os_error(), Some(libc::EBUSY));
}

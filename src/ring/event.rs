//! A ring's events for those who wait elsewhere.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
#[cfg(feature = "tokio-uring")]
use std::{
    os::fd::RawFd,
    task::{Context, Poll},
};

#[cfg(feature = "tokio-uring")]
use tokio::io::{Interest, unix::AsyncFd};

use super::ring::Ring;
use super::syscalls;
use super::waker::Door;

/// Two descriptors that a poller waits for in place of [`Ring::wait`], to run the ring beside other sources of events.
/// Whichever becomes readable: [`submit`](Ring::submit), then [`reap`](Ring::reap).
///
/// Neither will do alone. The kernel signals the first, an eventfd, when deferred completion work arrives and again when
/// `submit` turns it into completions; but from 6.12.114 on, of what arrives on sockets it signals the first time only
/// (seen on 6.12.115 and 6.12.117). The second is the ring itself, whose pollers hear of deferred work from 6.12.115 on,
/// and not before.
///
/// Without [`SyncMsgRing`](super::Feature::SyncMsgRing) a [`RingWaker`](super::RingWaker) may reach neither: that wake is
/// an eventfd too, and one does not reliably signal another (seen on Linux 6.18). Whoever waits here has to be woken
/// directly then, by [`signal`](RingEvent::signal) for example. [`Ring::wake`] always works.
///
/// Wait for edges (`EPOLLET`) and never read them: each signal is an edge of its own, also while the count is not 0. The
/// kernel's ring goes when the [`Ring`] and this are gone.
#[derive(Debug)]
pub struct RingEvent {
    event: OwnedFd,
    door: Arc<Door>,
}

impl Ring {
    /// Has the kernel tell of this ring's events by descriptors too. Once per ring.
    ///
    /// # Errors
    /// `EBUSY` the second time; `EMFILE` without a free descriptor.
    pub fn register_event(&mut self) -> io::Result<RingEvent> {
        let event = syscalls::eventfd()?;
        self.io.io.submitter().register_eventfd(event.as_raw_fd())?;
        Ok(RingEvent { event, door: self.door.clone() })
    }
}

impl RingEvent {
    /// What to wait for.
    #[must_use]
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.event.as_fd(), self.door.ring.as_fd()]
    }

    /// An event without anything having happened: whoever waits gets a turn after all others. One system call.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn signal(&self) -> io::Result<()> {
        syscalls::eventfd_signal(self.event.as_fd())
    }
}

/// A [`RingEvent`] that a tokio runtime waits for.
#[cfg(feature = "tokio-uring")]
#[derive(Debug)]
pub struct TokioRingEvent {
    /// Gone before what they poll.
    polled: [AsyncFd<RawFd>; 2],
    event: RingEvent,
}

#[cfg(feature = "tokio-uring")]
impl RingEvent {
    /// Has this thread's tokio runtime wait for it.
    ///
    /// # Errors
    /// What the kernel says.
    ///
    /// # Panics
    /// Without a runtime that does I/O.
    pub fn in_tokio(self) -> io::Result<TokioRingEvent> {
        let poll = |fd: BorrowedFd<'_>| {
            // SAFETY: the descriptor is open as long as the RingEvent, which is dropped after this, lives.
            unsafe { AsyncFd::register_with_interest(fd.as_raw_fd(), Interest::READABLE) }.map_err(io::Error::from)
        };
        let [event, ring] = self.descriptors();
        Ok(TokioRingEvent { polled: [poll(event)?, poll(ring)?], event: self })
    }
}

#[cfg(feature = "tokio-uring")]
impl TokioRingEvent {
    /// Forgets the edges that have come, and has the task woken by the next. To be called before the ring is looked at:
    /// then no event is lost between the two.
    ///
    /// # Errors
    /// When the runtime is shutting down.
    #[inline]
    pub fn await_edge(&self, cx: &mut Context<'_>) -> io::Result<()> {
        for polled in &self.polled {
            while let Poll::Ready(mut ready) = polled.poll_read_ready(cx)? {
                ready.clear_ready();
            }
        }
        Ok(())
    }

    /// As [`RingEvent::signal`].
    ///
    /// # Errors
    /// What the kernel says.
    pub fn signal(&self) -> io::Result<()> {
        self.event.signal()
    }
}

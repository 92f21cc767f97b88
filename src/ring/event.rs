//! A ring's events for those who wait elsewhere.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

#[cfg(feature = "tokio-uring")]
use tokio::io::{Interest, unix::AsyncFd};

use super::ring::Ring;
use super::syscalls;

/// A descriptor that a poller waits for in place of [`Ring::wait`], to run the ring beside other sources of events.
///
/// The ring's own descriptor will not do: whoever polls it is not woken by deferred completion work, which is all that
/// such a ring ever has. The kernel signals this eventfd when such work arrives, and again when
/// [`submit`](Ring::submit) turns it into completions. So after an event: `submit`, then `reap`.
///
/// Without [`SyncMsgRing`](super::Feature::SyncMsgRing) a [`RingWaker`](super::RingWaker) does not reach it: that wake is
/// an eventfd too, and one does not reliably signal another (seen on Linux 6.18). Whoever waits here has to be woken
/// directly then. [`Ring::wake`] always works.
///
/// Wait for edges (`EPOLLET`) and never read it: each signal is an edge of its own, also while the count is not 0.
#[derive(Debug)]
pub struct RingEvent(OwnedFd);

impl Ring {
    /// Has the kernel tell of this ring's events by a descriptor too. Once per ring.
    ///
    /// # Errors
    /// `EBUSY` the second time; `EMFILE` without a free descriptor.
    pub fn register_event(&mut self) -> io::Result<RingEvent> {
        let event = syscalls::eventfd()?;
        self.io.io.submitter().register_eventfd(event.as_raw_fd())?;
        Ok(RingEvent(event))
    }
}

impl RingEvent {
    /// An event without anything having happened: whoever waits gets a turn after all others. One system call.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn signal(&self) -> io::Result<()> {
        syscalls::eventfd_signal(self.0.as_fd())
    }
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
    pub fn in_tokio(self) -> io::Result<AsyncFd<RingEvent>> {
        // SAFETY: `as_raw_fd` gives the same descriptor each time, which is open as long as the RingEvent lives; no
        // reference to one gives it up.
        unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) }.map_err(io::Error::from)
    }
}

impl AsFd for RingEvent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for RingEvent {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

//! Waking a ring from outside.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, PoisonError, RwLock};

use io_uring::{opcode, squeue, types};

use super::syscalls;
use super::tag::{Kind, Tag};

/// The way into a living ring.
#[derive(Debug)]
pub(super) struct Door {
    /// A duplicate of the ring's descriptor.
    pub(super) ring: OwnedFd,
    /// Polled by the ring where threads without a ring cannot post messages.
    pub(super) event: Option<OwnedFd>,
}

impl Door {
    /// The request that posts [`Completion::Woken`](super::Completion::Woken) at the far end.
    pub(super) fn message(&self) -> squeue::Entry {
        let woken = Tag::of_ring(Kind::Wake).pack();
        opcode::MsgRingData::new(types::Fd(self.ring.as_raw_fd()), 0, woken, None).build()
    }

    /// Wakes the ring with a system call of its own, from any thread.
    pub(super) fn wake(&self) -> io::Result<()> {
        match &self.event {
            Some(event) => syscalls::eventfd_signal(event.as_fd()),
            None => syscalls::send_msg_ring(&self.message()),
        }
    }
}

/// Makes a ring's wait return, from any thread, by a [`Completion::Woken`](super::Completion::Woken).
///
/// Cheap to clone. It does not keep the ring alive: once the ring is dropped the descriptor behind all its wakers is
/// closed, and waking gives an error. Each wake is a system call, so the floors above wake only a ring that is parked.
///
/// A thread that has a ring of its own uses [`Ring::wake`](super::Ring::wake), where the wake rides along with the next
/// enter.
#[derive(Clone, Debug)]
pub struct RingWaker {
    /// Behind a lock so that the descriptor cannot be closed, and its number used by a stranger, during a wake.
    door: Arc<RwLock<Option<Arc<Door>>>>,
}

impl RingWaker {
    pub(super) fn new(door: Door) -> RingWaker {
        RingWaker { door: Arc::new(RwLock::new(Some(Arc::new(door)))) }
    }

    /// A waker of `ring` whose messages fail; threads wake it all the same. The ring has been made without
    /// [`SyncMsgRing`](super::Feature::SyncMsgRing).
    #[cfg(test)]
    pub(crate) fn without_messages(ring: &super::Ring) -> RingWaker {
        let event = ring.door.event.as_ref().map(|event| event.try_clone().unwrap());
        RingWaker::new(Door { ring: std::fs::File::open("/dev/null").unwrap().into(), event })
    }

    /// The door, if the ring is still there. Holding it keeps the descriptor open.
    pub(super) fn door(&self) -> Option<Arc<Door>> {
        self.door.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Shuts the door for all clones.
    pub(super) fn shut(&self) {
        self.door.write().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Wakes the ring. Any thread; one system call, never blocks.
    ///
    /// # Errors
    /// `EOWNERDEAD` when the ring is gone; otherwise what the kernel says.
    pub fn wake(&self) -> io::Result<()> {
        let Some(door) = self.door() else {
            return Err(io::Error::from_raw_os_error(libc::EOWNERDEAD));
        };
        door.wake()
    }
}

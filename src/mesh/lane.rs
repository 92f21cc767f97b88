//! The queue from one core to another.

use std::collections::VecDeque;
use std::fmt;

use super::queue::{Consumer, Producer, PushError, ring};

/// Makes a lane: `capacity` items (at least one) in the shared ring, and up to `overflow` more on the sender's side.
///
/// Allocates the ring at once; the overflow grows when it is first used. Callable on any thread; each end may then be
/// moved to the one thread that uses it.
pub fn lane<T: Send>(capacity: usize, overflow: usize) -> (LaneSender<T>, LaneReceiver<T>) {
    let (producer, consumer) = ring(capacity.max(1));
    let sender = LaneSender { ring: producer, overflow: VecDeque::new(), limit: overflow };
    (sender, LaneReceiver { ring: consumer })
}

/// The end of a lane that a core writes to.
///
/// Items go into a bounded ring that both cores see. When the ring is full they gather in an overflow that only the
/// sender sees, and from then on all items go there until it is empty again: that keeps their order. Requests are refused
/// once the overflow is at its limit, replies never are, so two cores with full lanes toward each other cannot deadlock.
///
/// An item in the overflow is invisible to the receiver until [`flush`](LaneSender::flush) moves it. The owner must
/// therefore flush once per turn, and must not block without a time limit while [`overflow_len`](LaneSender::overflow_len)
/// is not 0: nobody wakes a sender when the ring has room again. Dropping the sender drops its overflow.
pub struct LaneSender<T> {
    ring: Producer<T>,
    overflow: VecDeque<T>,
    limit: usize,
}

impl<T: Send> LaneSender<T> {
    /// Sends an item that may be refused: a request. Never blocks.
    ///
    /// The items of [`send`](LaneSender::send) in the overflow count toward its limit too. Says nothing about the
    /// receiver being alive, see [`is_connected`](LaneSender::is_connected).
    ///
    /// # Errors
    /// Gives the item back if ring and overflow are full.
    #[inline]
    pub fn try_send(&mut self, item: T) -> Result<(), T> {
        match self.push(item) {
            Ok(()) => Ok(()),
            Err(item) if self.overflow.len() >= self.limit => Err(item),
            Err(item) => {
                self.overflow.push_back(item);
                Ok(())
            }
        }
    }

    /// Sends an item that must not be refused: a reply. Never blocks.
    ///
    /// Not bounded here, but by what the other side asked: a core has a limited number of pending asks, and each is
    /// answered once.
    #[inline]
    pub fn send(&mut self, item: T) {
        if let Err(item) = self.push(item) {
            self.overflow.push_back(item);
        }
    }

    /// Moves the overflow into the ring as far as it goes, and returns how many items are left.
    ///
    /// What it moved is as new to the receiver as a sent item: a parked receiver has to be woken for it.
    #[inline]
    pub fn flush(&mut self) -> usize {
        while let Some(item) = self.overflow.pop_front() {
            if let Err(PushError::Full(item)) = self.ring.push(item) {
                self.overflow.push_front(item);
                break;
            }
        }
        self.overflow.len()
    }

    /// The number of items that the receiver cannot see yet.
    #[inline]
    pub fn overflow_len(&self) -> usize {
        self.overflow.len()
    }

    /// The number of items sent and not yet taken, in ring and overflow. Reads the receiver's cache line.
    pub fn depth(&self) -> usize {
        self.ring.buffer().capacity() - self.ring.slots() + self.overflow.len()
    }

    /// Whether the receiver still exists. If not, what is sent is never taken, and what the ring holds is dropped together
    /// with the sender.
    #[inline]
    pub fn is_connected(&self) -> bool {
        !self.ring.is_abandoned()
    }

    /// Puts an item into the ring, or gives it back if it has to queue behind others.
    #[inline]
    fn push(&mut self, item: T) -> Result<(), T> {
        if !self.overflow.is_empty() && self.flush() > 0 {
            return Err(item);
        }
        self.ring.push(item).map_err(|PushError::Full(item)| item)
    }
}

impl<T> fmt::Debug for LaneSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaneSender").field("overflow", &self.overflow.len()).finish_non_exhaustive()
    }
}

/// The end of a lane that a core reads from.
///
/// Looking whether there is something reads memory only, and while the lane is empty that memory stays in the reader's
/// own cache, so a spinning core can look at all its lanes without disturbing the senders.
///
/// The items arrive in the order in which they were sent. When the sender is gone the rest can still be taken;
/// [`is_closed`](LaneReceiver::is_closed) tells when there is no rest.
pub struct LaneReceiver<T> {
    ring: Consumer<T>,
}

impl<T: Send> LaneReceiver<T> {
    /// Takes the oldest item, if there is one.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        self.ring.pop().ok()
    }

    /// Whether there is nothing to take. After [`ParkFlag::prepare`](super::park::ParkFlag::prepare) a `true` means
    /// that the sender of any later item will claim the wake.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// The number of items that can be taken; what the sender's overflow holds is not seen from here.
    pub fn depth(&self) -> usize {
        self.ring.slots()
    }

    /// Whether the sender is gone and all it left in the ring has been taken: nothing will ever come again.
    pub fn is_closed(&self) -> bool {
        // In this order: the sender's last item was in the ring before the sender was gone.
        self.ring.is_abandoned() && self.ring.is_empty()
    }
}

impl<T> fmt::Debug for LaneReceiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaneReceiver").field("depth", &self.ring.slots()).finish_non_exhaustive()
    }
}

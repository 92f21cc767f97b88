//! The queue from one core to another.

use std::collections::VecDeque;
use std::fmt;

use super::parcel::Parcel;
use super::queue::{self, Consumer, Producer};

/// What travels in a lane: a head, and a parcel whose content the head tells.
///
/// It is written in its place in the lane, and no move touches more of it than its head and the value in its parcel.
/// Its place begins with a cache line, so that a small value comes with the head.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(super) struct Letter<H> {
    head: H,
    parcel: Parcel,
}

/// Makes a lane: `capacity` letters (at least one) in the shared ring, and up to `overflow` more on the sender's side.
///
/// Allocates the ring at once; the overflow grows when it is first used. Callable on any thread; each end may then be
/// moved to the one thread that uses it.
pub fn lane<H: Send>(capacity: usize, overflow: usize) -> (LaneSender<H>, LaneReceiver<H>) {
    let (producer, consumer) = queue::ring(capacity.max(1));
    let sender = LaneSender { ring: producer, overflow: VecDeque::new(), limit: overflow };
    (sender, LaneReceiver { ring: consumer })
}

/// The end of a lane that a core writes to.
///
/// Letters go into a bounded ring that both cores see. When the ring is full they gather in an overflow that only the
/// sender sees, and from then on all letters go there until it is empty again: that keeps their order. Requests are refused
/// once the overflow is at its limit, replies never are, so two cores with full lanes toward each other cannot deadlock.
///
/// A letter in the overflow is invisible to the receiver until [`flush`](LaneSender::flush) moves it. The owner must
/// therefore flush once per turn, and must not block without a time limit while [`overflow_len`](LaneSender::overflow_len)
/// is not 0: nobody wakes a sender when the ring has room again. Dropping the sender drops its overflow.
pub struct LaneSender<H> {
    ring: Producer<Letter<H>>,
    overflow: VecDeque<Letter<H>>,
    limit: usize,
}

impl<H: Copy + Default + Send> LaneSender<H> {
    /// Whether a letter that may be refused, a request, is taken now. If not, ring and overflow are full.
    ///
    /// The letters of [`send`](LaneSender::send) in the overflow count toward its limit too. Says nothing about the
    /// receiver being alive, see [`is_connected`](LaneSender::is_connected).
    #[inline]
    pub fn has_room(&mut self) -> bool {
        self.flush() < self.limit || (self.overflow.is_empty() && queue::has_room(&mut self.ring))
    }

    /// Sends a letter, whose parcel `pack` fills where it lies. Never blocks, and never refuses: a request is sent only
    /// if there [is room](LaneSender::has_room).
    ///
    /// What is sent all the same, replies, is not bounded here, but by what the other side asked: a core has a limited
    /// number of pending asks, and each is answered once.
    #[inline]
    pub fn send(&mut self, head: H, pack: impl FnOnce(&mut Parcel)) {
        if self.flush() == 0 && queue::has_room(&mut self.ring) {
            queue::push_with(&mut self.ring, |letter| {
                letter.head = head;
                pack(&mut letter.parcel);
            });
        } else {
            let mut letter = Letter { head, parcel: Parcel::default() };
            pack(&mut letter.parcel);
            self.overflow.push_back(letter);
        }
    }

    /// Moves the overflow into the ring as far as it goes, and returns how many letters are left.
    ///
    /// What it moved is as new to the receiver as a letter just sent: a parked receiver has to be woken for it.
    #[inline]
    pub fn flush(&mut self) -> usize {
        while let Some(letter) = self.overflow.pop_front() {
            if let Err(queue::PushError::Full(letter)) = self.ring.push(letter) {
                self.overflow.push_front(letter);
                break;
            }
        }
        self.overflow.len()
    }

    /// The number of letters that the receiver cannot see yet.
    #[inline]
    pub fn overflow_len(&self) -> usize {
        self.overflow.len()
    }

    /// The number of letters sent and not yet taken, in ring and overflow. Reads the receiver's cache line.
    pub fn depth(&self) -> usize {
        self.ring.buffer().capacity() - self.ring.slots() + self.overflow.len()
    }

    /// Whether the receiver still exists. If not, what is sent is never taken, and what the ring holds is dropped together
    /// with the sender.
    #[inline]
    pub fn is_connected(&self) -> bool {
        !self.ring.is_abandoned()
    }
}

impl<H> fmt::Debug for LaneSender<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaneSender").field("overflow", &self.overflow.len()).finish_non_exhaustive()
    }
}

/// The end of a lane that a core reads from.
///
/// Looking whether there is something reads memory only, and while the lane is empty that memory stays in the reader's
/// own cache, so a spinning core can look at all its lanes without disturbing the senders.
///
/// The letters arrive in the order in which they were sent. When the sender is gone the rest can still be taken;
/// [`is_closed`](LaneReceiver::is_closed) tells when there is no rest.
pub struct LaneReceiver<H> {
    ring: Consumer<Letter<H>>,
}

impl<H: Copy + Send> LaneReceiver<H> {
    /// Takes the oldest letter, if there is one: gives its head, and moves what is in its parcel into `parcel`, after
    /// dropping what was in that.
    #[inline]
    pub fn receive(&mut self, parcel: &mut Parcel) -> Option<H> {
        queue::pop_with(&mut self.ring, |letter| {
            letter.parcel.move_into(parcel);
            letter.head
        })
    }

    /// Whether there is nothing to take. After [`ParkFlag::prepare`](super::park::ParkFlag::prepare) a `true` means
    /// that the sender of any later letter will claim the wake.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// The number of letters that can be taken; what the sender's overflow holds is not seen from here.
    #[inline]
    pub fn depth(&self) -> usize {
        self.ring.slots()
    }

    /// Whether the sender is gone and all it left in the ring has been taken: nothing will ever come again.
    pub fn is_closed(&self) -> bool {
        // In this order: the sender's last letter was in the ring before the sender was gone.
        self.ring.is_abandoned() && self.ring.is_empty()
    }
}

impl<H> fmt::Debug for LaneReceiver<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaneReceiver").field("depth", &self.ring.slots()).finish_non_exhaustive()
    }
}

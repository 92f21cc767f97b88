//! What travels through the kernel as `user_data`.

use super::sockets::SocketId;

/// The kind of request a completion answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Multishot accept of a listener.
    Accept = 1,
    /// Connect of a socket.
    Connect = 2,
    /// Multishot or one-shot receive.
    Recv = 3,
    /// Send.
    Send = 4,
    /// Cancel of one receive, or of everything on a socket.
    Cancel = 5,
    /// A wake posted into this ring by another thread.
    Wake = 6,
    /// A wake this ring sent, which failed (success posts nothing). The slot is the target's number.
    WakeFailed = 7,
    /// Readiness of the eventfd that stands in for wakes on older kernels.
    EventFd = 8,
    /// Cancel of the eventfd poll, when the ring is dropped.
    CancelEventFd = 9,
}

impl Kind {
    #[inline]
    fn from_bits(bits: u8) -> Option<Kind> {
        Some(match bits {
            1 => Kind::Accept,
            2 => Kind::Connect,
            3 => Kind::Recv,
            4 => Kind::Send,
            5 => Kind::Cancel,
            6 => Kind::Wake,
            7 => Kind::WakeFailed,
            8 => Kind::EventFd,
            9 => Kind::CancelEventFd,
            _ => return None,
        })
    }
}

/// A completion's address: what kind of request it was and which socket it belongs to.
///
/// The kernel carries 64 bits of our choice from a request to its completion. They hold kind (8 bits), slot (24 bits)
/// and the slot's generation (32 bits), so that the owner is found by index, without a map and without a pointer.
///
/// The generation is what makes a late completion harmless: a slot that was given to another socket in the meantime
/// has another generation, so the lookup fails instead of reaching the wrong owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) kind: Kind,
    pub(super) socket: SocketId,
}

/// Slots fit 24 bits.
pub(super) const MAX_SLOTS: u32 = 1 << 24;

impl Tag {
    #[inline]
    pub(super) fn new(kind: Kind, socket: SocketId) -> Tag {
        Tag { kind, socket }
    }

    /// A tag of a request that belongs to the ring and to no socket.
    #[inline]
    pub(super) fn of_ring(kind: Kind) -> Tag {
        Tag { kind, socket: SocketId { slot: 0, generation: 0 } }
    }

    #[inline]
    pub(super) fn pack(self) -> u64 {
        debug_assert!(self.socket.slot < MAX_SLOTS);
        (self.kind as u64) << 56 | u64::from(self.socket.slot) << 32 | u64::from(self.socket.generation)
    }

    /// `None` for a kind this ring never sends: another owner's message, to be dropped.
    #[inline]
    pub(super) fn unpack(bits: u64) -> Option<Tag> {
        let kind = Kind::from_bits((bits >> 56) as u8)?;
        let slot = (bits >> 32) as u32 & (MAX_SLOTS - 1);
        Some(Tag { kind, socket: SocketId { slot, generation: bits as u32 } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_slot_and_generation_comes_back() {
        for bits in 1..=9 {
            let kind = Kind::from_bits(bits).unwrap();
            assert_eq!(kind as u8, bits);
            for slot in [0, 1, 0x00ab_cdef, MAX_SLOTS - 1] {
                for generation in [0, 1, 0x8000_0000, u32::MAX] {
                    let tag = Tag::new(kind, SocketId { slot, generation });
                    assert_eq!(Tag::unpack(tag.pack()), Some(tag));
                }
            }
        }
    }

    #[test]
    fn foreign_kinds_are_refused() {
        assert_eq!(Tag::unpack(0), None);
        assert_eq!(Tag::unpack(u64::MAX), None);
        assert_eq!(Tag::unpack(10 << 56), None);
    }
}

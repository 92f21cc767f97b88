//! The table of sockets a ring works for.

use std::os::fd::{AsRawFd, OwnedFd};

use super::receive::Receiving;
use super::sending::Sending;
use super::sock_addr::SockAddr;
use super::tag::MAX_SLOTS;

/// Names one socket of one ring for as long as it is open.
///
/// A copyable pair of slot and generation. When the socket is closed its slot is used again with another generation, so
/// an id kept too long is recognised: every call with it does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketId {
    /// Place in the ring's table.
    pub slot: u32,
    /// How many sockets had the place before.
    pub generation: u32,
}

/// Everything the ring keeps for one socket.
///
/// `in_flight` counts requests whose last completion is still to come. While it is above zero the kernel may use the
/// memory held here, so the entry stays in the table; `leaving` only stops new requests.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) fd: OwnedFd,
    pub(super) in_flight: u32,
    pub(super) leaving: Option<Leaving>,
    pub(super) accepting: bool,
    /// The address of a connect in flight, at a place that does not move.
    pub(super) connecting: Option<Box<SockAddr>>,
    pub(super) send: Option<Sending>,
    pub(super) recv: Receiving,
}

impl Socket {
    fn new(fd: OwnedFd) -> Socket {
        Socket {
            fd,
            in_flight: 0,
            leaving: None,
            accepting: false,
            connecting: None,
            send: None,
            recv: Receiving::default(),
        }
    }

    /// One request has had its last completion.
    #[inline]
    pub(super) fn ended(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    #[inline]
    pub(super) fn is_closing(&self) -> bool {
        self.leaving == Some(Leaving::Close)
    }

    #[inline]
    pub(super) fn target(&self) -> io_uring::types::Fd {
        io_uring::types::Fd(self.fd.as_raw_fd())
    }
}

/// What becomes of a socket when its last request has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    /// Its descriptor is closed.
    Close,
    /// Its descriptor is given back.
    Detach,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    socket: Option<Socket>,
}

/// A slab of sockets with generations.
///
/// Looking up is an index and a compare. Freed slots are used again last-in first-out, which keeps the touched part of
/// the table small.
///
/// The owner may keep things by slot too. So no slot is used again before its owner has been told of the end of the
/// socket that had it: one that is removed is vacant only from the next [`recycle`](Sockets::recycle) on.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Freed since the last `recycle`.
    retired: Vec<u32>,
}

impl Sockets {
    /// When all 2^24 slots are taken the descriptor is closed and the id is one that no lookup ever finds.
    pub(super) fn insert(&mut self, fd: OwnedFd) -> SocketId {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.slots.len() < MAX_SLOTS as usize => {
                self.slots.push(Slot { generation: 0, socket: None });
                (self.slots.len() - 1) as u32
            }
            None => return SocketId { slot: MAX_SLOTS, generation: 0 },
        };
        let entry = &mut self.slots[slot as usize];
        entry.socket = Some(Socket::new(fd));
        SocketId { slot, generation: entry.generation }
    }

    #[inline]
    pub(super) fn get(&mut self, id: SocketId) -> Option<&mut Socket> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        if slot.generation == id.generation { slot.socket.as_mut() } else { None }
    }

    /// Frees the slot, to be used again after the next `recycle`; whoever still holds the id finds nothing from now on.
    pub(super) fn remove(&mut self, id: SocketId) -> Option<Socket> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        let socket = slot.socket.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.retired.push(id.slot);
        Some(socket)
    }

    /// The owner knows of all sockets that were removed so far: their slots may be used again.
    #[inline]
    pub(super) fn recycle(&mut self) {
        self.free.append(&mut self.retired);
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len() - self.retired.len()
    }

    pub(super) fn ids(&self) -> Vec<SocketId> {
        let open = self.slots.iter().enumerate().filter(|(_, slot)| slot.socket.is_some());
        open.map(|(index, slot)| SocketId { slot: index as u32, generation: slot.generation }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fd() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn an_old_id_does_not_find_the_new_socket_in_its_slot() {
        let mut sockets = Sockets::default();
        let old = sockets.insert(fd());
        assert!(sockets.remove(old).is_some());
        sockets.recycle();
        let new = sockets.insert(fd());
        assert_eq!(old.slot, new.slot);
        assert!(sockets.get(old).is_none());
        assert!(sockets.remove(old).is_none());
        assert!(sockets.get(new).is_some());
        assert_eq!(sockets.len(), 1);
        assert_eq!(sockets.ids(), [new]);
    }

    #[test]
    fn a_slot_is_not_used_again_before_its_owner_knows_of_the_end() {
        let mut sockets = Sockets::default();
        let old = sockets.insert(fd());
        assert!(sockets.remove(old).is_some());
        assert_eq!(sockets.len(), 0);
        assert_ne!(sockets.insert(fd()).slot, old.slot);
        sockets.recycle();
        assert_eq!(sockets.insert(fd()).slot, old.slot);
        assert_eq!(sockets.len(), 2);
    }

    #[test]
    fn unknown_slots_are_not_found() {
        let mut sockets = Sockets::default();
        assert!(sockets.get(SocketId { slot: MAX_SLOTS, generation: 0 }).is_none());
        assert!(sockets.remove(SocketId { slot: 3, generation: 0 }).is_none());
    }
}

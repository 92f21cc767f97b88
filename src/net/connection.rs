//! One connection: its two halves and what is known about the peer.

use bytes::BytesMut;

use super::connection_id::ConnectionId;
use super::keepalive::Keepalive;
use super::reader::Reader;
use super::remote::{Remote, is_near};
use super::roster::Peer;
use super::writer::Writer;
use crate::executor::timers::TimerKey;
use crate::wire::handshake::Hello;

/// Who opened a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The peer connected to our listener.
    Accepted,
    /// We connected to the peer with this index.
    Dialled {
        /// Index of the outbox that the connection serves.
        peer: u32,
    },
}

/// How far a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// The socket is still connecting.
    Connecting,
    /// The peer's hello has not arrived.
    Greeting,
    /// Its peer has said which other core it wants: it is about to be handed over, and nothing may arrive here.
    Departing,
    /// The peer's hello will not do; it ends when ours has been sent, which says why.
    Refusing,
    /// Frames travel.
    Open,
    /// It ends; nothing that still arrives counts.
    Closing,
}

/// Why a connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// One of the two sides just closes it.
    Wanted,
    /// The socket failed.
    Failed,
    /// The peer did something wrong, or too little: that is worth a warning.
    Faulty,
}

/// One connection of a core.
///
/// The reader is taken out while its frames are handled, so that handlers can answer into the writer in the
/// meantime.
///
/// Reading stops while the writer holds more than its limit: a peer that does not read its answers gets no more
/// requests handled. What the ring had already received by then is kept in `held`.
#[derive(Debug)]
pub struct Connection {
    /// Which one this is.
    pub id: ConnectionId,
    /// Who opened it.
    pub role: Role,
    /// How far it is.
    pub phase: Phase,
    /// The other end of its socket.
    pub remote: Remote,
    /// Who the peer is, once it has said its hello.
    pub peer: Option<Peer>,
    /// The outboxes whose asks go over the connection: its own if we opened it; if the peer did, that of refs to the
    /// peer, which does not listen, and those of earlier refs whose asks are still under way.
    pub serves: Vec<u32>,
    /// The receiving half; `None` while its frames are handled.
    pub reader: Option<Reader>,
    /// The sending half.
    pub writer: Writer,
    /// Largest frame that the peer accepts.
    pub peer_max_frame: u32,
    /// Received but not looked at, since the writer is above its limit.
    pub held: BytesMut,
    /// When reading stopped, in nanoseconds of the core's clock: what is held arrived about then.
    pub held_since: u64,
    /// Whether reading has stopped.
    pub paused: bool,
    /// Whether the connection is on the list of those with something to send.
    pub dirty: bool,
    /// Whether its peer lives, once it is open.
    pub keepalive: Keepalive,
    /// Ends the connection unless it is open in time; then it is the keepalive's.
    pub timer: Option<TimerKey>,
    /// Where it goes to, if it is to be handed over.
    pub departure: Option<Box<Departure>>,
}

/// Where a connection goes to.
#[derive(Debug)]
pub struct Departure {
    /// The core that its peer wants.
    pub core: u16,
    /// What its peer has said, and nobody has answered yet.
    pub hello: Hello,
}

impl Connection {
    /// A connection whose socket was just opened.
    pub fn new(id: ConnectionId, role: Role, remote: Remote, max_frame: u32) -> Connection {
        Connection {
            id,
            role,
            phase: if role == Role::Accepted { Phase::Greeting } else { Phase::Connecting },
            remote,
            peer: None,
            serves: match role {
                Role::Accepted => Vec::new(),
                Role::Dialled { peer } => vec![peer],
            },
            reader: Some(Reader::new(max_frame, is_near(remote))),
            writer: Writer::default(),
            peer_max_frame: max_frame,
            held: BytesMut::new(),
            held_since: 0,
            paused: false,
            dirty: false,
            keepalive: Keepalive::default(),
            timer: None,
            departure: None,
        }
    }
}

/// The connections of a core, by the place that their id names.
#[derive(Debug, Default)]
pub struct Connections {
    slots: Vec<Option<Box<Connection>>>,
    live: usize,
}

impl Connections {
    /// Puts a connection where its id says.
    pub fn insert(&mut self, connection: Connection) {
        let slot = connection.id.slot as usize;
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        debug_assert!(self.slots[slot].is_none(), "the ring told of the end of the one before");
        self.live += usize::from(self.slots[slot].is_none());
        self.slots[slot] = Some(Box::new(connection));
    }

    /// The connection with this id, if it still exists.
    #[inline]
    pub fn get(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.slots.get_mut(id.slot as usize)?.as_deref_mut().filter(|connection| connection.id == id)
    }

    /// Takes the connection with this id out of the table.
    pub fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        self.get(id)?;
        self.live -= 1;
        self.slots[id.slot as usize].take().map(|connection| *connection)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// All of them, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Connection> {
        self.slots.iter_mut().flatten().map(|connection| &mut **connection)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.slots.iter().flatten().map(|connection| &**connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_id_never_finds_the_next_connection_in_its_place() {
        let mut table = Connections::default();
        let id = |generation| ConnectionId { slot: 3, generation };
        table.insert(Connection::new(id(1), Role::Accepted, Remote::Unix, 100));
        assert!(table.get(id(1)).is_some());
        assert!(table.remove(id(2)).is_none());
        assert!(table.remove(id(1)).is_some());
        table.insert(Connection::new(id(2), Role::Accepted, Remote::Unix, 100));
        assert!(table.get(id(1)).is_none());
        assert_eq!(table.len(), 1);
    }
}

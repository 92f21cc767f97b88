//! Connections between the ring and the frames.

use std::rc::Rc;
use std::sync::atomic::Ordering;

use bytes::Buf;

use super::node::{Injected, random};
use super::received::BYTES_PER_TURN;
use super::shard::{Action, Shard};
use super::timeouts::Timer;
use crate::dispatch::call::Origin;
use crate::dispatch::event::Event;
use crate::dispatch::reply_path::ReplyPath;
use crate::net::connection::{Connection, End, Phase, Role};
use crate::net::connection_id::ConnectionId;
use crate::net::node_ids;
use crate::net::reader::{ProtocolError, Reader};
use crate::net::remote::Remote;
use crate::net::roster::{Arrival, Arrived, Peer};
use crate::wire::frame::Frame;
use crate::wire::handshake::{Hello, HelloError, VERSION};

/// A send that took longer than this, 10 ms, has kept what is behind it waiting for long.
const STALE_NS: u64 = 10_000_000;

/// What is to be sent over a connection.
pub struct Outgoing {
    /// The connection.
    pub id: ConnectionId,
    /// Frames.
    pub bytes: Vec<u8>,
    /// We opened the connection: asks leave over it and answers come.
    pub is_dialled: bool,
}

impl Shard {
    /// Whether this core has as many connections as it may.
    pub fn has_all_connections(&self) -> bool {
        let door = &self.node.cores[usize::from(self.core)];
        door.connections.load(Ordering::Relaxed) >= self.node.config.connections
    }

    /// A socket was accepted and is in the ring.
    pub fn on_accepted(&self, id: ConnectionId, remote: Remote) {
        self.take_room();
        let mut connection = Connection::new(id, Role::Accepted, remote, self.node.config.max_frame);
        connection.timer = Some(self.arm(self.node.config.handshake_timeout, Timer::Connection(id)));
        self.connections.borrow_mut().insert(connection);
        self.act(Action::Receive(id));
    }

    /// A socket to a peer is in the ring, to be connected; false if nobody wants it any more.
    pub fn on_dialled(&self, id: ConnectionId, peer: u32, remote: Remote) -> bool {
        if !self.on_dialling(peer, id) {
            return false;
        }
        self.take_room();
        let mut connection = Connection::new(id, Role::Dialled { peer }, remote, self.node.config.max_frame);
        connection.timer = Some(self.arm(self.node.config.connect_timeout, Timer::Connection(id)));
        self.connections.borrow_mut().insert(connection);
        true
    }

    /// A socket to a peer is connected: our hello goes first.
    pub fn on_connected(&self, id: ConnectionId) {
        let mut connections = self.connections.borrow_mut();
        let Some(connection) = connections.get(id).filter(|c| c.phase == Phase::Connecting) else { return };
        connection.phase = Phase::Greeting;
        let timer = self.arm(self.node.config.handshake_timeout, Timer::Connection(id));
        if let Some(old) = connection.timer.replace(timer) {
            self.disarm(old);
        }
        self.write_hello(connection);
        self.act(Action::Receive(id));
    }

    fn write_hello(&self, connection: &mut Connection) {
        let mut hello = Hello {
            versions: (VERSION, VERSION),
            max_frame: self.node.config.max_frame,
            cores: self.node.core_count(),
            wanted_core: None,
            incarnation: self.node.incarnation,
            name: self.node.name.clone(),
            advertised: self.node.advertised.get().cloned(),
            token: None,
            outbox: None,
            given: None,
        };
        match connection.role {
            Role::Dialled { peer } => self.introduce(&mut hello, peer, connection.remote),
            Role::Accepted => hello.given = connection.peer.as_ref().and_then(Peer::given),
        }
        hello.encode(connection.writer.buffer(&mut self.spares.borrow_mut()));
        self.mark_dirty(connection);
    }

    /// Bytes have arrived: their frames are handled where they lie.
    #[inline]
    pub fn on_bytes(&self, id: ConnectionId, bytes: &[u8], path: &Rc<dyn ReplyPath>) {
        self.count(|counters| counters.bytes_in += bytes.len() as u64);
        self.read(id, bytes, self.clock(), path);
    }

    /// Handles bytes that arrived at the time `arrived`.
    fn read(&self, id: ConnectionId, mut bytes: &[u8], arrived: u64, path: &Rc<dyn ReplyPath>) {
        let Some((mut reader, role)) = self.take_reader(id, bytes) else { return self.refuse_early_bytes(id) };
        reader.lend(&self.reassembly);
        let problem = self.read_all(id, role, &mut reader, &mut bytes, arrived, path).err();
        reader.give_back(&self.reassembly);
        if let Some(connection) = self.connections.borrow_mut().get(id) {
            connection.reader = Some(reader);
        }
        if let Some(problem) = problem {
            self.on_protocol_error(id, &problem);
        }
    }

    /// Handles what is in `bytes`, up to where reading has to stop.
    #[inline]
    fn read_all(
        &self,
        id: ConnectionId,
        role: Role,
        reader: &mut Reader,
        bytes: &mut &[u8],
        arrived: u64,
        path: &Rc<dyn ReplyPath>,
    ) -> Result<(), ProtocolError> {
        self.stirred.set(true);
        let near = reader.is_near();
        loop {
            if self.stirred.replace(false) && self.is_congested(id, bytes, arrived) {
                return Ok(());
            }
            if !reader.is_greeted() {
                let Some(hello) = reader.hello(bytes)? else { return Ok(()) };
                self.on_hello(id, &hello, bytes.is_empty());
                self.stirred.set(true);
                continue;
            }
            let Some(frame) = reader.next_frame(bytes)? else { return Ok(()) };
            self.on_frame(id, (role, near), Frame::parse(frame)?, arrived, path);
        }
    }

    /// A peer that wants another core says nothing before it has the answer to its hello: what arrives here would be
    /// lost.
    #[cold]
    fn refuse_early_bytes(&self, id: ConnectionId) {
        let departing = self.connections.borrow_mut().get(id).is_some_and(|c| c.phase == Phase::Departing);
        if departing {
            self.count(|counters| counters.protocol_errors += 1);
            self.close(id, "it wants another core, and sent frames before it had the answer to its hello", End::Faulty);
        }
    }

    /// The reader of a connection that may be read now; what comes while reading is paused is kept.
    #[inline]
    fn take_reader(&self, id: ConnectionId, bytes: &[u8]) -> Option<(Reader, Role)> {
        let mut connections = self.connections.borrow_mut();
        let connection = connections.get(id).filter(|c| matches!(c.phase, Phase::Greeting | Phase::Open))?;
        connection.keepalive.heard(self.clock());
        if connection.paused {
            connection.held.extend_from_slice(bytes);
            return None;
        }
        Some((connection.reader.take()?, connection.role))
    }

    /// Whether reading has to stop, and stops it if the peer does not read its answers; what is left of `bytes` is kept
    /// for later.
    #[inline]
    fn is_congested(&self, id: ConnectionId, bytes: &[u8], arrived: u64) -> bool {
        let mut connections = self.connections.borrow_mut();
        let Some(connection) = connections.get(id) else { return true };
        // Only where requests come in do answers pile up. A connection that we opened is always read: two nodes that
        // both stop reading because they have much to send would wait for each other for ever.
        if connection.role != Role::Accepted
            || connection.writer.backlog() <= self.node.config.outbox_bytes
            || connection.phase != Phase::Open
        {
            return connection.phase == Phase::Closing;
        }
        connection.paused = true;
        connection.held_since = arrived;
        connection.held.extend_from_slice(bytes);
        self.act(Action::Pause(id));
        self.count(|counters| counters.reads_paused += 1);
        true
    }

    /// Whether what arrives is handled.
    pub(super) fn is_read(&self, id: ConnectionId) -> bool {
        let reads = |c: &mut Connection| !c.paused && matches!(c.phase, Phase::Greeting | Phase::Open);
        self.connections.borrow_mut().get(id).is_some_and(reads)
    }

    /// Handles what was held back while the peer did not read, in each turn as much as the budget for received bytes
    /// allows; true if reading goes on.
    pub fn resume(&self, id: ConnectionId, path: &Rc<dyn ReplyPath>) -> bool {
        let (mut held, since) = match self.connections.borrow_mut().get(id) {
            Some(connection) if connection.paused => {
                connection.paused = false;
                (std::mem::take(&mut connection.held), connection.held_since)
            }
            _ => return false,
        };
        let now = held.len().min(BYTES_PER_TURN);
        self.read(id, &held[..now], since, path);
        if let Some(connection) = self.connections.borrow_mut().get(id).filter(|c| c.phase != Phase::Closing) {
            // What reading has put back is the end of what it was given.
            held.advance(now.saturating_sub(connection.held.len()));
            if !held.is_empty() {
                // Else the peer has to read first.
                if !connection.paused {
                    self.act(Action::Resume(id));
                }
                connection.paused = true;
                connection.held = held;
            }
        }
        self.is_read(id)
    }

    /// `last` says that nothing has come behind the hello yet.
    fn on_hello(&self, id: ConnectionId, hello: &Hello, last: bool) {
        let departs = match self.connections.borrow_mut().get(id) {
            Some(connection) => self.departs(connection, hello, last),
            None => true,
        };
        if !departs {
            self.open(id, hello);
        }
    }

    /// The hello of a connection that is to stay here has been read.
    pub(super) fn open(&self, id: ConnectionId, hello: &Hello) {
        let mut connections = self.connections.borrow_mut();
        let Some(connection) = connections.get(id) else { return };
        let dialled = match connection.role {
            Role::Dialled { peer } => self.address_of(peer),
            Role::Accepted => None,
        };
        let arrival = Arrival {
            core: self.core,
            connection: id,
            remote: connection.remote,
            hello,
            dialled: dialled.as_deref(),
            now: self.clock(),
            fresh: match hello.token {
                Some(token) => self.node.tokens.id_for(hello.incarnation, token),
                None => node_ids::given(random()),
            },
        };
        let Ok(Arrived { peer, displaced, impostor }) = self.node.roster.enter(&arrival) else {
            drop(connections);
            return self.close_displaced(id);
        };
        if impostor {
            self.warn_impostor(dialled.as_deref(), &peer);
        }
        connection.phase = Phase::Open;
        connection.peer_max_frame = hello.max_frame;
        connection.peer = Some(peer.clone());
        let event = Event::Connected(peer);
        self.tell(&event);
        self.begin_keepalive(connection);
        tracing::debug!(target: "ringpost::connection", peer = %event.peer(), cores = hello.cores, "a connection is open");
        match connection.role {
            Role::Accepted => self.write_hello(connection),
            Role::Dialled { peer } => {
                let refused = self.link_up(peer, connection, hello);
                drop(connections);
                return self.refuse_too_large(refused, hello);
            }
        }
        drop(connections);
        if let Some((core, old)) = displaced {
            self.displace(core, old);
        }
    }

    /// Closes a connection whose peer has connected anew, on the core that owns it. It has been fenced: what it brings
    /// until then is dropped.
    fn displace(&self, core: u16, old: ConnectionId) {
        if core == self.core {
            return self.close_displaced(old);
        }
        let job = Box::new(move |shard: &Rc<Shard>| shard.close_displaced(old));
        self.node.cores[usize::from(core)].inject_always(Injected::Job(job));
    }

    fn close_displaced(&self, id: ConnectionId) {
        if self.connections.borrow_mut().get(id).is_some_and(|c| c.phase != Phase::Closing) {
            self.count(|counters| counters.connections_displaced += 1);
            self.close(id, "its peer has connected anew in its stead", End::Failed);
        }
    }

    fn on_protocol_error(&self, id: ConnectionId, problem: &ProtocolError) {
        self.count(|counters| counters.protocol_errors += 1);
        if let ProtocolError::Hello(HelloError::Version { .. }) = problem
            && let Some(connection) = self.connections.borrow_mut().get(id)
            && connection.role == Role::Accepted
        {
            self.warn_faulty(&connection.remote, problem);
            connection.phase = Phase::Refusing;
            return self.write_hello(connection);
        }
        self.close(id, &problem.to_string(), End::Faulty);
    }

    /// The timer of a connection has fired: it is not open in time, or has been silent for a while.
    pub fn on_connection_timer(&self, id: ConnectionId) {
        let cause = {
            let mut connections = self.connections.borrow_mut();
            let Some(connection) = connections.get(id) else { return };
            connection.timer = None;
            match connection.phase {
                Phase::Connecting => "it did not answer in time (Config::connect_timeout)",
                Phase::Greeting | Phase::Departing => "it did not say its hello in time (Config::handshake_timeout)",
                Phase::Open => {
                    let alive = self.is_alive(connection);
                    drop(connections);
                    if !alive {
                        self.close_silent(id);
                    }
                    return;
                }
                Phase::Refusing => "it did not take our hello in time (Config::handshake_timeout)",
                Phase::Closing => return,
            }
        };
        self.count(|counters| counters.protocol_errors += 1);
        self.close_in_turn(id, cause, End::Faulty);
    }

    /// The peer has taken a part of the send in flight: it reads, which is a sign of life.
    pub fn on_sent_part(&self, id: ConnectionId) {
        if let Some(connection) = self.connections.borrow_mut().get(id) {
            connection.writer.progressed(self.clock());
            connection.keepalive.heard(self.clock());
        }
    }

    /// The send that was in flight is done.
    #[inline]
    pub fn on_sent(&self, id: ConnectionId, buffer: Vec<u8>) {
        let mut connections = self.connections.borrow_mut();
        let Some(connection) = connections.get(id) else { return };
        let waited = connection.writer.sending_for(self.clock());
        connection.writer.sent(buffer, &mut self.spares.borrow_mut());
        if connection.phase == Phase::Refusing {
            drop(connections);
            return self.close(id, "the two nodes speak different versions of the protocol", End::Wanted);
        }
        if !connection.writer.queued().is_empty() {
            // Only what we ask goes stale.
            if waited > STALE_NS && !connection.serves.is_empty() {
                self.refresh(connection);
            }
            self.mark_dirty(connection);
        }
        if connection.paused && connection.writer.backlog() <= self.node.config.outbox_bytes / 2 {
            self.act(Action::Resume(id));
        }
    }

    /// Puts a connection on the list of those with something to send.
    #[inline]
    pub(super) fn mark_dirty(&self, connection: &mut Connection) {
        if !connection.dirty {
            connection.dirty = true;
            self.dirty.borrow_mut().push(connection.id);
        }
    }

    /// Connections that may have something to send.
    #[inline]
    pub fn sends_waiting(&self) -> usize {
        self.dirty.borrow().len()
    }

    /// The next connection with something to send, and what.
    #[inline]
    pub fn next_send(&self) -> Option<Outgoing> {
        loop {
            let id = self.dirty.borrow_mut().pop()?;
            let mut connections = self.connections.borrow_mut();
            let Some(connection) = connections.get(id) else { continue };
            connection.dirty = false;
            if matches!(connection.phase, Phase::Connecting | Phase::Closing) {
                continue;
            }
            if let Some(bytes) = connection.writer.start_send(self.clock()) {
                self.count(|counters| counters.bytes_out += bytes.len() as u64);
                let is_dialled = connection.role != Role::Accepted;
                return Some(Outgoing { id, bytes, is_dialled });
            }
        }
    }

    /// The peer sends nothing more, which ends the connection.
    pub fn on_end_of_stream(&self, id: ConnectionId) {
        let cut = match self.connections.borrow_mut().get(id) {
            Some(connection) => connection.reader.as_ref().is_some_and(Reader::is_midway),
            None => return,
        };
        match cut {
            true => self.close_in_turn(id, "the peer closed it in the middle of a frame", End::Failed),
            false => self.close_in_turn(id, "the peer closed it", End::Wanted),
        }
    }

    /// Begins to close a connection.
    pub fn close(&self, id: ConnectionId, cause: &str, end: End) {
        let mut connections = self.connections.borrow_mut();
        let Some(connection) = connections.get(id).filter(|c| c.phase != Phase::Closing) else { return };
        connection.phase = Phase::Closing;
        self.stirred.set(true);
        if let Some(timer) = connection.timer.take() {
            self.disarm(timer);
        }
        if end == End::Faulty {
            self.warn_faulty(&connection.remote, &cause);
        }
        let peer = connection.peer.clone();
        if peer.is_some() && !self.node.roster.leave(self.core, id, self.clock()) {
            self.count(|counters| counters.nodes_forgotten += 1);
        }
        self.act(Action::Close(id));
        let serves = std::mem::take(&mut connection.serves);
        if !serves.is_empty()
            && let Some(connection) = connections.remove(id)
        {
            // Out of the table while its asks end, since their wakers may come back in here.
            drop(connections);
            self.count_unsent(&connection);
            serves.into_iter().for_each(|peer| self.link_down(peer, id, cause));
            self.connections.borrow_mut().insert(connection);
        } else {
            drop(connections);
        }
        self.give_up(Origin::Peer(id));
        self.tell_connection_ended(id);
        if let Some(peer) = peer {
            let error = (end != End::Wanted).then(|| cause.into());
            self.tell(&Event::Disconnected { peer, error });
        }
    }

    /// The ring has closed the socket.
    pub fn on_closed(&self, id: ConnectionId) {
        if self.connections.borrow_mut().remove(id).is_some() {
            self.leave_room();
        }
    }
}

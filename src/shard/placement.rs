//! Which core gets a connection.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::node::Injected;
use super::shard::{Action, Shard};
use super::timeouts::Timer;
use crate::net::connection::{Connection, Departure, Phase, Role};
use crate::net::connection_id::ConnectionId;
use crate::net::reader::Reader;
use crate::net::remote::{Remote, is_near};
use crate::wire::handshake::Hello;

/// Which core of a listening env gets a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Placement {
    /// The one that the kernel has accept it. For TCP it draws by the addresses of both ends, so few connections spread
    /// unevenly. The cores share a Unix socket, and the one that waits first gets nearly all.
    Kernel,
    /// The one with the fewest connections.
    LeastLoaded,
    /// The one that the connecting node asks for: that of the endpoint that its ref was looked up for, whose messages
    /// then take no way through another core. If it asks for none, or for one that does not exist, as `Kernel`; and
    /// as `LeastLoaded` while the core that accepts has all its connections.
    #[default]
    Steered,
}

/// A connection on its way from the core that accepted it to another one.
#[derive(Debug)]
pub struct HandedOver {
    /// Its socket, with nothing in flight.
    pub socket: OwnedFd,
    /// Its other end.
    pub remote: Remote,
    /// What the peer has said, if that was read already.
    pub hello: Option<Hello>,
}

impl Shard {
    /// The core that a connection which this core has just accepted goes to before anything is read from it.
    pub fn place(&self) -> u16 {
        match self.node.config.placement {
            Placement::Kernel => return self.core,
            // Whoever asks for another core gets no further than here if this one is full.
            Placement::Steered if !self.has_all_connections() => return self.core,
            Placement::Steered | Placement::LeastLoaded => {}
        }
        let load = |core: &u16| self.node.cores[usize::from(*core)].connections.load(Ordering::Relaxed);
        let least = (0..self.node.core_count()).min_by_key(load).unwrap_or(self.core);
        if load(&least) < load(&self.core) { least } else { self.core }
    }

    /// Hands a connection to another core. It is closed if that has its full number, or has ended.
    pub fn hand_over(&self, core: u16, socket: OwnedFd, remote: Remote, hello: Option<Hello>) {
        let door = &self.node.cores[usize::from(core)];
        // Counted where it goes to, so that no more are on their way than fit there.
        if door.connections.fetch_add(1, Ordering::Relaxed) >= self.node.config.connections {
            door.connections.fetch_sub(1, Ordering::Relaxed);
            return self.count(|counters| counters.connections_refused += 1);
        }
        self.count(|counters| counters.connections_steered += 1);
        door.inject_always(Injected::Connection(HandedOver { socket, remote, hello }));
    }

    /// A connection that another core has handed over is in the ring.
    pub fn on_handed_over(&self, id: ConnectionId, remote: Remote, hello: Option<Hello>) {
        let mut connection = Connection::new(id, Role::Accepted, remote, self.node.config.max_frame);
        match &hello {
            Some(_) => connection.reader = Some(Reader::after_hello(self.node.config.max_frame, is_near(remote))),
            None => connection.timer = Some(self.arm(self.node.config.handshake_timeout, Timer::Connection(id))),
        }
        self.connections.borrow_mut().insert(connection);
        if let Some(hello) = hello {
            self.open(id, &hello);
        }
        self.act(Action::Receive(id));
    }

    /// Begins to hand a connection over if its peer wants to talk to another core. `last` says that nothing has come
    /// behind the hello: otherwise it stays, since what was read here cannot be unread.
    pub(super) fn departs(&self, connection: &mut Connection, hello: &Hello, last: bool) -> bool {
        let wanted = hello.wanted_core.filter(|&core| core != self.core && core < self.node.core_count());
        let Some(core) = wanted.filter(|_| last && connection.role == Role::Accepted) else { return false };
        if self.node.config.placement != Placement::Steered || self.closing.get().is_some() {
            return false;
        }
        connection.phase = Phase::Departing;
        connection.departure = Some(Box::new(Departure { core, hello: hello.clone() }));
        self.act(Action::Detach(connection.id));
        true
    }

    /// The ring has given up the socket of a connection.
    pub fn on_detached(&self, id: ConnectionId, socket: OwnedFd) {
        let Some(mut connection) = self.connections.borrow_mut().remove(id) else { return };
        self.leave_room();
        if let Some(timer) = connection.timer.take() {
            self.disarm(timer);
        }
        // Closed in the meantime, it has no business elsewhere.
        if let Some(departure) = connection.departure.take().filter(|_| connection.phase == Phase::Departing) {
            let Departure { core, hello } = *departure;
            self.hand_over(core, socket, connection.remote, Some(hello));
        }
    }

    /// Counts a connection in that is about to be entered into the table.
    pub(super) fn take_room(&self) {
        self.node.cores[usize::from(self.core)].connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection out that has left the table, or never came to it.
    pub fn leave_room(&self) {
        self.node.cores[usize::from(self.core)].connections.fetch_sub(1, Ordering::Relaxed);
    }
}

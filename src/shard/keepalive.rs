//! Whether the peer of a silent connection is still there.

use super::shard::Shard;
use super::timeouts::Timer;
use crate::net::connection::{Connection, End, Phase};
use crate::net::connection_id::ConnectionId;
use crate::net::keepalive::{Keepalive, Verdict};
use crate::wire::frame;

// A connection that has brought nothing for `Config::keepalive` is sent a ping, and another one each such time that it
// stays silent. Whatever it brings is a sign of life, which answers all pings before it. TCP's own keepalive would not
// do: the kernel of a process that was stopped goes on answering it.
impl Shard {
    /// A connection is open: its timer looks after the peer from now on.
    pub(super) fn begin_keepalive(&self, connection: &mut Connection) {
        if let Some(timer) = connection.timer.take() {
            self.disarm(timer);
        }
        connection.keepalive = Keepalive::new(self.clock());
        let period = self.node.config.keepalive;
        if !period.is_zero() {
            connection.timer = Some(self.arm(period, Timer::Connection(connection.id)));
        }
    }

    /// The keepalive timer of an open connection has fired. False if its peer is taken for dead.
    pub(super) fn is_alive(&self, connection: &mut Connection) -> bool {
        let (config, now) = (&self.node.config, self.clock());
        if connection.paused {
            // Nothing arrives while we do not read: what the peer takes is a sign of life then.
            connection.keepalive.noticed(now.saturating_sub(connection.writer.stuck_for(now)));
        }
        let next = match connection.keepalive.judge(now, config.keepalive, config.keepalive_misses) {
            Verdict::Wait(next) => next,
            Verdict::Ping(next) => {
                frame::write_ping(connection.writer.buffer(&mut self.spares.borrow_mut()));
                self.mark_dirty(connection);
                self.count(|counters| counters.pings_sent += 1);
                next
            }
            Verdict::Dead => return false,
        };
        connection.timer = Some(self.arm(next, Timer::Connection(connection.id)));
        true
    }

    /// Closes a connection whose peer is taken for dead.
    pub(super) fn close_silent(&self, id: ConnectionId) {
        self.count(|counters| counters.keepalive_closed += 1);
        let (misses, period) = (self.node.config.keepalive_misses, self.node.config.keepalive);
        let cause = format!("it gave no sign of life to {misses} pings, one each {period:?} (Config::keepalive)");
        self.close_in_turn(id, &cause, End::Faulty);
    }

    /// The peer wants a sign of life. What waits to be sent is one, which bounds the pongs that a flood of pings causes.
    pub(super) fn on_ping(&self, id: ConnectionId) {
        let mut connections = self.connections.borrow_mut();
        let Some(connection) = connections.get(id).filter(|c| c.phase == Phase::Open) else { return };
        if connection.writer.queued().is_empty() {
            frame::write_pong(connection.writer.buffer(&mut self.spares.borrow_mut()));
            self.mark_dirty(connection);
        }
    }
}

//! Time for which a core attended to nobody.

use super::node::now;
use super::shard::Shard;

/// The longest time that a turn counts as silence of a peer: 100 ms. A core attends to its peers once a turn, however long
/// turns take: a peer that shows nothing in 10 of them, or in 50 for its hello, is given up even by a core that is always
/// busy.
const ATTENDED_NS: u64 = 100_000_000;

// A core whose turn took long, since a handler blocked or the machine had no CPU for it, has neither read what its peers
// sent meanwhile nor gone on with what it sends to them. The time beyond `ATTENDED_NS` counts as nobody's silence:
// keepalive, handshakes and sends go on as if it had not been.
impl Shard {
    /// Takes the time at the beginning of a turn. The time since the last one was spent in a turn.
    #[inline]
    pub fn tick(&self) -> u64 {
        let now = self.look_at_the_clock();
        let passed = now.saturating_sub(self.attended.replace(now));
        if passed > ATTENDED_NS {
            self.forgive(passed - ATTENDED_NS);
        }
        now
    }

    /// Takes the time after a wait for events that was to end at the next deadline. What passed after that was no wait.
    #[inline]
    pub(super) fn tick_after_wait(&self) {
        let now = self.look_at_the_clock();
        let before = self.attended.replace(now);
        if now.saturating_sub(before) > ATTENDED_NS {
            self.notice_oversleeping(before);
        }
    }

    /// Takes the time where it has to be exact, within a turn.
    #[inline]
    pub(super) fn look_at_the_clock(&self) -> u64 {
        self.clock.set(now());
        self.clock()
    }

    #[cold]
    fn notice_oversleeping(&self, began: u64) {
        let Some(due) = self.next_deadline() else { return };
        let late = self.clock().saturating_sub(due.max(began));
        if late > ATTENDED_NS {
            self.forgive(late - ATTENDED_NS);
        }
    }

    /// Prolongs by so many nanoseconds whatever is measured in silence of a peer.
    #[cold]
    fn forgive(&self, absent: u64) {
        for connection in self.connections.borrow_mut().iter_mut() {
            connection.keepalive.forgive(absent);
            connection.writer.forgive(absent);
            if let Some(timer) = connection.timer {
                connection.timer = self.timers.borrow_mut().postpone(timer, absent);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;
    use crate::executor::idle::Idle;
    use crate::net::connection::{Connection, Phase, Role};
    use crate::net::connection_id::ConnectionId;
    use crate::net::remote::Remote;
    use crate::ring::Capabilities;
    use crate::shard::config::Config;
    use crate::shard::node::{Injected, Node};
    use crate::shard::stage::{Drive, Stage, node};
    use crate::shard::timeouts::Timer;
    use crate::wire::handshake::{Hello, VERSION};

    fn block_until(time: u64) {
        while now() < time {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn a_hello_that_came_while_a_handler_blocked_is_read_before_its_time_is_judged() {
        for drive in [Drive::Alone, Drive::Hosted] {
            let stage = Stage::new(drive);
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let handshake_timeout = Duration::from_millis(50);
            let config = Config { idle: Idle::Park, handshake_timeout, ..Config::default() };
            let server = Node::new("server".into(), config, 1, Capabilities::probe().unwrap());
            let core = stage.core(&server, 0, Some(listener));
            let shard = stage.shard(core);
            assert!(stage.turn_until(&[core], 1, || shard.counters.borrow().accepted == 1));

            // The peer says its hello at once, and what blocks is followed by something else to do.
            let next = server.clone();
            server.cores[0].inject_always(Injected::Job(Box::new(move |_| {
                let mut hello = Vec::new();
                Hello {
                    versions: (VERSION, VERSION),
                    max_frame: 16 << 20,
                    cores: 1,
                    wanted_core: None,
                    incarnation: 5,
                    name: "raw".into(),
                    advertised: None,
                    token: None,
                    outbox: None,
                    given: None,
                }
                .encode(&mut hello);
                peer.write_all(&hello).unwrap();
                block_until(now() + 200_000_000);
                next.cores[0].inject_always(Injected::Job(Box::new(|_| ())));
                std::mem::forget(peer);
            })));
            for _ in 0..3 {
                stage.turn(core);
            }

            assert_eq!(shard.counters.borrow().protocol_errors, 0, "{drive:?}: its time was judged first");
            let open = || shard.connections.borrow().iter().any(|connection| connection.phase == Phase::Open);
            assert!(stage.turn_until(&[core], 1, open));
        }
    }

    /// A core whose last turn began when the process did, and a connection for which a hopeless amount waits since then.
    fn absent_since_the_beginning() -> (Stage, usize, ConnectionId) {
        let stage = Stage::new(Drive::Alone);
        let core = stage.core(&node("server", 1), 0, None);
        let shard = stage.shard(core);
        shard.clock.set(0);
        shard.attended.set(0);
        let id = ConnectionId { slot: 0, generation: 0 };
        let mut connection = Connection::new(id, Role::Accepted, Remote::Unix, 16 << 20);
        connection.phase = Phase::Open;
        let mut spares = shard.spares.borrow_mut();
        connection.writer.buffer(&mut spares).resize(64 << 20, 0);
        connection.writer.start_send(0).unwrap();
        drop(spares);
        connection.timer = Some(shard.arm(Duration::from_secs(3), Timer::Connection(id)));
        shard.connections.borrow_mut().insert(connection);
        // Longer than a peer may take nothing.
        block_until(1_100_000_000);
        (stage, core, id)
    }

    #[test]
    fn the_absence_of_a_core_is_no_silence_of_its_peers() {
        let (stage, core, id) = absent_since_the_beginning();
        let shard = stage.shard(core);
        let judged_at = shard.next_deadline().unwrap();
        stage.turn(core);
        assert!(shard.next_deadline().unwrap() >= judged_at + 1_000_000_000);
        let mut connections = shard.connections.borrow_mut();
        assert!(!shard.is_hopeless(connections.get(id).unwrap()));
    }

    #[test]
    fn a_wait_that_ends_when_it_was_to_is_no_absence() {
        let (stage, core, id) = absent_since_the_beginning();
        let shard = stage.shard(core);
        shard.tick_after_wait();
        shard.tick();
        let mut connections = shard.connections.borrow_mut();
        assert!(shard.is_hopeless(connections.get(id).unwrap()));
    }
}

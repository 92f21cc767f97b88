//! Connections whose peers have connected anew: nothing that they brought counts any longer.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::connection_id::ConnectionId;

/// Connections whose fences are allocated together.
const CHUNK: usize = 1024;

/// Which connections of an env have been succeeded by a later one of the same outbox.
///
/// Every core looks here before it delivers a request, without a lock: the request may have come to another core, and
/// wait in a lane. A fence is set before the first request of the successor is delivered anywhere, so whoever has
/// delivered that one finds it.
#[derive(Debug)]
pub struct Fences {
    /// Whether there is any: the steady state looks no further.
    any: AtomicBool,
    cores: Box<[Slots]>,
}

/// For each place in a core's table of connections the generation that was fenced last, plus one; in chunks that are
/// allocated when they are needed.
type Slots = Box<[OnceLock<Box<[AtomicU64]>>]>;

impl Fences {
    /// None yet, among so many cores with so many connections each.
    pub fn new(cores: u16, connections: usize) -> Fences {
        // A place is used again a turn after its connection has ended, so a core may have more places than connections.
        let chunks = connections.saturating_mul(2) / CHUNK + 2;
        let slots = |_| (0..chunks).map(|_| OnceLock::new()).collect();
        Fences { any: AtomicBool::new(false), cores: (0..cores).map(slots).collect() }
    }

    /// Nothing more counts that this connection brings, or has brought and is still on its way to an endpoint.
    pub fn fence(&self, core: u16, connection: ConnectionId) {
        let Some(chunk) = self.chunk(core, connection) else { return };
        let chunk = chunk.get_or_init(|| (0..CHUNK).map(|_| AtomicU64::new(0)).collect());
        chunk[connection.slot as usize % CHUNK].store(mark(connection), Ordering::Release);
        self.any.store(true, Ordering::Release);
    }

    /// Whether the connection has been fenced.
    #[inline]
    pub fn is_fenced(&self, core: u16, connection: ConnectionId) -> bool {
        self.any.load(Ordering::Acquire) && self.look(core, connection)
    }

    fn look(&self, core: u16, connection: ConnectionId) -> bool {
        let chunk = self.chunk(core, connection).and_then(OnceLock::get);
        chunk.is_some_and(|chunk| chunk[connection.slot as usize % CHUNK].load(Ordering::Acquire) == mark(connection))
    }

    fn chunk(&self, core: u16, connection: ConnectionId) -> Option<&OnceLock<Box<[AtomicU64]>>> {
        self.cores.get(usize::from(core))?.get(connection.slot as usize / CHUNK)
    }
}

fn mark(connection: ConnectionId) -> u64 {
    u64::from(connection.generation) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_means_one_connection_and_not_the_next_in_its_place() {
        let fences = Fences::new(2, 4096);
        let id = |slot, generation| ConnectionId { slot, generation };
        for (slot, generation) in [(0, 0), (1023, 7), (1024, u32::MAX), (8191, 1)] {
            assert!(!fences.is_fenced(1, id(slot, generation)));
            fences.fence(1, id(slot, generation));
            assert!(fences.is_fenced(1, id(slot, generation)));
            assert!(!fences.is_fenced(0, id(slot, generation)), "a connection of another core");
            assert!(!fences.is_fenced(1, id(slot, generation.wrapping_add(1))), "the next one in its place");
        }
        assert!(!fences.is_fenced(2, id(0, 0)) && !fences.is_fenced(1, id(u32::MAX, 0)), "there is no such connection");
    }
}

//! What an idle connection costs in memory.

use serde::{Deserialize, Serialize};

/// Bytes that a process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    /// What its core has allocated and not freed.
    pub(crate) heap: i64,
    /// What of the process is in memory, as the kernel counts.
    pub(crate) resident: i64,
}

/// What server and client hold while all connections are idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub(crate) server: Held,
    pub(crate) client: Held,
}

/// Bytes of one more idle connection, at each end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Footprint {
    pub(crate) server_heap: f64,
    pub(crate) server_resident: f64,
    pub(crate) client_heap: f64,
    pub(crate) client_resident: f64,
}

impl Memory {
    /// What each connection beyond the first has added, if this is the memory with so many and `one` that with one.
    pub(crate) fn of_each_beyond(self, one: Memory, connections: usize) -> Option<Footprint> {
        let more = connections.checked_sub(1).filter(|more| *more > 0)?;
        let each = |many: i64, one: i64| (many - one) as f64 / more as f64;
        Some(Footprint {
            server_heap: each(self.server.heap, one.server.heap),
            server_resident: each(self.server.resident, one.server.resident),
            client_heap: each(self.client.heap, one.client.heap),
            client_resident: each(self.client.resident, one.client.resident),
        })
    }
}

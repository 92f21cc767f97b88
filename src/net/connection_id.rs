//! The name of a connection.

/// Which connection of a core: a place in its table and a generation, so that what comes late never reaches the
/// next connection in the same place.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ConnectionId {
    /// Place in the table.
    pub slot: u32,
    /// How many connections had the place before.
    pub generation: u32,
}

impl ConnectionId {
    /// The id as a number.
    #[inline]
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    /// The id that this number stands for.
    pub fn from_bits(bits: u64) -> ConnectionId {
        ConnectionId { slot: bits as u32, generation: (bits >> 32) as u32 }
    }
}

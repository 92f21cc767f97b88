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

//! Two kinds of node ids: those that nodes choose, and those that an acceptor gives.

/// Set in each id that an acceptor gives, and in no other.
const GIVEN: u64 = 1 << 63;

/// The id that no node has.
pub const NOBODY: u64 = GIVEN;

/// Makes an incarnation of a random number.
pub fn chosen(random: u64) -> u64 {
    random & !GIVEN
}

/// Makes an id that an acceptor gives of a random number.
pub fn given(random: u64) -> u64 {
    random | GIVEN
}

/// Whether an id is one that an acceptor gives: no node has it because it says so.
pub fn is_given(id: u64) -> bool {
    id & GIVEN != 0
}

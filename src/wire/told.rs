//! Who told the refs in what is decoded, and so how far they are trusted. A typed error is decoded long after it has
//! arrived, and wherever it was passed on to.

use std::cell::Cell;

/// Who told a typed error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Told {
    /// A peer of another machine, or nobody can say.
    #[default]
    Unknown,
    /// A process of this machine.
    Near,
    /// A handler of this process, and each ref in it is one that may be used without reserve.
    Own,
}

/// A node id that means another node here than where it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alias {
    /// The id as it is written.
    pub id: u64,
    /// The id that the node has here; none if it is this node.
    pub means: Option<u64>,
}

/// Who told what is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Teller {
    /// A peer, with a message or a reply.
    Peer {
        /// The core that owns the connection, if it is not the one that decodes.
        core: Option<u16>,
        /// The connection, as that core knows it.
        connection: u64,
        /// Whether the peer is a process of this machine.
        near: bool,
    },
    /// Whoever told this error.
    Error {
        /// Who that was.
        told: Told,
        /// The node id that means another node there.
        alias: Option<Alias>,
    },
}

/// The name under which a ref asks for a newtype struct: the codec then says who told it. It is no part of the bytes.
pub const REF: &str = "$ringpost::ref";

thread_local! {
    /// Who told the ref that is being decoded.
    static TELLER: Cell<Option<Teller>> = const { Cell::new(None) };
    /// Calls of [`note_reserve`].
    static RESERVES: Cell<u64> = const { Cell::new(0) };
}

/// Decodes a ref that `teller` has told: nobody's code runs in there but that of refs.
pub(super) fn told_by<R>(teller: Option<Teller>, decode: impl FnOnce() -> R) -> R {
    let before = TELLER.replace(teller);
    let decoded = decode();
    TELLER.set(before);
    decoded
}

/// Who told the ref that is being decoded on this thread; none if a user's own code decodes it.
pub fn teller() -> Option<Teller> {
    TELLER.get()
}

/// Tells the encode that is running on this thread that its value holds a ref which must not get more trust by being
/// told once more. To be called by the ref's `Serialize` implementation.
#[cold]
pub fn note_reserve() {
    RESERVES.set(RESERVES.get() + 1);
}

/// Encodes an error of this process, and says how it is told.
pub fn encode_own<R>(encode: impl FnOnce() -> R) -> (R, Told) {
    let before = RESERVES.get();
    let encoded = encode();
    (encoded, if RESERVES.get() == before { Told::Own } else { Told::Unknown })
}

//! How far the refs in a typed error are trusted: it is decoded long after it has arrived, and wherever it was passed
//! on to.

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

thread_local! {
    /// Who told the error that is being decoded, and the id that means another node there.
    static DECODING: Cell<Option<(Told, Option<Alias>)>> = const { Cell::new(None) };
    /// Calls of [`note_reserve`].
    static RESERVES: Cell<u64> = const { Cell::new(0) };
}

/// Decodes an error that was told like this. A panic in there is kept by the codec.
pub fn decode_as<R>(told: Told, alias: Option<Alias>, decode: impl FnOnce() -> R) -> R {
    let before = DECODING.replace(Some((told, alias)));
    let decoded = decode();
    DECODING.set(before);
    decoded
}

/// Who told the error that is being decoded on this thread, if one is, and the id that means another node there.
pub fn decoding() -> Option<(Told, Option<Alias>)> {
    DECODING.get()
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

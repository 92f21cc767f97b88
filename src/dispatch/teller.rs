//! Whose bytes are being decoded on this thread.

use std::cell::Cell;

use super::call::Origin;

thread_local! {
    static TELLER: Cell<Option<Teller>> = const { Cell::new(None) };
}

/// Who sent the bytes that are being decoded.
#[derive(Clone, Copy, Debug)]
pub struct Teller {
    /// Where they came from.
    pub origin: Origin,
    /// Whether that was on this machine.
    pub near: bool,
}

/// Decodes what `teller` has sent. A panic in there is kept by the codec.
#[inline]
pub fn told_by<R>(teller: Teller, decode: impl FnOnce() -> R) -> R {
    let before = TELLER.with(|current| current.replace(Some(teller)));
    let decoded = decode();
    TELLER.with(|current| current.set(before));
    decoded
}

/// Who sent the bytes that are being decoded; none if a user's own code decodes them.
pub fn teller() -> Option<Teller> {
    TELLER.with(Cell::get)
}

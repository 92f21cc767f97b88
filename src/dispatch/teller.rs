//! Whose bytes are being decoded on this thread.

use std::cell::Cell;

use super::call::Origin;

thread_local! {
    static TELLER: Cell<Option<Origin>> = const { Cell::new(None) };
}

/// Decodes what came from `origin`. A panic in there is kept by the codec.
#[inline]
pub fn told_by<R>(origin: Origin, decode: impl FnOnce() -> R) -> R {
    let before = TELLER.with(|teller| teller.replace(Some(origin)));
    let decoded = decode();
    TELLER.with(|teller| teller.set(before));
    decoded
}

/// Who sent the bytes that are being decoded; none if a user's own code decodes them.
pub fn teller() -> Option<Origin> {
    TELLER.with(Cell::get)
}

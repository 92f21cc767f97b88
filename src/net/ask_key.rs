//! The name of an ask.

/// Which ask of a core: slot and serial number. It travels as the request id of the frame; never 0.
///
/// The serial number is new for each ask, so an answer that comes after its ask has ended finds either an empty
/// slot or another serial, and is dropped.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct AskKey(pub u64);

impl AskKey {
    /// No ask's.
    pub const NONE: AskKey = AskKey(0);

    /// Puts a key together.
    pub fn new(slot: usize, serial: u32) -> AskKey {
        AskKey((slot as u64) << 32 | u64::from(serial))
    }

    pub(super) fn slot(self) -> usize {
        (self.0 >> 32) as usize
    }

    pub(super) fn serial(self) -> u32 {
        self.0 as u32
    }
}

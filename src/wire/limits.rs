//! What the bytes of a stranger may cost when they are decoded.

use std::fmt;

/// What decoding one message may cost. Beyond it, that message is undecodable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Levels to which options, enums, sequences and maps nest.
    pub depth: u32,
    /// Bytes that the elements of sequences and maps, and values behind pointers, take up. Text and sequences of single
    /// bytes are as large as their encoding, and not counted.
    pub bytes: usize,
    /// Elements of sequences and maps, beyond one for each byte of the encoding.
    pub elements: usize,
    /// The lowest address that the stack of the thread that decodes may reach; 0 if it is not watched.
    pub stack_floor: usize,
}

impl DecodeLimits {
    /// The limits of a default configuration, on a thread whose stack is not watched.
    pub const DEFAULT: DecodeLimits = DecodeLimits { depth: 128, bytes: 128 << 20, elements: 65_536, stack_floor: 0 };

    /// The same on a thread whose stack may reach down to this address.
    pub const fn on_stack(self, stack_floor: usize) -> DecodeLimits {
        DecodeLimits { stack_floor, ..self }
    }
}

/// One of the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    Depth,
    Bytes,
    Elements,
    Stack,
}

/// The limit that a message went beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beyond {
    pub(super) limit: Limit,
    pub(super) limits: DecodeLimits,
}

impl fmt::Display for Beyond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DecodeLimits { depth, bytes, elements, .. } = self.limits;
        match self.limit {
            Limit::Depth => write!(f, "its values nest deeper than {depth} levels (Config::decode_depth)"),
            Limit::Bytes => write!(f, "its values take up more than {bytes} bytes (Config::decode_bytes)"),
            Limit::Elements => {
                write!(f, "it has {elements} elements more than it has bytes, or still more (Config::decode_elements)")
            }
            Limit::Stack => f.write_str(
                "its values nest deeper than the stack of the decoding thread allows: lower Config::decode_depth, or \
                 decode on a thread with a larger stack",
            ),
        }
    }
}

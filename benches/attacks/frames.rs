//! Frames as `docs/WIRE.md` has them, written byte by byte: an attacker does not use our codec.

/// The first bytes of a dialler that listens nowhere. No two are one node, unless `incarnation` says so.
pub(crate) fn hello(incarnation: u64) -> Vec<u8> {
    let mut out = b"rngpost\x1a".to_vec();
    out.extend(46_u16.to_le_bytes());
    out.extend(1_u16.to_le_bytes());
    out.extend(1_u16.to_le_bytes());
    out.extend(1_u16.to_le_bytes());
    out.extend(u16::MAX.to_le_bytes());
    out.extend([0; 2]);
    out.extend((16_u32 << 20).to_le_bytes());
    out.extend(incarnation.to_le_bytes());
    out.extend(6_u16.to_le_bytes());
    out.extend(0_u16.to_le_bytes());
    out.extend([0; 4]);
    out.extend(b"hostile"[..6].iter());
    out
}

/// Kind of an ask.
pub(crate) const ASK: u8 = 1;
/// Kind of a one-way message.
pub(crate) const ONE_WAY: u8 = 2;
/// Kind of a reply.
pub(crate) const REPLY: u8 = 3;
/// Kind of a failure.
pub(crate) const FAILURE: u8 = 4;
/// Kind of a cancel.
pub(crate) const CANCEL: u8 = 5;

/// Flag of a name record.
const NAMED: u8 = 0x08;
/// Flag of a resolved record.
const RESOLVED: u8 = 0x10;

/// Appends an ask, a one-way message or a cancel to the endpoint with this name.
pub(crate) fn to_name(out: &mut Vec<u8>, kind: u8, request: u64, name: &str, message: &str, payload: &[u8]) {
    let length = 28 + 1 + name.len() + payload.len();
    head(out, length, kind, NAMED, request);
    out.extend(0_u64.to_le_bytes());
    out.extend(message_id(message).to_le_bytes());
    out.push(name.len() as u8);
    out.extend(name.as_bytes());
    out.extend(payload);
}

/// Appends an ask to the endpoint with this id.
pub(crate) fn to_id(out: &mut Vec<u8>, request: u64, endpoint: u64, message: &str, payload: &[u8]) {
    head(out, 28 + payload.len(), ASK, 0, request);
    out.extend(endpoint.to_le_bytes());
    out.extend(message_id(message).to_le_bytes());
    out.extend(payload);
}

fn head(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, request: u64) {
    out.extend((length as u32).to_le_bytes());
    out.push(kind);
    out.push(flags);
    out.extend(0_u16.to_le_bytes());
    out.extend(request.to_le_bytes());
}

/// Section 6, for version 1 of a message.
fn message_id(name: &str) -> u32 {
    let bytes = name.bytes().chain([0, 1, 0]);
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (hash ^ (hash >> 32)) as u32
}

/// A length or an unsigned number, as section 7 has it.
pub(crate) fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A ref in a message: the URI, and no key.
pub(crate) fn reference(uri: &str) -> Vec<u8> {
    let mut out = varint(uri.len() as u64);
    out.extend(uri.as_bytes());
    out.push(0);
    out
}

/// The failure code of a whole frame, if it is a failure.
pub(crate) fn failure_code(frame: &[u8]) -> Option<u16> {
    let at = if frame.get(5)? & RESOLVED == 0 { 16 } else { 26 };
    (frame[4] == FAILURE).then_some(())?;
    Some(u16::from_le_bytes([*frame.get(at)?, *frame.get(at + 1)?]))
}

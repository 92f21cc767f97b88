//! Frames: a fixed header, optional records, a payload.
//!
//! ```text
//!  0        4      5      6        8                 16               24         28
//!  | length | kind | flags | route | request id      | endpoint       | message  |  records, payload
//!  |---------------- every frame -------------------||----- requests, cancels ----|
//! ```
//! All integers are little-endian. `length` counts the whole frame. `docs/WIRE.md` has the details.

use super::failure::{Failure, FailureCode, MAX_TYPED, Typed};
use super::message::MessageId;
use super::told::Told;

/// Bytes in front of the records of an ask, a one-way message or a cancel.
pub const REQUEST_HEADER: usize = 28;
/// Bytes in front of the records of a reply or a failure.
pub const REPLY_HEADER: usize = 16;
/// Largest failure frame in bytes; no node may announce a smaller limit for frames.
pub const MAX_FAILURE: usize = 4096;
/// Bytes in front of a typed error: its id and its length.
const TYPED_HEADER: usize = 6;
/// Longest endpoint name in bytes.
pub const MAX_NAME: usize = 255;

const KIND_ASK: u8 = 1;
const KIND_ONE_WAY: u8 = 2;
const KIND_REPLY: u8 = 3;
const KIND_FAILURE: u8 = 4;
const KIND_CANCEL: u8 = 5;
const KIND_GONE: u8 = 6;
const KIND_PING: u8 = 7;
const KIND_PONG: u8 = 8;
/// Kinds from here on may be skipped by whoever does not know them.
const FIRST_SKIPPABLE_KIND: u8 = 128;

const FLAG_ROUTE_CORE: u8 = 1;
const FLAG_ROUTE_KEY: u8 = 2;
const FLAG_DEADLINE: u8 = 4;
const FLAG_NAMED: u8 = 8;
const FLAG_RESOLVED: u8 = 16;
const KNOWN_FLAGS: u8 = 31;

/// Who is meant, once the name is resolved: 20 bits of slot, 44 bits of salt, unique in one env.
///
/// The salt is drawn anew whenever the slot gets another endpoint, so that nobody guesses the id of an endpoint whose
/// name they do not know. The directory draws it, and never gives one slot the same salt twice: an id never means two
/// endpoints.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct EndpointId(pub u64);

impl EndpointId {
    /// Endpoints that one env can hold at once.
    pub const MAX_SLOTS: u32 = 1 << 20;
    /// Bits of a salt.
    pub const SALT_BITS: u32 = 44;

    /// Puts an id together. `slot` is below [`MAX_SLOTS`](Self::MAX_SLOTS), `salt` has at most
    /// [`SALT_BITS`](Self::SALT_BITS).
    pub const fn new(slot: u32, salt: u64) -> EndpointId {
        EndpointId(salt << 20 | slot as u64)
    }

    /// The place in the dispatcher's table.
    #[inline]
    pub const fn slot(self) -> usize {
        (self.0 & (Self::MAX_SLOTS as u64 - 1)) as usize
    }

    /// What tells the endpoint from those that had the slot before.
    pub const fn salt(self) -> u64 {
        self.0 >> 20
    }
}

/// On which core of the receiver the endpoint is to be found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// The core that owns the connection.
    Here,
    /// This core.
    Core(u16),
    /// The core that owns this key: see [`core_of_key`].
    Key(u16),
}

/// The core out of `cores` that owns a 16-bit key: `key * cores / 65536`.
#[inline]
pub fn core_of_key(key: u16, cores: u16) -> u16 {
    ((key as u32 * cores as u32) >> 16) as u16
}

/// Whom a request is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target<'a> {
    /// By the id that an earlier answer told.
    Id(EndpointId),
    /// By name: the answer will tell the id.
    Name(&'a str),
}

/// Where a name was found: rides along with the answer to a request that used the name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resolved {
    /// The id to use from now on with this peer.
    pub endpoint: EndpointId,
    /// The core it lives on; none if every core has one.
    pub core: Option<u16>,
}

/// The head of an ask or a one-way message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestHead<'a> {
    /// Chosen by the asker and given back with the answer; 0 for a one-way message.
    pub request: u64,
    /// The endpoint.
    pub target: Target<'a>,
    /// On which core it is.
    pub route: Route,
    /// The message type.
    pub message: MessageId,
    /// How long the asker will still wait, in microseconds.
    pub deadline_us: Option<u32>,
}

/// A frame as it lies in the receive buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frame<'a> {
    /// An ask (request id not 0) or a one-way message (request id 0).
    Request {
        /// Everything but the payload.
        head: RequestHead<'a>,
        /// The encoded message.
        payload: &'a [u8],
    },
    /// The answer to an ask.
    Reply {
        /// The id of the ask.
        request: u64,
        /// Present if the ask used a name.
        resolved: Option<Resolved>,
        /// The encoded reply.
        payload: &'a [u8],
    },
    /// The ask failed at the other side.
    Failure {
        /// The id of the ask.
        request: u64,
        /// Present if the ask used a name that exists.
        resolved: Option<Resolved>,
        /// What went wrong.
        failure: Failure<'a>,
    },
    /// The asker does not wait any longer.
    Cancel {
        /// The id of the ask.
        request: u64,
        /// The endpoint that was asked.
        target: Target<'a>,
        /// On which core it is.
        route: Route,
    },
    /// A one-way message was for an endpoint that no longer exists: use its name again.
    Gone {
        /// The id that the message was sent to.
        endpoint: EndpointId,
    },
    /// The other side has heard nothing for a while, and wants to.
    Ping,
    /// The answer to a ping, where nothing else is to be said.
    Pong,
    /// A kind that this version does not know and may skip.
    Skipped,
}

/// Why bytes are no frame. Each of these ends the connection: nothing behind it can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The length is below that of the smallest frame.
    #[error("a frame of {0} bytes is shorter than its header")]
    TooShort(u32),
    /// The length is above the limit that the handshake told.
    #[error("a frame of {length} bytes is above the limit of {limit} (max_frame)")]
    TooLong {
        /// What the header claims.
        length: u32,
        /// What this side accepts.
        limit: u32,
    },
    /// A kind that this version neither knows nor may skip.
    #[error("unknown frame kind {0}")]
    UnknownKind(u8),
    /// A flag that this version does not know.
    #[error("unknown frame flags {0:#04x}")]
    UnknownFlags(u8),
    /// A field or record does not fit in its frame, or is malformed.
    #[error("malformed {0}")]
    BadRecord(&'static str),
}

/// The frame is larger than the receiver accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {length} bytes is above the receiver's limit of {limit} (max_frame)")]
pub struct FrameTooLarge {
    /// Bytes that the frame would have.
    pub length: usize,
    /// The receiver's limit.
    pub limit: u32,
}

/// A frame that is being written behind whatever a buffer holds; cut off again unless it is finished, so that a
/// value that fails or panics half-way leaves no trace.
pub struct Draft<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    finished: bool,
}

impl<'a> Draft<'a> {
    /// Begins an ask or a one-way message.
    #[inline]
    pub fn request(out: &'a mut Vec<u8>, head: &RequestHead<'_>) -> Draft<'a> {
        let start = begin_request(out, head);
        Draft { out, start, finished: false }
    }

    /// Begins a reply.
    #[inline]
    pub fn reply(out: &'a mut Vec<u8>, request: u64, resolved: Option<Resolved>) -> Draft<'a> {
        let start = begin_answer(out, KIND_REPLY, request, resolved);
        Draft { out, start, finished: false }
    }

    /// Where the payload is appended.
    #[inline]
    pub fn payload(&mut self) -> &mut Vec<u8> {
        self.out
    }

    /// Fills in the length, unless the frame is larger than `limit` bytes.
    #[inline]
    pub fn finish(mut self, limit: u32) -> Result<(), FrameTooLarge> {
        let length = self.out.len() - self.start;
        if length > limit as usize {
            return Err(FrameTooLarge { length, limit });
        }
        set_length(self.out, self.start);
        self.finished = true;
        Ok(())
    }
}

impl Drop for Draft<'_> {
    #[inline]
    fn drop(&mut self) {
        if !self.finished {
            self.out.truncate(self.start);
        }
    }
}

#[inline]
fn begin_request(out: &mut Vec<u8>, head: &RequestHead<'_>) -> usize {
    let start = out.len();
    let kind = if head.request == 0 { KIND_ONE_WAY } else { KIND_ASK };
    let (mut flags, route) = match head.route {
        Route::Here => (0, 0),
        Route::Core(core) => (FLAG_ROUTE_CORE, core),
        Route::Key(key) => (FLAG_ROUTE_KEY, key),
    };
    let id = match head.target {
        Target::Id(id) => id.0,
        Target::Name(_) => {
            flags |= FLAG_NAMED;
            0
        }
    };
    if head.deadline_us.is_some() {
        flags |= FLAG_DEADLINE;
    }
    let mut bytes = [0; REQUEST_HEADER];
    bytes[4] = kind;
    bytes[5] = flags;
    bytes[6..8].copy_from_slice(&route.to_le_bytes());
    bytes[8..16].copy_from_slice(&head.request.to_le_bytes());
    bytes[16..24].copy_from_slice(&id.to_le_bytes());
    bytes[24..28].copy_from_slice(&head.message.0.to_le_bytes());
    out.extend_from_slice(&bytes);
    if let Some(deadline) = head.deadline_us {
        out.extend_from_slice(&deadline.to_le_bytes());
    }
    if let Target::Name(name) = head.target {
        debug_assert!(name.len() <= MAX_NAME, "names are checked when a ref is made");
        out.push(name.len() as u8);
        out.extend_from_slice(name.as_bytes());
    }
    start
}

fn begin_answer(out: &mut Vec<u8>, kind: u8, request: u64, resolved: Option<Resolved>) -> usize {
    let start = out.len();
    let mut bytes = [0; REPLY_HEADER];
    bytes[4] = kind;
    bytes[8..16].copy_from_slice(&request.to_le_bytes());
    if resolved.is_some() {
        bytes[5] = FLAG_RESOLVED;
    }
    out.extend_from_slice(&bytes);
    if let Some(Resolved { endpoint, core }) = resolved {
        out.extend_from_slice(&endpoint.0.to_le_bytes());
        out.extend_from_slice(&core.unwrap_or(u16::MAX).to_le_bytes());
    }
    start
}

/// Writes a whole failure frame. The text is cut so that the frame has at most [`MAX_FAILURE`] bytes, which every
/// node accepts.
pub fn write_failure(out: &mut Vec<u8>, request: u64, resolved: Option<Resolved>, failure: &Failure<'_>) {
    let start = begin_answer(out, KIND_FAILURE, request, resolved);
    let typed = failure.typed.filter(|typed| typed.bytes.len() <= MAX_TYPED);
    let behind = typed.map_or(0, |typed| TYPED_HEADER + typed.bytes.len());
    let room = MAX_FAILURE - (out.len() - start) - 4 - behind;
    let text = &failure.text[..failure.text.floor_char_boundary(room)];
    out.extend_from_slice(&(failure.code as u16).to_le_bytes());
    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
    if let Some(Typed { id, bytes, .. }) = typed {
        out.extend_from_slice(&id.to_le_bytes());
        out.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
        out.extend_from_slice(bytes);
    }
    set_length(out, start);
}

/// Writes a whole cancel frame, which goes the way of the ask that it cancels.
pub fn write_cancel(out: &mut Vec<u8>, request: u64, target: Target<'_>, route: Route) {
    let head = RequestHead { request, target, route, message: MessageId(0), deadline_us: None };
    let start = begin_request(out, &head);
    out[start + 4] = KIND_CANCEL;
    set_length(out, start);
}

/// Writes a whole gone frame.
pub fn write_gone(out: &mut Vec<u8>, endpoint: EndpointId) {
    let start = begin_answer(out, KIND_GONE, 0, None);
    out.extend_from_slice(&endpoint.0.to_le_bytes());
    set_length(out, start);
}

/// Writes a whole ping frame.
pub fn write_ping(out: &mut Vec<u8>) {
    let start = begin_answer(out, KIND_PING, 0, None);
    set_length(out, start);
}

/// Writes a whole pong frame.
pub fn write_pong(out: &mut Vec<u8>) {
    let start = begin_answer(out, KIND_PONG, 0, None);
    set_length(out, start);
}

/// Replaces the deadline of a whole request frame, if it has one.
pub fn set_deadline(frame: &mut [u8], deadline_us: u32) {
    if frame.get(5).is_some_and(|flags| flags & FLAG_DEADLINE != 0)
        && let Some(record) = frame.get_mut(REQUEST_HEADER..REQUEST_HEADER + 4)
    {
        record.copy_from_slice(&deadline_us.to_le_bytes());
    }
}

#[inline]
fn set_length(out: &mut [u8], start: usize) {
    let length = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// The length of the frame that begins with these bytes, checked against `limit`; `None` if there are fewer than 4.
#[inline]
pub fn frame_length(bytes: &[u8], limit: u32) -> Result<Option<usize>, FrameError> {
    let Some(length) = bytes.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*length);
    if (length as usize) < REPLY_HEADER {
        return Err(FrameError::TooShort(length));
    }
    if length > limit {
        return Err(FrameError::TooLong { length, limit });
    }
    Ok(Some(length as usize))
}

impl<'a> Frame<'a> {
    /// Reads the one frame that takes up all of `bytes`. Inlined, so that the frame need not be put together for whoever
    /// takes it apart at once.
    #[inline(always)]
    pub fn parse(bytes: &'a [u8]) -> Result<Frame<'a>, FrameError> {
        let Some((header, rest)) = bytes.split_first_chunk::<REPLY_HEADER>() else {
            return Err(FrameError::TooShort(bytes.len() as u32));
        };
        let (kind, flags) = (header[4], header[5]);
        if kind >= FIRST_SKIPPABLE_KIND {
            return Ok(Frame::Skipped);
        }
        if flags & !KNOWN_FLAGS != 0 {
            return Err(FrameError::UnknownFlags(flags));
        }
        let request = u64::from_le_bytes([
            header[8], header[9], header[10], header[11], header[12], header[13], header[14], header[15],
        ]);
        match kind {
            KIND_ASK | KIND_ONE_WAY | KIND_CANCEL => {
                let request = if kind == KIND_ONE_WAY { 0 } else { request };
                if kind != KIND_ONE_WAY && request == 0 {
                    return Err(FrameError::BadRecord("request id"));
                }
                let value = u16::from_le_bytes([header[6], header[7]]);
                let route = match flags & (FLAG_ROUTE_CORE | FLAG_ROUTE_KEY) {
                    0 => Route::Here,
                    FLAG_ROUTE_CORE => Route::Core(value),
                    FLAG_ROUTE_KEY => Route::Key(value),
                    _ => return Err(FrameError::BadRecord("route")),
                };
                match Self::parse_request(rest, flags, request, route)? {
                    Frame::Request { head, .. } if kind == KIND_CANCEL => {
                        Ok(Frame::Cancel { request, target: head.target, route })
                    }
                    frame => Ok(frame),
                }
            }
            KIND_REPLY => {
                let (resolved, payload) = take_resolved(rest, flags)?;
                Ok(Frame::Reply { request, resolved, payload })
            }
            KIND_FAILURE => Self::parse_failure(rest, flags, request),
            KIND_GONE => {
                let id = rest.first_chunk::<8>().ok_or(FrameError::BadRecord("endpoint id"))?;
                Ok(Frame::Gone { endpoint: EndpointId(u64::from_le_bytes(*id)) })
            }
            KIND_PING => Ok(Frame::Ping),
            KIND_PONG => Ok(Frame::Pong),
            other => Err(FrameError::UnknownKind(other)),
        }
    }

    #[inline]
    fn parse_request(rest: &'a [u8], flags: u8, request: u64, route: Route) -> Result<Frame<'a>, FrameError> {
        let too_short = FrameError::TooShort((REPLY_HEADER + rest.len()) as u32);
        let (id, rest) = rest.split_first_chunk::<8>().ok_or(too_short)?;
        let (message, mut rest) = rest.split_first_chunk::<4>().ok_or(too_short)?;
        let (id, message) = (u64::from_le_bytes(*id), MessageId(u32::from_le_bytes(*message)));
        let mut deadline_us = None;
        if flags & FLAG_DEADLINE != 0 {
            let (bytes, tail) = rest.split_first_chunk::<4>().ok_or(FrameError::BadRecord("deadline"))?;
            deadline_us = Some(u32::from_le_bytes(*bytes));
            rest = tail;
        }
        let mut target = Target::Id(EndpointId(id));
        if flags & FLAG_NAMED != 0 {
            let bad = FrameError::BadRecord("name");
            let (&length, tail) = rest.split_first().ok_or(bad)?;
            let (name, tail) = tail.split_at_checked(length as usize).ok_or(bad)?;
            target = Target::Name(std::str::from_utf8(name).map_err(|_| bad)?);
            rest = tail;
        }
        Ok(Frame::Request { head: RequestHead { request, target, route, message, deadline_us }, payload: rest })
    }

    fn parse_failure(rest: &'a [u8], flags: u8, request: u64) -> Result<Frame<'a>, FrameError> {
        let (resolved, rest) = take_resolved(rest, flags)?;
        let bad = FrameError::BadRecord("failure");
        let (head, rest) = rest.split_first_chunk::<4>().ok_or(bad)?;
        let code = FailureCode::from_wire(u16::from_le_bytes([head[0], head[1]]));
        let (text, behind) = rest.split_at_checked(u16::from_le_bytes([head[2], head[3]]) as usize).ok_or(bad)?;
        let text = std::str::from_utf8(text).map_err(|_| bad)?;
        Ok(Frame::Failure { request, resolved, failure: Failure { code, text, typed: take_typed(behind) } })
    }
}

/// The typed error behind the text of a failure; anything else there is ignored.
fn take_typed(behind: &[u8]) -> Option<Typed<&[u8]>> {
    let (head, rest) = behind.split_first_chunk::<TYPED_HEADER>()?;
    let bytes = rest.get(..u16::from_le_bytes([head[4], head[5]]) as usize)?;
    Some(Typed {
        id: u32::from_le_bytes([head[0], head[1], head[2], head[3]]),
        bytes,
        way_back: false,
        told: Told::Unknown,
        alias: None,
    })
}

#[inline]
fn take_resolved(rest: &[u8], flags: u8) -> Result<(Option<Resolved>, &[u8]), FrameError> {
    if flags & FLAG_RESOLVED == 0 {
        return Ok((None, rest));
    }
    let bad = FrameError::BadRecord("resolved");
    let (endpoint, rest) = rest.split_first_chunk::<8>().ok_or(bad)?;
    let (core, rest) = rest.split_first_chunk::<2>().ok_or(bad)?;
    let (endpoint, core) = (EndpointId(u64::from_le_bytes(*endpoint)), u16::from_le_bytes(*core));
    Ok((Some(Resolved { endpoint, core: (core != u16::MAX).then_some(core) }), rest))
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;

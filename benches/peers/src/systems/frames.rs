//! The frames of the two hand-written echoes, and both ends of their conversation, without the sockets.
//!
//! What a good engineer writes in an afternoon: `LengthDelimitedCodec` around postcard, all frames that a read brought
//! handled in one go, all answers sent with one write. Buffers are kept, so that nothing is allocated per frame.

use std::time::Instant;

use bytes::BytesMut;
use serde::{Deserialize, Serialize};
use tokio_util::codec::{Decoder, Encoder, LengthDelimitedCodec};

use crate::Error;
use crate::asking::differs;
use crate::open_loop::{OpenLoop, WORKERS};
use crate::payload::Payload;
use crate::sample::{Begun, Meter, SAMPLED, Span, TimedMeter};

/// Room for one read: several times what 512 frames take.
pub(super) const READ: usize = 256 << 10;
/// More than one encoded frame takes: at most 5 bytes of id, 1 of length, 64 of payload.
const ENCODED: usize = 80;

/// What an asking end says whose answering end is gone.
pub(super) const CLOSED: &str = "the answering side closed";
const UNKNOWN: &str = "an answer has an unknown id";

/// An ask or its answer, which has the same id.
#[derive(Serialize, Deserialize)]
struct Frame {
    id: u32,
    payload: Payload,
}

/// Turns bytes into frames and back.
struct Frames(LengthDelimitedCodec);

impl Frames {
    fn new() -> Frames {
        Frames(LengthDelimitedCodec::new())
    }

    #[inline]
    fn next(&mut self, input: &mut BytesMut) -> Result<Option<Frame>, Error> {
        let Some(bytes) = self.0.decode(input)? else { return Ok(None) };
        Ok(Some(postcard::from_bytes(&bytes)?))
    }

    #[inline]
    fn put(&mut self, frame: &Frame, output: &mut BytesMut) -> Result<(), Error> {
        let mut encoded = [0; ENCODED];
        let encoded: &[u8] = postcard::to_slice(frame, &mut encoded)?;
        Ok(self.0.encode(encoded, output)?)
    }
}

/// The answering end.
pub(super) struct Answering(Frames);

impl Answering {
    pub(super) fn new() -> Answering {
        Answering(Frames::new())
    }

    /// Answers all whole frames of `input` into `output`.
    pub(super) fn take(&mut self, input: &mut BytesMut, output: &mut BytesMut) -> Result<(), Error> {
        while let Some(frame) = self.0.next(input)? {
            self.0.put(&frame, output)?;
        }
        Ok(())
    }
}

/// The asking end of a closed loop: as many asks in flight as the window says.
pub(super) struct Asking {
    frames: Frames,
    meter: TimedMeter,
    /// By id: what is in flight, and since when.
    in_flight: Vec<(Payload, Begun)>,
    /// Counts the asks, so that no two are alike.
    asked: u64,
}

impl Asking {
    /// Puts the first asks into `output`.
    pub(super) fn start(window: usize, span: Span, output: &mut BytesMut) -> Result<Asking, Error> {
        let mut meter = TimedMeter::start(span, SAMPLED)?;
        let in_flight = (0..window).map(|_| (Payload::numbered(0), meter.begin())).collect();
        let mut asking = Asking { frames: Frames::new(), meter, in_flight, asked: 0 };
        for id in 0..window {
            asking.ask(id, asking.in_flight[id].1, output)?;
        }
        Ok(asking)
    }

    /// Checks all answers in `input` and puts the next asks into `output`; false means the time is over.
    pub(super) fn take(&mut self, input: &mut BytesMut, output: &mut BytesMut) -> Result<bool, Error> {
        while let Some(Frame { id, payload }) = self.frames.next(input)? {
            let id = id as usize;
            let (asked, begun) = *self.in_flight.get(id).ok_or(UNKNOWN)?;
            if payload != asked {
                return Err(differs());
            }
            let Some(next) = self.meter.next(begun) else { return Ok(false) };
            self.ask(id, next, output)?;
        }
        Ok(true)
    }

    fn ask(&mut self, id: usize, begun: Begun, output: &mut BytesMut) -> Result<(), Error> {
        let payload = Payload::numbered(self.asked);
        self.asked += 1;
        self.in_flight[id] = (payload, begun);
        self.frames.put(&Frame { id: id as u32, payload }, output)
    }

    /// What was counted.
    pub(super) fn into_meter(self) -> Meter {
        self.meter.into_meter()
    }
}

/// The asking end of an open loop: no tasks, but as many places as others have workers.
pub(super) struct AskingAtRate {
    frames: Frames,
    open_loop: OpenLoop,
    /// By id: what is in flight, and when it was due.
    in_flight: Vec<Option<(Payload, Instant)>>,
    /// The ids that are not in flight.
    free: Vec<u32>,
    /// Counts the asks, so that no two are alike.
    asked: u64,
}

impl AskingAtRate {
    /// Begins now.
    pub(super) fn start(per_second: f64, span: Span) -> Result<AskingAtRate, Error> {
        let open_loop = OpenLoop::new(Instant::now(), span, per_second)?;
        let (in_flight, free) = (vec![None; WORKERS], (0..WORKERS as u32).collect());
        Ok(AskingAtRate { frames: Frames::new(), open_loop, in_flight, free, asked: 0 })
    }

    /// Puts the asks that are due into `output`; false means all are asked and answered.
    pub(super) fn put_due(&mut self, output: &mut BytesMut) -> Result<bool, Error> {
        let now = Instant::now();
        while let Some(&id) = self.free.last() {
            let Some(due) = self.open_loop.take(now) else { break };
            self.free.pop();
            let payload = Payload::numbered(self.asked);
            self.asked += 1;
            self.in_flight[id as usize] = Some((payload, due));
            self.frames.put(&Frame { id, payload }, output)?;
        }
        Ok(!self.open_loop.is_done(now)?)
    }

    /// Checks all answers in `input`.
    pub(super) fn take(&mut self, input: &mut BytesMut) -> Result<(), Error> {
        while let Some(Frame { id, payload }) = self.frames.next(input)? {
            let (asked, due) = self.in_flight.get_mut(id as usize).and_then(Option::take).ok_or(UNKNOWN)?;
            if payload != asked {
                return Err(differs());
            }
            self.open_loop.answered(due, Instant::now());
            self.free.push(id);
        }
        Ok(())
    }

    /// What was counted.
    pub(super) fn into_meter(self) -> Meter {
        self.open_loop.into_meter()
    }
}

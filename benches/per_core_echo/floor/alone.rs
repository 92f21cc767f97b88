//! Raw bytes echoed by the thread that sent them: what a socket costs where nobody else takes part.

use std::collections::VecDeque;
use std::io::{Read, Write};

use socket2::Socket;

use super::pipelined::{CHUNK, HEADER, tried};
use crate::Error;
use crate::sample::{Begun, Meter, Span, TimedMeter};

/// Keeps `window` frames in flight between both ends of a connection until the time is over.
pub(super) fn echo(
    mut near: Socket,
    mut far: Socket,
    window: usize,
    payload: usize,
    sampled: u32,
    span: Span,
) -> Result<Meter, Error> {
    near.set_nonblocking(true)?;
    far.set_nonblocking(true)?;
    let frame = HEADER + payload;
    let (outgoing, mut incoming) = (vec![0x5a; CHUNK], vec![0; CHUNK]);
    let (mut unsent, mut owed, mut back) = (window * frame, 0, 0);
    let mut meter = TimedMeter::start(span, sampled)?;
    let mut started: VecDeque<Begun> = (0..window).map(|_| meter.begin()).collect();
    loop {
        if unsent > 0 {
            unsent -= tried(near.write(&outgoing[..unsent.min(CHUNK)]))?;
        }
        owed += tried(far.read(&mut incoming))?;
        if owed > 0 {
            owed -= tried(far.write(&outgoing[..owed.min(CHUNK)]))?;
        }
        back += tried(near.read(&mut incoming))?;
        while back >= frame {
            back -= frame;
            unsent += frame;
            let next = started.pop_front().and_then(|begun| meter.next(begun));
            let Some(next) = next else { return Ok(meter.into_meter()) };
            started.push_back(next);
        }
    }
}

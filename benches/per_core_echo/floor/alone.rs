//! Raw bytes echoed by the thread that sent them: what a socket costs where nobody else takes part.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::time::Instant;

use socket2::Socket;

use super::pipelined::{CHUNK, HEADER, tried};
use crate::Error;
use crate::sample::{Meter, Span, TimedMeter};

/// Keeps `window` frames in flight between both ends of a connection until the time is over.
pub(super) fn echo(
    mut near: Socket,
    mut far: Socket,
    window: usize,
    payload: usize,
    span: Span,
) -> Result<Meter, Error> {
    near.set_nonblocking(true)?;
    far.set_nonblocking(true)?;
    let frame = HEADER + payload;
    let (outgoing, mut incoming) = (vec![0x5a; CHUNK], vec![0; CHUNK]);
    let (mut unsent, mut owed, mut back) = (window * frame, 0, 0);
    let mut started = VecDeque::from(vec![Instant::now(); window]);
    let mut meter = TimedMeter::start(span)?;
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
            let now = Instant::now();
            let sent = started.pop_front().unwrap_or(now);
            started.push_back(now);
            if !meter.record(sent, now) {
                return Ok(meter.into_meter());
            }
        }
    }
}

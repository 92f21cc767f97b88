//! A few bytes ask for many, over a socket.
//!
//! Each answer is written from one buffer of its size and read into another: nothing is copied in user space.

use std::collections::VecDeque;

use socket2::Socket;

use super::ping_pong::{receive, send};
use crate::Error;
use crate::sample::{Meter, Span, TimedMeter};

/// Bytes of an ask: what one takes on the wire.
const ASK: usize = 32;

/// Keeps `window` asks in flight until the time is over.
pub(super) fn ask(mut socket: Socket, window: usize, payload: usize, sampled: u32, span: Span) -> Result<Meter, Error> {
    let ask = [0x5a; ASK];
    let mut answer = vec![0; payload.max(1)];
    let mut meter = TimedMeter::start(span, sampled)?;
    let mut sent = VecDeque::with_capacity(window);
    for _ in 0..window {
        sent.push_back(meter.begin());
        send(&mut socket, &ask)?;
    }
    loop {
        if !receive(&mut socket, &mut answer)? {
            return Err("the connection of the floor was closed".into());
        }
        let next = sent.pop_front().and_then(|begun| meter.next(begun));
        let Some(next) = next else { return Ok(meter.into_meter()) };
        sent.push_back(next);
        send(&mut socket, &ask)?;
    }
}

/// Answers what comes until the asking side closes.
pub(super) fn answer(mut socket: Socket, payload: usize) -> Result<(), Error> {
    let mut ask = [0; ASK];
    let answer = vec![0x5a; payload.max(1)];
    // The asking side goes with answers under way.
    while receive(&mut socket, &mut ask).unwrap_or(false) {
        if send(&mut socket, &answer).is_err() {
            break;
        }
    }
    Ok(())
}

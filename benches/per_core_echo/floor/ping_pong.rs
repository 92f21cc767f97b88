//! One message there, one message back, over a socket.
//!
//! The same loop serves both kinds of socket: a blocking one sleeps in `recv`, a non-blocking one comes back with
//! `WouldBlock` and is called again at once. A failed side closes its socket, which ends the other.

use std::io::{ErrorKind, Read, Write};

use socket2::Socket;

use crate::Error;
use crate::sample::{Meter, Span, TimedMeter};

/// Sends `payload` bytes (at least one), waits for as many, until the time is over.
pub(super) fn ask(mut socket: Socket, payload: usize, sampled: u32, span: Span) -> Result<Meter, Error> {
    let mut message = vec![0x5a; payload.max(1)];
    let mut meter = TimedMeter::start(span, sampled)?;
    let mut sent = meter.begin();
    loop {
        send(&mut socket, &message)?;
        if !receive(&mut socket, &mut message)? {
            return Err("the connection of the floor was closed".into());
        }
        let Some(next) = meter.next(sent) else { return Ok(meter.into_meter()) };
        sent = next;
    }
}

/// Sends back what comes until the asking side closes.
pub(super) fn answer(mut socket: Socket, payload: usize) -> Result<(), Error> {
    let mut message = vec![0; payload.max(1)];
    while receive(&mut socket, &mut message)? {
        send(&mut socket, &message)?;
    }
    Ok(())
}

#[inline]
pub(super) fn send(socket: &mut Socket, message: &[u8]) -> Result<(), Error> {
    let mut done = 0;
    while done < message.len() {
        match socket.write(&message[done..]) {
            Ok(count) => done += count,
            Err(error) if again(error.kind()) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Fills `message`; false if the other side closed.
#[inline]
pub(super) fn receive(socket: &mut Socket, message: &mut [u8]) -> Result<bool, Error> {
    let mut done = 0;
    while done < message.len() {
        match socket.read(&mut message[done..]) {
            Ok(0) => return Ok(false),
            Ok(count) => done += count,
            Err(error) if again(error.kind()) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

#[inline]
fn again(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

//! A window of frames in flight, echoed as raw bytes.
//!
//! A frame is as long as an ask on the wire: header and payload. Nobody looks into it: the answering side sends back
//! whatever a read brought, the asking side counts bytes. Both spin over non-blocking sockets with large reads, and
//! neither waits for room to send without reading on, so they cannot block each other.

use std::collections::VecDeque;
use std::io::{Error as IoError, ErrorKind, Read, Write};

use socket2::Socket;

use crate::Error;
use crate::sample::{Begun, Meter, Span, TimedMeter};

/// Bytes in front of the payload of an ask.
pub(super) const HEADER: usize = 24;
/// Bytes that one read or write moves at most.
pub(super) const CHUNK: usize = 512 << 10;

struct Asking {
    socket: Socket,
    /// Bytes of frames already begun that are not yet in the socket.
    unsent: usize,
    /// Bytes back that make no whole frame yet.
    partial: usize,
    /// When each frame in flight was handed in, oldest first.
    started: VecDeque<Begun>,
}

/// Keeps `window` frames in flight on every socket until the time is over.
pub(super) fn ask(
    sockets: Vec<Socket>,
    window: usize,
    payload: usize,
    sampled: u32,
    span: Span,
) -> Result<Meter, Error> {
    let frame = HEADER + payload;
    let outgoing = vec![0x5a; CHUNK];
    let mut incoming = vec![0; CHUNK];
    let mut connections = Vec::with_capacity(sockets.len());
    let mut meter = TimedMeter::start(span, sampled)?;
    for socket in sockets {
        socket.set_nonblocking(true)?;
        let started = (0..window).map(|_| meter.begin()).collect();
        connections.push(Asking { socket, unsent: window * frame, partial: 0, started });
    }
    loop {
        for connection in &mut connections {
            if connection.unsent > 0 {
                let most = connection.unsent.min(CHUNK);
                connection.unsent -= tried(connection.socket.write(&outgoing[..most]))?;
            }
            connection.partial += match connection.socket.read(&mut incoming) {
                Ok(0) => return Err("the connection of the floor was closed".into()),
                read => tried(read)?,
            };
            while connection.partial >= frame {
                connection.partial -= frame;
                connection.unsent += frame;
                let next = connection.started.pop_front().and_then(|begun| meter.next(begun));
                let Some(next) = next else { return Ok(meter.into_meter()) };
                connection.started.push_back(next);
            }
        }
    }
}

/// Sends back what comes on any socket until the asking side closes them.
pub(super) fn answer(sockets: Vec<Socket>) -> Result<(), Error> {
    struct Answering {
        socket: Socket,
        buffer: Vec<u8>,
        /// How much of the buffer came in, and how much of that went out again.
        filled: usize,
        sent: usize,
    }
    let mut connections = Vec::with_capacity(sockets.len());
    for socket in sockets {
        socket.set_nonblocking(true)?;
        connections.push(Answering { socket, buffer: vec![0; CHUNK], filled: 0, sent: 0 });
    }
    loop {
        for Answering { socket, buffer, filled, sent } in &mut connections {
            if sent == filled {
                match socket.read(buffer) {
                    Ok(0) => return Ok(()),
                    Err(error) if is_gone(&error) => return Ok(()),
                    read => (*filled, *sent) = (tried(read)?, 0),
                }
            }
            if sent < filled {
                match socket.write(&buffer[*sent..*filled]) {
                    Err(error) if is_gone(&error) => return Ok(()),
                    written => *sent += tried(written)?,
                }
            }
        }
    }
}

/// Bytes moved by a call on a non-blocking socket; none if it would have had to wait.
#[inline]
pub(super) fn tried(result: Result<usize, IoError>) -> Result<usize, Error> {
    match result {
        Ok(count) => Ok(count),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// The asking side stops with frames in flight, so its socket is reset rather than closed.
fn is_gone(error: &IoError) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

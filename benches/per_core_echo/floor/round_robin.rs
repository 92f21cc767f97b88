//! One message goes round over many sockets: there, and back on the same one; then the next one has its turn.
//!
//! The asking side knows which socket to wait for. The answering one does not, so it asks the kernel, without a pause
//! where it is to spin. What grows with the number of sockets here is the kernel's.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use socket2::{SockAddr, Socket, Type};

use super::ping_pong::{receive, send};
use crate::Error;
use crate::sample::{Meter, Span, TimedMeter};

/// Connections that may wait to be accepted: with fewer, one that finds no room is tried again after a second.
const BACKLOG: i32 = 4096;

/// Sends `payload` bytes (at least one) over each socket in turn and waits for as many, until the time is over.
pub(super) fn ask(mut sockets: Vec<Socket>, payload: usize, sampled: u32, span: Span) -> Result<Meter, Error> {
    let mut message = vec![0x5a; payload.max(1)];
    // Each once, before the time runs: the first use of a socket takes longer.
    let mut exchange = |socket: &mut Socket| {
        send(socket, &message)?;
        if receive(socket, &mut message)? {
            Ok(())
        } else {
            Err::<(), Error>("the connection of the floor was closed".into())
        }
    };
    sockets.iter_mut().try_for_each(&mut exchange)?;
    let mut meter = TimedMeter::start(span, sampled)?;
    let mut sent = meter.begin();
    loop {
        for socket in &mut sockets {
            exchange(socket)?;
            let Some(next) = meter.next(sent) else { return Ok(meter.into_meter()) };
            sent = next;
        }
    }
}

/// Sends back what comes on any of the sockets until one of them is closed.
pub(super) fn answer(mut sockets: Vec<Socket>, payload: usize, spin: bool) -> Result<(), Error> {
    let mut poll = Poll::new()?;
    for (index, socket) in sockets.iter().enumerate() {
        poll.registry().register(&mut SourceFd(&socket.as_raw_fd()), Token(index), Interest::READABLE)?;
    }
    let mut message = vec![0; payload.max(1)];
    let mut events = Events::with_capacity(64);
    loop {
        match poll.poll(&mut events, spin.then_some(Duration::ZERO)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &events {
            let socket = &mut sockets[event.token().0];
            if !receive(socket, &mut message)? {
                return Ok(());
            }
            send(socket, &message)?;
        }
    }
}

/// A socket that listens at an address as [`Doors`](crate::doors::Doors) gives it.
pub(super) fn listen(address: &str) -> Result<Socket, Error> {
    let address = parse(address)?;
    let socket = Socket::new(address.domain(), Type::STREAM, None)?;
    socket.bind(&address)?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// A connection to such an address.
pub(super) fn dial(address: &str) -> Result<Socket, Error> {
    let address = parse(address)?;
    let socket = Socket::new(address.domain(), Type::STREAM, None)?;
    socket.connect(&address)?;
    Ok(socket)
}

fn parse(address: &str) -> Result<SockAddr, Error> {
    Ok(match address.strip_prefix("unix:") {
        Some(path) => SockAddr::unix(path)?,
        None => address.parse::<SocketAddr>()?.into(),
    })
}

//! What [`Ring::reap`](super::Ring::reap) hands out.

use std::io;
use std::os::fd::OwnedFd;

use super::buffers::Chunk;
use super::sending::Sending;
use super::sockets::SocketId;

/// Something the kernel has finished.
///
/// For one socket, completions come in the order in which the bytes arrived. After [`Ring::close`](super::Ring::close)
/// a socket gives at most one [`Completion::Sent`] (the buffer comes back) and then [`Completion::Closed`], its last.
/// [`Completion::Detached`] is the last after [`Ring::detach`](super::Ring::detach).
#[derive(Debug)]
#[non_exhaustive]
pub enum Completion {
    /// A listener accepted a connection.
    Accepted {
        /// Who accepted.
        listener: SocketId,
        /// The new connection, blocking-mode and close-on-exec, to be given to [`Ring::adopt`](super::Ring::adopt).
        socket: OwnedFd,
    },
    /// A listener accepts no more: call [`Ring::accept`](super::Ring::accept) again when the cause is gone.
    AcceptEnded {
        /// Whose accept ended.
        listener: SocketId,
        /// Why, for example `EMFILE`.
        error: io::Error,
    },
    /// A connect has finished.
    Connected {
        /// The socket.
        socket: SocketId,
        /// How it went.
        result: io::Result<()>,
    },
    /// Bytes have arrived. Give the chunk back with [`Ring::release`](super::Ring::release).
    Received {
        /// The socket.
        socket: SocketId,
        /// Where the bytes lie.
        chunk: Chunk,
    },
    /// The peer sends no more. The receive has ended.
    Eof {
        /// The socket.
        socket: SocketId,
    },
    /// The receive has ended for another reason.
    RecvEnded {
        /// The socket.
        socket: SocketId,
        /// Why.
        reason: RecvEnd,
    },
    /// The kernel has taken a part of a send, which goes on.
    SentPart {
        /// The socket.
        socket: SocketId,
    },
    /// A send has finished: all bytes are with the kernel, or it failed.
    Sent {
        /// The socket.
        socket: SocketId,
        /// The buffer that was sent, unchanged, for reuse.
        buf: Vec<u8>,
        /// How it went. After an error an unknown part of the buffer has left.
        result: io::Result<()>,
    },
    /// A wake of another ring has failed, and nobody else knows: it is to be made by other means.
    WakeFailed {
        /// What [`Ring::wake`](super::Ring::wake) was told.
        number: u16,
    },
    /// The socket is closed, its descriptor is gone and its id is void.
    Closed {
        /// The socket that was.
        socket: SocketId,
    },
    /// The socket belongs to this ring no longer, and its id is void. Drop the descriptor to close the connection.
    Detached {
        /// The socket that was.
        socket: SocketId,
        /// Its descriptor, with nothing in flight.
        fd: OwnedFd,
    },
    /// Someone woke this ring.
    Woken,
}

/// Why a receive ended without the stream being at its end.
///
/// A receive that the kernel cut short (no free buffer, full completion queue) is armed again by the ring and is not
/// reported; see [`RingStats`](super::RingStats) for how often that happens.
#[derive(Debug)]
#[non_exhaustive]
pub enum RecvEnd {
    /// [`Ring::stop_recv`](super::Ring::stop_recv) took effect.
    Cancelled,
    /// The socket failed. `EAGAIN` here means that a non-blocking descriptor was adopted.
    Error(io::Error),
}

impl Completion {
    /// A send that has ended, with this errno or 0.
    pub(super) fn sent(socket: SocketId, sending: Sending, errno: i32) -> Completion {
        let result = if errno == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(errno)) };
        Completion::Sent { socket, buf: sending.into_buf(), result }
    }

    pub(super) fn failed_recv(socket: SocketId, errno: i32) -> Completion {
        Completion::RecvEnded { socket, reason: RecvEnd::Error(io::Error::from_raw_os_error(errno)) }
    }
}

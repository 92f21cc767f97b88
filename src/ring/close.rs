//! Closing a socket, giving it away, and closing the whole ring.

use std::mem;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use io_uring::opcode;

use super::buffers::GROUP;
use super::completion::Completion;
use super::receive::Wish;
use super::ring::Ring;
use super::sockets::{Leaving, Socket, SocketId};
use super::syscalls;
use super::tag::{Kind, Tag};

/// How long a ring being dropped waits for its requests to end.
const DROP_WAIT: Duration = Duration::from_secs(1);

impl Ring {
    /// Closes a socket: both directions are shut down, its requests cancelled, and when the last has ended the
    /// descriptor is closed and [`Completion::Closed`] reported. A send in flight is reported before that, nothing else
    /// is. Connections accepted and not yet reported are closed, bytes not yet reported are dropped.
    pub fn close(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get(id) else { return };
        if socket.is_closing() {
            return;
        }
        socket.leaving = Some(Leaving::Close);
        // Closing a descriptor cancels nothing: a request holds the file itself. The shutdown ends what waits for the
        // peer, the cancel ends the rest.
        syscalls::shutdown(socket.fd.as_fd());
        self.cancel_all(id);
    }

    /// Gives a socket away, to another ring for example: its requests are cancelled, and when the last has ended the
    /// descriptor is reported as [`Completion::Detached`], the last completion of this id.
    ///
    /// What was received by then is reported before; bytes that come later stay in the socket. The end of the stream or
    /// an error of the receive is not reported: whoever receives next meets it. Does nothing if the socket is leaving
    /// already; [`close`](Ring::close) changes a detach into a close.
    pub fn detach(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get(id) else { return };
        if socket.leaving.is_some() {
            return;
        }
        socket.leaving = Some(Leaving::Detach);
        socket.recv.wish = Wish::None;
        self.cancel_all(id);
    }

    /// Cancels all requests of a socket, each by its tag, of which a socket has one of each kind in flight. A cancel by
    /// descriptor would have the kernel look through all requests of the ring, for each of thousands that close at once.
    /// The completion of the receive's cancel, which is always made, makes sure that there is a last one.
    fn cancel_all(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get(id) else { return };
        let kinds = [
            Some(Kind::Recv),
            socket.send.is_some().then_some(Kind::Send),
            socket.connecting.is_some().then_some(Kind::Connect),
            socket.accepting.then_some(Kind::Accept),
        ];
        for kind in kinds.into_iter().flatten() {
            self.cancel(kind, id);
        }
    }

    /// After a completion of a leaving socket: was it the last?
    pub(super) fn finish_leaving(&mut self, id: SocketId, out: &mut Vec<Completion>) {
        let last = |socket: &mut Socket| socket.leaving.filter(|_| socket.in_flight == 0);
        let Some(leaving) = self.sockets.get(id).and_then(last) else { return };
        let Some(socket) = self.sockets.remove(id) else { return };
        out.push(match leaving {
            Leaving::Close => Completion::Closed { socket: id },
            Leaving::Detach => Completion::Detached { socket: id, fd: socket.fd },
        });
    }

    fn cancel_event_poll(&mut self) {
        if self.door.event.is_some() {
            let poll = Tag::of_ring(Kind::EventFd).pack();
            let cancel = opcode::AsyncCancel::new(poll).build().user_data(Tag::of_ring(Kind::CancelEventFd).pack());
            self.in_flight += 1;
            // SAFETY: the request names no memory.
            unsafe { self.push(cancel) };
        }
    }

    /// Drives the ring until no request is left, for a bounded time.
    fn drain(&mut self) {
        let end = Instant::now() + DROP_WAIT;
        let mut out = Vec::new();
        while self.in_flight > 0 {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || self.wait(Some(left)).is_err() {
                return;
            }
            self.reap(&mut out);
            // Drops send buffers; of a closing socket no chunk and no descriptor is ever reported.
            out.clear();
        }
    }
}

impl Drop for Ring {
    /// Closes all sockets and waits up to a second for their requests to end. Memory of requests that have not ended
    /// by then is leaked: the kernel may still read or write it, and a leak is better than bytes in a stranger's memory.
    fn drop(&mut self) {
        self.dropping = true;
        self.waker.shut();
        for id in self.sockets.ids() {
            self.close(id);
        }
        self.cancel_event_poll();
        self.drain();
        let fd = self.io.io.as_raw_fd();
        if self.in_flight == 0 {
            // A failure leaves the kernel in possession of the memory, like a request that has not ended.
            if self.io.io.submitter().unregister_buf_ring(GROUP).is_err() {
                self.pool.leak();
            }
        } else {
            self.pool.leak();
            for id in self.sockets.ids() {
                if let Some(socket) = self.sockets.get(id) {
                    mem::forget(socket.send.take());
                    mem::forget(socket.connecting.take());
                }
            }
        }
        if let Some(index) = self.io.registered.take() {
            syscalls::unregister_ring_fd(fd, index);
        }
    }
}

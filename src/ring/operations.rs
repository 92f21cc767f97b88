//! The requests a socket's owner can make.

use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;

use io_uring::{opcode, squeue, types};

use super::buffers::GROUP;
use super::receive::RecvOp;
use super::ring::Ring;
use super::sending::Sending;
use super::sock_addr::SockAddr;
use super::sockets::SocketId;
use super::tag::{Kind, Tag};
use super::waker::RingWaker;

impl Ring {
    /// Takes over a stream socket or a listener. It should be in blocking mode, the default: where the kernel heeds
    /// `O_NONBLOCK`, requests end with `EAGAIN` instead of waiting. Nothing is started yet.
    ///
    /// A ring has room for 2^24 sockets; beyond that the descriptor is closed at once and the id is void.
    pub fn adopt(&mut self, fd: OwnedFd) -> SocketId {
        self.sockets.insert(fd)
    }

    /// Accepts connections from now on, each reported as [`Completion::Accepted`](super::Completion::Accepted), until
    /// an error is reported as [`Completion::AcceptEnded`](super::Completion::AcceptEnded). Does nothing if armed.
    pub fn accept(&mut self, listener: SocketId) {
        let Some(socket) = self.sockets.get(listener) else { return };
        if socket.leaving.is_some() || socket.accepting {
            return;
        }
        socket.accepting = true;
        socket.in_flight += 1;
        let request = opcode::AcceptMulti::new(socket.target()).flags(libc::SOCK_CLOEXEC).build();
        // SAFETY: the request names no memory.
        unsafe { self.start(Kind::Accept, listener, request) };
    }

    /// Connects; the outcome is reported as [`Completion::Connected`](super::Completion::Connected). Does nothing while
    /// a connect is in flight.
    pub fn connect(&mut self, id: SocketId, address: impl Into<SockAddr>) {
        let Some(socket) = self.sockets.get(id) else { return };
        if socket.leaving.is_some() || socket.connecting.is_some() {
            return;
        }
        let target = socket.target();
        let address = socket.connecting.insert(Box::new(address.into()));
        let request = opcode::Connect::new(target, SockAddr::as_ptr(address), address.len()).build();
        socket.in_flight += 1;
        // SAFETY: the box stays in the socket's entry until the connect's completion, and the entry until the last.
        unsafe { self.start(Kind::Connect, id, request) };
    }

    /// Receives from now on, each piece reported as [`Completion::Received`](super::Completion::Received), until
    /// `Eof`, an error, or [`stop_recv`](Ring::stop_recv).
    ///
    /// If a stop has not been reported yet it is taken back, and no `RecvEnded` comes for it.
    pub fn recv(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get(id) else { return };
        if socket.leaving.is_some() {
            return;
        }
        let recv = &mut socket.recv;
        recv.wanted = true;
        recv.stopping = false;
        if recv.op == RecvOp::None && !recv.starved {
            self.arm_recv(id);
        }
    }

    /// Looks once whether bytes are there: `Received`, `Eof`, or `RecvEnded` with
    /// [`RecvEnd::Empty`](super::RecvEnd::Empty) follows with the next `submit`. Arms no poll, so it is the cheapest
    /// receive for an owner that spins. Does nothing while another receive is armed.
    #[inline]
    pub fn try_recv(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get(id) else { return };
        if socket.leaving.is_some() || socket.recv.wanted || socket.recv.op != RecvOp::None {
            return;
        }
        socket.recv.op = RecvOp::Try;
        socket.in_flight += 1;
        let request = opcode::Recv::new(socket.target(), ptr::null_mut(), 0)
            .flags(libc::MSG_DONTWAIT)
            .buf_group(GROUP)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        // SAFETY: the kernel takes its memory from the pool, which outlives all requests (`Ring::drop`).
        unsafe { self.start(Kind::Recv, id, request) };
    }

    /// Ends what [`recv`](Ring::recv) began. Bytes that are already there may still be reported, then `RecvEnded` with
    /// [`RecvEnd::Cancelled`](super::RecvEnd::Cancelled) (or `Eof`, or an error, if that comes first). Does nothing if
    /// no receive is armed.
    pub fn stop_recv(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get(id) else { return };
        if socket.leaving.is_some() || !socket.recv.wanted {
            return;
        }
        socket.recv.wanted = false;
        socket.recv.stopping = true;
        // Sent even if the receive is starved and the kernel knows nothing of it: the cancel's own completion is then
        // what reports the end.
        socket.in_flight += 1;
        let request = opcode::AsyncCancel::new(Tag::new(Kind::Recv, id).pack()).build();
        // SAFETY: the request names no memory.
        unsafe { self.start(Kind::Cancel, id, request) };
    }

    /// Sends all of `buf`, reported once as [`Completion::Sent`](super::Completion::Sent), which gives the buffer back.
    /// A peer that does not read keeps it in flight.
    ///
    /// # Errors
    /// Gives the buffer back at once if a send is in flight on this socket or the socket is closed.
    #[inline]
    pub fn send(&mut self, id: SocketId, buf: Vec<u8>) -> Result<(), Vec<u8>> {
        match self.sockets.get(id) {
            Some(socket) if socket.leaving.is_none() && socket.send.is_none() => {
                socket.send = Some(Sending::new(buf));
                self.start_send(id);
                Ok(())
            }
            _ => Err(buf),
        }
    }

    /// Wakes another ring, with this ring's next enter: one request, and no completion here. A wake that fails is
    /// counted in [`RingStats::failed_wakes`](super::RingStats::failed_wakes).
    pub fn wake(&mut self, target: &RingWaker) {
        let Some(door) = target.door() else {
            self.stats.failed_wakes += 1;
            return;
        };
        let request =
            door.message().flags(squeue::Flags::SKIP_SUCCESS).user_data(Tag::of_ring(Kind::WakeFailed).pack());
        self.waking.push(door);
        // SAFETY: the request names no memory; the descriptor it names is held open in `waking`.
        unsafe { self.push(request) };
    }

    /// Arms a multishot receive. The caller has seen that the socket is open and has none.
    pub(super) fn arm_recv(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get(id) else { return };
        socket.recv.op = RecvOp::Multishot;
        socket.in_flight += 1;
        let request = opcode::RecvMulti::new(socket.target(), GROUP).build();
        // SAFETY: the kernel takes its memory from the pool, which outlives all requests (`Ring::drop`).
        unsafe { self.start(Kind::Recv, id, request) };
    }

    /// Submits what is left of the socket's send.
    #[inline]
    pub(super) fn start_send(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get(id) else { return };
        let Some(sending) = &socket.send else { return };
        let rest = sending.rest();
        let request = opcode::Send::new(socket.target(), rest.as_ptr(), rest.len() as u32)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build();
        socket.in_flight += 1;
        // SAFETY: the vector stays in the socket's entry until the send's completion, the entry until the last one;
        // nobody writes to or grows the vector in between.
        unsafe { self.start(Kind::Send, id, request) };
    }

    /// Polls the waker's eventfd, if there is one.
    pub(super) fn poll_event(&mut self) {
        let Some(event) = &self.door.event else { return };
        let request = opcode::PollAdd::new(types::Fd(event.as_raw_fd()), libc::POLLIN as u32).multi(true).build();
        self.in_flight += 1;
        // SAFETY: the request names no memory.
        unsafe { self.push(request.user_data(Tag::of_ring(Kind::EventFd).pack())) };
    }

    /// Tags and queues a request of a socket, whose own count the caller has raised.
    ///
    /// # Safety
    /// As `push`.
    #[inline]
    pub(super) unsafe fn start(&mut self, kind: Kind, id: SocketId, request: squeue::Entry) {
        self.in_flight += 1;
        // SAFETY: handed on to our caller.
        unsafe { self.push(request.user_data(Tag::new(kind, id).pack())) };
    }
}

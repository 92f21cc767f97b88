//! The requests a socket's owner can make.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use io_uring::{opcode, squeue, types};

use super::buffers::GROUP;
use super::completion::Completion;
use super::receive::{Ended, Wish};
use super::ring::Ring;
use super::sending::{SendStep, Sending};
use super::sock_addr::SockAddr;
use super::sockets::SocketId;
use super::syscalls;
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
        recv.wish = Wish::Armed;
        recv.stopping = false;
        if !recv.armed && !recv.starved {
            self.arm_recv(id);
        }
    }

    /// From now on a socket that [`recv`](Ring::recv) works for is looked at only by [`probe`](Ring::probe). That is
    /// the cheapest receive for an owner that spins: nothing has to be woken when bytes come. Nothing is lost on the
    /// way there and back. Does nothing for a socket that does not receive.
    pub fn recv_by_probe(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get(id) else { return };
        if socket.leaving.is_some() || socket.recv.wish != Wish::Armed {
            return;
        }
        socket.recv.wish = Wish::Probed;
        if socket.recv.armed {
            self.cancel(Kind::Recv, id);
        }
    }

    /// Ends what [`recv_by_probe`](Ring::recv_by_probe) began: bytes are reported as they come. Does nothing for a socket
    /// that is not probed.
    pub fn recv_unprobed(&mut self, id: SocketId) {
        if self.sockets.get(id).is_some_and(|socket| socket.recv.wish == Wish::Probed) {
            self.recv(id);
        }
    }

    /// Looks whether bytes have come to a socket that is received [by probes](Ring::recv_by_probe), by one system call.
    /// Bytes, the end and errors are put at the end of `out`, after what was reported before. False, and nothing done, for
    /// any other socket.
    #[inline]
    pub fn probe(&mut self, id: SocketId, out: &mut Vec<Completion>) -> bool {
        let Some(socket) = self.sockets.get(id) else { return false };
        if socket.leaving.is_some() || socket.recv.wish != Wish::Probed {
            return false;
        }
        // What the armed receive still brings comes first.
        if !socket.recv.armed
            && let Some(space) = self.pool.private()
        {
            let result = syscalls::recv(socket.fd.as_fd(), space);
            self.stats.probes += 1;
            if !matches!(-result, libc::EAGAIN | libc::EINTR) {
                self.on_probed(id, result, out);
            }
        }
        true
    }

    fn on_probed(&mut self, id: SocketId, result: i32, out: &mut Vec<Completion>) {
        let Some(socket) = self.sockets.get(id) else { return };
        match socket.recv.end(result) {
            Ended::Eof => out.push(Completion::Eof { socket: id }),
            Ended::Failed(errno) => out.push(Completion::failed_recv(id, errno)),
            _ => out
                .extend(self.pool.take_private(result as u32).map(|chunk| Completion::Received { socket: id, chunk })),
        }
    }

    /// Looks whether bytes have come to a socket that [`recv`](Ring::recv) works for, by one system call, before the kernel
    /// has told. For an owner that spins and knows who is about to talk: it is faster than the work that the kernel has
    /// to be entered for, which finds nothing left later on. Bytes and errors are put at the end of `out`; the end of the
    /// stream is left to the kernel to tell.
    ///
    /// Nothing is done while anything waits to be reaped, since bytes that the kernel has received come first. What has
    /// been reaped comes before what this puts into `out`. False, and nothing done, for a socket that does not receive
    /// this way.
    #[inline]
    pub fn recv_ahead(&mut self, id: SocketId, out: &mut Vec<Completion>) -> bool {
        let unreaped = self.has_unreaped();
        let Some(socket) = self.sockets.get(id) else { return false };
        if socket.leaving.is_some() || socket.recv.wish != Wish::Armed {
            return false;
        }
        // The kernel's receive takes bytes only while this thread is in an enter (`DEFER_TASKRUN`): it holds none now.
        if !unreaped && let Some(space) = self.pool.private() {
            let result = syscalls::recv(socket.fd.as_fd(), space);
            self.stats.probes += 1;
            match result {
                1.. => out.extend(
                    self.pool.take_private(result as u32).map(|chunk| Completion::Received { socket: id, chunk }),
                ),
                // The kernel's receive finds the end again. An error is told once, so it would not find that.
                0 => {}
                _ if matches!(-result, libc::EAGAIN | libc::EINTR) => {}
                _ => out.push(Completion::failed_recv(id, -result)),
            }
        }
        true
    }

    /// Ends what [`recv`](Ring::recv) began. Bytes that are already there may still be reported, then `RecvEnded` with
    /// [`RecvEnd::Cancelled`](super::RecvEnd::Cancelled) (or `Eof`, or an error, if that comes first). Does nothing if
    /// the socket does not receive.
    pub fn stop_recv(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get(id) else { return };
        if socket.leaving.is_some() || socket.recv.wish == Wish::None {
            return;
        }
        socket.recv.wish = Wish::None;
        socket.recv.stopping = true;
        // Sent even if the kernel knows of no receive: the cancel's own completion is then what reports the end.
        self.cancel(Kind::Recv, id);
    }

    /// Cancels the socket's request of this kind, if it has one; the cancel completes either way.
    pub(super) fn cancel(&mut self, kind: Kind, id: SocketId) {
        let Some(socket) = self.sockets.get(id) else { return };
        socket.in_flight += 1;
        let request = opcode::AsyncCancel::new(Tag::new(kind, id).pack()).build();
        // SAFETY: the request names no memory.
        unsafe { self.start(Kind::Cancel, id, request) };
    }

    /// Sends all of `buf`, reported once as [`Completion::Sent`](super::Completion::Sent), which gives the buffer back.
    /// A peer that does not read keeps it in flight. A long one goes in parts, of a MiB and a page
    /// at most, and [`Completion::SentPart`](super::Completion::SentPart) is reported behind each but the last.
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

    /// The same, but at once, with a system call of its own, which is cheaper than an enter for a single send. Gives what
    /// would be the completion if that ends it; the rest of a long send, or of one that finds no room, is left to the
    /// ring.
    ///
    /// # Errors
    /// As [`send`](Ring::send).
    #[inline]
    pub fn send_now(&mut self, id: SocketId, buf: Vec<u8>) -> Result<Option<Completion>, Vec<u8>> {
        let Some(socket) = self.sockets.get(id).filter(|s| s.leaving.is_none() && s.send.is_none()) else {
            return Err(buf);
        };
        self.stats.direct_sends += 1;
        let mut sending = Sending::new(buf);
        let result = syscalls::send(socket.fd.as_fd(), sending.rest());
        let step = if result == -libc::EAGAIN { SendStep::Rest } else { sending.advance(result) };
        let errno = match step {
            SendStep::Done => 0,
            SendStep::Failed(errno) => errno,
            SendStep::Part | SendStep::Rest => {
                self.stats.short_sends += u64::from(step == SendStep::Rest && result > 0);
                socket.send = Some(sending);
                self.start_send(id);
                return Ok(None);
            }
        };
        Ok(Some(Completion::sent(id, sending, errno)))
    }

    /// Wakes another ring, with this ring's next enter: one request, and no completion here unless it fails. Then
    /// [`Completion::WakeFailed`](super::Completion::WakeFailed) tells the `number` that the owner knows the target by.
    /// Nothing happens if the target is gone.
    pub fn wake(&mut self, target: &RingWaker, number: u16) {
        let Some(door) = target.door() else {
            self.stats.failed_wakes += 1;
            return;
        };
        let failed = Tag::new(Kind::WakeFailed, SocketId { slot: number.into(), generation: 0 });
        let request = door.message().flags(squeue::Flags::SKIP_SUCCESS).user_data(failed.pack());
        self.waking.push(door);
        // SAFETY: the request names no memory; the descriptor it names is held open in `waking`.
        unsafe { self.push(request) };
    }

    /// Arms a multishot receive. The caller has seen that the socket is open and has none.
    pub(super) fn arm_recv(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get(id) else { return };
        socket.recv.armed = true;
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

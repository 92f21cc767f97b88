//! From the kernel's completions to ours.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use io_uring::cqueue;

use super::completion::{Completion, RecvEnd};
use super::receive::Ended;
use super::ring::Ring;
use super::sending::SendStep;
use super::sockets::{Leaving, SocketId};
use super::syscalls;
use super::tag::{Kind, Tag};

/// Completions copied out of the queue at a time.
const BATCH: usize = 64;

/// A byte count or descriptor, or the error behind a negative result.
fn outcome(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) }
}

impl Ring {
    /// Moves everything the kernel has completed to the end of `out`. Memory only; what arrives meanwhile is left for
    /// the next call.
    ///
    /// By then the owner has handled what this call gives: only then are the places of sockets that it tells to be
    /// [closed](Completion::Closed) or [detached](Completion::Detached) taken by others.
    pub fn reap(&mut self, out: &mut Vec<Completion>) {
        self.sockets.recycle();
        let mut left = self.io.io.completion().len();
        let mut batch = [const { MaybeUninit::<cqueue::Entry>::uninit() }; BATCH];
        while left > 0 {
            // Copied out first: handling one may queue requests, which borrows the ring.
            let entries = self.io.io.completion().fill(&mut batch[..left.min(BATCH)]);
            if entries.is_empty() {
                return;
            }
            left -= entries.len();
            for entry in entries {
                self.complete(entry, out);
            }
        }
    }

    #[inline]
    fn complete(&mut self, entry: &cqueue::Entry, out: &mut Vec<Completion>) {
        let Some(tag) = Tag::unpack(entry.user_data()) else {
            self.stats.stale_completions += 1;
            return;
        };
        let (id, result, more) = (tag.socket, entry.result(), cqueue::more(entry.flags()));
        if !more && !matches!(tag.kind, Kind::Wake | Kind::WakeFailed) {
            self.in_flight = self.in_flight.saturating_sub(1);
        }
        match tag.kind {
            Kind::Recv => self.on_recv(id, result, more, cqueue::buffer_select(entry.flags()), out),
            Kind::Send => self.on_send(id, result, out),
            Kind::Accept => self.on_accept(id, result, more, out),
            Kind::Connect => self.on_connect(id, result, out),
            Kind::Cancel => self.on_cancel(id, out),
            Kind::Wake => out.push(Completion::Woken),
            Kind::WakeFailed => self.on_failed_wake(id, out),
            Kind::EventFd => self.on_event(result, more, out),
            Kind::CancelEventFd => {}
        }
    }

    fn on_recv(&mut self, id: SocketId, result: i32, more: bool, buffer: Option<u16>, out: &mut Vec<Completion>) {
        let chunk = buffer.and_then(|buffer| self.pool.filled(buffer, result.max(0) as u32));
        let Some(socket) = self.sockets.get(id) else {
            self.stats.stale_completions += 1;
            chunk.into_iter().for_each(|chunk| self.pool.release(chunk));
            return;
        };
        if !more {
            socket.ended();
        }
        if result == -libc::ENOBUFS {
            self.stats.buffer_starvations += 1;
        }
        let leaving = socket.leaving;
        match chunk {
            Some(chunk) if leaving == Some(Leaving::Close) || result <= 0 => self.pool.release(chunk),
            Some(chunk) => out.push(Completion::Received { socket: id, chunk }),
            None => {}
        }
        if leaving.is_some() {
            return self.finish_leaving(id, out);
        }
        if more {
            return;
        }
        match socket.recv.end(result) {
            Ended::Rearm => {
                self.stats.rearms += 1;
                self.arm_recv(id);
            }
            Ended::Starve => {
                socket.recv.starved = true;
                self.starved.push_back(id);
            }
            Ended::Eof => out.push(Completion::Eof { socket: id }),
            Ended::Cancelled => out.push(Completion::RecvEnded { socket: id, reason: RecvEnd::Cancelled }),
            Ended::Failed(errno) => out.push(Completion::failed_recv(id, errno)),
            Ended::Wait => {}
        }
    }

    fn on_send(&mut self, id: SocketId, result: i32, out: &mut Vec<Completion>) {
        let Some(socket) = self.sockets.get(id) else {
            self.stats.stale_completions += 1;
            return;
        };
        socket.ended();
        let Some(sending) = &mut socket.send else { return };
        let errno = match sending.advance(result) {
            SendStep::Done => 0,
            SendStep::Failed(errno) => errno,
            SendStep::Part | SendStep::Rest if socket.leaving.is_some() => libc::ECANCELED,
            step @ (SendStep::Part | SendStep::Rest) => {
                self.stats.short_sends += u64::from(step == SendStep::Rest);
                if result > 0 {
                    out.push(Completion::SentPart { socket: id });
                }
                return self.start_send(id);
            }
        };
        if let Some(sending) = socket.send.take() {
            out.push(Completion::sent(id, sending, errno));
        }
        if socket.leaving.is_some() {
            self.finish_leaving(id, out);
        }
    }

    fn on_accept(&mut self, id: SocketId, result: i32, more: bool, out: &mut Vec<Completion>) {
        // Owned at once, so that a connection which nobody is there to take is closed.
        // SAFETY: a result of zero or above is a descriptor that the kernel has just made for this request.
        let accepted = (result >= 0).then(|| unsafe { OwnedFd::from_raw_fd(result) });
        let Some(listener) = self.sockets.get(id) else {
            self.stats.stale_completions += 1;
            return;
        };
        if !more {
            listener.ended();
            listener.accepting = false;
        }
        // Connections that nobody was told of go with the listener.
        if listener.leaving.is_some() {
            return self.finish_leaving(id, out);
        }
        match accepted {
            Some(socket) => out.push(Completion::Accepted { listener: id, socket }),
            None if more => {}
            None => {
                let error = io::Error::from_raw_os_error(-result);
                return out.push(Completion::AcceptEnded { listener: id, error });
            }
        }
        if !more {
            self.stats.rearms += 1;
            self.accept(id);
        }
    }

    fn on_connect(&mut self, id: SocketId, result: i32, out: &mut Vec<Completion>) {
        let Some(socket) = self.sockets.get(id) else {
            self.stats.stale_completions += 1;
            return;
        };
        socket.ended();
        socket.connecting = None;
        if !socket.is_closing() {
            out.push(Completion::Connected { socket: id, result: outcome(result) });
        }
        self.finish_leaving(id, out);
    }

    fn on_cancel(&mut self, id: SocketId, out: &mut Vec<Completion>) {
        let Some(socket) = self.sockets.get(id) else {
            self.stats.stale_completions += 1;
            return;
        };
        socket.ended();
        if socket.leaving.is_some() {
            return self.finish_leaving(id, out);
        }
        if socket.recv.stopping && !socket.recv.armed {
            socket.recv.stopping = false;
            out.push(Completion::RecvEnded { socket: id, reason: RecvEnd::Cancelled });
        }
    }

    #[cold]
    fn on_failed_wake(&mut self, id: SocketId, out: &mut Vec<Completion>) {
        self.stats.failed_wakes += 1;
        // In front of what makes the owner run code that may block: nobody else wakes the target meanwhile.
        out.insert(0, Completion::WakeFailed { number: id.slot as u16 });
    }

    fn on_event(&mut self, result: i32, more: bool, out: &mut Vec<Completion>) {
        if result < 0 {
            return;
        }
        if let Some(event) = &self.door.event {
            // Cleared before the owner looks at its queues, so a wake from now on is seen again.
            syscalls::eventfd_clear(event.as_fd());
        }
        out.push(Completion::Woken);
        if !more && !self.dropping {
            self.poll_event();
        }
    }
}

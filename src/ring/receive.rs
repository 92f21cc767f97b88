//! The receiving half of a socket: what its owner wants and what the kernel is doing.

/// Which receive the kernel holds for a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum RecvOp {
    #[default]
    None,
    Multishot,
    Try,
}

/// The owner's wish (`wanted`) beside the kernel's state (`op`).
///
/// The two are kept apart because the kernel ends a multishot receive on its own account: when buffers run out, when
/// the completion queue is full, when a cancel arrives late. Whenever a receive ends, the wish decides whether it is
/// armed again, so the floors above never see such an end.
#[derive(Debug, Default)]
pub(super) struct Receiving {
    pub(super) op: RecvOp,
    /// The owner asked for bytes to keep coming.
    pub(super) wanted: bool,
    /// The owner asked to stop and has not been told yet that it did.
    pub(super) stopping: bool,
    /// Waits in the ring's queue for a free buffer.
    pub(super) starved: bool,
}

/// What to do after a receive's last completion.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Arm it again now.
    Rearm,
    /// Arm it again once buffers are free.
    Starve,
    /// The stream is at its end.
    Eof,
    /// The owner's stop took effect.
    Cancelled,
    /// A try found nothing.
    Empty,
    /// A hard error.
    Failed(i32),
    /// A try brought bytes: nothing more to say.
    Quiet,
}

impl Receiving {
    /// Takes note that the receive in flight has ended with `result` (a byte count or a negative errno).
    #[inline]
    pub(super) fn end(&mut self, result: i32) -> Ended {
        let op = std::mem::take(&mut self.op);
        let soft = match -result {
            libc::ENOBUFS | libc::ECANCELED | libc::EINTR => true,
            // A multishot sees EAGAIN only on a non-blocking descriptor, where arming again would spin.
            libc::EAGAIN => op == RecvOp::Try,
            _ => result > 0,
        };
        if !soft {
            self.wanted = false;
            self.stopping = false;
            return if result == 0 { Ended::Eof } else { Ended::Failed(-result) };
        }
        if self.wanted {
            return if result == -libc::ENOBUFS { Ended::Starve } else { Ended::Rearm };
        }
        if self.stopping {
            self.stopping = false;
            return Ended::Cancelled;
        }
        if result > 0 { Ended::Quiet } else { Ended::Empty }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(op: RecvOp) -> Receiving {
        Receiving { op, wanted: true, ..Receiving::default() }
    }

    #[test]
    fn a_wanted_receive_is_armed_again_after_every_soft_end() {
        for result in [1, -libc::ECANCELED, -libc::EINTR] {
            assert_eq!(wanted(RecvOp::Multishot).end(result), Ended::Rearm);
        }
        assert_eq!(wanted(RecvOp::Multishot).end(-libc::ENOBUFS), Ended::Starve);
        assert_eq!(wanted(RecvOp::Try).end(-libc::EAGAIN), Ended::Rearm);
    }

    #[test]
    fn hard_ends_take_the_wish_away() {
        let mut recv = wanted(RecvOp::Multishot);
        assert_eq!(recv.end(0), Ended::Eof);
        assert!(!recv.wanted && recv.op == RecvOp::None);
        assert_eq!(wanted(RecvOp::Multishot).end(-libc::ECONNRESET), Ended::Failed(libc::ECONNRESET));
        assert_eq!(wanted(RecvOp::Multishot).end(-libc::EAGAIN), Ended::Failed(libc::EAGAIN));
    }

    #[test]
    fn a_stop_is_told_once_and_a_try_ends_empty_or_quiet() {
        let mut recv = Receiving { op: RecvOp::Multishot, stopping: true, ..Receiving::default() };
        assert_eq!(recv.end(-libc::ECANCELED), Ended::Cancelled);
        assert!(!recv.stopping);
        let mut recv = Receiving { op: RecvOp::Try, ..Receiving::default() };
        assert_eq!(recv.end(-libc::EAGAIN), Ended::Empty);
        recv.op = RecvOp::Try;
        assert_eq!(recv.end(-libc::ENOBUFS), Ended::Empty);
        recv.op = RecvOp::Try;
        assert_eq!(recv.end(5), Ended::Quiet);
    }
}

//! The receiving half of a socket: what its owner wants and what the kernel is doing.

/// How the owner wants the bytes of a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Wish {
    /// Not at all.
    #[default]
    None,
    /// As they come.
    Armed,
    /// As they come, but each look is the owner's to make.
    Probed,
}

/// The owner's wish beside what the kernel does (`armed`).
///
/// The two are kept apart because the kernel ends a multishot receive on its own account: when buffers run out, when
/// the completion queue is full, when a cancel arrives late. Whenever a receive ends, the wish decides what comes next,
/// so the floors above never see such an end.
///
/// While one is armed nobody else reads, whatever the wish has become meanwhile. That keeps the bytes in order.
#[derive(Debug, Default)]
pub(super) struct Receiving {
    pub(super) wish: Wish,
    /// The kernel holds a multishot receive.
    pub(super) armed: bool,
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
    /// Nothing: the owner looks itself, or wants no more.
    Wait,
    /// The stream is at its end.
    Eof,
    /// The owner's stop took effect.
    Cancelled,
    /// A hard error.
    Failed(i32),
}

impl Receiving {
    /// Takes note that the receive in flight has ended with `result` (a byte count or a negative errno).
    #[inline]
    pub(super) fn end(&mut self, result: i32) -> Ended {
        self.armed = false;
        // `EAGAIN` is not among them: it comes from a non-blocking descriptor, where arming again would spin.
        let soft = result > 0 || matches!(-result, libc::ENOBUFS | libc::ECANCELED | libc::EINTR);
        if !soft {
            self.wish = Wish::None;
            self.stopping = false;
            return if result == 0 { Ended::Eof } else { Ended::Failed(-result) };
        }
        match self.wish {
            Wish::Armed if result == -libc::ENOBUFS => Ended::Starve,
            Wish::Armed => Ended::Rearm,
            Wish::None if std::mem::take(&mut self.stopping) => Ended::Cancelled,
            Wish::None | Wish::Probed => Ended::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn armed(wish: Wish) -> Receiving {
        Receiving { wish, armed: true, ..Receiving::default() }
    }

    #[test]
    fn a_wanted_receive_is_armed_again_after_every_soft_end() {
        for result in [1, -libc::ECANCELED, -libc::EINTR] {
            assert_eq!(armed(Wish::Armed).end(result), Ended::Rearm);
        }
        assert_eq!(armed(Wish::Armed).end(-libc::ENOBUFS), Ended::Starve);
    }

    #[test]
    fn hard_ends_take_the_wish_away() {
        for wish in [Wish::Armed, Wish::Probed] {
            let mut recv = armed(wish);
            assert_eq!(recv.end(0), Ended::Eof);
            assert_eq!((recv.wish, recv.armed), (Wish::None, false));
            for errno in [libc::ECONNRESET, libc::EAGAIN] {
                assert_eq!(armed(wish).end(-errno), Ended::Failed(errno));
            }
        }
    }

    #[test]
    fn a_stop_is_told_once() {
        let mut recv = Receiving { stopping: true, ..armed(Wish::None) };
        assert_eq!(recv.end(-libc::ECANCELED), Ended::Cancelled);
        assert!(!recv.stopping);
    }

    #[test]
    fn one_that_is_probed_from_now_on_is_not_armed_again() {
        for result in [1, -libc::ECANCELED, -libc::ENOBUFS, -libc::EINTR] {
            assert_eq!(armed(Wish::Probed).end(result), Ended::Wait);
        }
    }
}

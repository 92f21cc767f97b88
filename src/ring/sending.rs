//! The one send a socket may have in flight.

/// A buffer on its way out and how much of it the kernel has taken.
///
/// Two sends in flight on one stream may interleave after a short write, so a socket has one at a time and the rest of
/// a short send is submitted again from `sent` on. The vector's heap block does not move while this value does, which
/// is what lets the kernel keep a pointer into it.
#[derive(Debug)]
pub(super) struct Sending {
    buf: Vec<u8>,
    sent: usize,
}

/// What a send's completion means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SendStep {
    /// All bytes are with the kernel.
    Done,
    /// All that was submitted is with the kernel, and more is left.
    Part,
    /// The kernel took less than was submitted.
    Rest,
    /// The send ended with this errno.
    Failed(i32),
}

/// Most bytes of one request. The kernel says nothing of a request before all of it is done, which for a peer that reads
/// slowly takes as long as it likes: this much, and the owner can tell that peer from one that reads nothing. A payload of
/// a MiB goes in one, with the frame around it.
pub(super) const MAX_SEND: usize = (1 << 20) + 4096;

impl Sending {
    pub(super) fn new(buf: Vec<u8>) -> Sending {
        Sending { buf, sent: 0 }
    }

    /// The bytes that are to be sent next, at most what one request takes.
    #[inline]
    pub(super) fn rest(&self) -> &[u8] {
        let rest = &self.buf[self.sent..];
        &rest[..rest.len().min(MAX_SEND)]
    }

    /// Accounts for a completion's result: a byte count, or a negative errno.
    #[inline]
    pub(super) fn advance(&mut self, result: i32) -> SendStep {
        if result == -libc::EINTR {
            return SendStep::Rest;
        }
        if result < 0 {
            return SendStep::Failed(-result);
        }
        let submitted = self.rest().len();
        if result == 0 && submitted > 0 {
            // A stream takes at least one byte or gives an error; asking again could go on for ever.
            return SendStep::Failed(libc::EPIPE);
        }
        let taken = (result as usize).min(submitted);
        self.sent += taken;
        match self.sent == self.buf.len() {
            true => SendStep::Done,
            false if taken == submitted => SendStep::Part,
            false => SendStep::Rest,
        }
    }

    pub(super) fn into_buf(self) -> Vec<u8> {
        self.buf
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_send_goes_on_where_it_stopped() {
        let mut sending = Sending::new(b"0123456789".to_vec());
        assert_eq!(sending.advance(4), SendStep::Rest);
        assert_eq!(sending.rest(), b"456789");
        assert_eq!(sending.advance(-libc::EINTR), SendStep::Rest);
        assert_eq!(sending.rest(), b"456789");
        assert_eq!(sending.advance(6), SendStep::Done);
        assert_eq!(sending.into_buf(), b"0123456789");
    }

    #[test]
    fn a_long_send_goes_in_parts() {
        let mut sending = Sending::new(vec![7; MAX_SEND + 2]);
        assert_eq!(sending.rest().len(), MAX_SEND);
        assert_eq!(sending.advance(MAX_SEND as i32 - 1), SendStep::Rest);
        assert_eq!(sending.rest().len(), 3);
        assert_eq!(sending.advance(3), SendStep::Done);
        let mut sending = Sending::new(vec![7; MAX_SEND + 2]);
        assert_eq!(sending.advance(MAX_SEND as i32), SendStep::Part);
        assert_eq!(sending.rest().len(), 2);
    }

    #[test]
    fn errors_end_it_and_zero_never_loops() {
        assert_eq!(Sending::new(vec![1]).advance(-libc::ECONNRESET), SendStep::Failed(libc::ECONNRESET));
        assert_eq!(Sending::new(vec![1]).advance(0), SendStep::Failed(libc::EPIPE));
        assert_eq!(Sending::new(Vec::new()).advance(0), SendStep::Done);
    }
}

//! The sending half of a connection: frames gather, one send is in flight.

/// Capacity that a spare buffer may keep, in bytes.
const KEEP: usize = 256 * 1024;
/// How many spare buffers a core keeps.
const SPARES: usize = 256;

/// Gathers frames while a send is in flight.
///
/// One send per connection is in flight at a time: two could interleave after a short one. Whatever is encoded in
/// the meantime goes out with the next send, so a busy connection coalesces by itself.
#[derive(Debug, Default)]
pub struct Writer {
    queued: Vec<u8>,
    in_flight: usize,
    /// When the send in flight began.
    since: u64,
    /// When the peer took something of it last, or it began.
    taken: u64,
}

impl Writer {
    /// Where the next frame is encoded.
    #[inline]
    pub fn buffer(&mut self, spares: &mut Spares) -> &mut Vec<u8> {
        if self.queued.capacity() == 0 {
            self.queued = spares.take();
        }
        &mut self.queued
    }

    /// Bytes that wait or are in flight.
    #[inline]
    pub fn backlog(&self) -> usize {
        self.queued.len() + self.in_flight
    }

    /// The frames that gathered.
    pub fn queued(&self) -> &[u8] {
        &self.queued
    }

    /// Puts other frames in the place of those that gathered: those that `rewrite` appends to an empty buffer.
    pub fn rewrite(&mut self, spares: &mut Spares, rewrite: impl FnOnce(&[u8], &mut Vec<u8>)) {
        let mut fresh = spares.take();
        rewrite(&self.queued, &mut fresh);
        spares.give(std::mem::replace(&mut self.queued, fresh));
    }

    /// The peer has taken a part of what is in flight, at the time `now`.
    pub fn progressed(&mut self, now: u64) {
        self.taken = now;
    }

    /// For so many nanoseconds, up to now, nobody went on with the send in flight.
    pub fn forgive(&mut self, absent: u64) {
        self.taken = self.taken.saturating_add(absent);
    }

    /// For how long the peer has taken nothing of what is in flight at the time `now`, both in nanoseconds.
    pub fn stuck_for(&self, now: u64) -> u64 {
        if self.in_flight > 0 { now.saturating_sub(self.taken) } else { 0 }
    }

    /// For how long the send in flight has been under way at the time `now`, both in nanoseconds.
    pub fn sending_for(&self, now: u64) -> u64 {
        if self.in_flight > 0 { now.saturating_sub(self.since) } else { 0 }
    }

    /// The bytes to send at the time `now`, if there are any and none are in flight.
    #[inline]
    pub fn start_send(&mut self, now: u64) -> Option<Vec<u8>> {
        if self.in_flight > 0 || self.queued.is_empty() {
            return None;
        }
        (self.since, self.taken) = (now, now);
        self.in_flight = self.queued.len();
        Some(std::mem::take(&mut self.queued))
    }

    /// The send that was started is done; `buffer` is what [`start_send`](Self::start_send) gave.
    #[inline]
    pub fn sent(&mut self, buffer: Vec<u8>, spares: &mut Spares) {
        self.in_flight = 0;
        spares.give(buffer);
    }
}

/// Spare buffers of a core for what is sent and for requests that wait, so that connections own none while they are
/// silent and nothing is allocated while they are busy.
#[derive(Debug, Default)]
pub struct Spares(Vec<Vec<u8>>);

impl Spares {
    /// An empty buffer, with the capacity of an earlier one if there is one.
    #[inline]
    pub fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_else(|| Vec::with_capacity(4096))
    }

    /// A buffer with these bytes. One that is made for them is no larger than they are: thousands may wait, and what bounds
    /// them counts their bytes.
    #[inline]
    pub fn copy(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut buffer = self.0.pop().unwrap_or_else(|| Vec::with_capacity(bytes.len()));
        buffer.extend_from_slice(bytes);
        buffer
    }

    /// Takes a buffer back.
    #[inline]
    pub fn give(&mut self, mut buffer: Vec<u8>) {
        if self.0.len() < SPARES && buffer.capacity() <= KEEP && buffer.capacity() > 0 {
            buffer.clear();
            self.0.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_send_is_in_flight_and_the_rest_gathers() {
        let (mut writer, mut spares) = (Writer::default(), Spares::default());
        assert_eq!(writer.start_send(1), None);
        writer.buffer(&mut spares).extend_from_slice(b"one");
        let first = writer.start_send(2).unwrap();
        writer.buffer(&mut spares).extend_from_slice(b"two");
        writer.buffer(&mut spares).extend_from_slice(b"three");
        assert_eq!(writer.start_send(1), None);
        assert_eq!((writer.backlog(), writer.stuck_for(9)), (11, 7));
        writer.progressed(5);
        assert_eq!((writer.backlog(), writer.stuck_for(9), writer.sending_for(9)), (11, 4, 7));
        writer.sent(first, &mut spares);
        assert_eq!(writer.start_send(2).unwrap(), b"twothree");
    }

    #[test]
    fn what_gathered_is_rewritten_but_not_what_is_in_flight() {
        let (mut writer, mut spares) = (Writer::default(), Spares::default());
        writer.buffer(&mut spares).extend_from_slice(b"one");
        let first = writer.start_send(1).unwrap();
        writer.buffer(&mut spares).extend_from_slice(b"two");
        writer.rewrite(&mut spares, |old, out| out.extend(old.iter().rev()));
        assert_eq!((&first[..], writer.queued(), writer.backlog()), (&b"one"[..], &b"owt"[..], 6));
    }

    #[test]
    fn thousands_of_small_requests_that_wait_take_as_much_as_they_are() {
        let mut spares = Spares::default();
        spares.give(Vec::with_capacity(KEEP));
        let bodies: Vec<_> = (0..10_000).map(|_| spares.copy(&[1, b'x'])).collect();
        let reserved: usize = bodies.iter().map(Vec::capacity).sum();
        assert!(reserved <= KEEP + 10_000 * 8, "{reserved} bytes");
        assert!(bodies.iter().all(|body| body == &[1, b'x']));
    }

    #[test]
    fn a_silent_writer_owns_no_buffer() {
        let (mut writer, mut spares) = (Writer::default(), Spares::default());
        writer.buffer(&mut spares).push(1);
        let sent = writer.start_send(2).unwrap();
        writer.sent(sent, &mut spares);
        assert_eq!(writer.queued.capacity(), 0);
        assert_eq!(spares.0.len(), 1);
        spares.give(Vec::with_capacity(KEEP + 1));
        assert_eq!(spares.0.len(), 1);
    }
}

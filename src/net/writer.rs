//! The sending half of a connection: frames gather, one send is in flight.

/// Capacity that a spare buffer may keep, in bytes.
const KEEP: usize = 1024 * 1024;
/// How many spare buffers a core keeps.
const SPARES: usize = 64;

/// Gathers frames while a send is in flight.
///
/// One send per connection is in flight at a time: two could interleave after a short one. Whatever is encoded in
/// the meantime goes out with the next send, so a busy connection coalesces by itself.
#[derive(Debug, Default)]
pub struct Writer {
    queued: Vec<u8>,
    in_flight: usize,
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

    /// The bytes to send now, if there are any and none are in flight.
    #[inline]
    pub fn start_send(&mut self) -> Option<Vec<u8>> {
        if self.in_flight > 0 || self.queued.is_empty() {
            return None;
        }
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

/// Spare send buffers of a core, so that connections own none while they are silent and nothing is allocated
/// while they are busy.
#[derive(Debug, Default)]
pub struct Spares(Vec<Vec<u8>>);

impl Spares {
    /// An empty buffer, with the capacity of an earlier one if there is one.
    #[inline]
    pub fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_else(|| Vec::with_capacity(4096))
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
        assert_eq!(writer.start_send(), None);
        writer.buffer(&mut spares).extend_from_slice(b"one");
        let first = writer.start_send().unwrap();
        writer.buffer(&mut spares).extend_from_slice(b"two");
        writer.buffer(&mut spares).extend_from_slice(b"three");
        assert_eq!(writer.start_send(), None);
        assert_eq!(writer.backlog(), 11);
        writer.sent(first, &mut spares);
        assert_eq!(writer.start_send().unwrap(), b"twothree");
    }

    #[test]
    fn a_silent_writer_owns_no_buffer() {
        let (mut writer, mut spares) = (Writer::default(), Spares::default());
        writer.buffer(&mut spares).push(1);
        let sent = writer.start_send().unwrap();
        writer.sent(sent, &mut spares);
        assert_eq!(writer.queued.capacity(), 0);
        assert_eq!(spares.0.len(), 1);
        spares.give(Vec::with_capacity(KEEP + 1));
        assert_eq!(spares.0.len(), 1);
    }
}

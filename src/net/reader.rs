//! The receiving half of a connection: bytes become a hello, then frames.

use std::cell::Cell;

use crate::wire::frame::{Frame, FrameError, frame_length};
use crate::wire::handshake::{Hello, HelloError, MAX_HELLO};

/// Capacity up to which a reassembly buffer is used for further frames, in bytes.
const KEEP: usize = 64 * 1024;

/// What a frame that is being reassembled may take up beyond what has arrived, in bytes; as much again as has arrived if
/// that is more.
const STEP: usize = 64 * 1024;

/// The size of a page, in bytes.
const PAGE: usize = 4096;

/// Turns received bytes into a hello and frames.
///
/// A frame that lies whole in the received bytes is parsed where it lies. Only a frame that is cut by the end of
/// a receive buffer is copied, into memory that grows with what arrives, after its length was checked.
///
/// Call [`next`](Reader::next) until it yields `None`: then all bytes are used up.
#[derive(Debug)]
pub struct Reader {
    max_frame: u32,
    greeted: bool,
    near: bool,
    partial: Vec<u8>,
    /// The frame in `partial` was handed out: drop it at the next call.
    spent: bool,
}

/// What a connection received.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// The peer's first words; exactly once, before any frame.
    Hello(Hello),
    /// A frame.
    Frame(Frame<'a>),
}

/// Why a connection is closed by the side that reads it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// Before the first frame.
    #[error(transparent)]
    Hello(#[from] HelloError),
    /// In a frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl Reader {
    /// A reader that refuses frames above `max_frame` bytes, of what a process of this machine sends or not.
    pub fn new(max_frame: u32, near: bool) -> Reader {
        Reader { max_frame, greeted: false, near, partial: Vec::new(), spent: false }
    }

    /// A reader for a connection whose hello was read elsewhere.
    pub fn after_hello(max_frame: u32, near: bool) -> Reader {
        Reader { greeted: true, ..Reader::new(max_frame, near) }
    }

    /// Whether the peer is a process of this machine.
    #[inline]
    pub fn is_near(&self) -> bool {
        self.near
    }

    /// Lends it the buffer in `spare` for a frame that may be cut, unless it has one.
    #[inline]
    pub fn lend(&mut self, spare: &Cell<Vec<u8>>) {
        if self.partial.capacity() == 0 {
            self.partial = spare.take();
        }
    }

    /// Takes the buffer back for others, unless a frame in it has begun and not ended: a silent connection owns none.
    #[inline]
    pub fn give_back(&mut self, spare: &Cell<Vec<u8>>) {
        if self.spent {
            self.forget_spent();
        }
        if self.partial.is_empty() {
            spare.set(std::mem::take(&mut self.partial));
        }
    }

    /// Whether a hello or a frame has begun and not ended.
    pub fn is_midway(&self) -> bool {
        !self.partial.is_empty() && !self.spent
    }

    /// Whether the peer's first words have been read: from then on there are only frames.
    #[inline]
    pub fn is_greeted(&self) -> bool {
        self.greeted
    }

    /// The next thing in `input`, which is advanced past it; `None` once all of `input` is used up.
    pub fn next<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Result<Option<Incoming<'a>>, ProtocolError> {
        if !self.greeted {
            return Ok(self.hello(input)?.map(Incoming::Hello));
        }
        let frame = self.next_frame(input)?;
        Ok(frame.map(Frame::parse).transpose()?.map(Incoming::Frame))
    }

    /// The bytes of the next frame in `input`, which is advanced past it; `None` once all of `input` is used up. Only after
    /// the hello.
    #[inline]
    pub fn next_frame<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Result<Option<&'a [u8]>, FrameError> {
        if self.spent {
            self.forget_spent();
        }
        if self.partial.is_empty() {
            if let Some(length) = frame_length(input, self.max_frame)?
                && let Some((frame, rest)) = input.split_at_checked(length)
            {
                *input = rest;
                return Ok(Some(frame));
            }
            if input.is_empty() {
                return Ok(None);
            }
        }
        if !self.reassemble(input)? {
            return Ok(None);
        }
        self.spent = true;
        Ok(Some(&self.partial))
    }

    fn forget_spent(&mut self) {
        self.spent = false;
        self.partial.clear();
        if self.partial.capacity() > KEEP {
            self.partial = Vec::new();
        }
    }

    /// Moves bytes to `partial`; true once it holds one whole frame.
    fn reassemble(&mut self, input: &mut &[u8]) -> Result<bool, FrameError> {
        self.take(4, input);
        let Some(length) = frame_length(&self.partial, self.max_frame)? else { return Ok(false) };
        if self.partial.capacity() < length.min(self.partial.len() + input.len()) {
            self.grow(length, input.len());
        }
        self.take(length, input);
        Ok(self.partial.len() == length)
    }

    /// Makes room in `partial` for a frame of `length` bytes, or for a part of it that has room for `coming` bytes more:
    /// memory follows the bytes that have really come, not those that are claimed.
    ///
    /// Unless it is small, the capacity is whole pages and a half. The payload is copied next, as a rule into a block that
    /// the allocator puts close by. Payloads are often whole pages too; if this block was just as long, the other would
    /// begin a few bytes behind the payload, modulo the size of a page. A copy to an address that is 1 to 15 bytes above
    /// its source in that sense was measured at 3 GB/s, and at 30 to 57 at other distances, on the machine of
    /// docs/PERFORMANCE.md, where the C library copies by `rep movsb`.
    #[cold]
    fn grow(&mut self, length: usize, coming: usize) {
        let arrived = self.partial.len();
        let wanted = length.min(arrived + STEP.max(arrived).max(coming));
        let capacity = if wanted < 2 * PAGE { wanted } else { wanted.next_multiple_of(PAGE) + PAGE / 2 };
        self.partial.reserve_exact(capacity - arrived);
    }

    /// Fills `partial` up to `goal` bytes as far as `input` goes.
    fn take(&mut self, goal: usize, input: &mut &[u8]) {
        let count = goal.saturating_sub(self.partial.len()).min(input.len());
        let (taken, rest) = input.split_at(count);
        self.partial.extend_from_slice(taken);
        *input = rest;
    }

    /// The peer's first words, once they are whole; `input` is advanced past what was used of it.
    pub fn hello(&mut self, input: &mut &[u8]) -> Result<Option<Hello>, HelloError> {
        if input.is_empty() {
            return Ok(None);
        }
        let before = self.partial.len();
        let mut rest = *input;
        self.take(MAX_HELLO, &mut rest);
        let Some((hello, used)) = Hello::decode(&self.partial)? else {
            *input = rest;
            return Ok(None);
        };
        // The hello ends in this piece of input, since it was incomplete before; what follows are frames.
        *input = &input[used - before..];
        self.greeted = true;
        self.partial.clear();
        Ok(Some(hello))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::Draft;

    fn stream(sizes: &[usize]) -> Vec<u8> {
        let mut out = Vec::new();
        let hello = Hello {
            versions: (1, 1),
            max_frame: 4096,
            cores: 1,
            wanted_core: None,
            incarnation: 1,
            name: "n".into(),
            advertised: None,
            token: None,
            outbox: None,
            given: None,
        };
        hello.encode(&mut out);
        for (i, &size) in sizes.iter().enumerate() {
            let mut draft = Draft::reply(&mut out, i as u64 + 1, None);
            draft.payload().extend(std::iter::repeat_n(i as u8, size));
            draft.finish(1 << 20).unwrap();
        }
        out
    }

    fn check(stream: &[u8], pieces: impl Iterator<Item = usize>, sizes: &[usize]) {
        let mut reader = Reader::new(1 << 20, false);
        let (mut at, mut hellos, mut seen) = (0, 0, 0);
        for piece in pieces {
            let end = (at + piece).min(stream.len());
            let mut input = &stream[at..end];
            at = end;
            while let Some(incoming) = reader.next(&mut input).unwrap() {
                match incoming {
                    Incoming::Hello(_) => hellos += 1,
                    Incoming::Frame(Frame::Reply { request, payload, .. }) => {
                        assert_eq!(request, seen as u64 + 1);
                        assert_eq!(payload, vec![seen as u8; sizes[seen]]);
                        seen += 1;
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert!(input.is_empty());
            if at == stream.len() {
                break;
            }
        }
        assert_eq!((hellos, seen), (1, sizes.len()));
    }

    #[test]
    fn frames_come_out_alike_however_the_bytes_are_cut() {
        let sizes = [0, 1, 100, 0, 5000, 3, 70_000, 2];
        let stream = stream(&sizes);
        for piece in [1, 2, 3, 7, 16, 41, 1000, 16_384, usize::MAX / 2] {
            check(&stream, std::iter::repeat(piece), &sizes);
        }
        let mut state = 1u64;
        for _ in 0..200 {
            let pieces = std::iter::from_fn(|| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                Some((state >> 33) as usize % 300)
            });
            check(&stream, pieces, &sizes);
        }
    }

    #[test]
    fn a_length_out_of_bounds_ends_the_stream_before_anything_is_allocated() {
        for bad in [0u32, 15, (1 << 20) + 1, u32::MAX] {
            for piece in [1, 1000] {
                let mut bytes = stream(&[]);
                bytes.extend_from_slice(&bad.to_le_bytes());
                let mut reader = Reader::new(1 << 20, false);
                let outcome = bytes.chunks(piece).try_for_each(|mut input| {
                    while reader.next(&mut input)?.is_some() {}
                    Ok::<_, ProtocolError>(())
                });
                assert!(matches!(outcome, Err(ProtocolError::Frame(_))), "{bad}");
                assert!(reader.partial.capacity() < 100);
            }
        }
    }

    /// The capacity of the reassembly buffer after each piece of what a frame of `size` bytes takes.
    fn capacities(size: usize) -> Vec<(usize, usize)> {
        let bytes = stream(&[size]);
        let (hello, frame) = bytes.split_at(stream(&[]).len());
        let mut reader = Reader::new(1 << 20, false);
        assert!(reader.next(&mut &*hello).unwrap().is_some());
        let pieces = frame[..frame.len() - 1].chunks(16 << 10);
        let mut come = 0;
        let after = pieces.map(|mut piece| {
            come += piece.len();
            assert!(reader.next(&mut piece).unwrap().is_none());
            (come, reader.partial.capacity())
        });
        after.collect()
    }

    #[test]
    fn memory_follows_what_has_come() {
        let after = capacities(1 << 19);
        for (come, capacity) in &after {
            assert!(*capacity <= come + STEP.max(*come) + 2 * PAGE, "{capacity} for {come}");
        }
        let mut sizes: Vec<_> = after.into_iter().map(|(_, capacity)| capacity).collect();
        sizes.dedup();
        assert!(sizes.len() <= 5, "it moves seldom: {sizes:?}");
        assert_eq!(capacities(100), [(115, 116)], "a small frame takes up no more than its size");
    }

    #[test]
    fn the_block_behind_a_large_frame_begins_half_a_page_away_from_it() {
        for size in [8 << 10, 40_000, 64 << 10, 256 << 10, 1 << 19] {
            for (_, capacity) in capacities(size) {
                assert_eq!(capacity % PAGE, PAGE / 2, "{size}");
            }
        }
    }

    #[test]
    fn the_buffer_of_a_cut_frame_is_lent_and_a_large_one_is_not_used_again() {
        let spare = Cell::new(Vec::new());
        for (size, kept) in [(KEEP / 2, true), (100, true), (1 << 19, false)] {
            let mut bytes = stream(&[size]);
            let tail = bytes.split_off(bytes.len() - 1);
            let mut reader = Reader::new(1 << 20, false);
            for piece in [&bytes[..], &tail[..]] {
                reader.lend(&spare);
                let mut input = piece;
                while reader.next(&mut input).unwrap().is_some() {}
                reader.give_back(&spare);
                assert_eq!(reader.is_midway(), reader.partial.capacity() > 0, "{size}");
            }
            let capacity = spare.take().capacity();
            assert_eq!(capacity >= KEEP / 2, kept, "{size}: {capacity}");
            spare.set(Vec::with_capacity(capacity));
        }
    }
}

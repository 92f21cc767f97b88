//! The budget of a turn for received bytes, and what waits beyond it.

use std::collections::VecDeque;

use slab::Slab;

use super::core::{Core, connection};
use crate::ring::{Completion, RecvEnd, SocketId};

/// Received bytes that are handled in one turn: 128 KiB, which may be exceeded by one receive buffer. Full of the
/// shortest frames they take a core about a millisecond; no connection waits longer for another one. Payloads of many
/// KiB are received in full buffers, of which 8 in a turn leave the turn's own cost below a percent.
pub(super) const BYTES_PER_TURN: usize = 128 << 10;
/// Buffers that a connection may have waiting whatever the others need.
const ALWAYS_ALLOWED: usize = 4;
/// A connection is not received while more than this part of the free buffers wait for it, so that those of others
/// find some: one in eight.
const SHARE: usize = 8;
const NONE: u32 = u32::MAX;

/// What the ring has reaped beyond the budget of a turn.
///
/// Each connection has a line of its own, which keeps the order of its bytes and its end. Lines are served in turn, one
/// buffer each. A connection whose line is long is not received from the kernel until the line is empty: the rest stays
/// in its socket, and the peer is slowed down by TCP.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    items: Slab<Item>,
    /// By the slot of the socket.
    lines: Vec<Line>,
    /// Slots with a line that is not empty, the next one to be served in front.
    rotation: VecDeque<u32>,
}

#[derive(Debug)]
struct Item {
    completion: Completion,
    next: u32,
}

#[derive(Clone, Copy, Debug)]
struct Line {
    first: u32,
    last: u32,
    len: u32,
    /// Not received until the line is empty.
    held: bool,
}

const EMPTY: Line = Line { first: NONE, last: NONE, len: 0, held: false };

/// What was served.
#[derive(Debug)]
struct Served {
    completion: Completion,
    /// The socket is to be received again.
    resumes: Option<SocketId>,
}

impl Backlog {
    /// Whether nothing waits.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.rotation.is_empty()
    }

    /// Whether something of this socket waits.
    fn has(&self, socket: SocketId) -> bool {
        self.lines.get(socket.slot as usize).is_some_and(|line| line.len > 0)
    }

    /// Puts something at the end of its socket's line.
    fn push(&mut self, socket: SocketId, completion: Completion) {
        let slot = socket.slot as usize;
        if self.lines.len() <= slot {
            self.lines.resize(slot + 1, EMPTY);
        }
        let place = self.items.insert(Item { completion, next: NONE }) as u32;
        let line = &mut self.lines[slot];
        match self.items.get_mut(line.last as usize) {
            Some(last) => last.next = place,
            None => {
                line.first = place;
                self.rotation.push_back(socket.slot);
            }
        }
        line.last = place;
        line.len += 1;
    }

    /// Whether the socket is to be received no longer, with so many buffers free. True once for a line.
    fn holds(&mut self, socket: SocketId, free: usize) -> bool {
        let Some(line) = self.lines.get_mut(socket.slot as usize) else { return false };
        let holds = !line.held && line.len as usize > ALWAYS_ALLOWED.max(free / SHARE);
        line.held |= holds;
        holds
    }

    /// Takes the first of the line that is next.
    fn pop(&mut self) -> Option<Served> {
        let slot = self.rotation.pop_front()?;
        let served = self.pop_of(slot);
        if self.lines[slot as usize].len > 0 {
            self.rotation.push_back(slot);
        }
        served
    }

    /// Takes the whole line of a socket that has ended.
    fn take(&mut self, socket: SocketId) -> Vec<Completion> {
        if !self.has(socket) {
            return Vec::new();
        }
        self.rotation.retain(|&slot| slot != socket.slot);
        std::iter::from_fn(|| self.pop_of(socket.slot)).map(|served| served.completion).collect()
    }

    fn pop_of(&mut self, slot: u32) -> Option<Served> {
        let line = self.lines.get_mut(slot as usize)?;
        let Item { completion, next } = self.items.try_remove(line.first as usize)?;
        line.first = next;
        line.len -= 1;
        let mut resumes = None;
        if line.len == 0 {
            // A line that ends otherwise is the end of its connection.
            if let Completion::Received { socket, .. } = completion {
                resumes = line.held.then_some(socket);
            }
            *line = EMPTY;
        }
        Some(Served { completion, resumes })
    }
}

impl Core {
    /// Handles what was reaped, and what waits, as far as the budget goes; the rest waits for the next turns.
    #[inline(never)]
    pub(super) fn share_out(&mut self, completions: &mut Vec<Completion>) {
        let mut left = BYTES_PER_TURN;
        for completion in completions.drain(..) {
            match completion {
                Completion::Received { socket, ref chunk } => {
                    if left == 0 || !self.backlog.is_empty() {
                        self.defer(socket, completion);
                    } else {
                        left = left.saturating_sub(chunk.len());
                        self.handle(completion);
                    }
                }
                // What the connection has brought comes before its end.
                Completion::Eof { socket }
                | Completion::RecvEnded { socket, reason: RecvEnd::Error(_) }
                | Completion::Sent { socket, result: Err(_), .. }
                    if self.backlog.has(socket) =>
                {
                    self.backlog.push(socket, completion);
                }
                // The ring gives the slot to another socket from the next reap on.
                Completion::Closed { socket } | Completion::Detached { socket, .. } => {
                    self.backlog.take(socket).into_iter().for_each(|waiting| self.handle(waiting));
                    self.handle(completion);
                }
                _ => self.handle(completion),
            }
        }
        while left > 0
            && let Some(Served { completion, resumes }) = self.backlog.pop()
        {
            if let Completion::Received { chunk, .. } = &completion {
                left = left.saturating_sub(chunk.len());
            }
            self.handle(completion);
            if let Some(socket) = resumes.filter(|&socket| self.shard.is_read(connection(socket))) {
                self.ring.recv(socket);
            }
        }
    }

    /// Out of line, so that only the usual path has it inlined.
    #[inline(never)]
    fn handle(&mut self, completion: Completion) {
        self.on_completion(completion);
    }

    /// A send went without the ring. What its connection has brought comes before its failure.
    #[inline]
    pub(super) fn on_sent_at_once(&mut self, completion: Completion) {
        match completion {
            Completion::Sent { socket, result: Err(_), .. } if self.backlog.has(socket) => {
                self.backlog.push(socket, completion);
            }
            completion => self.on_completion(completion),
        }
    }

    fn defer(&mut self, socket: SocketId, completion: Completion) {
        self.shard.count(|counters| counters.reads_deferred += 1);
        self.backlog.push(socket, completion);
        if self.backlog.holds(socket, self.ring.free_buffers()) {
            self.ring.stop_recv(socket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(slot: u32) -> SocketId {
        SocketId { slot, generation: 7 }
    }

    /// Stands for received bytes.
    fn part(slot: u32) -> Completion {
        Completion::SentPart { socket: socket(slot) }
    }

    fn slot(completion: &Completion) -> (u32, bool) {
        match completion {
            Completion::SentPart { socket } => (socket.slot, false),
            Completion::Eof { socket } => (socket.slot, true),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn lines_are_served_in_turn_and_each_keeps_its_order() {
        let mut backlog = Backlog::default();
        for at in [3, 3, 3, 0, 5, 5] {
            backlog.push(socket(at), part(at));
        }
        backlog.push(socket(5), Completion::Eof { socket: socket(5) });

        let served: Vec<_> = std::iter::from_fn(|| backlog.pop()).map(|served| slot(&served.completion)).collect();

        assert_eq!(served, [(3, false), (0, false), (5, false), (3, false), (5, false), (3, false), (5, true)]);
        assert!(backlog.is_empty() && backlog.items.is_empty());
    }

    #[test]
    fn the_line_of_a_socket_that_has_ended_is_taken_whole() {
        let mut backlog = Backlog::default();
        for at in [1, 2, 1] {
            backlog.push(socket(at), part(at));
        }
        assert_eq!(backlog.take(socket(1)).len(), 2);
        assert_eq!(backlog.take(socket(9)).len(), 0);
        assert!(!backlog.has(socket(1)) && backlog.has(socket(2)));
        assert_eq!(backlog.pop().map(|served| slot(&served.completion)), Some((2, false)));
        assert!(backlog.pop().is_none());
    }

    #[test]
    fn a_line_is_held_once_it_takes_more_than_an_eighth_of_what_is_free() {
        let mut backlog = Backlog::default();
        for _ in 0..4 {
            backlog.push(socket(0), part(0));
        }
        assert!(!backlog.holds(socket(0), 0), "so many are always allowed");
        for _ in 0..12 {
            backlog.push(socket(0), part(0));
        }
        assert!(!backlog.holds(socket(0), 128));
        assert!(backlog.holds(socket(0), 127));
        assert!(!backlog.holds(socket(0), 0), "it is held already");
    }
}

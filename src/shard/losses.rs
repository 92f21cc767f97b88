//! Cleanup after lost connections, bounded per turn.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use super::shard::Shard;
use crate::dispatch::call::Origin;
use crate::net::connection::End;
use crate::net::connection_id::ConnectionId;
use crate::net::errors::AskError;
use crate::net::pending::{Batch, Next};

/// The most connections, asks and handlers to end in one turn, which takes some 100 us.
const ENDS_PER_TURN: usize = 256;

/// Queue of pending cleanup, first in, first out.
///
/// One connection may have 65,536 pending asks, and thousands of connections may be lost at once. Work beyond the limit
/// of a turn waits here. Meanwhile the core serves everything else, and it does not park before the queue is empty. A
/// queued ask ends by what comes first: this cleanup, its deadline, or the drop of its future.
#[derive(Default)]
pub(super) struct Losses {
    queue: RefCell<VecDeque<Loss>>,
    /// What may still be ended in this turn.
    left: Cell<usize>,
    /// Wakers and drops of handlers may come back in here.
    running: Cell<bool>,
}

enum Loss {
    /// A connection that is to be closed.
    Connection { id: ConnectionId, cause: Box<str>, end: End },
    /// The asks that went over a connection.
    Asks { batch: Batch, error: AskError },
    /// The asks that came over a connection.
    Work(Origin),
}

impl Losses {
    /// Whether nothing is left to be ended.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.queue.borrow().is_empty()
    }

    /// Whether one more may be ended now; counted if so.
    fn may_end(&self) -> bool {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        left > 0
    }
}

impl Shard {
    /// A turn begins: ends a turn's part of what is left. True if there was anything.
    #[inline]
    pub(super) fn end_losses(&self) -> bool {
        self.losses.left.set(ENDS_PER_TURN);
        if self.losses.is_empty() {
            return false;
        }
        self.losses.running.set(false);
        self.work_off_losses();
        true
    }

    /// Ends all that is left.
    pub(super) fn end_all_losses(&self) {
        self.losses.left.set(usize::MAX);
        self.losses.running.set(false);
        self.work_off_losses();
    }

    /// Closes a connection that has ended by itself, now or in one of the next turns. What it has brought was handled
    /// before.
    pub fn close_in_turn(&self, id: ConnectionId, cause: &str, end: End) {
        if self.losses.is_empty() && self.losses.may_end() {
            self.close(id, cause, end);
        } else {
            self.losses.queue.borrow_mut().push_back(Loss::Connection { id, cause: cause.into(), end });
        }
    }

    /// Ends the asks that wait for the answer of a peer now.
    pub(super) fn end_asks_of(&self, peer: u32, error: AskError) {
        let Some(batch) = self.pending.borrow_mut().detach(peer) else { return };
        self.losses.queue.borrow_mut().push_back(Loss::Asks { batch, error });
        self.work_off_losses();
    }

    /// Nobody waits any longer for what was asked over a connection.
    pub(super) fn give_up(&self, origin: Origin) {
        self.losses.queue.borrow_mut().push_back(Loss::Work(origin));
        self.work_off_losses();
    }

    fn work_off_losses(&self) {
        if self.losses.running.replace(true) {
            return;
        }
        while self.losses.left.get() > 0 {
            let Some(loss) = self.losses.queue.borrow_mut().pop_front() else { break };
            if let Some(rest) = self.work_off(loss) {
                self.losses.queue.borrow_mut().push_front(rest);
            }
        }
        self.losses.running.set(false);
    }

    /// Returns what exceeds the turn's part.
    fn work_off(&self, loss: Loss) -> Option<Loss> {
        match loss {
            Loss::Connection { id, cause, end } => {
                self.losses.may_end();
                self.close(id, &cause, end);
            }
            Loss::Asks { batch, error } => loop {
                let next = self.pending.borrow_mut().next_of(&batch);
                match next {
                    Next::Ask(key) => self.complete(key, Err(error.clone())),
                    Next::Later => {}
                    Next::Nothing => {
                        self.pending.borrow_mut().end_batch(batch);
                        break;
                    }
                }
                self.losses.may_end();
                if self.losses.left.get() == 0 {
                    return Some(Loss::Asks { batch, error });
                }
            },
            Loss::Work(origin) => {
                while self.dispatcher.give_up_one(origin) {
                    self.losses.may_end();
                    if self.losses.left.get() == 0 {
                        return Some(Loss::Work(origin));
                    }
                }
            }
        }
        None
    }
}

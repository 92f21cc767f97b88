//! The suspended handlers of a core, by who asked.

use std::cell::RefCell;
use std::rc::Rc;

use slab::Slab;

use super::ask_index::AskIndex;
use super::call::{Call, NO_DEADLINE, Origin};
use crate::executor::key::WakeKey;
use crate::executor::steps::Steps;
use crate::wire::frame::EndpointId;

/// Names a handler from its begin to its end.
pub(super) type FlightKey = usize;

/// The handlers of a core that run beside others, or are suspended, whichever their endpoints.
///
/// Those whose messages came over the same connection are linked to each other, so that its end costs as much as it
/// ends, and nothing if that is nothing.
#[derive(Debug, Default)]
pub(super) struct SuspendedHandlers {
    handlers: Slab<Handler>,
    /// The handlers of each connection, by the core that owns it and its slot: the last to be suspended. A slot has one
    /// connection at a time, so nothing is hashed.
    heads: Vec<Vec<u32>>,
    /// Those that have tasks.
    index: AskIndex,
    pub(super) steps: Steps,
}

/// What all endpoints of a core share.
pub(super) type Suspended = Rc<RefCell<SuspendedHandlers>>;

#[derive(Debug)]
struct Handler {
    origin: Origin,
    request: u64,
    endpoint: EndpointId,
    /// Its task, if it is suspended as one.
    task: Option<WakeKey>,
    /// When it is over, if it is of a one-way message and beside others.
    over: u64,
    linked: bool,
    before: u32,
    after: u32,
}

/// A handler that is to be stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ToStop {
    pub(super) endpoint: EndpointId,
    pub(super) request: u64,
    /// Its task; none if it is the one that its endpoint waits for.
    pub(super) task: Option<WakeKey>,
}

const NONE: u32 = u32::MAX;

impl SuspendedHandlers {
    /// A handler begins.
    #[inline]
    pub(super) fn begin(&mut self, call: &Call, endpoint: EndpointId) -> FlightKey {
        let Call { origin, request, .. } = *call;
        self.handlers.insert(Handler {
            origin,
            request,
            endpoint,
            task: None,
            over: NO_DEADLINE,
            linked: false,
            before: NONE,
            after: NONE,
        })
    }

    /// It is suspended, as this task if it has one.
    #[inline]
    pub(super) fn suspend(&mut self, key: FlightKey, task: Option<WakeKey>) {
        let Some(handler) = self.handlers.get_mut(key) else { return };
        handler.task = task;
        let (origin, request) = (handler.origin, handler.request);
        // The end of a connection ends what it waits for; a one-way message waits for nothing.
        if let Some((row, slot)) = connection_of(origin)
            && request != 0
        {
            handler.linked = true;
            let head = self.head(row, slot);
            let after = std::mem::replace(head, key as u32);
            self.handlers[key].after = after;
            if let Some(next) = self.handlers.get_mut(after as usize) {
                next.before = key as u32;
            }
        }
        if self.index.is_built() && task.is_some() && request != 0 && !self.index.insert(origin, request, key as u64) {
            self.index.clear();
        }
    }

    fn head(&mut self, row: usize, slot: usize) -> &mut u32 {
        if self.heads.len() <= row {
            self.heads.resize_with(row + 1, Vec::new);
        }
        let heads = &mut self.heads[row];
        if heads.len() <= slot {
            heads.resize(slot + 1, NONE);
        }
        &mut heads[slot]
    }

    /// It is of a one-way message and suspended as a task beside others, until then at most.
    pub(super) fn limit(&mut self, key: FlightKey, over: u64) {
        if let Some(handler) = self.handlers.get_mut(key) {
            handler.over = over;
        }
    }

    /// Whether the handler that was suspended as this task, and limited so, has not ended.
    pub(super) fn is_limited(&self, key: FlightKey, task: WakeKey, over: u64) -> bool {
        self.handlers.get(key).is_some_and(|handler| handler.task == Some(task) && handler.over == over)
    }

    /// A handler has ended, or is stopped.
    #[inline]
    pub(super) fn end(&mut self, key: FlightKey) {
        self.unlink(key);
        let Some(handler) = self.handlers.try_remove(key) else { return };
        if self.index.is_built() {
            self.index.remove(handler.origin, handler.request, key as u64);
            if self.handlers.is_empty() {
                self.index.clear();
            }
        }
    }

    fn unlink(&mut self, key: FlightKey) {
        let Some(handler) = self.handlers.get_mut(key).filter(|handler| handler.linked) else { return };
        handler.linked = false;
        let (origin, before, after) = (handler.origin, handler.before, handler.after);
        match self.handlers.get_mut(before as usize) {
            Some(handler) => handler.after = after,
            None => {
                if let Some((row, slot)) = connection_of(origin) {
                    *self.head(row, slot) = after;
                }
            }
        }
        if let Some(handler) = self.handlers.get_mut(after as usize) {
            handler.before = before;
        }
    }

    /// The task of the handler of this ask: one lookup, however many are suspended and whether it is among them.
    pub(super) fn task_of(&mut self, endpoint: EndpointId, origin: Origin, request: u64) -> Option<WakeKey> {
        if self.handlers.is_empty() || request == 0 {
            return None;
        }
        if !self.index.is_built() {
            let asks = self.handlers.iter().filter(|(_, handler)| handler.task.is_some() && handler.request != 0);
            self.index.build(asks.map(|(key, handler)| (handler.origin, handler.request, key as u64)));
        }
        let key = usize::try_from(self.index.find(origin, request)?).ok()?;
        self.handlers.get(key).filter(|handler| handler.endpoint == endpoint)?.task
    }

    /// The next handler that a connection has left suspended. It is told once.
    pub(super) fn next_of(&mut self, origin: Origin) -> Option<ToStop> {
        let (row, slot) = connection_of(origin)?;
        let mut key = *self.heads.get(row)?.get(slot)? as usize;
        self.steps.add(1);
        // Beside those of an earlier connection in its slot whose end was not told.
        while let Some(handler) = self.handlers.get(key) {
            if handler.origin == origin {
                let found = ToStop { endpoint: handler.endpoint, request: handler.request, task: handler.task };
                self.unlink(key);
                return Some(found);
            }
            self.steps.add(1);
            key = handler.after as usize;
        }
        None
    }
}

/// Whose connection it is, as a row of heads, and its slot.
#[inline]
fn connection_of(origin: Origin) -> Option<(usize, usize)> {
    match origin {
        Origin::Peer(connection) => Some((0, connection.slot as usize)),
        Origin::Passed { core, connection } => Some((usize::from(core) + 1, connection.slot as usize)),
        Origin::Here | Origin::Core(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::connection_id::ConnectionId;

    fn origin(slot: u32, generation: u32) -> Origin {
        Origin::Peer(ConnectionId { slot, generation })
    }

    fn suspend(all: &mut SuspendedHandlers, origin: Origin, request: u64, task: Option<WakeKey>) -> FlightKey {
        let key =
            all.begin(&Call { origin, request, deadline: NO_DEADLINE, resolved: None, near: false }, EndpointId(9));
        all.suspend(key, task);
        key
    }

    fn rest_of(all: &mut SuspendedHandlers, origin: Origin) -> Vec<u64> {
        let mut requests: Vec<_> = std::iter::from_fn(|| all.next_of(origin)).map(|one| one.request).collect();
        requests.sort_unstable();
        requests
    }

    #[test]
    fn a_connection_leaves_its_own_handlers_and_none_that_have_ended() {
        let mut all = SuspendedHandlers::default();
        let keys: Vec<_> = (1..=5).map(|request| suspend(&mut all, origin(3, 1), request, None)).collect();
        suspend(&mut all, origin(4, 1), 6, None);
        suspend(&mut all, Origin::Passed { core: 0, connection: ConnectionId { slot: 3, generation: 1 } }, 7, None);
        suspend(&mut all, origin(3, 2), 8, None);
        suspend(&mut all, Origin::Here, 9, None);
        [keys[4], keys[0], keys[2]].into_iter().for_each(|key| all.end(key));
        assert_eq!((rest_of(&mut all, origin(3, 1)), rest_of(&mut all, origin(3, 2))), (vec![2, 4], vec![8]));
        all.end(keys[1]);
        assert_eq!((rest_of(&mut all, origin(3, 1)), rest_of(&mut all, origin(4, 1))), (vec![], vec![6]));
        assert_eq!(rest_of(&mut all, Origin::Here), []);
    }

    #[test]
    fn the_end_of_a_connection_looks_at_the_handlers_of_no_other() {
        let mut all = SuspendedHandlers::default();
        for request in 0..10_000 {
            suspend(&mut all, origin(request % 5_000, 1), u64::from(request) + 1, None);
        }
        for connection in 0..5_000 {
            assert_eq!(rest_of(&mut all, origin(connection, 1)).len(), 2);
        }
        let steps = all.steps.taken();
        assert!(steps <= 3 * 10_000, "{steps} steps");
    }

    #[test]
    fn a_cancellation_looks_at_no_other_handler() {
        let mut all = SuspendedHandlers::default();
        let task = |request: u64| Some(WakeKey::new(0, request as usize, 0));
        let keys: Vec<_> = (1..=1000).map(|request| suspend(&mut all, origin(1, 1), request, task(request))).collect();
        for unknown in 1001..=10_000 {
            assert_eq!(all.task_of(EndpointId(9), origin(1, 1), unknown), None);
        }
        assert_eq!(all.task_of(EndpointId(8), origin(1, 1), 500), None);
        assert_eq!(all.task_of(EndpointId(9), origin(1, 1), 500), task(500));
        keys.into_iter().for_each(|key| all.end(key));
        assert_eq!(all.task_of(EndpointId(9), origin(1, 1), 500), None);
        let steps = all.index.steps.taken();
        assert!(steps <= 20_000, "{steps} steps");
    }
}

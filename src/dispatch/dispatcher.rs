//! One core's shard of the dispatcher.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::call::{Call, NO_DEADLINE};
use super::deferred::Deferrals;
pub use super::direct::Called;
use super::endpoint_context::EndpointContext;
use super::erased::{AnyEndpoint, HandlerState, Payload};
use super::event::Listeners;
use super::handling::Handling;
use super::inbox::{Body, Envelope, InboxLimits, Item};
use super::notices::Faults;
use super::one_way_limit::OneWayLimit;
use super::reply_path::{ReplyPath, refuse};
use super::responder::Arrival;
use super::shared::{InFlight, OneWay};
pub use super::slot::Started;
use super::slot::{Phase, Slot};
use super::spare_parcels::SpareParcels;
use super::suspended::Suspended;
use super::trace;
use crate::executor::future_cell::FutureCell;
use crate::executor::rate_limit::RateLimits;
use crate::executor::tasks::{Executor, TooManyTasks};
use crate::net::writer::Spares;
use crate::wire::failure::{FailureCode, panicked_with};
use crate::wire::frame::EndpointId;
use crate::wire::limits::DecodeLimits;
use crate::wire::message::MessageId;

/// What happened to messages on a core; counters that only grow.
#[derive(Clone, Copy, Debug, Default)]
pub struct DispatchStats {
    /// Messages whose handler was run.
    pub handled: u64,
    /// Messages that no handler was for.
    pub unhandled: u64,
    /// Messages that could not be decoded.
    pub undecodable: u64,
    /// Handlers of one-way messages dropped since they took too long.
    pub one_way_overdue: u64,
    /// Messages refused since the inbox was full.
    pub overloaded: u64,
    /// Messages refused since their handlers would be one task too many.
    pub no_task: u64,
    /// Messages dropped since their deadline had passed.
    pub expired: u64,
    /// Messages dropped, or handlers stopped, since the asker gave up.
    pub cancelled: u64,
    /// Messages for endpoints that do not exist.
    pub unknown: u64,
    /// Events dropped since too many waited.
    pub events_lost: u64,
}

/// The endpoints of one core.
///
/// A message for an idle endpoint from a peer or another core is handled at once, where it lies; every other message waits
/// in the inbox, and the endpoint's turn comes through the executor's ready queue, in line with the tasks. No table is
/// borrowed while user code runs.
pub struct Dispatcher {
    pub(super) slots: RefCell<Vec<Option<Rc<Slot>>>>,
    ended: RefCell<VecDeque<EndpointId>>,
    pub(super) executor: Rc<Executor>,
    pub(super) limits: InboxLimits,
    pub(super) decode_limits: DecodeLimits,
    stats: Cell<DispatchStats>,
    live: Cell<usize>,
    /// The env shuts down: nothing new is taken, whether its endpoint still drains, has ended or never was.
    pub(super) stopping: Cell<bool>,
    pub(super) queued: Cell<usize>,
    /// Buffers for messages that wait as bytes; the core's own pool.
    pub(super) spares: Rc<RefCell<Spares>>,
    /// Parcels for messages that wait as values: as many as one inbox holds.
    pub(super) parcels: SpareParcels,
    /// Asks that repliers are to answer. They outlive their endpoints.
    pub(super) deferrals: Deferrals,
    pub(super) listeners: Listeners,
    pub(super) handling: Handling,
    pub(super) suspended: Suspended,
    pub(super) one_way: OneWayLimit,
    /// Messages that could not be decoded, or whose handlers panicked.
    pub faults: Faults,
    /// The rates of the core's warnings.
    pub rate_limits: RateLimits,
}

impl Dispatcher {
    /// A shard without endpoints, which defers up to `deferred` asks, and whose handlers of one-way messages end after
    /// `one_way` nanoseconds.
    pub fn new(
        executor: Rc<Executor>,
        limits: InboxLimits,
        decode_limits: DecodeLimits,
        deferred: usize,
        one_way: u64,
        spares: Rc<RefCell<Spares>>,
    ) -> Dispatcher {
        let rate_limits = RateLimits::default();
        Dispatcher {
            slots: RefCell::default(),
            ended: RefCell::default(),
            executor,
            limits,
            decode_limits,
            stats: Cell::default(),
            live: Cell::new(0),
            stopping: Cell::new(false),
            queued: Cell::new(0),
            spares,
            parcels: SpareParcels::new(limits.messages),
            deferrals: Deferrals::new(deferred),
            listeners: Listeners::default(),
            handling: Handling::default(),
            suspended: Suspended::default(),
            one_way: OneWayLimit::new(one_way, &rate_limits),
            faults: Faults::new(&rate_limits),
            rate_limits,
        }
    }

    /// The deadline of the call whose handler is being polled, or `NO_DEADLINE`.
    #[inline]
    pub fn inherited_deadline(&self) -> u64 {
        self.handling.deadline()
    }

    /// What decoding a message or a reply may cost on this core.
    #[inline]
    pub fn decode_limits(&self) -> &DecodeLimits {
        &self.decode_limits
    }

    /// The asks whose answer was left to a replier.
    pub fn deferrals(&self) -> &Deferrals {
        &self.deferrals
    }

    /// Puts an endpoint in the place that its id names and queues its `on_start`.
    pub fn insert(
        &self,
        id: EndpointId,
        name: Arc<str>,
        endpoint: Box<dyn AnyEndpoint>,
        started: Started,
    ) -> Result<(), (TooManyTasks, Started)> {
        let key = match self.executor.attach(id.slot() as u32) {
            Ok(key) => key,
            Err(error) => return Err((error, started)),
        };
        let concurrency = endpoint.concurrency();
        let in_flight = (concurrency > 1).then(|| {
            let (waker, suspended) = (self.executor.waker(key), self.suspended.clone());
            InFlight::new(concurrency, waker, suspended, self.handling.clone())
        });
        let limits = &self.rate_limits;
        let unhandled = limits.single_of("nobody handles a message", &name);
        let dropped = limits.single_of("a one-way message is dropped: the inbox is full", &name);
        let events_lost = limits.single_of("an event is lost: too many wait", &name);
        let slot = Slot {
            id,
            name,
            endpoint,
            in_flight,
            inbox: RefCell::default(),
            cell: RefCell::new(FutureCell::new()),
            phase: Cell::new(Phase::Starting),
            closing: Cell::new(false),
            current: Cell::new(None),
            suspension: Cell::new(None),
            deadline: Cell::new(NO_DEADLINE),
            overdue_at: Cell::new(NO_DEADLINE),
            watched: Cell::new(false),
            unhandled,
            dropped,
            events_lost,
            started: Cell::new(Some(started)),
            key,
        };
        let mut slots = self.slots.borrow_mut();
        if slots.len() <= id.slot() {
            slots.resize_with(id.slot() + 1, || None);
        }
        slots[id.slot()] = Some(Rc::new(slot));
        self.live.set(self.live.get() + 1);
        self.executor.wake(key);
        Ok(())
    }

    /// Endpoints that have not ended.
    pub fn live(&self) -> usize {
        self.live.get()
    }

    /// The counters.
    pub fn stats(&self) -> DispatchStats {
        let (stats, undecodable) = (self.stats.get(), self.faults.undecodable.get());
        // Each was counted when its handler was about to run.
        DispatchStats { handled: stats.handled - undecodable, undecodable, ..stats }
    }

    /// Messages that wait, in all inboxes.
    pub fn queued(&self) -> usize {
        self.queued.get()
    }

    /// Endpoints that ended since the last call: their ids can be released.
    pub fn take_ended(&self) -> Option<EndpointId> {
        self.ended.borrow_mut().pop_front()
    }

    #[inline]
    pub(super) fn find(&self, id: EndpointId) -> Option<Rc<Slot>> {
        self.slots.borrow().get(id.slot())?.as_ref().filter(|slot| slot.id == id).cloned()
    }

    #[inline]
    pub(super) fn count(&self, change: impl FnOnce(&mut DispatchStats)) {
        let mut stats = self.stats.get();
        change(&mut stats);
        self.stats.set(stats);
    }

    /// Runs the handler of one message. The endpoint is idle.
    #[inline]
    pub(super) fn handle(
        &self,
        slot: &Slot,
        call: &Call,
        message: MessageId,
        payload: Payload<'_>,
        path: &Rc<dyn ReplyPath>,
    ) {
        if self.has_expired(call, path) {
            return;
        }
        if trace::is_on() {
            slot.trace(call.origin, message, path.core());
        }
        if let Some(in_flight) = &slot.in_flight
            && slot.endpoint.shares(message, call.is_ask())
        {
            return self.share(slot, in_flight, call, message, payload, path);
        }
        let arrival = Arrival { call, endpoint: slot.id, path };
        // Its drop does nothing, and would be a call.
        let waker = ManuallyDrop::new(self.executor.waker(slot.key));
        let mut cx = Context::from_waker(&waker);
        slot.phase.set(Phase::Busy);
        slot.current.set(Some((call.origin, call.request)));
        let mut cell = slot.cell.borrow_mut();
        let _polling = self.handling.enter(call.deadline);
        match slot.endpoint.handle(message, payload, &arrival, &mut cell, &mut cx) {
            HandlerState::Ended => self.count(|stats| stats.handled += 1),
            HandlerState::Suspended => {
                self.count(|stats| stats.handled += 1);
                let mut suspended = self.suspended.borrow_mut();
                let key = suspended.begin(call, slot.id);
                suspended.suspend(key, None);
                slot.suspension.set(Some(key));
                slot.deadline.set(call.deadline);
                slot.overdue_at.set(self.overdue_at(slot, call, path));
                return;
            }
            HandlerState::Missing => self.unhandled(slot, message, call, &**path),
        }
        slot.phase.set(Phase::Idle);
        slot.current.set(None);
    }

    /// When a handler that has just been suspended is over although nobody gives it up.
    #[inline]
    fn overdue_at(&self, slot: &Slot, call: &Call, path: &Rc<dyn ReplyPath>) -> u64 {
        if call.is_ask() { NO_DEADLINE } else { self.limit_one_way(slot, path.now()) }
    }

    /// Runs the handler of a message beside others of its endpoint.
    fn share(
        &self,
        slot: &Slot,
        in_flight: &Rc<InFlight>,
        call: &Call,
        message: MessageId,
        payload: Payload<'_>,
        path: &Rc<dyn ReplyPath>,
    ) {
        if !self.executor.has_room() {
            self.count(|stats| stats.no_task += 1);
            let text = format!("the tasks of core {} (Config::tasks)", path.core());
            return refuse(call, path, FailureCode::Overloaded, &text);
        }
        self.count(|stats| stats.handled += 1);
        let arrival = Arrival { call, endpoint: slot.id, path };
        let flight = in_flight.begin(call, slot.id);
        let key = flight.key();
        if let Some(task) = slot.endpoint.share(message, payload, &arrival, flight, &self.executor) {
            self.suspended.borrow_mut().suspend(key, Some(task));
            if !call.is_ask() {
                in_flight.limit_one_way(OneWay {
                    key,
                    task,
                    origin: call.origin,
                    over: self.overdue_at(slot, call, path),
                });
            }
        }
    }

    /// An endpoint's turn: resumes what is suspended, then handles up to `budget` messages. Returns how many.
    pub fn run(&self, token: u32, budget: usize, path: &Rc<dyn ReplyPath>) -> usize {
        let slot = self.slots.borrow().get(token as usize).cloned().flatten();
        let Some(slot) = slot else { return 0 };
        let handled = self.run_slot(&slot, budget, path);
        // If it has ended this was the last share of it, and the endpoint's own drop may run any code.
        contain(|| drop(slot));
        handled
    }

    #[inline]
    fn run_slot(&self, slot: &Rc<Slot>, budget: usize, path: &Rc<dyn ReplyPath>) -> usize {
        if slot.phase.get() != Phase::Idle && !self.resume(slot, path) {
            return 0;
        }
        for handled in 0..budget {
            if slot.phase.get() != Phase::Idle {
                return handled;
            }
            if !slot.is_clear_for_next() {
                return handled;
            }
            let mut item = self.pop(slot);
            let envelope = match &mut item {
                Some(Item::Message(envelope)) => envelope,
                Some(Item::Event(_)) => {
                    let Some(Item::Event(event)) = item else { continue };
                    self.tell(slot, event);
                    continue;
                }
                Some(Item::Gap) => continue,
                None => {
                    if slot.closing.get() {
                        slot.phase.set(Phase::Stopping);
                        self.resume_stop(slot);
                    }
                    return handled;
                }
            };
            if path.is_wanted(&envelope.call) {
                self.handle(slot, &envelope.call, envelope.message, envelope.body.payload(&self.decode_limits), path);
            } else {
                self.count(|stats| stats.cancelled += 1);
            }
            if let Some(Item::Message(Envelope { body, .. })) = item {
                self.recycle(body);
            }
        }
        self.executor.wake(slot.key);
        budget
    }

    #[inline(always)]
    fn pop(&self, slot: &Slot) -> Option<Item> {
        let item = slot.inbox.borrow_mut().pop()?;
        if let Item::Message(_) = item {
            self.queued.set(self.queued.get() - 1);
        }
        Some(item)
    }

    #[inline]
    pub(super) fn recycle(&self, body: Body) {
        match body {
            Body::Value(parcel) => self.parcels.give(parcel),
            Body::Bytes(bytes) => self.spares.borrow_mut().give(bytes),
        }
    }

    /// Polls what is suspended; true if the endpoint is idle afterwards.
    fn resume(&self, slot: &Rc<Slot>, path: &Rc<dyn ReplyPath>) -> bool {
        let waker = self.executor.waker(slot.key);
        let mut cx = Context::from_waker(&waker);
        match slot.phase.get() {
            Phase::Idle => true,
            Phase::Busy => {
                let polling = self.handling.enter(slot.deadline.get());
                let ready = slot.cell.borrow_mut().poll(&mut cx).is_ready();
                drop(polling);
                if ready {
                    slot.phase.set(Phase::Idle);
                    self.end_current(slot);
                }
                ready
            }
            Phase::Starting => self.resume_start(slot, &mut cx, path),
            Phase::Stopping => {
                self.resume_stop(slot);
                false
            }
        }
    }

    /// The handler that the endpoint was suspended in has ended.
    pub(super) fn end_current(&self, slot: &Slot) {
        slot.current.set(None);
        if let Some(key) = slot.suspension.take() {
            self.suspended.borrow_mut().end(key);
        }
    }

    fn resume_start(&self, slot: &Rc<Slot>, cx: &mut Context<'_>, path: &Rc<dyn ReplyPath>) -> bool {
        let mut cell = slot.cell.borrow_mut();
        let polled = if cell.is_empty() {
            slot.endpoint.start(EndpointContext::new(slot.id, path.clone()), &mut cell, cx)
        } else {
            cell.poll(cx)
        };
        drop(cell);
        if polled.is_pending() {
            return false;
        }
        let outcome = slot.endpoint.started();
        let failed = outcome.is_err();
        if failed {
            slot.closing.set(true);
            while let Some(item) = self.pop(slot) {
                if let Item::Message(envelope) = item {
                    self.count(|stats| stats.unknown += 1);
                    refuse(&envelope.call, path, FailureCode::Stopped, "");
                }
            }
            self.remove(slot);
        } else {
            slot.phase.set(Phase::Idle);
        }
        if let Some(started) = slot.started.take() {
            started(outcome);
        }
        !failed
    }

    fn resume_stop(&self, slot: &Rc<Slot>) {
        let waker = self.executor.waker(slot.key);
        let mut cx = Context::from_waker(&waker);
        let mut cell = slot.cell.borrow_mut();
        let polled = if cell.is_empty() { slot.endpoint.stop(&mut cell, &mut cx) } else { cell.poll(&mut cx) };
        drop(cell);
        if polled == Poll::Ready(()) {
            self.remove(slot);
        }
    }

    fn remove(&self, slot: &Rc<Slot>) {
        self.executor.detach(slot.key);
        let removed = self.slots.borrow_mut()[slot.id.slot()].take();
        self.live.set(self.live.get() - 1);
        self.ended.borrow_mut().push_back(slot.id);
        // The endpoint's own drop may run any code: nothing is borrowed here.
        contain(|| drop(removed));
    }

    /// Takes no further messages for this endpoint; those that are queued are handled, then `on_stop` runs. False if
    /// it does not exist or is stopping already.
    pub fn stop(&self, id: EndpointId) -> bool {
        match self.find(id) {
            Some(slot) if !slot.closing.replace(true) => {
                self.executor.wake(slot.key);
                true
            }
            _ => false,
        }
    }

    /// Stops every endpoint for a shutdown.
    pub fn stop_all(&self) {
        self.stopping.set(true);
        let all: Vec<_> = self.slots.borrow().iter().flatten().map(|slot| slot.id).collect();
        for id in all {
            self.stop(id);
        }
    }

    /// Ends every endpoint without another message, and without `on_stop` where one of its callbacks hangs. Handlers that
    /// are in flight side by side are tasks, and end with those.
    pub fn abandon(&self) {
        let all: Vec<_> = self.slots.borrow_mut().drain(..).flatten().collect();
        for slot in all {
            contain(|| slot.cell.borrow_mut().clear());
            contain(|| drop(slot));
        }
        self.live.set(0);
        self.queued.set(0);
        self.deferrals.end_all();
    }
}

/// Drops something of the user's; its panic ends there.
pub(super) fn contain(drop: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(drop)) {
        tracing::error!(target: "ringpost::endpoint", panic = panicked_with(panic), "the drop of an endpoint, or of its handler, panicked");
    }
}

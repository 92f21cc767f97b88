//! Answers on their way back, whichever way their request came.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::lanes::LaneItem;
use super::shard::Shard;
use crate::dispatch::call::{Answer, Call, Origin, Reply, ReplyPath};
use crate::mesh::parcel::Parcel;
use crate::net::connection::{ConnectionId, Phase};
use crate::net::errors::AskError;
use crate::net::pending::{AskKey, Via};
use crate::wire::failure::FailureCode;
use crate::wire::frame::{self, Draft, EndpointId, Resolved};

impl ReplyPath for Shard {
    #[inline]
    fn answer(&self, call: &Call, answer: Answer<'_>) {
        match call.origin {
            Origin::Peer(connection) => self.answer_peer(connection, call.request, call.resolved, answer),
            Origin::Here => match answer {
                Answer::Value(reply) => {
                    if let Some(parcel) = reply.take() {
                        self.complete(AskKey(call.request), Ok(parcel));
                    }
                }
                Answer::Failure(code, text) => self.fail(AskKey(call.request), code, text),
            },
            Origin::Core(core) => {
                let answer = match answer {
                    Answer::Value(reply) => reply.take().ok_or((FailureCode::NeverReplied, "".into())),
                    Answer::Failure(code, text) => Err((code, text.into())),
                };
                self.lane_answer(core, LaneItem::Answer { request: call.request, answer });
            }
            Origin::Passed { core, connection } => {
                let frame = self.answer_frame(call, answer);
                self.lane_answer(core, LaneItem::Frame { connection, request: call.request, frame });
            }
        }
    }

    fn gone(&self, origin: Origin, endpoint: EndpointId) {
        match origin {
            Origin::Here | Origin::Core(_) => {}
            Origin::Peer(connection) => {
                let mut bytes = self.spares.borrow_mut().take();
                frame::write_gone(&mut bytes, endpoint);
                self.send_frame(connection, 0, bytes);
            }
            Origin::Passed { core, connection } => {
                let mut frame = self.spares.borrow_mut().take();
                frame::write_gone(&mut frame, endpoint);
                self.lane_answer(core, LaneItem::Frame { connection, request: 0, frame });
            }
        }
    }

    #[inline]
    fn is_wanted(&self, call: &Call) -> bool {
        match call.origin {
            _ if call.request == 0 => true,
            Origin::Here => self.pending.borrow().is_waiting(AskKey(call.request)),
            Origin::Peer(id) => self.connections.borrow_mut().get(id).is_some_and(|c| c.phase == Phase::Open),
            Origin::Core(_) | Origin::Passed { .. } => true,
        }
    }

    fn peer_address(&self, connection: ConnectionId) -> Arc<str> {
        let mut connections = self.connections.borrow_mut();
        connections.get(connection).map_or_else(|| "a closed connection".into(), |c| c.remote.clone())
    }

    #[inline]
    fn now(&self) -> u64 {
        self.clock()
    }

    #[inline]
    fn core(&self) -> u16 {
        self.core
    }
}

impl Shard {
    /// This shard as its handlers see it.
    #[inline]
    pub fn path(self: &Rc<Self>) -> Rc<dyn ReplyPath> {
        self.clone()
    }

    /// Ends an ask of this core. An ask that has ended before is left alone.
    #[inline]
    pub fn complete(&self, key: AskKey, answer: Result<Parcel, AskError>) {
        let completed = self.pending.borrow_mut().complete(key, answer);
        match completed {
            Some(completed) => {
                self.timers.borrow_mut().cancel(completed.timer);
                completed.notify.wake();
            }
            None => self.count(|counters| counters.replies_late += 1),
        }
    }

    /// Ends an ask with what its receiver said.
    pub fn fail(&self, key: AskKey, code: FailureCode, text: &str) {
        let asked = self.pending.borrow_mut().waiting(key).map(|waiting| (waiting.via, waiting.message));
        let error = asked.map(|(via, (message, version))| {
            let target = self.describe(&via);
            match code {
                FailureCode::UnknownMessage => {
                    AskError::UnknownMessage { target, message: format!("{message} v{version}: {text}").into() }
                }
                code => AskError::from_failure(code, text, target),
            }
        });
        if let Some(error) = error {
            self.complete(key, Err(error));
        }
    }

    /// The endpoint that an ask went to, for people.
    pub fn describe(&self, via: &Via) -> Arc<str> {
        match *via {
            Via::Env { id, .. } => {
                let name = self.node.directory.name(id);
                let name = name.as_deref().unwrap_or("an endpoint that has stopped");
                match self.node.advertised.get() {
                    Some(address) => format!("{name}@{address}").into(),
                    None => format!("{name} in env {}", self.node.name).into(),
                }
            }
            Via::Peer { peer, name, .. } => {
                let outboxes = self.outboxes.borrow();
                let outbox = outboxes.get(peer as usize).and_then(Option::as_ref);
                outbox.map_or_else(|| "a forgotten peer".into(), |outbox| outbox.describe(name))
            }
        }
    }

    fn answer_peer(&self, id: ConnectionId, request: u64, resolved: Option<Resolved>, answer: Answer<'_>) {
        let mut connections = self.connections.borrow_mut();
        let Some(connection) = connections.get(id).filter(|c| c.phase == Phase::Open) else {
            return self.count(|counters| counters.replies_late += 1);
        };
        let limit = connection.peer_max_frame;
        let out = connection.writer.buffer(&mut self.spares.borrow_mut());
        match answer {
            Answer::Value(reply) => write_reply(out, request, resolved, reply, limit),
            Answer::Failure(code, text) => frame::write_failure(out, request, resolved, code, text),
        }
        self.count(|counters| counters.replies_out += 1);
        self.mark_dirty(connection);
    }

    fn answer_frame(&self, call: &Call, answer: Answer<'_>) -> Vec<u8> {
        let mut out = self.spares.borrow_mut().take();
        match answer {
            // The peer's limit is known to the core that owns its connection, which checks it.
            Answer::Value(reply) => write_reply(&mut out, call.request, call.resolved, reply, u32::MAX),
            Answer::Failure(code, text) => {
                frame::write_failure(&mut out, call.request, call.resolved, code, text);
            }
        }
        out
    }

    /// The answer to a request that this core passed on.
    pub fn send_frame(&self, id: ConnectionId, request: u64, bytes: Vec<u8>) {
        let mut connections = self.connections.borrow_mut();
        let mut spares = self.spares.borrow_mut();
        match connections.get(id).filter(|c| c.phase == Phase::Open) {
            None => self.count(|counters| counters.replies_late += 1),
            Some(connection) => {
                let limit = connection.peer_max_frame;
                let out = connection.writer.buffer(&mut spares);
                if bytes.len() <= limit as usize {
                    out.extend_from_slice(&bytes);
                } else {
                    let error = frame::FrameTooLarge { length: bytes.len(), limit };
                    frame::write_failure(out, request, None, FailureCode::BadReply, &error.to_string());
                }
                self.count(|counters| counters.replies_out += u64::from(request != 0));
                self.mark_dirty(connection);
            }
        }
        spares.give(bytes);
    }

    /// Stops every ask that went where `matches` says.
    pub fn fail_all(&self, matches: impl Fn(&Via) -> bool, error: impl Fn() -> AskError) {
        let keys = self.pending.borrow().keys(matches);
        for key in keys {
            self.complete(key, Err(error()));
        }
    }

    /// The future of an ask is gone: frees its slot and tells the other side.
    pub fn abandon_ask(self: &Rc<Self>, key: AskKey) {
        let forgotten = self.pending.borrow_mut().forget(key);
        if let Some(waiting) = forgotten {
            self.timers.borrow_mut().cancel(waiting.timer);
            self.cancel(&waiting.via, key);
        }
    }

    /// Hands an ask whose future moved to another thread over to that thread.
    pub fn hand_over_ask(&self, key: AskKey, cell: Arc<crate::net::pending::AskCell>) {
        cell.key.store(key.0, Ordering::Relaxed);
        self.pending.borrow_mut().hand_over(key, cell);
    }
}

/// Writes a reply, or the failure that it turns out to be.
#[inline]
fn write_reply(out: &mut Vec<u8>, request: u64, resolved: Option<Resolved>, reply: &dyn Reply, limit: u32) {
    let mut draft = Draft::reply(out, request, resolved);
    let problem = match reply.encode(draft.payload()) {
        Ok(()) => draft.finish(limit).err().map(|error| error.to_string()),
        Err(error) => {
            drop(draft);
            Some(error.to_string())
        }
    };
    if let Some(problem) = problem {
        frame::write_failure(out, request, resolved, FailureCode::BadReply, &problem);
    }
}

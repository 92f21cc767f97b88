//! What one core has toward one peer: a connection, or the way to one, and the frames that wait for it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::connection_id::ConnectionId;
use super::peer::{IndexHold, NameClass, Peer, Standing};
use super::roster::Route;
use crate::executor::steps::Steps;
use crate::executor::timers::TimerKey;
use crate::wire::frame::{EndpointId, Frame, Resolved, Target, frame_length, set_deadline};

/// How long to wait before the next attempt to connect: doubled with each failure, between `first` and `last`.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// After the first failure.
    pub first: Duration,
    /// At most.
    pub last: Duration,
}

impl Backoff {
    /// The pause after `failures` failures in a row. `random` spreads it over the upper half of its range, so that
    /// many clients of a restarted server do not come back at once ("equal jitter").
    pub fn pause(&self, failures: u32, random: u64) -> Duration {
        let whole = self.first.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(self.last);
        let half = whole / 2;
        half + half.mul_f64(random as f64 / u64::MAX as f64)
    }
}

/// How far the way to the peer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Link {
    /// Nobody has asked for one.
    Down,
    /// The host name is being resolved.
    Resolving,
    /// A socket is about to connect, or it is connecting, or its hello is awaited.
    Dialling(Option<ConnectionId>),
    /// The last attempt failed; the next may begin when the pause is over.
    Pausing,
    /// Frames travel.
    Up(ConnectionId),
}

/// An endpoint name, and what the peer told about it last.
///
/// The peer resolves a name when the request arrives, so what it tells is as old as the request and not as its answer,
/// which may come late. Asks by name are therefore numbered in the order in which they leave: an answer counts only if
/// its ask left after the one that the present knowledge comes from.
#[derive(Debug)]
struct Name {
    name: Arc<str>,
    /// What the peer told about it; good for one connection.
    resolved: Option<Resolved>,
    /// Number of the last ask by this name.
    asked: u32,
    /// Number of the ask that the present knowledge comes from.
    told: u32,
}

impl Name {
    /// Whether the ask with this number left after the one that the present knowledge comes from.
    fn is_news(&self, number: u32) -> bool {
        // Numbers wrap around. Only asks that wait are compared, and half of all numbers are never under way at once.
        number.wrapping_sub(self.told) as i32 > 0
    }

    /// The id is stale, which no ask by name that has left so far can disprove.
    fn forget(&mut self) {
        (self.resolved, self.told) = (None, self.asked);
    }
}

/// How a request addresses its endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Addressed {
    /// What the peer told about the name; none if the request carries the name.
    pub resolved: Option<Resolved>,
    /// Number of the ask by name that this rests on: the request itself if it carries the name.
    pub number: u32,
}

impl Link {
    /// The connection that frames can be written to.
    #[inline]
    pub fn connection(self) -> Option<ConnectionId> {
        match self {
            Link::Up(id) => Some(id),
            _ => None,
        }
    }
}

/// One core's outbox toward one peer.
///
/// While the link is up, frames are encoded straight into its connection and nothing is kept here. Until then they
/// gather in `waiting`, in order, and leave with the first send once the link is up, apart from asks that have
/// ended by then.
#[derive(Debug)]
pub struct Outbox {
    /// Tells this peer from an earlier holder of its index.
    pub serial: u64,
    /// The peer's address.
    pub address: Arc<str>,
    /// The core of the peer that connections should come to.
    pub wanted_core: Option<u16>,
    /// On whose word the peer is connected to.
    pub standing: Arc<Standing>,
    /// How many connections have introduced themselves for it.
    pub introduced: u64,
    /// A peer that does not listen, for people: its name and where its socket is, as far as known.
    pub node: Option<Arc<str>>,
    /// The way to the peer.
    pub link: Link,
    /// Frames that wait for the link.
    pub waiting: Vec<u8>,
    /// The endpoint names used with this peer, by their number.
    names: Vec<Option<Name>>,
    /// Those for which the peer has told an id: the id, and the name's number. Only changes of what is known touch it.
    by_id: BTreeSet<(u64, u32)>,
    steps: Steps,
    /// Addresses of the peer that are still to be tried, the next one last.
    pub candidates: Vec<SocketAddr>,
    /// The resolver that owes an answer about the host name.
    pub resolver: Option<NameClass>,
    /// Failed attempts since the last success.
    pub failures: u32,
    /// Why the last of them failed.
    pub last_failure: Option<Arc<str>>,
    /// The timer of the current state.
    pub timer: Option<TimerKey>,
    /// The connection of another core that leads to a peer which does not listen, if this core has none. Kept as long
    /// as it is open, so that messages do not overtake each other.
    pub relay: Option<Arc<Route>>,
    /// A ref to an endpoint of this node, which does not listen, has gone to the peer: the connection is not closed
    /// when the last ref to the peer is gone, since it is the only way back.
    pub way_back: bool,
    /// The last ref to the peer is gone: close when nothing is under way, and let go of the peer's index.
    pub forgotten: Option<Arc<IndexHold>>,
}

impl Outbox {
    /// An outbox without a connection.
    pub fn new(peer: &Peer) -> Outbox {
        Outbox {
            serial: peer.serial(),
            address: peer.address().clone(),
            wanted_core: peer.wanted_core(),
            standing: peer.standing().clone(),
            introduced: 0,
            node: None,
            link: Link::Down,
            waiting: Vec::new(),
            names: Vec::new(),
            by_id: BTreeSet::new(),
            steps: Steps::new(),
            candidates: Vec::new(),
            resolver: None,
            failures: 0,
            last_failure: None,
            timer: None,
            relay: None,
            way_back: false,
            forgotten: None,
        }
    }

    /// How a request that is about to be written addresses its endpoint. `is_ask` says that it will be answered.
    #[inline]
    pub fn address(&mut self, index: u32, name: &Arc<str>, is_ask: bool) -> Addressed {
        let name = self.entry(index, name);
        if name.resolved.is_some() {
            return Addressed { resolved: name.resolved, number: name.told };
        }
        name.asked = name.asked.wrapping_add(u32::from(is_ask));
        Addressed { resolved: None, number: name.asked }
    }

    /// Enters a name, for errors.
    pub fn enter(&mut self, index: u32, name: &Arc<str>) {
        self.entry(index, name);
    }

    #[inline]
    fn entry(&mut self, index: u32, name: &Arc<str>) -> &mut Name {
        let at = index as usize;
        if self.names.len() <= at {
            self.names.resize_with(at + 1, || None);
        }
        self.names[at].get_or_insert_with(|| Name { name: name.clone(), resolved: None, asked: 0, told: 0 })
    }

    /// The answer to the ask by name with this number brought an id. Ignored if a later ask has told more.
    pub fn found(&mut self, index: u32, number: u32, resolved: Resolved) {
        if let Some(Some(name)) = self.names.get_mut(index as usize)
            && name.is_news(number)
        {
            let before = name.resolved.replace(resolved);
            name.told = number;
            if before.map(|before| before.endpoint) != Some(resolved.endpoint) {
                self.by_id.insert((resolved.endpoint.0, index));
                self.lose_id(index, before);
            }
        }
    }

    /// An ask that was [addressed](Self::address) with this number found no endpoint. Ignored if a later ask has told
    /// more.
    pub fn missed(&mut self, index: u32, number: u32) {
        let Some(Some(name)) = self.names.get_mut(index as usize) else { return };
        let before = name.resolved;
        if name.is_news(number) {
            (name.resolved, name.told) = (None, number);
        } else if number == name.told && name.resolved.is_some() {
            name.forget();
        } else {
            return;
        }
        self.lose_id(index, before);
    }

    /// The name has this id no longer, if it had one.
    fn lose_id(&mut self, index: u32, before: Option<Resolved>) {
        if let Some(before) = before {
            self.by_id.remove(&(before.endpoint.0, index));
        }
    }

    /// How the endpoint with this name number is addressed now, and its core if that is known.
    pub fn target(&self, index: u32) -> Option<(Target<'_>, Option<u16>)> {
        let name = self.names.get(index as usize)?.as_ref()?;
        Some(match name.resolved {
            Some(resolved) => (Target::Id(resolved.endpoint), resolved.core),
            None => (Target::Name(&name.name), None),
        })
    }

    /// The peer no longer has the endpoint with this id: its names are resolved again. A peer may say so at any rate, of any
    /// id: no other name is looked at.
    pub fn unresolve(&mut self, endpoint: EndpointId) {
        self.steps.add(1);
        while let Some(&(id, index)) = self.by_id.range((endpoint.0, 0)..=(endpoint.0, u32::MAX)).next() {
            self.steps.add(1);
            self.by_id.remove(&(id, index));
            if let Some(Some(name)) = self.names.get_mut(index as usize) {
                name.forget();
            }
        }
    }

    /// `name@address`, for people.
    pub fn describe(&self, index: u32) -> Arc<str> {
        match self.names.get(index as usize) {
            Some(Some(name)) => format!("{}@{}", name.name, self.describe_peer()).into(),
            _ => self.describe_peer(),
        }
    }

    /// The same of an endpoint that has not answered: with why the way to the peer is not there, if it could not be made.
    pub fn describe_unanswered(&self, index: u32) -> Arc<str> {
        let target = self.describe(index);
        match &self.last_failure {
            Some(cause) => format!("{target} (the last attempt to connect failed: {cause})").into(),
            None => target,
        }
    }

    /// The peer, for people: its address, or what is known of it if it does not listen.
    pub fn describe_peer(&self) -> Arc<str> {
        match &self.node {
            Some(node) => format!("{} ({node})", self.address).into(),
            None => self.address.clone(),
        }
    }

    /// The link is gone, or could not be made; ids from it are worthless. Returns the number of one-way messages
    /// that were waiting and are lost.
    pub fn link_lost(&mut self) -> u64 {
        self.way_back = false;
        self.names.iter_mut().flatten().for_each(Name::forget);
        self.by_id.clear();
        count_one_way(&std::mem::take(&mut self.waiting))
    }

    /// The link is up: [releases](release) the waiting frames.
    pub fn release(
        &mut self,
        out: &mut Vec<u8>,
        limit: u32,
        remaining: impl Fn(u64) -> Option<u32>,
    ) -> (Vec<u64>, u64) {
        release(&std::mem::take(&mut self.waiting), out, limit, remaining)
    }
}

/// Appends frames that had to wait to `out`, apart from frames above the peer's limit and asks that have ended.
/// `remaining` tells how many microseconds an ask has left, none if it has ended. Returns the ids of asks whose frames
/// are too large, and how many one-way messages were.
pub fn release(
    waiting: &[u8],
    out: &mut Vec<u8>,
    limit: u32,
    remaining: impl Fn(u64) -> Option<u32>,
) -> (Vec<u64>, u64) {
    let (mut refused, mut lost) = (Vec::new(), 0);
    for (frame, request) in frames(waiting) {
        let ask = request.filter(|&request| request != 0);
        let left = ask.map(&remaining);
        match (ask, left) {
            (_, Some(None)) => {}
            (Some(ask), _) if frame.len() > limit as usize => refused.push(ask),
            (None, _) if frame.len() > limit as usize => lost += 1,
            (_, left) => {
                let start = out.len();
                out.extend_from_slice(frame);
                if let Some(Some(left)) = left {
                    set_deadline(&mut out[start..], left);
                }
            }
        }
    }
    (refused, lost)
}

/// How many one-way messages are in a buffer of our own frames.
pub fn count_one_way(bytes: &[u8]) -> u64 {
    frames(bytes).filter(|(_, request)| *request == Some(0)).count() as u64
}

/// The frames in a buffer of our own, each with the request id if it is a request.
fn frames(mut bytes: &[u8]) -> impl Iterator<Item = (&[u8], Option<u64>)> {
    std::iter::from_fn(move || {
        let length = frame_length(bytes, u32::MAX).ok()??;
        let (frame, rest) = bytes.split_at_checked(length)?;
        bytes = rest;
        match Frame::parse(frame) {
            Ok(Frame::Request { head, .. }) => Some((frame, Some(head.request))),
            _ => Some((frame, None)),
        }
    })
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;

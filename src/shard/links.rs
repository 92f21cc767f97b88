//! The way to each peer: made when needed, lost, made again.

use std::sync::Arc;
use std::time::Duration;

use super::node::random;
use super::resolver::{Found, NameWaiter};
use super::shard::{Action, Shard};
use super::timeouts::Timer;
use crate::net::ask_key::AskKey;
use crate::net::asked::Via;
use crate::net::connection::{Connection, End, Role};
use crate::net::connection_id::ConnectionId;
use crate::net::errors::AskError;
use crate::net::outbox::{Link, Outbox, count_one_way, release};
use crate::net::peer::{IndexHold, NameClass, Peer};
use crate::net::ref_policy::is_inward;
use crate::net::remote::{DialTo, Remote};
use crate::wire::frame::{EndpointId, Resolved};
use crate::wire::handshake::{Hello, OutboxTag};

/// How often a forgotten outbox is looked at until nothing is under way in it.
const FORGOTTEN_CHECK: Duration = Duration::from_secs(1);

impl Shard {
    /// The outbox to a peer, made if there is none.
    #[inline]
    pub(super) fn outbox<'a>(&self, outboxes: &'a mut Vec<Option<Outbox>>, peer: &Arc<Peer>) -> &'a mut Outbox {
        let at = peer.index() as usize;
        if outboxes.len() <= at {
            outboxes.resize_with(at + 1, || None);
        }
        debug_assert!(outboxes[at].as_ref().is_none_or(|outbox| outbox.serial == peer.serial()), "the index was held");
        outboxes[at].get_or_insert_with(|| Outbox::new(peer))
    }

    /// Begins to connect, if nothing is under way and no pause is due.
    pub(super) fn dial(&self, outbox: &mut Outbox, peer: u32) {
        if outbox.link != Link::Down {
            if outbox.link == Link::Resolving {
                self.resolve(outbox, peer);
            }
            return;
        }
        if let Some(to) = DialTo::parse(&outbox.address) {
            outbox.link = Link::Dialling(None);
            return self.act(Action::Dial { peer, to });
        }
        outbox.link = Link::Resolving;
        self.arm_peer(outbox, peer, self.node.config.connect_timeout);
        self.resolve(outbox, peer);
    }

    /// Has the outbox's host name resolved. An answer that is still owed from an earlier attempt will do, unless the
    /// name was one that a peer told and is the user's own by now.
    fn resolve(&self, outbox: &mut Outbox, peer: u32) {
        let class = outbox.standing.class();
        if outbox.resolver == Some(class) {
            return;
        }
        outbox.resolver = Some(class);
        let (host, port) = outbox.address.rsplit_once(':').unwrap_or((&outbox.address, ""));
        let port = port.parse().unwrap_or(0);
        let waiter = NameWaiter { core: self.core, peer, serial: outbox.serial, port };
        if let Some(found) = self.node.resolver(class).resolve(host, waiter) {
            // Later: the asks that this may end are being entered.
            self.node.tell_found(class, waiter, found);
        }
    }

    /// A host name has been resolved, or not.
    pub(super) fn on_resolved(&self, class: NameClass, waiter: NameWaiter, found: Found) {
        let peer = waiter.peer;
        let (address, standing) = {
            let mut outboxes = self.outboxes.borrow_mut();
            let Some(Some(outbox)) = outboxes.get_mut(peer as usize) else { return };
            if outbox.serial != waiter.serial || outbox.resolver != Some(class) {
                return;
            }
            outbox.resolver = None;
            if outbox.link != Link::Resolving {
                return;
            }
            (outbox.address.clone(), outbox.standing.clone())
        };
        let mut candidates = match found {
            Found::Addresses(addresses) => addresses,
            Found::Nothing(cause) => return self.dial_failed(peer, &format!("its name cannot be resolved: {cause}")),
            Found::Full => return self.resolver_full(peer, class),
        };
        candidates.retain(|candidate| standing.may_go_inward() || !is_inward(candidate.ip()));
        if candidates.is_empty() {
            return self.name_forbidden(peer, &address);
        }
        candidates.reverse();
        let mut outboxes = self.outboxes.borrow_mut();
        if let Some(Some(outbox)) = outboxes.get_mut(peer as usize) {
            outbox.candidates = candidates;
            self.dial_next(outbox, peer);
        }
    }

    /// Too much waits for the resolver: what waited for this name ends, and the next attempt comes after a pause.
    #[cold]
    fn resolver_full(&self, peer: u32, class: NameClass) {
        self.count(|counters| counters.overloaded_resolver += 1);
        let whose = match class {
            NameClass::Own => "names",
            NameClass::Told => "names that peers have told",
        };
        let queue: Arc<str> = format!("the queue of {whose} to be resolved").into();
        let remedy = "give addresses instead of names, or raise Config::resolver_queue";
        self.give_up_dialling(peer, AskError::Overloaded { queue, remedy });
    }

    /// A name that a peer has told stands for addresses that it must not tell.
    #[cold]
    fn name_forbidden(&self, peer: u32, address: &Arc<str>) {
        let policy = self.node.ref_policy.name();
        self.note_forbidden(address, None);
        self.give_up_dialling(peer, AskError::ForbiddenAddress { address: address.clone(), policy });
    }

    /// No attempt to connect is made now: what waited for one ends with this error, and the next comes after a pause.
    fn give_up_dialling(&self, peer: u32, error: AskError) {
        if let Some(Some(outbox)) = self.outboxes.borrow_mut().get_mut(peer as usize) {
            self.pause_dialling(outbox, peer, error.to_string().into());
        }
        self.end_asks_of(peer, error);
    }

    /// Tries the next address of the peer.
    fn dial_next(&self, outbox: &mut Outbox, peer: u32) {
        if let Some(to) = outbox.candidates.pop() {
            outbox.link = Link::Dialling(None);
            self.act(Action::Dial { peer, to: DialTo::Tcp(to) });
        }
    }

    /// A socket to the peer is being connected. False if nobody wants it any more.
    pub fn on_dialling(&self, peer: u32, id: ConnectionId) -> bool {
        let mut outboxes = self.outboxes.borrow_mut();
        let Some(Some(outbox)) = outboxes.get_mut(peer as usize) else { return false };
        if outbox.link != Link::Dialling(None) {
            return false;
        }
        outbox.link = Link::Dialling(Some(id));
        // From here on the connection has a timer of its own.
        self.disarm_peer(outbox);
        if outbox.forgotten.is_some() {
            self.arm_peer(outbox, peer, FORGOTTEN_CHECK);
        }
        true
    }

    /// Adds to a hello what it says for an outbox: the core of the peer that it wants, the token for the peer's
    /// address, and which of the outbox's connections this is.
    pub(super) fn introduce(&self, hello: &mut Hello, peer: u32, remote: Remote) {
        let mut outboxes = self.outboxes.borrow_mut();
        let Some(Some(outbox)) = outboxes.get_mut(peer as usize) else { return };
        outbox.introduced += 1;
        hello.wanted_core = outbox.wanted_core;
        // One host may have several names: the address counts that they stand for.
        hello.token = Some(match remote {
            Remote::Tcp(address) => self.node.tokens.of(&address.to_string()),
            Remote::Unix => self.node.tokens.of(&outbox.address),
        });
        let id = outbox.serial << 16 | u64::from(self.core);
        hello.outbox = Some(OutboxTag { id, ordinal: outbox.introduced });
    }

    /// The address that is dialled for an outbox.
    pub(super) fn address_of(&self, peer: u32) -> Option<Arc<str>> {
        let outboxes = self.outboxes.borrow();
        outboxes.get(peer as usize)?.as_ref().map(|outbox| outbox.address.clone())
    }

    /// The peer of a ref, for people.
    #[cold]
    pub(super) fn describe_peer(&self, peer: &Peer) -> Arc<str> {
        let outboxes = self.outboxes.borrow();
        let outbox = outboxes.get(peer.index() as usize).and_then(Option::as_ref);
        let outbox = outbox.filter(|outbox| outbox.serial == peer.serial());
        outbox.map_or_else(|| peer.address().clone(), Outbox::describe_peer)
    }

    /// Arms the one timer of an outbox.
    fn arm_peer(&self, outbox: &mut Outbox, peer: u32, after: Duration) {
        self.disarm_peer(outbox);
        outbox.timer = Some(self.arm(after, Timer::Peer { peer, serial: outbox.serial as u32 }));
    }

    fn disarm_peer(&self, outbox: &mut Outbox) {
        if let Some(timer) = outbox.timer.take() {
            self.disarm(timer);
        }
    }

    /// The peer of a connection that we opened has said its hello: what waited goes out. Returns the asks whose frames
    /// are too large for the peer.
    pub(super) fn link_up(&self, peer: u32, connection: &mut Connection, hello: &Hello) -> Vec<u64> {
        let refused = {
            let mut outboxes = self.outboxes.borrow_mut();
            let Some(Some(outbox)) = outboxes.get_mut(peer as usize) else { return Vec::new() };
            if outbox.link != Link::Dialling(Some(connection.id)) {
                return Vec::new();
            }
            outbox.candidates = Vec::new();
            outbox.link = Link::Up(connection.id);
            outbox.failures = 0;
            outbox.last_failure = None;
            let out = connection.writer.buffer(&mut self.spares.borrow_mut());
            let (refused, lost) = outbox.release(out, hello.max_frame, |key| self.time_left(key));
            self.count(|counters| {
                counters.sends_lost += lost;
                counters.frames_too_large += lost + refused.len() as u64;
            });
            refused
        };
        self.count(|counters| counters.dialled += 1);
        self.mark_dirty(connection);
        refused
    }

    /// Microseconds that an ask of this core still has; none if it has ended.
    fn time_left(&self, request: u64) -> Option<u32> {
        let left = self.pending.borrow().deadline(AskKey(request))?.saturating_sub(self.clock());
        (left > 0).then(|| u32::try_from(left / 1000).unwrap_or(u32::MAX))
    }

    /// What waited behind a slow send leaves without the asks that have ended meanwhile, and tells what time the others
    /// have left.
    pub(super) fn refresh(&self, connection: &mut Connection) {
        connection.writer.rewrite(&mut self.spares.borrow_mut(), |waiting, out| {
            release(waiting, out, u32::MAX, |key| self.time_left(key));
        });
    }

    /// Ends asks whose frames are larger than the peer accepts, as its hello has told.
    pub(super) fn refuse_too_large(&self, refused: Vec<u64>, hello: &Hello) {
        for request in refused {
            let via = self.pending.borrow().waiting(AskKey(request)).map(|asked| asked.via);
            let Some(target) = via.map(|via| self.describe(&via)) else { continue };
            let reason = format!("it is above the receiver's limit of {} bytes (max_frame)", hello.max_frame).into();
            self.complete(AskKey(request), Err(AskError::Unsendable { target, reason }));
        }
    }

    /// Counts what a connection that ends has not sent and nobody misses.
    pub(super) fn count_unsent(&self, connection: &Connection) {
        let lost = count_one_way(connection.writer.queued());
        self.count(|counters| counters.sends_lost += lost);
    }

    /// The connection to a peer is gone: every ask that went there ends.
    pub(super) fn link_down(&self, peer: u32, connection: ConnectionId, cause: &str) {
        let address = {
            let mut outboxes = self.outboxes.borrow_mut();
            let Some(Some(outbox)) = outboxes.get_mut(peer as usize) else { return };
            if outbox.link == Link::Dialling(Some(connection)) {
                drop(outboxes);
                return self.dial_failed(peer, cause);
            }
            if outbox.link != Link::Up(connection) {
                return;
            }
            outbox.link = Link::Down;
            let lost = outbox.link_lost();
            self.count(|counters| counters.sends_lost += lost);
            outbox.describe_peer()
        };
        tracing::info!(target: "ringpost::connection", peer = %address, cause, "a connection ended");
        self.end_asks_of(peer, AskError::Disconnected { peer: address, cause: cause.into() });
    }

    /// No connection could be made: what waited for it ends, and the next attempt comes after a pause.
    pub fn dial_failed(&self, peer: u32, cause: &str) {
        let cause: Arc<str> = cause.into();
        let address = {
            let mut outboxes = self.outboxes.borrow_mut();
            let Some(Some(outbox)) = outboxes.get_mut(peer as usize) else { return };
            if !outbox.candidates.is_empty() {
                return self.dial_next(outbox, peer);
            }
            self.count(|counters| counters.dial_failures += 1);
            self.pause_dialling(outbox, peer, cause.clone())
        };
        tracing::info!(target: "ringpost::connection", peer = %address, cause = &*cause, "cannot connect");
        self.end_asks_of(peer, AskError::Unreachable { peer: address, cause });
    }

    /// This core has its full number of connections: what waited for another one ends, and the next attempt comes after
    /// a pause.
    pub fn dial_refused(&self, peer: u32) {
        let queue: Arc<str> = format!("the table of connections of core {}", self.core).into();
        let remedy = "drop all refs to peers that are not needed, or raise Config::connections";
        let error = AskError::Overloaded { queue, remedy };
        let address = {
            let mut outboxes = self.outboxes.borrow_mut();
            let Some(Some(outbox)) = outboxes.get_mut(peer as usize) else { return };
            outbox.candidates.clear();
            self.count(|counters| counters.connections_refused += 1);
            self.pause_dialling(outbox, peer, error.to_string().into())
        };
        if let Some(untold) = self.warnings.connections_full.allow(self.clock()) {
            tracing::warn!(
                target: "ringpost::connection", peer = %address,
                core = self.core,
                untold,
                "too many connections to open another: raise Config::connections"
            );
        }
        self.end_asks_of(peer, error);
    }

    /// No connection for now: what waited for it is lost. Returns the peer's address.
    fn pause_dialling(&self, outbox: &mut Outbox, peer: u32, cause: Arc<str>) -> Arc<str> {
        outbox.link = Link::Pausing;
        outbox.last_failure = Some(cause);
        outbox.failures = outbox.failures.saturating_add(1);
        let lost = outbox.link_lost();
        self.count(|counters| counters.sends_lost += lost);
        let pause = self.node.config.backoff().pause(outbox.failures, random());
        self.arm_peer(outbox, peer, pause);
        outbox.address.clone()
    }

    /// A timer of the outbox has fired: the name took too long to resolve, the pause after a failure is over, or a
    /// forgotten outbox is looked at.
    pub(super) fn on_peer_timer(&self, peer: u32, serial: u32) {
        let mut outboxes = self.outboxes.borrow_mut();
        let Some(slot) = outboxes.get_mut(peer as usize) else { return };
        let Some(outbox) = slot.as_mut().filter(|outbox| outbox.serial as u32 == serial) else { return };
        outbox.timer = None;
        match outbox.link {
            Link::Resolving => {
                drop(outboxes);
                return self.dial_failed(peer, "its name could not be resolved in time (Config::connect_timeout)");
            }
            Link::Pausing => {
                outbox.link = Link::Down;
                if !outbox.waiting.is_empty() {
                    self.dial(outbox, peer);
                }
            }
            _ => {}
        }
        drop(outboxes);
        self.check_forgotten(peer);
    }

    /// Drops an outbox that nobody refers to once nothing is under way in it; looks again later otherwise.
    fn check_forgotten(&self, peer: u32) {
        let mut outboxes = self.outboxes.borrow_mut();
        let Some(slot) = outboxes.get_mut(peer as usize) else { return };
        let Some(outbox) = slot.as_mut().filter(|outbox| outbox.forgotten.is_some()) else { return };
        let unsent = outbox
            .link
            .connection()
            .and_then(|id| self.connections.borrow_mut().get(id).map(|connection| connection.writer.backlog()));
        let idle = outbox.waiting.is_empty() && unsent.unwrap_or(0) == 0 && !outbox.way_back;
        if idle && !self.pending.borrow_mut().refer_to(peer) {
            let outbox = slot.take();
            drop(outboxes);
            if let Some(outbox) = outbox {
                self.discard(peer, outbox);
            }
        } else if outbox.timer.is_none() {
            self.arm_peer(outbox, peer, FORGOTTEN_CHECK);
        }
    }

    /// The last ref to a peer is gone: its connection closes once nothing is under way.
    pub fn forget_peer(&self, hold: &Arc<IndexHold>, serial: u64) {
        let peer = hold.index();
        match self.outboxes.borrow_mut().get_mut(peer as usize) {
            Some(Some(outbox)) if outbox.serial == serial => outbox.forgotten = Some(hold.clone()),
            _ => return,
        }
        self.check_forgotten(peer);
    }

    /// Drops an outbox in which nothing is under way, with its connection.
    fn discard(&self, peer: u32, mut outbox: Outbox) {
        self.disarm_peer(&mut outbox);
        let (Link::Up(id) | Link::Dialling(Some(id))) = outbox.link else { return };
        let accepted = match self.connections.borrow_mut().get(id) {
            Some(connection) if connection.role == Role::Accepted => {
                connection.serves.retain(|served| *served != peer);
                true
            }
            _ => false,
        };
        // A connection that the peer has opened is the peer's to close.
        if !accepted {
            self.close(id, "nobody refers to the peer any more", End::Wanted);
        }
    }

    /// A ref to an endpoint of this node, which does not listen, leaves over a connection with this role.
    #[cold]
    pub(super) fn keep_way_back(&self, role: Role) {
        if let Role::Dialled { peer } = role
            && let Some(Some(outbox)) = self.outboxes.borrow_mut().get_mut(peer as usize)
        {
            outbox.way_back = true;
        }
    }

    /// Keeps what a peer told about a name.
    #[inline]
    pub(super) fn note_resolved(&self, via: &Via, resolved: Option<Resolved>) {
        if let (Via::Peer { peer, name, number, .. }, Some(resolved)) = (via, resolved)
            && let Some(Some(outbox)) = self.outboxes.borrow_mut().get_mut(*peer as usize)
        {
            outbox.found(*name, *number, resolved);
        }
    }

    /// A one-way message went to an endpoint that the peer no longer has: the next one uses the name.
    pub(super) fn on_gone(&self, id: ConnectionId, endpoint: EndpointId) {
        let mut connections = self.connections.borrow_mut();
        let Some(connection) = connections.get(id) else { return };
        let mut outboxes = self.outboxes.borrow_mut();
        for peer in &connection.serves {
            if let Some(Some(outbox)) = outboxes.get_mut(*peer as usize) {
                outbox.unresolve(endpoint);
            }
        }
    }

    /// The peer no longer knows the id that it told: the next ask uses the name.
    pub(super) fn forget_resolved(&self, via: &Via) {
        if let Via::Peer { peer, name, number, .. } = via
            && let Some(Some(outbox)) = self.outboxes.borrow_mut().get_mut(*peer as usize)
        {
            outbox.missed(*name, *number);
        }
    }
}

//! The way to each peer: made when needed, lost, made again.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use super::node::{Injected, Node, random};
use super::shard::{Action, Shard};
use super::timeouts::Timer;
use crate::net::connection::{Connection, ConnectionId};
use crate::net::errors::AskError;
use crate::net::outbox::{Link, Outbox, count_one_way};
use crate::net::peer::Peer;
use crate::net::pending::{AskKey, Via};
use crate::wire::frame::Resolved;
use crate::wire::handshake::Hello;

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
        if outboxes[at].as_ref().is_some_and(|outbox| outbox.serial != peer.serial()) {
            self.discard(at as u32, &mut outboxes[at]);
        }
        outboxes[at].get_or_insert_with(|| Outbox::new(peer.serial(), peer.address().clone()))
    }

    /// Begins to connect, if nothing is under way and no pause is due.
    pub(super) fn dial(&self, outbox: &mut Outbox, peer: u32) {
        if outbox.link != Link::Down {
            return;
        }
        outbox.link = Link::Dialling(None);
        let connect = self.node.config.connect_timeout;
        self.arm(connect, Timer::Peer { peer, serial: outbox.serial as u32 });
        match outbox.address.parse::<SocketAddr>() {
            Ok(to) => self.act(Action::Dial { peer, to }),
            Err(_) => resolve_elsewhere(&self.node, self.core, peer, outbox.serial, outbox.address.clone()),
        }
    }

    /// A host name has been resolved, or not.
    fn on_resolved(&self, peer: u32, serial: u64, result: io::Result<SocketAddr>) {
        let mut outboxes = self.outboxes.borrow_mut();
        let Some(Some(outbox)) = outboxes.get_mut(peer as usize) else { return };
        if outbox.serial != serial || outbox.link != Link::Dialling(None) {
            return;
        }
        drop(outboxes);
        match result {
            Ok(to) => self.act(Action::Dial { peer, to }),
            Err(error) => self.dial_failed(peer, &format!("its name cannot be resolved: {error}")),
        }
    }

    /// A socket to the peer is being connected.
    pub fn on_dialling(&self, peer: u32, id: ConnectionId) {
        if let Some(Some(outbox)) = self.outboxes.borrow_mut().get_mut(peer as usize) {
            outbox.link = Link::Dialling(Some(id));
        }
    }

    /// The peer of a connection that we opened has said its hello: what waited goes out.
    pub(super) fn link_up(&self, peer: u32, connection: &mut Connection, hello: &Hello) {
        let refused = {
            let mut outboxes = self.outboxes.borrow_mut();
            let Some(Some(outbox)) = outboxes.get_mut(peer as usize) else { return };
            outbox.link = Link::Up(connection.id);
            outbox.failures = 0;
            let pending = self.pending.borrow();
            let out = connection.writer.buffer(&mut self.spares.borrow_mut());
            let (refused, lost) = outbox.release(out, hello.max_frame, |key| pending.is_waiting(AskKey(key)));
            self.count(|counters| counters.sends_lost += lost);
            refused
        };
        self.count(|counters| counters.dialled += 1);
        self.mark_dirty(connection);
        for request in refused {
            let target = connection.remote.clone();
            let reason = format!("it is above the receiver's limit of {} bytes (max_frame)", hello.max_frame).into();
            self.complete(AskKey(request), Err(AskError::Unsendable { target, reason }));
        }
    }

    /// The connection to a peer is gone: every ask that went there ends.
    pub(super) fn link_down(&self, peer: u32, connection: &Connection, cause: &str) {
        let unsent = count_one_way(connection.writer.queued());
        let address = {
            let mut outboxes = self.outboxes.borrow_mut();
            let Some(Some(outbox)) = outboxes.get_mut(peer as usize) else { return };
            if outbox.link == Link::Dialling(Some(connection.id)) {
                drop(outboxes);
                return self.dial_failed(peer, cause);
            }
            if outbox.link != Link::Up(connection.id) {
                return;
            }
            outbox.link = Link::Down;
            let lost = outbox.link_lost() + unsent;
            self.count(|counters| counters.sends_lost += lost);
            outbox.address.clone()
        };
        tracing::info!(peer = %address, cause, "a connection ended");
        let cause: Arc<str> = cause.into();
        let gone = || AskError::Disconnected { peer: address.clone(), cause: cause.clone() };
        self.fail_all(|via| went_to(via, peer), gone);
    }

    /// No connection could be made: what waited for it ends, and the next attempt comes after a pause.
    pub fn dial_failed(&self, peer: u32, cause: &str) {
        let address = {
            let mut outboxes = self.outboxes.borrow_mut();
            let Some(Some(outbox)) = outboxes.get_mut(peer as usize) else { return };
            outbox.link = Link::Pausing;
            outbox.failures = outbox.failures.saturating_add(1);
            let lost = outbox.link_lost();
            self.count(|counters| {
                counters.dial_failures += 1;
                counters.sends_lost += lost;
            });
            let pause = self.node.config.backoff().pause(outbox.failures, random());
            self.arm(pause, Timer::Peer { peer, serial: outbox.serial as u32 });
            outbox.address.clone()
        };
        tracing::info!(peer = %address, cause, "cannot connect");
        let cause: Arc<str> = cause.into();
        let unreachable = || AskError::Unreachable { peer: address.clone(), cause: cause.clone() };
        self.fail_all(|via| went_to(via, peer), unreachable);
    }

    /// A timer of the outbox has fired: the name took too long to resolve, the pause after a failure is over, or a
    /// forgotten outbox is looked at.
    pub(super) fn on_peer_timer(&self, peer: u32, serial: u32) {
        let mut outboxes = self.outboxes.borrow_mut();
        let Some(slot) = outboxes.get_mut(peer as usize) else { return };
        let Some(outbox) = slot.as_mut().filter(|outbox| outbox.serial as u32 == serial) else { return };
        match outbox.link {
            Link::Dialling(None) => {
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
        if outbox.forgotten {
            if outbox.waiting.is_empty() && self.pending.borrow().keys(|via| went_to(via, peer)).is_empty() {
                self.discard(peer, slot);
            } else {
                self.arm(FORGOTTEN_CHECK, Timer::Peer { peer, serial });
            }
        }
    }

    /// The last ref to a peer is gone: its connection closes once nothing is under way.
    pub fn forget_peer(&self, peer: u32, serial: u64) {
        let known = match self.outboxes.borrow_mut().get_mut(peer as usize) {
            Some(Some(outbox)) if outbox.serial == serial => {
                outbox.forgotten = true;
                true
            }
            _ => false,
        };
        if known {
            self.on_peer_timer(peer, serial as u32);
        }
    }

    /// Drops an outbox that nobody needs, with its connection.
    fn discard(&self, peer: u32, slot: &mut Option<Outbox>) {
        let Some(mut outbox) = slot.take() else { return };
        let lost = outbox.link_lost();
        self.count(|counters| counters.sends_lost += lost);
        if let Link::Up(id) | Link::Dialling(Some(id)) = outbox.link {
            self.act(Action::Close(id));
        }
        let address = outbox.address;
        let cause: Arc<str> = "nobody refers to it any more".into();
        let gone = || AskError::Disconnected { peer: address.clone(), cause: cause.clone() };
        self.fail_all(|via| went_to(via, peer), gone);
    }

    /// Keeps what a peer told about a name.
    #[inline]
    pub(super) fn note_resolved(&self, via: &Via, resolved: Option<Resolved>) {
        if let (Via::Peer { peer, name, .. }, Some(_)) = (via, resolved)
            && let Some(Some(outbox)) = self.outboxes.borrow_mut().get_mut(*peer as usize)
        {
            outbox.resolve(*name, resolved);
        }
    }

    /// The peer no longer knows the id that it told: the next ask uses the name.
    pub(super) fn forget_resolved(&self, via: &Via) {
        if let Via::Peer { peer, name, .. } = via
            && let Some(Some(outbox)) = self.outboxes.borrow_mut().get_mut(*peer as usize)
        {
            outbox.resolve(*name, None);
        }
    }
}

fn went_to(via: &Via, index: u32) -> bool {
    matches!(via, Via::Peer { peer, .. } if *peer == index)
}

/// Resolves a host name on a thread of its own, since the system's resolver blocks. There is at most one such thread
/// for each peer of a core that is being dialled; the first address is used.
fn resolve_elsewhere(node: &Arc<Node>, core: u16, peer: u32, serial: u64, address: Arc<str>) {
    let resolver = node.clone();
    let tell = move |node: &Node, result| {
        let job = Box::new(move |shard: &std::rc::Rc<Shard>| shard.on_resolved(peer, serial, result));
        node.cores[usize::from(core)].inject_always(Injected::Job(job));
    };
    let thread = std::thread::Builder::new().name("ringpost-resolver".into()).spawn(move || {
        let none = || io::Error::new(io::ErrorKind::NotFound, "it has no address");
        let result = address.to_socket_addrs().and_then(|mut all| all.next().ok_or_else(none));
        tell(&resolver, result);
    });
    if let Err(error) = thread {
        tell(node, Err(error));
    }
}

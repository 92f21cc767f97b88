//! Nodes that have left and whose identities are kept.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::remote::{Remote, is_near};

/// Identities that one address may fill in any case.
const SMALL_SHARE: usize = 64;

/// How many nodes that have left are remembered, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Their number; a sixteenth of it, or 64 if that is more, at one address.
    pub nodes: usize,
    /// How long.
    pub time: Duration,
}

impl Memory {
    fn share(&self) -> usize {
        self.nodes.min((self.nodes / 16).max(SMALL_SHARE))
    }
}

/// The nodes that have left and are remembered, by their incarnations.
///
/// A stranger may come and go under any number of incarnations, but not from any number of addresses: each address has
/// a share of the memory.
#[derive(Debug)]
pub(super) struct Absent {
    memory: Memory,
    by_time: BTreeSet<(u64, u64)>,
    shares: HashMap<IpAddr, usize>,
}

impl Absent {
    pub(super) fn new(memory: Memory) -> Absent {
        Absent { memory, by_time: BTreeSet::new(), shares: HashMap::new() }
    }

    /// Remembers a node that has left at the time `left`. False if too many are remembered already.
    pub(super) fn insert(&mut self, left: u64, incarnation: u64, remote: Remote) -> bool {
        let place = place(remote);
        let taken = self.shares.get(&place).copied().unwrap_or(0);
        if self.by_time.len() >= self.memory.nodes || taken >= self.memory.share() {
            return false;
        }
        self.shares.insert(place, taken + 1);
        self.by_time.insert((left, incarnation));
        true
    }

    /// Remembers a node no longer, which was inserted like this, if it was.
    pub(super) fn remove(&mut self, left: u64, incarnation: u64, remote: Remote) {
        if !self.by_time.remove(&(left, incarnation)) {
            return;
        }
        let place = place(remote);
        match self.shares.get_mut(&place) {
            Some(taken) if *taken > 1 => *taken -= 1,
            _ => drop(self.shares.remove(&place)),
        }
    }

    /// The incarnation of a node that has left too long ago, and when.
    pub(super) fn expired(&self, now: u64) -> Option<(u64, u64)> {
        let time = u64::try_from(self.memory.time.as_nanos()).unwrap_or(u64::MAX);
        self.by_time.first().copied().filter(|(left, _)| left.saturating_add(time) <= now)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_time.len()
    }
}

/// What is one address: this machine, and of IPv6 a whole network, since a machine has as many addresses there as it
/// likes.
pub(super) fn place(remote: Remote) -> IpAddr {
    match remote {
        Remote::Tcp(address) if !is_near(remote) => match address.ip().to_canonical() {
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
            v4 => v4,
        },
        _ => Ipv4Addr::LOCALHOST.into(),
    }
}

//! Which asks wait for the same peer.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use slab::Slab;

use super::asked::Via;
use crate::executor::steps::Steps;

/// Asks that waited for the same peer and end together, though not all at once.
#[derive(Debug)]
#[must_use]
pub struct Batch(u32);

/// The asks of a table that wait for a peer, by their places: a ring for each peer and each batch.
///
/// An ask that ends stays in its ring, so that the next ask in its place, which mostly has the same peer, costs nothing
/// but a comparison. So a ring has places of asks that have ended; whoever walks along it leaves them out, each once
/// for an ask that was made.
#[derive(Debug)]
pub(super) struct AsksByPeer {
    rings: Rings,
    /// The peer of each batch.
    batches: Slab<u32>,
    /// How many batches a peer has, if it has any.
    batches_of: HashMap<u32, usize>,
    pub(super) steps: Steps,
}

/// What comes next in a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next<T> {
    /// An ask that still waits.
    Ask(T),
    /// Asks that have ended were left out, and more may come.
    Later,
    /// Nothing.
    Nothing,
}

/// Places that are left out in one step along a batch, at most.
const LEFT_OUT: usize = 64;

/// The ring of the asks that wait for the answer of a peer.
const fn ring_of(peer: u32) -> u32 {
    peer * 4
}

/// The ring of the asks that another core has sent to a peer.
const fn relayed_ring_of(peer: u32) -> u32 {
    peer * 4 + 1
}

/// The ring of a batch.
const fn ring_of_batch(batch: u32) -> u32 {
    batch * 4 + 2
}

impl AsksByPeer {
    pub(super) fn new() -> AsksByPeer {
        let (batches, batches_of) = (Slab::new(), HashMap::new());
        AsksByPeer { rings: Rings::default(), batches, batches_of, steps: Steps::new() }
    }

    /// An ask waits that went this way.
    #[inline]
    pub(super) fn insert(&mut self, place: usize, via: &Via) {
        let ring = match *via {
            Via::Peer { peer, .. } => ring_of(peer),
            Via::Relayed { peer, .. } => relayed_ring_of(peer),
            Via::Env { .. } => return,
        };
        if !self.rings.has(place, ring) {
            self.rings.relink(place, ring);
        }
    }

    /// As [`Pending::detach`](super::pending::Pending::detach).
    pub(super) fn detach(&mut self, peer: u32) -> Option<Batch> {
        self.rings.first(ring_of(peer))?;
        let batch = self.batches.insert(peer) as u32;
        *self.batches_of.entry(peer).or_default() += 1;
        self.rings.rename(ring_of(peer), ring_of_batch(batch));
        Some(Batch(batch))
    }

    /// Takes the next ask that waits out of a batch, and tells its place. `waits_for` tells whether the ask in a place
    /// waits for this peer.
    pub(super) fn next_of(&mut self, batch: &Batch, waits_for: impl Fn(usize, u32) -> bool) -> Next<usize> {
        let Some(&peer) = self.batches.get(batch.0 as usize) else { return Next::Nothing };
        for _ in 0..LEFT_OUT {
            self.steps.add(1);
            let Some(place) = self.rings.first(ring_of_batch(batch.0)) else { return Next::Nothing };
            self.rings.unlink(place);
            if waits_for(place, peer) {
                return Next::Ask(place);
            }
        }
        Next::Later
    }

    /// A batch has been ended.
    pub(super) fn end_batch(&mut self, batch: Batch) {
        debug_assert!(self.rings.first(ring_of_batch(batch.0)).is_none(), "all of it has ended");
        if let Some(peer) = self.batches.try_remove(batch.0 as usize)
            && let Entry::Occupied(mut batches) = self.batches_of.entry(peer)
        {
            *batches.get_mut() -= 1;
            if *batches.get() == 0 {
                batches.remove();
            }
        }
    }

    /// Whether asks refer to this peer: they wait for it, or for a core that has sent them to it, or are being ended.
    /// `refers_to` tells whether the ask in a place waits so.
    pub(super) fn refer_to(&mut self, peer: u32, refers_to: impl Fn(usize, u32) -> bool) -> bool {
        self.steps.add(1);
        for ring in [ring_of(peer), relayed_ring_of(peer)] {
            while let Some(place) = self.rings.first(ring) {
                if refers_to(place, peer) {
                    return true;
                }
                self.steps.add(1);
                self.rings.unlink(place);
            }
        }
        self.batches_of.contains_key(&peer)
    }
}

/// The neighbours of a node: an ask, or the head of a ring.
#[derive(Clone, Copy, Debug)]
struct Links {
    before: u32,
    after: u32,
    /// That of its ring, which no other ring has had; 0 in none.
    label: u64,
}

/// Rings of asks, doubly linked by their places in the table of asks: an ask is linked and unlinked by a few stores,
/// and a ring is found, emptied or renamed at a cost that does not grow with all other asks.
///
/// Asks are the even nodes and heads the odd ones, so that no step has to tell them apart. A node in no ring is linked
/// to itself: to unlink it changes nothing.
#[derive(Debug, Default)]
struct Rings {
    nodes: Vec<Links>,
    labels: u64,
}

impl Rings {
    /// Whether the ask in this place is in this ring.
    #[inline]
    fn has(&self, place: usize, ring: u32) -> bool {
        match (self.nodes.get(place * 2), self.nodes.get(head(ring))) {
            (Some(node), Some(head)) => node.label == head.label && node.label != 0,
            _ => false,
        }
    }

    /// Moves the ask in this place to the end of a ring.
    #[cold]
    fn relink(&mut self, place: usize, ring: u32) {
        let (node, head) = (place * 2, head(ring));
        self.make(node.max(head));
        self.unlink(place);
        if self.nodes[head].label == 0 {
            self.labels += 1;
            self.nodes[head].label = self.labels;
        }
        let Links { before: last, label, .. } = self.nodes[head];
        self.nodes[node] = Links { before: last, after: head as u32, label };
        self.nodes[last as usize].after = node as u32;
        self.nodes[head].before = node as u32;
    }

    /// Takes the ask in this place out of its ring, if it is in one.
    fn unlink(&mut self, place: usize) {
        let node = place * 2;
        let Some(&Links { before, after, .. }) = self.nodes.get(node) else { return };
        self.nodes[before as usize].after = after;
        self.nodes[after as usize].before = before;
        self.nodes[node] = alone(node);
    }

    /// The place of the ask that has been in a ring longest.
    fn first(&self, ring: u32) -> Option<usize> {
        let head = head(ring);
        let first = self.nodes.get(head)?.after as usize;
        (first != head).then_some(first / 2)
    }

    /// Moves all asks of a ring to another one, which is empty. What comes into the ring later is told apart.
    fn rename(&mut self, from: u32, to: u32) {
        let (from, to) = (head(from), head(to));
        self.make(from.max(to));
        let Links { before, after, label } = self.nodes[from];
        if after as usize == from {
            return;
        }
        self.nodes[to] = Links { before, after, label };
        self.nodes[before as usize].after = to as u32;
        self.nodes[after as usize].before = to as u32;
        self.nodes[from] = alone(from);
    }

    fn make(&mut self, node: usize) {
        self.nodes.extend((self.nodes.len()..=node).map(alone));
    }
}

#[inline]
fn head(ring: u32) -> usize {
    ring as usize * 2 + 1
}

#[inline]
fn alone(node: usize) -> Links {
    Links { before: node as u32, after: node as u32, label: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(rings: &mut Rings, ring: u32) -> Vec<usize> {
        let first = || rings.first(ring).inspect(|&place| rings.unlink(place));
        std::iter::from_fn(first).collect()
    }

    #[test]
    fn asks_leave_their_ring_in_order_from_the_front_or_the_middle() {
        let mut rings = Rings::default();
        for (place, ring) in [(3, 0), (0, 1), (1, 0), (2, 0), (5, 1)] {
            rings.relink(place, ring);
        }
        rings.unlink(1);
        rings.unlink(1);
        rings.unlink(99);
        assert_eq!((places(&mut rings, 0), places(&mut rings, 1)), (vec![3, 2], vec![0, 5]));
        assert_eq!((rings.first(0), rings.first(77)), (None, None));
    }

    #[test]
    fn a_ring_that_is_renamed_takes_its_asks_along_and_the_old_name_is_free() {
        let mut rings = Rings::default();
        rings.relink(0, 4);
        rings.relink(1, 4);
        assert!(rings.has(1, 4) && !rings.has(1, 9) && !rings.has(2, 4) && !rings.has(77, 88));
        rings.rename(4, 9);
        assert!(!rings.has(1, 4), "the next ask in its place is not in the ring that was renamed");
        rings.relink(2, 4);
        assert!(rings.has(2, 4));
        rings.unlink(0);
        rings.rename(8, 7);
        assert_eq!((places(&mut rings, 9), places(&mut rings, 4), rings.first(7)), (vec![1], vec![2], None));
    }
}

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
#[derive(Debug)]
pub(super) struct AsksByPeer {
    rings: Rings,
    /// The peer of each batch.
    batches: Slab<u32>,
    /// How many batches a peer has, if it has any.
    batches_of: HashMap<u32, usize>,
    pub(super) steps: Steps,
}

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
        AsksByPeer { rings: Rings { nodes: Vec::new() }, batches, batches_of, steps: Steps::new() }
    }

    /// An ask waits that went this way.
    #[inline]
    pub(super) fn insert(&mut self, place: usize, via: &Via) {
        match *via {
            Via::Peer { peer, .. } => self.rings.link(place, ring_of(peer)),
            Via::Relayed { peer, .. } => self.rings.link(place, relayed_ring_of(peer)),
            Via::Env { .. } => {}
        }
    }

    /// It waits no longer.
    #[inline]
    pub(super) fn remove(&mut self, place: usize, via: &Via) {
        if !matches!(via, Via::Env { .. }) {
            self.rings.unlink(place);
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

    /// Takes the ask that has been in a batch longest out of it, and tells its place.
    pub(super) fn next_of(&mut self, batch: &Batch) -> Option<usize> {
        self.steps.add(1);
        self.rings.first(ring_of_batch(batch.0)).inspect(|&place| self.rings.unlink(place))
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
    pub(super) fn refer_to(&self, peer: u32) -> bool {
        self.steps.add(1);
        let mut rings = [ring_of(peer), relayed_ring_of(peer)].into_iter();
        rings.any(|ring| self.rings.first(ring).is_some()) || self.batches_of.contains_key(&peer)
    }
}

/// The neighbours of a node: an ask, or the head of a ring.
#[derive(Clone, Copy, Debug)]
struct Links {
    before: u32,
    after: u32,
}

/// Rings of asks, doubly linked by their places in the table of asks: an ask is linked and unlinked by a few stores, and a
/// ring is found, emptied or joined to another one at a cost that does not grow with all other asks.
///
/// Asks are the even nodes and heads the odd ones, so that no step has to tell them apart. A node in no ring is linked to
/// itself: to unlink it changes nothing.
#[derive(Debug)]
struct Rings {
    nodes: Vec<Links>,
}

impl Rings {
    /// Puts the ask in this place at the end of a ring. It is in none.
    #[inline]
    fn link(&mut self, place: usize, ring: u32) {
        let (node, head) = (place * 2, head(ring));
        if node.max(head) >= self.nodes.len() {
            self.grow(node.max(head));
        }
        let last = self.nodes[head].before;
        self.nodes[node] = Links { before: last, after: head as u32 };
        self.nodes[last as usize].after = node as u32;
        self.nodes[head].before = node as u32;
    }

    /// Takes the ask in this place out of its ring, if it is in one.
    #[inline]
    fn unlink(&mut self, place: usize) {
        let node = place * 2;
        let Some(&Links { before, after }) = self.nodes.get(node) else { return };
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

    /// Moves all asks of a ring to another one, which is empty.
    fn rename(&mut self, from: u32, to: u32) {
        let (from, to) = (head(from), head(to));
        if from.max(to) >= self.nodes.len() {
            self.grow(from.max(to));
        }
        let Links { before, after } = self.nodes[from];
        if after as usize == from {
            return;
        }
        self.nodes[to] = Links { before, after };
        self.nodes[before as usize].after = to as u32;
        self.nodes[after as usize].before = to as u32;
        self.nodes[from] = alone(from);
    }

    #[cold]
    fn grow(&mut self, to: usize) {
        self.nodes.extend((self.nodes.len()..=to).map(alone));
    }
}

#[inline]
fn head(ring: u32) -> usize {
    ring as usize * 2 + 1
}

#[inline]
fn alone(node: usize) -> Links {
    Links { before: node as u32, after: node as u32 }
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
        let mut rings = Rings { nodes: Vec::new() };
        for (place, ring) in [(3, 0), (0, 1), (1, 0), (2, 0), (5, 1)] {
            rings.link(place, ring);
        }
        rings.unlink(1);
        rings.unlink(1);
        rings.unlink(99);
        assert_eq!((places(&mut rings, 0), places(&mut rings, 1)), (vec![3, 2], vec![0, 5]));
        assert_eq!((rings.first(0), rings.first(77)), (None, None));
    }

    #[test]
    fn a_ring_that_is_renamed_takes_its_asks_along_and_the_old_name_is_free() {
        let mut rings = Rings { nodes: Vec::new() };
        rings.link(0, 4);
        rings.link(1, 4);
        rings.rename(4, 9);
        rings.link(2, 4);
        rings.unlink(0);
        rings.rename(8, 7);
        assert_eq!((places(&mut rings, 9), places(&mut rings, 4), rings.first(7)), (vec![1], vec![2], None));
    }
}

//! Which names an env has, and where they live.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::ring::random;
use crate::wire::frame::{EndpointId, MAX_NAME, Resolved};

/// Endpoints that may have the same slot, one after the other.
const MAX_GENERATIONS: u32 = 1 << 12;
/// Two salts of a slot that follow each other are at most this far apart, so that all of a slot's are different.
const MAX_SALT_STEP: u64 = (1 << EndpointId::SALT_BITS) / MAX_GENERATIONS as u64;

/// Where the instances of an endpoint are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Place {
    /// One, on this core.
    Core(u16),
    /// One on every core.
    EveryCore,
}

/// Why a name cannot be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Somebody has it.
    #[error("an endpoint named {0:?} is already registered in this env")]
    Taken(Arc<str>),
    /// It is no name.
    #[error(
        "{0:?} is no endpoint name: 1 to {MAX_NAME} bytes, none of them a space, a control character or one of @/?#"
    )]
    Invalid(Arc<str>),
    /// Every id is in use or used up.
    #[error("this env has used up its {max} endpoint slots", max = EndpointId::MAX_SLOTS)]
    Full,
}

/// The names of an env. Read and written only at registration and look-up, never on the path of a message.
#[derive(Debug)]
pub struct Directory {
    tables: RwLock<Tables>,
    /// Draws 64 bits that nobody can foretell.
    draw: fn() -> u64,
}

impl Default for Directory {
    fn default() -> Directory {
        Directory::drawing(random)
    }
}

#[derive(Debug, Default)]
struct Tables {
    names: HashMap<Arc<str>, (EndpointId, Place)>,
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot {
    id: EndpointId,
    /// How many endpoints had the slot before.
    generation: u32,
    name: Arc<str>,
    place: Place,
    /// Instances that have not ended; the slot is free when none is left.
    instances: u32,
}

/// Whether `name` may name an endpoint: it must fit a URI and a frame.
pub fn is_valid_name(name: &str) -> bool {
    let plain = |c: char| !c.is_control() && !c.is_whitespace() && !"@/?#".contains(c);
    !name.is_empty() && name.len() <= MAX_NAME && name.chars().all(plain)
}

/// The id of a new endpoint in this slot.
fn draw_id(slot: u32, before: Option<EndpointId>, draw: fn() -> u64) -> EndpointId {
    const MASK: u64 = (1 << EndpointId::SALT_BITS) - 1;
    let salt = match before {
        None => draw(),
        // The steps of all generations do not add up to a full circle.
        Some(before) => before.salt() + 1 + draw() % MAX_SALT_STEP,
    };
    EndpointId::new(slot, salt & MASK)
}

impl Directory {
    /// An empty one whose ids are made from what `draw` gives.
    pub fn drawing(draw: fn() -> u64) -> Directory {
        Directory { tables: RwLock::default(), draw }
    }

    /// Enters a name with `instances` instances and gives it an id.
    pub fn reserve(&self, name: &str, place: Place, instances: u32) -> Result<EndpointId, NameError> {
        if !is_valid_name(name) {
            return Err(NameError::Invalid(name.into()));
        }
        let mut tables = self.write();
        if tables.names.contains_key(name) {
            return Err(NameError::Taken(name.into()));
        }
        let name: Arc<str> = name.into();
        let id = match tables.free.pop() {
            Some(at) => {
                let slot = &mut tables.slots[at as usize];
                let id = draw_id(at, Some(slot.id), self.draw);
                *slot = Slot { id, generation: slot.generation + 1, name: name.clone(), place, instances };
                id
            }
            None if tables.slots.len() < EndpointId::MAX_SLOTS as usize => {
                let id = draw_id(tables.slots.len() as u32, None, self.draw);
                tables.slots.push(Slot { id, generation: 0, name: name.clone(), place, instances });
                id
            }
            None => return Err(NameError::Full),
        };
        tables.names.insert(name, (id, place));
        Ok(id)
    }

    /// Removes the name of this endpoint, so that it can be used again at once; nothing happens if another endpoint
    /// has it by now. True if this endpoint had it.
    pub fn unname(&self, id: EndpointId) -> bool {
        let mut tables = self.write();
        let Some(name) = tables.slots.get(id.slot()).map(|slot| slot.name.clone()) else { return false };
        let had = tables.names.get(&name).is_some_and(|(holder, _)| *holder == id);
        if had {
            tables.names.remove(&name);
        }
        had
    }

    /// One instance of the endpoint has ended. After the last one the id's slot is free for another endpoint, unless
    /// its generations are used up.
    pub fn release(&self, id: EndpointId) {
        let mut tables = self.write();
        let Some(slot) = tables.slots.get_mut(id.slot()).filter(|slot| slot.id == id) else { return };
        slot.instances = slot.instances.saturating_sub(1);
        if slot.instances == 0 && slot.generation + 1 < MAX_GENERATIONS {
            tables.free.push(id.slot() as u32);
        }
    }

    /// Who has this name.
    pub fn find(&self, name: &str) -> Option<(EndpointId, Place)> {
        self.read().names.get(name).copied()
    }

    /// Who has this name, in the words of the wire.
    pub fn resolve(&self, name: &str) -> Option<Resolved> {
        self.find(name).map(|(endpoint, place)| match place {
            Place::Core(core) => Resolved { endpoint, core: Some(core) },
            Place::EveryCore => Resolved { endpoint, core: None },
        })
    }

    /// The name that the endpoint had; for errors.
    pub fn name(&self, id: EndpointId) -> Option<Arc<str>> {
        self.instance(id).map(|(name, _)| name)
    }

    /// The name that the endpoint has, or had, and its place. Known as long as one of its instances lives, or until its
    /// id is used again.
    pub fn instance(&self, id: EndpointId) -> Option<(Arc<str>, Place)> {
        let tables = self.read();
        let slot = tables.slots.get(id.slot()).filter(|slot| slot.id == id)?;
        Some((slot.name.clone(), slot.place))
    }

    /// The endpoints that have not ended.
    pub fn alive(&self) -> Vec<(Arc<str>, Place)> {
        let alive = |slot: &&Slot| slot.instances > 0;
        self.read().slots.iter().filter(alive).map(|slot| (slot.name.clone(), slot.place)).collect()
    }

    // The tables are whole after every step, so a panic of another holder does not spoil them.
    fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tables> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    #[test]
    fn an_old_id_never_means_the_next_holder_of_its_name() {
        let directory = Directory::default();
        let first = directory.reserve("bank", Place::EveryCore, 2).unwrap();
        assert!(matches!(directory.reserve("bank", Place::Core(0), 1), Err(NameError::Taken(_))));
        directory.unname(first);
        let second = directory.reserve("bank", Place::Core(0), 1).unwrap();
        assert_ne!(first, second);
        directory.unname(first);
        assert_eq!(directory.find("bank"), Some((second, Place::Core(0))));
        directory.release(first);
        assert_eq!(directory.reserve("a", Place::Core(0), 1).unwrap().slot(), 2, "one instance still runs");
        directory.release(first);
        let third = directory.reserve("b", Place::Core(0), 1).unwrap();
        assert_eq!(third.slot(), first.slot());
        assert_ne!(third, first);
        assert_eq!(directory.name(first), None);
    }

    #[test]
    fn a_slot_with_no_generations_left_is_retired_and_none_of_its_ids_came_twice() {
        // The last one draws the largest steps that there are.
        for draw in [random, || 0, || u64::MAX] {
            let directory = Directory::drawing(draw);
            let mut ids = HashSet::new();
            for _ in 0..4096 {
                let id = directory.reserve("x", Place::Core(0), 1).unwrap();
                assert_eq!(id.slot(), 0);
                assert!(ids.insert(id), "{id:?} came before");
                directory.unname(id);
                directory.release(id);
            }
            assert_eq!(directory.reserve("x", Place::Core(0), 1).unwrap().slot(), 1);
        }
    }

    /// The same numbers in each run, from a seed of its own for each user: splitmix64 by Steele, Lea and Flood.
    fn splitmix(state: &AtomicU64) -> u64 {
        let mut z = state.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    #[test]
    fn a_million_guesses_hit_none_of_two_hundred_endpoints() {
        static SEED: AtomicU64 = AtomicU64::new(1);
        let directory = Directory::drawing(|| splitmix(&SEED));
        for number in 0..200 {
            let id = directory.reserve(&format!("endpoint{number}"), Place::Core(0), 1).unwrap();
            assert_eq!(id.slot(), number);
        }

        let guesses = AtomicU64::new(2);
        let mut hits = 0;
        for guess in 0..1_000_000u32 {
            // Slots are no secret: they are few, and used from the lowest on.
            let counted = u64::from(guess / 400 % 4096);
            let salt = if guess % 2 == 0 { counted } else { splitmix(&guesses) >> 20 };
            let id = EndpointId::new(guess % 200, salt);
            hits += u32::from(directory.instance(id).is_some());
        }

        assert_eq!(hits, 0);
    }

    #[test]
    fn two_envs_draw_different_ids() {
        let first = |directory: Directory| directory.reserve("x", Place::Core(0), 1).unwrap();
        assert_ne!(first(Directory::default()), first(Directory::default()), "once in 2^44 runs they are alike");
    }

    #[test]
    fn names_must_fit_a_uri() {
        let directory = Directory::default();
        for bad in ["", "a b", "a@b", "a/b", "a?b", "a#b", "a\n", &"x".repeat(256)] {
            assert!(matches!(directory.reserve(bad, Place::Core(0), 1), Err(NameError::Invalid(_))), "{bad:?}");
        }
        for good in ["a", "endpoint-verifier", "größe", &"x".repeat(255)] {
            assert!(directory.reserve(good, Place::Core(0), 1).is_ok(), "{good:?}");
        }
    }
}

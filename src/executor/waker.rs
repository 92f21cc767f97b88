//! Wakers that are nothing but a key, and the table that leads such a key to its core.

use std::collections::VecDeque;
use std::fmt;
use std::ptr;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{RawWaker, RawWakerVTable, Waker};

use super::key::{GENERATION_MASK, WakeKey};
use super::local;

/// How a wake reaches a core from another thread.
pub trait RemoteWake: Send + Sync {
    /// Brings the key to the core, which hands it to its executor's `wake`, and wakes the core if it sleeps. Any
    /// thread may call this, also the core's own and also when the core has ended; it must not block.
    fn wake(&self, key: WakeKey);
}

/// No core can be claimed: 65,536 exist in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("65,536 cores exist in this process already")]
#[non_exhaustive]
pub struct TooManyCores;

/// A claimed place in the process-wide table of cores.
///
/// It lives until both this guard and the executor that was made with it are gone. From then on wakers of the core
/// do nothing.
///
/// The index is used again, as late as possible. A core that gets a used index starts with generations far from
/// those of the former one, so a waker left over from that one finds no task, or at worst wakes one for nothing.
#[derive(Clone)]
pub struct CoreIndex {
    claim: Arc<Claim>,
}

struct Claim {
    index: u16,
    first_generation: u32,
}

impl CoreIndex {
    /// The index, which all keys of the core carry.
    #[inline]
    pub fn get(&self) -> u16 {
        self.claim.index
    }

    pub(super) fn first_generation(&self) -> u32 {
        self.claim.first_generation
    }
}

impl fmt::Debug for CoreIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CoreIndex({})", self.get())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut cores = CORES.write().unwrap_or_else(PoisonError::into_inner);
        let remote = cores.places.get_mut(usize::from(self.index)).and_then(|place| place.remote.take());
        cores.free.push_back(self.index);
        drop(cores);
        // Its drop is foreign code, so not under the lock.
        drop(remote);
    }
}

struct Place {
    remote: Option<Arc<dyn RemoteWake>>,
    claims: u32,
}

struct Cores {
    places: Vec<Place>,
    /// Used again from the front.
    free: VecDeque<u16>,
}

static CORES: RwLock<Cores> = RwLock::new(Cores { places: Vec::new(), free: VecDeque::new() });

/// Makes a core known to the wakers of this process; `remote` wakes it from other threads. Any thread may call this.
///
/// # Errors
/// [`TooManyCores`] if 65,536 cores exist.
pub fn claim_core(remote: Arc<dyn RemoteWake>) -> Result<CoreIndex, TooManyCores> {
    let mut cores = CORES.write().unwrap_or_else(PoisonError::into_inner);
    let index = match cores.free.pop_front() {
        Some(index) => index,
        None => {
            let index = u16::try_from(cores.places.len()).map_err(|_| TooManyCores)?;
            cores.places.push(Place { remote: None, claims: 0 });
            index
        }
    };
    let place = &mut cores.places[usize::from(index)];
    place.remote = Some(remote);
    place.claims = place.claims.wrapping_add(1);
    // Steps of the golden ratio keep the generations of successive claims as far apart as can be.
    let first_generation = place.claims.wrapping_mul(0x9E_3779) & GENERATION_MASK;
    Ok(CoreIndex { claim: Arc::new(Claim { index, first_generation }) })
}

/// The waker of a key. It costs nothing to make, to clone and to drop, and may go to any thread.
#[inline]
pub(super) fn waker(key: WakeKey) -> Waker {
    // SAFETY: the functions of VTABLE keep the contract of `RawWaker`: the data word is a number that none of them
    // dereferences, so it owns nothing and lives for ever; `wake` works on any thread, by the key's core.
    unsafe { Waker::from_raw(raw(ptr::without_provenance(key.word()))) }
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(raw, wake, wake, |_| ());

#[inline]
fn raw(data: *const ()) -> RawWaker {
    RawWaker::new(data, &VTABLE)
}

fn wake(data: *const ()) {
    let key = WakeKey::from_word(data.addr());
    if !local::wake(key) {
        wake_remote(key);
    }
}

#[cold]
fn wake_remote(key: WakeKey) {
    let cores = CORES.read().unwrap_or_else(PoisonError::into_inner);
    let remote = cores.places.get(usize::from(key.core())).and_then(|place| place.remote.clone());
    drop(cores);
    // Foreign code, so not under the lock.
    if let Some(remote) = remote {
        remote.wake(key);
    }
}

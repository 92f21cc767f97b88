//! Who may sleep, and who wakes them.

use super::sync::{AtomicBool, Ordering, fence};

/// Says whether a core sleeps, or is about to.
///
/// Waking a core costs microseconds and it is nearly always awake, so a sender must not wake on suspicion, and a core must
/// not sleep past an item. The danger is the moment between: the core looks at its queues, the sender pushes, the sender
/// sees nobody asleep, the core falls asleep. Both sides therefore write first, put a sequentially consistent fence
/// behind it, and only then read what the other wrote; then at least one of them sees the other.
///
/// The core calls [`prepare`](ParkFlag::prepare), looks at **every** queue once more, and blocks only if all are empty;
/// afterwards, or instead, it calls [`cancel`](ParkFlag::cancel). A sender pushes, then calls
/// [`claim_wake`](ParkFlag::claim_wake), and wakes the core if it gets the claim. Of many senders one gets it. The wake
/// must stick until the core blocks, as a completion in its ring does, since it may come before the core has blocked;
/// and one that comes after `cancel` is spurious and must be harmless.
///
/// From the claim on all others rely on its holder. It must therefore issue the wake at once: a holder that runs user
/// code first may block there, and then nobody wakes the core. A sender that collects its wakes for one system call
/// collects the cores, and claims right before that call.
#[derive(Debug, Default)]
#[repr(align(128))] // A line of its own, and the neighbour that the prefetcher pairs with it: all senders read it.
pub struct ParkFlag {
    /// Written by swaps only. The core could use plain stores: a claim is a swap, hence it stands right behind the store
    /// it read and before the core's next. Loom does not draw that conclusion and would report a sender that reads its own
    /// old claim; the core swaps only when it parks, where it costs nothing to speak of.
    parked: AtomicBool,
}

impl ParkFlag {
    /// A flag that says "awake".
    pub fn new() -> ParkFlag {
        ParkFlag::default()
    }

    /// Called by the core: announces that it is about to block. It must look at all its queues after this, and before
    /// it blocks.
    #[inline]
    pub fn prepare(&self) {
        self.parked.swap(true, Ordering::Relaxed);
        // Pairs with the fence in `claim_wake`: either the core's next look sees the item, or the sender sees `parked`.
        fence(Ordering::SeqCst);
    }

    /// Called by the core: it found work, or it woke up.
    #[inline]
    pub fn cancel(&self) {
        // Acquire: whoever claimed this wake pushed before, and the core's next look shall find it.
        self.parked.swap(false, Ordering::Acquire);
    }

    /// Called by a sender on any thread, after its push: the duty to wake the core, if it sleeps and nobody else has
    /// it.
    ///
    /// One call stands for all that the caller has pushed to this core before it, so a core that sends many items in a
    /// turn calls it once for each destination. It costs a full fence and a read; it writes only if the core is parked.
    #[inline]
    pub fn claim_wake(&self) -> Option<WakeClaim<'_>> {
        // Pairs with the fence in `prepare`.
        fence(Ordering::SeqCst);
        let claimed = self.parked.load(Ordering::Relaxed) && self.parked.swap(false, Ordering::Release);
        claimed.then(|| WakeClaim(self))
    }

    /// The duty of a claim that was [issued](WakeClaim::issued), again, since the wake failed after that. What others
    /// pushed meanwhile relies on it. If the core has woken by itself, its wake is spurious.
    pub fn reclaim(&self) -> WakeClaim<'_> {
        WakeClaim(self)
    }

    /// Whether the core has announced that it blocks and nobody has claimed its wake yet. A hint, for metrics: only
    /// [`claim_wake`](ParkFlag::claim_wake) decides.
    #[inline]
    pub fn is_parked(&self) -> bool {
        self.parked.load(Ordering::Relaxed)
    }
}

/// The duty to wake a core, which nobody else has. To be [done](WakeClaim::issued) before any user code runs.
///
/// A claim that is dropped, since the wake failed, goes back to the core's flag: the next sender claims it. If the core
/// has woken meanwhile, that costs one spurious wake.
#[derive(Debug)]
#[must_use = "nobody else wakes the core"]
pub struct WakeClaim<'a>(&'a ParkFlag);

impl WakeClaim<'_> {
    /// The wake is on its way, or with the kernel.
    #[inline]
    pub fn issued(self) {
        std::mem::forget(self);
    }
}

impl Drop for WakeClaim<'_> {
    fn drop(&mut self) {
        self.0.parked.swap(true, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(ringpost_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_wake_of_one_park_is_claimed_once() {
        let flag = ParkFlag::new();
        assert!(flag.claim_wake().is_none());
        flag.prepare();
        assert!(flag.is_parked());
        let claim = flag.claim_wake().unwrap();
        assert!(flag.claim_wake().is_none());
        claim.issued();
        assert!(flag.claim_wake().is_none());
        assert!(!flag.is_parked());
    }

    #[test]
    fn a_claim_whose_wake_failed_goes_to_the_next_sender() {
        let flag = ParkFlag::new();
        flag.prepare();
        drop(flag.claim_wake());
        assert!(flag.claim_wake().is_some());
    }

    #[test]
    fn nobody_claims_after_cancel() {
        let flag = ParkFlag::new();
        flag.prepare();
        flag.cancel();
        assert!(flag.claim_wake().is_none());
    }

    #[test]
    fn neighbours_share_no_cache_line() {
        assert_eq!(size_of::<[ParkFlag; 2]>(), 256);
    }
}

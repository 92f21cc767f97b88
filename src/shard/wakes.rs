//! The ways of a core into the kernel, which take along the wakes that it owes to others.
//!
//! A core that has sent something over a lane wakes its receiver, if that sleeps, with the enter at the end of the
//! turn. The claim of such a wake is made right before that enter and nowhere else: the next turn may run a handler
//! that blocks, and a wake that is claimed and not issued by then leaves its core asleep for everybody. For the same
//! reason no turn begins, and no other code of the thread runs, while receivers wait to be woken.

use std::io;
use std::time::Duration;

use super::core::Core;
use super::node::CoreDoor;
use super::shard::Shard;
use crate::mesh::park::WakeClaim;

impl Core {
    /// Issues the wakes that are owed and submits what is queued, if there is anything of either.
    #[inline]
    pub(super) fn submit(&mut self) -> io::Result<()> {
        self.queue_wakes();
        if self.ring.wants_enter() { self.ring.submit() } else { Ok(()) }
    }

    /// Issues the wakes that are owed. What else is queued goes with them, or else waits for the next turn's end.
    pub(super) fn issue_wakes(&mut self) -> io::Result<()> {
        if self.queue_wakes() { self.ring.submit() } else { Ok(()) }
    }

    /// The same as [`submit`](Self::submit), then sleeps as [`Ring::wait`](crate::ring::Ring::wait) does.
    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.queue_wakes();
        self.ring.wait(timeout)
    }

    /// Claims the wakes that are owed, for the enter that follows at once. True if there were any.
    #[inline]
    fn queue_wakes(&mut self) -> bool {
        self.shard.owes_wakes() && self.queue_owed_wakes()
    }

    fn queue_owed_wakes(&mut self) -> bool {
        let (ring, mut any) = (&mut self.ring, false);
        self.shard.claim_wakes(|core, door, claim| {
            if let Some(waker) = door.waker.get() {
                ring.wake(waker, core);
                claim.issued();
                any = true;
            }
        });
        any
    }
}

impl Shard {
    /// Whether a core that this one has sent something may still have to be woken.
    #[inline]
    pub(super) fn owes_wakes(&self) -> bool {
        !self.lanes.borrow().unwoken.is_empty()
    }

    /// Claims the wake of each core that was sent something and sleeps.
    #[inline]
    fn claim_wakes(&self, mut issue: impl FnMut(u16, &CoreDoor, WakeClaim<'_>)) {
        let mut lanes = self.lanes.borrow_mut();
        let mut claimed = 0;
        for &core in &lanes.unwoken {
            let door = &self.node.cores[usize::from(core)];
            if let Some(claim) = door.park.claim_wake() {
                claimed += 1;
                issue(core, door, claim);
            }
        }
        let awake = lanes.unwoken.len() as u64 - claimed;
        lanes.unwoken.clear();
        self.count(|counters| {
            counters.wakes_sent += claimed;
            counters.wakes_suppressed += awake;
        });
    }
}

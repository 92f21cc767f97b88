//! Counters of one ring.

/// What a ring has done and survived since it was made. Plain numbers, kept by the ring's thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RingStats {
    /// Calls of `io_uring_enter`.
    pub enters: u64,
    /// Requests handed to the kernel.
    pub sqes: u64,
    /// Enters after which completions did not fit the completion queue (the kernel keeps them aside, none is lost).
    pub cq_overflows: u64,
    /// Receives that ended because no provided buffer was free.
    pub buffer_starvations: u64,
    /// Looks at sockets that are received by probes, or ahead of the kernel, one system call each.
    pub probes: u64,
    /// Sends that were made at once, with a system call of their own instead of an enter.
    pub direct_sends: u64,
    /// Multishot requests armed again by the ring itself.
    pub rearms: u64,
    /// Completions whose socket was gone, or that were not ours.
    pub stale_completions: u64,
    /// Wakes that did not reach the other ring.
    pub failed_wakes: u64,
    /// Sends of which the kernel took only a part; the rest was submitted again.
    pub short_sends: u64,
}

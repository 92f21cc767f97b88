//! Sizes of a ring.

/// How large a ring is made.
///
/// Values that the kernel would refuse are moved to the nearest that it takes: counts are rounded up to a power of
/// two, the completion queue is at least as large as the submission queue, and there is at least one buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingConfig {
    /// Submission queue entries. More requests than that in one turn cost one more `io_uring_enter`, nothing else.
    pub sq_entries: u32,
    /// Completion queue entries, 16 bytes each. An overflow loses nothing but cuts multishot receives just when the
    /// ring is busiest, so be generous: four times the expected connections.
    pub cq_entries: u32,
    /// Provided receive buffers, at most 32,768.
    pub buffers: u16,
    /// Bytes of one receive buffer.
    pub buffer_size: u32,
}

impl Default for RingConfig {
    fn default() -> RingConfig {
        RingConfig { sq_entries: 256, cq_entries: 32_768, buffers: 256, buffer_size: 16 * 1024 }
    }
}

impl RingConfig {
    /// The same with every value moved to one that the kernel takes.
    pub(super) fn normalised(&self) -> RingConfig {
        let sq_entries = self.sq_entries.clamp(1, 32_768).next_power_of_two();
        RingConfig {
            sq_entries,
            cq_entries: self.cq_entries.clamp(sq_entries, 65_536).next_power_of_two(),
            buffers: self.buffers.clamp(1, 32_768).next_power_of_two(),
            buffer_size: self.buffer_size.clamp(1, 1 << 30),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_moved_to_what_the_kernel_takes() {
        let odd = RingConfig { sq_entries: 0, cq_entries: 0, buffers: 0, buffer_size: 0 }.normalised();
        assert_eq!(odd, RingConfig { sq_entries: 1, cq_entries: 1, buffers: 1, buffer_size: 1 });
        let big = RingConfig { sq_entries: 300, cq_entries: u32::MAX, buffers: u16::MAX, buffer_size: 1 }.normalised();
        assert_eq!(big, RingConfig { sq_entries: 512, cq_entries: 65_536, buffers: 32_768, buffer_size: 1 });
        assert_eq!(RingConfig::default().normalised(), RingConfig::default());
    }
}

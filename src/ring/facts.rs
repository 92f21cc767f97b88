//! What the kernel said when it was asked.

/// Answers of the running kernel, gathered by [`Facts::gather`](super::probe) and judged by
/// [`Capabilities::decide`](super::Capabilities).
///
/// Gathering and judging are apart so that the judgement of kernels and sandboxes we do not have here can be tested by
/// changing a field.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) release: String,
    /// Errno of `io_uring_setup` with the required flags, or 0.
    pub(super) setup: i32,
    /// Errno of asking for the known operations by `io_uring_register`, or 0.
    pub(super) register: i32,
    /// Errno of an `io_uring_enter` that has nothing to do, or 0.
    pub(super) enter: i32,
    /// Errno of registering a small buffer ring, or 0.
    pub(super) buffer_ring: i32,
    /// The kernel keeps completions that do not fit, knows wait timeouts, and polls sockets by itself.
    pub(super) base_features: bool,
    /// The first required operation that is missing.
    pub(super) missing_operation: Option<&'static str>,
    pub(super) no_sqarray: bool,
    pub(super) ring_fd: bool,
    pub(super) sync_msg_ring: bool,
    pub(super) no_iowait: bool,
    /// `/proc/sys/kernel/io_uring_disabled`, 0 where it does not exist.
    pub(super) disabled: u32,
    pub(super) memlock: u64,
    pub(super) nofile: u64,
}

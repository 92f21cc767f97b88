//! Why a ring cannot be made here, and what to do about it.

use std::io;

/// A kernel that cannot serve, by cause. Every message names the cause and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The kernel lacks something that Linux 6.1 has.
    #[error("Linux {release} lacks {missing}: ringpost needs Linux 6.1 or later, upgrade the kernel")]
    KernelTooOld {
        /// The running kernel's release.
        release: String,
        /// What is missing.
        missing: &'static str,
    },
    /// `kernel.io_uring_disabled` forbids it.
    #[error(
        "the sysctl kernel.io_uring_disabled={value} forbids io_uring: set it to 0 (`sysctl kernel.io_uring_disabled=0`), \
         or with the value 1 run under the group of kernel.io_uring_group"
    )]
    DisabledBySysctl {
        /// The sysctl's value.
        value: u32,
    },
    /// A system call filter hides io_uring.
    #[error(
        "the system calls of io_uring are refused though the kernel has them, most likely by a seccomp filter: in \
         Docker or Podman allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile \
         (`--security-opt seccomp=profile.json`), under systemd see SystemCallFilter="
    )]
    Seccomp,
    /// No memory that the kernel would pin.
    #[error(
        "no memory for the ring (RLIMIT_MEMLOCK is {limit} bytes): raise it (`ulimit -l`, LimitMEMLOCK= in systemd) or \
         configure fewer or smaller buffers and queues"
    )]
    Memlock {
        /// Soft limit in bytes; `u64::MAX` is unlimited.
        limit: u64,
    },
    /// No free file descriptor.
    #[error("no file descriptor left (RLIMIT_NOFILE is {limit}): raise it (`ulimit -n`, LimitNOFILE=)")]
    FileLimit {
        /// Soft limit in descriptors.
        limit: u64,
    },
    /// Something else.
    #[error("{call} failed: {}; if this persists, report it with the output of `uname -a`", io::Error::from_raw_os_error(*.errno))]
    Os {
        /// The call that failed.
        call: &'static str,
        /// Its error number.
        errno: i32,
    },
}

/// Names a failure of `call` that may happen on any kernel; the limits are looked up only now, when they matter.
pub(super) fn from_errno(call: &'static str, errno: i32) -> SetupError {
    match errno {
        libc::ENOMEM => SetupError::Memlock { limit: super::syscalls::soft_limit(libc::RLIMIT_MEMLOCK) },
        libc::EMFILE | libc::ENFILE => {
            SetupError::FileLimit { limit: super::syscalls::soft_limit(libc::RLIMIT_NOFILE) }
        }
        errno => SetupError::Os { call, errno },
    }
}

/// The same for an `io::Error`.
pub(crate) fn from_io(call: &'static str, error: &io::Error) -> SetupError {
    from_errno(call, error.raw_os_error().unwrap_or(libc::EIO))
}

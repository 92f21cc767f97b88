//! How often threads of this process fell asleep.

use std::io;

/// Times that a thread of this process has waited in the kernel so far: voluntary context switches. Each was ended by a
/// wake, which a system call of another thread or the network made.
pub(crate) fn sleeps() -> io::Result<u64> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the kernel fills the live struct during the call.
    let result = unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed is a valid value of it, and the call has filled it.
    let usage = unsafe { usage.assume_init() };
    Ok(usage.ru_nvcsw as u64)
}

//! Which CPUs a thread may use.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;

/// A set of CPUs, as the system keeps it for each thread.
///
/// A new thread has the set of the one that made it. A thread that a pinned core makes is hence pinned to the same CPU,
/// unless it is given a wider set.
#[derive(Clone, Copy)]
pub struct Affinity(libc::cpu_set_t);

impl Affinity {
    /// The CPUs that this thread may use.
    ///
    /// # Errors
    /// What the kernel says, as on a machine with more than 1,024 CPUs.
    pub fn of_this_thread() -> io::Result<Affinity> {
        let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
        // SAFETY: the kernel writes at most the given number of bytes, which is the set's size.
        let failed = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), set.as_mut_ptr()) };
        if failed != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a set is an array of integers, for which all bytes that the kernel left zero stand too.
        Ok(Affinity(unsafe { set.assume_init() }))
    }

    /// Lets this thread use these CPUs.
    ///
    /// # Errors
    /// What the kernel says, if none of them is left to this process.
    pub fn apply(&self) -> io::Result<()> {
        // SAFETY: the kernel reads the given number of bytes, which is the set's size.
        let failed = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const self.0) };
        if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// How many CPUs are in it.
    pub fn count(&self) -> usize {
        // SAFETY: the set is whole, and the macro behind this only reads it.
        usize::try_from(unsafe { libc::CPU_COUNT(&self.0) }).unwrap_or(0)
    }
}

impl fmt::Debug for Affinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Affinity({} CPUs)", self.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_of_a_pinned_thread_can_be_given_all_cpus_again() {
        std::thread::spawn(|| {
            let all = Affinity::of_this_thread().unwrap();
            let first = core_affinity::get_core_ids().unwrap()[0];
            assert!(core_affinity::set_for_current(first));
            std::thread::spawn(move || {
                assert_eq!(Affinity::of_this_thread().unwrap().count(), 1);
                all.apply().unwrap();
                assert_eq!(Affinity::of_this_thread().unwrap().count(), all.count());
            })
            .join()
            .unwrap();
        })
        .join()
        .unwrap();
    }
}

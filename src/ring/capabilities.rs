//! What this kernel offers to a ring.

use std::fmt;

use super::facts::Facts;
use super::setup_error::{SetupError, from_io};

/// Something newer than the floor kernel, Linux 6.1, that a ring uses when it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Feature {
    /// Submission queue without an index array (6.6): one memory access less for each request.
    NoSqArray,
    /// The ring's descriptor registered with its thread (5.18, at most 16 rings a thread): a cheaper enter.
    RegisteredRingFd,
    /// Ring messages from threads without a ring (6.13): a wake is one system call and posts its completion directly;
    /// without it an eventfd is polled, which costs the woken ring a read.
    SyncMsgRing,
    /// Idle waits that are not counted as I/O wait (6.15): load figures stay honest and the CPU idles deeper.
    NoIowait,
}

impl Feature {
    /// All of them.
    pub const ALL: [Feature; 4] =
        [Feature::NoSqArray, Feature::RegisteredRingFd, Feature::SyncMsgRing, Feature::NoIowait];

    /// The first kernel release that has it.
    #[must_use]
    pub fn since(self) -> &'static str {
        match self {
            Feature::NoSqArray => "6.6",
            Feature::RegisteredRingFd => "5.18",
            Feature::SyncMsgRing => "6.13",
            Feature::NoIowait => "6.15",
        }
    }
}

/// The running kernel's release and which optional features are in use.
///
/// Probed once per process and given to every [`Ring`](super::Ring). Its `Display` is one line, made to be logged at
/// start: what is missing is named there with the kernel that has it, so stepping down is never silent.
///
/// [`without`](Capabilities::without) masks a feature, for tests and for working around a kernel's bug.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    release: String,
    features: u8,
}

impl Capabilities {
    /// Asks the kernel, on a thread made for that. Blocks for a few system calls; from any thread.
    ///
    /// Asking takes rings, and a thread that has made a ring is not left alone when that has been closed: some 20 ms
    /// later the kernel interrupts it once more to clean up (seen on Linux 6.18), which ends a read with a time limit,
    /// or another call that is not taken up again by itself, with `EINTR`.
    ///
    /// # Errors
    /// When no ring can be made here; the message names cause and remedy.
    pub fn probe() -> Result<Capabilities, SetupError> {
        let prober = std::thread::Builder::new().name("ringpost-probe".into());
        let gathering = prober.spawn(Facts::gather).map_err(|error| from_io("making a thread", &error))?;
        match gathering.join() {
            Ok(facts) => Capabilities::decide(&facts),
            Err(_) => Err(SetupError::Os { call: "the probe of io_uring", errno: libc::EIO }),
        }
    }

    /// The kernel's release, such as `6.18.44`.
    #[must_use]
    pub fn release(&self) -> &str {
        &self.release
    }

    /// Whether a feature is in use.
    #[must_use]
    pub fn has(&self, feature: Feature) -> bool {
        self.features & (1 << feature as u8) != 0
    }

    /// The same with a feature masked.
    #[must_use]
    pub fn without(mut self, feature: Feature) -> Capabilities {
        self.features &= !(1 << feature as u8);
        self
    }

    /// Judges what the kernel said.
    pub(super) fn decide(facts: &Facts) -> Result<Capabilities, SetupError> {
        refuse(facts.setup, facts, "io_uring_setup", "SINGLE_ISSUER | DEFER_TASKRUN rings")?;
        refuse(facts.register, facts, "io_uring_register", "the operation probe")?;
        refuse(facts.enter, facts, "io_uring_enter", "io_uring_enter")?;
        let missing = |missing| Err(SetupError::KernelTooOld { release: facts.release.clone(), missing });
        if !facts.base_features {
            return missing("the io_uring features NODROP, EXT_ARG and FAST_POLL");
        }
        if let Some(operation) = facts.missing_operation {
            return missing(operation);
        }
        refuse(facts.buffer_ring, facts, "registering a buffer ring", "provided-buffer rings")?;
        let features = [
            (Feature::NoSqArray, facts.no_sqarray),
            (Feature::RegisteredRingFd, facts.ring_fd),
            (Feature::SyncMsgRing, facts.sync_msg_ring),
            (Feature::NoIowait, facts.no_iowait),
        ];
        let features = features.iter().filter(|(_, on)| *on).fold(0, |all, (feature, _)| all | 1 << *feature as u8);
        Ok(Capabilities { release: facts.release.clone(), features })
    }
}

/// Turns an errno of `call` into its cause.
fn refuse(errno: i32, facts: &Facts, call: &'static str, missing: &'static str) -> Result<(), SetupError> {
    let too_old = SetupError::KernelTooOld { release: facts.release.clone(), missing };
    match errno {
        0 => Ok(()),
        libc::EPERM if facts.disabled != 0 => Err(SetupError::DisabledBySysctl { value: facts.disabled }),
        libc::EPERM => Err(SetupError::Seccomp),
        libc::ENOSYS if at_least(&facts.release, 6, 1) => Err(SetupError::Seccomp),
        libc::ENOSYS | libc::EINVAL => Err(too_old),
        libc::ENOMEM => Err(SetupError::Memlock { limit: facts.memlock }),
        libc::EMFILE | libc::ENFILE => Err(SetupError::FileLimit { limit: facts.nofile }),
        errno => Err(SetupError::Os { call, errno }),
    }
}

fn at_least(release: &str, major: u32, minor: u32) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor)
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "io_uring on Linux {}:", self.release)?;
        for feature in Feature::ALL {
            match self.has(feature) {
                true => write!(f, " {feature:?}")?,
                false => write!(f, " no {feature:?} (Linux {}+)", feature.since())?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "capabilities_tests.rs"]
mod tests;

//! The CPUs this process may use, and what machine they belong to.

use std::fs;

use core_affinity::CoreId;

use crate::Error;

/// The CPUs that the process was allowed when it started, in order.
///
/// Taken once, before any thread is pinned: a pinned thread sees its own CPU only.
pub(crate) struct Cpus {
    ids: Vec<usize>,
}

impl Cpus {
    /// Reads the affinity mask of the calling thread.
    pub(crate) fn allowed() -> Result<Cpus, Error> {
        let ids: Vec<usize> = core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
        if ids.is_empty() { Err("cannot read which CPUs this process may use".into()) } else { Ok(Cpus { ids }) }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// The CPU for core number `core`; more cores than CPUs start again at the first.
    pub(crate) fn id(&self, core: usize) -> usize {
        self.ids[core % self.ids.len()]
    }

    /// Runs `work` on the calling thread, pinned to the CPU of core number `core`.
    ///
    /// The work runs even if pinning fails, since another thread may wait for it; the failure is the result then.
    pub(crate) fn pinned<T>(&self, core: usize, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        let id = self.id(core);
        let pinned = core_affinity::set_for_current(CoreId { id });
        let result = work()?;
        if pinned { Ok(result) } else { Err(format!("cannot pin a thread to CPU {id}").into()) }
    }
}

/// CPU model and kernel, for the head of the table.
pub(crate) fn machine() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split_once(':'))
        .map_or("unknown CPU", |(_, model)| model.trim());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{model}, Linux {}", kernel.trim())
}

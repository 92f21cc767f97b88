//! Which CPUs an env uses; its limits are in [`Config`].

use std::sync::Arc;

pub use crate::shard::config::Config;

use crate::error::StartError;

/// Which CPUs the cores of an env run on.
///
/// Core `i` of the env runs on the `i`-th CPU of the set, pinned to it. CPUs that this process may not use (see
/// `taskset`) are left out of [`all`](CoreSet::all) and [`count`](CoreSet::count).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreSet(Choice);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Choice {
    All,
    Count(usize),
    List(Vec<usize>),
}

impl CoreSet {
    /// One core on each CPU that this process may use.
    pub fn all() -> CoreSet {
        CoreSet(Choice::All)
    }

    /// This many cores, on the first CPUs that this process may use. More cores than CPUs share them, which is good
    /// for tests alone: a warning says so.
    pub fn count(cores: usize) -> CoreSet {
        CoreSet(Choice::Count(cores))
    }

    /// One core on each of these CPUs, by the numbers of the system. A number may stand twice.
    pub fn list(cpus: impl IntoIterator<Item = usize>) -> CoreSet {
        CoreSet(Choice::List(cpus.into_iter().collect()))
    }

    /// The CPU of each core.
    pub(crate) fn cpus(&self) -> Result<Vec<usize>, StartError> {
        let wrong = |text: String| StartError::Config(Arc::from(text));
        let usable: Vec<usize> = core_affinity::get_core_ids().unwrap_or_default().iter().map(|id| id.id).collect();
        if usable.is_empty() {
            return Err(wrong("the system does not tell which CPUs this process may use".into()));
        }
        let cpus: Vec<usize> = match &self.0 {
            Choice::All => usable.clone(),
            Choice::Count(cores) => usable.iter().copied().cycle().take(*cores).collect(),
            Choice::List(cpus) => cpus.clone(),
        };
        if let Some(cpu) = cpus.iter().find(|cpu| !usable.contains(cpu)) {
            return Err(wrong(format!("CPU {cpu} is none that this process may use; those are {usable:?}")));
        }
        if cpus.is_empty() || cpus.len() > usize::from(u16::MAX) {
            return Err(wrong(format!("an env has 1 to 65535 cores, not {}", cpus.len())));
        }
        let mut distinct = cpus.clone();
        distinct.sort_unstable();
        distinct.dedup();
        if distinct.len() < cpus.len() {
            tracing::warn!(
                target: "ringpost::env", cores = cpus.len(),
                cpus = distinct.len(),
                "more cores than CPUs: some share one, and wait for each other"
            );
        }
        Ok(cpus)
    }
}

impl Default for CoreSet {
    fn default() -> CoreSet {
        CoreSet::all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_chosen_by_count_and_list() {
        let all = CoreSet::all().cpus().unwrap();
        assert_eq!(CoreSet::count(1).cpus().unwrap(), all[..1]);
        let many = CoreSet::count(all.len() + 1).cpus().unwrap();
        assert_eq!((many.len(), many[all.len()]), (all.len() + 1, all[0]));
        assert_eq!(CoreSet::list([all[0], all[0]]).cpus().unwrap(), [all[0], all[0]]);
        for wrong in [CoreSet::count(0), CoreSet::list([]), CoreSet::list([1 << 20])] {
            assert!(matches!(wrong.cpus(), Err(StartError::Config(_))));
        }
    }
}

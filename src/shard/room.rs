//! Pauses of those who wait for room in a queue.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::current;
use super::node::{Injected, Node, random};
use super::sleep::{NotOnCore, sleep};
use super::spawn::{JoinHandle, job};

/// The first pause; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(1);
/// The longest pause.
const LAST: Duration = Duration::from_millis(50);

/// How long to wait between one refusal and the next attempt.
#[derive(Clone, Copy, Debug)]
pub struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Pauses {
        Pauses(FIRST)
    }
}

impl Pauses {
    /// The next pause: anything in the upper half of its length, so that those who were refused together do not come
    /// back together.
    pub fn step(&mut self) -> Duration {
        let half = self.0 / 2;
        self.0 = (self.0 * 2).min(LAST);
        half + half.mul_f64(random() as f64 / u64::MAX as f64)
    }
}

/// One of the `Config::waiting` places of a core for asks and sends that wait for room.
///
/// Who waits is woken through the injector, which must take that without a bound; this is the bound.
pub struct Seat {
    node: Arc<Node>,
    core: u16,
}

impl Seat {
    /// A place at this core, or none if all are taken. Callable on any thread.
    pub fn take(node: &Arc<Node>, core: u16) -> Option<Seat> {
        let door = &node.cores[usize::from(core)];
        let limit = node.config.waiting;
        let taken = door.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < limit).then_some(n + 1));
        if taken.is_err() {
            door.waiting_refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(Seat { node: node.clone(), core })
    }

    /// The core.
    pub fn core(&self) -> u16 {
        self.core
    }

    /// Sleeps on the core; the handle may be awaited on any thread.
    pub fn pause(&self, duration: Duration) -> JoinHandle<Result<(), NotOnCore>> {
        let (job, handle) = job(move || sleep(duration));
        match current::get() {
            Some(shard) if shard.node.id == self.node.id && shard.core == self.core => job(&shard),
            _ => self.node.cores[usize::from(self.core)].inject_always(Injected::Job(job)),
        }
        handle
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.node.cores[usize::from(self.core)].waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_last_and_are_spread_over_their_upper_half() {
        let mut pauses = Pauses::default();
        for whole in [1, 2, 4, 8, 16, 32, 50, 50].map(Duration::from_millis) {
            let pause = pauses.step();
            assert!(whole / 2 <= pause && pause <= whole, "{pause:?} of {whole:?}");
        }
    }
}

//! Numbers of connections: those of a sweep, and which of them the limit of open files allows.

use std::num::NonZero;
use std::str::FromStr;

/// The loopback addresses 127.0.x.y that a server can be reached under, or names of its Unix socket.
pub(crate) const MOST: usize = 10_000;
/// Descriptors that a process has beside those of its connections.
const BESIDE: u64 = 64;

/// What `--connections` can be given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Counts {
    /// So many in the usual table.
    One(usize),
    /// A row for each, beginning with 1, which the others are compared with.
    Sweep(Vec<usize>),
}

impl FromStr for Counts {
    type Err = String;

    /// `100`, or `1,10,100`.
    fn from_str(text: &str) -> Result<Counts, String> {
        let count = |part: &str| match part.trim().parse::<NonZero<usize>>() {
            Ok(count) if count.get() <= MOST => Ok(count.get()),
            _ => Err(format!("--connections takes numbers from 1 to {MOST}, not '{text}'")),
        };
        let mut counts = text.split(',').map(count).collect::<Result<Vec<_>, _>>()?;
        if let [one] = counts[..] {
            return Ok(Counts::One(one));
        }
        counts.push(1);
        counts.sort_unstable();
        counts.dedup();
        Ok(Counts::Sweep(counts))
    }
}

/// Descriptors that each of the two processes needs for so many connections.
pub(crate) fn files(connections: usize) -> u64 {
    connections as u64 + BESIDE
}

/// Splits the counts into those that a process with so many descriptors can have and those that it cannot.
pub(crate) fn split(counts: &[usize], limit: u64) -> (Vec<usize>, Vec<usize>) {
    counts.iter().partition(|&&connections| files(connections) <= limit)
}

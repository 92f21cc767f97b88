//! Askers on many threads, timed by a thread that only waits.
//!
//! Each asker counts for itself, on a cache line of its own, and times one of its asks of so many
//! ([`SAMPLED`](crate::sample::SAMPLED)); only those share a histogram, under a lock. The askers begin at different places
//! in that cycle, so that they do not read the clock all at once.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::Error;
use crate::sample::{Meter, SAMPLED, Span};

const WARM_UP: u8 = 0;
const COUNTING: u8 = 1;
const OVER: u8 = 2;

/// How much longer than it was to be the counted time gets if no ask that is timed has ended.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the askers of one measurement share.
pub(crate) struct Crowd {
    phase: AtomicU8,
    latency: Mutex<Histogram<u64>>,
    counts: Box<[Count]>,
}

/// The asks of one asker.
// 128 bytes: adjacent lines are often fetched in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Count(AtomicU64);

impl Crowd {
    /// A crowd of so many askers.
    pub(crate) fn new(askers: usize) -> Result<Arc<Crowd>, Error> {
        let counts = (0..askers).map(|_| Count::default()).collect();
        let latency = Mutex::new(Meter::histogram()?);
        Ok(Arc::new(Crowd { phase: AtomicU8::new(WARM_UP), latency, counts }))
    }

    /// The asker number `lane`.
    pub(crate) fn asker(self: &Arc<Crowd>, lane: usize) -> Asker {
        Asker { crowd: Arc::clone(self), lane, count: 0, begun: lane as u32 % SAMPLED }
    }

    /// Waits through the warm-up and the counted time, then sends all askers home. `read` reads what else is counted, at
    /// both ends of the counted time.
    pub(crate) fn keep_time<T>(&self, span: Span, read: impl Fn() -> Result<T, Error>) -> Result<Time<T>, Error> {
        let time = self.kept_time(span, read);
        self.phase.store(OVER, Ordering::Relaxed);
        time
    }

    fn kept_time<T>(&self, span: Span, read: impl Fn() -> Result<T, Error>) -> Result<Time<T>, Error> {
        thread::sleep(span.warm);
        self.phase.store(COUNTING, Ordering::Relaxed);
        let (opened, count_before, before) = (Instant::now(), self.count(), read()?);
        thread::sleep((opened + span.steady).saturating_duration_since(Instant::now()));
        // As a floor that owns its thread, it counts at least one round trip.
        let gives_up = Instant::now() + PATIENCE;
        while self.lock().is_empty() && Instant::now() < gives_up {
            thread::sleep(Duration::from_millis(1));
        }
        // In the same order as above: what reading takes cancels out.
        let (closed, count_after, after) = (Instant::now(), self.count(), read()?);
        Ok(Time { opened, closed, count: count_after - count_before, before, after })
    }

    fn lock(&self) -> MutexGuard<'_, Histogram<u64>> {
        self.latency.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self) -> u64 {
        self.counts.iter().map(|count| count.0.load(Ordering::Relaxed)).sum()
    }

    /// What was counted in this time, once all askers are home.
    pub(crate) fn into_meter<T>(self: Arc<Crowd>, time: &Time<T>) -> Result<Meter, Error> {
        let crowd = Arc::into_inner(self).ok_or("an asker outlived the measurement")?;
        let latency = crowd.latency.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(Meter::counted(latency, time.opened, time.closed, time.count))
    }
}

/// The counted time.
pub(crate) struct Time<T> {
    opened: Instant,
    closed: Instant,
    /// Asks answered in it.
    pub(crate) count: u64,
    pub(crate) before: T,
    pub(crate) after: T,
}

/// One asker of a crowd, which has one ask in flight.
pub(crate) struct Asker {
    crowd: Arc<Crowd>,
    lane: usize,
    count: u64,
    /// Asks since the last one that was timed.
    begun: u32,
}

impl Asker {
    /// Begins an ask: the time, if it is to be timed.
    #[inline]
    pub(crate) fn begin(&mut self) -> Option<Instant> {
        self.begun += 1;
        (self.begun == SAMPLED).then(|| {
            self.begun = 0;
            Instant::now()
        })
    }

    /// Ends an ask; false means the time is over.
    #[inline]
    pub(crate) fn end(&mut self, begun: Option<Instant>) -> bool {
        let now = begun.map(|begun| (begun, Instant::now()));
        self.count += 1;
        self.crowd.counts[self.lane].0.store(self.count, Ordering::Relaxed);
        let phase = self.crowd.phase.load(Ordering::Relaxed);
        if phase == COUNTING
            && let Some((begun, now)) = now
        {
            self.crowd.lock().saturating_record(now.duration_since(begun).as_nanos() as u64);
        }
        phase != OVER
    }

    /// Whether nothing counts yet: the time to compare answers with what was asked.
    #[inline]
    pub(crate) fn is_warming_up(&self) -> bool {
        self.crowd.phase.load(Ordering::Relaxed) == WARM_UP
    }
}

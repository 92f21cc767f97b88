//! What one measurement yields.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::Error;

/// How long one measurement runs.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    /// Until caches, tables and buffers have their steady size; nothing is counted.
    pub(crate) warm: Duration,
    /// What is counted.
    pub(crate) steady: Duration,
}

/// Collects the latencies of one asking thread.
///
/// All memory is taken when it is made, so recording never shows up among the allocations it is there to count.
/// It records only between [`open`](Meter::open) and [`close`](Meter::close).
pub(crate) struct Meter {
    latency: Histogram<u64>,
    opened: Option<Instant>,
    last: Instant,
    closed: bool,
    late: u64,
    unsent: u64,
}

impl Meter {
    /// Latencies from 1 ns to 60 s with 3 significant digits; longer ones count as 60 s.
    pub(crate) fn new() -> Result<Meter, Error> {
        let latency = Meter::histogram()?;
        Ok(Meter { latency, opened: None, last: Instant::now(), closed: false, late: 0, unsent: 0 })
    }

    /// What holds the latencies of a meter.
    pub(crate) fn histogram() -> Result<Histogram<u64>, Error> {
        Ok(Histogram::new_with_bounds(1, 60_000_000_000, 3)?)
    }

    /// Ends the warm-up.
    pub(crate) fn open(&mut self, now: Instant) {
        self.opened = Some(now);
        self.last = now;
    }

    /// Ends the counting.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    /// Whether counting has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Counts one round trip if counting is on, and says whether it is.
    #[inline]
    pub(crate) fn record(&mut self, sent: Instant, now: Instant) -> bool {
        let counting = self.opened.is_some() && !self.closed;
        if counting {
            self.latency.saturating_record(now.duration_since(sent).as_nanos() as u64);
            self.last = now;
        }
        counting
    }

    /// Counts an ask of an open loop that was sent long after it was due.
    pub(crate) fn count_late(&mut self) {
        self.late += 1;
    }

    /// Counts an ask of an open loop that was due and never sent: it is no round trip, but the latencies hold how long
    /// it waited.
    pub(crate) fn record_unsent(&mut self, due: Instant, now: Instant) {
        self.latency.saturating_record(now.duration_since(due).as_nanos() as u64);
        self.unsent += 1;
    }

    /// Round trips counted so far.
    pub(crate) fn count(&self) -> u64 {
        self.latency.len() - self.unsent
    }
}

/// A meter that opens and closes by itself, for loops that own their thread.
///
/// The counted time starts when the meter really opens: a thread that was off its CPU when the warm-up should have
/// ended still counts for as long as it was told to, and counts at least one round trip.
pub(crate) struct TimedMeter {
    meter: Meter,
    opens: Instant,
    closes: Instant,
    steady: Duration,
}

impl TimedMeter {
    /// Starts the warm-up now.
    pub(crate) fn start(span: Span) -> Result<TimedMeter, Error> {
        let meter = Meter::new()?;
        let opens = Instant::now() + span.warm;
        Ok(TimedMeter { meter, opens, closes: opens + span.steady, steady: span.steady })
    }

    /// Counts one round trip; false means the time is over.
    #[inline]
    pub(crate) fn record(&mut self, sent: Instant, now: Instant) -> bool {
        if self.meter.record(sent, now) {
            return now < self.closes;
        }
        if now >= self.opens {
            self.meter.open(now);
            self.closes = now + self.steady;
        }
        true
    }

    /// When the time is over, as far as is known before the meter has opened.
    pub(crate) fn closes(&self) -> Instant {
        self.closes
    }

    /// What was counted.
    pub(crate) fn into_meter(self) -> Meter {
        self.meter
    }
}

/// The result of one measurement, over all its threads.
pub(crate) struct Sample {
    /// Round trips in nanoseconds; in an open loop from when the ask was due, also of asks that were never sent.
    pub(crate) latency: Histogram<u64>,
    /// Round trips per second.
    pub(crate) rate: f64,
    /// Asks of an open loop that were sent more than 1 ms after they were due.
    pub(crate) late: u64,
    /// Asks of an open loop that were due and never sent, since others took too long.
    pub(crate) unsent: u64,
    /// Allocations of the asking and the answering cores per ask; a floor has none to count.
    pub(crate) allocs_per_op: Option<f64>,
    /// `io_uring_enter` calls of the asking and the answering cores per ask, and their sends without one.
    pub(crate) enters_per_op: Option<f64>,
}

impl Sample {
    /// Puts the threads' counts together. Fails if nothing was counted.
    pub(crate) fn of(meters: impl IntoIterator<Item = Meter>) -> Result<Sample, Error> {
        let mut all = Meter::histogram()?;
        let (mut rate, mut late, mut unsent) = (0.0, 0, 0);
        for meter in meters {
            let seconds = meter.opened.map_or(0.0, |opened| meter.last.duration_since(opened).as_secs_f64());
            if seconds > 0.0 {
                rate += meter.count() as f64 / seconds;
            }
            late += meter.late;
            unsent += meter.unsent;
            all.add(&meter.latency)?;
        }
        if all.is_empty() {
            return Err("no round trip finished in the time given; try a larger --seconds".into());
        }
        Ok(Sample { latency: all, rate, late, unsent, allocs_per_op: None, enters_per_op: None })
    }

    /// The median sample by this figure, which is lower where the sample is better; of an even number the better one of
    /// the two in the middle.
    pub(crate) fn median(mut rounds: Vec<Sample>, merit: impl Fn(&Sample) -> f64) -> Option<Sample> {
        rounds.sort_by(|a, b| merit(a).total_cmp(&merit(b)));
        (!rounds.is_empty()).then(|| rounds.swap_remove((rounds.len() - 1) / 2))
    }

    /// The latency in nanoseconds that this share of the round trips did not exceed.
    pub(crate) fn at(&self, quantile: f64) -> u64 {
        self.latency.value_at_quantile(quantile)
    }
}

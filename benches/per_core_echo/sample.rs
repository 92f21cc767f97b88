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

/// One ask of so many is timed, with two readings of the clock: one reading of each ask would take longer than
/// everything else on the shortest paths. All asks are counted.
pub(crate) const SAMPLED: u32 = 16;

/// The start of an ask: the time if it is one of those that are timed.
#[derive(Clone, Copy)]
pub(crate) struct Begun(Option<Instant>);

/// Collects the latencies of one asking thread, and counts its asks.
///
/// All memory is taken when it is made, so recording never shows up among the allocations it is there to count.
/// It records only between [`open`](Meter::open) and [`close`](Meter::close).
pub(crate) struct Meter {
    latency: Histogram<u64>,
    opened: Option<Instant>,
    /// The latest reading of the clock, and the latest that counted.
    latest: Instant,
    last: Instant,
    closed: bool,
    /// One of so many asks is timed.
    sampled: u32,
    begun: u32,
    /// Round trips counted so far, and those of them until `last`.
    count: u64,
    count_at_last: u64,
    late: u64,
    unsent: u64,
}

impl Meter {
    /// Latencies from 1 ns to 60 s with 3 significant digits, of one ask of `sampled`; longer ones count as 60 s.
    pub(crate) fn new(sampled: u32) -> Result<Meter, Error> {
        let now = Instant::now();
        Ok(Meter {
            latency: Meter::histogram()?,
            opened: None,
            latest: now,
            last: now,
            closed: false,
            sampled,
            begun: 0,
            count: 0,
            count_at_last: 0,
            late: 0,
            unsent: 0,
        })
    }

    /// A meter that was open from `opened` to `closed`, with what others have counted.
    pub(crate) fn counted(latency: Histogram<u64>, opened: Instant, closed: Instant, count: u64) -> Meter {
        Meter {
            latency,
            opened: Some(opened),
            latest: closed,
            last: closed,
            closed: true,
            sampled: SAMPLED,
            begun: 0,
            count,
            count_at_last: count,
            late: 0,
            unsent: 0,
        }
    }

    /// What holds the latencies of a meter.
    pub(crate) fn histogram() -> Result<Histogram<u64>, Error> {
        Ok(Histogram::new_with_bounds(1, 60_000_000_000, 3)?)
    }

    /// Ends the warm-up.
    pub(crate) fn open(&mut self, now: Instant) {
        self.opened = Some(now);
        (self.latest, self.last) = (now, now);
    }

    /// Ends the counting.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    /// Whether counting has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether round trips count at present.
    #[inline]
    pub(crate) fn is_counting(&self) -> bool {
        self.opened.is_some() && !self.closed
    }

    /// The latest reading of the clock.
    #[inline]
    pub(crate) fn latest(&self) -> Instant {
        self.latest
    }

    /// Begins an ask.
    #[inline]
    pub(crate) fn begin(&mut self) -> Begun {
        Begun(self.begins_timed().then(Instant::now))
    }

    /// Ends an ask: counts it if counting is on. Gives the time, if it was read.
    #[inline]
    pub(crate) fn end(&mut self, Begun(begun): Begun) -> Option<Instant> {
        match begun {
            Some(begun) => {
                let now = Instant::now();
                self.record(begun, now);
                Some(now)
            }
            None => {
                self.count += u64::from(self.is_counting());
                None
            }
        }
    }

    /// Ends an ask and begins the next one, with one reading of the clock where both are timed.
    #[inline]
    pub(crate) fn next(&mut self, begun: Begun) -> Begun {
        let now = self.end(begun);
        self.begin_at(now)
    }

    #[inline]
    fn begin_at(&mut self, now: Option<Instant>) -> Begun {
        Begun(self.begins_timed().then(|| now.unwrap_or_else(Instant::now)))
    }

    #[inline]
    fn begins_timed(&mut self) -> bool {
        self.begun += 1;
        let timed = self.begun == self.sampled;
        if timed {
            self.begun = 0;
        }
        timed
    }

    /// Counts one round trip if counting is on.
    #[inline]
    pub(crate) fn record(&mut self, sent: Instant, now: Instant) {
        self.latest = now;
        if self.is_counting() {
            self.last = now;
            self.latency.saturating_record(now.duration_since(sent).as_nanos() as u64);
            self.count += 1;
            self.count_at_last = self.count;
        }
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
        self.count
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
    /// Starts the warm-up now; one ask of `sampled` is timed.
    pub(crate) fn start(span: Span, sampled: u32) -> Result<TimedMeter, Error> {
        let meter = Meter::new(sampled)?;
        let opens = Instant::now() + span.warm;
        Ok(TimedMeter { meter, opens, closes: opens + span.steady, steady: span.steady })
    }

    /// Begins an ask.
    #[inline]
    pub(crate) fn begin(&mut self) -> Begun {
        self.meter.begin()
    }

    /// Ends an ask and begins the next one; none if the time is over.
    #[inline]
    pub(crate) fn next(&mut self, begun: Begun) -> Option<Begun> {
        let now = self.meter.end(begun);
        if let Some(now) = now
            && !self.goes_on(now)
        {
            return None;
        }
        Some(self.meter.begin_at(now))
    }

    fn goes_on(&mut self, now: Instant) -> bool {
        if self.meter.is_counting() {
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
    /// Nanoseconds of those round trips that were timed; in an open loop from when the ask was due, also of asks that were
    /// never sent.
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
    /// Times per ask that a thread of the process fell asleep, each of which somebody had to wake; known where threads
    /// that are no core ask.
    pub(crate) sleeps_per_op: Option<f64>,
}

impl Sample {
    /// Puts the threads' counts together. Fails if nothing was counted.
    pub(crate) fn of(meters: impl IntoIterator<Item = Meter>) -> Result<Sample, Error> {
        let mut all = Meter::histogram()?;
        let (mut rate, mut late, mut unsent) = (0.0, 0, 0);
        for meter in meters {
            let seconds = meter.opened.map_or(0.0, |opened| meter.last.duration_since(opened).as_secs_f64());
            if seconds > 0.0 {
                rate += meter.count_at_last as f64 / seconds;
            }
            late += meter.late;
            unsent += meter.unsent;
            all.add(&meter.latency)?;
        }
        if all.is_empty() {
            return Err("no round trip finished in the time given; try a larger --seconds".into());
        }
        Ok(Sample { latency: all, rate, late, unsent, allocs_per_op: None, enters_per_op: None, sleeps_per_op: None })
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

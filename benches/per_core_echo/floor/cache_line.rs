//! Numbers passed between two threads through shared cache lines.
//!
//! With a window of one this is the classic ping-pong: one line there, one line back. A larger window has that many
//! lines each way, used in turn. Nothing that passes data between two cores can be faster.

use std::hint;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::Error;
use crate::sample::{Begun, Meter, Span, TimedMeter};

/// The answering side ends when it reads this.
const STOP: u64 = u64::MAX;
/// Spins between two looks at the clock.
const SPINS: u32 = 1 << 16;
/// The answering thread is gone if nothing came for so long after the end.
const PATIENCE: Duration = Duration::from_secs(5);

// 128 bytes: adjacent lines are often fetched in pairs.
#[repr(align(128))]
struct Line(AtomicU64);

/// The lines of one pair of threads.
pub(super) struct Lines {
    there: Box<[Line]>,
    back: Box<[Line]>,
}

impl Lines {
    /// `window` lines each way.
    pub(super) fn new(window: usize) -> Lines {
        let lines = || (0..window).map(|_| Line(AtomicU64::new(0))).collect();
        Lines { there: lines(), back: lines() }
    }
}

/// Keeps all lines in flight until the time is over, then stops the answering side.
pub(super) fn ask(lines: &Lines, sampled: u32, span: Span) -> Result<Meter, Error> {
    let result = ask_all(lines, sampled, span);
    for line in &lines.there {
        line.0.store(STOP, Ordering::Release);
    }
    result
}

fn ask_all(lines: &Lines, sampled: u32, span: Span) -> Result<Meter, Error> {
    let mut meter = TimedMeter::start(span, sampled)?;
    let mut started: Vec<Begun> = lines.there.iter().map(|_| meter.begin()).collect();
    for line in &lines.there {
        line.0.store(1, Ordering::Release);
    }
    let mut lap = 1;
    loop {
        for ((there, back), started) in lines.there.iter().zip(&lines.back).zip(&mut started) {
            await_lap(back, lap, meter.closes())?;
            let Some(next) = meter.next(*started) else { return Ok(meter.into_meter()) };
            *started = next;
            there.0.store(lap + 1, Ordering::Release);
        }
        lap += 1;
    }
}

#[inline]
fn await_lap(line: &Line, lap: u64, closes: Instant) -> Result<(), Error> {
    loop {
        for _ in 0..SPINS {
            if line.0.load(Ordering::Acquire) == lap {
                return Ok(());
            }
            hint::spin_loop();
        }
        if Instant::now() > closes + PATIENCE {
            return Err("the answering thread of the floor does not answer".into());
        }
    }
}

/// Copies every number to the line back until told to stop.
pub(super) fn answer(lines: &Lines) -> Result<(), Error> {
    let mut lap = 1;
    loop {
        for (there, back) in lines.there.iter().zip(&lines.back) {
            loop {
                match there.0.load(Ordering::Acquire) {
                    STOP => return Ok(()),
                    seen if seen == lap => break,
                    _ => hint::spin_loop(),
                }
            }
            back.0.store(lap, Ordering::Release);
        }
        lap += 1;
    }
}

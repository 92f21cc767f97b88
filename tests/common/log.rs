//! Keeps what the library logs.

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

static LINES: Mutex<Vec<Line>> = Mutex::new(Vec::new());
static KEPT: Condvar = Condvar::new();
static DEBUG: AtomicBool = AtomicBool::new(false);

/// A line of the log.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) level: Level,
    pub(crate) target: &'static str,
    /// Its fields, the message first.
    pub(crate) text: String,
}

struct Keeper;

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = write!(self.0, "{}={value:?} ", field.name());
    }
}

impl Subscriber for Keeper {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN || (DEBUG.load(Relaxed) && *metadata.level() <= Level::DEBUG)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        let (level, target) = (*event.metadata().level(), event.metadata().target());
        LINES.lock().unwrap_or_else(PoisonError::into_inner).push(Line { level, target, text: text.0 });
        KEPT.notify_all();
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Keeps warnings and errors of this process from now on; what was kept so far is dropped. Tests that count lines call it
/// once their envs have started: an env warns of each feature that the kernel lacks.
pub(crate) fn keep() {
    // Set once; a second test of the same binary finds it set.
    let _ = tracing::subscriber::set_global_default(Keeper);
    take();
}

/// The same down to DEBUG, for a test binary that always calls this.
pub(crate) fn keep_debug() {
    DEBUG.store(true, Relaxed);
    keep();
}

/// What was kept since.
pub(crate) fn take() -> Vec<(Level, String)> {
    take_lines().into_iter().map(|line| (line.level, line.text)).collect()
}

/// The same with the targets.
pub(crate) fn take_lines() -> Vec<Line> {
    std::mem::take(&mut LINES.lock().unwrap_or_else(PoisonError::into_inner))
}

/// How many lines were kept since.
pub(crate) fn count() -> usize {
    LINES.lock().unwrap_or_else(PoisonError::into_inner).len()
}

/// Waits until so many of the lines that are kept are as `wanted`, without any help for the envs that log them. Returns
/// them, and drops what was kept.
pub(crate) fn wait_for(count: usize, wanted: impl Fn(&Line) -> bool) -> Vec<Line> {
    let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    let few = |lines: &mut Vec<Line>| lines.iter().filter(|line| wanted(line)).count() < count;
    let (mut lines, ended) = KEPT.wait_timeout_while(lines, super::LIMIT, few).unwrap_or_else(PoisonError::into_inner);
    assert!(!ended.timed_out(), "{count} such lines do not come: {lines:?}");
    std::mem::take(&mut *lines).into_iter().filter(|line| wanted(line)).collect()
}

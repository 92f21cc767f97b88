//! A bar while it runs, for people only.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::plan::Run;

/// The progress bar on stderr; nothing at all where stderr is not a terminal.
///
/// It draws only between measurements: a thread that ticks would take time from the cores being measured.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar of `slots` steps.
    pub(crate) fn new(slots: u32) -> Progress {
        let target =
            if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(u64::from(slots)), target);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {eta} left  {msg}") {
            bar.set_style(style);
        }
        Progress { bar }
    }

    /// Says what is being measured.
    pub(crate) fn show(&self, side: &str, run: &Run) {
        if !self.bar.is_hidden() {
            self.bar.set_message(format!("{run}, {side}"));
        }
    }

    /// One measurement is done.
    pub(crate) fn step(&self) {
        self.bar.inc(1);
    }

    /// Clears the line for the table.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

//! How far a sweep is: a bar with the time left on a terminal, a line for every tenth elsewhere.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Progress of the designs that have to be run.
pub struct Progress {
    bar: ProgressBar,
    total: usize,
    done: AtomicUsize,
    lines: bool,
}

/// One line to standard error.
pub(crate) fn log(line: &str) {
    // A closed standard error is no reason to lose a sweep.
    let _ = writeln!(std::io::stderr(), "{line}");
}

impl Progress {
    /// Progress on standard error.
    #[must_use]
    pub fn new(total: usize) -> Self {
        let lines = !std::io::stderr().is_terminal();
        let target = if lines { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let style = ProgressStyle::with_template("{elapsed} {bar:30} {pos}/{len} designs, {eta} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(Some(total as u64), target).with_style(style);
        bar.tick();
        Self { bar, total, done: AtomicUsize::new(0), lines: lines && total > 0 }
    }

    /// Progress nobody sees.
    #[must_use]
    pub fn hidden() -> Self {
        Self { bar: ProgressBar::hidden(), total: 0, done: AtomicUsize::new(0), lines: false }
    }

    /// One more is done.
    pub fn one(&self) {
        self.bar.inc(1);
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if self.lines && tenth(done, self.total) > tenth(done - 1, self.total) {
            let left = self.bar.elapsed().as_secs_f64() * (self.total - done) as f64 / done as f64;
            log(&format!("{done} of {} designs, about {left:.0} s left", self.total));
        }
    }

    /// All are done, or no more will be.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}

fn tenth(done: usize, total: usize) -> usize {
    done.saturating_mul(10) / total.max(1)
}

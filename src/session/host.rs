//! Host time: reported beside a run, never seen by it.

#[allow(
    clippy::disallowed_types,
    reason = "host speed is what this measures; it never reaches a model or a record"
)]
use std::time::Instant;

/// Measures host time.
#[allow(clippy::disallowed_types, reason = "see above")]
pub(super) struct Stopwatch(Instant);

impl Stopwatch {
    pub(super) fn start() -> Self {
        #[allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "see above")]
        Self(Instant::now())
    }

    pub(super) fn nanoseconds(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

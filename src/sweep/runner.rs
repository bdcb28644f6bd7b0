//! Runs the designs of a plan over all threads of a pool, keeps each result in a file, and takes up finished ones.
//!
//! One run is one thread; threads differ only in which design they take, and nothing depends on their order.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;
use reports::RunRecord;
use reports::write::atomic;

use super::plan::{Design, Plan, message};
use super::progress::Progress;
use crate::error::CliError;
use crate::session::RunRequest;

/// Simulates one request; the second argument hears of every token.
pub type Simulate<'a> = &'a (dyn Fn(&RunRequest, &mut dyn FnMut(u64)) -> Result<RunRecord, CliError> + Sync);

/// What the tables need of a record.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// Values of the goals' metrics.
    pub values: Vec<Option<f64>>,
    /// Digest of the run's events.
    pub digest: String,
}

/// What became of a design.
pub type Outcome = Result<Figures, String>;

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Designs whose result was there.
    pub reused: usize,
    /// Designs simulated.
    pub ran: usize,
}

/// Runs what has no result yet.
pub struct Runner<'a> {
    /// What to run.
    pub plan: &'a Plan<'a>,
    /// Folder of results, one file a design.
    pub results: &'a Path,
    /// The simulator.
    pub simulate: Simulate<'a>,
    /// Set from outside to end early.
    pub stop: &'a AtomicBool,
}

/// Unwinds a run that is no longer wanted.
struct Stopped;

impl Runner<'_> {
    /// Runs in the current thread pool; outcomes in the order of the designs.
    ///
    /// # Errors
    /// If it was stopped before the end, or a result cannot be written.
    pub fn run(
        &self,
        reused: impl FnOnce(usize, usize) -> Progress,
    ) -> Result<(Vec<Outcome>, Tally), CliError> {
        let designs = &self.plan.designs;
        let mut outcomes: Vec<Option<Outcome>> =
            designs.par_iter().with_max_len(1).map(|design| self.reuse(design).map(Ok)).collect();
        let missing: Vec<usize> = (0..designs.len()).filter(|i| outcomes[*i].is_none()).collect();
        let tally = Tally { reused: designs.len() - missing.len(), ran: missing.len() };
        let progress = reused(tally.reused, missing.len());
        let new: Vec<Option<Outcome>> = missing
            .par_iter()
            .with_max_len(1)
            .map(|index| self.one(&designs[*index], &progress))
            .collect::<Result<_, CliError>>()?;
        progress.end();
        let done = tally.reused + new.iter().flatten().count();
        for (index, outcome) in missing.into_iter().zip(new) {
            outcomes[index] = outcome;
        }
        outcomes.into_iter().collect::<Option<Vec<_>>>().map(|outcomes| (outcomes, tally)).ok_or_else(|| {
            CliError::Interrupted(format!(
                "{done} of {} designs are done; the same command goes on from here",
                designs.len()
            ))
        })
    }

    fn path(&self, design: &Design) -> PathBuf {
        self.results.join(format!("{}.json", design.key))
    }

    /// The figures of an earlier result, if it is whole and of this design.
    fn reuse(&self, design: &Design) -> Option<Figures> {
        let text = std::fs::read_to_string(self.path(design)).ok()?;
        let record = RunRecord::from_json(&text).ok()?;
        record.check().ok()?;
        let request = self.plan.request(design).ok()?;
        self.plan.made(&request, &record).then(|| self.figures(&record))
    }

    fn figures(&self, record: &RunRecord) -> Figures {
        Figures { values: self.plan.space.goals.values(record), digest: record.digest.clone() }
    }

    /// Runs one design; none if the sweep was stopped before it ended.
    fn one(&self, design: &Design, progress: &Progress) -> Result<Option<Outcome>, CliError> {
        if self.stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let record = match catch_unwind(AssertUnwindSafe(|| self.simulated(design))) {
            Ok(record) => record.map_err(|e| message(&e)),
            Err(payload) if payload.is::<Stopped>() => return Ok(None),
            Err(payload) => Err(panic_message(payload.as_ref())),
        };
        let outcome = match record {
            Ok(record) => {
                let text = record.to_json().map_err(|e| CliError::Simulation(e.to_string()))?;
                atomic(&self.path(design), &text).map_err(|e| CliError::input(e.to_string()))?;
                Ok(self.figures(&record))
            }
            Err(why) => Err(why),
        };
        progress.one();
        Ok(Some(outcome))
    }

    fn simulated(&self, design: &Design) -> Result<RunRecord, CliError> {
        let request = self.plan.request(design)?;
        (self.simulate)(&request, &mut |_| {
            if self.stop.load(Ordering::Relaxed) {
                // Not a panic: no message, no hook, just the way out of a run.
                resume_unwind(Box::new(Stopped));
            }
        })
    }
}

fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned());
    format!(
        "the simulator panicked: {}",
        text.as_deref().map_or("no message".to_owned(), super::options::one_line)
    )
}

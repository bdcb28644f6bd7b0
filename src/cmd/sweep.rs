//! `presil sweep`: every point of a grid, a table of them and the front of the best.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rayon::ThreadPoolBuilder;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::error::CliError;
use crate::session;
use crate::sweep::plan::Plan;
use crate::sweep::progress::{Progress, log};
use crate::sweep::runner::Runner;
use crate::sweep::space::Space;
use crate::sweep::table::Table;
use crate::sweep::{RESULTS, build, claim, write};

/// Exit code of an interrupted sweep.
const INTERRUPTED: i32 = 75;
/// Failed points named in the last message.
const NAMED: usize = 5;

/// Options of `presil sweep`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Finished points are kept in DIR/results and not run again; a killed or interrupted sweep goes \
                        on where it was. Another build of presil makes them again. Writes points.csv, pareto.csv, \
                        scatter.svg and sweep.json.\n\nExample: presil sweep space.toml -o sweep-1 --jobs 2"
)]
pub struct Args {
    /// What to vary and what for (TOML; `presil schema sweep` describes it)
    #[arg(value_name = "SPACE.toml")]
    space: PathBuf,
    /// Folder of the results, made if missing
    #[arg(short, long = "output", value_name = "DIR")]
    output: PathBuf,
    /// Points run at the same time; as many as the machine has processors if not given
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Print sweep.json
    #[arg(long)]
    json: bool,
}

/// Reads, plans, runs and writes.
///
/// # Errors
/// If the file is wrong, the sweep was interrupted, or a point failed.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<(), CliError> {
    let space = Space::read(&args.space)?;
    let jobs = args.jobs.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
    let pool = ThreadPoolBuilder::new()
        .num_threads(jobs)
        .build()
        .map_err(|e| CliError::input(format!("--jobs: {jobs} threads cannot be started: {e}")))?;
    let plan = pool.install(|| Plan::new(&space))?;
    let (_claimed, removed) = claim(&args.output, build().as_deref())?;
    if removed > 0 {
        log(&format!("{removed} results of another build of presil are made again"));
    }
    let stop = stop_on_signals()?;
    let results = args.output.join(RESULTS);
    let runner = Runner {
        plan: &plan,
        results: &results,
        simulate: &|request, progress| Ok(session::run(request, progress)?.record),
        stop: &stop,
    };
    let (outcomes, tally) = pool.install(|| {
        runner.run(|reused, missing| {
            let (points, designs) = (plan.points.len(), plan.designs.len());
            log(&format!("{points} points, {designs} different designs: reused {reused}, {missing} to run"));
            Progress::new(missing)
        })
    })?;
    let table = Table::new(&plan, &outcomes);
    let mut document = serde_json::to_string_pretty(&table.document()).map_err(std::io::Error::from)?;
    document.push('\n');
    let files = write(&args.output, &table, &document)?;
    log(&format!(
        "ran {}, reused {}; wrote {files} files to {}",
        tally.ran,
        tally.reused,
        args.output.display()
    ));
    for path in table.unknown() {
        log(&format!("warning: no point has {path}: what depends on it is not feasible and on no front"));
    }
    let text = if args.json { document } else { table.text() };
    out.write_all(text.as_bytes())?;
    verdict(&table, plan.points.len())
}

/// A failed point makes the sweep fail, once everything is written.
fn verdict(table: &Table<'_>, points: usize) -> Result<(), CliError> {
    let failed: Vec<(usize, &str)> = table.failed().collect();
    if failed.is_empty() {
        return Ok(());
    }
    let mut message = format!("{} of {points} points", failed.len());
    for (point, why) in failed.iter().take(NAMED) {
        message.push_str(&format!("\n  point {point}: {why}"));
    }
    if failed.len() > NAMED {
        message.push_str(&format!("\n  and {} more, see points.csv", failed.len() - NAMED));
    }
    Err(CliError::DoesNotHold(message))
}

/// A flag that the first signal sets; a second one ends the process at once, which costs only what is in flight.
fn stop_on_signals() -> Result<Arc<AtomicBool>, CliError> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, INTERRUPTED, Arc::clone(&stop))
            .and_then(|_| flag::register(signal, Arc::clone(&stop)))
            .map_err(|e| CliError::Simulation(format!("signal {signal} cannot be caught: {e}")))?;
    }
    Ok(stop)
}

//! The machinery of a sweep around a stand-in for the simulator: failures, panics, stops, damaged results.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use rayon::ThreadPoolBuilder;
use reports::RunRecord;

use super::plan::Plan;
use super::progress::Progress;
use super::runner::{Outcome, Runner, Tally};
use super::space::Space;
use super::table::Table;
use super::{RESULTS, claim};
use crate::error::CliError;
use crate::session::{self, RunRequest};

/// Six points, of which 0 and 2 are the same design and 3 to 5 ask for more cores than there can be.
const SPACE: &str = "\
[base]
soc = \"tiny\"
model = \"qwen2.5-1.5b\"
prefill = 2
decode = 1
[grid]
\"npu.cores\" = [2, 9]
\"npu.frequency\" = [\"500 MHz\", \"600 MHz\", \"0.5 GHz\"]
[objectives]
minimise = [\"time.ttft_s\", \"energy.total_j\"]
constraints = [\"time.ttft_s < 1000\"]
";

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("presil-sweep-{}-{name}", std::process::id()));
    // Left over from a process of the same number.
    let _ = std::fs::remove_dir_all(&folder);
    folder
}

/// The real simulator, but each design is only simulated for the first of all tests.
fn simulate(request: &RunRequest, _: &mut dyn FnMut(u64)) -> Result<RunRecord, CliError> {
    static KNOWN: Mutex<BTreeMap<(String, u64), RunRecord>> = Mutex::new(BTreeMap::new());
    let name = (request.soc.hash(), request.seed);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(record) = known.get(&name) {
        return Ok(record.clone());
    }
    let record = session::run(request, &mut |_| {})?.record;
    known.insert(name, record.clone());
    Ok(record)
}

fn sweep(
    plan: &Plan<'_>,
    folder: &Path,
    jobs: usize,
    simulate: super::runner::Simulate<'_>,
    stop: &AtomicBool,
) -> Result<(Vec<Outcome>, Tally), CliError> {
    let (_claimed, _) = claim(folder, Some("this build"))?;
    let results = folder.join(RESULTS);
    let runner = Runner { plan, results: &results, simulate, stop };
    let pool = ThreadPoolBuilder::new().num_threads(jobs).build().expect("threads");
    pool.install(|| runner.run(|_, _| Progress::hidden()))
}

/// A space of four seeds on the small chip.
fn seeds() -> Space {
    let text = SPACE.replace(
        "\"npu.cores\" = [2, 9]\n\"npu.frequency\" = [\"500 MHz\", \"600 MHz\", \"0.5 GHz\"]",
        "seed = [1, 2, 3, 4]",
    );
    Space::parse("space.toml", &text).expect("a space")
}

#[test]
fn equal_designs_run_once_and_impossible_points_are_failed_rows() {
    let space = Space::parse("space.toml", SPACE).expect("a space");
    let plan = Plan::new(&space).expect("a plan");
    let ran = AtomicUsize::new(0);
    let counted = |request: &RunRequest, progress: &mut dyn FnMut(u64)| {
        ran.fetch_add(1, Ordering::Relaxed);
        simulate(request, progress)
    };
    let folder = folder("once");
    let (outcomes, tally) = sweep(&plan, &folder, 2, &counted, &AtomicBool::new(false)).expect("a sweep");
    assert_eq!((ran.load(Ordering::Relaxed), tally), (2, Tally { reused: 0, ran: 2 }));
    let table = Table::new(&plan, &outcomes);
    let failed: Vec<usize> = table.failed().map(|(point, _)| point).collect();
    assert_eq!(failed, [3, 4, 5]);
    assert_eq!(table.outcome(0), table.outcome(2));
    // Faster, at a higher price: both designs stand, and the first one's twin with it.
    assert!(table.front.contains(&0) == table.front.contains(&2));
    let csv = table.points_csv();
    assert_eq!(csv.lines().count(), 7);
    assert!(
        csv.starts_with("index,npu.cores,npu.frequency,status,error,feasible,pareto,time.ttft_s,"),
        "{csv}"
    );
    assert!(csv.lines().nth(4).is_some_and(|l| l.starts_with("3,9,500 MHz,failed,")), "{csv}");
    std::fs::remove_dir_all(folder).expect("a folder of ours");
}

#[test]
fn a_panic_fails_its_point_only_and_is_tried_again() {
    let space = seeds();
    let plan = Plan::new(&space).expect("a plan");
    let (folder, go_on) = (folder("panic"), AtomicBool::new(false));
    let fragile = |request: &RunRequest, progress: &mut dyn FnMut(u64)| {
        assert!(request.seed != 2 || go_on.load(Ordering::Relaxed), "seed {} is\n unlucky", request.seed);
        if request.seed == 3 && !go_on.load(Ordering::Relaxed) {
            return Err(CliError::Simulation("deadlock".to_owned()));
        }
        simulate(request, progress)
    };
    let never = AtomicBool::new(false);
    let (outcomes, _) = sweep(&plan, &folder, 2, &fragile, &never).expect("a sweep");
    let table = Table::new(&plan, &outcomes);
    let failed: Vec<(usize, &str)> = table.failed().collect();
    assert_eq!(
        failed,
        [(1, "the simulator panicked: seed 2 is; unlucky"), (2, "simulation fault: deadlock")]
    );
    go_on.store(true, Ordering::Relaxed);
    let (outcomes, tally) = sweep(&plan, &folder, 1, &fragile, &never).expect("a sweep");
    assert_eq!(tally, Tally { reused: 2, ran: 2 });
    assert!(outcomes.iter().all(Result::is_ok));
    std::fs::remove_dir_all(folder).expect("a folder of ours");
}

#[test]
fn a_stop_ends_the_run_in_flight_and_the_rest_is_made_up_for() {
    let space = seeds();
    let plan = Plan::new(&space).expect("a plan");
    let (folder, stop) = (folder("stop"), AtomicBool::new(false));
    let seen = Mutex::new(Vec::new());
    let stopping = |request: &RunRequest, progress: &mut dyn FnMut(u64)| {
        seen.lock().expect("no panic holds it").push(request.seed);
        let record = simulate(request, &mut |_| {})?;
        if request.seed == 2 {
            stop.store(true, Ordering::Relaxed);
            progress(1);
            unreachable!("a stopped run does not go on");
        }
        Ok(record)
    };
    let error = sweep(&plan, &folder, 1, &stopping, &stop).expect_err("stopped");
    assert_eq!(error.code(), 75);
    assert!(error.to_string().contains("1 of 4 designs are done"), "{error}");
    assert_eq!(*seen.lock().expect("not poisoned"), [1, 2]);
    let (outcomes, tally) = sweep(&plan, &folder, 1, &simulate, &AtomicBool::new(false)).expect("a sweep");
    assert_eq!(tally, Tally { reused: 1, ran: 3 });
    let table = Table::new(&plan, &outcomes).points_csv();
    let whole = self::folder("whole");
    let (outcomes, _) = sweep(&plan, &whole, 2, &simulate, &AtomicBool::new(false)).expect("a sweep");
    assert_eq!(table, Table::new(&plan, &outcomes).points_csv());
    for folder in [folder, whole] {
        std::fs::remove_dir_all(folder).expect("a folder of ours");
    }
}

#[test]
fn damaged_and_foreign_results_are_made_again() {
    let space = seeds();
    let plan = Plan::new(&space).expect("a plan");
    let folder = folder("damaged");
    let never = AtomicBool::new(false);
    sweep(&plan, &folder, 2, &simulate, &never).expect("a sweep");
    let path = |design: usize| folder.join(RESULTS).join(format!("{}.json", plan.designs[design].key));
    let text = std::fs::read_to_string(path(1)).expect("a result");
    let redone = |damaged: &[u8]| {
        std::fs::write(path(1), damaged).expect("a file");
        let (_, tally) = sweep(&plan, &folder, 1, &simulate, &never).expect("a sweep");
        assert_eq!(std::fs::read_to_string(path(1)).expect("a result"), text);
        tally.ran
    };
    assert_eq!(redone(text.as_bytes()), 0);
    assert_eq!(redone(&text.as_bytes()[..text.len() / 2]), 1, "cut short");
    assert_eq!(redone(b""), 1, "empty");
    assert_eq!(redone(text.replace("presil.run/1", "presil.run/0").as_bytes()), 1, "another schema");
    assert_eq!(redone(&std::fs::read(path(0)).expect("a result")), 1, "another design's result");
    assert_eq!(redone(text.replacen("\"total_j\": ", "\"total_j\": 1", 1).as_bytes()), 1, "a broken law");
    std::fs::write(path(0).with_extension("json.1.tmp"), "half").expect("a file");
    assert_eq!(redone(b"\xff\xfe"), 1, "not text");
    let names: BTreeSet<_> =
        std::fs::read_dir(folder.join(RESULTS)).expect("a folder").flatten().map(|e| e.path()).collect();
    let stamp = std::iter::once(folder.join(RESULTS).join("build"));
    assert_eq!(names, (0..4).map(path).chain(stamp).collect(), "nothing else is left behind");
    let claimed = claim(&folder, Some("this build")).expect("nobody has it");
    assert_eq!(claimed.1, 0, "its own results stay");
    assert!(claim(&folder, Some("this build")).is_err_and(|e| e.code() == 3));
    drop(claimed);
    assert_eq!(claim(&folder, Some("another build")).expect("nobody has it").1, 4);
    assert_eq!(sweep(&plan, &folder, 1, &simulate, &never).expect("a sweep").1, Tally { reused: 0, ran: 4 });
    assert_eq!(claim(&folder, None).expect("nobody has it").1, 4, "an unknown build is nobody's");
    std::fs::remove_dir_all(&folder).expect("a folder of ours");
}

//! The law of arrays against formulas and a slot-by-slot count that know nothing of it.

use npu_model::array::{self, Array, Folding, Product, Rate};
use npu_model::study::discipline::EdgeFolds;
use npu_model::study::{ARRAYS, Dataflow, Discipline, Formats, LocalMemory, Study, WeightLoad};
use proptest::prelude::*;

fn study(name: &str, sets: &[&str], array: Array, dataflow: Dataflow, load: Option<WeightLoad>) -> Study {
    let (_, text) = ARRAYS.iter().find(|a| a.0 == name).expect("built in");
    let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
    Study {
        discipline: Discipline::parse(text, &sets).expect("valid"),
        array,
        dataflow,
        weight_load: load,
        formats: Formats::Int8,
        local: LocalMemory::in_proportion(array),
        memory: None,
    }
}

/// SCALE-Sim's published law: Sr, Sc and T by dataflow; cycles numbered from 0.
fn scale_sim(array: Array, dataflow: Dataflow, p: Product) -> u64 {
    let (rows, cols, steps, drain) = match dataflow {
        Dataflow::OutputStationary => (p.m, p.n, p.k, 0),
        Dataflow::InputStationary => (p.k, p.m, p.n, array.rows),
        _ => (p.k, p.n, p.m, array.rows),
    };
    let folds = rows.div_ceil(array.rows) * cols.div_ceil(array.cols);
    folds * (drain + array.rows + array.cols + steps - 2) - 1
}

fn sizes() -> impl Strategy<Value = (Array, Product)> {
    let array = (1u64..=256, 1u64..=256).prop_map(|(rows, cols)| Array { rows, cols });
    let product = (1u64..=5000, 1u64..=5000, 1u64..=5000).prop_map(|(m, k, n)| Product { m, k, n });
    (array, product)
}

/// Gemmini's controller, slot by slot: requests of row slots in order, reads that leave when the queue has room.
struct Controller {
    rows: u64,
    latency: u64,
    queue: u64,
    same_bank: bool,
}

impl Controller {
    /// Cycle after the last row's result, from the first read.
    fn run(&self, stream: u64, folds: u64, cols: u64) -> u64 {
        let mut reads: Vec<u64> = Vec::new();
        let mut read = |slots: u64| {
            for _ in 0..slots {
                let free = reads.last().map_or(0, |t| t + 1);
                // A queue holds what is on its way: one more is asked for when the oldest has come.
                let room = usize::try_from(self.queue).ok().and_then(|q| reads.len().checked_sub(q));
                let queued =
                    if self.latency > self.queue { room.map(|i| reads[i] + self.latency) } else { None };
                reads.push(free.max(queued.unwrap_or(0)));
            }
        };
        read(self.rows);
        for fold in 0..folds {
            let mut left = stream;
            while left > 0 {
                let chunk = left.min(self.rows);
                left -= chunk;
                let last_chunk = left == 0;
                // The last chunk of a fold takes the next fold's operand along.
                let paired = last_chunk && fold + 1 < folds;
                read(if paired { self.rows } else { chunk });
                if paired && self.same_bank {
                    read(self.rows);
                }
            }
        }
        let last = reads.last().copied().unwrap_or(0);
        // The last row crosses the array, the buffers before and behind it, and the scratchpad before that.
        last + 1 + (self.rows + cols - 2) + 3 + self.latency
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn exposed_loads_equal_scale_sims_formula((array, p) in sizes(), serial in any::<bool>()) {
        let name = if serial { "scalesim" } else { "default" };
        for dataflow in [Dataflow::WeightStationary, Dataflow::OutputStationary, Dataflow::InputStationary] {
            let outcome = study(name, &[], array, dataflow, Some(WeightLoad::Exposed)).run(p).expect("small");
            prop_assert_eq!(outcome.compute_cycles, scale_sim(array, dataflow, p) + 1);
            prop_assert_eq!(outcome.total_cycles, outcome.compute_cycles);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn gemminis_controller_counted_slot_by_slot(
        rows in 1u64..=16, m in 1u64..=60, k in 1u64..=60, n in 1u64..=60, latency in 1u64..=9, same_bank in any::<bool>()
    ) {
        // A chunk of two commands on an array of one row waits for them: not what is counted here.
        prop_assume!(rows > 1);
        let array = Array { rows, cols: rows };
        let sets = [format!("read-latency={latency}"), format!("same-bank={same_bank}")];
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        let outcome = study("gemmini", &sets, array, Dataflow::WeightStationary, None)
            .run(Product { m, k, n })
            .expect("small");
        let counted = Controller { rows, latency, queue: 5, same_bank }
            .run(m, k.div_ceil(rows) * n.div_ceil(rows), rows);
        prop_assert_eq!(outcome.compute_cycles, counted);
    }

    #[test]
    fn clipped_folds_are_no_slower_and_whole_ones_the_same((array, p) in sizes()) {
        for (name, _) in ARRAYS {
            for dataflow in [Dataflow::WeightStationary, Dataflow::OutputStationary, Dataflow::InputStationary] {
                for load in [WeightLoad::Exposed, WeightLoad::Hidden] {
                    let padded = study(name, &[], array, dataflow, Some(load));
                    let Ok(whole) = padded.run(p) else { continue };
                    let discipline = Discipline { edge_folds: EdgeFolds::Clipped, ..padded.discipline };
                    let clipped = Study { discipline, ..padded };
                    let edge = clipped.run(p).expect("as padded");
                    prop_assert!(edge.compute_cycles <= whole.compute_cycles, "{} {:?} {:?}", name, dataflow, load);
                    let times = |x: u64, unit: u64| (x % 5 + 1) * unit;
                    let even = Product {
                        m: times(p.m, array.rows * array.cols),
                        k: times(p.k, array.rows),
                        n: times(p.n, array.cols),
                    };
                    prop_assert_eq!(
                        clipped.run(even).expect("small").compute_cycles,
                        padded.run(even).expect("small").compute_cycles
                    );
                }
            }
        }
    }

    #[test]
    fn the_default_array_is_the_chips((array, p) in sizes()) {
        let run = |dataflow| {
            study("default", &[], array, dataflow, Some(WeightLoad::Hidden)).run(p).expect("small").compute_cycles
        };
        let total = |c: Option<array::Cycles>| c.and_then(|c| c.total()).expect("small") + 8;
        let folding = Folding::new(array.rows, Rate::Full, 0);
        prop_assert_eq!(run(Dataflow::WeightStationary), total(array::hidden_ws(array, p, folding)));
        prop_assert_eq!(run(Dataflow::OutputStationary), total(array::hidden_os(array, p, Rate::Full)));
    }
}

/// A fold of 5 of 8 rows and 3 of 8 columns costs its own exchange and registers.
#[test]
fn clipped_folds_in_closed_form() {
    let array = Array { rows: 8, cols: 8 };
    let run = |load, m, k, n| {
        let mut study = study("default", &[], array, Dataflow::WeightStationary, Some(load));
        study.discipline.edge_folds = EdgeFolds::Clipped;
        study.run(Product { m, k, n }).expect("small").compute_cycles
    };
    // Serial: (8 + 8+8-2 + 4) and (5 + 5+3-2 + 4), in all four combinations of rows and columns.
    let fold = |r: u64, c: u64| r + (r + c - 2) + 4;
    assert_eq!(run(WeightLoad::Exposed, 4, 13, 11), fold(8, 8) + fold(5, 8) + fold(8, 3) + fold(5, 3));
    // Hidden: the first load, then max(M, rows of the next) a fold, then M and the last fold's registers.
    assert_eq!(run(WeightLoad::Hidden, 4, 13, 11), 8 + 5 + 8 + 5 + 4 + (5 + 3 - 2) + 8);
}

#[test]
fn built_in_arrays_are_read_and_what_is_wrong_names_its_place() {
    for (name, text) in ARRAYS {
        assert_eq!(Some(Discipline::parse(text, &[]).expect(name)), Discipline::named(name), "{name}");
        assert!(Discipline::is_one(text), "{name}");
    }
    assert!(!Discipline::is_one("name = \"a chip\"\n[npu]\n"));
    let (_, gemmini) = ARRAYS[2];
    let refused = |text: &str, sets: &[&str]| {
        let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
        Discipline::parse(text, &sets).expect_err("wrong").to_string()
    };
    let typo = gemmini.replacen("bubble =", "buble =", 1);
    assert!(refused(&typo, &[]).starts_with("line 22: unknown field `buble`"), "{}", refused(&typo, &[]));
    let unsourced = gemmini.replacen("source = \"full command rate\"", "source = \"\"", 1);
    assert!(refused(&unsourced, &[]).contains("source is empty"), "{}", refused(&unsourced, &[]));
    let missing: String = gemmini.lines().filter(|l| !l.starts_with("skew")).collect::<Vec<_>>().join("\n");
    assert!(refused(&missing, &[]).contains("missing field `skew`"), "{}", refused(&missing, &[]));
    let zero = gemmini.replacen("round-to = { value = 1", "round-to = { value = 0", 1);
    assert_eq!(refused(&zero, &[]), "weight-stationary.hidden.round-to is 0; expected 1 to 4294967296");
    assert!(refused(gemmini, &["read-latncy=6"]).contains("no such key; there are bubble, chunk"));
    assert!(refused(gemmini, &["read-latency"]).contains("expected KEY=VALUE"));
    assert!(refused(gemmini, &["overlap=fast"]).contains("unknown variant `fast`"));
    assert!(refused(gemmini, &["lead=-1"]).contains("lead"), "{}", refused(gemmini, &["lead=-1"]));
    assert!(refused("[size]\n", &[]).contains("missing field"));
}

/// Parameters at their largest and sizes beyond counting: an answer or an error.
#[test]
fn nothing_overflows() {
    let largest =
        ["bubble", "fold-gap", "command-interval", "read-latency", "step-cycles", "constant", "lead", "tail"];
    for (name, _) in ARRAYS {
        for set in largest {
            let set = format!("{set}=4294967296");
            for rows in [1, 3, 1 << 20, u64::MAX] {
                for p in [
                    (1, 1, 1),
                    (u64::MAX, 1, 1),
                    (1, u64::MAX, 1),
                    (1, 1, u64::MAX),
                    (1 << 20, 1 << 21, 1 << 22),
                ] {
                    let array = Array { rows, cols: rows };
                    let p = Product { m: p.0, k: p.1, n: p.2 };
                    for dataflow in
                        [Dataflow::WeightStationary, Dataflow::OutputStationary, Dataflow::InputStationary]
                    {
                        let study = study(name, &[&set, "same-bank=true"], array, dataflow, None);
                        if let Ok(outcome) = study.run(p) {
                            assert!(outcome.total_cycles >= outcome.macs / rows.saturating_mul(rows));
                            let access = study.access(p, &outcome);
                            assert!(access.mapping_efficiency <= 1.0 + 1e-9);
                        }
                    }
                }
            }
        }
    }
}

//! Random chips and models: a run finishes with every conservation law kept, or says in the right words why not.
//! Never a panic, a deadlock or a hang.

#[path = "support/random.rs"]
mod random;

use std::cell::Cell;

use presil::CliError;
use presil::session::pages::PageChoice;
use presil::session::sampling::Sampling;
use presil::session::{RunRequest, run};
use proptest::prelude::*;
use random::{SCHEMES, chips, models, runner};
use soc_model::config::resolve;
use soc_model::soc::MemoryTiming;
use traces::workload::QuantScheme;

#[test]
fn a_random_chip_runs_a_random_model_or_says_why_not() {
    let all = (chips(), models(1024, 4096, 5000), 0usize..3, 1u32..=70, 1u32..=4, 0u32..=600, any::<u64>());
    let (ran, finished) = (Cell::new(0), Cell::new(0));
    runner(60)
        .run(&all, |(sets, model, quant, prefill_tokens, decode_tokens, context_tokens, seed)| {
            let quant = QuantScheme::named(SCHEMES[quant]).expect("a scheme");
            let soc = resolve("tiny", &sets).expect("a valid chip").config;
            let memory_model = MemoryTiming::Sampled;
            let request = RunRequest {
                soc,
                model,
                quant,
                prefill_tokens,
                decode_tokens,
                context_tokens,
                memory_model,
                firmware: None,
                seed,
                text: None,
                ids: None,
                sampling: Sampling::default(),
                pages: PageChoice::default(),
            };
            ran.set(ran.get() + 1);
            match run(&request, &mut |_| {}) {
                Ok(outcome) => {
                    // The record exists only if every law holds.
                    let tokens = outcome.record.to_json().expect("a record").len();
                    prop_assert!(tokens > 0);
                    finished.set(finished.get() + 1);
                }
                Err(CliError::Input(problems)) => prop_assert!(!problems.is_empty()),
                Err(CliError::Simulation(why)) => prop_assert!(why.contains("does not fit"), "{why}"),
                Err(other) => prop_assert!(false, "{other}"),
            }
            Ok(())
        })
        .unwrap_or_else(|e| panic!("{e}"));
    assert!(finished.get() * 2 > ran.get(), "{} of {} finished", finished.get(), ran.get());
}

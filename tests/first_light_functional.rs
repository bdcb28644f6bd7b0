//! A small model on the whole chip: the tokens are the reference's, and time does not depend on the values.

#[path = "support/reference.rs"]
mod reference;
#[path = "support/soc.rs"]
mod soc;


use reference::Reference;
use soc::{Case, Compute, SEED};
use soc_model::soc::RunResult;
use traces::image::random_tensors;

const SCHEMES: [&str; 3] = ["fp16", "w4a16-g128", "w8a8"];

/// The reference's greedy continuation.
fn expected(case: &Case) -> Vec<u32> {
    let mut model = Reference::new(&case.spec, &case.quant, &mut random_tensors(SEED, &case.spec));
    let mut blocks = case.blocks().into_iter();
    let mut logits = Vec::new();
    for token in &case.prompt {
        logits = model.step(*token as usize, blocks.next().expect("a block a position")).to_vec();
    }
    let mut out = Vec::new();
    loop {
        // The first of equal maxima wins.
        let best = (0..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best });
        out.push(u32::try_from(best).expect("small"));
        if out.len() as u64 == case.decode {
            return out;
        }
        logits = model.step(best, blocks.next().expect("a block a position")).to_vec();
    }
}

/// Everything of a run that is time or energy; operand values may change neither.
fn timing(r: &RunResult) -> String {
    let tokens: Vec<_> = r.tokens.iter().map(|t| t.1).collect();
    let rows: Vec<_> = r.ops.iter().map(|o| (&o.key, o.row.start, o.row.end, o.row.busy)).collect();
    format!("{:?} {:?} {tokens:?} {:#?} {rows:?} {:?}", r.zero, r.end, r.cycles, r.instructions)
}

/// Runs a case with values and with shapes alone; checks tokens, times and cycles.
fn check(case: &Case) -> RunResult {
    let what = format!("{} on {} cores", case.quant.name, case.soc.npu.cores);
    let computed = case.run(&Compute::Values).expect("the run ends");
    let tokens: Vec<u32> = computed.tokens.iter().map(|t| t.0).collect();
    assert_eq!(tokens, expected(case), "{what}");
    let at = case.context + case.prompt.len() as u64;
    let ids = (at..).zip(tokens).collect();
    let shapes = case.run(&Compute::Shapes(ids)).expect("the run ends");
    let pairs = |r: &RunResult| r.tokens.clone();
    assert_eq!(pairs(&computed), pairs(&shapes), "{what}: tokens and their times");
    assert!(timing(&computed) == timing(&shapes), "{what}: cycles of engines or times of operations differ");
    assert_eq!(computed.npu, shapes.npu, "{what}");
    computed
}

#[test]
fn tokens_are_the_references_and_time_does_not_see_values() {
    for quant in SCHEMES {
        for cores in [1, 2, 4] {
            check(&Case::new(&[format!("npu.cores={cores}")], quant));
        }
    }
}

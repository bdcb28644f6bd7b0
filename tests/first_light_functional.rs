//! A small model on the whole chip: the tokens are the reference's, and time does not depend on the values.

#[path = "support/random.rs"]
mod random;
#[path = "support/reference.rs"]
mod reference;
#[path = "support/soc.rs"]
mod soc;

use std::cell::Cell;

use random::{SCHEMES, chips, models, runner};
use reference::Reference;
use soc::{Case, Compute, Ended, SEED, prompt};
use soc_model::soc::{RunResult, SocBuilder, SocFault};
use traces::image::random_tensors;
use traces::workload::QuantScheme;

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

/// Everything of a run that is time or counts of work; values may change neither.
fn timing(r: &RunResult) -> String {
    let rows: Vec<_> = r.ops.iter().map(|o| (&o.key, o.row.start, o.row.end, o.row.busy)).collect();
    format!("{:?} {:?} {:#?} {rows:?} {:?} {:?}", r.zero, r.end, r.cycles, r.instructions, r.npu)
}

/// Runs a case with values and with shapes alone; checks tokens, times and cycles. `None` if the firmware finds no
/// plan for this model on this chip.
fn check(case: &Case) -> Option<RunResult> {
    let what = format!("{} on {:?}", case.quant.name, case.soc.npu);
    let ran = |compute| match case.run(compute) {
        Ok(result) => Some(result),
        Err(Ended::Faulted(SocFault::Firmware { reason, .. })) if reason.contains("does not fit") => None,
        Err(other) => panic!("{other:?}: {what}"),
    };
    let computed = ran(&Compute::Values)?;
    let tokens: Vec<u32> = computed.tokens.iter().map(|t| t.0).collect();
    assert_eq!(tokens, expected(case), "{what}");
    let at = case.prompt.len() as u64;
    let shapes = ran(&Compute::Shapes((at..).zip(tokens).collect()))?;
    assert_eq!(computed.tokens, shapes.tokens, "tokens and their times: {what}");
    assert!(timing(&computed) == timing(&shapes), "cycles of engines or times of operations differ: {what}");
    Some(computed)
}

#[test]
fn tokens_are_the_references_and_time_does_not_see_values() {
    for quant in SCHEMES {
        for cores in [1, 2, 4] {
            let case = Case::new(&[format!("npu.cores={cores}")], quant);
            check(&case).expect("a small model fits");
            let one_chunk = Case { chunk: 128, ..case };
            check(&one_chunk).expect("a small model fits");
        }
    }
}

#[test]
fn neither_a_second_run_nor_the_order_of_assembly_changes_an_event() {
    let case = Case::new(&["npu.cores=3"], "w4a16-g128");
    for compute in [Compute::Values, Compute::Shapes(Vec::new())] {
        let run = |reversed| {
            let builder = SocBuilder { reversed, ..case.builder(&compute) };
            builder.build().expect("a chip").run(&mut |_| {}).expect("the run ends")
        };
        let (one, two, other) = (run(false), run(false), run(true));
        assert_eq!(one.digest, two.digest);
        assert_eq!(one.digest, other.digest);
        assert_eq!(timing(&one), timing(&other));
        assert_eq!(one.tokens, other.tokens);
    }
}

#[test]
fn another_job_has_another_digest() {
    let case = Case::new(&["npu.cores=2"], "fp16");
    let digest = |case: &Case| case.run(&Compute::Shapes(Vec::new())).expect("the run ends").digest;
    let longer = Case { decode: case.decode + 1, ..case.clone() };
    assert_ne!(digest(&case), digest(&longer), "another job is another run");
}

/// The same in debug and release builds, on every machine. Whoever changes firmware or timing blesses it anew.
#[test]
fn the_digest_is_the_same_in_every_build() {
    let digest = |quant, compute| {
        let result = Case::new(&["npu.cores=2"], quant).run(compute).expect("the run ends");
        format!("{quant}: {} events, digest {}, end {}", result.events, result.digest, result.end)
    };
    let all = [
        digest("w4a16-g128", &Compute::Values),
        digest("w8a8", &Compute::Values),
        digest("fp16", &Compute::Shapes(Vec::new())),
    ];
    insta::assert_snapshot!(all.join("\n"), @r"
    w4a16-g128: 7996 events, digest b978eb1a102e259c9075b1c8926ebd28, end 780804000000 fs
    w8a8: 8407 events, digest 952810e8ec08d6ce41c06d411f3eb2e1, end 888602000000 fs
    fp16: 8121 events, digest 95105fd8103168171ce340eb3c0d40f5, end 1091042000000 fs
    ");
}

#[test]
fn a_random_chip_computes_the_references_tokens() {
    let all = (chips(), models(128, 400, 400), 0usize..3, 1u32..=40, 1u64..=4, 1u32..=24);
    let (ran, finished) = (Cell::new(0), Cell::new(0));
    runner(40)
        .run(&all, |(sets, spec, quant, length, decode, chunk)| {
            let quant = QuantScheme::named(SCHEMES[quant]).expect("a scheme");
            let soc = soc::tiny(&sets);
            let case = Case {
                soc,
                prompt: prompt(&spec, length),
                spec,
                quant,
                decode,
                chunk,
                ..Case::new::<&str>(&[], "fp16")
            };
            ran.set(ran.get() + 1);
            finished.set(finished.get() + u32::from(check(&case).is_some()));
            Ok(())
        })
        .unwrap_or_else(|e| panic!("{e}"));
    assert!(finished.get() * 2 > ran.get(), "{} of {} finished", finished.get(), ran.get());
}

//! Whether the firmware's lists on the machine say what the reference says: every logit, bit for bit.

use traces::image::{build_image, random_tensors};
use traces::workload::{ModelSpec, QuantScheme, TensorFormat};

use super::machine::{Machine, Sampled, Shape};
use super::reference::Reference;

/// Whether the plans of decode and prefill stay in the scratchpads.
pub type Resident = (bool, bool);

/// Generates on the machine, prompt by prompt, and compares tokens and logits with the reference; a prompt finds the
/// cache as the one before left it.
pub fn check_turns(spec: &ModelSpec, quant: &str, shape: &Shape, turns: &[(usize, usize)]) -> Resident {
    let mut scheme = QuantScheme::named(quant).expect("scheme");
    scheme.kv = match shape.kv_bits {
        4 => TensorFormat::Int4,
        8 => TensorFormat::Int8,
        _ => TensorFormat::Fp16,
    };
    let seed = 7;
    let (_, image) = build_image(spec, &scheme, &mut random_tensors(seed, spec)).expect("image");
    let mut machine = Machine::new(shape, image);
    let mut reference = Reference::new(spec, &scheme, &mut random_tensors(seed, spec));
    let what = format!("{} {quant} {shape:?}", spec.name);
    for (turn, (length, count)) in turns.iter().copied().enumerate() {
        let prompt: Vec<usize> = (0..length).map(|i| (i * 37 + 11 + turn) % spec.vocab as usize).collect();
        let mut blocks = machine.blocks(length, count).into_iter();
        let made = machine.generate(&prompt, count);
        assert_eq!(made.len(), count, "{what}");
        let mut expected = Vec::new();
        for token in prompt {
            expected = reference.step(token, blocks.next().expect("a block a position")).to_vec();
        }
        for (i, got) in made.iter().enumerate() {
            let token = compare(&expected, got, &format!("{what}: turn {turn}, token {i}"));
            if i + 1 < count {
                expected = reference.step(token, blocks.next().expect("a block a position")).to_vec();
            }
        }
    }
    (machine.plans().0.resident, !machine.spilled)
}

/// Compares one token's logits and choice; returns the choice.
fn compare(expected: &[f32], got: &Sampled, what: &str) -> usize {
    let pairs = expected.iter().zip(&got.logits);
    let wrong = pairs.clone().filter(|(a, b)| a.to_bits() != b.to_bits()).count();
    let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
    assert_eq!(wrong, 0, "{what}: {wrong} logits differ, by up to {worst}");
    // The first of equal maxima wins.
    let mut best = 0;
    for (i, logit) in expected.iter().enumerate() {
        if *logit > expected[best] {
            best = i;
        }
    }
    assert_eq!(got.token, best, "{what}");
    best
}

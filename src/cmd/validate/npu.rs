//! The NPU suite: products on arrays, and measured products whose ranking is compared.

use serde_json::Value;
use traces::topology::{self, Layer};

use super::rows::{Checked, options};
use crate::cmd::npu::Gemm;
use crate::error::CliError;

/// Lists of products that rows name as `@name`.
const TOPOLOGIES: [(&str, &str); 3] = [
    ("set-a", include_str!("../../../validation/topology-set-a.csv")),
    ("block-prefill", include_str!("../../../validation/topology-block-prefill.csv")),
    ("block-decode", include_str!("../../../validation/topology-block-decode.csv")),
];
const TPU: &str = include_str!("../../../validation/npu-tpu.csv");
const TPU_SOURCE: &str = "matrix products measured on a TPU: yutation/SCALE-SIM_Validation dad9479";

/// What `presil npu gemm` prints for these options.
pub(super) fn document(command: &str) -> Result<Value, CliError> {
    let name = command.split_whitespace().find_map(|word| word.strip_prefix('@'));
    let gemm: Gemm = options(command)?;
    let layers = match name {
        None => gemm.layers()?,
        Some(name) => {
            let (_, text) = TOPOLOGIES
                .iter()
                .find(|t| t.0 == name)
                .ok_or_else(|| CliError::input(format!("no topology is called `{name}`")))?;
            parse(name, text)?
        }
    };
    let rows = gemm.outcomes(&gemm.study()?, layers)?;
    Ok(gemm.json_of(&rows))
}

fn parse(name: &str, text: &str) -> Result<Vec<Layer>, CliError> {
    topology::parse(name, text)
        .map_err(|errors| CliError::Input(errors.iter().map(ToString::to_string).collect()))
}

/// Rank correlation of our cycles with measured times, set by set: whether the model orders products as silicon does.
pub(super) fn rank_correlations() -> Result<Vec<Checked>, CliError> {
    let mut out = Vec::new();
    let small = "343 products of 32 to 128: one fold or few; the fixed cost of a kernel, which is not modelled, hides the array";
    let large =
        "73 products of 128 to 512: 1 to 5 us; kernel start and transfers of fused kernels are not modelled";
    for (set, floors, note) in [("small", [0.15, 0.45], small), ("large", [0.35, 0.45], large)] {
        for ((array, options), floor) in [
            (
                "hidden load, memory",
                "--rows 128 --cols 128 --dataflow ws --weight-load hidden --format bf16 --memory 1170",
            ),
            ("serial folds", "--array scalesim --rows 128 --cols 128 --dataflow ws"),
        ]
        .into_iter()
        .zip(floors)
        {
            let (model, measured) = tpu_set(set, options)?;
            let rho = spearman(&model, &measured);
            out.push(Checked {
                suite: "npu",
                case: format!("tpu {set} products, {array}"),
                metric: "rank_correlation".to_owned(),
                model: rho,
                reference: 1.0,
                error_percent: 100.0 * (rho - 1.0),
                band_percent: 100.0 * (1.0 - floor),
                pass: rho >= floor,
                source: TPU_SOURCE.to_owned(),
                note: format!("{note}; the band is a floor against regressions, not a claim"),
            });
        }
    }
    Ok(out)
}

/// Our cycles and the measured microseconds of a set.
fn tpu_set(set: &str, command: &str) -> Result<(Vec<f64>, Vec<f64>), CliError> {
    let gemm: Gemm = options(&format!("{command} --m 1 --k 1 --n 1"))?;
    let study = gemm.study()?;
    let (mut model, mut measured) = (Vec::new(), Vec::new());
    for (line, text) in (1..).zip(TPU.lines()).filter(|(_, l)| l.split(',').next() == Some(set)) {
        let bad = || CliError::input(format!("npu-tpu.csv:{line}: expected set,m,k,n,microseconds"));
        let fields: Vec<&str> = text.split(',').collect();
        let [_, m, k, n, time] = fields[..] else { return Err(bad()) };
        let size = |text: &str| text.parse::<u64>().map_err(|_| bad());
        let layer = Layer { line, name: String::new(), m: size(m)?, k: size(k)?, n: size(n)? };
        let rows = gemm.outcomes(&study, vec![layer])?;
        model.extend(rows.iter().map(|r| r.2.total_cycles as f64));
        measured.push(time.parse::<f64>().map_err(|_| bad())?);
    }
    Ok((model, measured))
}

/// Spearman's rank correlation; ties share their mean rank.
fn spearman(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (ranks(a), ranks(b));
    let mean = (a.len() as f64 + 1.0) / 2.0;
    let product = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| (x - mean) * (y - mean)).sum::<f64>();
    product(&a, &b) / (product(&a, &a) * product(&b, &b)).sqrt()
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let below = |v: f64| values.iter().filter(|&&x| x < v).count() as f64;
    let same = |v: f64| values.iter().filter(|&&x| x == v).count() as f64;
    values.iter().map(|&v| below(v) + (same(v) + 1.0) / 2.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_share_ties_and_order_decides() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0]), [2.5, 1.0, 2.5]);
        assert!((spearman(&[1.0, 2.0, 9.0], &[10.0, 20.0, 21.0]) - 1.0).abs() < 1e-12);
        assert!((spearman(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]) + 1.0).abs() < 1e-12);
    }
}

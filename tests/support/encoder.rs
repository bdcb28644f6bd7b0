//! An encoder computed straight from its float weights, in the arithmetic the NPU documents.
//!
//! Models: every rounding the engines make. Does not model: tiles, cores, images.
//! Source: the headers of the NPU's operations; the key block of the running softmax is an argument.

use ndarray::{Array1, Array2};
use traces::image::{Tensor, TensorSource};
use traces::workload::{ModelSpec, QuantScheme, Stem};

use super::reference::{Cache, Matrix, attend, get, r16, rounded};

struct Layer {
    qkv: [Matrix; 3],
    bias: [Array1<f32>; 3],
    output: (Matrix, Array1<f32>),
    up: (Matrix, Array1<f32>),
    down: (Matrix, Array1<f32>),
    norms: [[Array1<f32>; 2]; 2],
}

impl Layer {
    fn new(spec: &ModelSpec, scheme: &QuantScheme, source: &mut impl TensorSource, l: u32) -> Self {
        let mut row = |t: Tensor| get(spec, source, t, l).row(0).to_owned();
        let bias = [Tensor::QueryBias, Tensor::KeyBias, Tensor::ValueBias].map(&mut row);
        let dense = [Tensor::OutputBias, Tensor::UpBias, Tensor::DownBias].map(&mut row);
        let norms = [
            [Tensor::AttnNorm, Tensor::AttnNormBias].map(&mut row),
            [Tensor::FfnNorm, Tensor::FfnNormBias].map(&mut row),
        ];
        let body = scheme.body_of(l);
        let mut matrix = |t: Tensor, quant| Matrix::new(spec, scheme, quant, source, (t, l));
        let [out_bias, up_bias, down_bias] = dense;
        Self {
            bias,
            norms,
            qkv: [
                matrix(Tensor::Query, body.qkv),
                matrix(Tensor::Key, body.qkv),
                matrix(Tensor::Value, body.value),
            ],
            output: (matrix(Tensor::Output, body.out), out_bias),
            up: (matrix(Tensor::Up, body.up), up_bias),
            down: (matrix(Tensor::Down, body.down), down_bias),
        }
    }

    /// Queries, and the keys and values of all rows.
    fn project(&self, inputs: impl Iterator<Item = Array1<f32>>) -> (Vec<Array1<f32>>, Cache) {
        let mut queries = Vec::new();
        let mut cache: Cache = [Vec::new(), Vec::new()];
        for input in inputs {
            let [q, k, v] = [0, 1, 2].map(|i| rounded(self.qkv[i].multiply(&input) + &self.bias[i]));
            queries.push(q);
            cache[0].push(k);
            cache[1].push(v);
        }
        (queries, cache)
    }
}

/// The reference encoder.
pub struct Encoder {
    spec: ModelSpec,
    words: Array2<f32>,
    positions: Array2<f32>,
    types: Array2<f32>,
    norm: [Array1<f32>; 2],
    layers: Vec<Layer>,
}

impl Encoder {
    /// From the same source an image is built from.
    pub fn new(spec: &ModelSpec, scheme: &QuantScheme, source: &mut impl TensorSource) -> Self {
        let layers = (0..spec.layers).map(|l| Layer::new(spec, scheme, source, l)).collect();
        let norm =
            [Tensor::EmbedNorm, Tensor::EmbedNormBias].map(|t| get(spec, source, t, 0).row(0).to_owned());
        let [words, positions, types] =
            [Tensor::Embed, Tensor::Positions, Tensor::TokenTypes].map(|t| get(spec, source, t, 0).mapv(r16));
        Self { spec: spec.clone(), words, positions, types, norm, layers }
    }

    /// The vector of these tokens; keys are visited `block` at a time.
    #[allow(clippy::cast_precision_loss, reason = "rows are few")]
    pub fn encode(&self, tokens: &[usize], block: usize) -> Vec<f32> {
        let mut rows: Vec<Array1<f32>> = tokens
            .iter()
            .enumerate()
            .map(|(i, token)| &(&self.words.row(*token) + &self.types.row(0)) + &self.positions.row(i))
            .map(|x| layer_norm(&self.spec, x, &self.norm))
            .collect();
        for layer in &self.layers {
            rows = self.layer(layer, &rows, block);
        }
        let pooling = self.spec.extras.pooling;
        if pooling.first {
            rows.truncate(1);
        }
        let mut sum = Array1::<f32>::zeros(self.spec.hidden as usize);
        for row in &rows {
            sum += row;
        }
        let mean = sum.mapv(|v| v / rows.len() as f32);
        if pooling.as_it_is {
            return mean.to_vec();
        }
        let squares = mean.iter().fold(0.0f32, |s, v| s + v * v);
        let factor = 1.0 / (if 1e-24 > squares { 1e-24 } else { squares }).sqrt();
        mean.iter().map(|v| v * factor).collect()
    }

    fn layer(&self, layer: &Layer, rows: &[Array1<f32>], block: usize) -> Vec<Array1<f32>> {
        let (queries, cache) = layer.project(rows.iter().map(|row| row.mapv(r16)));
        let spec = &self.spec;
        let pairs = rows.iter().zip(&queries);
        pairs
            .map(|(x, q)| {
                let attended = attend(spec, &cache, q, block, 0);
                let x = (layer.output.0.multiply(&attended) + &layer.output.1) + x;
                let x = layer_norm(spec, x, &layer.norms[0]);
                let up = layer.up.0.multiply(&x.mapv(r16)) + &layer.up.1;
                let hidden = rounded(up.mapv(gelu));
                let x = (layer.down.0.multiply(&hidden) + &layer.down.1) + x;
                layer_norm(spec, x, &layer.norms[1])
            })
            .collect()
    }
}

fn gelu(x: f32) -> f32 {
    (0.5 * x) * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "as the engine computes")]
fn layer_norm(spec: &ModelSpec, mut x: Array1<f32>, [gain, bias]: &[Array1<f32>; 2]) -> Array1<f32> {
    let n = x.len() as f32;
    let mean = x.iter().fold(0.0f32, |s, v| s + v) / n;
    x.mapv_inplace(|v| v - mean);
    let squares = x.iter().fold(0.0f32, |s, v| s + v * v);
    let r = 1.0 / (squares / n + spec.norm_eps as f32).sqrt();
    (x.mapv(|v| v * r) * gain) + bias
}

/// The reference encoder of images or sound.
pub struct Tower {
    spec: ModelSpec,
    stem: Stem,
    first: (Array2<f32>, Array1<f32>),
    second: Option<(Array2<f32>, Array1<f32>)>,
    class: Option<Array1<f32>>,
    positions: Array2<f32>,
    layers: Vec<Layer>,
    norm: [Array1<f32>; 2],
}

impl Tower {
    /// From the same source an image is built from.
    pub fn new(spec: &ModelSpec, scheme: &QuantScheme, source: &mut impl TensorSource) -> Self {
        let stem = spec.extras.stem.expect("an encoder of images or sound");
        let mut row = |t: Tensor| get(spec, source, t, 0).row(0).to_owned();
        let norm = [Tensor::FinalNorm, Tensor::FinalNormBias].map(&mut row);
        let frames = matches!(stem, Stem::Frames { .. });
        let class = matches!(stem, Stem::Patches { class: true, .. }).then(|| row(Tensor::ClassToken));
        let biases = (row(Tensor::StemBias), frames.then(|| row(Tensor::Stem2Bias)));
        let mut matrix = |t: Tensor| get(spec, source, t, 0).mapv(r16).reversed_axes();
        let first = (matrix(Tensor::Stem), biases.0);
        let second = biases.1.map(|bias| (matrix(Tensor::Stem2), bias));
        let positions = get(spec, source, Tensor::Positions, 0);
        let layers = (0..spec.layers).map(|l| Layer::new(spec, scheme, source, l)).collect();
        Self { spec: spec.clone(), stem, first, second, class, positions, layers, norm }
    }

    /// The rows of an input: patches, or frames of which the first and the last are padding.
    pub fn encode(&self, input: &[Vec<f32>], rows: usize, block: usize) -> Vec<f32> {
        let mut x = self.rows(input, rows);
        for layer in &self.layers {
            x = self.layer(layer, x, block);
        }
        x.into_iter().flat_map(|x| layer_norm(&self.spec, x, &self.norm)).collect()
    }

    fn rows(&self, input: &[Vec<f32>], rows: usize) -> Vec<Array1<f32>> {
        let (w, bias) = &self.first;
        let position = |r: usize| self.positions.row(r).to_owned();
        let Stem::Frames { .. } = self.stem else {
            let row = |r: usize| {
                // The tool that writes the image has added what is the same for every image.
                let added = match &self.class {
                    Some(class) if r == 0 => position(r) + class,
                    _ => position(r) + bias,
                };
                dot(&Array1::from(input[r].clone()), w) + rounded(added)
            };
            return (0..rows).map(row).collect();
        };
        let mut between = vec![Array1::zeros(self.spec.hidden as usize)];
        for t in 0..2 * rows {
            let unfolded = Array1::from(input[t..t + 3].concat());
            between.push(rounded((dot(&unfolded, w) + bias).mapv(gelu)));
        }
        let (w, bias) = self.second.as_ref().expect("two products");
        let row = |r: usize| {
            let three = between[2 * r..2 * r + 3].iter().flatten().copied().collect::<Array1<f32>>();
            (dot(&three, w) + bias).mapv(gelu) + position(r).mapv(r16)
        };
        (0..rows).map(row).collect()
    }

    fn layer(&self, layer: &Layer, rows: Vec<Array1<f32>>, block: usize) -> Vec<Array1<f32>> {
        let spec = &self.spec;
        let normed = |x: &Array1<f32>, i: usize| rounded(layer_norm(spec, x.clone(), &layer.norms[i]));
        let (queries, cache) = layer.project(rows.iter().map(|x| normed(x, 0)));
        let act = if spec.extras.gelu_tanh { gelu_tanh } else { gelu };
        let pairs = rows.into_iter().zip(&queries);
        pairs
            .map(|(x, q)| {
                let attended = attend(spec, &cache, q, block, 0);
                let x = (layer.output.0.multiply(&attended) + &layer.output.1) + x;
                let up = layer.up.0.multiply(&normed(&x, 1)) + &layer.up.1;
                let hidden = rounded(up.mapv(act));
                (layer.down.0.multiply(&hidden) + &layer.down.1) + x
            })
            .collect()
    }
}

fn gelu_tanh(x: f32) -> f32 {
    (0.5 * x) * (1.0 + libm::tanhf(0.797_884_6 * (x + 0.044_715 * ((x * x) * x))))
}

/// Sums over ascending inputs.
fn dot(x: &Array1<f32>, w: &Array2<f32>) -> Array1<f32> {
    let mut sums = Array1::zeros(w.ncols());
    for (a, w) in x.iter().zip(w.rows()) {
        sums.zip_mut_with(&w, |s, w| *s += a * w);
    }
    sums
}

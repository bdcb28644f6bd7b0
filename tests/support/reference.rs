//! A decoder-only transformer computed straight from its float weights, in the arithmetic the NPU documents.
//!
//! Models: every rounding the engines make, one position at a time. Does not model: tiles, cores, images.
//! Source: the headers of the NPU's operations; the key block of the running softmax is an argument.

use half::f16;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, s};
use traces::image::{Coded, Tensor, TensorSource, inverse_frequencies, local_frequencies};
use traces::workload::{ModelSpec, QuantScheme, RopeLayout, TensorFormat, WeightQuant};

/// Rounds to fp16 and back.
pub(super) fn r16(x: f32) -> f32 {
    f16::from_f32(x).to_f32()
}

pub(super) fn rounded(mut x: Array1<f32>) -> Array1<f32> {
    x.mapv_inplace(r16);
    x
}

/// A matrix of inputs x outputs ready to multiply.
pub(super) enum Matrix {
    /// Weights as the engine decodes them.
    Float(Array2<f32>),
    /// Integer codes and a scale a column, for inputs quantised by row.
    Integer(Array2<i32>, Array1<f32>),
    /// Integer codes and a scale a column, for float inputs: scaled after the sum.
    Scaled(Array2<f32>, Array1<f32>),
    /// Codes in groups, for inputs quantised in blocks of that many.
    Blocks(Blocks, usize),
}

/// Codes, inputs x outputs, and for each group of inputs scales and minima, groups x outputs.
pub(super) struct Blocks {
    group: usize,
    codes: Array2<f32>,
    scales: Array2<f32>,
    minima: Option<Array2<f32>>,
}

impl Blocks {
    fn new(coded: Coded, inputs: usize) -> Self {
        let groups = inputs.div_ceil(coded.group);
        let turned = |values: Vec<f32>, width: usize| {
            let rows = values.len() / width;
            let rows = Array2::from_shape_vec((rows, width), values).expect("whole rows");
            rows.reversed_axes()
        };
        let minima = (!coded.minima.is_empty()).then(|| turned(coded.minima, groups));
        let codes = turned(coded.codes.into_iter().map(f32::from).collect(), inputs);
        Self { group: coded.group, codes, scales: turned(coded.scales, groups), minima }
    }

    /// Weights as a decoder gives them to fp16 multipliers.
    fn decoded(&self) -> Array2<f32> {
        let mut out = self.codes.clone();
        for ((k, n), v) in out.indexed_iter_mut() {
            let g = k / self.group;
            *v = r16(*v * self.scales[[g, n]] + self.minima.as_ref().map_or(0.0, |m| m[[g, n]]));
        }
        out
    }

    #[allow(clippy::cast_precision_loss, reason = "sums of a block are small")]
    fn multiply(&self, x: &Array1<f32>, block: usize) -> Array1<f32> {
        let step = block.min(self.group);
        let mut out = Array1::<f32>::zeros(self.codes.ncols());
        for (b, part) in x.axis_chunks_iter(Axis(0), block).enumerate() {
            let largest = part.iter().fold(0.0f32, |m, v| if v.abs() > m { v.abs() } else { m });
            let inverse = if largest == 0.0 { 0.0 } else { 127.0 / largest };
            let codes = part.mapv(|v| (v * inverse).round_ties_even().clamp(-127.0, 127.0));
            let scale = largest / 127.0;
            let total = codes.sum() * scale;
            for (i, codes) in codes.axis_chunks_iter(Axis(0), step).enumerate() {
                let first = b * block + i * step;
                let g = first / self.group;
                // Integers of few bits: exact in fp32.
                let dots = dot(codes, self.codes.slice(s![first..first + codes.len(), ..]));
                for (n, out) in out.iter_mut().enumerate() {
                    *out += dots[n] * scale * self.scales[[g, n]];
                    if let Some(minima) = &self.minima {
                        *out += total * minima[[g, n]];
                    }
                }
            }
        }
        out
    }
}

fn integers(values: ArrayView1<f32>, most: f32, half: bool) -> (Array1<f32>, f32) {
    let largest = values.iter().fold(0.0f32, |m, v| if v.abs() > m { v.abs() } else { m });
    let scale = if half { r16(largest / most) } else { largest / most };
    let codes =
        values.mapv(|v| if scale == 0.0 { 0.0 } else { (v / scale).round_ties_even().clamp(-most, most) });
    (codes, scale)
}

impl Matrix {
    /// A tensor as the scheme stores and multiplies it.
    #[allow(clippy::cast_possible_truncation, reason = "codes are small integers")]
    pub(super) fn new(
        spec: &ModelSpec,
        scheme: &QuantScheme,
        quant: WeightQuant,
        source: &mut impl TensorSource,
        (tensor, layer): (Tensor, u32),
    ) -> Self {
        let (outputs, inputs) = tensor.shape(spec);
        let (most, block) =
            (if quant.format().bits() == 4 { 7.0 } else { 127.0 }, scheme.activation_block as usize);
        let grouped = |coded: Coded| {
            let blocks = Blocks::new(coded, inputs);
            if block == 0 { Self::Float(blocks.decoded()) } else { Self::Blocks(blocks, block) }
        };
        match quant {
            WeightQuant::Plain(_) => Self::Float(get(spec, source, tensor, layer).mapv(r16).reversed_axes()),
            WeightQuant::Coded { group, minimum, .. } => {
                let coded = source.codes(tensor, layer).expect("readable").expect("codes");
                grouped(coded.regrouped(group as usize, minimum))
            }
            WeightQuant::Grouped { group, .. } => {
                let (mut codes, mut scales) = (Vec::new(), Vec::new());
                for row in get(spec, source, tensor, layer).rows() {
                    for part in row.axis_chunks_iter(Axis(0), group as usize) {
                        let (q, scale) = integers(part, most, true);
                        codes.extend(q.iter().map(|q| *q as i8));
                        scales.push(scale);
                    }
                }
                grouped(Coded { group: group as usize, codes, scales, minima: Vec::new() })
            }
            WeightQuant::PerChannel(_) => {
                let weights = get(spec, source, tensor, layer);
                let mut codes = Array2::zeros((inputs, outputs));
                let mut scales = Array1::zeros(outputs);
                for n in 0..outputs {
                    let (q, scale) = integers(weights.row(n), most, false);
                    codes.column_mut(n).assign(&q.mapv(|q| q as i32));
                    scales[n] = scale;
                }
                if scheme.activation.bits() == 16 {
                    Self::Scaled(codes.mapv(|q| q as f32), scales)
                } else {
                    Self::Integer(codes, scales)
                }
            }
        }
    }

    /// The product with a row, before any epilogue; sums run over ascending inputs.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "as the engine's int8 path"
    )]
    pub(super) fn multiply(&self, x: &Array1<f32>) -> Array1<f32> {
        match self {
            Self::Float(w) => dot(x.view(), w.view()),
            Self::Blocks(blocks, block) => blocks.multiply(x, *block),
            Self::Scaled(codes, scales) => dot(x.view(), codes.view()) * scales,
            Self::Integer(codes, scales) => {
                let largest = x.iter().fold(0.0f32, |m, v| if v.abs() > m { v.abs() } else { m });
                let inverse = if largest == 0.0 { 0.0 } else { 127.0 / largest };
                let q = x.mapv(|v| (v * inverse).round_ties_even().clamp(-127.0, 127.0) as i32);
                let row_scale = largest / 127.0;
                let mut sums = Array1::<i32>::zeros(codes.ncols());
                for (a, w) in q.iter().zip(codes.rows()) {
                    sums.zip_mut_with(&w, |s, w| *s += a * w);
                }
                Array1::from_iter(sums.iter().zip(scales).map(|(s, scale)| (*s as f32 * row_scale) * scale))
            }
        }
    }
}

pub(super) fn get(
    spec: &ModelSpec,
    source: &mut impl TensorSource,
    tensor: Tensor,
    layer: u32,
) -> Array2<f32> {
    let values = source.values(tensor, layer).expect("values");
    Array2::from_shape_vec(tensor.shape(spec), values).expect("the tensor's shape")
}

fn dot(x: ArrayView1<f32>, w: ArrayView2<f32>) -> Array1<f32> {
    let mut sums = Array1::zeros(w.ncols());
    accumulate(&mut sums, x, w);
    sums
}

fn accumulate(sums: &mut Array1<f32>, x: ArrayView1<f32>, w: ArrayView2<f32>) {
    for (a, w) in x.iter().zip(w.rows()) {
        sums.zip_mut_with(&w, |s, w| *s += a * w);
    }
}

/// Keys and values, one row a position.
pub(super) type Cache = [Vec<Array1<f32>>; 2];

struct Layer {
    attn_norm: Array1<f32>,
    ffn_norm: Array1<f32>,
    qkv: [Matrix; 3],
    bias: Option<[Array1<f32>; 3]>,
    head_norms: Option<[Array1<f32>; 2]>,
    post_norms: Option<[Array1<f32>; 2]>,
    /// Positions it sees, its own included.
    window: Option<usize>,
    frequencies: Vec<f32>,
    output: Matrix,
    gate: Matrix,
    up: Matrix,
    down: Matrix,
    cache: Cache,
}

/// The reference model with its state.
pub struct Reference {
    spec: ModelSpec,
    embed: Array2<f32>,
    final_norm: Array1<f32>,
    head: Matrix,
    layers: Vec<Layer>,
    /// How the cache stores keys and values.
    kv: TensorFormat,
}

impl Reference {
    /// From the same source an image is built from.
    pub fn new(spec: &ModelSpec, scheme: &QuantScheme, source: &mut impl TensorSource) -> Self {
        let embed = get(spec, source, Tensor::Embed, 0);
        let head = if spec.tied_embedding { Tensor::Embed } else { Tensor::Head };
        let head = Matrix::new(spec, scheme, scheme.head, source, (head, 0));
        let final_norm = get(spec, source, Tensor::FinalNorm, 0).row(0).to_owned();
        let layers = (0..spec.layers)
            .map(|l| {
                let window = spec.extras.window.filter(|w| w.period == 0 || (l + 1) % w.period != 0);
                let own = window.is_some_and(|w| w.local_theta.is_some());
                let body = scheme.body_of(l);
                let mut row = |t: Tensor| get(spec, source, t, l).row(0).to_owned();
                let attn_norm = row(Tensor::AttnNorm);
                let ffn_norm = row(Tensor::FfnNorm);
                let biases = [Tensor::QueryBias, Tensor::KeyBias, Tensor::ValueBias];
                let bias = spec.qkv_bias.then(|| biases.map(&mut row));
                let head_norms = spec.qk_norm.then(|| [Tensor::QueryNorm, Tensor::KeyNorm].map(&mut row));
                let post = [Tensor::PostAttnNorm, Tensor::PostFfnNorm];
                let post_norms = spec.extras.post_norms.then(|| post.map(&mut row));
                let mut matrix = |t: Tensor, quant| Matrix::new(spec, scheme, quant, source, (t, l));
                Layer {
                    attn_norm,
                    ffn_norm,
                    bias,
                    head_norms,
                    post_norms,
                    window: window.map(|w| w.positions as usize),
                    frequencies: if own { local_frequencies(spec) } else { inverse_frequencies(spec) },
                    qkv: [
                        matrix(Tensor::Query, body.qkv),
                        matrix(Tensor::Key, body.qkv),
                        matrix(Tensor::Value, body.value),
                    ],
                    output: matrix(Tensor::Output, body.out),
                    gate: matrix(Tensor::Gate, body.gate),
                    up: matrix(Tensor::Up, body.up),
                    down: matrix(Tensor::Down, body.down),
                    cache: [Vec::new(), Vec::new()],
                }
            })
            .collect();
        Self { embed: embed.mapv(r16), final_norm, head, layers, spec: spec.clone(), kv: scheme.kv }
    }

    /// Appends `token` and returns the logits behind it; keys are visited `block` at a time.
    pub fn step(&mut self, token: usize, block: usize) -> Array1<f32> {
        let mut x = self.embed.row(token).to_owned();
        if let Some(scale) = self.spec.extras.embed_scale {
            x *= single(scale);
        }
        for layer in &mut self.layers {
            let input = norm(&self.spec, x.view(), &layer.attn_norm);
            let [q, k, v] = project(&self.spec, layer, &input);
            layer.cache[0].push(stored(&self.spec, self.kv, k));
            layer.cache[1].push(stored(&self.spec, self.kv, v));
            let seen = layer.cache[0].len();
            let first = layer.window.map_or(0, |w| seen.saturating_sub(w));
            let attended = attend(&self.spec, &layer.cache, &q, block, first);
            x = layer.joined(&self.spec, layer.output.multiply(&attended), 0) + x;
            let input = norm(&self.spec, x.view(), &layer.ffn_norm);
            let up = rounded(layer.up.multiply(&input));
            let gate = layer.gate.multiply(&input);
            let gelu = self.spec.extras.gate_gelu;
            let act = |g: f32| if gelu { gelu_tanh(g) } else { g / (1.0 + libm::expf(-g)) };
            let hidden = Array1::from_iter(gate.iter().zip(&up).map(|(g, u)| r16(act(*g) * u)));
            x = layer.joined(&self.spec, layer.down.multiply(&hidden), 1) + x;
        }
        let last = norm(&self.spec, x.view(), &self.final_norm);
        let logits = self.head.multiply(&last);
        match self.spec.extras.logit_cap {
            Some(cap) => logits.mapv(|l| single(cap) * libm::tanhf(l / single(cap))),
            None => logits,
        }
    }
}

impl Layer {
    /// What joins the residual stream: an output, or its norm.
    fn joined(&self, spec: &ModelSpec, output: Array1<f32>, which: usize) -> Array1<f32> {
        match &self.post_norms {
            Some(norms) => wide_norm(spec, output.view(), &norms[which]),
            None => output,
        }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "rounding to fp32 is the point")]
fn single(x: f64) -> f32 {
    x as f32
}

/// GELU's tanh form: sqrt(2 / pi) and the cubic term's factor in fp32.
fn gelu_tanh(x: f32) -> f32 {
    let u = 0.797_884_6 * (x + 0.044_715 * (x * x * x));
    0.5 * x * (1.0 + libm::tanhf(u))
}

fn norm(spec: &ModelSpec, x: ArrayView1<f32>, weight: &Array1<f32>) -> Array1<f32> {
    rounded(wide_norm(spec, x, weight))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "as the engine computes")]
fn wide_norm(spec: &ModelSpec, x: ArrayView1<f32>, weight: &Array1<f32>) -> Array1<f32> {
    let sum = x.iter().fold(0.0f32, |sum, v| sum + v * v);
    let r = 1.0 / (sum / x.len() as f32 + spec.norm_eps as f32).sqrt();
    Array1::from_iter(x.iter().zip(weight).map(|(x, w)| (x * r) * w))
}

/// Queries, keys and values of the next position: biased, normed and rotated, in fp16.
#[allow(clippy::cast_precision_loss, reason = "positions are small")]
fn project(spec: &ModelSpec, layer: &Layer, input: &Array1<f32>) -> [Array1<f32>; 3] {
    let (position, frequencies) = (layer.cache[0].len() as f32, &layer.frequencies);
    let (width, half) = (spec.head_dim as usize, frequencies.len());
    let mut parts = [0, 1, 2].map(|i| {
        let sums = layer.qkv[i].multiply(input);
        rounded(if let Some(bias) = &layer.bias { sums + &bias[i] } else { sums })
    });
    for (i, part) in parts.iter_mut().take(2).enumerate() {
        for mut head in part.exact_chunks_mut(width) {
            if let Some(norms) = &layer.head_norms {
                let normed = norm(spec, head.view(), &norms[i]);
                head.assign(&normed);
            }
            for (f, frequency) in frequencies.iter().enumerate() {
                let (p, q) = match spec.rope.layout {
                    RopeLayout::Half => (f, f + half),
                    RopeLayout::Interleaved => (2 * f, 2 * f + 1),
                };
                let angle = position * frequency;
                let (cos, sin) = (libm::cosf(angle), libm::sinf(angle));
                let (a, b) = (head[p], head[q]);
                head[p] = r16(a * cos - b * sin);
                head[q] = r16(a * sin + b * cos);
            }
        }
    }
    parts
}

/// Keys or values of a position as they come back from the cache: a scale for 16 elements of a head.
fn stored(spec: &ModelSpec, format: TensorFormat, mut row: Array1<f32>) -> Array1<f32> {
    let most = match format {
        TensorFormat::Int8 => 127.0,
        TensorFormat::Int4 => 7.0,
        _ => return row,
    };
    for mut head in row.exact_chunks_mut(spec.head_dim as usize) {
        for mut group in head.axis_chunks_iter_mut(Axis(0), 16) {
            let (codes, scale) = integers(group.view(), most, true);
            group.assign(&codes.mapv(|q| r16(q * scale)));
        }
    }
    row
}

/// Attention of the last position over the cache from position `first` on, as a running softmax over blocks of keys.
pub(super) fn attend(
    spec: &ModelSpec,
    cache: &Cache,
    queries: &Array1<f32>,
    block: usize,
    first: usize,
) -> Array1<f32> {
    let (width, group) = (spec.head_dim as usize, (spec.heads / spec.kv_heads) as usize);
    let scale = single(spec.extras.attention_scale.unwrap_or(1.0 / f64::from(spec.head_dim).sqrt()));
    let cap = spec.extras.attention_cap.map(single);
    let capped = |s: f32| cap.map_or(s, |cap| cap * libm::tanhf(s / cap));
    let mut out = Array1::zeros(queries.len());
    for (h, query) in queries.exact_chunks(width).into_iter().enumerate() {
        let columns = h / group * width..(h / group + 1) * width;
        let (mut m, mut l) = (f32::NEG_INFINITY, 0.0f32);
        let mut sums = Array1::<f32>::zeros(width);
        for (b, (keys, values)) in cache[0].chunks(block).zip(cache[1].chunks(block)).enumerate() {
            let before = first.saturating_sub(b * block);
            if before >= keys.len() {
                continue;
            }
            let (keys, values) = (&keys[before..], &values[before..]);
            let scores: Vec<f32> = keys
                .iter()
                .map(|key| {
                    let key = key.slice(s![columns.clone()]);
                    capped(query.iter().zip(key).fold(0.0f32, |sum, (q, k)| sum + q * k) * scale)
                })
                .collect();
            let top = scores.iter().fold(m, |m, s| if *s > m { *s } else { m });
            let p: Vec<f32> = scores.iter().map(|s| libm::expf(s - top)).collect();
            let alpha = if m == f32::NEG_INFINITY { 0.0 } else { libm::expf(m - top) };
            let started = m > f32::NEG_INFINITY;
            (m, l) = (top, l * alpha + p.iter().fold(0.0f32, |sum, p| sum + p));
            if started {
                sums.mapv_inplace(|v| v * alpha);
            }
            for (p, value) in p.iter().zip(values) {
                let p = r16(*p);
                sums.zip_mut_with(&value.slice(s![columns.clone()]), |sum, v| *sum += p * v);
            }
        }
        out.slice_mut(s![h * width..(h + 1) * width]).assign(&sums.mapv(|v| r16(v / l)));
    }
    out
}

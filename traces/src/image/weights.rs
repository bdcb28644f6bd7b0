//! Weights' values: where they come from, and how they are quantised and packed into an image.
//!
//! Models: symmetric integers without zero points, group scales in fp16, column scales in fp32; a file's own codes.
//! Does not model: calibration, outlier handling. Source: the scheme definitions of `workload`, `isa::image`.
//!
//! With Q = 7 (int4) or 127 (int8): scale = largest magnitude / Q, rounded to the scale's format; code = value /
//! scale in fp32, rounded to the nearest integer, ties to even, clamped to -Q..=Q; a scale of 0 gives codes 0.

use isa::image::{self, ImageHeader};
use isa::npu::Format;
use sim_kernel::Stream;

use super::codes::{Coded, pack_codes};
use super::layout::{ImageLayout, stored_as, stored_spec};
use crate::workload::{
    ModelSpec, QuantScheme, Stem, TensorFormat, WeightQuant, WorkloadError, WorkloadProblem,
};

/// A tensor of a model, in the shape Hugging Face stores it: outputs x inputs, row by row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tensor {
    /// Embedding, vocabulary x hidden.
    Embed,
    /// Last norm.
    FinalNorm,
    /// Head, vocabulary x hidden; a tied model has none.
    Head,
    /// Norm before attention.
    AttnNorm,
    /// Norm before the feed-forward layer.
    FfnNorm,
    /// Query projection.
    Query,
    /// Key projection.
    Key,
    /// Value projection.
    Value,
    /// Query bias.
    QueryBias,
    /// Key bias.
    KeyBias,
    /// Value bias.
    ValueBias,
    /// Norm of a query head.
    QueryNorm,
    /// Norm of a key head.
    KeyNorm,
    /// Attention output projection.
    Output,
    /// Gate projection.
    Gate,
    /// Up projection.
    Up,
    /// Down projection.
    Down,
    /// Norm of the attention output.
    PostAttnNorm,
    /// Norm of the feed-forward output.
    PostFfnNorm,
    /// Bias of the norm at attention.
    AttnNormBias,
    /// Bias of the norm at the feed-forward layer.
    FfnNormBias,
    /// Bias of the attention output projection.
    OutputBias,
    /// Bias of the up projection.
    UpBias,
    /// Bias of the down projection.
    DownBias,
    /// Norm of the embedding.
    EmbedNorm,
    /// Its bias.
    EmbedNormBias,
    /// Learned positions.
    Positions,
    /// Token types.
    TokenTypes,
    /// Bias of the last norm.
    FinalNormBias,
    /// First product of a stem, hidden x values of a row: of patches in the order the host unfolds them, of sound by
    /// frame, the earliest first.
    Stem,
    /// Its bias.
    StemBias,
    /// Second product of a stem, hidden x three rows of the first, the earliest first.
    Stem2,
    /// Its bias.
    Stem2Bias,
    /// Class token.
    ClassToken,
}

impl Tensor {
    /// What is wrong with the first of its numbers that cannot be one: those of a vector are finite, those of a matrix
    /// also no larger than fp16 holds, which is what a chip computes with.
    pub(crate) fn flaw(self, spec: &ModelSpec, numbers: &[f32]) -> Option<(usize, String)> {
        // What lies above rounds to infinity.
        let limit = if self.shape(spec).0 == 1 { f32::INFINITY } else { 65_520.0 };
        let at = numbers.iter().position(|v| v.is_nan() || v.abs() >= limit)?;
        let expected = if numbers[at].is_finite() { "numbers up to 65504" } else { "finite numbers" };
        Some((at, format!("expected {expected}, found {}", numbers[at])))
    }

    /// Rows and columns; vectors are one row.
    #[must_use]
    pub fn shape(self, spec: &ModelSpec) -> (usize, usize) {
        let wide = |value: u64| usize::try_from(value).expect("a width fits the host");
        let (hidden, ffn) = (wide(spec.hidden.into()), wide(spec.ffn.into()));
        let (vocab, head) = (wide(spec.vocab.into()), wide(spec.head_dim.into()));
        let (q, kv) = (wide(spec.q_width()), wide(spec.kv_width()));
        match self {
            Self::Embed | Self::Head => (vocab, hidden),
            Self::FinalNorm
            | Self::AttnNorm
            | Self::FfnNorm
            | Self::PostAttnNorm
            | Self::PostFfnNorm
            | Self::AttnNormBias
            | Self::FfnNormBias
            | Self::OutputBias
            | Self::DownBias
            | Self::EmbedNorm
            | Self::FinalNormBias
            | Self::StemBias
            | Self::Stem2Bias
            | Self::ClassToken
            | Self::EmbedNormBias => (1, hidden),
            Self::Stem => (hidden, wide(spec.extras.stem.map_or(0, Stem::values))),
            Self::Stem2 => (hidden, 3 * hidden),
            Self::UpBias => (1, ffn),
            Self::Positions => (wide(spec.max_position.into()), hidden),
            Self::TokenTypes => (wide(spec.extras.encoder.map_or(0, |e| e.token_types).into()), hidden),
            Self::Query => (q, hidden),
            Self::Key | Self::Value => (kv, hidden),
            Self::QueryBias => (1, q),
            Self::KeyBias | Self::ValueBias => (1, kv),
            Self::QueryNorm | Self::KeyNorm => (1, head),
            Self::Output => (hidden, q),
            Self::Gate | Self::Up => (ffn, hidden),
            Self::Down => (hidden, ffn),
        }
    }
}

/// The tensors a model of that shape has, each with its layer (0 for those that are none's).
#[must_use]
pub fn tensors_of(spec: &ModelSpec) -> Vec<(Tensor, u32)> {
    let x = &spec.extras;
    let mut out = if x.stem.is_none() { vec![(Tensor::Embed, 0)] } else { Vec::new() };
    let mut each = vec![
        Tensor::AttnNorm,
        Tensor::FfnNorm,
        Tensor::Query,
        Tensor::Key,
        Tensor::Value,
        Tensor::Output,
        Tensor::Up,
        Tensor::Down,
    ];
    if x.encoder.is_some() {
        let text = [Tensor::EmbedNorm, Tensor::EmbedNormBias, Tensor::TokenTypes];
        let patches = [Tensor::Stem, Tensor::StemBias, Tensor::FinalNorm, Tensor::FinalNormBias];
        match x.stem {
            None => out.extend(text.map(|t| (t, 0))),
            Some(_) => out.extend(patches.map(|t| (t, 0))),
        }
        match x.stem {
            Some(Stem::Patches { class: true, .. }) => out.push((Tensor::ClassToken, 0)),
            Some(Stem::Frames { .. }) => out.extend([(Tensor::Stem2, 0), (Tensor::Stem2Bias, 0)]),
            _ => {}
        }
        out.push((Tensor::Positions, 0));
        each.extend([Tensor::AttnNormBias, Tensor::FfnNormBias]);
        each.extend([Tensor::OutputBias, Tensor::UpBias, Tensor::DownBias]);
    } else {
        out.push((Tensor::FinalNorm, 0));
        each.push(Tensor::Gate);
        if !spec.tied_embedding {
            out.push((Tensor::Head, 0));
        }
    }
    if x.post_norms {
        each.extend([Tensor::PostAttnNorm, Tensor::PostFfnNorm]);
    }
    if spec.qkv_bias {
        each.extend([Tensor::QueryBias, Tensor::KeyBias, Tensor::ValueBias]);
    }
    if spec.qk_norm {
        each.extend([Tensor::QueryNorm, Tensor::KeyNorm]);
    }
    out.extend((0..spec.layers).flat_map(|layer| each.iter().map(move |t| (*t, layer))));
    out
}

/// Gives the values of a model's tensors.
pub trait TensorSource {
    /// All values of `tensor` in `layer` (0 for those that are none of a layer's), row by row.
    ///
    /// # Errors
    /// If they cannot be read.
    fn values(&mut self, tensor: Tensor, layer: u32) -> Result<Vec<f32>, WorkloadError>;

    /// The same as the codes the source holds, where it holds codes.
    ///
    /// # Errors
    /// If they cannot be read.
    fn codes(&mut self, _tensor: Tensor, _layer: u32) -> Result<Option<Coded>, WorkloadError> {
        Ok(None)
    }
}

/// Random weights that keep activations near unit size.
#[derive(Clone, Debug)]
pub struct RandomTensors {
    seed: u64,
    spec: ModelSpec,
}

/// Random weights of `spec`: the same for the same seed, whatever the order they are asked for.
#[must_use]
pub fn random_tensors(seed: u64, spec: &ModelSpec) -> RandomTensors {
    RandomTensors { seed, spec: spec.clone() }
}

impl TensorSource for RandomTensors {
    #[allow(clippy::cast_precision_loss, reason = "24 random bits and small widths are exact")]
    fn values(&mut self, tensor: Tensor, layer: u32) -> Result<Vec<f32>, WorkloadError> {
        let (rows, cols) = tensor.shape(&self.spec);
        let mut stream = Stream::new(self.seed, &format!("layer{layer}"), &format!("{tensor:?}"));
        let (centre, spread) = match tensor {
            Tensor::AttnNorm
            | Tensor::FfnNorm
            | Tensor::FinalNorm
            | Tensor::QueryNorm
            | Tensor::KeyNorm
            | Tensor::PostAttnNorm
            | Tensor::PostFfnNorm
            | Tensor::EmbedNorm => (1.0, 0.25),
            Tensor::QueryBias
            | Tensor::KeyBias
            | Tensor::ValueBias
            | Tensor::AttnNormBias
            | Tensor::FfnNormBias
            | Tensor::OutputBias
            | Tensor::UpBias
            | Tensor::DownBias
            | Tensor::EmbedNormBias
            | Tensor::FinalNormBias
            | Tensor::StemBias
            | Tensor::Stem2Bias => (0.0, 0.5),
            Tensor::ClassToken | Tensor::Embed | Tensor::Positions | Tensor::TokenTypes => (0.0, 1.0),
            // Uniform in +-sqrt(3 / inputs): sums of as many products keep variance one.
            _ => (0.0, (3.0 / cols as f32).sqrt()),
        };
        let scale = spread / (1 << 23) as f32;
        let value = |_| {
            let bits = u32::try_from(stream.next_u64() >> 40).expect("24 bits");
            centre + (bits as f32 - (1 << 23) as f32) * scale
        };
        Ok((0..rows * cols).map(value).collect())
    }
}

/// Builds the whole image of `spec` under `scheme`. Meant for models small enough to compute functionally.
///
/// # Errors
/// If there is no layout, or values cannot be read.
///
/// # Panics
/// If the source returns a wrong number of values, or the image does not fit the host's memory.
pub fn build_image(
    spec: &ModelSpec,
    scheme: &QuantScheme,
    source: &mut impl TensorSource,
) -> Result<(ImageLayout, Vec<u8>), WorkloadError> {
    let layout = ImageLayout::new(spec, scheme)?;
    let image = fill_image(&layout, spec, scheme, source)?;
    Ok((layout, image))
}

/// Fills the image of a layout that was made for `spec` and `scheme`.
///
/// # Errors
/// If values cannot be read.
///
/// # Panics
/// If the source returns a wrong number of values, or the image does not fit the host's memory.
pub fn fill_image(
    layout: &ImageLayout,
    spec: &ModelSpec,
    scheme: &QuantScheme,
    source: &mut impl TensorSource,
) -> Result<Vec<u8>, WorkloadError> {
    if spec.extras.stem.is_some() {
        return fill(layout, &stored_spec(spec), scheme, &mut Padded { source, spec });
    }
    fill(layout, spec, scheme, source)
}

/// The same of a model whose sizes are those the image stores.
fn fill(
    layout: &ImageLayout,
    spec: &ModelSpec,
    scheme: &QuantScheme,
    source: &mut impl TensorSource,
) -> Result<Vec<u8>, WorkloadError> {
    let h = layout.header;
    let mut image = Image { bytes: vec![0; index(h.bytes)], panel: index(h.panel) };
    for (at, bytes) in layout.stored() {
        image.put(at, &bytes);
    }
    let width = index(h.hidden);
    if spec.extras.stem.is_none() {
        match source.codes(Tensor::Embed, 0)? {
            // Row by row, so that the values never stand in memory all at once.
            Some(coded) if width.is_multiple_of(coded.group) => {
                for (i, row) in (0..h.vocab).zip(coded.rows(width)) {
                    image.put_fp16(h.embed + i * h.embed_stride, &row);
                }
            }
            _ => image.rows(h.embed, h.embed_stride, &values(source, spec, Tensor::Embed, 0)?, width),
        }
    }
    let mut get = |tensor: Tensor, layer: u32| values(source, spec, tensor, layer);
    if let Some(stem) = spec.extras.stem {
        image.put_fp32(h.final_norm, &get(Tensor::FinalNorm, 0)?);
        image.put_fp32(h.final_norm + h.hidden * 4, &get(Tensor::FinalNormBias, 0)?);
        image.stem(&h, source, spec, stem)?;
    } else if spec.extras.encoder.is_some() {
        image.rows(h.positions, h.embed_stride, &get(Tensor::Positions, 0)?, width);
        image.rows(h.token_types, h.embed_stride, &get(Tensor::TokenTypes, 0)?, width);
        image.put_fp32(h.embed_norm, &get(Tensor::EmbedNorm, 0)?);
        image.put_fp32(h.embed_norm + h.hidden * 4, &get(Tensor::EmbedNormBias, 0)?);
    } else {
        image.put_fp32(h.final_norm, &get(Tensor::FinalNorm, 0)?);
        let head = if spec.tied_embedding { Tensor::Embed } else { Tensor::Head };
        image.matrix(h.head, source, spec, (&[head], 0), scheme.head)?;
    }
    for (layer, base) in (0..).zip(layout.layers()) {
        let mut get = |tensor: Tensor| values(source, spec, tensor, layer);
        for (tensor, offset) in vectors(&h, spec) {
            image.put_fp32(base + offset, &get(tensor)?);
        }
        if spec.qkv_bias {
            let parts = [get(Tensor::QueryBias)?, get(Tensor::KeyBias)?, get(Tensor::ValueBias)?];
            image.put_fp32(base + h.bias, &image.whole_panels(spec, by_kv_head(spec, &parts), 1));
        }
        let parts = layout.kinds[scheme.kind_of(layer)].parts;
        let qkv: &[Tensor] = &[Tensor::Query, Tensor::Key, Tensor::Value];
        let each: [&[Tensor]; 6] = [
            if parts[1].offset == 0 { qkv } else { &qkv[..2] },
            &[Tensor::Value],
            &[Tensor::Output],
            &[Tensor::Gate],
            &[Tensor::Up],
            &[Tensor::Down],
        ];
        for ((tensors, part), quant) in each.into_iter().zip(parts).zip(scheme.body_of(layer).each()) {
            if part.offset != 0 {
                image.matrix(base + part.offset, source, spec, (tensors, layer), quant)?;
            }
        }
    }
    Ok(image.bytes)
}

/// Values of a tensor, as many as it has.
fn values(
    source: &mut impl TensorSource,
    spec: &ModelSpec,
    tensor: Tensor,
    layer: u32,
) -> Result<Vec<f32>, WorkloadError> {
    let (values, (rows, cols)) = (source.values(tensor, layer)?, tensor.shape(spec));
    assert_eq!(values.len(), rows * cols, "{tensor:?} has {rows} x {cols} values");
    Ok(values)
}

/// Codes of a tensor in groups of `group`.
fn codes(
    source: &mut impl TensorSource,
    spec: &ModelSpec,
    tensor: Tensor,
    layer: u32,
    (group, minimum): (u32, bool),
) -> Result<Coded, WorkloadError> {
    let Some(coded) = source.codes(tensor, layer)? else {
        let text = format!("{tensor:?} of layer {layer} has no codes to store");
        return Err(WorkloadProblem::new("model image", "quant", text).into());
    };
    let (rows, cols) = tensor.shape(spec);
    assert_eq!(coded.codes.len(), rows * cols, "{tensor:?} has {rows} x {cols} codes");
    Ok(coded.regrouped(index(group.into()), minimum))
}

/// A layer's vectors that are stored as they are.
fn vectors(h: &ImageHeader, spec: &ModelSpec) -> Vec<(Tensor, u64)> {
    let mut out = vec![(Tensor::AttnNorm, h.norm1), (Tensor::FfnNorm, h.norm2)];
    if spec.qk_norm {
        out.extend([(Tensor::QueryNorm, h.qk_norm), (Tensor::KeyNorm, h.qk_norm + h.head_dim * 4)]);
    }
    if spec.extras.post_norms {
        out.extend([(Tensor::PostAttnNorm, h.post_norm1), (Tensor::PostFfnNorm, h.post_norm2)]);
    }
    if spec.extras.encoder.is_some() {
        out.extend([(Tensor::AttnNormBias, h.norm1_bias), (Tensor::FfnNormBias, h.norm2_bias)]);
        out.extend([(Tensor::OutputBias, h.out_bias), (Tensor::UpBias, h.up_bias)]);
        out.push((Tensor::DownBias, h.down_bias));
    }
    out
}

fn index(value: u64) -> usize {
    usize::try_from(value).expect("an image that is built fits the host")
}

/// Rows of queries and keys, maybe values, in the image's order: by KV head its share of each.
fn by_kv_head<T: Copy>(spec: &ModelSpec, parts: &[Vec<T>]) -> Vec<T> {
    if let [all] = parts {
        return all.clone();
    }
    let heads = index(spec.kv_heads.into());
    let share = |head: usize, part: &[T]| {
        let width = part.len() / heads;
        part[head * width..(head + 1) * width].to_vec()
    };
    (0..heads).flat_map(|head| parts.iter().flat_map(move |part| share(head, part))).collect()
}

/// Codes and scale of values that share one.
fn quantise(values: &[f32], format: Format, fp16_scale: bool) -> (Vec<i8>, f32) {
    let most = if format == Format::Int4 { 7.0f32 } else { 127.0 };
    let largest = values.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let exact = largest / most;
    let scale = if fp16_scale { half::f16::from_f32(exact).to_f32() } else { exact };
    #[allow(clippy::cast_possible_truncation, reason = "clamped to the code's range")]
    let code = |v: &f32| {
        if scale == 0.0 { 0 } else { (v / scale).round_ties_even().clamp(-most, most) as i8 }
    };
    (values.iter().map(code).collect(), scale)
}

/// Values and zeros behind them.
fn padded(values: &[f32], len: usize) -> impl Iterator<Item = f32> + use<'_> {
    values.iter().copied().chain(std::iter::repeat(0.0)).take(len)
}

/// A model with heads and hidden layer as wide as the image stores them.
struct Padded<'a, S> {
    source: &'a mut S,
    /// The model itself.
    spec: &'a ModelSpec,
}

impl<S: TensorSource> TensorSource for Padded<'_, S> {
    fn values(&mut self, tensor: Tensor, layer: u32) -> Result<Vec<f32>, WorkloadError> {
        let (spec, stored) = (self.spec, stored_spec(self.spec));
        let values = values(self.source, spec, tensor, layer)?;
        let width = |w: u32| index(w.into());
        let (head, wide) = (width(spec.head_dim), width(stored.head_dim));
        let (ffn, whole) = (width(spec.ffn), width(stored.ffn));
        let hidden = width(spec.hidden);
        // Pieces of the first length become pieces of the second.
        let (piece, to) = match tensor {
            Tensor::Query | Tensor::Key | Tensor::Value => (head * hidden, wide * hidden),
            Tensor::QueryBias | Tensor::KeyBias | Tensor::ValueBias | Tensor::Output => (head, wide),
            Tensor::Up => (ffn * hidden, whole * hidden),
            Tensor::UpBias | Tensor::Down => (ffn, whole),
            _ => return Ok(values),
        };
        Ok(values.chunks_exact(piece).flat_map(|v| padded(v, to)).collect())
    }
}

struct Image {
    bytes: Vec<u8>,
    panel: usize,
}

impl Image {
    fn put(&mut self, at: u64, bytes: &[u8]) {
        let at = index(at);
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn put_fp32(&mut self, at: u64, values: &[f32]) {
        self.put(at, &values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>());
    }

    fn put_fp16(&mut self, at: u64, values: &[f32]) {
        let at = index(at);
        let bytes = self.bytes[at..at + 2 * values.len()].as_chunks_mut::<2>().0;
        bytes.iter_mut().zip(values).for_each(|(b, v)| *b = half::f16::from_f32(*v).to_le_bytes());
    }

    /// Rows of `width` elements as fp16, `stride` bytes apart.
    fn rows(&mut self, at: u64, stride: u64, values: &[f32], width: usize) {
        for (i, row) in (0u64..).zip(values.chunks_exact(width)) {
            self.put_fp16(at + i * stride, row);
        }
    }

    /// Columns of QKV by KV head, each head's padded to whole panels.
    fn whole_panels(&self, spec: &ModelSpec, values: Vec<f32>, k: usize) -> Vec<f32> {
        let cols = index((spec.heads / spec.kv_heads + 2).into()) * index(spec.head_dim.into());
        let whole = cols.div_ceil(self.panel) * self.panel;
        if whole == cols {
            return values;
        }
        values.chunks_exact(cols * k).flat_map(|head| padded(head, whole * k)).collect()
    }

    /// A stem's matrices and biases, and the rows that are added to it.
    fn stem(
        &mut self,
        h: &ImageHeader,
        source: &mut impl TensorSource,
        spec: &ModelSpec,
        stem: Stem,
    ) -> Result<(), WorkloadError> {
        let mut get = |tensor: Tensor| values(source, spec, tensor, 0);
        let (bias, cols) = (get(Tensor::StemBias)?, index(stem.values()));
        let first = get(Tensor::Stem)?;
        let mut positions = get(Tensor::Positions)?;
        let mut second = None;
        match stem {
            Stem::Patches { class, .. } => {
                // The bias is in the rows: a class token's row has none.
                let mut rows = positions.chunks_exact_mut(index(h.hidden));
                if class {
                    let class = get(Tensor::ClassToken)?;
                    let row = rows.next().into_iter().flatten();
                    row.zip(&class).for_each(|(position, class)| *position += class);
                }
                rows.for_each(|row| row.iter_mut().zip(&bias).for_each(|(position, bias)| *position += bias));
            }
            Stem::Frames { .. } => {
                self.put_fp32(h.stem_bias, &bias);
                self.put_fp32(h.stem2_bias, &get(Tensor::Stem2Bias)?);
                second = Some(get(Tensor::Stem2)?);
            }
        }
        self.rows(h.positions, h.embed_stride, &positions, index(h.hidden));
        let plain = WeightQuant::Plain(TensorFormat::Fp16);
        let k = index(h.input_cols);
        let whole: Vec<f32> = first.chunks_exact(cols).flat_map(|row| padded(row, k)).collect();
        self.panels(h.stem, &whole, k, plain)?;
        match second {
            Some(values) => self.panels(h.stem2, &values, 3 * index(h.hidden), plain),
            None => Ok(()),
        }
    }

    /// Packs a tensor, or queries and keys and maybe values, into the matrix at `at`.
    fn matrix(
        &mut self,
        at: u64,
        source: &mut impl TensorSource,
        spec: &ModelSpec,
        (tensors, layer): (&[Tensor], u32),
        quant: WeightQuant,
    ) -> Result<(), WorkloadError> {
        let k = tensors[0].shape(spec).1;
        if !matches!(quant, WeightQuant::Coded { .. }) {
            let parts =
                tensors.iter().map(|t| values(source, spec, *t, layer)).collect::<Result<Vec<_>, _>>()?;
            let joined = by_kv_head(spec, &parts);
            let whole = if tensors.len() == 3 { self.whole_panels(spec, joined, k) } else { joined };
            return self.panels(at, &whole, k, quant);
        }
        let group = (quant.group(), quant.minimum());
        let parts =
            tensors.iter().map(|t| codes(source, spec, *t, layer, group)).collect::<Result<Vec<_>, _>>()?;
        let all = |of: fn(&Coded) -> &Vec<f32>| {
            by_kv_head(spec, &parts.iter().map(|part| of(part).clone()).collect::<Vec<_>>())
        };
        let coded = Coded {
            group: parts[0].group,
            codes: by_kv_head(spec, &parts.iter().map(|part| part.codes.clone()).collect::<Vec<_>>()),
            scales: all(|part| &part.scales),
            minima: all(|part| &part.minima),
        };
        pack_codes(&mut self.bytes[index(at)..], &coded, k, stored_as(self.panel as u64, quant)?);
        Ok(())
    }

    /// Packs a matrix of outputs x `k` inputs into column panels.
    fn panels(&mut self, at: u64, values: &[f32], k: usize, quant: WeightQuant) -> Result<(), WorkloadError> {
        let stored = stored_as(self.panel as u64, quant)?;
        let stride = stored.panel_stride(k as u64);
        let rows_a_group = match image::group_rows(stored.grp) {
            0 => k,
            rows => index(rows),
        };
        for (p, columns) in (0u64..).zip(values.chunks_exact(k * self.panel)) {
            for first in (0..k).step_by(rows_a_group) {
                let rows = rows_a_group.min(k - first);
                let bytes = pack(columns, k, first..first + rows, stored.format, stored.grp);
                self.put(at + p * stride + stored.row_offset(first as u64), &bytes);
            }
        }
        Ok(())
    }
}

/// Some rows of a panel (all of them with one scale a column) and what follows them.
fn pack(columns: &[f32], k: usize, rows: std::ops::Range<usize>, format: Format, group: u64) -> Vec<u8> {
    let columns: Vec<&[f32]> = columns.chunks_exact(k).map(|column| &column[rows.clone()]).collect();
    if matches!(format, Format::Fp16 | Format::Bf16) {
        let across = rows.clone().map(|r| columns.iter().map(|c| c[r - rows.start]).collect::<Vec<_>>());
        return across.flat_map(|row| if format == Format::Fp16 { fp16(&row) } else { bf16(&row) }).collect();
    }
    let (codes, scales): (Vec<_>, Vec<_>) =
        columns.iter().map(|column| quantise(column, format, group != 1)).unzip();
    let mut out = Vec::new();
    for r in 0..rows.len() {
        let row = codes.iter().map(|column| column[r].cast_unsigned());
        if format == Format::Int4 {
            let row: Vec<u8> = row.collect();
            out.extend(row.chunks_exact(2).map(|pair| (pair[0] & 15) | (pair[1] << 4)));
        } else {
            out.extend(row);
        }
    }
    if group == 1 {
        out.extend(scales.iter().flat_map(|s| s.to_le_bytes()));
    } else {
        out.extend(fp16(&scales));
    }
    out
}

fn bf16(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect()
}

fn fp16(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_matrices_are_those_fp16_holds() {
        let spec = crate::workload::model_preset("llama-3.2-1b").expect("a preset").spec;
        for (tensor, value, flaw) in [
            (Tensor::Down, 65_519.0, None),
            (Tensor::Down, -65_520.0, Some("expected numbers up to 65504, found -65520")),
            (Tensor::FfnNorm, -65_520.0, None),
            (Tensor::FfnNorm, f32::NEG_INFINITY, Some("expected finite numbers, found -inf")),
            (Tensor::Embed, f32::NAN, Some("expected finite numbers, found NaN")),
        ] {
            let found = tensor.flaw(&spec, &[1.0, value]);
            assert_eq!(found, flaw.map(|text| (1, text.to_owned())), "{tensor:?} {value}");
        }
    }

    #[test]
    fn codes_use_the_whole_range_and_ties_go_to_even() {
        let (codes, scale) = quantise(&[7.0, -3.5, 2.5, 0.4, -7.0], Format::Int4, true);
        assert_eq!((codes, scale.to_bits()), (vec![7, -4, 2, 0, -7], 1.0f32.to_bits()));
        assert_eq!(quantise(&[0.0; 3], Format::Int8, false), (vec![0; 3], 0.0));
        // A scale rounded down in fp16 would need code 128 without the clamp.
        let (codes, _) = quantise(&[127.06, 1.0], Format::Int8, true);
        assert_eq!(codes[0], 127);
    }

    #[test]
    fn a_partial_last_group_has_its_own_scales() {
        // 16 columns of 130 rows: the last two rows are ten times larger.
        let k = 130;
        let values: Vec<f32> = (0..16 * k)
            .map(|i| if i % k < 128 { 0.7 } else { 7.0 } * if i / k % 2 == 0 { 1.0 } else { -1.0 })
            .collect();
        let mut image = Image { bytes: vec![0; 4096], panel: 16 };
        let quant = WeightQuant::Grouped { format: crate::workload::TensorFormat::Int4, group: 128 };
        image.panels(0, &values, k, quant).expect("group of 128");
        assert!(image.bytes[..128 * 8].iter().all(|b| *b == 0x97), "7 and -7 in every pair");
        let scale = |at: usize| half::f16::from_le_bytes([image.bytes[at], image.bytes[at + 1]]).to_f32();
        assert!((scale(1024) - 0.1).abs() < 1e-4 && (scale(1024 + 32 + 16) - 1.0).abs() < 1e-6);
        assert_eq!(u64::try_from(1024 + 32).expect("small"), image::row_offset(128, 16, Format::Int4, 5));
    }
}

//! Where every tensor of a model lies in its image.
//!
//! Models: offsets, padding and stored bytes. Does not model: values. Source: `isa::image`.

use isa::image::{self, ImageHeader, Matrix};
use isa::kinds::{LayerKind, LayerKinds, Part};
use isa::npu::Format;

use super::rope::{inverse_frequencies, local_frequencies};
use crate::workload::{
    Body, ModelSpec, QuantScheme, RopeLayout, Stem, TensorFormat, WeightQuant, WorkloadError, WorkloadProblem,
};

/// Tensors start at multiples of this many bytes.
const ALIGN: u64 = 64;

/// Stored bytes of one kind of tensor, over all layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorBytes {
    /// Name, as the header's field.
    pub name: &'static str,
    /// Bytes of all of them, padding included.
    pub bytes: u64,
}

/// The layout of a model's image.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageLayout {
    /// The filled header.
    pub header: ImageHeader,
    /// Bytes by tensor; they add up to the image's size.
    pub tensors: Vec<TensorBytes>,
    /// Rotary inverse frequencies.
    pub inv_freq: Vec<f32>,
    /// Those of windowed layers, where they have their own.
    pub inv_freq_local: Vec<f32>,
    /// Kinds of layers.
    pub kinds: Vec<LayerKind>,
    /// Each layer's kind.
    pub kind_of: Vec<u8>,
}

/// How a matrix lies in panels of `panel` columns.
pub(super) fn stored_as(panel: u64, quant: WeightQuant) -> Result<Matrix, WorkloadError> {
    let format = format_of(quant.format());
    let code = |group: u32| {
        let found = (2..=6).find(|code| image::group_rows(*code) == u64::from(group));
        found.ok_or_else(|| problem("group", format!("expected 16, 32, 64, 128 or 256 rows, found {group}")))
    };
    Ok(match quant {
        WeightQuant::Plain(TensorFormat::Fp16 | TensorFormat::Bf16) => Matrix::symmetric(panel, format, 0),
        WeightQuant::Plain(_) => return Err(problem("format", "integer weights need scales".to_owned())),
        WeightQuant::PerChannel(_) => Matrix::symmetric(panel, format, 1),
        WeightQuant::Grouped { group, .. } => Matrix::symmetric(panel, format, code(group)?),
        WeightQuant::Coded { group, wide, minimum, .. } => Matrix {
            sf: if wide { 2 } else { 0 },
            zpm: if minimum { 2 } else { 0 },
            ..Matrix::symmetric(panel, format, code(group)?)
        },
    })
}

const fn format_of(format: TensorFormat) -> Format {
    match format {
        TensorFormat::Int4 => Format::Int4,
        TensorFormat::Uint4 => Format::Uint4,
        TensorFormat::Int8 => Format::Int8,
        TensorFormat::Bf16 => Format::Bf16,
        TensorFormat::Fp16 => Format::Fp16,
    }
}

fn problem(key: &str, message: String) -> WorkloadError {
    WorkloadProblem::new("model image", key, message).into()
}

/// Hands out aligned places and remembers what they are for.
struct Places {
    at: u64,
    taken: Vec<TensorBytes>,
}

impl Places {
    const fn new() -> Self {
        Self { at: 0, taken: Vec::new() }
    }

    fn place(&mut self, name: &'static str, bytes: u64) -> u64 {
        let (at, bytes) = (self.at, bytes.div_ceil(ALIGN) * ALIGN);
        self.at += bytes;
        self.taken.push(TensorBytes { name, bytes });
        at
    }

    /// Remembers what `layers` layers take.
    fn add(&mut self, taken: &[TensorBytes], layers: u64) {
        for t in taken {
            let bytes = t.bytes * layers;
            match self.taken.iter_mut().find(|all| all.name == t.name) {
                Some(all) => all.bytes += bytes,
                None => self.taken.push(TensorBytes { bytes, ..*t }),
            }
        }
    }

    fn if_any(&mut self, name: &'static str, any: bool, bytes: u64) -> u64 {
        self.place(name, if any { bytes } else { 0 })
    }
}

/// Heads of an encoder of images or sound are padded to multiples of this.
const HEAD: u32 = 16;

/// The model as its image stores it: of images and sound, heads and hidden layer are padded with zeros, which change no
/// value; scores keep the factor of the unpadded head.
#[must_use]
pub fn stored_spec(spec: &ModelSpec) -> ModelSpec {
    let mut stored = spec.clone();
    if spec.extras.stem.is_some() {
        let scale = 1.0 / f64::from(spec.head_dim).sqrt();
        stored.extras.attention_scale = Some(spec.extras.attention_scale.unwrap_or(scale));
        stored.head_dim = spec.head_dim.div_ceil(HEAD) * HEAD;
        let panel = stem_panel(spec);
        stored.ffn = spec.ffn.div_ceil(panel) * panel;
    }
    stored
}

/// Widest panel that divides the width of such a model.
const fn stem_panel(spec: &ModelSpec) -> u32 {
    match spec.hidden {
        n if n.is_multiple_of(64) => 64,
        n if n.is_multiple_of(32) => 32,
        _ => 16,
    }
}

/// Widest panel that divides every matrix's columns.
///
/// A vocabulary that is no multiple of 16 is refused rather than padded: a padded column would need logits that
/// can never win, and no model of the supported families has one.
fn panel(spec: &ModelSpec) -> Result<u64, WorkloadError> {
    if spec.extras.stem.is_some() && spec.hidden.is_multiple_of(16) {
        return Ok(stem_panel(spec).into());
    }
    let group_cols = u64::from(spec.heads / spec.kv_heads + 2) * u64::from(spec.head_dim);
    let columns = [
        ("hidden_size", u64::from(spec.hidden)),
        ("intermediate_size", u64::from(spec.ffn)),
        ("vocab_size", u64::from(spec.vocab)),
        ("head_dim", u64::from(spec.head_dim)),
    ];
    // An encoder has no head to compute logits with.
    let headless = spec.extras.encoder.is_some();
    let is_column = |key: &str| !(headless && key == "vocab_size");
    for (key, n) in columns.into_iter().filter(|(key, _)| is_column(key)) {
        if n % 16 != 0 {
            return Err(problem(key, format!("expected a multiple of 16, found {n}")));
        }
    }
    let fits = |panel: &u64| {
        columns[..3].iter().filter(|(key, _)| is_column(key)).all(|(_, n)| n % panel == 0)
            && group_cols % panel == 0
    };
    Ok([64, 32].into_iter().find(fits).unwrap_or(16))
}

/// Columns of a KV head's queries, key and value: whole panels; only encoders of images and sound have other widths.
const fn group_cols(h: &ImageHeader) -> u64 {
    ((h.heads / h.kv_heads + 2) * h.head_dim).div_ceil(h.panel) * h.panel
}

/// Whether values can be stored apart from queries and keys: no panel has columns of both.
#[must_use]
pub fn values_apart(spec: &ModelSpec) -> bool {
    panel(spec).is_ok_and(|panel| u64::from(spec.head_dim) % panel == 0)
}

/// How the matrices of a kind of layers lie in panels.
fn stored_body(panel: u64, spec: &ModelSpec, body: &Body) -> Result<[Matrix; 6], WorkloadError> {
    if body.value != body.qkv && u64::from(spec.head_dim) % panel != 0 {
        let message =
            format!("values are stored unlike keys, and panels of {panel} columns have some of both");
        return Err(problem("head_dim", message));
    }
    let mut out = [Matrix::symmetric(panel, Format::Fp16, 0); 6];
    for (stored, quant) in out.iter_mut().zip(body.each()) {
        *stored = stored_as(panel, quant)?;
    }
    Ok(out)
}

/// The one kind of layers as the header describes it.
const fn plain(h: &mut ImageHeader, kind: &LayerKind) {
    let [qkv, _, out, gate, up, down] = kind.parts;
    (h.layer_stride, h.qkv_as, h.qkv) = (kind.bytes, qkv.code, qkv.offset);
    (h.out_as, h.out) = (out.code, out.offset);
    (h.up_as, h.up) = (up.code, up.offset);
    (h.down_as, h.down) = (down.code, down.offset);
    // Where there is no gate, it is an empty matrix before up.
    (h.gate_as, h.gate) = (gate.code, if gate.offset == 0 { up.offset } else { gate.offset });
}

impl ImageLayout {
    /// Lays out the image of `spec` under `scheme`.
    ///
    /// # Errors
    /// If the model's sizes are no multiples of 16 or the scheme's group is none the NPU has.
    pub fn new(spec: &ModelSpec, scheme: &QuantScheme) -> Result<Self, WorkloadError> {
        spec.check(&spec.name)?;
        let stored = stored_spec(spec);
        let spec = &stored;
        let inv_freq = inverse_frequencies(spec);
        let panel = panel(spec)?;
        let bodies =
            scheme.kinds().map(|body| stored_body(panel, spec, body)).collect::<Result<Vec<_>, _>>()?;
        let head = stored_as(panel, scheme.head)?;
        let act_group = match scheme.activation_block {
            0 => 0,
            group => stored_as(panel, WeightQuant::Grouped { format: scheme.activation, group })?.grp,
        };
        let x = &spec.extras;
        let (decoder, text) = (x.encoder.is_none(), x.stem.is_none());
        let mut h = ImageHeader {
            magic: image::MAGIC,
            version: image::VERSION,
            hidden: spec.hidden.into(),
            layers: spec.layers.into(),
            heads: spec.heads.into(),
            kv_heads: spec.kv_heads.into(),
            head_dim: spec.head_dim.into(),
            ffn: spec.ffn.into(),
            vocab: spec.vocab.into(),
            flags: flags(spec),
            eps: single(spec.norm_eps),
            att_scale: single(x.attention_scale.unwrap_or(1.0 / f64::from(spec.head_dim).sqrt())),
            panel,
            head_as: head.code(),
            act_format: format_of(scheme.activation).code(),
            act_group,
            embed_scale: single(x.embed_scale.unwrap_or(1.0)),
            attention_cap: single(x.attention_cap.unwrap_or(0.0)),
            logit_cap: single(x.logit_cap.unwrap_or(0.0)),
            window: x.window.map_or(0, |w| w.positions.into()),
            window_period: x.window.map_or(0, |w| w.period.into()),
            position_count: if decoder { 0 } else { spec.max_position.into() },
            token_type_count: x.encoder.map_or(0, |e| e.token_types.into()),
            ..ImageHeader::default()
        };
        let inv_freq_local = local_frequencies(spec);
        let mut at = Places::new();
        let first = &bodies[0];
        let tabled = bodies.len() > 1 || first[0] != first[1];
        if tabled {
            h.flags |= image::FLAG_KINDS;
        }
        let table = if tabled { LayerKinds::words(bodies.len() as u64, h.layers) * 8 } else { 0 };
        at.place("header", Self::words_bytes() + table);
        h.inv_freq = at.place("inv_freq", h.head_dim * 2);
        h.inv_freq_local = at.if_any("inv_freq_local", !inv_freq_local.is_empty(), h.head_dim * 2);
        h.embed_stride = (h.hidden * 2).div_ceil(ALIGN) * ALIGN;
        h.embed = at.if_any("embed", text, h.embed_stride * h.vocab);
        h.positions = at.place("positions", h.embed_stride * h.position_count);
        h.token_types = at.place("token_types", h.embed_stride * h.token_type_count);
        h.embed_norm = at.if_any("embed_norm", !decoder && text, h.hidden * 8);
        if let Some(stem) = x.stem {
            Self::stem(&mut h, stem, &mut at);
        }
        let kind_of: Vec<u8> =
            (0..spec.layers).map(|l| u8::try_from(scheme.kind_of(l)).unwrap_or(u8::MAX)).collect();
        let mut kinds = Vec::new();
        h.layer0 = at.at;
        for (kind, body) in (0..).zip(&bodies) {
            let mut layer = Self::vectors(&mut h, spec);
            kinds.push(Self::matrices(&mut layer, &h, body));
            let layers = kind_of.iter().filter(|of| **of == kind).count() as u64;
            at.at += layer.at * layers;
            at.add(&layer.taken, layers);
        }
        if !tabled {
            plain(&mut h, &kinds[0]);
        }
        let final_norm = if text { h.hidden * 4 } else { h.hidden * 8 };
        h.final_norm = at.if_any("final_norm", decoder || !text, final_norm);
        h.head = at.if_any("head", decoder, head.bytes(h.hidden, h.vocab));
        h.bytes = at.at;
        Ok(Self { tensors: at.taken, header: h, inv_freq, inv_freq_local, kinds, kind_of })
    }

    /// Places of a stem's tensors.
    fn stem(h: &mut ImageHeader, stem: Stem, at: &mut Places) {
        let plain = Matrix::symmetric(h.panel, Format::Fp16, 0);
        let frames = matches!(stem, Stem::Frames { .. });
        h.input_cols = stem.values().div_ceil(16) * 16;
        h.input_stride = match stem {
            Stem::Patches { .. } => h.input_cols * 2,
            // Each row starts a frame behind the one before.
            Stem::Frames { bins } => u64::from(bins) * 2,
        };
        h.stem = at.place("stem", plain.bytes(h.input_cols, h.hidden));
        h.stem_as = plain.code();
        h.stem_bias = at.if_any("stem_bias", frames, h.hidden * 4);
        h.stem2 = at.if_any("stem2", frames, plain.bytes(3 * h.hidden, h.hidden));
        h.stem2_as = plain.code();
        h.stem2_bias = at.if_any("stem2_bias", frames, h.hidden * 4);
    }

    /// Places of a layer's vectors: the same in every kind.
    fn vectors(h: &mut ImageHeader, spec: &ModelSpec) -> Places {
        let (encoder, post) = (spec.extras.encoder.is_some(), spec.extras.post_norms);
        let group_cols = group_cols(h);
        let mut layer = Places::new();
        h.norm1 = layer.place("norm1", h.hidden * 4);
        h.norm2 = layer.place("norm2", h.hidden * 4);
        h.bias = layer.if_any("bias", spec.qkv_bias, h.kv_heads * group_cols * 4);
        h.qk_norm = layer.if_any("qk_norm", spec.qk_norm, h.head_dim * 8);
        h.post_norm1 = layer.if_any("post_norm1", post, h.hidden * 4);
        h.post_norm2 = layer.if_any("post_norm2", post, h.hidden * 4);
        h.norm1_bias = layer.if_any("norm1_bias", encoder, h.hidden * 4);
        h.norm2_bias = layer.if_any("norm2_bias", encoder, h.hidden * 4);
        h.out_bias = layer.if_any("out_bias", encoder, h.hidden * 4);
        h.up_bias = layer.if_any("up_bias", encoder, h.ffn * 4);
        h.down_bias = layer.if_any("down_bias", encoder, h.hidden * 4);
        layer
    }

    /// Places of a layer's matrices, behind its vectors.
    fn matrices(layer: &mut Places, h: &ImageHeader, body: &[Matrix; 6]) -> LayerKind {
        let (hidden, ffn, att) = (h.hidden, h.ffn, h.heads * h.head_dim);
        let apart = u64::from(body[0] != body[1]);
        let gate = if h.flags & image::FLAG_ENCODER == 0 { ffn } else { 0 };
        let sizes = [
            ("qkv", hidden, h.kv_heads * (group_cols(h) - apart * h.head_dim)),
            ("value", hidden, apart * h.kv_heads * h.head_dim),
            ("out", att, hidden),
            ("gate", hidden, gate),
            ("up", hidden, ffn),
            ("down", ffn, hidden),
        ];
        let mut kind = LayerKind::default();
        for ((part, stored), (name, k, n)) in kind.parts.iter_mut().zip(body).zip(sizes) {
            let offset = layer.place(name, stored.bytes(k, n));
            *part = Part { code: stored.code(), offset: if n > 0 { offset } else { 0 } };
        }
        LayerKind { bytes: layer.at, ..kind }
    }

    /// Offset of every layer in the image.
    pub fn layers(&self) -> impl Iterator<Item = u64> + '_ {
        self.kind_of.iter().scan(self.header.layer0, |at, kind| {
            let offset = *at;
            *at += self.kinds[usize::from(*kind)].bytes;
            Some(offset)
        })
    }

    /// Bytes of the header's words.
    const fn words_bytes() -> u64 {
        (ImageHeader::WORDS * 8) as u64
    }

    /// Bytes of the whole image.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.header.bytes
    }

    /// The header's words and the table of kinds if there is one, little-endian: what lies at the image's address.
    #[must_use]
    pub fn header_bytes(&self) -> Vec<u8> {
        let mut words = self.header.to_words().to_vec();
        if self.header.flags & image::FLAG_KINDS != 0 {
            words.push(self.kinds.len() as u64);
            words.extend(self.kinds.iter().flat_map(LayerKind::to_words));
            let word = |kinds: &[u8]| kinds.iter().rev().fold(0, |word, kind| word << 4 | u64::from(*kind));
            words.extend(self.kind_of.chunks(16).map(word));
        }
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// The rotary table, little-endian: what lies at offset `header.inv_freq`.
    #[must_use]
    pub fn inv_freq_bytes(&self) -> Vec<u8> {
        self.inv_freq.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    /// Ranges of the image a shape-only run must store, with their bytes; the rest is address-only.
    #[must_use]
    pub fn stored(&self) -> Vec<(u64, Vec<u8>)> {
        let local = self.inv_freq_local.iter().flat_map(|value| value.to_le_bytes()).collect();
        vec![
            (0, self.header_bytes()),
            (self.header.inv_freq, self.inv_freq_bytes()),
            (self.header.inv_freq_local, local),
        ]
    }
}

fn flags(spec: &ModelSpec) -> u64 {
    let x = &spec.extras;
    let (encoder, stem) = (x.encoder.is_some(), x.stem.is_some());
    let local = x.window.is_some_and(|w| w.local_theta.is_some());
    [
        (spec.qkv_bias, image::FLAG_BIAS),
        (spec.qk_norm, image::FLAG_QK_NORM),
        (spec.rope.layout == RopeLayout::Interleaved, image::FLAG_ROPE_INTER),
        (x.embed_scale.is_some(), image::FLAG_EMBED_SCALE),
        (x.attention_cap.is_some(), image::FLAG_ATTENTION_CAP),
        (x.logit_cap.is_some(), image::FLAG_LOGIT_CAP),
        (x.window.is_some(), image::FLAG_WINDOW),
        (local, image::FLAG_LOCAL_ROPE),
        (x.post_norms, image::FLAG_POST_NORMS),
        (x.gate_gelu, image::FLAG_GATE_GELU),
        (encoder, image::FLAG_ENCODER),
        (encoder, image::FLAG_LAYER_NORM),
        (encoder, image::FLAG_PLAIN_FFN),
        (encoder, image::FLAG_DENSE_BIAS),
        (encoder, image::FLAG_POSITIONS),
        (encoder && !stem, image::FLAG_TOKEN_TYPES),
        (encoder && !stem, image::FLAG_EMBED_NORM),
        (stem, image::FLAG_PRE_NORM | image::FLAG_STEM),
        (x.gelu_tanh, image::FLAG_GELU_TANH),
        (matches!(x.stem, Some(Stem::Frames { .. })), image::FLAG_STEM2),
        (encoder && x.pooling.first, image::FLAG_POOL_FIRST),
        (encoder && x.pooling.as_it_is, image::FLAG_POOL_PLAIN),
    ]
    .into_iter()
    .fold(0, |all, (on, bit)| if on { all | bit } else { all })
}

#[allow(clippy::cast_possible_truncation, reason = "rounding to fp32 is the point")]
fn single(value: f64) -> u64 {
    u64::from((value as f32).to_bits())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{model_names, model_preset};

    #[test]
    fn every_preset_and_scheme_has_a_layout_of_its_weights_size() {
        for name in model_names() {
            let spec = model_preset(name).expect("preset").spec;
            // Images and sound have no head and are padded: below.
            for scheme in QuantScheme::ALL.into_iter().filter(|_| spec.extras.stem.is_none()) {
                let layout = ImageLayout::new(&spec, &scheme).expect(name);
                let h = &layout.header;
                assert_eq!(layout.tensors.iter().map(|t| t.bytes).sum::<u64>(), layout.bytes());
                let offsets = [h.norm1, h.qkv, h.bias, h.qk_norm, h.out, h.norm2, h.gate, h.up, h.down];
                let whole =
                    [h.layer0, h.layer_stride, h.embed, h.embed_stride, h.final_norm, h.head, h.inv_freq];
                assert!(offsets.iter().chain(&whole).all(|o| o % ALIGN == 0), "{name}: {h:?}");
                // Per-channel scales are stored as fp32; else the image's matrices are what a token reads.
                let matrices = ["qkv", "value", "out", "gate", "up", "down", "head"];
                let read: u64 =
                    layout.tensors.iter().filter(|t| matrices.contains(&t.name)).map(|t| t.bytes).sum();
                let wanted = scheme.weight_bytes_per_token(&spec);
                if matches!(scheme.body.qkv, WeightQuant::PerChannel(_)) {
                    assert!(read > wanted && (read - wanted) * 500 < wanted, "{name}: {read} {wanted}");
                } else {
                    assert_eq!(read, wanted, "{name} {}", scheme.name);
                }
            }
        }
    }

    #[test]
    fn heads_and_hidden_layers_of_images_are_padded_to_whole_panels() {
        let spec = model_preset("siglip-so400m").expect("preset").spec;
        let layout = ImageLayout::new(&spec, &QuantScheme::named("fp16").expect("scheme")).expect("layout");
        let h = &layout.header;
        assert_eq!((h.panel, h.head_dim, h.ffn, h.input_cols, h.input_stride), (64, 80, 4352, 592, 1184));
        let scale = f32::from_bits(u32::try_from(h.att_scale).expect("fp32"));
        assert!((f64::from(scale) - 1.0 / 72f64.sqrt()).abs() < 1e-8, "{scale}");
        assert_eq!(layout.tensors.iter().map(|t| t.bytes).sum::<u64>(), layout.bytes());
        let bytes = |name: &str| layout.tensors.iter().find(|t| t.name == name).expect(name).bytes;
        // Three heads of 80 columns take four panels.
        assert_eq!(bytes("qkv"), 27 * 1152 * 16 * 256 * 2);
        assert_eq!((bytes("embed"), bytes("gate"), bytes("head")), (0, 0, 0));
        let whisper = model_preset("whisper-small-encoder").expect("preset").spec;
        let layout = ImageLayout::new(&whisper, &QuantScheme::ALL[0]).expect("layout");
        let h = &layout.header;
        assert_eq!((h.input_cols, h.input_stride, h.head_dim, h.ffn), (240, 160, 64, 3072));
    }

    #[test]
    fn the_header_reads_back_and_what_is_stored_fits_its_range() {
        let spec = model_preset("mimo-7b").expect("preset").spec;
        let scheme = QuantScheme::named("w4a16-g128").expect("scheme");
        let layout = ImageLayout::new(&spec, &scheme).expect("layout");
        let bytes = layout.header_bytes();
        let mut words = [0; ImageHeader::WORDS];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(chunk.try_into().expect("8 bytes"));
        }
        assert_eq!(ImageHeader::from_words(&words), layout.header);
        let qkv = Matrix::from_code(64, layout.header.qkv_as).expect("a code");
        assert_eq!((layout.header.panel, qkv.grp), (64, 5));
        let end = layout.header.embed;
        assert!(layout.stored().iter().all(|(at, bytes)| at + bytes.len() as u64 <= end));
    }

    #[test]
    fn a_vocabulary_off_the_grid_is_refused() {
        let mut spec = model_preset("mimo-7b").expect("preset").spec;
        spec.vocab += 1;
        let scheme = QuantScheme::named("fp16").expect("scheme");
        let error = ImageLayout::new(&spec, &scheme).expect_err("odd vocabulary").to_string();
        assert!(error.contains("vocab_size") && error.contains("multiple of 16"), "{error}");
    }
}

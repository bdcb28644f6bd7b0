//! Where every tensor of a model lies in its image.
//!
//! Models: offsets, padding and stored bytes. Does not model: values. Source: `isa::image`.

use isa::image::{self, FLAG_BIAS, FLAG_QK_NORM, FLAG_ROPE_INTER, ImageHeader};
use isa::npu::Format;

use super::rope::inverse_frequencies;
use crate::workload::{
    ModelSpec, QuantScheme, RopeLayout, TensorFormat, WeightQuant, WorkloadError, WorkloadProblem,
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
}

/// Format and scale group code of a matrix.
pub(super) fn stored_as(quant: WeightQuant) -> Result<(Format, u64), WorkloadError> {
    let group = match quant {
        WeightQuant::Plain(TensorFormat::Fp16) => 0,
        WeightQuant::Plain(_) => return Err(problem("format", "integer weights need scales".to_owned())),
        WeightQuant::PerChannel(_) => 1,
        WeightQuant::Grouped { group, .. } => {
            (2..=6).find(|code| image::group_rows(*code) == u64::from(group)).ok_or_else(|| {
                problem("group", format!("expected 16, 32, 64, 128 or 256 rows, found {group}"))
            })?
        }
    };
    Ok((format_of(quant.format()), group))
}

const fn format_of(format: TensorFormat) -> Format {
    match format {
        TensorFormat::Int4 => Format::Int4,
        TensorFormat::Int8 => Format::Int8,
        TensorFormat::Fp16 => Format::Fp16,
    }
}

fn problem(key: &str, message: String) -> WorkloadError {
    WorkloadProblem::new("model image", key, message).into()
}

/// Hands out aligned places.
struct Places {
    at: u64,
}

impl Places {
    fn place(&mut self, bytes: u64) -> u64 {
        let at = self.at;
        self.at += bytes.div_ceil(ALIGN) * ALIGN;
        at
    }
}

/// Widest panel that divides every matrix's columns.
///
/// A vocabulary that is no multiple of 16 is refused rather than padded: a padded column would need logits that
/// can never win, and no model of the supported families has one.
fn panel(spec: &ModelSpec) -> Result<u64, WorkloadError> {
    let group_cols = u64::from(spec.heads / spec.kv_heads + 2) * u64::from(spec.head_dim);
    let columns = [
        ("hidden_size", u64::from(spec.hidden)),
        ("intermediate_size", u64::from(spec.ffn)),
        ("vocab_size", u64::from(spec.vocab)),
        ("head_dim", u64::from(spec.head_dim)),
    ];
    for (key, n) in columns {
        if n % 16 != 0 {
            return Err(problem(key, format!("expected a multiple of 16, found {n}")));
        }
    }
    let fits = |panel: &u64| columns[..3].iter().all(|(_, n)| n % panel == 0) && group_cols % panel == 0;
    Ok([64, 32].into_iter().find(fits).unwrap_or(16))
}

impl ImageLayout {
    /// Lays out the image of `spec` under `scheme`.
    ///
    /// # Errors
    /// If the model's sizes are no multiples of 16 or the scheme's group is none the NPU has.
    pub fn new(spec: &ModelSpec, scheme: &QuantScheme) -> Result<Self, WorkloadError> {
        spec.check(&spec.name)?;
        let inv_freq = inverse_frequencies(spec);
        let panel = panel(spec)?;
        let (body, body_group) = stored_as(scheme.body)?;
        let (head_format, head_group) = stored_as(scheme.head)?;
        let flag = |on: bool, bit: u64| if on { bit } else { 0 };
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
            flags: flag(spec.qkv_bias, FLAG_BIAS)
                | flag(spec.qk_norm, FLAG_QK_NORM)
                | flag(spec.rope.layout == RopeLayout::Interleaved, FLAG_ROPE_INTER),
            eps: single(spec.norm_eps),
            att_scale: single(1.0 / f64::from(spec.head_dim).sqrt()),
            panel,
            body_format: body.code(),
            body_group,
            head_format: head_format.code(),
            head_group,
            act_format: format_of(scheme.activation).code(),
            ..ImageHeader::default()
        };
        let group_cols = (h.heads / h.kv_heads + 2) * h.head_dim;
        let matrix = |k, n| image::matrix_bytes(k, n, panel, body, body_group);

        let mut at = Places { at: 0 };
        at.place(Self::words_bytes());
        h.inv_freq = at.place(h.head_dim * 2);
        h.embed_stride = (h.hidden * 2).div_ceil(ALIGN) * ALIGN;
        h.embed = at.place(h.embed_stride * h.vocab);

        let mut layer = Places { at: 0 };
        h.norm1 = layer.place(h.hidden * 4);
        h.norm2 = layer.place(h.hidden * 4);
        h.bias = layer.place(if spec.qkv_bias { h.kv_heads * group_cols * 4 } else { 0 });
        h.qk_norm = layer.place(if spec.qk_norm { h.head_dim * 8 } else { 0 });
        h.qkv = layer.place(matrix(h.hidden, h.kv_heads * group_cols));
        h.out = layer.place(matrix(h.heads * h.head_dim, h.hidden));
        h.gate = layer.place(matrix(h.hidden, h.ffn));
        h.up = layer.place(matrix(h.hidden, h.ffn));
        h.down = layer.place(matrix(h.ffn, h.hidden));
        h.layer_stride = layer.at;
        h.layer0 = at.place(h.layer_stride * h.layers);

        h.final_norm = at.place(h.hidden * 4);
        h.head = at.place(image::matrix_bytes(h.hidden, h.vocab, panel, head_format, head_group));
        h.bytes = at.at;
        Ok(Self { tensors: sizes(&h), header: h, inv_freq })
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

    /// The header's words, little-endian: what lies at the image's address.
    #[must_use]
    pub fn header_bytes(&self) -> Vec<u8> {
        self.header.to_words().iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// The rotary table, little-endian: what lies at offset `header.inv_freq`.
    #[must_use]
    pub fn inv_freq_bytes(&self) -> Vec<u8> {
        self.inv_freq.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    /// Ranges of the image a shape-only run must store, with their bytes; the rest is address-only.
    #[must_use]
    pub fn stored(&self) -> Vec<(u64, Vec<u8>)> {
        vec![(0, self.header_bytes()), (self.header.inv_freq, self.inv_freq_bytes())]
    }
}

fn sizes(h: &ImageHeader) -> Vec<TensorBytes> {
    let l = h.layers;
    [
        ("header", h.inv_freq),
        ("inv_freq", h.embed - h.inv_freq),
        ("embed", h.layer0 - h.embed),
        ("norm1", (h.norm2 - h.norm1) * l),
        ("norm2", (h.bias - h.norm2) * l),
        ("bias", (h.qk_norm - h.bias) * l),
        ("qk_norm", (h.qkv - h.qk_norm) * l),
        ("qkv", (h.out - h.qkv) * l),
        ("out", (h.gate - h.out) * l),
        ("gate", (h.up - h.gate) * l),
        ("up", (h.down - h.up) * l),
        ("down", (h.layer_stride - h.down) * l),
        ("final_norm", h.head - h.final_norm),
        ("head", h.bytes - h.head),
    ]
    .map(|(name, bytes)| TensorBytes { name, bytes })
    .to_vec()
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
            for scheme in QuantScheme::ALL {
                let layout = ImageLayout::new(&spec, &scheme).expect(name);
                let h = &layout.header;
                assert_eq!(layout.tensors.iter().map(|t| t.bytes).sum::<u64>(), layout.bytes());
                let offsets = [h.norm1, h.qkv, h.bias, h.qk_norm, h.out, h.norm2, h.gate, h.up, h.down];
                let whole =
                    [h.layer0, h.layer_stride, h.embed, h.embed_stride, h.final_norm, h.head, h.inv_freq];
                assert!(offsets.iter().chain(&whole).all(|o| o % ALIGN == 0), "{name}: {h:?}");
                // Per-channel scales are stored as fp32; else the image's matrices are what a token reads.
                let matrices = ["qkv", "out", "gate", "up", "down", "head"];
                let read: u64 =
                    layout.tensors.iter().filter(|t| matrices.contains(&t.name)).map(|t| t.bytes).sum();
                let wanted = scheme.weight_bytes_per_token(&spec);
                if matches!(scheme.body, WeightQuant::PerChannel(_)) {
                    assert!(read > wanted && (read - wanted) * 500 < wanted, "{name}: {read} {wanted}");
                } else {
                    assert_eq!(read, wanted, "{name} {}", scheme.name);
                }
            }
        }
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
        assert_eq!((layout.header.panel, layout.header.body_group), (64, 5));
        let end = layout.header.embed;
        assert!(layout.stored().iter().all(|(at, bytes)| at + bytes.len() as u64 <= end));
    }

    #[test]
    fn a_vocabulary_off_the_grid_is_refused() {
        let mut spec = model_preset("mimo-7b").expect("preset").spec;
        spec.vocab += 1;
        let scheme = QuantScheme::ALL[0];
        let error = ImageLayout::new(&spec, &scheme).expect_err("odd vocabulary").to_string();
        assert!(error.contains("vocab_size") && error.contains("multiple of 16"), "{error}");
    }
}

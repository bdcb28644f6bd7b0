//! Quantisation schemes: how each class of tensor is stored and computed.
//!
//! Models: formats, groups and their bits. Does not model: the values. Source: the scheme definitions of this
//! project's interface (w4a16 in groups of 128 is the AWQ and GPTQ layout with symmetric int4).

use isa::kinds::{MAX_KINDS, MAX_LAYERS};
use serde::Serialize;

use super::error::{WorkloadError, unknown_name};
use super::model::ModelSpec;

/// A stored number format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TensorFormat {
    /// Signed 4-bit integer.
    Int4,
    /// Unsigned 4-bit integer.
    Uint4,
    /// Signed 8-bit integer.
    Int8,
    /// bfloat16.
    Bf16,
    /// IEEE 754 half precision.
    Fp16,
}

impl TensorFormat {
    /// Bits of one element, scales apart.
    #[must_use]
    pub const fn bits(self) -> u64 {
        match self {
            Self::Int4 | Self::Uint4 => 4,
            Self::Int8 => 8,
            Self::Bf16 | Self::Fp16 => 16,
        }
    }
}

/// How a weight matrix of K rows (inputs) is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeightQuant {
    /// Plain elements without scales.
    Plain(TensorFormat),
    /// One fp16 scale per group of rows in a column.
    Grouped {
        /// Format of an element.
        format: TensorFormat,
        /// Rows of a group.
        group: u32,
    },
    /// One fp16 scale per column.
    PerChannel(TensorFormat),
    /// A file's own codes: value = scale x code + minimum.
    Coded {
        /// Format of a code.
        format: TensorFormat,
        /// Rows of a group.
        group: u32,
        /// Whether scales and minima are fp32 instead of fp16.
        wide: bool,
        /// Whether a group has a minimum.
        minimum: bool,
    },
}

/// Bits of one scale (fp16).
pub const SCALE_BITS: u64 = 16;

impl WeightQuant {
    /// Format of an element.
    #[must_use]
    pub const fn format(self) -> TensorFormat {
        match self {
            Self::Plain(format)
            | Self::Grouped { format, .. }
            | Self::PerChannel(format)
            | Self::Coded { format, .. } => format,
        }
    }

    /// Rows of a group, 0 where there are none.
    #[must_use]
    pub const fn group(self) -> u32 {
        match self {
            Self::Grouped { group, .. } | Self::Coded { group, .. } => group,
            Self::Plain(_) | Self::PerChannel(_) => 0,
        }
    }

    /// Whether groups have minima.
    #[must_use]
    pub const fn minimum(self) -> bool {
        matches!(self, Self::Coded { minimum: true, .. })
    }

    /// How matrices of two kinds are stored as one: codes of different kinds as int8 in the shorter group, with the
    /// wider scales, and minima if either has them, none of which rounds; codes and floats as fp16.
    #[must_use]
    pub fn joined(self, other: Self) -> Self {
        match (self, other) {
            _ if self == other => self,
            (Self::Coded { group: g, wide: w, minimum: m, .. }, Self::Coded { group, wide, minimum, .. }) => {
                Self::Coded {
                    format: if self.format() == other.format() { self.format() } else { TensorFormat::Int8 },
                    group: g.min(group),
                    wide: w || wide,
                    minimum: m || minimum,
                }
            }
            _ => Self::Plain(TensorFormat::Fp16),
        }
    }

    /// Bits of a K x N matrix, scales included.
    #[must_use]
    pub const fn matrix_bits(self, k: u64, n: u64) -> u64 {
        let scales = match self {
            Self::Plain(_) => 0,
            Self::Grouped { group, .. } => k.div_ceil(group as u64) * n,
            Self::PerChannel(_) => n,
            Self::Coded { group, wide, minimum, .. } => {
                k.div_ceil(group as u64) * n * (1 + wide as u64) * (1 + minimum as u64)
            }
        };
        k * n * self.format().bits() + scales * SCALE_BITS
    }
}

/// The matrices of a block, each stored its own way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Body {
    /// Queries and keys, and values if they are stored alike.
    pub qkv: WeightQuant,
    /// Values.
    pub value: WeightQuant,
    /// Attention output.
    pub out: WeightQuant,
    /// Gate.
    pub gate: WeightQuant,
    /// Up.
    pub up: WeightQuant,
    /// Down.
    pub down: WeightQuant,
}

impl Body {
    /// All of them alike.
    #[must_use]
    pub const fn all(quant: WeightQuant) -> Self {
        Self { qkv: quant, value: quant, out: quant, gate: quant, up: quant, down: quant }
    }

    /// Each of them.
    #[must_use]
    pub const fn each(&self) -> [WeightQuant; 6] {
        [self.qkv, self.value, self.out, self.gate, self.up, self.down]
    }

    /// Names of them, as a layer's matrices are called in an image's layout.
    pub const NAMES: [&'static str; 6] = ["qkv", "value", "out", "gate", "up", "down"];

    /// Hundredths of a bit that each takes a weight in `model`, scales included, values only where they are stored
    /// apart: what there is of a layer.
    #[must_use]
    pub fn hundredths(&self, model: &ModelSpec) -> Vec<(&'static str, u64)> {
        let each = self.each().into_iter().zip(Self::sizes(model)).zip(Self::NAMES);
        let there =
            each.filter(|((quant, (_, n)), name)| *n > 0 && (*name != Self::NAMES[1] || *quant != self.qkv));
        there.map(|((quant, (k, n)), name)| (name, quant.matrix_bits(k, n) * 100 / (k * n))).collect()
    }

    /// Their sizes, in that order: inputs and outputs; an encoder has no gate.
    #[must_use]
    pub const fn sizes(model: &ModelSpec) -> [(u64, u64); 6] {
        let (hidden, ffn) = (model.hidden as u64, model.ffn as u64);
        let (q, kv) = (model.q_width(), model.kv_width());
        let gate = if model.extras.encoder.is_some() { 0 } else { ffn };
        [(hidden, q + kv), (hidden, kv), (q, hidden), (hidden, gate), (hidden, ffn), (ffn, hidden)]
    }

    /// Bits of a layer's matrices, scales included.
    #[must_use]
    pub fn bits(&self, model: &ModelSpec) -> u64 {
        self.each().iter().zip(Self::sizes(model)).map(|(quant, (k, n))| quant.matrix_bits(k, n)).sum()
    }

    /// The same with every matrix stored so that it holds the other's too.
    #[must_use]
    pub fn joined(&self, other: &Self) -> Self {
        Self {
            qkv: self.qkv.joined(other.qkv),
            value: self.value.joined(other.value),
            out: self.out.joined(other.out),
            gate: self.gate.joined(other.gate),
            up: self.up.joined(other.up),
            down: self.down.joined(other.down),
        }
    }

    /// The same with values stored as queries and keys are.
    #[must_use]
    pub fn together(&self) -> Self {
        let qkv = self.qkv.joined(self.value);
        Self { qkv, value: qkv, ..*self }
    }
}

/// What layers have that are not all stored alike.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Mix {
    /// Kinds of layers beyond the first.
    pub more: Vec<Body>,
    /// Each layer's kind, 0 being the first; none where all layers are of that.
    pub of: Vec<u8>,
}

impl Mix {
    /// All layers alike.
    pub const NONE: Self = Self { more: Vec::new(), of: Vec::new() };
}

/// How every class of tensor is stored and computed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QuantScheme {
    /// Name.
    pub name: &'static str,
    /// Projections of the blocks, of the first kind where layers are of several: [`Self::body_of`].
    pub body: Body,
    /// Which layers are of which kind.
    pub mix: Mix,
    /// Output head.
    pub head: WeightQuant,
    /// Embedding rows.
    pub embedding: TensorFormat,
    /// Key and value cache.
    pub kv: TensorFormat,
    /// Left operand of the projections.
    pub activation: TensorFormat,
    /// Elements of a row of integer activations that share a scale; 0: the whole row.
    pub activation_block: u32,
}

impl QuantScheme {
    /// Every scheme.
    pub const ALL: [Self; 5] = [
        Self {
            name: "w4a16-g128",
            body: Body::all(WeightQuant::Grouped { format: TensorFormat::Int4, group: 128 }),
            mix: Mix::NONE,
            head: WeightQuant::Grouped { format: TensorFormat::Int8, group: 128 },
            embedding: TensorFormat::Fp16,
            kv: TensorFormat::Fp16,
            activation: TensorFormat::Fp16,
            activation_block: 0,
        },
        Self {
            name: "w4a8-g32",
            body: Body::all(WeightQuant::Grouped { format: TensorFormat::Int4, group: 32 }),
            mix: Mix::NONE,
            head: WeightQuant::Grouped { format: TensorFormat::Int8, group: 32 },
            embedding: TensorFormat::Fp16,
            kv: TensorFormat::Fp16,
            activation: TensorFormat::Int8,
            activation_block: 32,
        },
        Self {
            name: "w8a8",
            body: Body::all(WeightQuant::PerChannel(TensorFormat::Int8)),
            mix: Mix::NONE,
            head: WeightQuant::PerChannel(TensorFormat::Int8),
            embedding: TensorFormat::Fp16,
            kv: TensorFormat::Fp16,
            activation: TensorFormat::Int8,
            activation_block: 0,
        },
        Self {
            name: "w8a16",
            body: Body::all(WeightQuant::PerChannel(TensorFormat::Int8)),
            mix: Mix::NONE,
            head: WeightQuant::PerChannel(TensorFormat::Int8),
            embedding: TensorFormat::Fp16,
            kv: TensorFormat::Fp16,
            activation: TensorFormat::Fp16,
            activation_block: 0,
        },
        Self {
            name: "fp16",
            body: Body::all(WeightQuant::Plain(TensorFormat::Fp16)),
            mix: Mix::NONE,
            head: WeightQuant::Plain(TensorFormat::Fp16),
            embedding: TensorFormat::Fp16,
            kv: TensorFormat::Fp16,
            activation: TensorFormat::Fp16,
            activation_block: 0,
        },
    ];

    /// The scheme of that name.
    ///
    /// # Errors
    /// If there is none, with the nearest.
    pub fn named(name: &str) -> Result<Self, WorkloadError> {
        let valid = Self::ALL.map(|scheme| scheme.name);
        let found = Self::ALL.into_iter().find(|scheme| scheme.name == name);
        found.ok_or_else(|| unknown_name("--quant", "quantisation scheme", name, &valid))
    }

    /// Every kind of layers.
    pub fn kinds(&self) -> impl Iterator<Item = &Body> + Clone {
        std::iter::once(&self.body).chain(&self.mix.more)
    }

    /// Whether layers or their values are not all stored alike, so that an image says how each kind is.
    #[must_use]
    pub fn is_mixed(&self) -> bool {
        !self.mix.more.is_empty() || self.body.value != self.body.qkv
    }

    /// Number of a layer's kind.
    #[must_use]
    pub fn kind_of(&self, layer: u32) -> usize {
        self.mix.of.get(layer as usize).copied().unwrap_or(0).into()
    }

    /// How a layer's matrices are stored.
    #[must_use]
    pub fn body_of(&self, layer: u32) -> &Body {
        let more = self.kind_of(layer).checked_sub(1);
        more.and_then(|kind| self.mix.more.get(kind)).unwrap_or(&self.body)
    }

    /// The same scheme with each layer's matrices stored as `bodies` says. Where there are more kinds than an image
    /// has, those are joined that grow least by it.
    #[must_use]
    pub fn mixed(self, model: &ModelSpec, bodies: &[Body]) -> Self {
        let mut kinds: Vec<(Body, Vec<usize>)> = Vec::new();
        for (layer, body) in bodies.iter().enumerate() {
            match kinds.iter_mut().find(|(kind, _)| kind == body) {
                Some((_, layers)) => layers.push(layer),
                None => kinds.push((*body, vec![layer])),
            }
        }
        let most = if bodies.len() as u64 > MAX_LAYERS { 1 } else { MAX_KINDS };
        while kinds.len() > most {
            let bits = |body: &Body, layers: &[usize]| body.bits(model) * layers.len() as u64;
            let mut best = (u64::MAX, 0, 1);
            for (j, (b, of_b)) in kinds.iter().enumerate() {
                for (i, (a, of_a)) in kinds[..j].iter().enumerate() {
                    let both = a.joined(b);
                    let more = bits(&both, of_a) + bits(&both, of_b) - bits(a, of_a) - bits(b, of_b);
                    best = best.min((more, i, j));
                }
            }
            let (b, layers) = kinds.remove(best.2);
            let kind = &mut kinds[best.1];
            kind.0 = kind.0.joined(&b);
            kind.1.extend(layers);
        }
        let mut of = vec![0; bodies.len()];
        for (kind, (_, layers)) in (0..).zip(&kinds) {
            layers.iter().for_each(|layer| of[*layer] = kind);
        }
        let mut bodies = kinds.into_iter().map(|(body, _)| body);
        let body = bodies.next().unwrap_or(self.body);
        let more: Vec<Body> = bodies.collect();
        let mix = if more.is_empty() { Mix::NONE } else { Mix { more, of } };
        Self { body, mix, ..self }
    }

    /// Bytes of weights, scales and biases read for one decoded token: all blocks and the head, no embedding row.
    #[must_use]
    pub fn weight_bytes_per_token(&self, model: &ModelSpec) -> u64 {
        let kinds: Vec<u64> = self.kinds().map(|body| body.bits(model)).collect();
        let layers: u64 = (0..model.layers).map(|layer| kinds[self.kind_of(layer)]).sum();
        let head = self.head.matrix_bits(model.hidden.into(), model.vocab.into());
        (layers + head).div_ceil(8)
    }

    /// Bytes of keys and values appended per token over all layers, scales included.
    #[must_use]
    pub const fn kv_bytes_per_token(&self, model: &ModelSpec) -> u64 {
        let row = isa::cache::row_bytes(model.head_dim as u64, self.kv.bits());
        model.layers as u64 * 2 * model.kv_heads as u64 * row
    }
}

#[cfg(test)]
mod tests {
    use super::super::preset::model_preset;
    use super::*;

    #[test]
    fn grouped_int4_is_4_125_bits() {
        let scheme = QuantScheme::named("w4a16-g128").expect("scheme");
        assert_eq!(scheme.body.qkv.matrix_bits(4096, 4096) * 1000 / (4096 * 4096), 4125);
        // A last group that is not full still has its scale.
        assert_eq!(scheme.body.qkv.matrix_bits(130, 1), 130 * 4 + 2 * 16);
        assert_eq!(
            QuantScheme::named("w8a8").expect("scheme").body.qkv.matrix_bits(4096, 2),
            4096 * 2 * 8 + 32
        );
        assert_eq!(QuantScheme::named("fp16").expect("scheme").body.qkv.matrix_bits(10, 10), 1600);
    }

    #[test]
    fn joined_codes_keep_what_each_needs() {
        let four = WeightQuant::Coded { format: TensorFormat::Uint4, group: 32, wide: true, minimum: true };
        let six = WeightQuant::Coded { format: TensorFormat::Int8, group: 16, wide: false, minimum: false };
        let both = WeightQuant::Coded { format: TensorFormat::Int8, group: 16, wide: true, minimum: true };
        assert_eq!((four.joined(four), four.joined(six), six.joined(four)), (four, both, both));
        let half = WeightQuant::Plain(TensorFormat::Fp16);
        assert_eq!((half.joined(six), four.joined(WeightQuant::Plain(TensorFormat::Bf16))), (half, half));
        // Two fp32 values for 32 codes.
        assert_eq!(four.matrix_bits(64, 3), 64 * 3 * 4 + 2 * 3 * 64);
    }

    #[test]
    fn kinds_beyond_what_an_image_has_are_joined_where_it_costs_least() {
        let model = model_preset("mimo-7b").expect("preset").spec;
        let scheme = QuantScheme::named("fp16").expect("scheme");
        let coded =
            |group, wide| WeightQuant::Coded { format: TensorFormat::Int8, group, wide, minimum: false };
        // Nine layers: attention outputs in groups of 16 to 256 with narrow and wide scales, which makes ten.
        let all = [16, 32, 64, 128, 256].into_iter().flat_map(|g| [(g, false), (g, true)]);
        let bodies: Vec<Body> =
            all.map(|(g, wide)| Body { out: coded(g, wide), ..Body::all(coded(32, false)) }).collect();
        let few = scheme.clone().mixed(&model, &bodies[..MAX_KINDS]);
        assert!((0..8).all(|l| few.kind_of(l) == l as usize && few.body_of(l) == &bodies[l as usize]));
        let most = scheme.clone().mixed(&model, &bodies);
        // Scales of 256 rows double, then two fp32 values of 256 rows take the place of one of 128.
        let kinds: Vec<usize> = (0..10).map(|l| most.kind_of(l)).collect();
        assert_eq!((kinds, most.kinds().count()), (vec![0, 1, 2, 3, 4, 5, 6, 7, 6, 7], MAX_KINDS));
        assert_eq!(most.body_of(8).out, coded(128, false));
        let one = scheme.mixed(&model, &vec![bodies[3]; 36]);
        assert_eq!((one.body, one.mix), (bodies[3], Mix::NONE));
    }

    #[test]
    fn a_decoded_token_of_mimo_reads_about_four_gigabytes() {
        let model = model_preset("mimo-7b").expect("preset").spec;
        let scheme = QuantScheme::named("w4a16-g128").expect("scheme");
        let bytes = scheme.weight_bytes_per_token(&model);
        assert!((3_850_000_000..=4_000_000_000).contains(&bytes), "{bytes}");
        assert_eq!(scheme.kv_bytes_per_token(&model), 2 * 36 * 8 * 128 * 2);
    }

    #[test]
    fn a_wrong_scheme_names_the_nearest() {
        let error = QuantScheme::named("w4a16").expect_err("no such scheme").to_string();
        assert!(error.contains("did you mean `w4a16-g128`?"), "{error}");
    }
}

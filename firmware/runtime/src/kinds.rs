//! Matrices of each kind of layers, from the header or from the table behind it.

use isa::image::{self, FLAG_ENCODER, ImageHeader, Matrix as Stored};
use isa::kinds::{LayerKind, LayerKinds, Part};
use isa::npu::Format;

use crate::model::{MATRICES, Matrix, ModelError, group_cols};

/// Sizes and their products stay far from overflow below this.
const MOST: u64 = 1 << 24;

/// The one kind that a header without a table describes.
pub fn plain(h: &ImageHeader) -> LayerKinds {
    let part = |code, offset| Part { code, offset };
    LayerKinds::one(LayerKind {
        bytes: h.layer_stride,
        parts: [
            part(h.qkv_as, h.qkv),
            part(h.qkv_as, 0),
            part(h.out_as, h.out),
            part(h.gate_as, h.gate),
            part(h.up_as, h.up),
            part(h.down_as, h.down),
        ],
    })
}

/// Reads the table behind the header and checks every offset.
pub fn read(h: &ImageHeader, mut word: impl FnMut(u64) -> u64) -> Result<LayerKinds, ModelError> {
    let sizes = [h.hidden, h.layers, h.heads, h.kv_heads, h.head_dim, h.ffn, h.vocab, h.panel];
    if sizes.into_iter().chain([h.heads.saturating_mul(h.head_dim)]).any(|size| size >= MOST) {
        return Err(ModelError::BadShape);
    }
    let kinds = LayerKinds::read(h.layers, &mut word).ok_or(ModelError::Kinds(
        "no kinds, too many kinds or layers, or a layer of a kind that is not there",
    ))?;
    let table = (ImageHeader::WORDS as u64 + LayerKinds::words(kinds.count() as u64, h.layers)) * 8;
    if h.layer0 < table || !h.layer0.is_multiple_of(64) {
        return Err(ModelError::Kinds("layers begin inside the table or off a line"));
    }
    for kind in kinds.all() {
        check(h, kind)?;
    }
    let bytes = (0..h.layers).map(|l| kinds.all()[kinds.of(l)].bytes);
    if bytes.fold(h.layer0, u64::saturating_add) > h.bytes {
        Err(ModelError::Kinds("layers reach beyond the image"))
    } else {
        Ok(kinds)
    }
}

/// Matrices in their order behind the vectors, apart, inside the layer.
fn check(h: &ImageHeader, kind: &LayerKind) -> Result<(), ModelError> {
    let mut at = h.norm1.max(h.norm2).saturating_add(h.hidden * 4);
    if !kind.bytes.is_multiple_of(64) || kind.bytes >= MOST * MOST {
        return Err(ModelError::Kinds("bytes of a layer are no whole lines or too many"));
    }
    let encoder = h.flags & FLAG_ENCODER != 0;
    for (i, part) in kind.parts.iter().enumerate() {
        let stored = Stored::from_code(h.panel, part.code).filter(|s| s.format != Format::Reserved15);
        let Some(stored) = stored else {
            return Err(ModelError::Kinds("a matrix in a format that is not known"));
        };
        if i == VALUE && part.offset == 0 || i == GATE && encoder {
            continue;
        }
        if i == VALUE && !h.head_dim.is_multiple_of(h.panel) {
            return Err(ModelError::Kinds("values are apart, but panels mix them with keys"));
        }
        if part.offset < at || !part.offset.is_multiple_of(64) {
            return Err(ModelError::Kinds("a matrix overlaps what is before it or begins off a line"));
        }
        let (k, n) = size(h, kind, i);
        at = part.offset.saturating_add(stored.bytes(k, n));
        if at > kind.bytes {
            return Err(ModelError::Kinds("a matrix reaches beyond its layer"));
        }
    }
    Ok(())
}

/// Number of a kind's values and gate.
const VALUE: usize = 1;
const GATE: usize = 3;

/// Inputs and outputs of a kind's matrix.
fn size(h: &ImageHeader, kind: &LayerKind, i: usize) -> (u64, u64) {
    let apart = u64::from(kind.parts[VALUE].offset != 0);
    let own = group_cols(h) - apart * h.head_dim;
    match i {
        0 => (h.hidden, h.kv_heads * own),
        VALUE => (h.hidden, h.kv_heads * h.head_dim * apart),
        2 => (h.heads * h.head_dim, h.hidden),
        GATE | 4 => (h.hidden, h.ffn),
        _ => (h.ffn, h.hidden),
    }
}

/// A matrix whose tiles have at least `least` rows.
pub fn matrix(h: &ImageHeader, offset: u64, least: u64, (k, n): (u64, u64), stored: Stored) -> Matrix {
    let group = match image::group_rows(stored.grp) {
        0 => 32,
        g => g,
    };
    Matrix { offset, k, panels: n / h.panel, stored, row_step: group.max(least) }
}

/// A kind's matrices, then the head; `None` if a code is none.
pub fn matrices(h: &ImageHeader, kind: &LayerKind, least: u64) -> Option<[Matrix; MATRICES]> {
    let head = Stored::from_code(h.panel, h.head_as)?;
    let mut out = [matrix(h, h.head, least, (h.hidden, h.vocab), head); MATRICES];
    for (i, (out, part)) in out.iter_mut().zip(kind.parts).enumerate() {
        let stored = Stored::from_code(h.panel, part.code)?;
        *out = matrix(h, part.offset, least, size(h, kind, i), stored);
    }
    Some(out)
}

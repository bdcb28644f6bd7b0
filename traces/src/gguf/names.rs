//! Which tensors of a GGUF file are a model's, and which rows of them.

use crate::image::Tensor;
use crate::workload::{Family, ModelSpec};

/// Where a tensor's rows are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    /// Name in the file.
    pub(super) name: String,
    /// First row.
    pub(super) first: u64,
    /// Rows of the whole.
    pub(super) rows: u64,
}

/// Where `tensor` of `layer` is. Phi 3 stores q, k, v as one, and gate before up.
pub(super) fn stored(tensor: Tensor, layer: u32, spec: &ModelSpec) -> Stored {
    let rows = tensor.shape(spec).0 as u64;
    let whole = |name: String| Stored { name, first: 0, rows };
    let encoder = spec.extras.encoder.is_some();
    let part = match tensor {
        Tensor::Embed => return whole("token_embd.weight".to_owned()),
        Tensor::FinalNorm => return whole("output_norm.weight".to_owned()),
        Tensor::Head => return whole("output.weight".to_owned()),
        Tensor::EmbedNorm => return whole("token_embd_norm.weight".to_owned()),
        Tensor::EmbedNormBias => return whole("token_embd_norm.bias".to_owned()),
        Tensor::Positions => return whole("position_embd.weight".to_owned()),
        Tensor::TokenTypes => return whole("token_types.weight".to_owned()),
        Tensor::AttnNorm if encoder => "attn_output_norm.weight",
        Tensor::FfnNorm if encoder => "layer_output_norm.weight",
        Tensor::AttnNorm => "attn_norm.weight",
        Tensor::FfnNorm => "ffn_norm.weight",
        Tensor::AttnNormBias => "attn_output_norm.bias",
        Tensor::FfnNormBias => "layer_output_norm.bias",
        Tensor::PostAttnNorm => "post_attention_norm.weight",
        Tensor::PostFfnNorm => "post_ffw_norm.weight",
        Tensor::Query => "attn_q.weight",
        Tensor::Key => "attn_k.weight",
        Tensor::Value => "attn_v.weight",
        Tensor::QueryBias => "attn_q.bias",
        Tensor::KeyBias => "attn_k.bias",
        Tensor::ValueBias => "attn_v.bias",
        Tensor::QueryNorm => "attn_q_norm.weight",
        Tensor::KeyNorm => "attn_k_norm.weight",
        Tensor::Output => "attn_output.weight",
        Tensor::OutputBias => "attn_output.bias",
        Tensor::Gate => "ffn_gate.weight",
        Tensor::Up => "ffn_up.weight",
        Tensor::UpBias => "ffn_up.bias",
        Tensor::Down => "ffn_down.weight",
        Tensor::DownBias => "ffn_down.bias",
        Tensor::FinalNormBias
        | Tensor::Stem
        | Tensor::StemBias
        | Tensor::Stem2
        | Tensor::Stem2Bias
        | Tensor::ClassToken => unreachable!("no text model has {tensor:?}"),
    };
    let (q, kv, ffn) = (spec.q_width(), spec.kv_width(), u64::from(spec.ffn));
    let fused = match tensor {
        Tensor::Query => Some(("attn_qkv.weight", 0, q + 2 * kv)),
        Tensor::Key => Some(("attn_qkv.weight", q, q + 2 * kv)),
        Tensor::Value => Some(("attn_qkv.weight", q + kv, q + 2 * kv)),
        Tensor::Gate => Some(("ffn_up.weight", 0, 2 * ffn)),
        Tensor::Up => Some(("ffn_up.weight", ffn, 2 * ffn)),
        _ => None,
    };
    match fused.filter(|_| spec.family == Family::Phi3) {
        Some((part, first, rows)) => Stored { name: format!("blk.{layer}.{part}"), first, rows },
        None => whole(format!("blk.{layer}.{part}")),
    }
}

/// Tensors a file may have beside the model's: what rotary frequencies are divided by.
pub(super) const FACTORS: &str = "rope_freqs.weight";
/// The same within Phi 3's original context.
pub(super) const SHORT_FACTORS: &str = "rope_factors_short.weight";
/// And beyond it.
pub(super) const LONG_FACTORS: &str = "rope_factors_long.weight";

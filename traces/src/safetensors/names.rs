//! Which tensors of a Hugging Face checkpoint are a model's, and which rows of them.

use crate::image::Tensor;
use crate::workload::{Family, ModelSpec};

/// Where a tensor's rows are: name, first row, rows of the whole. Phi 3 stores q, k, v and gate, up as one.
pub(super) fn stored(tensor: Tensor, layer: u32, spec: &ModelSpec) -> (String, u64, u64) {
    let rows = tensor.shape(spec).0 as u64;
    if spec.family == Family::Bert {
        return (bert(tensor, layer), 0, rows);
    }
    let (q, kv, ffn) = (spec.q_width(), spec.kv_width(), u64::from(spec.ffn));
    let fused = match tensor {
        Tensor::Query => Some(("self_attn.qkv_proj.weight", 0, q + 2 * kv)),
        Tensor::Key => Some(("self_attn.qkv_proj.weight", q, q + 2 * kv)),
        Tensor::Value => Some(("self_attn.qkv_proj.weight", q + kv, q + 2 * kv)),
        Tensor::Gate => Some(("mlp.gate_up_proj.weight", 0, 2 * ffn)),
        Tensor::Up => Some(("mlp.gate_up_proj.weight", ffn, 2 * ffn)),
        _ => None,
    };
    if let Some((part, first, rows)) = fused.filter(|_| spec.family == Family::Phi3) {
        return (format!("model.layers.{layer}.{part}"), first, rows);
    }
    (decoder(tensor, layer, spec.extras.post_norms), 0, rows)
}

fn decoder(tensor: Tensor, layer: u32, post_norms: bool) -> String {
    let part = match tensor {
        Tensor::Embed => return "model.embed_tokens.weight".to_owned(),
        Tensor::FinalNorm => return "model.norm.weight".to_owned(),
        Tensor::Head => return "lm_head.weight".to_owned(),
        Tensor::AttnNorm => "input_layernorm.weight",
        // Where outputs are normed too, the usual name is that of attention's.
        Tensor::FfnNorm if post_norms => "pre_feedforward_layernorm.weight",
        Tensor::FfnNorm | Tensor::PostAttnNorm => "post_attention_layernorm.weight",
        Tensor::PostFfnNorm => "post_feedforward_layernorm.weight",
        Tensor::Query => "self_attn.q_proj.weight",
        Tensor::Key => "self_attn.k_proj.weight",
        Tensor::Value => "self_attn.v_proj.weight",
        Tensor::QueryBias => "self_attn.q_proj.bias",
        Tensor::KeyBias => "self_attn.k_proj.bias",
        Tensor::ValueBias => "self_attn.v_proj.bias",
        Tensor::QueryNorm => "self_attn.q_norm.weight",
        Tensor::KeyNorm => "self_attn.k_norm.weight",
        Tensor::Output => "self_attn.o_proj.weight",
        Tensor::Gate => "mlp.gate_proj.weight",
        Tensor::Up => "mlp.up_proj.weight",
        Tensor::Down => "mlp.down_proj.weight",
        Tensor::AttnNormBias
        | Tensor::FfnNormBias
        | Tensor::OutputBias
        | Tensor::UpBias
        | Tensor::DownBias
        | Tensor::EmbedNorm
        | Tensor::EmbedNormBias
        | Tensor::Positions
        | Tensor::FinalNormBias
        | Tensor::Stem
        | Tensor::StemBias
        | Tensor::Stem2
        | Tensor::Stem2Bias
        | Tensor::ClassToken
        | Tensor::TokenTypes => unreachable!("no decoder has {tensor:?}"),
    };
    format!("model.layers.{layer}.{part}")
}

fn bert(tensor: Tensor, layer: u32) -> String {
    let part = match tensor {
        Tensor::Embed => return "embeddings.word_embeddings.weight".to_owned(),
        Tensor::EmbedNorm => return "embeddings.LayerNorm.weight".to_owned(),
        Tensor::EmbedNormBias => return "embeddings.LayerNorm.bias".to_owned(),
        Tensor::Positions => return "embeddings.position_embeddings.weight".to_owned(),
        Tensor::TokenTypes => return "embeddings.token_type_embeddings.weight".to_owned(),
        Tensor::AttnNorm => "attention.output.LayerNorm.weight",
        Tensor::AttnNormBias => "attention.output.LayerNorm.bias",
        Tensor::FfnNorm => "output.LayerNorm.weight",
        Tensor::FfnNormBias => "output.LayerNorm.bias",
        Tensor::Query => "attention.self.query.weight",
        Tensor::Key => "attention.self.key.weight",
        Tensor::Value => "attention.self.value.weight",
        Tensor::QueryBias => "attention.self.query.bias",
        Tensor::KeyBias => "attention.self.key.bias",
        Tensor::ValueBias => "attention.self.value.bias",
        Tensor::Output => "attention.output.dense.weight",
        Tensor::OutputBias => "attention.output.dense.bias",
        Tensor::Up => "intermediate.dense.weight",
        Tensor::UpBias => "intermediate.dense.bias",
        Tensor::Down => "output.dense.weight",
        Tensor::DownBias => "output.dense.bias",
        Tensor::FinalNorm
        | Tensor::Head
        | Tensor::Gate
        | Tensor::QueryNorm
        | Tensor::KeyNorm
        | Tensor::PostAttnNorm
        | Tensor::PostFfnNorm
        | Tensor::FinalNormBias
        | Tensor::Stem
        | Tensor::StemBias
        | Tensor::Stem2
        | Tensor::Stem2Bias
        | Tensor::ClassToken => unreachable!("no encoder of texts has {tensor:?}"),
    };
    format!("encoder.layer.{layer}.{part}")
}

/// Tensors a checkpoint may have beside the model's: derived tables, a tied head, MiMo's prediction layer, BERT's pooler.
pub(super) fn beside(name: &str, spec: &ModelSpec) -> bool {
    name.ends_with("rotary_emb.inv_freq")
        || (spec.tied_embedding && name == "lm_head.weight")
        || (spec.family == Family::Mimo && name.starts_with("model.mtp_layers."))
        || (spec.family == Family::Bert && (name.starts_with("pooler.") || name == "embeddings.position_ids"))
}

/// What is added to the stored values: Gemma's checkpoints hold norm weights less one.
pub(super) const fn offset(tensor: Tensor, spec: &ModelSpec) -> f32 {
    let norm = matches!(
        tensor,
        Tensor::AttnNorm
            | Tensor::FfnNorm
            | Tensor::PostAttnNorm
            | Tensor::PostFfnNorm
            | Tensor::FinalNorm
            | Tensor::QueryNorm
            | Tensor::KeyNorm
    );
    if norm && matches!(spec.family, Family::Gemma2 | Family::Gemma3) { 1.0 } else { 0.0 }
}

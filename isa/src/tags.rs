//! What a command's tag means: the operation of the model it belongs to. Set by the firmware, read by reports.

use crate::npu::ops::coded;

coded!(
    /// Kinds of model operations.
    OpKind {
    None = 0 "none" "housekeeping",
    Embed = 1 "embed" "embedding rows into the residual stream",
    AttnNorm = 2 "attn_norm" "norm before attention",
    Qkv = 3 "qkv" "query, key and value projection",
    Attention = 4 "attention" "rotation, cache append and flash attention",
    OutProj = 5 "out_proj" "attention output projection and residual",
    FfnNorm = 6 "ffn_norm" "norm before the feed-forward layer",
    GateUp = 7 "gate_up" "gate and up projections with SwiGLU",
    Down = 8 "down" "down projection and residual",
    Head = 9 "head" "last norm, logits and maximum",
});

/// A mark counts layers below this; above are chunks of rows that one pass takes.
pub const MARK_LAYERS: u64 = 1 << 10;

impl OpKind {
    /// Whether the kind occurs once a layer.
    #[must_use]
    pub const fn per_layer(self) -> bool {
        !matches!(self, Self::None | Self::Embed | Self::Head)
    }
}

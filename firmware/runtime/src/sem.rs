//! Which semaphore means what. A buffer has its own pair, so lists may start at any buffer whatever ran before.

/// Weight slot i holds a tile.
#[must_use]
pub const fn slot_full(i: u64) -> u64 {
    i
}
/// Weight slot i is free; starts at 1.
#[must_use]
pub const fn slot_free(i: u64) -> u64 {
    8 + i
}
/// Most weight slots.
pub const MAX_SLOTS: u64 = 8;

/// Output staging buffer i holds a tile.
#[must_use]
pub const fn out_full(i: u64) -> u64 {
    16 + i
}
/// Output staging buffer i is free; starts at 1.
#[must_use]
pub const fn out_free(i: u64) -> u64 {
    18 + i
}
/// Residual tile buffer i is loaded.
#[must_use]
pub const fn res_full(i: u64) -> u64 {
    20 + i
}
/// K/V buffer i is loaded.
#[must_use]
pub const fn kv_full(i: u64) -> u64 {
    24 + i
}
/// K/V buffer i is free; starts at 1.
#[must_use]
pub const fn kv_free(i: u64) -> u64 {
    26 + i
}
/// Row buffer i of a row-wise pass is loaded.
#[must_use]
pub const fn row_full(i: u64) -> u64 {
    28 + i
}
/// Row buffer i is free; starts at 1.
#[must_use]
pub const fn row_free(i: u64) -> u64 {
    30 + i
}
/// Logits buffer i is complete (two readers).
#[must_use]
pub const fn logits_full(i: u64) -> u64 {
    32 + i
}
/// Logits buffer i has been read by one reader; starts at 2.
#[must_use]
pub const fn logits_free(i: u64) -> u64 {
    34 + i
}

/// A buffer of queries, keys and values has been read for the last time (long encoders).
pub const HEAD_FREE: u64 = 23;

/// The GEMM input is quantised.
pub const QUANTISED: u64 = 22;

/// Norm weights (and biases before them) are loaded.
pub const NORM_FULL: u64 = 36;
/// The norm weight buffer is free; starts at 1.
pub const NORM_FREE: u64 = 37;
/// The GEMM input is ready in this core.
pub const A_READY: u64 = 38;
/// Q, K and V of a head are computed.
pub const QKV_DONE: u64 = 39;
/// They are rotated (one post for MX, one for the writer).
pub const ROTATED: u64 = 40;
/// K and V of these positions are in the cache.
pub const APPENDED: u64 = 41;
/// Scores are in the accumulator.
pub const SCORES: u64 = 42;
/// Probabilities and rescale vector are in the scratchpad.
pub const PROBS: u64 = 43;
/// A head's attention output is accumulated.
pub const ATT_DONE: u64 = 44;
/// The output accumulator is free; starts at 1.
pub const ATT_FREE: u64 = 45;
/// A KV head's outputs are ready to be sent.
pub const ATT_SEND: u64 = 46;
/// Q, K and V of this core's last head are computed (spilled; one post for the rotation, one for the writer).
pub const QKV_LAST: u64 = 47;

/// Cluster: slices of the residual stream are delivered.
pub const X_ALL: u64 = 48;
/// Cluster: the GEMM input is gathered.
pub const A_ALL: u64 = 49;
/// Cluster: the feed-forward hidden layer is gathered.
pub const H_ALL: u64 = 50;
/// Cluster: a core has read its QKV input for the last time (spilled only).
pub const A_DONE: u64 = 51;
/// Cluster: chunk buffer i is filled by everyone.
#[must_use]
pub const fn chunk_full(i: u64) -> u64 {
    52 + i
}
/// Cluster: a core has read chunk buffer i.
#[must_use]
pub const fn chunk_free(i: u64) -> u64 {
    54 + i
}

/// Cluster: the spilled hidden layer is quantised.
pub const H8_ALL: u64 = 56;

/// Cluster: outputs that are normed before they join the residual stream are gathered.
pub const POST_ALL: u64 = 57;

/// Cluster: a core's weight slots are idle, candidates may come (draws only).
pub const DRAW_READY: u64 = 62;
/// Cluster: a core's candidates are with core 0 (draws only).
pub const DRAW_GATHERED: u64 = 63;

/// Semaphores that start at other than zero.
pub const INITIAL: &[(u64, u64)] = &[
    (slot_free(0), 1),
    (slot_free(1), 1),
    (slot_free(2), 1),
    (slot_free(3), 1),
    (slot_free(4), 1),
    (slot_free(5), 1),
    (slot_free(6), 1),
    (slot_free(7), 1),
    (out_free(0), 1),
    (out_free(1), 1),
    (kv_free(0), 1),
    (kv_free(1), 1),
    (row_free(0), 1),
    (row_free(1), 1),
    (logits_free(0), 2),
    (logits_free(1), 2),
    (NORM_FREE, 1),
    (ATT_FREE, 1),
];

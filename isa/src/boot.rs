//! What the boot ROM hands to hart 0, and the names the device tree uses.
//!
//! Every hart starts at the ELF's entry with `a0` = hart id and `a1` = address of the device tree blob.

/// Compatible string of an NPU core node (`npu@...`); `status = "disabled"` switches the driver off.
pub const NPU_COMPATIBLE: &str = "presil,npu-1";
/// Node that holds the software properties below.
pub const CHOSEN: &str = "chosen";
/// u64: address of the model image header.
pub const PROP_IMAGE: &str = "presil,image";
/// u64 pair: base and bytes of memory for rings, command lists and results; always stored.
pub const PROP_ARENA: &str = "presil,arena";
/// u64 pair: base and bytes of memory for KV cache, activations and logits; address-only in a shape-only run.
pub const PROP_BULK: &str = "presil,bulk";
/// Most rows of one prefill chunk, and tokens of a text encoder's prompt: the firmware's buffer of ids.
pub const MOST_ROWS: u64 = 2048;
/// u32: most prompt rows of one prefill chunk.
pub const PROP_CHUNK: &str = "presil,prefill-chunk";
/// u32: most positions (context + prompt + generated) the KV cache must hold.
pub const PROP_POSITIONS: &str = "presil,positions";
/// u32: bits of an element of the KV cache: 16 (also where it is missing), 8 or 4; see [`crate::cache`].
pub const PROP_KV_BITS: &str = "presil,kv-bits";
/// u32: positions a page of the KV cache holds at least; 0, also where it is missing, leaves it to
/// [`crate::cache::Paging`].
pub const PROP_KV_PAGE: &str = "presil,kv-page";
/// u32: positions the KV cache has pages for; 0, also where it is missing: for all.
pub const PROP_KV_POOL: &str = "presil,kv-pool";

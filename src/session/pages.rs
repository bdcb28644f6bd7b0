//! Pages of the cache of keys and values: how the options cut it, what the firmware took of it.

use isa::cache::{CacheShape, Paging};
use reports::facts::KvFacts;
use traces::workload::{ModelSpec, QuantScheme};

pub use isa::cache::PageChoice;

use crate::error::CliError;

/// Longest page or pool that is accepted at all.
const MAX_POSITIONS: i64 = 1 << 20;

/// Options that say how the cache is paged.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct PageArgs {
    /// Positions a page of the cache of keys and values holds at least [default: 64, more where a table would be too long]
    #[arg(long, value_name = "POSITIONS", value_parser = clap::value_parser!(u32).range(1..=MAX_POSITIONS))]
    kv_page: Option<u32>,
    /// Positions the cache has pages for; a job that needs more ends there [default: all the run may need]
    #[arg(long, value_name = "POSITIONS", value_parser = clap::value_parser!(u32).range(1..=MAX_POSITIONS))]
    kv_pool: Option<u32>,
}

impl PageArgs {
    /// What they ask for.
    #[must_use]
    pub fn choice(&self) -> PageChoice {
        let number = |n: Option<u32>| n.map_or(0, u64::from);
        PageChoice { page_positions: number(self.kv_page), pool_positions: number(self.kv_pool) }
    }
}

/// Most positions of the run; the device tree says a multiple of 16.
pub(super) const fn rounded(positions: u64) -> u64 {
    positions.div_ceil(16) * 16
}

/// How the cache of a model that makes tokens is cut; an encoder's has no pages.
///
/// # Errors
/// If there would be too many pages.
pub fn paging(
    m: &ModelSpec,
    quant: &QuantScheme,
    positions: u64,
    choice: PageChoice,
) -> Result<Option<Paging>, CliError> {
    if m.extras.encoder.is_some() {
        return match choice {
            PageChoice { page_positions: 0, pool_positions: 0 } => Ok(None),
            _ => Err(CliError::input(format!(
                "--kv-page, --kv-pool: `{}` is an encoder, whose keys and values have no pages",
                m.name
            ))),
        };
    }
    let shape = CacheShape {
        layers: m.layers.into(),
        kv_heads: m.kv_heads.into(),
        head_dim: m.head_dim.into(),
        bits: quant.kv.bits(),
        positions: rounded(positions),
    };
    match Paging::new(&shape, choice) {
        Some(paging) => Ok(Some(paging)),
        None => Err(CliError::input(format!(
            "--kv-page: pages of {} positions are too many for {} positions and {} KV heads: a layer's table takes {} \
             entries, a stream {}\n  help: larger pages",
            choice.page_positions,
            shape.positions,
            shape.kv_heads,
            isa::cache::MOST_ENTRIES,
            isa::cache::MOST_SLABS
        ))),
    }
}

/// What a finished job has of the cache, unless the firmware has no pages.
pub(super) fn facts(
    paging: &Paging,
    quant: &QuantScheme,
    positions: u64,
    pages: (u64, u64),
) -> Option<KvFacts> {
    let facts = KvFacts {
        bits: quant.kv.bits(),
        row_bytes: paging.row,
        streams: paging.slab_pages(),
        page_bytes: paging.page_bytes(),
        positions,
        pages_used: pages.0,
        pages_total: pages.1,
    };
    (facts.pages_total > 0).then_some(facts)
}

//! Every metric of a run in one row: name, unit, path in the record, direction, meaning, accessor.
//!
//! The summary, METRICS.md, gates and sweeps all read this table, so a header and its value cannot drift apart.

use crate::record::RunRecord;

/// Which way a metric gets better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Less is better.
    Lower,
    /// More is better.
    Higher,
    /// Neither: it describes the run.
    Neutral,
}

impl Direction {
    /// The word used in tables.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Lower => "lower",
            Self::Higher => "higher",
            Self::Neutral => "-",
        }
    }
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Short name for people.
    pub name: &'static str,
    /// Unit, empty for counts, `share` for parts of one.
    pub unit: &'static str,
    /// Path of keys in the record, separated by dots.
    pub path: &'static str,
    /// Which way is better.
    pub direction: Direction,
    /// Compared by default when two runs are held against each other.
    pub headline: bool,
    /// Meaning, one sentence.
    pub description: &'static str,
    /// The value, absent where its model or its occasion is.
    pub get: fn(&RunRecord) -> Option<f64>,
}

const fn column(
    (name, unit, path): (&'static str, &'static str, &'static str),
    direction: Direction,
    get: fn(&RunRecord) -> Option<f64>,
    description: &'static str,
) -> Column {
    Column { name, unit, path, direction, headline: false, description, get }
}

const fn headline(column: Column) -> Column {
    Column { headline: true, ..column }
}

use Direction::{Higher, Lower, Neutral};

/// The table.
#[rustfmt::skip]
pub const COLUMNS: &[Column] = &[
    headline(column(("Time to first token", "s", "time.ttft_s"), Lower, |r| Some(r.time.ttft_s),
        "From the prompt doorbell to the first token's mailbox write.")),
    headline(column(("Time per output token, mean", "s", "time.tpot_mean_s"), Lower, |r| r.time.tpot_mean_s,
        "Mean gap between mailbox writes, second token on.")),
    column(("Time per output token, median", "s", "time.tpot_p50_s"), Lower, |r| r.time.tpot_p50_s,
        "Median of the same gaps, nearest rank."),
    column(("Time per output token, p99", "s", "time.tpot_p99_s"), Lower, |r| r.time.tpot_p99_s,
        "99th percentile of the same gaps, nearest rank."),
    headline(column(("Total time", "s", "time.total_s"), Lower, |r| Some(r.time.total_s),
        "From the prompt doorbell to the end of the run.")),
    headline(column(("Prefill rate", "tokens/s", "throughput.prefill_tok_per_s"), Higher,
        |r| r.throughput.prefill_tok_per_s, "Prompt tokens over the time to the first token.")),
    headline(column(("Decode rate", "tokens/s", "throughput.decode_tok_per_s"), Higher,
        |r| r.throughput.decode_tok_per_s, "Inverse of the mean time per output token.")),
    headline(column(("Energy", "J", "energy.total_j"), Lower, |r| Some(r.energy.total_j),
        "All modelled components, from the prompt doorbell to the end of the run.")),
    headline(column(("Prefill energy", "J", "energy.prefill_j"), Lower, |r| Some(r.energy.prefill_j),
        "The part spent until the first token.")),
    headline(column(("Energy per token", "J", "energy.decode_j_per_token"), Lower, |r| r.energy.decode_j_per_token,
        "Energy after the first token, per token after the first.")),
    column(("Effective throughput", "TOPS", "efficiency.effective_tops"), Higher,
        |r| Some(r.efficiency.effective_tops), "Useful operations (2 x unpadded MACs) over total time."),
    column(("Array efficiency", "TOPS/W", "efficiency.tops_per_w.array_vmin"), Higher,
        |r| r.efficiency.tops_per_w.array_vmin,
        "Useful operations over the energy of the matrix array alone at its best voltage."),
    column(("NPU rail efficiency", "TOPS/W", "efficiency.tops_per_w.npu_rail"), Higher,
        |r| r.efficiency.tops_per_w.npu_rail,
        "Useful operations over the energy of the NPU's rail at the running point."),
    headline(column(("Workload efficiency", "TOPS/W", "efficiency.tops_per_w.workload"), Higher,
        |r| r.efficiency.tops_per_w.workload, "Useful operations over all energy, memory and CPU included.")),
    column(("Utilisation", "share", "efficiency.utilisation"), Higher, |r| Some(r.efficiency.utilisation),
        "Unpadded MACs over the peak of the formats used."),
    column(("Mean power", "W", "power.mean_w"), Lower, |r| Some(r.power.mean_w), "Energy over total time."),
    column(("Peak power", "W", "power.peak_w"), Lower, |r| r.power.peak_w,
        "Highest mean power over one averaging window."),
    column(("Area", "mm2", "area_mm2.total"), Lower, |r| r.area_mm2.as_ref().map(|a| a.total),
        "Silicon of the modelled blocks."),
    column(("Junction temperature", "C", "thermal.junction_c"), Lower, |r| r.thermal.map(|t| t.junction_c),
        "Hottest junction at the end of the run."),
    column(("Skin temperature", "C", "thermal.skin_c"), Lower, |r| r.thermal.map(|t| t.skin_c),
        "Hottest point of the skin at the end of the run."),
    column(("DRAM bytes read", "B", "dram.read_bytes"), Lower, |r| Some(r.dram.read_bytes as f64),
        "Data the memory controllers read."),
    column(("DRAM bytes written", "B", "dram.write_bytes"), Lower, |r| Some(r.dram.write_bytes as f64),
        "Data the memory controllers wrote."),
    column(("DRAM bandwidth", "GB/s", "dram.bandwidth_gb_per_s"), Neutral, |r| Some(r.dram.bandwidth_gb_per_s),
        "Bytes moved over total time."),
    column(("DRAM peak bandwidth", "GB/s", "dram.peak_gb_per_s"), Neutral, |r| Some(r.dram.peak_gb_per_s),
        "Data rate times width of all channels."),
    column(("DRAM utilisation", "share", "dram.utilisation"), Neutral, |r| Some(r.dram.utilisation),
        "Bandwidth over peak bandwidth."),
    column(("DRAM bytes read per token", "B", "dram.decode_read_bytes_per_token"), Lower,
        |r| r.dram.decode_read_bytes_per_token, "Bytes read after the first token, per token after the first."),
    column(("Firmware instructions", "", "firmware.instructions"), Lower,
        |r| Some(r.firmware.instructions as f64), "Retired on all harts after the prompt doorbell."),
    column(("Firmware instructions per token", "", "firmware.instructions_per_token"), Lower,
        |r| r.firmware.instructions_per_token, "Retired after the first token, per token after the first."),
    column(("Interrupts", "", "firmware.interrupts"), Neutral, |r| Some(r.firmware.interrupts as f64),
        "Taken by all harts after the prompt doorbell."),
    column(("Doorbells", "", "firmware.doorbells"), Neutral, |r| Some(r.firmware.doorbells as f64),
        "Rung at the NPU after the prompt doorbell."),
    column(("Boot time", "s", "boot.time_s"), Lower, |r| r.boot.map(|b| b.time_s), "From reset to time zero."),
    column(("Boot energy", "J", "boot.energy_j"), Lower, |r| r.boot.map(|b| b.energy_j),
        "Spent before time zero, in no other figure."),
    column(("Validity band", "%", "validity.band_percent"), Neutral, |r| Some(r.validity.band_percent),
        "How far headline figures may be from silicon, either way."),
];

/// The metric at a path of the record.
#[must_use]
pub fn find(path: &str) -> Option<&'static Column> {
    COLUMNS.iter().find(|c| c.path == path)
}

/// The metrics two runs are compared by unless a gate says otherwise.
pub fn headlines() -> impl Iterator<Item = &'static Column> {
    COLUMNS.iter().filter(|c| c.headline)
}

/// METRICS.md.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(
        "# Metrics of a run\n\nMade from the table in `reports/src/columns.rs`; a test keeps both equal. A metric \
         whose model or occasion\nis missing is absent from the record. Headline metrics are the ones `presil diff` \
         compares by default.\n\n| metric | unit | path | better | headline | meaning |\n|---|---|---|---|---|---|\n",
    );
    for c in COLUMNS {
        let headline = if c.headline { "yes" } else { "" };
        let (name, unit, path, better) = (c.name, c.unit, c.path, c.direction.word());
        text.push_str(&format!(
            "| {name} | {unit} | `{path}` | {better} | {headline} | {} |\n",
            c.description
        ));
    }
    text
}

//! The run record, `presil.run/1`: the one document a run leaves behind, in the units people read.
//!
//! Field order is the order of the keys. A figure whose model does not exist is absent, never zero.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{CheckError, ReadError};
use crate::facts::{MemoryModel, ModelInfo, Named, Output, Phase, RunFacts, SlcFacts, Workload};

/// Value of the `schema` key.
pub const SCHEMA: &str = "presil.run/1";

/// Key that holds the sum inside `cycles.<engine>`.
pub const TOTAL: &str = "total";

/// Figures by component name.
pub type ByName = BTreeMap<String, f64>;

/// Firmware activity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Firmware {
    /// SHA-256 of the ELF file.
    pub sha256: String,
    /// Instructions retired on all harts.
    pub instructions: u64,
    /// Instructions retired per token of decode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions_per_token: Option<f64>,
    /// Interrupts taken.
    pub interrupts: u64,
    /// Doorbells rung.
    pub doorbells: u64,
}

/// Preemption of NPU queues, all cores together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preemption {
    /// Times a core went from one queue to another.
    pub switches: u64,
    /// Queues taken out at a switch point.
    pub level1: u64,
    /// Queues taken out with their local memory saved.
    pub level2: u64,
    /// Queues killed.
    pub level3: u64,
    /// Bytes written to save areas.
    pub saved_bytes: u64,
    /// Bytes read back.
    pub restored_bytes: u64,
    /// Cycles of the NPU clock both took.
    pub move_cycles: u64,
}

/// The cache of keys and values when a job is done: all layers and heads together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kv {
    /// Bits of an element.
    pub bits: u64,
    /// Positions it holds.
    pub positions: u64,
    /// Bytes of a page.
    pub page_bytes: u64,
    /// Pages there are.
    pub pages_total: u64,
    /// Pages taken.
    pub pages_used: u64,
    /// Bytes of keys and values, scales and padding of rows included.
    pub bytes_used: u64,
    /// Bytes of all pages there are.
    pub bytes_reserved: u64,
}

impl Kv {
    /// From the facts.
    #[must_use]
    pub const fn new(f: &crate::facts::KvFacts) -> Self {
        Self {
            bits: f.bits,
            positions: f.positions,
            page_bytes: f.page_bytes,
            pages_total: f.pages_total,
            pages_used: f.pages_used,
            bytes_used: f.positions * f.row_bytes * f.streams,
            bytes_reserved: f.pages_total * f.page_bytes,
        }
    }
}

/// From reset to time zero.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Boot {
    /// Duration.
    pub time_s: f64,
    /// Energy.
    pub energy_j: f64,
}

/// Latency.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// Time to the first token.
    pub ttft_s: f64,
    /// Mean time per output token, second token on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tpot_mean_s: Option<f64>,
    /// Median of the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tpot_p50_s: Option<f64>,
    /// 99th percentile (nearest rank) of the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tpot_p99_s: Option<f64>,
    /// The whole run.
    pub total_s: f64,
    /// When each token was in the mailbox, from the prompt's doorbell on; of an encoder, its vector.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_s: Vec<f64>,
}

/// Rates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Throughput {
    /// Prompt tokens over time to the first token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefill_tok_per_s: Option<f64>,
    /// Inverse of the mean time per output token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decode_tok_per_s: Option<f64>,
}

/// Energy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EnergyUse {
    /// The whole run.
    pub total_j: f64,
    /// Until the first token.
    pub prefill_j: f64,
    /// Per token after the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decode_j_per_token: Option<f64>,
    /// The whole run by component.
    pub by_component: ByName,
}

/// Three efficiencies that must not be confused.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopsPerWatt {
    /// Matrix array alone at its best voltage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub array_vmin: Option<f64>,
    /// NPU rail at the running point.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub npu_rail: Option<f64>,
    /// The workload, memory and CPU included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<f64>,
}

/// How well the arithmetic was used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Efficiency {
    /// Useful operations over time.
    pub effective_tops: f64,
    /// Per watt.
    pub tops_per_w: TopsPerWatt,
    /// Useful MACs over the peak of the formats used.
    pub utilisation: f64,
    /// That peak, by format.
    pub peak_tops: ByName,
}

/// Power.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Power {
    /// Energy over time.
    pub mean_w: f64,
    /// Highest mean over one averaging window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_w: Option<f64>,
}

/// Area of the modelled blocks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Area {
    /// All of them.
    pub total: f64,
    /// Each.
    pub by_component: ByName,
}

/// Temperatures at the end of the run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Thermal {
    /// Hottest junction.
    pub junction_c: f64,
    /// Hottest point of the skin.
    pub skin_c: f64,
}

/// What memory moved for one kind of content.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrafficOf {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// The memory's energy for them: device, PHY, and a share of refresh and standby by bytes.
    pub energy_j: f64,
    /// The same a bit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pj_per_bit: Option<f64>,
}

/// What one client of memory waited for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Wait {
    /// Time of all its transfers, from request to last byte; transfers that overlap count twice.
    pub spent_s: f64,
    /// That time over what it would have been without the other clients.
    pub slowdown: f64,
    /// By aggressor.
    pub by: BTreeMap<String, LostTo>,
}

/// What one client lost to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LostTo {
    /// Time.
    pub lost_s: f64,
    /// The victim's time over what it would have been without this aggressor.
    pub slowdown: f64,
    /// The time by what the aggressor held: `link`, `memory`, `cache`.
    pub held_s: ByName,
}

/// The system cache.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slc {
    /// Lines found over lines looked for.
    pub hit_rate: f64,
    /// What each client had of it.
    pub by_client: BTreeMap<String, SlcFacts>,
}

/// External memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dram {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Both over time.
    pub bandwidth_gb_per_s: f64,
    /// What the channels could move.
    pub peak_gb_per_s: f64,
    /// One over the other.
    pub utilisation: f64,
    /// Bytes read per token of decode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decode_read_bytes_per_token: Option<f64>,
    /// Bytes and energy by what they carried: `weights`, `kv`, `activations`, `commands`, `cpu`, `cpu_noise`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub traffic: BTreeMap<String, TrafficOf>,
}

/// One instance of an op.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Op {
    /// Name within the model.
    pub name: String,
    /// Kind.
    pub kind: String,
    /// Phase.
    pub phase: Phase,
    /// What executed it.
    pub unit: String,
    /// Start, from time zero.
    pub start_s: f64,
    /// Duration.
    pub duration_s: f64,
    /// Useful multiply-accumulates.
    pub macs: u64,
    /// Bytes read plus written.
    pub dram_bytes: u64,
    /// Energy.
    pub energy_j: f64,
    /// What limited it.
    pub bound_by: String,
}

/// How far the figures may be from silicon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validity {
    /// Half width of the band.
    pub band_percent: f64,
    /// What it rests on.
    pub basis: String,
}

/// The record of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Always `presil.run/1`.
    pub schema: String,
    /// The chip.
    pub soc: Named,
    /// The model.
    pub model: ModelInfo,
    /// The policy firmware loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Named>,
    /// What was asked.
    pub workload: Workload,
    /// Firmware activity.
    pub firmware: Firmware,
    /// Boot, not part of anything below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot: Option<Boot>,
    /// Latency.
    pub time: Times,
    /// Rates.
    pub throughput: Throughput,
    /// Energy.
    pub energy: EnergyUse,
    /// Efficiency.
    pub efficiency: Efficiency,
    /// Power.
    pub power: Power,
    /// Area.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub area_mm2: Option<Area>,
    /// Temperatures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thermal: Option<Thermal>,
    /// External memory.
    pub dram: Dram,
    /// System cache, where the chip has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slc: Option<Slc>,
    /// Who waited for whom in front of memory: victims, and within them aggressors.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub contention: BTreeMap<String, Wait>,
    /// Cycles by engine and cause; `total` beside the causes.
    pub cycles: BTreeMap<String, BTreeMap<String, u64>>,
    /// Commands by NPU engine: executed ones, of a sequencer the dispatched ones.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub commands: BTreeMap<String, u64>,
    /// Preemption of NPU queues, where there was any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preemption: Option<Preemption>,
    /// Pages of the cache of keys and values at the end, where it has pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv: Option<Kv>,
    /// Ops in the order they started.
    pub ops: Vec<Op>,
    /// Output of a functional run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Output>,
    /// Memory path.
    pub memory_model: MemoryModel,
    /// Validity.
    pub validity: Validity,
    /// Digest of the run's events.
    pub digest: String,
    /// Version of the simulator.
    pub version: String,
    /// The resolved configuration.
    pub config: Value,
}

impl RunRecord {
    /// Checks the facts, converts them, and checks the outcome.
    ///
    /// # Errors
    /// Every conservation law that does not hold.
    pub fn from_facts(facts: &RunFacts) -> Result<Self, Vec<CheckError>> {
        facts.check()?;
        let record = crate::convert::record(facts);
        record.check()?;
        Ok(record)
    }

    /// Reads a record from JSON text.
    ///
    /// # Errors
    /// When the text is not JSON, has another schema, lacks a key, or holds a null.
    pub fn from_json(text: &str) -> Result<Self, ReadError> {
        let value: Value = serde_json::from_str(text)?;
        let schema = value.get("schema").unwrap_or(&Value::Null);
        if schema != SCHEMA {
            return Err(ReadError::Schema { found: schema.to_string(), expected: SCHEMA });
        }
        if let Some(path) = null_path(&value) {
            return Err(ReadError::Null { path });
        }
        Ok(serde_json::from_value(value)?)
    }

    /// The record as one JSON document, ending in a line feed.
    ///
    /// # Errors
    /// When serialisation fails, which a checked record does not.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        Ok(text)
    }

    /// Holds the converted record against the laws it still shows: finite numbers, parts and wholes, shares.
    ///
    /// # Errors
    /// Each law that does not hold.
    pub fn check(&self) -> Result<(), Vec<CheckError>> {
        let mut errors = Vec::new();
        // JSON has no infinities: serialisation turns them into nulls, and nothing else in a record is null.
        if let Some(path) = serde_json::to_value(self).ok().as_ref().and_then(null_path) {
            errors.push(CheckError::NotFinite { path });
        }
        for (path, parts, whole) in [
            ("energy.by_component", Some(&self.energy.by_component), self.energy.total_j),
            (
                "area_mm2.by_component",
                self.area_mm2.as_ref().map(|a| &a.by_component),
                self.area_mm2.as_ref().map_or(0.0, |a| a.total),
            ),
        ] {
            let Some(parts) = parts else { continue };
            let parts: f64 = parts.values().sum();
            if (parts - whole).abs() > 1e-9 * whole.abs() {
                errors.push(CheckError::PartsDiffer { path: path.to_owned(), parts, whole });
            }
        }
        for (engine, causes) in &self.cycles {
            let whole = causes.get(TOTAL).copied().unwrap_or(0);
            let parts: u128 = causes.iter().filter(|(k, _)| *k != TOTAL).map(|(_, v)| u128::from(*v)).sum();
            if parts != u128::from(whole) {
                errors.push(CheckError::PartsDiffer {
                    path: format!("cycles.{engine}"),
                    parts: parts as f64,
                    whole: whole as f64,
                });
            }
        }
        for (path, value) in [
            ("efficiency.utilisation", self.efficiency.utilisation),
            ("dram.utilisation", self.dram.utilisation),
        ] {
            if !(0.0..=1.0).contains(&value) {
                errors.push(CheckError::OutOfRange { path, value, low: 0.0, high: 1.0 });
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}

/// Path of the first null outside `config`.
fn null_path(value: &Value) -> Option<String> {
    fn walk(value: &Value, path: &str) -> Option<String> {
        match value {
            Value::Null => Some(path.to_owned()),
            Value::Object(map) => {
                map.iter().filter(|(key, _)| !(path.is_empty() && *key == "config")).find_map(|(key, v)| {
                    walk(v, &if path.is_empty() { key.clone() } else { format!("{path}.{key}") })
                })
            }
            Value::Array(list) => list.iter().enumerate().find_map(|(i, v)| walk(v, &format!("{path}[{i}]"))),
            Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        }
    }
    walk(value, "")
}

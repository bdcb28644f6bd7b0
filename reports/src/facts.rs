//! What a finished run hands over: integers only, before any conversion to the units people read.
//!
//! Models: nothing. `RunFacts` is the one door from the simulator into reports; `RunFacts::check` holds the
//! conservation laws that are exact in integers (energies, causes, operations, bytes, bandwidth).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sim_kernel::units::FS_PER_S;
use sim_kernel::{Bytes, Energy, Time};

use crate::error::{CheckError, Mismatch};

/// A name and the hash of the resolved thing behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Preset name or file stem.
    pub name: String,
    /// Hash of the resolved content, hexadecimal.
    pub hash: String,
}

/// The model that was run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Preset name or file stem.
    pub name: String,
    /// Parameters.
    pub params: u64,
    /// Quantisation scheme.
    pub quant: String,
}

/// What was asked of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// Prompt tokens processed by prefill.
    pub prompt_tokens: u64,
    /// Tokens made, the one from prefill included.
    pub decode_tokens: u64,
    /// Tokens whose keys and values were resident before time zero.
    pub context_tokens: u64,
    /// Seed of every random stream.
    pub seed: u64,
}

/// Firmware activity between time zero and the end of the run, all harts together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirmwareFacts {
    /// SHA-256 of the ELF file, hexadecimal.
    pub sha256: String,
    /// Instructions retired.
    pub instructions: u64,
    /// Of these, instructions retired after the first token was delivered.
    pub decode_instructions: u64,
    /// Interrupts taken.
    pub interrupts: u64,
    /// Doorbells rung at the NPU.
    pub doorbells: u64,
}

/// From reset to time zero, reported apart from everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootFacts {
    /// Duration.
    pub time: Time,
    /// Energy.
    pub energy: Energy,
}

/// Energy between time zero and the end of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnergyFacts {
    /// Everything, as the ledger totals it.
    pub total: Energy,
    /// The part spent until the first token was delivered.
    pub prefill: Energy,
    /// The part spent afterwards.
    pub decode: Energy,
    /// Everything again, by component.
    pub by_component: BTreeMap<String, Energy>,
    /// The NPU's supply rail: arrays, vector units, scratchpads, sequencers, their leakage and clocks.
    pub npu_rail: Energy,
    /// What the matrix array alone would have spent on the same useful operations at its best voltage.
    pub array_vmin: Option<Energy>,
    /// Highest mean power over one averaging window, in microwatts.
    pub peak_microwatts: Option<u64>,
}

/// Useful (unpadded) multiply-accumulates executed in one number format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatWork {
    /// Useful multiply-accumulates, counted by the engines.
    pub macs: u64,
    /// What all engines together could do in one second at the highest clock of the run.
    pub peak_macs_per_s: u64,
}

/// Bytes in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Read from memory.
    pub read: Bytes,
    /// Written to memory.
    pub write: Bytes,
}

/// What memory moved for one kind of content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrafficFacts {
    /// Bytes.
    pub moved: Traffic,
    /// The memory's energy: device, PHY, and its share of refresh and standby.
    pub energy: Energy,
}

/// What one client had of the system cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlcFacts {
    /// Lines found.
    pub hits: u64,
    /// Lines not found.
    pub misses: u64,
    /// Lines put into it.
    pub fills: u64,
    /// Lines it displaced.
    pub evictions: u64,
    /// Of these, dirty ones that went to memory.
    pub write_backs: u64,
    /// Bytes read from it.
    pub hit_read_bytes: u64,
    /// Bytes written into it.
    pub hit_write_bytes: u64,
}

/// What one client of memory waited for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WaitFacts {
    /// Time of all its transfers, from request to last byte.
    pub spent: Time,
    /// Of it, time lost to each other client, by what that client held.
    pub lost: BTreeMap<String, BTreeMap<String, Time>>,
}

/// The external memory between time zero and the end of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DramFacts {
    /// Data the controllers moved, all channels together.
    pub moved: Traffic,
    /// The same traffic counted where it was asked for: one row per requester (NPU DMA, clusters, devices), in
    /// whole transactions as they enter the fabric, so that a partly used burst counts fully at both ends.
    pub requested: BTreeMap<String, Traffic>,
    /// What a system cache kept away from the controllers; zero without one.
    pub absorbed: Traffic,
    /// What was moved by kind of content, with the memory's energy for it; empty where it was not told apart.
    pub traffic: BTreeMap<String, TrafficFacts>,
    /// Bytes read after the first token was delivered.
    pub decode_read: Bytes,
    /// Peak of all channels together, in bytes per second.
    pub peak_bytes_per_s: u64,
}

/// Cycles of one engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineFacts {
    /// Edges of the engine's clock between time zero and the end of the run.
    pub total: u64,
    /// Every one of them under exactly one cause.
    pub causes: BTreeMap<String, u64>,
}

/// Which part of the run an op belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Processing the prompt, up to the first token.
    Prefill,
    /// Making the other tokens.
    Decode,
}

impl Phase {
    /// The word used in files.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Prefill => "prefill",
            Self::Decode => "decode",
        }
    }
}

/// One instance of an op.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpFacts {
    /// Name within the model, for example `layer3.attention.q`.
    pub name: String,
    /// Kind, snake case.
    pub kind: String,
    /// Phase.
    pub phase: Phase,
    /// What executed it, snake case.
    pub unit: String,
    /// Start, counted from time zero.
    pub start: Time,
    /// Duration.
    pub duration: Time,
    /// Useful multiply-accumulates.
    pub macs: u64,
    /// Bytes read from and written to external memory.
    pub dram_bytes: Bytes,
    /// Energy charged to it; what no op can be charged with (leakage while waiting, firmware) stays in the total.
    pub energy: Energy,
    /// What limited it, snake case.
    pub bound_by: String,
}

/// Temperatures at the end of the run, in thousandths of a degree Celsius.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThermalFacts {
    /// Hottest junction.
    pub junction: i64,
    /// Hottest point of the skin.
    pub skin: i64,
}

/// Which path served external memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryModel {
    /// The burst engine on a systematic sample of the traffic.
    Sampled,
    /// Every burst.
    Burst,
}

impl MemoryModel {
    /// The word used in files and options.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Sampled => "sampled",
            Self::Burst => "burst",
        }
    }
}

/// How far the figures may be from silicon, and why that is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidityFacts {
    /// Half width of the band in thousandths.
    pub band_permille: u32,
    /// What the band rests on, one sentence.
    pub basis: String,
}

/// What a functional run produced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// The same as text.
    pub text: String,
    /// Natural logarithm of each token's probability.
    pub logprobs: Vec<f64>,
    /// Ids of the prompt.
    #[serde(default)]
    pub prompt_ids: Vec<u32>,
    /// Most tokens that were asked for: fewer were made where one of them ended the text.
    #[serde(default)]
    pub limit: u64,
    /// What an encoder makes of the prompt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub embedding: Vec<f32>,
    /// What the model was scored on, where its tokens were given instead of chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<Score>,
}

/// A model scored on given tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Exponential of the mean negative log-probability.
    pub perplexity: f64,
    /// What the model would have chosen at each token.
    pub chosen: Vec<u32>,
}

/// The cache of keys and values, all layers and heads together, when a job is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvFacts {
    /// Bits of an element.
    pub bits: u64,
    /// Bytes of a position in a stream.
    pub row_bytes: u64,
    /// Streams: keys and values of each head in each layer.
    pub streams: u64,
    /// Bytes of a page.
    pub page_bytes: u64,
    /// Positions it holds.
    pub positions: u64,
    /// Pages taken, as the firmware says.
    pub pages_used: u64,
    /// Pages there are, as the firmware says.
    pub pages_total: u64,
}

/// Everything a finished run hands over. Times count from time zero, the prompt doorbell after boot.
#[derive(Clone, Debug, PartialEq)]
pub struct RunFacts {
    /// The chip.
    pub soc: Named,
    /// The model.
    pub model: ModelInfo,
    /// The policy firmware loaded.
    pub policy: Option<Named>,
    /// What was asked.
    pub workload: Workload,
    /// Firmware activity.
    pub firmware: FirmwareFacts,
    /// Boot.
    pub boot: Option<BootFacts>,
    /// When each token's mailbox write was seen, in order; of an encoder, that of its vector.
    pub token_times: Vec<Time>,
    /// End of the run.
    pub end: Time,
    /// Energy.
    pub energy: EnergyFacts,
    /// Useful multiply-accumulates by number format, counted by the engines.
    pub work: BTreeMap<String, FormatWork>,
    /// The same total from the model's shapes alone, where a closed form exists.
    pub model_macs: Option<u64>,
    /// Silicon area by component in square micrometres.
    pub area_um2: Option<BTreeMap<String, u64>>,
    /// Temperatures.
    pub thermal: Option<ThermalFacts>,
    /// External memory.
    pub dram: DramFacts,
    /// Use of the system cache by client; empty without one.
    pub slc: BTreeMap<String, SlcFacts>,
    /// Who waited for whom in front of memory, by client; empty where it was not counted.
    pub contention: BTreeMap<String, WaitFacts>,
    /// Cycles by engine.
    pub cycles: BTreeMap<String, EngineFacts>,
    /// Commands by NPU engine: executed ones, of a sequencer the dispatched ones.
    pub commands: BTreeMap<String, u64>,
    /// Preemption of NPU queues, where there was any.
    pub preemption: Option<crate::record::Preemption>,
    /// Pages of the cache of keys and values at the end, if it has pages.
    pub kv: Option<KvFacts>,
    /// Ops in the order they started.
    pub ops: Vec<OpFacts>,
    /// Output of a functional run.
    pub output: Option<Output>,
    /// Memory path.
    pub memory_model: MemoryModel,
    /// Validity.
    pub validity: ValidityFacts,
    /// Digest of the run's events, hexadecimal.
    pub digest: String,
    /// Version of the simulator.
    pub version: String,
    /// The resolved configuration, as it was hashed.
    pub config: serde_json::Value,
}

/// Collects every law that does not hold.
#[derive(Default)]
struct Laws(Vec<CheckError>);

impl Laws {
    fn equal(&mut self, law: &'static str, place: &str, left: u128, right: u128) {
        if left != right {
            self.0.push(CheckError::NotEqual(Mismatch { law, place: place.to_owned(), left, right }));
        }
    }

    fn at_most(&mut self, law: &'static str, place: &str, left: u128, right: u128) {
        if left > right {
            self.0.push(CheckError::Exceeds(Mismatch { law, place: place.to_owned(), left, right }));
        }
    }

    fn snake_case(&mut self, place: &str, word: &str) {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if !word.starts_with(|c: char| c.is_ascii_lowercase()) || !word.chars().all(plain) {
            self.0.push(CheckError::NotSnakeCase { place: place.to_owned(), word: word.to_owned() });
        }
    }
}

fn sum(values: impl Iterator<Item = u64>) -> u128 {
    values.map(u128::from).sum()
}

impl RunFacts {
    /// Holds the facts against every conservation law, and returns all that are broken.
    ///
    /// # Errors
    /// Each law that does not hold, with the place and both sides.
    pub fn check(&self) -> Result<(), Vec<CheckError>> {
        let mut laws = Laws::default();
        self.check_time(&mut laws);
        self.check_energy(&mut laws);
        self.check_work(&mut laws);
        self.check_memory(&mut laws);
        self.check_cycles(&mut laws);
        self.check_pages(&mut laws);
        if laws.0.is_empty() { Ok(()) } else { Err(laws.0) }
    }

    fn check_time(&self, laws: &mut Laws) {
        if self.end == Time::ZERO {
            laws.0.push(CheckError::Empty { what: "the run's duration" });
        }
        if self.token_times.is_empty() {
            laws.0.push(CheckError::Empty { what: "the list of token times" });
        }
        laws.equal(
            "tokens delivered == tokens asked for",
            "token_times",
            u128::try_from(self.token_times.len()).unwrap_or(u128::MAX),
            // An encoder makes no tokens; its vector arrives once.
            u128::from(self.workload.decode_tokens.max(1)),
        );
        let mut before = Time::ZERO;
        for (i, &at) in self.token_times.iter().enumerate() {
            laws.at_most(
                "tokens arrive in order",
                &format!("token_times[{i}]"),
                before.get().into(),
                at.get().into(),
            );
            before = at;
        }
        laws.at_most(
            "the last token is inside the run",
            "token_times",
            before.get().into(),
            self.end.get().into(),
        );
        for (i, op) in self.ops.iter().enumerate() {
            let place = format!("ops[{i}] {}", op.name);
            let end = u128::from(op.start.get()) + u128::from(op.duration.get());
            laws.at_most("an op ends inside the run", &place, end, self.end.get().into());
            for word in [&op.kind, &op.unit, &op.bound_by] {
                laws.snake_case(&place, word);
            }
        }
    }

    fn check_energy(&self, laws: &mut Laws) {
        let e = &self.energy;
        let total = u128::from(e.total.get());
        let parts = sum(e.by_component.values().map(|v| v.get()));
        laws.equal("components sum to the total", "energy.by_component (fJ)", parts, total);
        let phases = u128::from(e.prefill.get()) + u128::from(e.decode.get());
        laws.equal("prefill + decode == total", "energy (fJ)", phases, total);
        let ops = sum(self.ops.iter().map(|o| o.energy.get()));
        laws.at_most("ops spend no more than the run", "ops[].energy (fJ)", ops, total);
        laws.at_most(
            "the NPU rail is part of the total",
            "energy.npu_rail (fJ)",
            e.npu_rail.get().into(),
            total,
        );
        if let Some(array) = e.array_vmin {
            let (array, rail) = (u128::from(array.get()), u128::from(e.npu_rail.get()));
            laws.at_most(
                "the array alone spends no more than its rail",
                "energy.array_vmin (fJ)",
                array,
                rail,
            );
        }
    }

    fn check_work(&self, laws: &mut Laws) {
        let engines = sum(self.work.values().map(|w| w.macs));
        let ops = sum(self.ops.iter().map(|o| o.macs));
        laws.equal("ops' MACs == engines' MACs", "ops[].macs", ops, engines);
        if let Some(model) = self.model_macs {
            laws.equal("engines' MACs == the model's MACs", "work", engines, model.into());
        }
        for (format, work) in &self.work {
            let most = u128::from(work.peak_macs_per_s) * u128::from(self.end.get());
            let done = u128::from(work.macs) * u128::from(FS_PER_S);
            laws.at_most("MACs x 1e15 <= peak x duration", &format!("work.{format}"), done, most);
        }
    }

    fn check_memory(&self, laws: &mut Laws) {
        let d = &self.dram;
        let side = |pick: fn(&Traffic) -> Bytes| sum(d.requested.values().map(|t| pick(t).get()));
        let served = |moved: Bytes, absorbed: Bytes| u128::from(moved.get()) + u128::from(absorbed.get());
        let law = "bytes requested == bytes served";
        laws.equal(law, "dram read", side(|t| t.read), served(d.moved.read, d.absorbed.read));
        laws.equal(law, "dram write", side(|t| t.write), served(d.moved.write, d.absorbed.write));
        let (read, write) = (u128::from(d.moved.read.get()), u128::from(d.moved.write.get()));
        laws.at_most(
            "decode reads are part of all reads",
            "dram.decode_read",
            d.decode_read.get().into(),
            read,
        );
        let ops = sum(self.ops.iter().map(|o| o.dram_bytes.get()));
        let all = side(|t| t.read) + side(|t| t.write);
        laws.at_most("ops move no more than was requested", "ops[].dram_bytes", ops, all);
        if !d.traffic.is_empty() {
            let law = "bytes by content == bytes moved";
            let side = |pick: fn(&Traffic) -> Bytes| sum(d.traffic.values().map(|t| pick(&t.moved).get()));
            laws.equal(law, "dram.traffic read", side(|t| t.read), read);
            laws.equal(law, "dram.traffic write", side(|t| t.write), write);
            let energy = sum(d.traffic.values().map(|t| t.energy.get()));
            let all = u128::from(self.energy.total.get());
            laws.at_most("traffic spends no more than the run", "dram.traffic (fJ)", energy, all);
        }
        if !self.slc.is_empty() {
            let law = "bytes absorbed == bytes found in the system cache";
            let found = |pick: fn(&SlcFacts) -> u64| sum(self.slc.values().map(pick));
            laws.equal(law, "slc read", found(|s| s.hit_read_bytes), d.absorbed.read.get().into());
            laws.equal(law, "slc write", found(|s| s.hit_write_bytes), d.absorbed.write.get().into());
        }
        for (client, w) in &self.contention {
            let lost = sum(w.lost.values().flat_map(BTreeMap::values).map(|t| t.get()));
            let place = format!("contention.{client}");
            laws.at_most("nobody loses more time than it spent", &place, lost, w.spent.get().into());
        }
        let most = u128::from(d.peak_bytes_per_s) * u128::from(self.end.get());
        laws.at_most("bytes x 1e15 <= peak x duration", "dram", (read + write) * u128::from(FS_PER_S), most);
    }

    fn check_pages(&self, laws: &mut Laws) {
        let Some(kv) = self.kv else { return };
        // Every stream has whole pages, and no more than its positions fill.
        let a_stream =
            (u128::from(kv.positions) * u128::from(kv.row_bytes)).div_ceil(kv.page_bytes.max(1).into());
        let law = "pages used == streams x pages that their positions fill";
        laws.equal(law, "kv", kv.pages_used.into(), a_stream * u128::from(kv.streams));
        let law = "pages used are some of those there are";
        laws.at_most(law, "kv", kv.pages_used.into(), kv.pages_total.into());
    }

    fn check_cycles(&self, laws: &mut Laws) {
        for (engine, facts) in &self.cycles {
            let causes = sum(facts.causes.values().copied());
            laws.equal("causes sum to the total", &format!("cycles.{engine}"), causes, facts.total.into());
            for cause in facts.causes.keys() {
                laws.snake_case(&format!("cycles.{engine}"), cause);
                if cause == crate::record::TOTAL {
                    laws.0.push(CheckError::ReservedCause { engine: engine.clone() });
                }
            }
        }
    }
}

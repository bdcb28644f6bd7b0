//! From a finished run to the facts reports are made of.

use std::collections::BTreeMap;

use isa::cache::MOST_BLOCK;
use isa::tags::{MARK_LAYERS, OpKind};
use npu_model::MacClass;
use reports::facts::{
    BootFacts, DramFacts, EnergyFacts, EngineFacts, FirmwareFacts, FormatWork, ModelInfo, Named, OpFacts,
    Phase, RunFacts, SlcFacts, Traffic, TrafficFacts, ValidityFacts, WaitFacts, Workload,
};
use sha2::{Digest, Sha256};
use sim_kernel::{Bytes, Energy, Time};
use soc_model::fabric::Held;
use soc_model::soc::{MemoryTiming, OpResult, RunResult, peak_macs_per_s, sampling_unproven};
use traces::image::ImageLayout;

use super::{RunRequest, padding};

/// SHA-256 of a file's bytes, hexadecimal.
pub(super) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn preemption(p: &npu_model::Preemptions) -> Option<reports::record::Preemption> {
    let [level1, level2, level3] = p.by_level;
    let told = reports::record::Preemption {
        switches: p.switches,
        level1,
        level2,
        level3,
        saved_bytes: p.saved_bytes,
        restored_bytes: p.restored_bytes,
        move_cycles: p.move_cycles,
    };
    (told != reports::record::Preemption::default()).then_some(told)
}

/// Pages of the cache at the run's end.
fn kv(q: &RunRequest, r: &RunResult) -> Option<reports::facts::KvFacts> {
    let asked = u64::from(q.context_tokens) + u64::from(q.prefill_tokens) + u64::from(q.decode_tokens);
    let paging = super::pages::paging(&q.model, &q.quant, asked, q.pages).ok()??;
    // The last token is not fed back.
    let positions = u64::from(q.context_tokens) + u64::from(q.prefill_tokens) + made(q, r).saturating_sub(1);
    super::pages::facts(&paging, &q.quant, positions, r.kv_pages)
}

/// The facts of a run.
pub(super) fn facts(q: &RunRequest, layout: &ImageLayout, r: &RunResult, sha256: String) -> RunFacts {
    let since = |t: Time| t.saturating_sub(r.zero);
    let arrivals: Vec<Time> = match &r.embedding {
        Some((at, _)) => vec![*at],
        None => r.tokens.iter().map(|t| t.1).collect(),
    };
    let first = arrivals.first().copied().unwrap_or(r.end);
    let ops: Vec<OpFacts> = ops(q, layout, r, first);
    RunFacts {
        soc: Named { name: q.soc.name.clone(), hash: q.soc.hash() },
        model: ModelInfo {
            name: q.model.name.clone(),
            params: q.model.params(),
            quant: q.quant.name.to_string(),
        },
        policy: None,
        workload: Workload {
            prompt_tokens: q.prefill_tokens.into(),
            decode_tokens: made(q, r),
            context_tokens: q.context_tokens.into(),
            seed: q.seed,
        },
        firmware: FirmwareFacts {
            sha256,
            instructions: r.instructions.prefill + r.instructions.decode,
            decode_instructions: r.instructions.decode,
            interrupts: r.interrupts,
            doorbells: r.doorbells,
        },
        boot: Some(BootFacts { time: r.zero, energy: r.energy.boot.values().copied().sum() }),
        token_times: arrivals.into_iter().map(since).collect(),
        end: since(r.end),
        energy: energy(r),
        work: MacClass::ALL
            .into_iter()
            .map(|c| {
                // What operands padded in the image cost is no work the model asked for.
                let padding: u64 = r
                    .ops
                    .iter()
                    .map(|o| (o, o.row.activity.macs[c as usize]))
                    .map(|(o, macs)| macs - padding::asked(q, layout, o, macs))
                    .sum();
                let macs = r.npu.macs[c as usize] - padding;
                let work = FormatWork { macs, peak_macs_per_s: peak_macs_per_s(&q.soc, c) };
                (c.name().to_owned(), work)
            })
            .filter(|(_, w)| w.macs > 0)
            .collect(),
        model_macs: Some(model_macs(q, made(q, r), &ops)),
        area_um2: None,
        thermal: None,
        dram: dram(r),
        slc: slc(r),
        contention: contention(r),
        cycles: cycles(r),
        commands: r.commands.clone(),
        preemption: preemption(&r.preemptions),
        kv: kv(q, r),
        ops,
        output: q.text.as_ref().map(|job| super::output(q, job, r)),
        memory_model: match q.memory_model {
            MemoryTiming::Sampled => reports::facts::MemoryModel::Sampled,
            MemoryTiming::Burst => reports::facts::MemoryModel::Burst,
        },
        validity: validity(q),
        digest: r.digest.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        config: config(q, layout),
    }
}

/// The resolved configuration, and for a file of weights how much wider the image is.
fn config(q: &RunRequest, layout: &ImageLayout) -> serde_json::Value {
    let mut config = serde_json::json!({
        "soc": q.soc,
        "image_bytes": layout.bytes(),
        "prefill_chunk": super::chunk(q),
        "kv": q.quant.kv,
    });
    if q.pages != super::pages::PageChoice::default() {
        config["kv_pages"] = serde_json::json!({
            "page_positions": q.pages.page_positions, "pool_positions": q.pages.pool_positions,
        });
    }
    if q.sampling.candidates() > 0 {
        let s = q.sampling;
        let (temperature, top_p) = (shortest(s.temperature), shortest(s.top_p));
        config["sampling"] = serde_json::json!({
            "temperature": temperature, "top_k": s.candidates(), "top_p": top_p, "seed": q.seed,
        });
    }
    if q.quant.is_mixed() {
        config["layer_kinds"] = kinds(q);
    }
    if let Some(job) = &q.text {
        config["file_weight_bytes"] = job.model.weight_bytes().into();
        config["file_weight_elements"] = job.model.weight_elements().into();
    }
    config
}

/// How many layers are of each kind, and bits a weight of its matrices.
fn kinds(q: &RunRequest) -> serde_json::Value {
    let layers = |kind| (0..q.model.layers).filter(|l| q.quant.kind_of(*l) == kind).count();
    let bits = |hundredths: u64| u32::try_from(hundredths).map_or(f64::MAX, |h| f64::from(h) / 100.0);
    let all = q.quant.kinds().enumerate().map(|(kind, body)| {
        let each = body.hundredths(&q.model).into_iter().map(|(name, h)| (name.to_owned(), bits(h).into()));
        let each: serde_json::Map<_, _> = each.collect();
        serde_json::json!({ "layers": layers(kind), "bits": each })
    });
    all.collect()
}

/// The number its shortest decimal form says, as people gave it.
fn shortest(x: f32) -> f64 {
    x.to_string().parse().unwrap_or_else(|_| f64::from(x))
}

/// Tokens the run had to make: those asked for, or fewer where one of them was to end the answer.
fn made(q: &RunRequest, r: &RunResult) -> u64 {
    let stop: &[u32] = match (&q.text, &q.ids) {
        (Some(job), _) => &job.stop,
        (None, Some(given)) => &given.stop,
        (None, None) => &[],
    };
    match r.tokens.iter().position(|t| stop.contains(&t.0)) {
        Some(last) => last as u64 + 1,
        None => q.decode_tokens.into(),
    }
}

/// Half width of the headline figures' band, in thousandths: where sampled memory is proven, and where it is not, by what
/// its worst measured errors beyond that region add.
const BAND: [u32; 2] = [250, 400];

/// How wide the band is, and what it rests on.
fn validity(q: &RunRequest) -> ValidityFacts {
    let unproven = sampling_unproven(&q.soc);
    let outside = q.memory_model == MemoryTiming::Sampled && unproven.is_some();
    let memory = match (q.memory_model, unproven) {
        (MemoryTiming::Sampled, None) => "sampled memory within 5 % of the exact engine (tested)".to_owned(),
        (MemoryTiming::Sampled, Some(why)) => format!("sampled memory outside its proven region ({why})"),
        (MemoryTiming::Burst, None) => "every memory burst simulated".to_owned(),
        (MemoryTiming::Burst, Some(why)) => {
            format!("every memory burst simulated, sampling is not proven here ({why})")
        }
    };
    let rest = "engines are closed forms; latencies and energies are partly class C estimates: see MODEL.md";
    ValidityFacts { band_permille: BAND[usize::from(outside)], basis: format!("{memory}; {rest}") }
}

fn energy(r: &RunResult) -> EnergyFacts {
    let sum = |m: &BTreeMap<String, Energy>| m.values().copied().sum::<Energy>();
    let (prefill, decode) = (sum(&r.energy.prefill), sum(&r.energy.decode));
    let mut by_component = r.energy.prefill.clone();
    for (component, energy) in &r.energy.decode {
        *by_component.entry(component.clone()).or_default() += *energy;
    }
    EnergyFacts {
        total: prefill + decode,
        prefill,
        decode,
        by_component,
        npu_rail: r.npu_rail,
        array_vmin: Some(r.array_vmin),
        peak_microwatts: None,
    }
}

fn dram(r: &RunResult) -> DramFacts {
    let traffic = |read: u64, write: u64| Traffic { read: Bytes::new(read), write: Bytes::new(write) };
    let [npu, cpu] = r.served;
    DramFacts {
        moved: traffic(npu.0 + cpu.0 + r.noise_bytes, npu.1 + cpu.1),
        // Counted by the engines and by the shared cache, not by the memory that served them.
        requested: BTreeMap::from([
            ("cpu_noise".to_owned(), traffic(r.noise_bytes, 0)),
            // What the system cache sends to memory was absorbed before.
            ("slc_write_backs".to_owned(), traffic(0, r.slc_written_back)),
            ("npu_dma".to_owned(), traffic(r.npu.memory_read, r.npu.memory_written)),
            ("npu_commands".to_owned(), traffic(r.command_bytes, 0)),
            ("cpu".to_owned(), traffic(r.cpu_lines[0] * 64, r.cpu_lines[1] * 64)),
        ]),
        absorbed: traffic(
            r.slc.iter().map(|u| u.hit_read_bytes).sum(),
            r.slc.iter().map(|u| u.hit_write_bytes).sum(),
        ),
        traffic: r
            .traffic
            .iter()
            .map(|t| {
                let moved = traffic(t.moved.read, t.moved.write);
                (t.content.name().to_owned(), TrafficFacts { moved, energy: t.energy })
            })
            .collect(),
        decode_read: Bytes::new(r.decode_read_bytes),
        peak_bytes_per_s: r.peak_bytes_per_s,
    }
}

fn slc(r: &RunResult) -> BTreeMap<String, SlcFacts> {
    let row = |(name, u): (&String, &soc_model::fabric::SlcUse)| {
        let facts = SlcFacts {
            hits: u.hits,
            misses: u.misses,
            fills: u.fills,
            evictions: u.evictions,
            write_backs: u.write_backs,
            hit_read_bytes: u.hit_read_bytes,
            hit_write_bytes: u.hit_write_bytes,
        };
        (name.clone(), facts)
    };
    r.clients.iter().zip(&r.slc).filter(|(_, u)| u.hits + u.misses > 0).map(row).collect()
}

/// Clients that moved anything, and what they lost to whom.
fn contention(r: &RunResult) -> BTreeMap<String, WaitFacts> {
    let c = &r.contention;
    let used = |client: &usize| c.spent(*client) > Time::ZERO;
    let lost = |victim: usize, aggressor: usize| {
        let each = Held::ALL.into_iter().map(|h| (h.name().to_owned(), c.lost(h, victim, aggressor)));
        each.filter(|(_, t)| *t > Time::ZERO).collect::<BTreeMap<_, _>>()
    };
    let row = |victim: usize| {
        let others = (0..r.clients.len()).filter(|a| *a != victim);
        let by = others.map(|a| (r.clients[a].clone(), lost(victim, a))).filter(|(_, held)| !held.is_empty());
        (r.clients[victim].clone(), WaitFacts { spent: c.spent(victim), lost: by.collect() })
    };
    (0..r.clients.len()).filter(used).map(row).collect()
}

fn cycles(r: &RunResult) -> BTreeMap<String, EngineFacts> {
    let convert = |e: &soc_model::soc::EngineCycles| EngineFacts { total: e.total, causes: e.causes.clone() };
    r.cycles.iter().map(|(name, e)| (name.clone(), convert(e))).collect()
}

fn ops(q: &RunRequest, layout: &ImageLayout, r: &RunResult, first: Time) -> Vec<OpFacts> {
    let base = r.ops.iter().map(|o| o.key.pass).min().unwrap_or(0);
    let chunks =
        r.ops.iter().filter(|o| Time::new(o.row.start) < first).map(|o| o.key.pass).max().unwrap_or(base);
    let mut out: Vec<OpFacts> = r.ops.iter().map(|o| op((q, layout), r, o, base, chunks)).collect();
    out.sort_by_key(|o| o.start);
    out
}

fn op(
    (q, layout): (&RunRequest, &ImageLayout),
    r: &RunResult,
    o: &OpResult,
    base: u64,
    chunks: u64,
) -> OpFacts {
    let kind = OpKind::from_code(o.key.tag).unwrap_or(OpKind::None);
    let prefill = o.key.pass <= chunks;
    // A long encoder takes its chunks in one pass.
    let (inner, layer) = (o.key.mark / MARK_LAYERS, o.key.mark % MARK_LAYERS);
    let pass = if prefill {
        format!("chunk{}", o.key.pass - base + if kind.per_layer() { inner } else { 0 })
    } else {
        // The token a decode pass makes; the first came from prefill.
        format!("token{}", o.key.pass - chunks + 1)
    };
    let name = if kind.per_layer() {
        format!("{pass}.layer{layer}.{}", kind.name())
    } else {
        format!("{pass}.{}", kind.name())
    };
    OpFacts {
        name,
        kind: kind.name().to_owned(),
        phase: if prefill { Phase::Prefill } else { Phase::Decode },
        unit: "npu".to_owned(),
        start: Time::new(o.row.start).saturating_sub(r.zero),
        duration: Time::new(o.row.end - o.row.start),
        macs: o.row.activity.macs.iter().map(|macs| padding::asked(q, layout, o, *macs)).sum(),
        dram_bytes: Bytes::new(o.row.activity.memory_read + o.row.activity.memory_written),
        energy: o.energy,
        bound_by: bound_by(q, o).to_owned(),
    }
}

/// The resource an operation kept busiest, if it was busy for at least half of its time.
fn bound_by(q: &RunRequest, o: &OpResult) -> &'static str {
    let clock = u128::from(q.soc.npu.frequency_hz);
    let cycles = u128::from(o.row.end - o.row.start) * clock / u128::from(sim_kernel::units::FS_PER_S);
    let cycles = (cycles * u128::from(q.soc.npu.cores)).max(1);
    let share = |busy: u64| u128::from(busy) * 100 / cycles;
    let channels = u64::from(q.soc.npu.dma_in_channels).saturating_sub(1).max(1);
    let (memory, matrix, vector) =
        (share(o.row.dram_cycles / channels), share(o.row.busy[1]), share(o.row.busy[2]));
    let most = memory.max(matrix).max(vector);
    match most {
        m if m < 50 => "latency",
        m if m == matrix => "matrix",
        m if m == memory => "dram",
        _ => "vector",
    }
}

/// MACs of the model from its shapes. Attention is taken from the run where a chunk has more than one row: how much
/// of the causal triangle's other half is computed depends on tiles; it must lie between triangle and rectangle.
/// So it is where a window ends within a block of keys: between the window and a block more.
fn model_macs(q: &RunRequest, made: u64, ops: &[OpFacts]) -> u64 {
    let m = &q.model;
    let of = |v: u32| u64::from(v);
    let (hidden, ffn, heads, hd) = (of(m.hidden), of(m.ffn), of(m.heads), of(m.head_dim));
    let encoder = m.extras.encoder.is_some();
    let ffn_matrices = if encoder { 2 } else { 3 };
    let dense =
        hidden * (heads + 2 * of(m.kv_heads)) * hd + heads * hd * hidden + ffn_matrices * hidden * ffn;
    let (rows, steps) = (of(q.prefill_tokens), made.saturating_sub(1));
    let layers = of(m.layers);
    let head = if encoder { 0 } else { (steps + 1) * hidden * of(m.vocab) };
    let linear = (rows + steps) * dense * layers + head + padding::stem(q);
    let start = of(q.context_tokens);
    if encoder {
        return linear + rows * (start + rows) * 2 * heads * hd * layers;
    }
    let (windowed, window) = windows(m);
    // Keys of one query at a position, over all layers, if a windowed layer computes at most `most` of them.
    let keys = |seen: u64, most: u64| (layers - windowed) * seen + windowed * seen.min(most);
    let pairs =
        |from: u64, n: u64, most: u64| (from + 1..=from + n).map(|seen| keys(seen, most)).sum::<u64>();
    let per_pair = 2 * heads * hd;
    let measured = |phase: Phase, least: u64, most: u64| {
        let ops = ops.iter().filter(|o| o.kind == "attention" && o.phase == phase);
        ops.map(|o| o.macs).sum::<u64>().clamp(least * per_pair, most * per_pair)
    };
    let behind = start + rows;
    let decode =
        measured(Phase::Decode, pairs(behind, steps, window), pairs(behind, steps, window + MOST_BLOCK - 1));
    let rectangle = rows * keys(behind, window + MOST_BLOCK - 1 + u64::from(super::chunk(q)));
    linear + decode + measured(Phase::Prefill, pairs(start, rows, window), rectangle)
}

/// Layers that see a window, and its positions.
fn windows(m: &traces::workload::ModelSpec) -> (u64, u64) {
    m.extras.window.map_or((0, 0), |w| {
        let seeing_all = m.layers.checked_div(w.period).unwrap_or(0);
        (u64::from(m.layers - seeing_all), w.positions.into())
    })
}

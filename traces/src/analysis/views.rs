//! From totals to what people ask: what is in the trace, what took the time, what engines waited for.

use std::collections::BTreeMap;

use serde::Serialize;

use super::collect::{Collected, NO_CAUSES, OpTotal};

/// What a trace holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Always `presil.trace-summary/1`.
    pub schema: &'static str,
    /// What the trace says about its run.
    pub run: BTreeMap<String, String>,
    /// Reset to time zero.
    pub boot_s: f64,
    /// Time zero to the end.
    pub duration_s: f64,
    /// Tokens and when they came, from time zero.
    pub tokens: TokenTimes,
    /// Slices since time zero.
    pub slices: u64,
    /// Size of the file.
    pub bytes: u64,
    /// Tracks with slices or instants.
    pub tracks: Vec<TrackRow>,
    /// Counters.
    pub counters: Vec<CounterRow>,
    /// Kinds of operations that kept engines busy longest.
    pub top_kinds: Vec<KindRow>,
}

/// Tokens.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TokenTimes {
    /// How many.
    pub count: u64,
    /// The first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_s: Option<f64>,
    /// The last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_s: Option<f64>,
}

/// A track with slices.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrackRow {
    /// Group.
    pub group: String,
    /// Name.
    pub name: String,
    /// Slices since time zero.
    pub slices: u64,
    /// Slices before it.
    pub boot_slices: u64,
    /// Sum of the slices.
    pub busy_s: f64,
    /// The same as a share of the duration.
    pub busy_percent: f64,
    /// Instants since time zero, by name.
    pub instants: BTreeMap<String, u64>,
}

/// A counter since time zero.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CounterRow {
    /// Group.
    pub group: String,
    /// Name.
    pub name: String,
    /// Unit.
    pub unit: String,
    /// Mean over time.
    pub mean: f64,
    /// Largest window.
    pub max: f64,
}

/// Operations of one kind, over all layers and cores.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KindRow {
    /// Kind.
    pub kind: String,
    /// Figures.
    #[serde(flatten)]
    pub figures: OpFigures,
}

/// Operations of one kind and layer, over all cores.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OpRow {
    /// `layer12.qkv`.
    pub name: String,
    /// Kind.
    pub kind: String,
    /// Layer, where it belongs to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<u64>,
    /// Figures.
    #[serde(flatten)]
    pub figures: OpFigures,
}

/// Figures of operations: engine time in which engines were active.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct OpFigures {
    /// Commands.
    pub count: u64,
    /// Active time of DMA channels.
    pub dma_s: f64,
    /// Active time of matrix engines.
    pub mx_s: f64,
    /// Active time of vector engines.
    pub vp_s: f64,
    /// All three.
    pub total_s: f64,
    /// Per command.
    pub mean_s: f64,
    /// Part of all active time of these engines.
    pub share_percent: f64,
    /// Bytes moved by DMA.
    pub dma_bytes: u64,
    /// Multiply-accumulates.
    pub macs: u64,
}

/// What took the engines' time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ops {
    /// Always `presil.trace-ops/1`.
    pub schema: &'static str,
    /// By kind, longest first.
    pub kinds: Vec<KindRow>,
    /// By layer and kind, longest first.
    pub ops: Vec<OpRow>,
}

/// What one engine's cycles went into.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EngineStalls {
    /// All cycles from time zero to the end.
    pub total_cycles: u64,
    /// The same as time.
    pub total_s: f64,
    /// Commands executed, of NPU engines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commands: Option<u64>,
    /// Every cause; the cycles sum to the total, the percentages to 100.
    pub causes: BTreeMap<String, CauseShare>,
}

/// One cause.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CauseShare {
    /// Cycles.
    pub cycles: u64,
    /// The same as time.
    pub seconds: f64,
    /// Part of the engine's total.
    pub percent: f64,
}

/// What engines waited for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stalls {
    /// Always `presil.trace-stalls/1`.
    pub schema: &'static str,
    /// By engine.
    pub engines: BTreeMap<String, EngineStalls>,
}

fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part * 100.0 / whole } else { 0.0 }
}

fn clamp(n: u128) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// The summary of a trace.
#[must_use]
pub fn summary(c: &Collected) -> Summary {
    let zero = c.zero_ns.unwrap_or(c.end_ns);
    let since = |ns: u64| ns.saturating_sub(zero) as f64 / 1e9;
    let duration_s = since(c.end_ns);
    let spans = c.tracks.iter().filter(|t| t.unit.is_none() && !t.group.is_empty());
    let tracks = spans.map(|t| {
        let busy_s = t.busy_ns as f64 / 1e9;
        TrackRow {
            group: t.group.clone(),
            name: t.name.clone(),
            slices: t.slices,
            boot_slices: t.boot_slices,
            busy_s,
            busy_percent: share(busy_s, duration_s),
            instants: t.instants.iter().filter(|i| *i.1 > 0).map(|(k, v)| (k.clone(), *v)).collect(),
        }
    });
    let counters = c.tracks.iter().filter_map(|t| {
        let (unit, total) = (t.unit.clone()?, t.counter?);
        // A count has no mean worth telling.
        let mean = if duration_s > 0.0 { total.integral / 1e9 / duration_s } else { 0.0 };
        Some(CounterRow { group: t.group.clone(), name: t.name.clone(), unit, mean, max: total.max })
    });
    let run = c.header.iter().chain(&c.footer).map(|(k, v)| (k.clone(), v.clone())).collect();
    Summary {
        schema: "presil.trace-summary/1",
        run,
        boot_s: zero as f64 / 1e9,
        duration_s,
        tokens: TokenTimes {
            count: c.tokens_ns.len() as u64,
            first_s: c.tokens_ns.first().map(|t| since(*t)),
            last_s: c.tokens_ns.last().map(|t| since(*t)),
        },
        slices: c.tracks.iter().map(|t| t.slices).sum(),
        bytes: c.bytes,
        tracks: tracks.collect(),
        counters: counters.collect(),
        top_kinds: ops(c).kinds.into_iter().take(5).collect(),
    }
}

#[derive(Clone, Copy, Default)]
struct Engines {
    all: OpTotal,
    seconds: [f64; 3],
}

impl Engines {
    fn add(&mut self, other: &Self) {
        self.all.add(&other.all);
        (0..3).for_each(|i| self.seconds[i] += other.seconds[i]);
    }

    fn figures(&self, everything: f64) -> OpFigures {
        let total_s: f64 = self.seconds.iter().sum();
        OpFigures {
            count: self.all.count,
            dma_s: self.seconds[0],
            mx_s: self.seconds[1],
            vp_s: self.seconds[2],
            total_s,
            mean_s: if self.all.count > 0 { total_s / self.all.count as f64 } else { 0.0 },
            share_percent: share(total_s, everything),
            dma_bytes: clamp(self.all.bytes),
            macs: clamp(self.all.macs),
        }
    }
}

/// Class of an NPU engine by its track's name.
fn class(track: &str) -> Option<usize> {
    let (core, engine) = track.split_once('_')?;
    let number = core.strip_prefix("npu")?;
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    match engine {
        "mx" => Some(1),
        "vp" => Some(2),
        e if e.starts_with("dma") => Some(0),
        _ => None,
    }
}

fn layer_and_kind(name: &str) -> (Option<u64>, &str) {
    let split = name.split_once('.').and_then(|(layer, kind)| {
        let layer = layer.strip_prefix("layer")?.parse().ok()?;
        Some((Some(layer), kind))
    });
    split.unwrap_or((None, name))
}

/// What took the engines' time, by operation.
#[must_use]
pub fn ops(c: &Collected) -> Ops {
    let mut by_name: BTreeMap<&str, Engines> = BTreeMap::new();
    for ((name, track), total) in &c.ops {
        let t = &c.tracks[*track];
        let Some(class) = class(&t.name) else { continue };
        let hertz = c.accounts.get(&t.name).and_then(|a| a.get("hertz")).copied().filter(|h| *h > 0);
        // A trace of a run that faulted has no accounts; nanoseconds are nearly as good.
        let seconds = hertz.map_or(total.busy_ns as f64 / 1e9, |h| total.cycles as f64 / h as f64);
        let e = by_name.entry(name).or_default();
        e.all.add(total);
        e.seconds[class] += seconds;
    }
    let everything: f64 = by_name.values().flat_map(|e| e.seconds).sum();
    let mut kinds: BTreeMap<&str, Engines> = BTreeMap::new();
    let mut ops = Vec::new();
    for (name, e) in &by_name {
        let (layer, kind) = layer_and_kind(name);
        kinds.entry(kind).or_default().add(e);
        let (name, kind) = ((*name).to_owned(), kind.to_owned());
        ops.push(OpRow { name, kind, layer, figures: e.figures(everything) });
    }
    let row =
        |(kind, e): (&&str, &Engines)| KindRow { kind: (*kind).to_owned(), figures: e.figures(everything) };
    let mut kinds: Vec<KindRow> = kinds.iter().map(row).collect();
    // Longest first; names, which are in order, decide between equals.
    kinds.sort_by(|a, b| b.figures.total_s.total_cmp(&a.figures.total_s));
    ops.sort_by(|a, b| b.figures.total_s.total_cmp(&a.figures.total_s));
    Ops { schema: "presil.trace-ops/1", kinds, ops }
}

/// What engines waited for: the exact accounts, which [`super::collect`] has held against the slices.
#[must_use]
pub fn stalls(c: &Collected) -> Stalls {
    let engine = |account: &BTreeMap<String, u64>| {
        let get = |key: &str| account.get(key).copied().unwrap_or(0);
        let (total, hertz) = (get("total"), get("hertz").max(1) as f64);
        let causes = account.iter().filter(|(k, _)| !NO_CAUSES.contains(&k.as_str())).map(|(cause, n)| {
            let percent = share(*n as f64, total as f64);
            (cause.clone(), CauseShare { cycles: *n, seconds: *n as f64 / hertz, percent })
        });
        EngineStalls {
            total_cycles: total,
            total_s: total as f64 / hertz,
            commands: account.get("commands").copied(),
            causes: causes.collect(),
        }
    };
    let engines = c.accounts.iter().map(|(name, a)| (name.clone(), engine(a))).collect();
    Stalls { schema: "presil.trace-stalls/1", engines }
}

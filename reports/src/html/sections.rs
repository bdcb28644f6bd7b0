//! The sections made of figures, bars and tables.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{escape, figure, section, share};
use crate::columns::{self, COLUMNS, Direction};
use crate::facts::Phase;
use crate::record::{Op, RunRecord, TOTAL};
use crate::summary::WORK_CAUSES;

/// Figures on cards at the top, in this order.
const CARDS: &[&str] = &[
    "time.ttft_s",
    "throughput.decode_tok_per_s",
    "time.tpot_mean_s",
    "throughput.prefill_tok_per_s",
    "energy.decode_j_per_token",
    "power.mean_w",
    "efficiency.tops_per_w.array_vmin",
    "efficiency.tops_per_w.npu_rail",
    "efficiency.tops_per_w.workload",
    "efficiency.effective_tops",
    "efficiency.utilisation",
    "dram.bandwidth_gb_per_s",
];
/// Single ops listed.
const TOP_OPS: usize = 15;
/// Distinct colours of causes in the style sheet.
const COLOURS: usize = 10;
/// The cause that is nobody's fault.
const IDLE: &str = "idle";

pub(super) fn header(r: &RunRecord) -> String {
    let w = &r.workload;
    let policy = r.policy.as_ref().map_or(String::new(), |p| format!(" Policy {}.", escape(&p.name)));
    let resident = match w.context_tokens {
        0 => String::new(),
        n => format!(", {n} resident"),
    };
    format!(
        "<header>\n<h1>{} <span>on {}</span></h1>\n<p class=\"lead\">{} parameters in {}. {} prompt tokens, {} \
         tokens made{resident}, seed {}.{policy}</p>\n<p class=\"band\"><b>± {} %</b> {}</p>\n</header>\n",
        escape(&r.model.name),
        escape(&r.soc.name),
        figure(r.model.params as f64, ""),
        escape(&r.model.quant),
        w.prompt_tokens,
        w.decode_tokens,
        w.seed,
        r.validity.band_percent,
        escape(&format!(
            "is how far headline figures may be from silicon. Basis: {}.",
            r.validity.basis.trim_end_matches('.')
        )),
    )
}

pub(super) fn figures(r: &RunRecord) -> String {
    let mut cards = String::from("<div class=\"cards\">\n");
    for (c, value) in CARDS.iter().filter_map(|p| columns::find(p)).filter_map(|c| Some((c, (c.get)(r)?))) {
        let better = match c.direction {
            Direction::Lower => "lower is better",
            Direction::Higher => "higher is better",
            Direction::Neutral => "describes the run",
        };
        cards.push_str(&format!(
            "<div class=\"card\"><h3>{}</h3><p class=\"value\">{}</p><p>{} <i>{better}</i></p></div>\n",
            escape(c.name),
            with_small_unit(&figure(value, c.unit)),
            escape(c.description)
        ));
    }
    cards.push_str("</div>\n");
    section(
        "figures",
        "Headline figures",
        "Counted from the prompt doorbell; boot is reported apart.",
        &cards,
    )
}

/// A figure whose unit is set smaller than its number.
fn with_small_unit(figure: &str) -> String {
    match figure.split_once('\u{a0}') {
        Some((number, unit)) => format!("{number}\u{a0}<small>{unit}</small>"),
        None => figure.to_owned(),
    }
}

pub(super) fn energy(r: &RunRecord) -> String {
    let total = r.energy.total_j;
    let mut parts: Vec<(&String, f64)> = r.energy.by_component.iter().map(|(k, v)| (k, *v)).collect();
    parts.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(b.0)));
    let widest = parts.first().map_or(0.0, |p| p.1);
    let mut rows = String::from("<div class=\"bars\">\n");
    for (name, joules) in parts.iter().filter(|p| p.1 > 0.0) {
        rows.push_str(&format!(
            "<div class=\"bar\"><span>{}</span><b><i style=\"width:{:.2}%\"></i></b><em>{}</em><em>{:.1} %</em></div>\n",
            escape(name),
            share(*joules, widest),
            figure(*joules, "J"),
            share(*joules, total)
        ));
    }
    rows.push_str(&format!(
        "<div class=\"bar sum\"><span>total</span><b></b><em>{}</em><em>{:.1} %</em></div>\n</div>\n",
        figure(total, "J"),
        share(parts.iter().map(|p| p.1).sum(), total)
    ));
    let decode =
        r.energy.decode_j_per_token.map_or(String::new(), |j| format!(", then {} a token", figure(j, "J")));
    let idle: Vec<String> = parts.iter().filter(|p| p.1 <= 0.0).map(|p| escape(p.0)).collect();
    let idle =
        if idle.is_empty() { String::new() } else { format!(" Nothing went into {}.", idle.join(", ")) };
    let prefill = figure(r.energy.prefill_j, "J");
    let lead = format!("{prefill} until the first token{decode}. Components sum to the total.{idle}");
    section("energy", "Energy ledger", &lead, &rows)
}

/// An engine's name with numbers replaced, so that the cores of one kind share a row.
fn kind_of(engine: &str) -> String {
    let mut kind = String::new();
    for c in engine.chars() {
        if !c.is_ascii_digit() {
            kind.push(c);
        } else if !kind.ends_with('*') {
            kind.push('*');
        }
    }
    kind
}

type Causes = BTreeMap<String, u64>;

/// One stacked bar: work first, then waits by size.
fn stacked(name: &str, causes: &Causes, colours: &BTreeMap<&str, usize>) -> String {
    let total = causes.get(TOTAL).copied().unwrap_or(0) as f64;
    let mut parts: Vec<(&String, u64)> =
        causes.iter().filter(|(k, n)| *k != TOTAL && **n > 0).map(|(k, n)| (k, *n)).collect();
    let rank =
        |cause: &String| (!WORK_CAUSES.contains(&cause.as_str()), colours.get(cause.as_str()).copied());
    parts.sort_by_key(|p| rank(p.0));
    let work: u64 = parts.iter().filter(|p| WORK_CAUSES.contains(&p.0.as_str())).map(|p| p.1).sum();
    let pieces: String = parts
        .iter()
        .map(|(cause, n)| {
            let colour = colours.get(cause.as_str()).copied().unwrap_or(COLOURS - 2);
            let part = share(*n as f64, total);
            format!(
                "<i class=\"c{colour}\" style=\"width:{part:.3}%\" title=\"{} {part:.2} %\"></i>",
                escape(cause)
            )
        })
        .collect();
    format!(
        "<div class=\"bar\"><span>{}</span><b>{pieces}</b><em>{:.1} %</em></div>\n",
        escape(name),
        share(work as f64, total)
    )
}

pub(super) fn cycles(r: &RunRecord) -> String {
    let mut kinds: BTreeMap<String, Causes> = BTreeMap::new();
    // Colours by weight of a cause, each engine counting the same; work has the first colours.
    let mut weight: BTreeMap<&str, f64> = BTreeMap::new();
    for (engine, causes) in &r.cycles {
        let sums = kinds.entry(kind_of(engine)).or_default();
        let total = causes.get(TOTAL).copied().unwrap_or(0).max(1) as f64;
        for (cause, n) in causes {
            *sums.entry(cause.clone()).or_default() += n;
            if cause != TOTAL && *n > 0 {
                *weight.entry(cause).or_default() += *n as f64 / total;
            }
        }
    }
    let mut order: Vec<(&str, f64)> = weight.into_iter().collect();
    let waits = |cause: &str| !WORK_CAUSES.contains(&cause);
    order.sort_by(|a, b| waits(a.0).cmp(&waits(b.0)).then(b.1.total_cmp(&a.1)).then(a.0.cmp(b.0)));
    // Idling is the last and palest; what finds no colour of its own shares the one before.
    order.sort_by_key(|(cause, _)| *cause == IDLE);
    let colour = |i: usize, cause: &str| if cause == IDLE { COLOURS - 1 } else { i.min(COLOURS - 2) };
    let colours: BTreeMap<&str, usize> =
        order.iter().enumerate().map(|(i, (cause, _))| (*cause, colour(i, cause))).collect();
    // Causes that share a colour share an entry.
    let mut entries: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (cause, _) in &order {
        entries.entry(colours[cause]).or_default().push(escape(cause));
    }
    let legend: String = entries
        .iter()
        .map(|(colour, names)| format!("<li><i class=\"c{colour}\"></i>{}</li>", names.join(", ")))
        .collect();
    let rows: String = kinds.iter().map(|(kind, causes)| stacked(kind, causes, &colours)).collect();
    let each: String = r.cycles.iter().map(|(engine, causes)| stacked(engine, causes, &colours)).collect();
    let mut table = String::new();
    for (engine, causes) in &kinds {
        let total = causes.get(TOTAL).copied().unwrap_or(0) as f64;
        for (cause, n) in causes.iter().filter(|(c, n)| *c != TOTAL && **n > 0) {
            let (n, part) = (*n as f64, share(*n as f64, total));
            let cells = format!("<td>{}<td>{}", escape(engine), escape(cause));
            table.push_str(&format!(
                "<tr>{cells}<td class=\"n\" data-v=\"{n}\">{}<td class=\"n\">{part:.2}\n",
                figure(n, "")
            ));
        }
    }
    let body = format!(
        "<ul class=\"legend\">{legend}</ul>\n<div class=\"bars stack\">\n{rows}</div>\n<details><summary>Every engine \
         ({})</summary>\n<div class=\"bars stack\">\n{each}</div>\n</details>\n<details><summary>Cycles by cause</summary>\n\
         <div class=\"scroll\"><table class=\"sort\"><thead><tr><th>engines<th>cause<th class=\"n\">cycles<th \
         class=\"n\">share, %</thead><tbody>\n{table}</tbody></table></div></details>\n",
        r.cycles.len()
    );
    let lead = "Every cycle of every engine has one cause, so each bar is 100 %. The figure is the share of work; \
                engines of one kind are taken together.";
    section("cycles", "Cycle ledger", lead, &body)
}

/// Sums over all ops of one kind in one phase.
#[derive(Default)]
pub(super) struct Group {
    pub(super) count: usize,
    pub(super) time_s: f64,
    pub(super) energy_j: f64,
    pub(super) macs: f64,
    pub(super) bytes: f64,
    bounds: BTreeMap<String, f64>,
}

/// Groups by time spent, longest first.
pub(super) fn groups(r: &RunRecord) -> Vec<((Phase, String), Group)> {
    let mut sums: BTreeMap<(Phase, String), Group> = BTreeMap::new();
    for o in &r.ops {
        let g = sums.entry((o.phase, o.kind.clone())).or_default();
        g.count += 1;
        g.time_s += o.duration_s;
        g.energy_j += o.energy_j;
        g.macs += o.macs as f64;
        g.bytes += o.dram_bytes as f64;
        *g.bounds.entry(o.bound_by.clone()).or_default() += o.duration_s;
    }
    let mut list: Vec<_> = sums.into_iter().collect();
    list.sort_by(|a, b| b.1.time_s.total_cmp(&a.1.time_s).then(a.0.cmp(&b.0)));
    list
}

fn number(value: f64, unit: &str) -> String {
    format!("<td class=\"n\" data-v=\"{value}\">{}", figure(value, unit))
}

pub(super) fn ops(r: &RunRecord) -> String {
    let mut kinds = String::new();
    let all: f64 = r.ops.iter().map(|o| o.duration_s).sum();
    for ((phase, kind), g) in groups(r) {
        let bound = g.bounds.iter().max_by(|a, b| a.1.total_cmp(b.1)).map_or("", |b| b.0);
        kinds.push_str(&format!(
            "<tr><td>{}<td>{}{}{}<td class=\"n\">{:.1}{}{}{}{}<td>{}\n",
            phase.word(),
            escape(&kind),
            number(g.count as f64, ""),
            number(g.time_s, "s"),
            share(g.time_s, all),
            number(g.energy_j, "J"),
            number(g.bytes, "B"),
            number(if g.time_s > 0.0 { g.bytes / g.time_s / 1e9 } else { 0.0 }, "GB/s"),
            number(if g.time_s > 0.0 { 2.0 * g.macs / g.time_s / 1e12 } else { 0.0 }, "TOPS"),
            escape(bound)
        ));
    }
    let mut longest: Vec<&Op> = r.ops.iter().collect();
    longest.sort_by(|a, b| b.duration_s.total_cmp(&a.duration_s).then(a.start_s.total_cmp(&b.start_s)));
    let mut single = String::new();
    for o in longest.iter().take(TOP_OPS) {
        single.push_str(&format!(
            "<tr><td>{}{}{}{}{}<td>{}\n",
            escape(&o.name),
            number(o.start_s, "s"),
            number(o.duration_s, "s"),
            number(o.energy_j, "J"),
            number(o.dram_bytes as f64, "B"),
            escape(&o.bound_by)
        ));
    }
    let body = format!(
        "<div class=\"scroll\"><table class=\"sort\"><thead><tr><th>phase<th>kind<th class=\"n\">count<th \
         class=\"n\">time<th class=\"n\">share, %<th class=\"n\">energy<th class=\"n\">DRAM<th class=\"n\">rate<th \
         class=\"n\">useful<th>bound by</thead><tbody>\n{kinds}</tbody></table></div>\n<h3>Longest single ops</h3>\n<div \
         class=\"scroll\"><table class=\"sort\"><thead><tr><th>op<th class=\"n\">start<th class=\"n\">time<th \
         class=\"n\">energy<th class=\"n\">DRAM<th>bound by</thead><tbody>\n{single}</tbody></table></div>\n"
    );
    let lead = format!(
        "{} op instances by kind. Times of ops that overlap are both counted; what limited a kind is what limited \
         most of its time. Click a heading to sort.",
        figure(r.ops.len() as f64, "")
    );
    section("ops", "Operations", &lead, &body)
}

pub(super) fn everything(r: &RunRecord) -> String {
    let rows: String = COLUMNS
        .iter()
        .filter_map(|c| Some((c, (c.get)(r)?)))
        .map(|(c, v)| {
            let cells = format!("<td>{}{}<td>{}", escape(c.name), number(v, c.unit), escape(c.description));
            format!("<tr>{cells}<td><code>{}</code>\n", c.path)
        })
        .collect();
    let body = format!(
        "<details><summary>Table</summary><div class=\"scroll\"><table><thead><tr><th>metric<th class=\"n\">value<th>\
         meaning<th>key</thead><tbody>\n{rows}</tbody></table></div></details>\n"
    );
    section("metrics", "Every metric", "With its definition and its key in the run record.", &body)
}

pub(super) fn configuration(r: &RunRecord) -> String {
    let mut rows = Vec::new();
    flatten(&r.config, "", &mut rows);
    let mut groups: Vec<(String, String)> = Vec::new();
    for (path, value) in rows {
        let group = path.split('.').take(2).collect::<Vec<_>>().join(".");
        let row = format!("<tr><td><code>{}</code><td>{}\n", escape(&path), escape(&value));
        match groups.last_mut() {
            Some((name, text)) if *name == group => text.push_str(&row),
            _ => groups.push((group, row)),
        }
    }
    // Single values read better together than each behind its own fold.
    let (single, tables): (Vec<_>, Vec<_>) =
        groups.into_iter().partition(|g| g.1.matches("<tr>").count() == 1);
    let table = |rows: &str| format!("<div class=\"scroll\"><table><tbody>\n{rows}</tbody></table></div>");
    let mut body = table(&single.iter().map(|g| g.1.as_str()).collect::<String>());
    for (name, rows) in tables {
        body.push_str(&format!("<details><summary>{}</summary>{}</details>\n", escape(&name), table(&rows)));
    }
    let lead = format!(
        "As resolved for this run (hash <code>{}</code>). <code>presil show soc {}</code> adds the source of each value.",
        escape(&r.soc.hash),
        escape(&r.soc.name)
    );
    section("config", "Configuration", &lead, &body)
}

fn flatten(value: &Value, path: &str, rows: &mut Vec<(String, String)>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                flatten(value, &if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, rows);
            }
        }
        Value::Array(list) if list.iter().any(|v| v.is_object() || v.is_array()) => {
            for (index, value) in list.iter().enumerate() {
                flatten(value, &format!("{path}[{index}]"), rows);
            }
        }
        Value::Array(list) => {
            let items: Vec<String> = list.iter().map(plain).collect();
            rows.push((path.to_owned(), items.join(", ")));
        }
        other => rows.push((path.to_owned(), plain(other))),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

pub(super) fn footer(r: &RunRecord) -> String {
    format!(
        "<footer><p>presil {}. Memory path: {}. Firmware <code>{}</code>. Digest of events <code>{}</code>.</p></footer>\n",
        escape(&r.version),
        r.memory_model.word(),
        escape(r.firmware.sha256.get(..16).unwrap_or(&r.firmware.sha256)),
        escape(&r.digest)
    )
}

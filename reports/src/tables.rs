//! The tables of a run as CSV: one row type each, one column table each.

use crate::record::{Op, RunRecord, TOTAL};

/// One column of a table over rows of type `R`.
pub struct TableColumn<R> {
    /// Header.
    pub name: &'static str,
    /// Meaning, with the unit.
    pub description: &'static str,
    /// The cell's text.
    pub cell: fn(&R) -> String,
}

/// Columns of `ops.csv`.
pub const OPS: &[TableColumn<Op>] = &[
    TableColumn { name: "name", description: "Name within the model.", cell: |o| o.name.clone() },
    TableColumn { name: "kind", description: "Kind of op.", cell: |o| o.kind.clone() },
    TableColumn { name: "phase", description: "prefill or decode.", cell: |o| o.phase.word().to_owned() },
    TableColumn { name: "unit", description: "What executed it.", cell: |o| o.unit.clone() },
    TableColumn {
        name: "start_s",
        description: "Start from time zero, seconds.",
        cell: |o| number(o.start_s),
    },
    TableColumn { name: "duration_s", description: "Duration, seconds.", cell: |o| number(o.duration_s) },
    TableColumn { name: "macs", description: "Useful multiply-accumulates.", cell: |o| o.macs.to_string() },
    TableColumn {
        name: "dram_bytes",
        description: "Bytes read plus written.",
        cell: |o| o.dram_bytes.to_string(),
    },
    TableColumn { name: "energy_j", description: "Energy, joules.", cell: |o| number(o.energy_j) },
    TableColumn { name: "bound_by", description: "What limited it.", cell: |o| o.bound_by.clone() },
];

/// A part of a whole with its name, for energy and cycles.
pub struct Part {
    group: String,
    name: String,
    value: f64,
    whole: f64,
}

/// Columns of `energy.csv`.
pub const ENERGY: &[TableColumn<Part>] = &[
    TableColumn { name: "component", description: "Component.", cell: |p| p.name.clone() },
    TableColumn { name: "energy_j", description: "Energy, joules.", cell: |p| number(p.value) },
    TableColumn { name: "share", description: "Share of the run's energy.", cell: |p| share(p) },
];

/// Columns of `cycles.csv`.
pub const CYCLES: &[TableColumn<Part>] = &[
    TableColumn { name: "engine", description: "Engine.", cell: |p| p.group.clone() },
    TableColumn { name: "cause", description: "What the cycles went into.", cell: |p| p.name.clone() },
    TableColumn { name: "cycles", description: "Cycles of the engine's clock.", cell: |p| number(p.value) },
    TableColumn { name: "share", description: "Share of the engine's cycles.", cell: |p| share(p) },
];

/// A victim and an aggressor; the aggressor `all` is everybody else together.
pub struct Pair {
    victim: String,
    aggressor: String,
    lost_s: f64,
    slowdown: f64,
    held_s: crate::record::ByName,
}

impl Pair {
    fn held(&self, what: &str) -> String {
        number(self.held_s.get(what).copied().unwrap_or(0.0))
    }
}

/// Columns of `contention.csv`.
pub const CONTENTION: &[TableColumn<Pair>] = &[
    TableColumn { name: "victim", description: "Client that waited.", cell: |p| p.victim.clone() },
    TableColumn {
        name: "aggressor",
        description: "Client that held what it waited for; `all` is every other client.",
        cell: |p| p.aggressor.clone(),
    },
    TableColumn { name: "lost_s", description: "Time lost, seconds.", cell: |p| number(p.lost_s) },
    TableColumn {
        name: "slowdown",
        description: "The victim's time over what it would have been without the aggressor.",
        cell: |p| number(p.slowdown),
    },
    TableColumn { name: "link_s", description: "Of it, to links and limits.", cell: |p| p.held("link") },
    TableColumn { name: "memory_s", description: "Of it, to memory channels.", cell: |p| p.held("memory") },
    TableColumn { name: "cache_s", description: "Of it, to the system cache.", cell: |p| p.held("cache") },
];

/// Shortest decimal text that reads back as the same number.
#[must_use]
pub fn number(value: f64) -> String {
    value.to_string()
}

fn share(part: &Part) -> String {
    if part.whole > 0.0 { format!("{:.6}", part.value / part.whole) } else { String::from("0") }
}

/// A cell as CSV wants it: quoted where it holds a separator, a quote or a line end.
#[must_use]
pub fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

fn csv<R>(columns: &[TableColumn<R>], rows: impl Iterator<Item = R>) -> String {
    let mut text = columns.iter().map(|c| c.name).collect::<Vec<_>>().join(",");
    text.push('\n');
    for row in rows {
        let cells: Vec<String> = columns.iter().map(|c| quoted(&(c.cell)(&row))).collect();
        text.push_str(&cells.join(","));
        text.push('\n');
    }
    text
}

/// `ops.csv`.
#[must_use]
pub fn ops_csv(record: &RunRecord) -> String {
    csv(OPS, record.ops.iter().cloned())
}

/// `energy.csv`, components by name.
#[must_use]
pub fn energy_csv(record: &RunRecord) -> String {
    let whole = record.energy.total_j;
    let part =
        |(name, &value): (&String, &f64)| Part { group: String::new(), name: name.clone(), value, whole };
    csv(ENERGY, record.energy.by_component.iter().map(part))
}

/// `cycles.csv`, engines and causes by name, the total apart.
#[must_use]
pub fn cycles_csv(record: &RunRecord) -> String {
    let rows = record.cycles.iter().flat_map(|(engine, causes)| {
        let whole = causes.get(TOTAL).copied().unwrap_or(0) as f64;
        causes.iter().filter(|(cause, _)| *cause != TOTAL).map(move |(cause, &n)| Part {
            group: engine.clone(),
            name: cause.clone(),
            value: n as f64,
            whole,
        })
    });
    csv(CYCLES, rows)
}

/// `contention.csv`: of every victim everybody else together, then each aggressor.
#[must_use]
pub fn contention_csv(record: &RunRecord) -> String {
    let rows = record.contention.iter().flat_map(|(victim, w)| {
        let mut held_s = crate::record::ByName::new();
        for to in w.by.values() {
            to.held_s.iter().for_each(|(k, v)| *held_s.entry(k.clone()).or_default() += v);
        }
        let pair = |aggressor: &str, lost_s, slowdown, held_s| Pair {
            victim: victim.clone(),
            aggressor: aggressor.to_owned(),
            lost_s,
            slowdown,
            held_s,
        };
        let all = pair("all", w.by.values().map(|to| to.lost_s).sum(), w.slowdown, held_s);
        let each = w.by.iter().map(|(name, to)| pair(name, to.lost_s, to.slowdown, to.held_s.clone()));
        core::iter::once(all).chain(each).collect::<Vec<_>>()
    });
    csv(CONTENTION, rows)
}

//! `presil trace`: what is in a trace, what took the engines' time, what they waited for.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde::Serialize;
use traces::analysis::{self, Collected, OpFigures, Ops, Stalls, Summary};

use crate::error::CliError;

/// Options of `presil trace`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: presil trace stalls run.pftrace --json")]
pub struct Args {
    #[command(subcommand)]
    view: View,
}

#[derive(Subcommand, Debug)]
enum View {
    /// What the trace holds: duration, tokens, tracks, counters, longest kinds of operations
    #[command(after_help = "Example: presil trace summary run.pftrace")]
    Summary(FileArgs),
    /// Active time of the NPU's engines by operation: kind, layer, commands, mean, share
    #[command(after_help = "Example: presil trace ops run.pftrace --top 40")]
    Ops(OpsArgs),
    /// Every engine's cycles by cause; the causes of one engine sum to 100 %
    #[command(after_help = "Example: presil trace stalls run.pftrace --json")]
    Stalls(FileArgs),
}

#[derive(clap::Args, Debug)]
struct FileArgs {
    /// Trace that `presil run --trace` wrote
    file: PathBuf,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args, Debug)]
struct OpsArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Operations shown below the kinds; JSON holds all
    #[arg(long, default_value_t = 20, value_name = "N")]
    top: usize,
}

/// Reads the trace and prints the view.
///
/// # Errors
/// If the file is no whole trace of presil's.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<(), CliError> {
    match &args.view {
        View::Summary(a) => show(a, out, analysis::summary, summary_text),
        View::Ops(a) => show(&a.file, out, analysis::ops, |v| ops_text(v, a.top)),
        View::Stalls(a) => show(a, out, analysis::stalls, stalls_text),
    }
}

fn show<T: Serialize>(
    args: &FileArgs,
    out: &mut dyn Write,
    view: impl Fn(&Collected) -> T,
    text: impl Fn(&T) -> String,
) -> Result<(), CliError> {
    let view = view(&read(&args.file)?);
    if args.json {
        return super::write_json(out, &view);
    }
    out.write_all(text(&view).as_bytes())?;
    Ok(())
}

fn read(path: &Path) -> Result<Collected, CliError> {
    let place = path.display();
    let file = File::open(path).map_err(|e| CliError::input(format!("{place}: cannot be read: {e}")))?;
    analysis::collect(BufReader::with_capacity(1 << 18, file))
        .map_err(|e| CliError::input(format!("{place}: {e}")))
}

/// Lines of a table: the first row is the head, the first column stands left, the others right.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|s| s.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (i, (cell, w)) in row.iter().zip(&widths).enumerate() {
            let cell = if i == 0 { format!("{cell:<w$}") } else { format!("  {cell:>w$}") };
            line.push_str(&cell);
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn head(columns: &[&str]) -> Vec<String> {
    columns.iter().map(ToString::to_string).collect()
}

fn ms(seconds: f64) -> String {
    format!("{:.3}", seconds * 1e3)
}

fn summary_text(s: &Summary) -> String {
    let mut out = String::new();
    let fact = |key: &str| s.run.get(key).map_or("?", String::as_str);
    let _ = writeln!(out, "{} on {}, {}", fact("model"), fact("soc"), fact("quant"));
    if let Some(fault) = s.run.get("fault") {
        let _ = writeln!(out, "the run ended with a fault: {fault}");
    }
    let _ = writeln!(
        out,
        "{} ms, boot {} ms before it; {} slices, {} bytes",
        ms(s.duration_s),
        ms(s.boot_s),
        s.slices,
        s.bytes
    );
    let first = s.tokens.first_s.map_or(String::new(), |t| format!(", the first after {} ms", ms(t)));
    let _ = writeln!(out, "{} tokens{first}\n", s.tokens.count);
    let mut rows = vec![head(&["track", "slices", "busy ms", "%", "instants"])];
    for t in &s.tracks {
        let instants: u64 = t.instants.values().sum();
        let share = format!("{:.1}", t.busy_percent);
        rows.push(vec![t.name.clone(), t.slices.to_string(), ms(t.busy_s), share, instants.to_string()]);
    }
    out.push_str(&table(&rows));
    out.push('\n');
    let mut rows = vec![head(&["counter", "mean", "max", "unit"])];
    for c in &s.counters {
        rows.push(vec![c.name.clone(), format!("{:.3}", c.mean), format!("{:.3}", c.max), c.unit.clone()]);
    }
    out.push_str(&table(&rows));
    out.push('\n');
    let kinds = s.top_kinds.iter().map(|k| (k.kind.as_str(), &k.figures));
    out.push_str(&figures("longest kinds", kinds));
    out
}

fn figures<'a>(title: &str, rows: impl Iterator<Item = (&'a str, &'a OpFigures)>) -> String {
    let mut lines = vec![head(&[title, "commands", "dma ms", "mx ms", "vp ms", "total ms", "mean us", "%"])];
    for (name, f) in rows {
        lines.push(vec![
            name.to_owned(),
            f.count.to_string(),
            ms(f.dma_s),
            ms(f.mx_s),
            ms(f.vp_s),
            ms(f.total_s),
            format!("{:.3}", f.mean_s * 1e6),
            format!("{:.2}", f.share_percent),
        ]);
    }
    table(&lines)
}

fn ops_text(o: &Ops, top: usize) -> String {
    let kinds = figures("kind", o.kinds.iter().map(|k| (k.kind.as_str(), &k.figures)));
    let ops = figures("operation", o.ops.iter().take(top).map(|r| (r.name.as_str(), &r.figures)));
    format!("Active time of all NPU engines, by operation\n\n{kinds}\n{ops}")
}

/// Percentages with one decimal that sum to exactly 100.0: what rounding down leaves goes to the largest remainders.
fn rounded(percent: &[f64]) -> Vec<String> {
    let tenths: Vec<f64> = percent.iter().map(|p| p * 10.0).collect();
    let mut whole: Vec<f64> = tenths.iter().map(|t| t.floor()).collect();
    let mut left = (tenths.iter().sum::<f64>().round() - whole.iter().sum::<f64>()).max(0.0);
    let mut order: Vec<usize> = (0..tenths.len()).collect();
    order.sort_by(|a, b| (tenths[*b] - whole[*b]).total_cmp(&(tenths[*a] - whole[*a])).then(a.cmp(b)));
    for i in order {
        if left >= 1.0 {
            whole[i] += 1.0;
            left -= 1.0;
        }
    }
    whole.iter().map(|t| format!("{:.1}", t / 10.0)).collect()
}

/// One table for engines of one kind, so that causes are columns.
fn stalls_text(s: &Stalls) -> String {
    let mut groups: Vec<(Vec<String>, Vec<Vec<String>>)> = Vec::new();
    for (name, e) in &s.engines {
        let causes: Vec<String> = e.causes.keys().cloned().collect();
        let percent: Vec<f64> = e.causes.values().map(|c| c.percent).collect();
        let mut row = vec![name.clone(), ms(e.total_s)];
        row.extend(rounded(&percent));
        match groups.iter_mut().find(|g| g.0 == causes) {
            Some(group) => group.1.push(row),
            None => groups.push((causes, vec![row])),
        }
    }
    let mut out = "Percent of each engine's cycles from time zero to the end, by cause\n".to_owned();
    for (causes, rows) in groups {
        let mut lines = vec![head(&["engine", "ms"])];
        lines[0].extend(causes);
        lines.extend(rows);
        out.push('\n');
        out.push_str(&table(&lines));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::rounded;

    #[test]
    fn rounded_percentages_sum_to_a_hundred() {
        let thirds = rounded(&[100.0 / 3.0; 3]);
        assert_eq!(thirds, ["33.4", "33.3", "33.3"]);
        assert_eq!(rounded(&[99.96, 0.04]), ["100.0", "0.0"]);
        assert_eq!(rounded(&[0.0, 0.0]), ["0.0", "0.0"]);
    }
}

//! `presil dram`: one memory channel alone, fed a stream or a trace.

mod knobs;

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use soc_model::dram::replay::{Input, Path as Engine, ReplayOptions, replay};
use soc_model::dram::replay_io::{ReplayResult, parse_trace};
use soc_model::dram::standard::STANDARDS;
use soc_model::dram::streams::{Load, StreamKind};
use soc_model::dram::{AddressMap, Controller, Standard};

use self::knobs::{ControllerOptions, DeviceOptions};
use super::{read_text, write_json};
use crate::error::CliError;

/// Most transactions of a stream: a terabyte and more.
const MOST_TRANSACTIONS: u64 = 1 << 36;
/// Latest arrival the path that walks every CK is started for.
const MOST_TICKS: u64 = 1 << 32;
/// Largest trace file that is read.
const MOST_TRACE_BYTES: u64 = 1 << 30;
/// Largest standard file that is read.
const MOST_STANDARD_BYTES: u64 = 1 << 20;

/// Options of `presil dram`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Example: presil dram replay --standard lpddr5-6400 --stream rand_read --count 100000 --json"
)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Bandwidth, latency, row hits and energy of a stream or a trace on one channel
    #[command(
        after_help = "Example: presil dram replay --standard lpddr5x-9600 --stream seq_read --count 1000000 \
                            --path sampled\n         presil dram replay --standard lpddr5-6400 --stream rand50 \
                            --count 100000 --refresh per-bank --row-policy closed:4\n\nA trace has a line a transaction of 64 bytes: `R 0xADDR` or `W 0xADDR`, \
                            optionally the CK at which it is due; `#` starts a comment."
    )]
    Replay(Box<Replay>),
}

#[derive(clap::Args, Debug)]
struct Replay {
    /// Standard and speed bin, as `presil list standards` names them, or a TOML file
    #[arg(long, value_name = "NAME|FILE")]
    standard: String,
    /// Synthetic stream: seq_read, rand_read, mix21 (two reads, one write), strided (one bank, ever new rows),
    /// write_only (sequential), rand_write, rand50 (random, half of them writes), interleave4 (four sequential reads in
    /// turn, same bank), copy (a sequential read, then a sequential write) or flows12 (twelve sequential reads in turns of
    /// 4 KiB)
    #[arg(long, required_unless_present = "trace", requires = "count", value_name = "NAME")]
    stream: Option<String>,
    /// Transactions of the stream, 64 bytes each
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MOST_TRANSACTIONS))]
    count: Option<u64>,
    /// Transactions from a file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["stream", "count"])]
    trace: Option<PathBuf>,
    /// When transactions arrive: 0 as fast as they are taken, a fraction of the pins' peak, or chase: one outstanding
    #[arg(long, default_value = "0", value_name = "F|chase")]
    load: String,
    /// Address map: map-a, map-32, map-bg8, map-a-xor, map-bg8-xor, or a string such as "row:15 bank:2 column:5 group:2
    /// column:1 byte:5"
    #[arg(long, default_value = "map-a", value_name = "NAME|STRING")]
    map: String,
    /// Engine: burst (skips to the next event), tick (walks every CK) or sampled (part of a saturating stream)
    #[arg(long, default_value = "burst", value_name = "PATH")]
    path: String,
    #[command(flatten)]
    device: DeviceOptions,
    #[command(flatten)]
    controller: ControllerOptions,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Runs `presil dram`.
///
/// # Errors
/// If a name, file or option is wrong.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<(), CliError> {
    let What::Replay(args) = &args.what;
    let options = args.options()?;
    let result = replay(&options).map_err(|e| CliError::input(format!("--map: {e}")))?;
    if args.json { write_json(out, &result) } else { print(out, &options, &result) }
}

/// A standard by name or from a file, and the text it was read from.
///
/// # Errors
/// Everything that is wrong with it.
pub(super) fn standard(name: &str) -> Result<(Standard, String), CliError> {
    if let Some((_, text)) = STANDARDS.iter().find(|(candidate, _)| *candidate == name) {
        return Ok((parse(name, text)?, (*text).to_owned()));
    }
    if name.ends_with(".toml") || Path::new(name).is_file() {
        let text = read_text(Path::new(name), MOST_STANDARD_BYTES)?;
        return Ok((parse(name, &text)?, text));
    }
    let all = |errors: Vec<_>| CliError::Input(errors.iter().map(ToString::to_string).collect());
    Standard::named(name).map(|s| (s, String::new())).map_err(all)
}

fn parse(place: &str, text: &str) -> Result<Standard, CliError> {
    Standard::parse(text)
        .map_err(|errors| CliError::Input(errors.iter().map(|e| format!("{place}: {e}")).collect()))
}

/// What `presil dram replay` prints for these options, on one line.
///
/// # Errors
/// If an option is wrong.
pub(super) fn document(command: &str) -> Result<serde_json::Value, CliError> {
    let options = super::validate::options::<Replay>(command)?.options()?;
    let result = replay(&options).map_err(|e| CliError::input(format!("--map: {e}")))?;
    serde_json::to_value(result).map_err(|e| CliError::Simulation(e.to_string()))
}

impl Replay {
    /// Everything resolved; every problem is reported at once.
    fn options(&self) -> Result<ReplayOptions, CliError> {
        let mut problems = Vec::new();
        let standard = match standard(&self.standard) {
            Ok((standard, _)) => Some(standard),
            Err(CliError::Input(messages)) => {
                problems.extend(messages.into_iter().map(|m| format!("--standard: {m}")));
                None
            }
            Err(other) => return Err(other),
        };
        let mut keep = |option: &str, message: String| problems.push(format!("--{option}: {message}"));
        let load = self.load.parse::<Load>().map_err(|e| keep("load", e.to_string())).ok();
        let path = self.path.parse::<Engine>().map_err(|e| keep("path", e.to_string())).ok();
        let map = AddressMap::named_or_parsed(&self.map).map_err(|e| keep("map", e.to_string())).ok();
        let kind = self.stream.as_deref().map(str::parse::<StreamKind>).transpose();
        let kind = kind.map_err(|e| keep("stream", e.to_string())).ok();
        let standard = standard.and_then(|s| self.device.apply(&s, &mut problems));
        let base = standard.as_ref().map_or(Controller::DEFAULT, |s| s.controller);
        let controller = self.controller.apply(base, &mut problems);
        let (Some(standard), Some(load), Some(path), Some(map), Some(kind)) =
            (standard, load, path, map, kind)
        else {
            return Err(CliError::Input(problems));
        };
        if !problems.is_empty() {
            return Err(CliError::Input(problems));
        }
        let input = match (kind, self.count, &self.trace) {
            (Some(kind), Some(count), None) => Input::Stream { kind, count, load },
            (_, _, Some(file)) => self.trace_input(file, &standard, load)?,
            _ => return Err(CliError::input("--stream NAME --count N or --trace FILE is needed")),
        };
        check_arrivals(path, &input, standard.line_ck())?;
        Ok(ReplayOptions { standard, controller, map, path, input })
    }

    fn trace_input(&self, file: &Path, standard: &Standard, load: Load) -> Result<Input, CliError> {
        let chase = match load {
            Load::Saturating => false,
            Load::Chase => true,
            Load::Fraction(_) => {
                return Err(CliError::input(format!(
                    "--load {}: a trace says itself when its transactions are due; expected 0 or chase",
                    self.load
                )));
            }
        };
        let text = read_text(file, MOST_TRACE_BYTES)?;
        let place = file.display().to_string();
        let transactions =
            parse_trace(&place, &text, standard.channel_bits).map_err(|e| CliError::input(e.to_string()))?;
        if transactions.is_empty() {
            return Err(CliError::input(format!(
                "{place}: no transactions; expected lines such as `R 0x1000` or `W 0x1040 120`"
            )));
        }
        Ok(Input::Trace { transactions, chase })
    }
}

/// Refuses to walk to arrivals that are days away.
fn check_arrivals(path: Engine, input: &Input, line_ck: u64) -> Result<(), CliError> {
    let last = match input {
        Input::Stream { count, load, .. } => load.due(count.saturating_sub(1), line_ck),
        Input::Trace { transactions, .. } => transactions.iter().map(|t| t.due).max().unwrap_or(0),
    };
    if path == Engine::Tick && last > MOST_TICKS {
        return Err(CliError::input(format!(
            "--path tick: it walks every CK, and the last transaction is due in CK {last}, beyond {MOST_TICKS}\n  help: \
             --path burst gives the same cycles"
        )));
    }
    Ok(())
}

fn print(out: &mut dyn Write, o: &ReplayOptions, r: &ReplayResult) -> Result<(), CliError> {
    writeln!(out, "standard        {}, one x16 channel", o.standard.name)?;
    writeln!(out, "path            {}", r.path)?;
    writeln!(out, "transactions    {} of 64 bytes in {} CK", r.transactions, r.ck_cycles)?;
    writeln!(
        out,
        "bandwidth       {:.3} GB/s, {:.2} % of the pins' peak",
        r.bandwidth_gb_per_s,
        100.0 * r.utilisation
    )?;
    if let Some(l) = &r.read_latency_ns {
        writeln!(out, "read latency    mean {:.2} ns, p50 {:.2} ns, p99 {:.2} ns", l.mean, l.p50, l.p99)?;
    }
    writeln!(
        out,
        "rows            {} hits, {} misses, {} conflicts",
        r.row_hits, r.row_misses, r.row_conflicts
    )?;
    let per_bit = |word, pj: Option<f64>| pj.map_or(String::new(), |p| format!(", {p:.2} pJ/bit {word}"));
    writeln!(
        out,
        "energy          {:.6e} J{}{}",
        r.energy_j,
        per_bit("read", r.read_pj_per_bit),
        per_bit("written", r.write_pj_per_bit)
    )?;
    Ok(())
}

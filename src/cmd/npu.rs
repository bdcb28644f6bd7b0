//! `presil npu`: the NPU alone. Matrix products on an array, the assembler, the disassembler.

mod tables;
mod words;

use std::io::Write;
use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use npu_model::array::{Array, Product};
use npu_model::study::discipline::EdgeFolds;
use npu_model::study::{
    ARRAYS, Bandwidth, Dataflow, Discipline, Formats, LocalMemory, Outcome, Study, WeightLoad,
};
use serde_json::{Value, json};
use soc_model::config::resolve;
use traces::topology::{self, Layer};

use super::{read_text, write_json};
use crate::error::CliError;

/// Options of `presil npu`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: presil npu gemm --m 128 --k 4096 --n 4096 --memory 76.8 --json")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Cycles of matrix products on one array
    #[command(
        after_help = "Example: presil npu gemm --m 128 --k 4096 --n 4096 --rows 32 --cols 32 --json\n         presil npu \
                      gemm --m 64 --k 64 --n 64 --array gemmini --array-set read-latency=6\n         presil npu gemm \
                      --batch-file resnet.csv --array scalesim --dataflow os --reports out"
    )]
    Gemm(Box<Gemm>),
    /// Assemble commands into words of 32 bytes
    #[command(after_help = "Example: presil npu asm program.npu -o program.bin")]
    Asm {
        /// Text, one command a line
        file: PathBuf,
        /// Binary file to write; without it the words are printed, 64 hexadecimal digits a line
        #[arg(short, long)]
        output: Option<PathBuf>,
    },
    /// Disassemble words, binary or as `asm` prints them
    #[command(after_help = "Example: presil npu disasm program.bin")]
    Disasm {
        /// Words: binary (32 bytes each, little-endian), or lines of 64 hexadecimal digits
        file: PathBuf,
    },
}

/// Largest topology or array file that is read.
const MOST_BYTES: u64 = 1 << 26;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DataflowName {
    /// Weight-stationary
    Ws,
    /// Output-stationary
    Os,
    /// Input-stationary: weight-stationary for the transposed product
    Is,
    /// A stationary, B streams
    Gemv,
    /// GEMV where it is faster, else weight-stationary
    Auto,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum WeightLoadName {
    /// Loading shows: serial or pipelined folds, whichever the array has
    Exposed,
    /// The stationary operand is double-buffered
    Hidden,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FormatName {
    Int4,
    Int8,
    /// int8 activations, int4 weights
    W4a8,
    Fp16,
    Bf16,
    /// fp16 activations, int4 weights
    W4a16,
    /// fp16 activations, int8 weights
    W8a16,
    Fp32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum EdgeFoldsName {
    /// A fold that is partly used costs a whole one
    Padded,
    /// It costs its own rows and columns
    Clipped,
}

#[derive(clap::Args, Debug)]
pub(super) struct Gemm {
    /// Rows of A and C
    #[arg(long, required_unless_present = "batch_file")]
    m: Option<u64>,
    /// Columns of A, rows of B
    #[arg(long, required_unless_present = "batch_file")]
    k: Option<u64>,
    /// Columns of B and C
    #[arg(long, required_unless_present = "batch_file")]
    n: Option<u64>,
    /// Products from a SCALE-Sim topology: a header line, then Layer,M,N,K, or convolutions, which become products
    #[arg(long, value_name = "FILE.csv", conflicts_with_all = ["m", "k", "n"])]
    batch_file: Option<PathBuf>,
    /// Whose array: default (this project's core), scalesim (serial folds), gemmini (controller and mesh), gemmini-mesh,
    /// tinytpu, tiny-tpu, leo-tpu, redmule (each as measured on RTL), an array file, or a SoC file, whose NPU core it
    /// then is. `presil show array NAME` prints such a file
    #[arg(long, default_value = "default", value_name = "NAME|FILE.toml")]
    array: String,
    /// Replace a key in every mode of the array, for example read-latency=6 or same-bank=true
    #[arg(long, value_name = "KEY=VALUE")]
    array_set: Vec<String>,
    /// What folds that are partly used cost [default: the array's own: padded]
    #[arg(long)]
    edge_folds: Option<EdgeFoldsName>,
    /// PE rows [default: the array's own]
    #[arg(long)]
    rows: Option<u64>,
    /// PE columns [default: as many as --rows, or the array's own]
    #[arg(long)]
    cols: Option<u64>,
    /// What stays in the array
    #[arg(long, default_value = "auto")]
    dataflow: DataflowName,
    /// Whether loading the stationary operand shows [default: hidden if the array can]
    #[arg(long)]
    weight_load: Option<WeightLoadName>,
    /// Formats of A and B
    #[arg(long, default_value = "int8")]
    format: FormatName,
    /// Width of the GEMV path's weight stream, bytes per cycle [default: the array's own: 128]
    #[arg(long)]
    gemv_width: Option<u64>,
    /// Memory behind the scratchpad: `ideal`, or bytes per cycle
    #[arg(long, default_value = "ideal", value_parser = memory)]
    memory: Memory,
    /// Write SCALE-Sim's three reports, COMPUTE_REPORT.csv, BANDWIDTH_REPORT.csv and DETAILED_ACCESS_REPORT.csv, to this
    /// folder; cycles there are numbered from 0
    #[arg(long, value_name = "DIR")]
    reports: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug)]
struct Memory(Option<Bandwidth>);

/// A decimal number as an exact fraction: what the user typed, not the nearest float.
fn memory(text: &str) -> Result<Memory, String> {
    if text == "ideal" {
        return Ok(Memory(None));
    }
    let expected = || format!("expected `ideal` or bytes per cycle, such as 76.8, not `{text}`");
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.len() + part.len() == 0 || part.len() > 9 || !digits(whole) || !digits(part) {
        return Err(expected());
    }
    let cycles = 10u64.pow(u32::try_from(part.len()).map_err(|_| expected())?);
    let bytes: u64 = format!("{whole}{part}").parse().map_err(|_| expected())?;
    if bytes == 0 {
        return Err("a memory of 0 bytes per cycle never finishes".to_owned());
    }
    Ok(Memory(Some(Bandwidth { bytes, cycles })))
}

/// Runs `presil npu`.
///
/// # Errors
/// If a file or size is wrong.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<(), CliError> {
    match &args.what {
        What::Gemm(gemm) => gemm.run(out),
        What::Asm { file, output } => words::asm(file, output.as_deref(), out),
        What::Disasm { file } => words::disasm(file, out),
    }
}

/// An array by name or from a file, and the text it was read from.
///
/// # Errors
/// If there is none of that name, or the file or an override is wrong.
pub(super) fn array_file(name: &str) -> Result<String, CliError> {
    if let Some((_, text)) = ARRAYS.iter().find(|a| a.0 == name) {
        return Ok((*text).to_owned());
    }
    let path = std::path::Path::new(name);
    if name.ends_with(".toml") || path.is_file() {
        return read_text(path, MOST_BYTES);
    }
    let names: Vec<&str> = ARRAYS.iter().map(|a| a.0).collect();
    Err(CliError::input(format!(
        "--array: no array is called `{name}`; there are {} and files ending in .toml",
        names.join(", ")
    )))
}

/// A built-in array, or one from a file or of the chip in it, and the core's memories if the file says them.
fn discipline(name: &str, sets: &[String]) -> Result<(Discipline, Option<LocalMemory>), CliError> {
    let text = array_file(name)?;
    let built_in = ARRAYS.iter().any(|a| a.0 == name);
    if built_in || Discipline::is_one(&text) {
        let place = if built_in { String::new() } else { format!("{name}: ") };
        let read = Discipline::parse(&text, sets);
        return Ok((read.map_err(|e| CliError::input(format!("{place}{e}")))?, None));
    }
    let npu = resolve(name, &[])?.config.npu;
    let local = LocalMemory { scratchpad: npu.scratchpad_bytes, accumulator: npu.accumulator_bytes };
    let core =
        Discipline::parse(&array_file("default")?, sets).map_err(|e| CliError::input(e.to_string()))?;
    let size = Array { rows: npu.rows.into(), cols: npu.cols.into() };
    Ok((
        Discipline { size, gemv_bytes_per_cycle: Some(npu.gemv_bytes_per_cycle.into()), ..core },
        Some(local),
    ))
}

/// A product that has been run: its name, itself, what came out.
pub(super) type Ran = (String, Product, Outcome);

impl Gemm {
    /// The array, dataflow, formats and memory asked for.
    ///
    /// # Errors
    /// If the array is wrong.
    pub(super) fn study(&self) -> Result<Study, CliError> {
        let (mut discipline, own_local) = discipline(&self.array, &self.array_set)?;
        let own = discipline.size;
        let array = match (self.rows, self.cols) {
            (None, None) => own,
            (Some(rows), None) => Array { rows, cols: rows },
            (rows, Some(cols)) => Array { rows: rows.unwrap_or(own.rows), cols },
        };
        match self.edge_folds {
            None => {}
            Some(EdgeFoldsName::Padded) => discipline.edge_folds = EdgeFolds::Padded,
            Some(EdgeFoldsName::Clipped) => discipline.edge_folds = EdgeFolds::Clipped,
        }
        if let (Some(own), Some(width)) = (&mut discipline.gemv_bytes_per_cycle, self.gemv_width) {
            *own = width;
        }
        let dataflow = match self.dataflow {
            DataflowName::Ws => Dataflow::WeightStationary,
            DataflowName::Os => Dataflow::OutputStationary,
            DataflowName::Is => Dataflow::InputStationary,
            DataflowName::Gemv => Dataflow::Gemv,
            DataflowName::Auto => Dataflow::Auto,
        };
        let formats = match self.format {
            FormatName::Int4 => Formats::Int4,
            FormatName::Int8 => Formats::Int8,
            FormatName::W4a8 => Formats::W4A8,
            FormatName::Fp16 => Formats::Fp16,
            FormatName::Bf16 => Formats::Bf16,
            FormatName::W4a16 => Formats::W4A16,
            FormatName::W8a16 => Formats::W8A16,
            FormatName::Fp32 => Formats::Fp32,
        };
        Ok(Study {
            discipline,
            array,
            dataflow,
            weight_load: self.weight_load.map(|load| match load {
                WeightLoadName::Exposed => WeightLoad::Exposed,
                WeightLoadName::Hidden => WeightLoad::Hidden,
            }),
            formats,
            local: own_local.unwrap_or(LocalMemory::in_proportion(array)),
            memory: self.memory.0,
        })
    }

    /// The product asked for, or those of the file.
    ///
    /// # Errors
    /// If the file is wrong.
    pub(super) fn layers(&self) -> Result<Vec<Layer>, CliError> {
        if let Some(file) = &self.batch_file {
            let text = read_text(file, MOST_BYTES)?;
            return topology::parse(&file.display().to_string(), &text)
                .map_err(|errors| CliError::Input(errors.iter().map(ToString::to_string).collect()));
        }
        let (Some(m), Some(k), Some(n)) = (self.m, self.k, self.n) else {
            return Err(CliError::input("--m, --k and --n are needed"));
        };
        Ok(vec![Layer { line: 0, name: "gemm".to_owned(), m, k, n }])
    }

    /// Runs every product.
    ///
    /// # Errors
    /// If one has no answer.
    pub(super) fn outcomes(&self, study: &Study, layers: Vec<Layer>) -> Result<Vec<Ran>, CliError> {
        let mut rows = Vec::new();
        for Layer { line, name, m, k, n } in layers {
            let p = Product { m, k, n };
            let outcome = study.run(p).map_err(|e| {
                let place = match &self.batch_file {
                    Some(file) => format!("{}:{line}", file.display()),
                    None => format!("gemm {m}x{k}x{n}"),
                };
                CliError::input(format!("{place}: {e}"))
            })?;
            rows.push((name, p, outcome));
        }
        Ok(rows)
    }

    /// The document that `--json` prints: one object, or a list with a file.
    pub(super) fn json_of(&self, rows: &[Ran]) -> Value {
        if let (None, Some((_, _, outcome))) = (&self.batch_file, rows.first()) {
            return document(outcome);
        }
        let with_layer = |(layer, _, outcome): &Ran| {
            let mut value = document(outcome);
            value["layer"] = json!(layer);
            value
        };
        rows.iter().map(with_layer).collect()
    }

    fn run(&self, out: &mut dyn Write) -> Result<(), CliError> {
        let study = self.study()?;
        let rows = self.outcomes(&study, self.layers()?)?;
        if let Some(folder) = &self.reports {
            tables::write(folder, &study, &rows)?;
        }
        if self.json {
            return write_json(out, &self.json_of(&rows));
        }
        rows.iter().try_for_each(|(layer, _, outcome)| print(out, layer, outcome))
    }
}

fn document(o: &Outcome) -> Value {
    json!({
        "compute_cycles": o.compute_cycles,
        "total_cycles": o.total_cycles,
        "macs": o.macs,
        "utilisation": o.utilisation,
        "bound_by": o.bound_by.name(),
        "folds": o.folds,
        "memory_bytes": { "a": o.traffic[0], "b": o.traffic[1], "c": o.traffic[2] },
    })
}

fn print(out: &mut dyn Write, name: &str, o: &Outcome) -> Result<(), CliError> {
    writeln!(
        out,
        "{name}: {} cycles ({} computing), {} MACs, {:.1} % of peak, bound by {}",
        o.total_cycles,
        o.compute_cycles,
        o.macs,
        100.0 * o.utilisation,
        o.bound_by.name()
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn gemm(arguments: &str) -> Result<String, CliError> {
        let words = ["npu", "gemm"].into_iter().chain(arguments.split_whitespace());
        let cli = Cli::try_parse_from(words).map_err(|e| CliError::input(format!("usage: {e}")))?;
        let mut out = Vec::new();
        run(&cli.args, &mut out)?;
        Ok(String::from_utf8(out).expect("UTF-8"))
    }

    fn refused(arguments: &str) -> String {
        gemm(arguments).expect_err(arguments).to_string()
    }

    #[test]
    fn json_has_the_keys_and_numbers() {
        let text = gemm("--m 128 --k 128 --n 128 --rows 32 --weight-load exposed --json").expect("valid");
        let value: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["compute_cycles"], 3552, "SCALE-Sim prints 3551");
        assert_eq!(value["total_cycles"], 3552);
        assert_eq!(value["macs"], 128 * 128 * 128);
        let utilisation = value["utilisation"].as_f64().expect("a number");
        assert!((utilisation - 2048.0 / 3552.0).abs() < 1e-12);
        assert_eq!(value["bound_by"], "compute");
    }

    #[test]
    fn a_topology_gives_a_list_and_errors_name_their_line() {
        let folder = std::env::temp_dir().join(format!("presil-npu-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a temporary folder");
        let file = folder.join("topology.csv");
        let path = file.display();
        fs::write(&file, "Layer,M,N,K,\nfirst,128,64,32,\n\nsecond,1,2,3\n").expect("written");
        let text = gemm(&format!("--batch-file {path} --array gemmini --json")).expect("valid");
        let list: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(list.as_array().map(Vec::len), Some(2));
        assert_eq!((&list[0]["layer"], &list[0]["macs"]), (&json!("first"), &json!(128 * 64 * 32)));
        fs::write(&file, "Layer,M,N,K,\na,1,2,x,\nb,1,2\n").expect("written");
        let message = refused(&format!("--batch-file {path}"));
        assert!(message.contains("topology.csv:2:7: K: expected a whole number, found `x`"), "{message}");
        assert!(message.contains("topology.csv:3:5: expected Layer,M,N,K,, found 3 fields"), "{message}");
        fs::write(&file, "Layer,M,N,K,\na,1,0,1,\n").expect("written");
        assert!(refused(&format!("--batch-file {path}")).contains("topology.csv:2:5: N is 0"));
        fs::write(&file, "Layer,M,N,K,\n").expect("written");
        assert!(refused(&format!("--batch-file {path}")).contains("no layers"));
        fs::remove_dir_all(&folder).expect("removed");
        assert!(refused(&format!("--batch-file {path}")).contains("topology.csv: "));
    }

    #[test]
    fn bandwidths_are_exact_decimals() {
        let bandwidth = |text| memory(text).map(|m| m.0.map(|b| (b.bytes, b.cycles)));
        assert_eq!(bandwidth("ideal"), Ok(None));
        assert_eq!(bandwidth("76.8"), Ok(Some((768, 10))));
        assert_eq!(bandwidth(".5"), Ok(Some((5, 10))));
        assert_eq!(bandwidth("64"), Ok(Some((64, 1))));
        for wrong in ["", ".", "0", "0.0", "-1", "1e3", "inf", "NaN", "1.2.3", "99999999999999999999"] {
            assert!(bandwidth(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn wrong_sizes_and_modes_are_refused() {
        assert!(refused("--m 0 --k 1 --n 1").contains("M is 0; expected at least 1"));
        assert!(refused("--m 1 --k 1 --n 1 --rows 0").contains("rows is 0"));
        assert!(refused("--m 1 --k 1 --n 1 --gemv-width 0").contains("is 0"));
        assert!(refused("--m 1 --k 1").contains("--n"));
        assert!(refused("--m -1 --k 1 --n 1").contains("usage"));
        assert!(refused("--m 1 --k 1 --n 1 --array nosuch").contains("gemmini"));
        assert!(refused("--m 1 --k 1 --n 1 --array nosuch.toml").contains("nosuch.toml"));
        assert!(refused("--m 1 --k 1 --n 1 --array tinytpu --dataflow os").contains("weight-stationary"));
        let huge = "18446744073709551615";
        assert!(refused(&format!("--m {huge} --k {huge} --n {huge}")).contains("too large"));
    }
}

//! `presil npu`: the NPU alone. Matrix products on an array, the assembler, the disassembler.

mod words;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use npu_model::array::{Array, Product};
use npu_model::study::{Bandwidth, Dataflow, Design, Formats, LocalMemory, Outcome, Study, WeightLoad};
use serde_json::{Value, json};
use soc_model::config::resolve;

use super::write_json;
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
    #[command(after_help = "Example: presil npu gemm --m 128 --k 4096 --n 4096 --rows 32 --cols 32 --json")]
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

/// Whose array.
#[derive(Clone, Debug)]
enum ArrayChoice {
    Named(Design),
    File(String),
}

fn array(text: &str) -> Result<ArrayChoice, String> {
    Ok(ArrayChoice::Named(match text {
        "default" => Design::Default,
        "scalesim" => Design::ScaleSim,
        "gemmini" => Design::Gemmini,
        "tinytpu" => Design::TinyTpu,
        _ if text.ends_with(".toml") => return Ok(ArrayChoice::File(text.to_owned())),
        _ => {
            return Err(
                "expected default, scalesim, gemmini, tinytpu or a SoC file ending in .toml".to_owned()
            );
        }
    }))
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DataflowName {
    /// Weight-stationary
    Ws,
    /// Output-stationary
    Os,
    /// A stationary, B streams
    Gemv,
    /// GEMV where it is faster, else weight-stationary
    Auto,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum WeightLoadName {
    /// Every fold loads, streams and drains by itself
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

#[derive(clap::Args, Debug)]
struct Gemm {
    /// Rows of A and C
    #[arg(long, required_unless_present = "batch_file")]
    m: Option<u64>,
    /// Columns of A, rows of B
    #[arg(long, required_unless_present = "batch_file")]
    k: Option<u64>,
    /// Columns of B and C
    #[arg(long, required_unless_present = "batch_file")]
    n: Option<u64>,
    /// Products from a SCALE-Sim GEMM topology: a header line, then Layer,M,N,K,
    #[arg(long, value_name = "FILE.csv", conflicts_with_all = ["m", "k", "n"])]
    batch_file: Option<PathBuf>,
    /// Whose array: default (this project's core), scalesim (serial folds), gemmini or tinytpu (controller and mesh
    /// as measured on RTL), or a SoC file, whose NPU core it then is
    #[arg(long, default_value = "default", value_name = "NAME|FILE.toml", value_parser = array)]
    array: ArrayChoice,
    /// PE rows [default: the array's own: 64, 32, 16 or 14]
    #[arg(long)]
    rows: Option<u64>,
    /// PE columns [default: as many as rows]
    #[arg(long)]
    cols: Option<u64>,
    /// What stays in the array
    #[arg(long, default_value = "auto")]
    dataflow: DataflowName,
    /// Whether loading the stationary operand shows [default: exposed for scalesim, else hidden]
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

impl Gemm {
    fn study(&self) -> Result<Study, CliError> {
        let (design, own, own_gemv, own_local) = match &self.array {
            ArrayChoice::Named(design) => {
                let rows = match design {
                    Design::Default => 64,
                    Design::ScaleSim => 32,
                    Design::Gemmini => 16,
                    Design::TinyTpu => 14,
                };
                (*design, Array { rows, cols: rows }, 128, None)
            }
            ArrayChoice::File(file) => {
                let npu = resolve(file, &[])?.config.npu;
                let local =
                    LocalMemory { scratchpad: npu.scratchpad_bytes, accumulator: npu.accumulator_bytes };
                let array = Array { rows: npu.rows.into(), cols: npu.cols.into() };
                (Design::Default, array, npu.gemv_bytes_per_cycle.into(), Some(local))
            }
        };
        let array = match (self.rows, self.cols) {
            (None, None) => own,
            (Some(rows), None) => Array { rows, cols: rows },
            (rows, Some(cols)) => Array { rows: rows.unwrap_or(own.rows), cols },
        };
        let own_load = if design == Design::ScaleSim { WeightLoad::Exposed } else { WeightLoad::Hidden };
        let dataflow = match self.dataflow {
            DataflowName::Ws => Dataflow::WeightStationary,
            DataflowName::Os => Dataflow::OutputStationary,
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
            design,
            array,
            dataflow,
            weight_load: match self.weight_load {
                None => own_load,
                Some(WeightLoadName::Exposed) => WeightLoad::Exposed,
                Some(WeightLoadName::Hidden) => WeightLoad::Hidden,
            },
            formats,
            gemv_bytes_per_cycle: self.gemv_width.unwrap_or(own_gemv),
            local: own_local.unwrap_or(LocalMemory::in_proportion(array)),
            memory: self.memory.0,
        })
    }

    fn run(&self, out: &mut dyn Write) -> Result<(), CliError> {
        let study = self.study()?;
        let Some(file) = &self.batch_file else {
            let (Some(m), Some(k), Some(n)) = (self.m, self.k, self.n) else {
                return Err(CliError::input("--m, --k and --n are needed"));
            };
            let outcome = study
                .run(Product { m, k, n })
                .map_err(|e| CliError::input(format!("gemm {m}x{k}x{n}: {e}")))?;
            return if self.json {
                write_json(out, &document(&outcome))
            } else {
                print(out, "gemm", &outcome)
            };
        };
        let mut rows = Vec::new();
        for row in batch(file)? {
            let outcome = study
                .run(row.product)
                .map_err(|e| CliError::input(format!("{}:{}: {e}", file.display(), row.line)))?;
            rows.push((row.layer, outcome));
        }
        if self.json {
            let list: Vec<Value> = rows
                .iter()
                .map(|(layer, outcome)| {
                    let mut value = document(outcome);
                    value["layer"] = json!(layer);
                    value
                })
                .collect();
            return write_json(out, &list);
        }
        rows.iter().try_for_each(|(layer, outcome)| print(out, layer, outcome))
    }
}

fn document(o: &Outcome) -> Value {
    json!({
        "compute_cycles": o.compute_cycles,
        "total_cycles": o.total_cycles,
        "macs": o.macs,
        "utilisation": o.utilisation,
        "bound_by": o.bound_by.name(),
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

struct BatchRow {
    line: usize,
    layer: String,
    product: Product,
}

fn batch(path: &Path) -> Result<Vec<BatchRow>, CliError> {
    let text = fs::read_to_string(path).map_err(|e| CliError::input(format!("{}: {e}", path.display())))?;
    let mut rows = Vec::new();
    let mut problems = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if index == 0 || line.is_empty() {
            continue;
        }
        match batch_row(line) {
            Ok((layer, product)) => rows.push(BatchRow { line: index + 1, layer, product }),
            Err(message) => problems.push(format!("{}:{}: {message}", path.display(), index + 1)),
        }
    }
    if !problems.is_empty() {
        return Err(CliError::Input(problems));
    }
    if rows.is_empty() {
        return Err(CliError::input(format!(
            "{}: no layers; expected a header line, then Layer,M,N,K,",
            path.display()
        )));
    }
    Ok(rows)
}

fn batch_row(line: &str) -> Result<(String, Product), String> {
    let fields: Vec<&str> = line.trim_end_matches(',').split(',').map(str::trim).collect();
    let [layer, m, n, k] = fields[..] else {
        return Err(format!("expected Layer,M,N,K, found {} fields", fields.len()));
    };
    let number = |name: &str, text: &str| {
        text.parse::<u64>().map_err(|_| format!("{name}: expected a whole number, found `{text}`"))
    };
    Ok((layer.to_owned(), Product { m: number("M", m)?, k: number("K", k)?, n: number("N", n)? }))
}

#[cfg(test)]
mod tests {
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
        assert!(message.contains("topology.csv:2: K: expected a whole number, found `x`"), "{message}");
        assert!(message.contains("topology.csv:3: expected Layer,M,N,K, found 3 fields"), "{message}");
        fs::write(&file, "Layer,M,N,K,\na,1,0,1,\n").expect("written");
        assert!(refused(&format!("--batch-file {path}")).contains("topology.csv:2: N is 0"));
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

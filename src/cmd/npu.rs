//! `presil npu`: the NPU alone. Matrix products on an array, the assembler, the disassembler.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use isa::npu::Word;
use isa::npu::text::{assemble, disassemble_words};
use isa::npu::word::WORD_BYTES;
use npu_model::array::{Array, Product};
use npu_model::study::{Bandwidth, Dataflow, Design, Formats, Outcome, Study, WeightLoad};
use serde_json::{Value, json};

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
#[derive(Clone, Copy, Debug, ValueEnum)]
enum ArrayName {
    /// This project's core
    Default,
    /// SCALE-Sim's serial folds
    Scalesim,
    /// Gemmini's controller and mesh, as measured on RTL
    Gemmini,
    /// tinyTPU's core, as measured on RTL
    Tinytpu,
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
    /// Whose array
    #[arg(long, default_value = "default")]
    array: ArrayName,
    /// PE rows [default: the array's own, 64, 32, 16 or 14]
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
    /// Width of the GEMV path's weight stream, bytes per cycle
    #[arg(long, default_value_t = 128)]
    gemv_width: u64,
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
        What::Asm { file, output } => asm(file, output.as_deref(), out),
        What::Disasm { file } => disasm(file, out),
    }
}

impl Gemm {
    fn study(&self) -> Study {
        let (design, own_rows, own_load) = match self.array {
            ArrayName::Default => (Design::Default, 64, WeightLoad::Hidden),
            ArrayName::Scalesim => (Design::ScaleSim, 32, WeightLoad::Exposed),
            ArrayName::Gemmini => (Design::Gemmini, 16, WeightLoad::Hidden),
            ArrayName::Tinytpu => (Design::TinyTpu, 14, WeightLoad::Hidden),
        };
        let rows = self.rows.unwrap_or(own_rows);
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
        Study {
            design,
            array: Array { rows, cols: self.cols.unwrap_or(rows) },
            dataflow,
            weight_load: match self.weight_load {
                None => own_load,
                Some(WeightLoadName::Exposed) => WeightLoad::Exposed,
                Some(WeightLoadName::Hidden) => WeightLoad::Hidden,
            },
            formats,
            gemv_bytes_per_cycle: self.gemv_width,
            memory: self.memory.0,
        }
    }

    fn run(&self, out: &mut dyn Write) -> Result<(), CliError> {
        let study = self.study();
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

fn asm(file: &Path, output: Option<&Path>, out: &mut dyn Write) -> Result<(), CliError> {
    let text = fs::read_to_string(file).map_err(|e| CliError::input(format!("{}: {e}", file.display())))?;
    let words = assemble(&text)
        .map_err(|e| CliError::input(format!("{}:{}: {}", file.display(), e.line, e.message)))?;
    match output {
        Some(path) => {
            let bytes: Vec<u8> = words.iter().flat_map(Word::to_bytes).collect();
            fs::write(path, bytes).map_err(|e| CliError::input(format!("{}: {e}", path.display())))?;
        }
        None => {
            for w in &words {
                writeln!(out, "{:016x}{:016x}{:016x}{:016x}", w.0[3], w.0[2], w.0[1], w.0[0])?;
            }
        }
    }
    Ok(())
}

fn disasm(file: &Path, out: &mut dyn Write) -> Result<(), CliError> {
    let bytes = fs::read(file).map_err(|e| CliError::input(format!("{}: {e}", file.display())))?;
    let words = match std::str::from_utf8(&bytes) {
        Ok(text) if looks_hexadecimal(text) => hexadecimal(file, text)?,
        _ => binary(file, &bytes)?,
    };
    let lines = disassemble_words(&words)
        .map_err(|(index, e)| CliError::input(format!("{}: word {index}: {e}", file.display())))?;
    for line in lines {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// Text of hexadecimal digits and white space; no binary command starts like that.
fn looks_hexadecimal(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit() || b.is_ascii_whitespace())
}

fn hexadecimal(file: &Path, text: &str) -> Result<Vec<Word>, CliError> {
    let mut words = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let wrong = || {
            CliError::input(format!(
                "{}:{}: expected 64 hexadecimal digits, found {} characters",
                file.display(),
                index + 1,
                line.len()
            ))
        };
        if line.len() != 64 {
            return Err(wrong());
        }
        let mut word = Word::default();
        for (lane, digits) in word.0.iter_mut().rev().zip(line.as_bytes().chunks_exact(16)) {
            let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
            *lane = u64::from_str_radix(digits, 16).map_err(|_| wrong())?;
        }
        words.push(word);
    }
    Ok(words)
}

fn binary(file: &Path, bytes: &[u8]) -> Result<Vec<Word>, CliError> {
    let size = usize::try_from(WORD_BYTES).unwrap_or(32);
    let chunks = bytes.chunks_exact(size);
    if !chunks.remainder().is_empty() {
        return Err(CliError::input(format!(
            "{}: {} bytes is no whole number of {size}-byte words",
            file.display(),
            bytes.len()
        )));
    }
    Ok(chunks.filter_map(|c| c.try_into().ok()).map(Word::from_bytes).collect())
}

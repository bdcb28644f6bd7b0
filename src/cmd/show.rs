//! `presil show`: a SoC, model, memory standard or energy table with the source of each value.

use std::collections::BTreeMap;
use std::io::Write;

use clap::Subcommand;
use serde_json::{Value, json};
use soc_model::config::resolve;
use soc_model::power::{EnergyTable, energy_table_text};
use traces::workload::{ModelSpec, RopeScaling, load_model, model_names, model_preset};

use super::{dram, npu, write_json};
use crate::error::CliError;

/// Options of `presil show`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: presil show soc xring-o1 --set npu.cores=4")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// A SoC preset or file, resolved
    #[command(after_help = "Example: presil show soc xring-o1 --set npu.cores=4")]
    Soc {
        /// Preset name or TOML file
        name: String,
        /// Replace a value
        #[arg(long = "set", value_name = "PATH=VALUE")]
        sets: Vec<String>,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// A model preset or Hugging Face config.json
    #[command(after_help = "Example: presil show model mimo-7b")]
    Model {
        /// Preset name or config.json
        name: String,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// A memory standard or file: its timing rows
    #[command(after_help = "Example: presil show standard lpddr5x-9600")]
    Standard {
        /// Name or TOML file
        name: String,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// A matrix array of `npu gemm`: sizes and modes
    #[command(after_help = "Example: presil show array gemmini > mine.toml")]
    Array {
        /// Name or TOML file
        name: String,
    },
    /// An energy table
    #[command(after_help = "Example: presil show energy n3e")]
    Energy {
        /// Name of the table
        name: String,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
}

/// Prints what was asked for, as TOML or JSON.
///
/// # Errors
/// If there is no such thing or it is wrong.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<(), CliError> {
    match &args.what {
        What::Soc { name, sets, json } => {
            let resolved = resolve(name, sets)?;
            let hash = resolved.config.hash();
            if *json {
                return write_json(out, &json!({ "soc": resolved.config, "hash": hash }));
            }
            writeln!(out, "# hash {hash}")?;
            out.write_all(resolved.to_toml().as_bytes())?;
        }
        What::Model { name, json } => {
            let spec = load_model(name)?;
            if *json {
                return write_json(out, &json!({ "model": spec, "params": spec.params() }));
            }
            let source = if model_names().any(|preset| preset == name) {
                format!("preset {name}: {}", model_preset(name)?.source)
            } else {
                format!("{name}, with the defaults of its Hugging Face class")
            };
            write_model(out, &spec, &source)?;
        }
        What::Standard { name, json } => {
            let (standard, text) = dram::standard(name)?;
            if *json {
                let rows: BTreeMap<&str, u64> = standard.timings.rows().into_iter().collect();
                return write_json(
                    out,
                    &json!({
                        "name": standard.name,
                        "ck_hz": standard.ck.get(),
                        "channel_bytes": 1u64 << standard.channel_bits,
                        "channel_peak_bytes_per_s": standard.peak_bytes_per_s(),
                        "timing_ck": rows,
                    }),
                );
            }
            // The file itself: its rows carry their sources.
            out.write_all(text.as_bytes())?;
        }
        // The file itself: its values carry their sources.
        What::Array { name } => out.write_all(npu::array_file(name)?.as_bytes())?,
        What::Energy { name, json } => {
            let table = EnergyTable::preset(name)?;
            if *json {
                let document = json!({ "name": name, "row": table.rows(), "leakage": table.leakage_rows() });
                return write_json(out, &document);
            }
            // The file itself: its rows carry their sources and its comments the derivation.
            out.write_all(energy_table_text(name).unwrap_or_default().as_bytes())?;
        }
    }
    Ok(())
}

fn write_model(out: &mut dyn Write, spec: &ModelSpec, source: &str) -> Result<(), CliError> {
    writeln!(out, "# {} parameters", spec.params())?;
    let family = serde_json::to_value(spec.family).unwrap_or_default();
    let layout = serde_json::to_value(spec.rope.layout).unwrap_or_default();
    for (key, value) in [
        ("name", format!("{:?}", spec.name)),
        ("family", family.to_string()),
        ("hidden", spec.hidden.to_string()),
        ("layers", spec.layers.to_string()),
        ("heads", spec.heads.to_string()),
        ("kv-heads", spec.kv_heads.to_string()),
        ("head-dim", spec.head_dim.to_string()),
        ("ffn", spec.ffn.to_string()),
        ("vocab", spec.vocab.to_string()),
        ("norm-eps", format!("{:?}", spec.norm_eps)),
        ("qkv-bias", spec.qkv_bias.to_string()),
        ("qk-norm", spec.qk_norm.to_string()),
        ("rope-theta", format!("{:?}", spec.rope.theta)),
        ("rope-layout", layout.to_string()),
        ("rope-scaling", scaling(&spec.rope.scaling)),
        ("tied-embedding", spec.tied_embedding.to_string()),
        ("max-position", spec.max_position.to_string()),
    ] {
        let assignment = format!("{key} = {value}");
        writeln!(out, "{assignment:32} # {source}")?;
    }
    if !spec.extras.is_plain() {
        let extras = serde_json::to_value(&spec.extras).unwrap_or_default();
        write_extras(out, "extras", &extras, source)?;
    }
    Ok(())
}

/// What a model has beyond the plain block, as dotted keys; what it has not is left out.
fn write_extras(out: &mut dyn Write, key: &str, value: &Value, source: &str) -> Result<(), CliError> {
    match value {
        Value::Null | Value::Bool(false) => Ok(()),
        Value::Array(all) if all.is_empty() => Ok(()),
        Value::Object(inner) => {
            inner.iter().try_for_each(|(k, v)| write_extras(out, &format!("{key}.{k}"), v, source))
        }
        other => {
            let assignment = format!("{key} = {other}");
            Ok(writeln!(out, "{assignment:32} # {source}")?)
        }
    }
}

fn scaling(scaling: &RopeScaling) -> String {
    match scaling {
        RopeScaling::None => "\"none\"".to_owned(),
        RopeScaling::Linear { factor } => format!("{{ linear = {{ factor = {factor:?} }} }}"),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position } => format!(
            "{{ llama3 = {{ factor = {factor:?}, low-freq-factor = {low_freq_factor:?}, high-freq-factor = \
             {high_freq_factor:?}, original-max-position = {original_max_position} }} }}"
        ),
    }
}

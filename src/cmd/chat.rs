//! `presil chat`: a conversation with a model on the modelled phone.

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use soc_model::config::resolve;
use traces::model_file::ModelFile;
use traces::template::{ChatTemplate, Date, Role};
use traces::workload::QuantScheme;

use super::run::{MemoryModelName, tell_memory_model};
use super::speaker::Speaker;
use crate::error::CliError;
use crate::session::conversation::{Answer, Conversation};
use crate::session::pages::PageArgs;
use crate::session::sampling::{KvFormat, SamplingArgs};
use crate::session::{RunRequest, TextJob};

/// Positions the cache holds unless the option or the model says otherwise.
const DEFAULT_CONTEXT: u32 = 2048;
/// Longest line of a user.
const MOST_LINE: u64 = 1 << 20;

/// Options of `presil chat`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Every line of standard input is a message; the end of input ends the conversation.\n\nExample: \
                        presil chat --model FILE.gguf --soc xring-o1 --system \"Be brief.\"\n         echo \"What is \
                        gold?\" | presil chat --model FILE.gguf --temperature 0.7 --top-k 40 --seed 3"
)]
pub struct Args {
    /// GGUF file, or folder with config.json, safetensors and tokenizer.json; it must have a chat template
    #[arg(long, value_name = "FILE|DIR")]
    model: String,
    /// SoC preset or TOML file
    #[arg(long, default_value = "xring-o1", value_name = "NAME|FILE")]
    soc: String,
    /// What the model is told before the first message
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Most tokens of an answer
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    most: u32,
    /// Positions the cache of keys and values holds [default: 2048, or as many as the model takes]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    context: Option<u32>,
    /// Today, for templates that ask
    #[arg(long, value_name = "YYYY-MM-DD")]
    date: Option<String>,
    /// Quantisation scheme; of a GGUF file fp16 or w4a8-g32 [default: a GGUF file's own, fp16 of a folder]
    #[arg(long, value_name = "SCHEME")]
    quant: Option<String>,
    /// How keys and values are stored [default: as the scheme says, fp16]
    #[arg(long, value_name = "FORMAT")]
    kv: Option<KvFormat>,
    #[command(flatten)]
    pages: PageArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// How memory is timed [default: sampled where its error is proven, else burst]
    #[arg(long, value_name = "MODEL")]
    memory_model: Option<MemoryModelName>,
    /// Replace a value of the SoC, for example npu.cores=4
    #[arg(long = "set", value_name = "PATH=VALUE")]
    sets: Vec<String>,
    /// Firmware ELF to run instead of the built-in one
    #[arg(long, value_name = "ELF")]
    firmware: Option<PathBuf>,
    /// Seed of every random stream
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Print one JSON document at the end instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct TurnRecord {
    user: String,
    text: String,
    tokens: Vec<u32>,
    reused_tokens: u32,
    read_tokens: u32,
    ttft_s: f64,
    time_s: f64,
    energy_j: f64,
    decode_tok_per_s: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    kv: Option<reports::record::Kv>,
}

#[derive(Serialize)]
struct Record {
    schema: &'static str,
    model: String,
    quant: &'static str,
    soc: String,
    turns: Vec<TurnRecord>,
}

/// Simulated figures in the units people read.
struct Figures {
    ttft_s: f64,
    time_s: f64,
    energy_j: f64,
    rate: f64,
}

#[allow(clippy::cast_precision_loss, reason = "figures for people")]
fn figures(answer: &Answer) -> Figures {
    let seconds = |t: sim_kernel::Time| t.get() as f64 / sim_kernel::units::FS_PER_S as f64;
    let (first, total) = (seconds(answer.first), seconds(answer.total));
    let later = answer.tokens.len().saturating_sub(1) as f64;
    Figures {
        ttft_s: first,
        time_s: total,
        energy_j: answer.energy.get() as f64 * 1e-15,
        rate: if later > 0.0 { later / (total - first) } else { 0.0 },
    }
}

impl Args {
    /// Everything that is decided before the first message.
    fn open(&self) -> Result<(Conversation, ChatTemplate, RunRequest, TextJob), CliError> {
        let soc = resolve(&self.soc, &self.sets)?.config;
        if !ModelFile::is_one(&self.model) {
            return Err(CliError::input(format!(
                "--model: `{}` is no GGUF file and no folder with safetensors: a conversation needs weights",
                self.model
            )));
        }
        let file = ModelFile::open(&self.model)?;
        if file.spec().extras.encoder.is_some() {
            let name = &file.spec().name;
            return Err(CliError::input(format!(
                "--model: `{name}` is an encoder and says nothing\n  help: presil run --prompt TEXT"
            )));
        }
        let mut quant = match file.scheme(self.quant.as_deref())? {
            Some(quant) => quant,
            None => QuantScheme::named("fp16")?,
        };
        if let Some(kv) = self.kv {
            quant.kv = kv.tensor();
        }
        let date = match &self.date {
            None => None,
            Some(text) => Some(Date::parse(text).ok_or_else(|| {
                CliError::input(format!("--date: expected a day as 2026-11-22, found `{text}`"))
            })?),
        };
        let tokenizer = file.tokenizer()?;
        let Some(source) = file.chat_template()? else {
            return Err(CliError::input(format!(
                "{}: tokenizer.chat_template: is missing\n  help: presil run --prompt takes text as it is",
                self.model
            )));
        };
        let template = ChatTemplate::new(source, &self.model, tokenizer.begin_end(), date)?;
        let stop = tokenizer.ends().to_vec();
        if stop.is_empty() {
            return Err(CliError::input(format!("{}: no token is named that ends a turn", self.model)));
        }
        let model = file.spec().clone();
        let positions = self.context.unwrap_or_else(|| DEFAULT_CONTEXT.min(model.max_position));
        if positions > model.max_position {
            let most = model.max_position;
            return Err(CliError::input(format!("--context: {positions} positions, the model takes {most}")));
        }
        let text = TextJob {
            model: Arc::new(file),
            tokenizer: Arc::new(tokenizer),
            prompt: Vec::new(),
            forced: Vec::new(),
            stop,
        };
        tell_memory_model(self.memory_model, &soc);
        let memory_model = MemoryModelName::timing_for(self.memory_model, &soc);
        let request = RunRequest {
            soc,
            model,
            quant,
            prefill_tokens: 1,
            decode_tokens: 1,
            context_tokens: 0,
            memory_model,
            firmware: self.firmware.clone(),
            seed: self.seed,
            text: Some(text.clone()),
            ids: None,
            sampling: self.sampling.sampling(),
            pages: self.pages.choice(),
        };
        let conversation = Conversation::open(&request, positions)?;
        Ok((conversation, template, request, text))
    }
}

/// Talks until the input ends.
///
/// # Errors
/// If the input is wrong, the template refuses it, or the simulation ends early.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<(), CliError> {
    let (mut conversation, template, request, job) = args.open()?;
    let interactive = std::io::stdin().is_terminal() && !args.json;
    let mut input = std::io::stdin().lock();
    let mut messages: Vec<(Role, String)> = args.system.iter().map(|s| (Role::System, s.clone())).collect();
    let mut turns = Vec::new();
    loop {
        if interactive {
            write!(out, "> ")?;
            out.flush()?;
        }
        let Some(line) = line(&mut input)? else { break };
        if line.trim().is_empty() {
            continue;
        }
        messages.push((Role::User, line.clone()));
        let prompt = job.tokenizer.encode_as_is(&template.render(&messages)?)?;
        let mut silent = std::io::sink();
        let mut speaker = Speaker::new(&job.tokenizer, if args.json { &mut silent } else { &mut *out });
        let answered = conversation.turn(&prompt, args.most, &job.stop, &mut |tokens| speaker.hear(tokens));
        let answer = match answered {
            Ok(answer) => answer,
            // The turns before it are worth keeping.
            Err(error) => {
                if args.json {
                    super::write_json(out, &record(&request, turns))?;
                }
                return Err(error);
            }
        };
        speaker.finish()?;
        let said = match answer.tokens.split_last() {
            Some((last, rest)) if job.stop.contains(last) => job.tokenizer.decode_whole(rest),
            _ => job.tokenizer.decode_whole(&answer.tokens),
        };
        let figures = figures(&answer);
        if !args.json {
            writeln!(out, "\n[{}]\n", told(&answer, &figures))?;
            out.flush()?;
        }
        turns.push(TurnRecord {
            user: line,
            text: said.clone(),
            reused_tokens: answer.reused,
            read_tokens: answer.read,
            ttft_s: figures.ttft_s,
            time_s: figures.time_s,
            energy_j: figures.energy_j,
            decode_tok_per_s: figures.rate,
            kv: answer.kv.as_ref().map(reports::record::Kv::new),
            tokens: answer.tokens,
        });
        messages.push((Role::Assistant, said));
    }
    if args.json {
        super::write_json(out, &record(&request, turns))?;
    }
    Ok(())
}

/// The conversation as one document.
fn record(request: &RunRequest, turns: Vec<TurnRecord>) -> Record {
    Record {
        schema: "presil.chat/1",
        model: request.model.name.clone(),
        quant: request.quant.name,
        soc: request.soc.name.clone(),
        turns,
    }
}

/// A turn's figures in one line.
fn told(answer: &Answer, f: &Figures) -> String {
    format!(
        "{} tokens known, {} read in {:.1} ms, {} made at {:.1} tokens/s; {:.3} s and {:.3} J simulated",
        answer.reused,
        answer.read,
        f.ttft_s * 1e3,
        answer.tokens.len(),
        f.rate,
        f.time_s,
        f.energy_j
    )
}

/// The next line without its end; nothing at the end of input.
fn line(input: &mut dyn BufRead) -> Result<Option<String>, CliError> {
    let bad = |what: String| CliError::input(format!("standard input: {what}"));
    let mut bytes = Vec::new();
    let read = std::io::Read::take(&mut *input, MOST_LINE)
        .read_until(b'\n', &mut bytes)
        .map_err(|e| bad(format!("cannot be read: {e}")))?;
    if read == 0 {
        return Ok(None);
    }
    if read as u64 == MOST_LINE && bytes.last() != Some(&b'\n') {
        return Err(bad(format!("a line is longer than {MOST_LINE} bytes")));
    }
    let text = String::from_utf8(bytes)
        .map_err(|e| bad(format!("byte {} of a line is not UTF-8", e.utf8_error().valid_up_to())))?;
    Ok(Some(text.trim_end_matches(['\n', '\r']).to_owned()))
}

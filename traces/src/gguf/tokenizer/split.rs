//! How families with byte-level BPE split text before merging: a row each.
//!
//! Models: the steps of each family's `tokenizer.json`, in order; what a rule does not match stays whole between.
//! Does not model: rules that need code beyond a regular expression (AFMoE, Kimi K2).
//! Source: the `pre_tokenizer` and `normalizer` of the family's published `tokenizer.json`; names as converters to GGUF
//! write them.

use serde_json::{Value, json};

use super::Keys;
use crate::workload::{WorkloadError, unknown_name};

/// One step.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Every digit is a part of its own.
    EachDigit,
    /// Every match is a part of its own.
    Rule(&'static str),
}

/// How a family splits text before BPE.
#[derive(Debug)]
pub(super) struct PreTokenizer {
    /// Names in GGUF files.
    names: &'static [&'static str],
    /// Steps before bytes become letters.
    steps: &'static [Step],
    /// Whether text is brought into composed form first.
    pub(super) composed: bool,
    /// Whether a whole word that is a token is taken before merges are tried.
    pub(super) ignore_merges: bool,
    /// Whether texts begin with a token unless the file says otherwise.
    pub(super) begins: bool,
}

/// GPT-2: English contractions, words, numbers, the rest with the space before them.
const GPT_2: Step = Step::Rule(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+");
const LLAMA_3: Step = Step::Rule(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
const QWEN_2: Step = Step::Rule(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
/// Marks belong to words.
const QWEN_3_5: Step = Step::Rule(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
/// Words break where capitals begin.
const TEKKEN: Step = Step::Rule(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
const GPT_4O: Step = Step::Rule(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
const SEED_CODER: Step = Step::Rule(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+",
);
const LINE: Step = Step::Rule(r"[\r\n]");
/// Letters with two cases, without Armenian's small ones, as the file lists them.
const DEEPSEEK_WORDS: Step = Step::Rule(concat!(
    r"\s?[A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}\x{295}-\x{2AF}\x{370}-\x{373}",
    r"\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}\x{38E}-\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481}",
    r"\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}",
    r"\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}",
    r"\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}",
    r"\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}",
    r"\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}\x{212A}-\x{212D}",
    r"\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}",
    r"\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F}\x{A771}-\x{A787}\x{A78B}-\x{A78E}",
    r"\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}",
    r"\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}]+",
));
const DEEPSEEK_SIGNS: Step =
    Step::Rule(r"\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+");
/// Chinese, what lies below it, Korean.
const DEEPSEEK_EAST: Step = Step::Rule(r"[\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+");
const DEEPSEEK_3: Step = Step::Rule(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
);
/// Runs of anything but white space and marks that end sentences.
const BLOOM: Step = Step::Rule(r" ?[^(\s|.,!?…。，、।۔،)]+");

const fn row(names: &'static [&'static str], steps: &'static [Step]) -> PreTokenizer {
    PreTokenizer { names, steps, composed: false, ignore_merges: false, begins: false }
}

const fn composed(names: &'static [&'static str], steps: &'static [Step]) -> PreTokenizer {
    PreTokenizer { composed: true, ..row(names, steps) }
}

const PRE_TOKENIZERS: &[PreTokenizer] = &[
    row(&["gpt-2", "phi-2", "gigachat", "exaone4", "jais", "trillion"], &[GPT_2]),
    composed(&["mpt", "olmo"], &[GPT_2]),
    row(&["smollm", "starcoder", "refact", "codeshell", "exaone", "minerva-7b"], &[Step::EachDigit, GPT_2]),
    composed(&["command-r"], &[Step::EachDigit, GPT_2]),
    PreTokenizer {
        ignore_merges: true,
        begins: true,
        ..row(&["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral"], &[LLAMA_3])
    },
    row(&["dbrx", "smaug-bpe", "chatglm-bpe", "glm4"], &[LLAMA_3]),
    composed(&["qwen2", "deepseek-r1-qwen", "megrez", "stablelm2"], &[QWEN_2]),
    row(&["hunyuan"], &[QWEN_2]),
    composed(&["qwen35"], &[QWEN_3_5]),
    row(&["seed-coder"], &[SEED_CODER]),
    PreTokenizer { ignore_merges: true, begins: true, ..row(&["tekken"], &[TEKKEN]) },
    row(&["gpt-4o", "llama4"], &[GPT_4O]),
    row(
        &["falcon"],
        &[Step::Rule(r"[\p{P}$+<=>^~|`]+"), GPT_2, Step::Rule(r"\p{N}+"), Step::Rule("[0-9][0-9][0-9]")],
    ),
    row(
        &["deepseek-llm"],
        &[LINE, DEEPSEEK_WORDS, DEEPSEEK_SIGNS, Step::Rule(r"\s+$"), DEEPSEEK_EAST, Step::EachDigit],
    ),
    row(
        &["deepseek-coder"],
        &[LINE, Step::Rule(r"\s?\p{L}+"), Step::Rule(r"\s?\p{P}+"), DEEPSEEK_EAST, Step::EachDigit],
    ),
    row(
        &["deepseek-v3"],
        &[
            Step::Rule(r"\p{N}{1,3}"),
            Step::Rule(r"[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+"),
            DEEPSEEK_3,
        ],
    ),
    row(&["bloom", "poro-chat", "gpt3-finnish"], &[BLOOM]),
    row(&["viking"], &[BLOOM, Step::EachDigit]),
];

impl PreTokenizer {
    /// The steps as the library wants them.
    pub(super) fn steps(&self) -> Value {
        let mut steps: Vec<Value> = self.steps.iter().map(Step::described).collect();
        steps.push(json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false,
        }));
        json!({"type": "Sequence", "pretokenizers": steps})
    }
}

impl Step {
    fn described(&self) -> Value {
        match self {
            Self::EachDigit => json!({"type": "Digits", "individual_digits": true}),
            Self::Rule(rule) => {
                json!({"type": "Split", "pattern": {"Regex": rule}, "behavior": "Isolated", "invert": false})
            }
        }
    }
}

/// All names.
pub(super) fn names() -> Vec<&'static str> {
    PRE_TOKENIZERS.iter().flat_map(|row| row.names).copied().collect()
}

/// The row the file names.
pub(super) fn named(keys: &Keys<'_>) -> Result<&'static PreTokenizer, WorkloadError> {
    let key = "tokenizer.ggml.pre";
    let name = keys.text(key)?;
    let found = PRE_TOKENIZERS.iter().find(|row| row.names.contains(&name));
    found.ok_or_else(|| {
        let place = format!("{}: {key}", keys.contents.place_of(keys.place, key));
        unknown_name(&place, "pre-tokenizer", name, &names())
    })
}

//! Merging by score.

use sim_kernel::Stream;

use super::super::super::reader::Value;
use super::{Words, below, described, id_of, read, strung};

const NORMAL: u64 = 1;
const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;
const USER: u64 = 4;
const UNUSED: u64 = 5;
const BYTE: u64 = 6;

/// What merging leaves: a text, and what it was made of.
#[derive(Clone)]
struct Tree(String, Vec<Tree>);

/// The published procedure, word by word and slowly.
struct Naive<'a> {
    words: &'a Words,
    prefix: bool,
    squeeze: bool,
}

impl Naive<'_> {
    fn piece(&self, text: &str) -> Option<&(String, f32, u64)> {
        self.words.iter().find(|w| w.0 == text && [NORMAL, UNUSED, USER].contains(&w.2))
    }

    fn mark(&self, text: &str) -> Option<(u32, usize)> {
        let marks = self.words.iter().filter(|w| [CONTROL, USER, UNKNOWN].contains(&w.2));
        let spelled = marks.map(|w| (w, w.0.replace('▁', " ")));
        let found = spelled.filter(|(_, spelled)| text.starts_with(spelled.as_str()));
        let (word, spelled) = found.max_by_key(|(_, spelled)| spelled.len())?;
        Some((id_of(self.words, &word.0)?, spelled.len()))
    }

    fn encode(&self, text: &str) -> Vec<u32> {
        let (mut ids, mut stretch, mut rest, mut fresh) = (Vec::new(), String::new(), text, true);
        loop {
            let mark = self.mark(rest);
            if mark.is_some() || rest.is_empty() {
                if !stretch.is_empty() {
                    self.stretch(&stretch, fresh, &mut ids);
                    stretch.clear();
                }
                let Some((id, length)) = mark else { return ids };
                ids.push(id);
                fresh = true;
                rest = &rest[length..];
                continue;
            }
            let mut letters = rest.chars();
            stretch.extend(letters.next());
            rest = letters.as_str();
        }
    }

    fn stretch(&self, text: &str, fresh: bool, ids: &mut Vec<u32>) {
        let mut text = text.to_owned();
        if self.squeeze {
            while text.contains("  ") {
                text = text.replace("  ", " ");
            }
            text = text.trim_matches(' ').to_owned();
        }
        if self.prefix && fresh && !text.is_empty() {
            text.insert(0, ' ');
        }
        let mut trees: Vec<Tree> =
            text.replace(' ', "▁").chars().map(|c| Tree(c.to_string(), Vec::new())).collect();
        loop {
            let mut best: Option<(usize, f32)> = None;
            for i in 1..trees.len() {
                let both = format!("{}{}", trees[i - 1].0, trees[i].0);
                let score = self.piece(&both).map(|w| w.1);
                if let Some(score) = score.filter(|s| best.is_none_or(|(_, b)| *s > b)) {
                    best = Some((i, score));
                }
            }
            let Some((i, _)) = best else { break };
            let right = trees.remove(i);
            let left = trees[i - 1].clone();
            trees[i - 1] = Tree(format!("{}{}", left.0, right.0), vec![left, right]);
        }
        let mut flat = Vec::new();
        trees.iter().for_each(|t| self.flatten(t, &mut flat));
        let mut unknown = false;
        for text in flat {
            let known = self.piece(&text).and_then(|w| id_of(self.words, &w.0));
            let bytes: Option<Vec<u32>> =
                text.bytes().map(|b| id_of(self.words, &format!("<0x{b:02X}>"))).collect();
            match (known, bytes) {
                (Some(id), _) => ids.push(id),
                (None, Some(bytes)) => ids.extend(bytes),
                (None, None) if unknown => {}
                (None, None) => ids.extend(id_of(self.words, "<unk>")),
            }
            unknown = known.is_none();
        }
    }

    fn flatten(&self, tree: &Tree, out: &mut Vec<String>) {
        let unused = self.piece(&tree.0).is_some_and(|w| w.2 == UNUSED);
        if unused && !tree.1.is_empty() {
            tree.1.iter().for_each(|t| self.flatten(t, out));
        } else {
            out.push(tree.0.clone());
        }
    }
}

const LETTERS: [&str; 8] = ["a", "b", "c", "é", "日", "▁", "🙂", "\n"];

/// A vocabulary in which many scores are equal and some letters are missing.
fn vocabulary(random: &mut Stream, bytes: bool) -> Words {
    let mut words: Words = vec![
        ("<unk>".to_owned(), 0.0, UNKNOWN),
        ("<s>".to_owned(), 0.0, CONTROL),
        ("</s>".to_owned(), 0.0, CONTROL),
        ("<s>a".to_owned(), 0.0, USER),
        ("▁▁▁".to_owned(), 0.0, USER),
        ("日ab".to_owned(), 0.0, USER),
    ];
    if bytes {
        words.extend((0..=255).map(|b: u8| (format!("<0x{b:02X}>"), 0.0, BYTE)));
    }
    let scores = 1 + below(random, 12);
    for _ in 0..20 + below(random, 120) {
        let text = strung(random, &LETTERS, 5);
        let score =
            [0.5, -0.5][below(random, 2)] * f32::from(u8::try_from(below(random, scores)).expect("few"));
        let kind = if below(random, 8) == 0 { UNUSED } else { NORMAL };
        if !text.is_empty() && id_of(&words, &text).is_none() {
            words.push((text, score, kind));
        }
    }
    words
}

#[test]
fn random_texts_over_random_vocabularies_are_merged_as_published() {
    let mut random = Stream::new(11, "tests", "pieces");
    let spoken =
        [&LETTERS[..], &[" ", " ", "  ", "x", "<s>", "</s>", "<unk>", "<", "ab", "日a", "  日"]].concat();
    for case in 0..60 {
        let (bytes, prefix, squeeze) = (case % 2 == 0, case % 3 != 0, case % 5 == 0);
        let words = vocabulary(&mut random, bytes);
        let more = vec![
            ("add_space_prefix", Value::Bool(prefix)),
            ("remove_extra_whitespaces", Value::Bool(squeeze)),
            ("add_bos_token", Value::Bool(false)),
        ];
        let tokenizer = read(&described("llama", &words, more)).expect("a vocabulary");
        let naive = Naive { words: &words, prefix, squeeze };
        for _ in 0..120 {
            let text = strung(&mut random, &spoken, 30);
            let (ours, theirs) = (tokenizer.encode(&text).expect("a text"), naive.encode(&text));
            assert_eq!(ours, theirs, "case {case}: {text:?} {words:?}");
            // Nothing is lost where every character has a piece or bytes, and the space a piece.
            let lossless = bytes
                && id_of(&words, "▁").is_some()
                && !squeeze
                && !["<", "▁"].iter().any(|m| text.contains(m));
            if lossless && !text.contains("   ") && !text.contains("日ab") {
                assert_eq!(tokenizer.decode_whole(&ours), text, "case {case}");
            }
        }
    }
}

/// A small vocabulary of the usual make.
fn usual() -> Words {
    let mut words: Words = vec![
        ("<unk>".to_owned(), 0.0, UNKNOWN),
        ("<s>".to_owned(), 0.0, CONTROL),
        ("</s>".to_owned(), 0.0, CONTROL),
    ];
    words.extend((0..=255).map(|b: u8| (format!("<0x{b:02X}>"), 0.0, BYTE)));
    let pieces = ["▁t", "he", "▁the", "er", "▁a", "an", "▁", "e", "t", "h", "a", "r", "n"];
    words.extend(pieces.into_iter().zip(0u8..).map(|(p, i)| (p.to_owned(), -f32::from(i), NORMAL)));
    words.push(("<|user|>".to_owned(), 0.0, CONTROL));
    words
}

fn spelled(words: &Words, ids: &[u32]) -> Vec<String> {
    ids.iter().map(|i| words[usize::try_from(*i).expect("few")].0.clone()).collect()
}

#[test]
fn texts_begin_and_end_as_the_file_says() {
    let words = usual();
    let around = |more: Vec<(&'static str, Value)>| {
        let ids = [("bos_token_id", Value::Unsigned(1)), ("eos_token_id", Value::Unsigned(2))];
        let tokenizer = read(&described("llama", &words, ids.into_iter().chain(more).collect()));
        spelled(&words, &tokenizer.expect("a vocabulary").encode("the ant\u{e9}</s>the").expect("a text"))
    };
    let inner = ["▁the", "▁a", "n", "t", "<0xC3>", "<0xA9>", "</s>"];
    assert_eq!(around(vec![]), [&["<s>"], &inner[..], &["▁the"]].concat());
    let both = vec![("add_bos_token", Value::Bool(false)), ("add_eos_token", Value::Bool(true))];
    assert_eq!(around(both), [&inner[..], &["▁the", "</s>"]].concat());
    let bare = vec![("add_space_prefix", Value::Bool(false))];
    assert_eq!(around(bare), ["<s>", "t", "he", "▁a", "n", "t", "<0xC3>", "<0xA9>", "</s>", "t", "he"]);
    // Phi 3's tokens swallow what is white behind them, others' do not.
    let text = "<|user|>\n the</s>\n";
    for (name, expected) in [
        ("Phi-3 Mini", &["<|user|>", "▁the", "</s>"][..]),
        ("Other", &["<|user|>", "▁", "<0x0A>", "▁the", "</s>", "▁", "<0x0A>"]),
    ] {
        let mut described = described("llama", &words, vec![("add_bos_token", Value::Bool(false))]);
        described.metadata.insert("general.name".to_owned(), Value::Text(name.to_owned()));
        let ids = read(&described).expect("a vocabulary").encode(text).expect("a text");
        assert_eq!(spelled(&words, &ids), expected, "{name}");
    }
}

#[test]
fn bytes_stream_and_whole_texts_lose_the_space_before_them() {
    let words = usual();
    let more = vec![("add_bos_token", Value::Bool(false))];
    let tokenizer = read(&described("llama", &words, more)).expect("a vocabulary");
    let ids = tokenizer.encode(" the ant\u{e9}").expect("a text");
    assert_eq!(spelled(&words, &ids)[..2], ["▁", "▁the"]);
    assert_eq!(
        (tokenizer.decode(&ids).as_str(), tokenizer.decode_whole(&ids).as_str()),
        ("  the anté", " the anté")
    );
    let bytes: Vec<&[u8]> = ids.iter().map(|id| tokenizer.bytes(*id)).collect();
    assert_eq!(bytes[bytes.len() - 2..], [&[0xC3][..], &[0xA9]]);
    assert!(tokenizer.bytes(1).is_empty() && tokenizer.bytes(0).is_empty());
    let again = tokenizer.encode("the</s>the").expect("a text");
    assert_eq!(tokenizer.decode_whole(&again), "thethe");
}

#[test]
fn vocabularies_that_contradict_themselves_name_the_key() {
    let words = usual();
    let change = |key: &str, value: Option<Value>| {
        let mut described = described("llama", &words, vec![("bos_token_id", Value::Unsigned(1))]);
        let key = format!("tokenizer.ggml.{key}");
        match value {
            Some(value) => described.metadata.insert(key, value),
            None => described.metadata.remove(&key),
        };
        read(&described).expect_err("a contradiction")
    };
    let few = Value::Array(vec![Value::Float(0.0); 3]);
    let wrong = Value::Array(vec![Value::Float(f64::NAN); words.len()]);
    for (key, value, part) in [
        ("scores", None, "scores: expected a list of numbers"),
        ("scores", Some(few), "scores: 3 scores for 273 tokens"),
        ("scores", Some(wrong), "scores: expected a list of numbers"),
        ("bos_token_id", None, "bos_token_id: is missing, but every text is to start with it"),
        ("bos_token_id", Some(Value::Unsigned(999)), "expected a token below 273"),
        ("add_space_prefix", Some(Value::Unsigned(1)), "add_space_prefix: expected true or false"),
        (
            "token_type",
            Some(Value::Array(vec![Value::Unsigned(BYTE); words.len()])),
            "is a byte, but named `<unk>`",
        ),
        ("token_type", None, "has neither tokens of all bytes nor one for what is unknown"),
    ] {
        let error = change(key, value);
        assert!(error.contains(part), "{key}: {error}");
    }
    let mut twice = usual();
    twice.push(("he".to_owned(), 0.0, NORMAL));
    let error = read(&described("llama", &twice, vec![])).expect_err("twice");
    assert!(error.contains("token 273 `he` is there twice"), "{error}");
}

#[test]
fn a_long_text_of_one_letter_is_merged_in_time_and_without_recursion() {
    // All pairs tie; unused pieces of every length are taken apart again.
    let mut words: Words = vec![("<unk>".to_owned(), 0.0, UNKNOWN)];
    words.extend((1..200).map(|n| ("a".repeat(n), 0.0, if n > 1 { UNUSED } else { NORMAL })));
    let more = vec![("add_bos_token", Value::Bool(false)), ("add_space_prefix", Value::Bool(false))];
    let tokenizer = read(&described("llama", &words, more)).expect("a vocabulary");
    let ids = tokenizer.encode(&"a".repeat(20_000)).expect("a text");
    assert!(ids.len() == 20_000 && ids.iter().all(|id| *id == 1));
}

//! WordPiece.

use sim_kernel::Stream;

use super::super::super::reader::Value;
use super::{Words, below, described, id_of, read, strung};

/// Characters, what each becomes in lower case without accents, and whether it stands alone.
const LETTERS: [(&str, &str, bool); 16] = [
    ("a", "a", false),
    ("B", "b", false),
    ("c", "c", false),
    ("é", "e", false),
    ("Ñ", "n", false),
    ("e\u{301}", "e", false),
    ("Ω", "ω", false),
    ("日", "日", true),
    ("!", "!", true),
    ("-", "-", true),
    ("¿", "¿", true),
    ("\u{0}", "", false),
    ("\u{AD}", "", false),
    (" ", " ", false),
    ("\t", " ", false),
    ("\u{A0}", " ", false),
];
const PIECES: [&str; 9] = ["a", "b", "c", "e", "n", "ω", "日", "!", "-"];
const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

fn vocabulary(random: &mut Stream) -> Words {
    let mut words: Words = SPECIAL.map(|s| (s.to_owned(), 0.0, 3)).to_vec();
    for _ in 0..10 + below(random, 60) {
        let start = if below(random, 2) == 0 { "▁" } else { "" };
        let text = format!("{start}{}", strung(random, &PIECES, 3));
        if !text.trim_start_matches('▁').is_empty() && id_of(&words, &text).is_none() {
            words.push((text, 0.0, 1));
        }
    }
    words
}

/// The longest token that begins what is left, again and again; a word that has none is unknown as a whole.
fn naive(words: &Words, letters: &[usize]) -> Vec<u32> {
    let mut split: Vec<String> = vec![String::new()];
    for letter in letters {
        let (_, plain, alone) = LETTERS[*letter];
        match (plain, alone) {
            (" ", _) => split.push(String::new()),
            (_, true) => split.extend([plain.to_owned(), String::new()]),
            _ => split.last_mut().expect("a word").push_str(plain),
        }
    }
    let mut ids = Vec::new();
    for word in split.iter().filter(|word| !word.is_empty()) {
        let (mut rest, mut found) = (word.as_str(), Some(Vec::new()));
        while !rest.is_empty() {
            let start = if rest.len() == word.len() { "▁" } else { "" };
            let fits = |w: &&(String, f32, u64)| {
                let text = if start.is_empty() {
                    Some(w.0.as_str()).filter(|t| !t.starts_with('▁'))
                } else {
                    w.0.strip_prefix('▁')
                };
                w.2 == 1 && text.is_some_and(|t| rest.starts_with(t))
            };
            let longest = words.iter().filter(fits).max_by_key(|w| w.0.len());
            match longest {
                Some(w) => {
                    found.iter_mut().for_each(|ids| ids.extend(id_of(words, &w.0)));
                    rest = &rest[w.0.trim_start_matches('▁').len()..];
                }
                None => (rest, found) = ("", None),
            }
        }
        let long = word.chars().count() > 100;
        ids.extend(found.filter(|_| !long).unwrap_or_else(|| vec![1]));
    }
    ids
}

#[test]
fn random_texts_are_the_longest_matches() {
    let mut random = Stream::new(5, "tests", "words");
    for case in 0..60 {
        let words = vocabulary(&mut random);
        let tokenizer = read(&described("bert", &words, vec![])).expect("a vocabulary");
        for _ in 0..80 {
            let letters: Vec<usize> =
                (0..below(&mut random, 24)).map(|_| below(&mut random, LETTERS.len())).collect();
            let text: String = letters.iter().map(|l| LETTERS[*l].0).collect();
            let expected = [&[2][..], &naive(&words, &letters), &[3]].concat();
            assert_eq!(tokenizer.encode(&text).expect("a text"), expected, "case {case}: {text:?} {words:?}");
        }
    }
}

#[test]
fn special_tokens_long_words_and_case() {
    let mut words: Words = SPECIAL.map(|s| (s.to_owned(), 0.0, 3)).to_vec();
    words.extend(["▁he", "llo", "▁He", "y", "▁a", "a", "▁é"].map(|w| (w.to_owned(), 0.0, 1)));
    let ids = |text: &str, more: Vec<(&'static str, Value)>| {
        let tokenizer = read(&described("bert", &words, more)).expect("a vocabulary");
        let ids = tokenizer.encode(text).expect("a text");
        ids.iter().map(|i| words[usize::try_from(*i).expect("few")].0.clone()).collect::<Vec<_>>()
    };
    assert_eq!(ids("Hello[MASK] hey", vec![]), ["[CLS]", "▁he", "llo", "[MASK]", "▁he", "y", "[SEP]"]);
    let cased = || vec![("normalizer.lowercase", Value::Bool(false))];
    assert_eq!(ids("Hey é", cased()), ["[CLS]", "▁He", "y", "▁é", "[SEP]"]);
    assert_eq!(ids("Hey é", vec![]), ["[CLS]", "▁he", "y", "[UNK]", "[SEP]"]);
    let fits = format!("{} {}", "a".repeat(100), "a".repeat(101));
    let found = ids(&fits, vec![]);
    assert_eq!((found.len(), found[1].as_str(), found[101].as_str()), (103, "▁a", "[UNK]"));
    // Ids by key win over names.
    let other = vec![("cls_token_id", Value::Unsigned(4)), ("seperator_token_id", Value::Unsigned(0))];
    assert_eq!(ids("", other), ["[MASK]", "[PAD]"]);
    let error = read(&described("bert", &words[2..].to_vec(), vec![])).expect_err("nothing for the unknown");
    assert!(error.contains("unknown_token_id: is missing"), "{error}");
}

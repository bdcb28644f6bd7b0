//! Tokenizers: text to token ids and back.
//!
//! Models: what the `tokenizers` library computes, bytes of single tokens so that text can stream, tokens that end a
//! turn. Does not model: chat templates.
//! Source: each file's own description of its tokenizer.

mod json;

use crate::workload::{WorkloadError, WorkloadProblem};

pub(crate) use json::from_json;

/// How every text starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// As it is.
    Nothing,
    /// With this token.
    Token(u32),
    /// As the library's post-processor has it.
    Library,
}

/// A tokenizer.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// Bytes of every token.
    pieces: Vec<Vec<u8>>,
    start: Start,
    ends: Vec<u32>,
    begin_end: [String; 2],
}

impl Tokenizer {
    pub(crate) fn new(
        inner: tokenizers::Tokenizer,
        pieces: Vec<Vec<u8>>,
        start: Start,
        ends: impl Iterator<Item = u32>,
        begin_end: [String; 2],
    ) -> Self {
        let mut ends: Vec<u32> = ends.collect();
        ends.sort_unstable();
        ends.dedup();
        Self { inner, pieces, start, ends, begin_end }
    }

    fn ids(&self, text: &str, special: bool) -> Result<Vec<u32>, WorkloadError> {
        let encoded = self
            .inner
            .encode_fast(text, special)
            .map_err(|e| WorkloadProblem::new("prompt", "", format!("cannot be tokenised: {e}")))?;
        Ok(encoded.get_ids().to_vec())
    }

    /// Ids of a text, special tokens in it recognised; a beginning only if the file asks for one.
    ///
    /// # Errors
    /// If the library refuses the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, WorkloadError> {
        match self.start {
            Start::Nothing => self.ids(text, false),
            Start::Library => self.ids(text, true),
            Start::Token(id) => Ok([vec![id], self.ids(text, false)?].concat()),
        }
    }

    /// Ids of a text as it is: what a chat template wrote has its beginning already.
    ///
    /// # Errors
    /// If the library refuses the text.
    pub fn encode_as_is(&self, text: &str) -> Result<Vec<u32>, WorkloadError> {
        self.ids(text, false)
    }

    /// Bytes a token stands for; none for control tokens. A character may be spread over several tokens.
    #[must_use]
    pub fn bytes(&self, token: u32) -> &[u8] {
        usize::try_from(token).ok().and_then(|i| self.pieces.get(i)).map_or(&[], Vec::as_slice)
    }

    /// Text of tokens; bytes that are no UTF-8 are replaced.
    #[must_use]
    pub fn decode(&self, tokens: &[u32]) -> String {
        let bytes: Vec<u8> = tokens.iter().flat_map(|t| self.bytes(*t)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Tokens that end a text or a turn, in order.
    #[must_use]
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// Names of the tokens that begin and end a text, empty where there is none.
    #[must_use]
    pub const fn begin_end(&self) -> &[String; 2] {
        &self.begin_end
    }
}

/// The byte a character of a byte-level token stands for: printable ones themselves, the rest from 256 on.
pub(crate) fn byte_of(c: char) -> Option<u8> {
    let own = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let code = u32::from(c);
    if let Ok(b) = u8::try_from(code) {
        return own(b).then_some(b);
    }
    let rank = usize::try_from(code - 256).ok()?;
    (0..=255).filter(|b| !own(*b)).nth(rank)
}

//! Tokenizers: text to token ids and back.
//!
//! Models: what the `tokenizers` library computes, SentencePiece's merging by score, bytes of single tokens so that text
//! can stream, tokens that end a turn. Does not model: chat templates.
//! Source: each file's own description of its tokenizer.

mod json;
mod pieces;

use crate::workload::{WorkloadError, WorkloadProblem};

pub(crate) use json::from_json;
pub(crate) use pieces::{Marks, Piece, Pieces, SPACE, rank};

/// What stands around every text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A token before it and one behind it, if any.
    Tokens([Option<u32>; 2]),
    /// What the library's post-processor puts there.
    Library,
}

/// Who makes ids of text.
#[derive(Clone, Debug)]
pub(crate) enum Engine {
    /// The library.
    Library(Box<tokenizers::Tokenizer>),
    /// Merging by score.
    Pieces(Box<Pieces>),
}

/// A tokenizer.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    engine: Engine,
    /// Bytes of every token.
    pieces: Vec<Vec<u8>>,
    frame: Frame,
    ends: Vec<u32>,
    begin_end: [String; 2],
}

impl Tokenizer {
    pub(crate) fn new(
        engine: Engine,
        pieces: Vec<Vec<u8>>,
        frame: Frame,
        ends: impl Iterator<Item = u32>,
        begin_end: [String; 2],
    ) -> Self {
        let mut ends: Vec<u32> = ends.collect();
        ends.sort_unstable();
        ends.dedup();
        Self { engine, pieces, frame, ends, begin_end }
    }

    fn ids(&self, text: &str, special: bool) -> Result<Vec<u32>, WorkloadError> {
        let library = match &self.engine {
            Engine::Pieces(pieces) => return Ok(pieces.encode(text)),
            Engine::Library(library) => library,
        };
        let encoded = library
            .encode_fast(text, special)
            .map_err(|e| WorkloadProblem::new("prompt", "", format!("cannot be tokenised: {e}")))?;
        Ok(encoded.get_ids().to_vec())
    }

    /// Ids of a text, special tokens in it recognised; a beginning and an end only if the file asks for them.
    ///
    /// # Errors
    /// If the library refuses the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, WorkloadError> {
        let Frame::Tokens([before, after]) = self.frame else { return self.ids(text, true) };
        let inner = self.ids(text, false)?;
        Ok(before.into_iter().chain(inner).chain(after).collect())
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

    /// Text of tokens that go on a text; bytes that are no UTF-8 are replaced.
    #[must_use]
    pub fn decode(&self, tokens: &[u32]) -> String {
        let bytes: Vec<u8> = tokens.iter().flat_map(|t| self.bytes(*t)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Text of tokens that are a whole text: without the space that encoding puts before it, and before what follows a
    /// special token.
    #[must_use]
    pub fn decode_whole(&self, tokens: &[u32]) -> String {
        let Engine::Pieces(pieces) = &self.engine else { return self.decode(tokens) };
        let (mut bytes, mut fresh) = (Vec::new(), pieces.prefix);
        for token in tokens {
            let piece = self.bytes(*token);
            bytes.extend(piece.strip_prefix(b" ").filter(|_| fresh).unwrap_or(piece));
            // A control token has no bytes.
            fresh = pieces.prefix && (piece.is_empty() || pieces.marks.has(*token));
        }
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

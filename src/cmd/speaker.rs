//! Text written as its tokens arrive.

use std::io::{self, Write};

use sim_kernel::Time;
use traces::tokenizer::Tokenizer;

/// Writes the text of tokens; a character whose last bytes are still to come waits.
pub(super) struct Speaker<'a> {
    tokenizer: &'a Tokenizer,
    out: &'a mut dyn Write,
    bytes: Vec<u8>,
    known: usize,
    failed: Option<io::Error>,
}

impl<'a> Speaker<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer, out: &'a mut dyn Write) -> Self {
        Self { tokenizer, out, bytes: Vec::new(), known: 0, failed: None }
    }

    /// Hears of all tokens there are.
    pub(super) fn hear(&mut self, tokens: &[(u32, Time)]) {
        self.bytes.extend(tokens[self.known..].iter().flat_map(|t| self.tokenizer.bytes(t.0)));
        self.known = tokens.len();
        let whole = match std::str::from_utf8(&self.bytes) {
            Err(e) if e.error_len().is_none() => e.valid_up_to(),
            _ => self.bytes.len(),
        };
        let text: Vec<u8> = self.bytes.drain(..whole).collect();
        self.write(&text);
    }

    fn write(&mut self, text: &[u8]) {
        let text = String::from_utf8_lossy(text);
        let written = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
        self.failed = self.failed.take().or(written.err());
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// The first thing that could not be written.
    pub(super) fn finish(mut self) -> io::Result<()> {
        let rest = std::mem::take(&mut self.bytes);
        self.write(&rest);
        self.failed.map_or(Ok(()), Err)
    }
}

//! Writing commands: where words go, and the header of a command.

use isa::npu::{Command, Ctrl, CtrlOp, Header, Word};

/// Takes the words of a list.
pub trait Sink {
    /// Stores `word` as the arena's entry `index` (32 bytes each).
    fn put(&mut self, index: u64, word: &Word);

    /// The same for a word that is no command.
    fn put_data(&mut self, index: u64, word: &Word) {
        self.put(index, word);
    }
}

/// Appends commands to a list.
pub struct Emitter<'a, S: Sink> {
    sink: &'a mut S,
    at: u64,
}

/// A semaphore and an amount.
pub type Sem = (u64, u64);

/// Header with at most two acquires and two posts.
///
/// # Panics
/// If more are asked for: the command word has room for two of each.
#[must_use]
pub fn header(acquire: &[Sem], post: &[Sem]) -> Header {
    assert!(acquire.len() <= 2 && post.len() <= 2, "a command has two acquires and two posts");
    let at = |s: &[Sem], i: usize| s.get(i).copied().unwrap_or((0, 0));
    let ((w0_id, w0_n), (w1_id, w1_n)) = (at(acquire, 0), at(acquire, 1));
    let ((s0_id, s0_n), (s1_id, s1_n)) = (at(post, 0), at(post, 1));
    Header { w0_id, w0_n, w1_id, w1_n, s0_id, s0_n, s1_id, s1_n, ..Header::default() }
}

impl<'a, S: Sink> Emitter<'a, S> {
    /// Writes from entry `at` on.
    pub fn new(sink: &'a mut S, at: u64) -> Self {
        Self { sink, at }
    }

    /// Entry the next word goes to.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Goes on at entry `at`.
    pub fn seek(&mut self, at: u64) {
        self.at = at;
    }

    /// Leaves `words` entries as they are.
    pub fn skip(&mut self, words: u64) {
        self.at += words;
    }

    /// Appends one command.
    pub fn push(&mut self, acquire: &[Sem], post: &[Sem], tag: u64, mut command: Command) {
        command.header = Header { tag, ..header(acquire, post) };
        let (first, second) = command.encode();
        self.sink.put(self.at, &first);
        self.at += 1;
        if let Some(second) = second {
            self.sink.put(self.at, &second);
            self.at += 1;
        }
    }

    /// Appends a control command.
    pub fn ctrl(&mut self, acquire: &[Sem], post: &[Sem], op: CtrlOp, ctrl: Ctrl) {
        self.push(acquire, post, 0, Command::ctrl(op, ctrl));
    }

    /// Appends a command that only synchronises: the sequencer acquires and posts.
    pub fn sync(&mut self, acquire: &[Sem], post: &[Sem]) {
        self.ctrl(acquire, post, CtrlOp::Nop, Ctrl::default());
    }

    /// The same once every command before it is complete.
    ///
    /// The sequencer runs ahead of the engines: without the fence it could take what a queued command is still to
    /// acquire. Only semaphores that engines never acquire may do without.
    pub fn sync_in_order(&mut self, acquire: &[Sem], post: &[Sem]) {
        self.fence();
        self.sync(acquire, post);
    }

    /// Appends a wait for every engine.
    pub fn fence(&mut self) {
        self.ctrl(&[], &[], CtrlOp::Fence, Ctrl { emask: 0x3F, ..Ctrl::default() });
    }

    /// Appends a region register write.
    pub fn set_region(&mut self, id: u64, base: u64, limit: u64) {
        self.ctrl(&[], &[], CtrlOp::Setr, Ctrl { id, imm: base, moff: limit, ..Ctrl::default() });
    }

    /// Appends a call to the list at `offset` of `region`.
    pub fn call(&mut self, region: u64, offset: u64) {
        self.ctrl(&[], &[], CtrlOp::Call, Ctrl { region, moff: offset, ..Ctrl::default() });
    }

    /// Appends the return.
    pub fn ret(&mut self) {
        self.ctrl(&[], &[], CtrlOp::Ret, Ctrl::default());
    }
}

/// Region register of the model image.
pub const R_IMAGE: u64 = 0;
/// Region register of the current layer's weights.
pub const R_LAYER: u64 = 1;
/// Region register of the current layer's KV cache.
pub const R_KV: u64 = 2;
/// Region register of spilled activations and logits.
pub const R_BULK: u64 = 3;
/// Region register of command lists and results.
pub const R_ARENA: u64 = 4;
/// Region register of a long encoder's spilled hidden layer, which its chunks share.
pub const R_HIDDEN: u64 = 10;
/// Region register of a long encoder's queries of the current chunk.
pub const R_QUERY: u64 = 11;
/// Region register of the attention lists of the current layer's kind (models with windows).
pub const R_ATTENTION: u64 = 14;
/// Region register of the gain of an encoder's norm before the current layer.
pub const R_GAIN: u64 = 12;
/// Region register of its bias.
pub const R_SHIFT: u64 = 13;

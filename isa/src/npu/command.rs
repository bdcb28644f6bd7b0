//! A whole command: header, body, extensions; encode to words and decode with every reserved bit checked.

use core::fmt;

use super::layout::{Agu, Ctrl, Dma, Epilogue, Gemm, Header, Index, Position, Vec};
use super::ops::{
    CtrlOp, EXT_AGU, EXT_EPILOGUE, EXT_INDEX, EXT_POSITION, Engine, Format, OPCODE_CTRL, OPCODE_DMA,
    OPCODE_GEMM, OPCODE_VEC, VecFn,
};
use super::word::Word;

/// What a command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Sequencer.
    Ctrl(Ctrl),
    /// DMA.
    Dma(Dma),
    /// Matrix engine.
    Gemm(Gemm),
    /// Vector engine.
    Vec(Vec),
}

/// An extension word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// After GEMM.
    Epilogue(Epilogue),
    /// After DMA.
    Index(Index),
    /// After VEC.
    Position(Position),
}

/// A decoded command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// Waits, posts and flags; `opcode` and `ext` follow from body and extension when encoding.
    pub header: Header,
    /// Operation.
    pub body: Body,
    /// The operation's own extension, if any.
    pub extension: Option<Extension>,
    /// Address generation in a hardware loop; stands behind the other extension.
    pub agu: Option<Agu>,
}

/// Most words of a command.
pub const MAX_WORDS: usize = 3;

/// Why words are not a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// No operation has this opcode.
    Opcode(u64),
    /// A reserved bit is set in the body.
    ReservedBits,
    /// A sub-operation, function or format code is unknown: field name and code.
    Code(&'static str, u64),
    /// The extension is of a type this operation does not take.
    ExtensionType(u64),
    /// More extension words than this operation takes.
    ExtensionCount(u64),
    /// The words end before the command does.
    Truncated,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opcode(c) => write!(f, "no operation has opcode {c:#04x}"),
            Self::ReservedBits => f.write_str("a reserved bit is set"),
            Self::Code(field, c) => write!(f, "field `{field}` has unknown code {c}"),
            Self::ExtensionType(t) => write!(f, "an extension of type {t:#04x} does not belong here"),
            Self::ExtensionCount(n) => write!(f, "{n} extension words, at most 2 expected"),
            Self::Truncated => f.write_str("the words end before the command does"),
        }
    }
}

impl core::error::Error for DecodeError {}

impl Command {
    /// A CTRL command.
    #[must_use]
    pub fn ctrl(op: CtrlOp, ctrl: Ctrl) -> Self {
        Self {
            header: Header::default(),
            body: Body::Ctrl(Ctrl { op: op.code(), ..ctrl }),
            extension: None,
            agu: None,
        }
    }

    /// A DMA command.
    #[must_use]
    pub fn dma(dma: Dma) -> Self {
        Self { header: Header::default(), body: Body::Dma(dma), extension: None, agu: None }
    }

    /// A GEMM command.
    #[must_use]
    pub fn gemm(gemm: Gemm, epilogue: Option<Epilogue>) -> Self {
        Self {
            header: Header::default(),
            body: Body::Gemm(gemm),
            extension: epilogue.map(Extension::Epilogue),
            agu: None,
        }
    }

    /// A VEC command.
    #[must_use]
    pub fn vec(func: VecFn, vec: Vec, position: Option<Position>) -> Self {
        Self {
            header: Header::default(),
            body: Body::Vec(Vec { func: func.code(), ..vec }),
            extension: position.map(Extension::Position),
            agu: None,
        }
    }

    /// Engine that executes it.
    #[must_use]
    pub const fn engine(&self) -> Engine {
        match self.body {
            Body::Ctrl(_) => Engine::Sq,
            Body::Dma(_) => Engine::Dma,
            Body::Gemm(_) => Engine::Mx,
            Body::Vec(_) => Engine::Vp,
        }
    }

    /// Words the command takes in a queue.
    #[must_use]
    pub const fn words(&self) -> u64 {
        1 + self.extension.is_some() as u64 + self.agu.is_some() as u64
    }

    /// Encodes into one to three words; the second and third stand where their extensions do.
    #[must_use]
    pub fn words_of(&self) -> [Option<Word>; MAX_WORDS] {
        let (first, second) = self.encode();
        let third = self.agu.as_ref().map(|a| {
            let mut w = Word::default();
            Agu { type_: EXT_AGU, ..*a }.encode(&mut w);
            w
        });
        [Some(first), second, third]
    }

    /// Encodes into one or two words; of a command with address generation, all but the last.
    #[must_use]
    pub fn encode(&self) -> (Word, Option<Word>) {
        let mut word = Word::default();
        let mut header = self.header;
        header.ext = self.words() - 1;
        header.opcode = match &self.body {
            Body::Ctrl(b) => {
                b.encode(&mut word);
                OPCODE_CTRL
            }
            Body::Dma(b) => {
                b.encode(&mut word);
                OPCODE_DMA
            }
            Body::Gemm(b) => {
                b.encode(&mut word);
                OPCODE_GEMM
            }
            Body::Vec(b) => {
                b.encode(&mut word);
                OPCODE_VEC
            }
        };
        header.encode(&mut word);
        let second = self.extension.as_ref().map(|e| {
            let mut w = Word::default();
            match e {
                Extension::Epilogue(e) => Epilogue { type_: EXT_EPILOGUE, ..*e }.encode(&mut w),
                Extension::Index(e) => Index { type_: EXT_INDEX, ..*e }.encode(&mut w),
                Extension::Position(e) => Position { type_: EXT_POSITION, ..*e }.encode(&mut w),
            }
            w
        });
        (word, second)
    }

    /// Words (1 to 3) of the command whose first word is `word`, from its header alone.
    ///
    /// # Errors
    /// If more extension words are announced than any operation takes.
    pub fn length(word: &Word) -> Result<u64, DecodeError> {
        match word.get(8, 2) {
            n @ 0..=2 => Ok(1 + n),
            n => Err(DecodeError::ExtensionCount(n)),
        }
    }

    /// Decodes the command at the start of `words`.
    ///
    /// # Errors
    /// Whatever makes the words no command; nothing is guessed.
    pub fn decode(words: &[Word]) -> Result<Self, DecodeError> {
        let word = words.first().ok_or(DecodeError::Truncated)?;
        let header = Header::decode(word).ok_or(DecodeError::ReservedBits)?;
        let body = decode_body(header.opcode, word)?;
        let length = Self::length(word)?;
        let (mut extension, mut agu) = (None, None);
        for i in 1..length {
            let index = usize::try_from(i).expect("at most 2");
            let word = words.get(index).ok_or(DecodeError::Truncated)?;
            if word.get(0, 8) == EXT_AGU && i + 1 == length {
                agu = Some(Agu::decode(word).ok_or(DecodeError::ReservedBits)?);
            } else if i == 1 {
                extension = Some(decode_extension(&body, word)?);
            } else {
                return Err(DecodeError::ExtensionType(word.get(0, 8)));
            }
        }
        Ok(Self { header, body, extension, agu })
    }
}

fn decode_body(opcode: u64, word: &Word) -> Result<Body, DecodeError> {
    let format = |name, code| match Format::from_code(code) {
        Some(Format::Reserved15) | None => Err(DecodeError::Code(name, code)),
        Some(f) => Ok(f),
    };
    Ok(match opcode {
        OPCODE_CTRL => {
            let b = Ctrl::decode(word).ok_or(DecodeError::ReservedBits)?;
            CtrlOp::from_code(b.op).ok_or(DecodeError::Code("op", b.op))?;
            if b.rsv != 0 {
                return Err(DecodeError::ReservedBits);
            }
            Body::Ctrl(b)
        }
        OPCODE_DMA => Body::Dma(Dma::decode(word).ok_or(DecodeError::ReservedBits)?),
        OPCODE_GEMM => {
            let b = Gemm::decode(word).ok_or(DecodeError::ReservedBits)?;
            format("af", b.af)?;
            format("bf", b.bf)?;
            format("cf", b.cf)?;
            Body::Gemm(b)
        }
        OPCODE_VEC => {
            let b = Vec::decode(word).ok_or(DecodeError::ReservedBits)?;
            VecFn::from_code(b.func).ok_or(DecodeError::Code("func", b.func))?;
            format("xf", b.xf)?;
            format("yf", b.yf)?;
            format("dfm", b.dfm)?;
            Body::Vec(b)
        }
        c => return Err(DecodeError::Opcode(c)),
    })
}

fn decode_extension(body: &Body, word: &Word) -> Result<Extension, DecodeError> {
    let kind = word.get(0, 8);
    match (body, kind) {
        (Body::Gemm(_), EXT_EPILOGUE) => Epilogue::decode(word).map(Extension::Epilogue),
        (Body::Dma(_), EXT_INDEX) => Index::decode(word).map(Extension::Index),
        (Body::Vec(_), EXT_POSITION) => Position::decode(word).map(Extension::Position),
        _ => return Err(DecodeError::ExtensionType(kind)),
    }
    .ok_or(DecodeError::ReservedBits)
}

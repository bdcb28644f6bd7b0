//! The flattened device tree as a stream of nodes and properties, checked at every step.
//!
//! Source: Devicetree Specification, release 0.4, chapter 5.

/// Why a blob is not a device tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FdtError {
    /// The first word is not the magic number.
    Magic,
    /// The layout is newer than version 17 can read.
    Version,
    /// A block or a token leaves the blob.
    Bounds,
    /// A token that does not exist, or one out of place.
    Token(u32),
    /// A name without an end or not in ASCII.
    Name,
    /// Nodes nest deeper than the reader follows.
    Depth,
}

const MAGIC: u32 = 0xD00D_FEED;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;

/// A big-endian word at `at`.
#[must_use]
pub fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes([word[0], word[1], word[2], word[3]]))
}

/// A big-endian number of `cells` words (at most two) at word `index`.
#[must_use]
pub fn cells(bytes: &[u8], index: usize, cells: usize) -> Option<u64> {
    let mut value = 0;
    if cells > 2 {
        return None;
    }
    for i in index..index.checked_add(cells)? {
        value = value << 32 | u64::from(be32(bytes, i.checked_mul(4)?)?);
    }
    Some(value)
}

/// Bytes of the blob that starts with `header`, if it is one.
#[must_use]
pub fn total_bytes(header: &[u8]) -> Option<usize> {
    if be32(header, 0)? == MAGIC { usize::try_from(be32(header, 4)?).ok() } else { None }
}

/// What comes next in a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A node begins.
    Begin(&'a str),
    /// A property of the innermost open node.
    Property(&'a str, &'a [u8]),
    /// The innermost open node ends.
    End,
}

/// A device tree blob whose blocks lie inside it.
#[derive(Clone, Copy, Debug)]
pub struct Fdt<'a> {
    structure: &'a [u8],
    strings: &'a [u8],
}

impl<'a> Fdt<'a> {
    /// Checks the header.
    ///
    /// # Errors
    /// If it is no device tree of a version this reader knows, or a block leaves the blob.
    pub fn new(blob: &'a [u8]) -> Result<Self, FdtError> {
        let word = |i: usize| be32(blob, i * 4).ok_or(FdtError::Bounds);
        if word(0)? != MAGIC {
            return Err(FdtError::Magic);
        }
        if word(6)? > 17 || word(5)? < 17 {
            return Err(FdtError::Version);
        }
        let block = |offset: u32, bytes: u32| {
            let from = usize::try_from(offset).map_err(|_| FdtError::Bounds)?;
            let bytes = usize::try_from(bytes).map_err(|_| FdtError::Bounds)?;
            let to = from.checked_add(bytes).ok_or(FdtError::Bounds)?;
            blob.get(from..to).ok_or(FdtError::Bounds)
        };
        Ok(Self { structure: block(word(2)?, word(9)?)?, strings: block(word(3)?, word(8)?)? })
    }

    /// The tree's nodes and properties in order.
    #[must_use]
    pub fn events(&self) -> Events<'a> {
        Events { fdt: *self, at: 0, depth: 0, done: false }
    }
}

/// Iterator over a tree; ends after the first error.
#[derive(Clone, Debug)]
pub struct Events<'a> {
    fdt: Fdt<'a>,
    at: usize,
    depth: usize,
    done: bool,
}

impl<'a> Events<'a> {
    fn word(&mut self) -> Result<u32, FdtError> {
        let word = be32(self.fdt.structure, self.at).ok_or(FdtError::Bounds)?;
        self.at += 4;
        Ok(word)
    }

    /// A name that ends with a zero byte.
    fn name(bytes: &'a [u8], at: usize) -> Result<&'a str, FdtError> {
        let rest = bytes.get(at..).ok_or(FdtError::Bounds)?;
        let end = rest.iter().position(|b| *b == 0).ok_or(FdtError::Name)?;
        core::str::from_utf8(&rest[..end]).map_err(|_| FdtError::Name)
    }

    fn step(&mut self) -> Result<Option<Event<'a>>, FdtError> {
        loop {
            match self.word()? {
                NOP => {}
                BEGIN_NODE => {
                    let name = Self::name(self.fdt.structure, self.at)?;
                    self.at = (self.at + name.len() + 1).next_multiple_of(4);
                    self.depth += 1;
                    return Ok(Some(Event::Begin(name)));
                }
                PROP if self.depth > 0 => {
                    let (bytes, name) = (self.word()?, self.word()?);
                    let bytes = usize::try_from(bytes).map_err(|_| FdtError::Bounds)?;
                    let end = self.at.checked_add(bytes).ok_or(FdtError::Bounds)?;
                    let value = self.fdt.structure.get(self.at..end).ok_or(FdtError::Bounds)?;
                    self.at = end.next_multiple_of(4);
                    let name = usize::try_from(name).map_err(|_| FdtError::Bounds)?;
                    return Ok(Some(Event::Property(Self::name(self.fdt.strings, name)?, value)));
                }
                END_NODE if self.depth > 0 => {
                    self.depth -= 1;
                    return Ok(Some(Event::End));
                }
                END if self.depth == 0 => return Ok(None),
                token => return Err(FdtError::Token(token)),
            }
        }
    }
}

impl<'a> Iterator for Events<'a> {
    type Item = Result<Event<'a>, FdtError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let event = self.step().transpose();
        self.done = !matches!(event, Some(Ok(_)));
        event
    }
}

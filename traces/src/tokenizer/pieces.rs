//! SentencePiece's merging of pieces by score.
//!
//! Models: the neighbours whose union has the highest score are merged first, the leftmost of equals; unused pieces are
//! taken apart again; bytes or the unknown piece for what is no piece; a space before each stretch of text; special and
//! user-defined tokens in the text, the longest of those that begin leftmost.
//! Does not model: SentencePiece's unigram models, character maps, spaces as suffixes, sampling.
//! Source: the BPE model and the options of SentencePiece as published; what is a stretch: as ggml's vocabularies are read.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

/// What a space is written as.
pub(crate) const SPACE: char = '\u{2581}';

/// A piece merging may end in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) id: u32,
    /// In the order of scores.
    pub(crate) rank: i32,
    /// Never a result: taken apart again.
    pub(crate) unused: bool,
}

/// A number whose order is that of scores; none of NaN.
pub(crate) fn rank(score: f64) -> Option<i32> {
    #[allow(clippy::cast_possible_truncation, reason = "scores are fp32 numbers")]
    let single = score as f32;
    // The two zeros are equal.
    let bits = (single + 0.0).to_bits().cast_signed();
    (!single.is_nan()).then_some(if bits < 0 { bits ^ i32::MAX } else { bits })
}

/// Tokens that are found in the text as they are, before anything else.
#[derive(Clone, Debug, Default)]
pub(crate) struct Marks {
    ids: BTreeMap<Box<str>, Mark>,
    /// Bytes they begin with.
    first: BTreeSet<u8>,
    /// Their lengths, longest first.
    lengths: BTreeSet<Reverse<usize>>,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
struct Mark {
    id: u32,
    /// Whether it swallows white space behind it.
    strips: bool,
}

/// A part of a text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// A token that was found.
    Mark(u32),
    /// Text between.
    Text(&'a str),
}

impl Marks {
    pub(crate) fn insert(&mut self, text: &str, id: u32, strips: bool) {
        if let Some(first) = text.as_bytes().first() {
            self.first.insert(*first);
            self.lengths.insert(Reverse(text.len()));
            self.ids.insert(text.into(), Mark { id, strips });
        }
    }

    /// Whether a token is one of them.
    pub(crate) fn has(&self, id: u32) -> bool {
        self.ids.values().any(|mark| mark.id == id)
    }

    fn at(&self, text: &str) -> Option<(usize, Mark)> {
        if !self.first.contains(text.as_bytes().first()?) {
            return None;
        }
        let found = |n: usize| text.get(..n).and_then(|t| self.ids.get(t)).map(|mark| (n, *mark));
        self.lengths.iter().find_map(|n| found(n.0))
    }

    /// The text in parts.
    pub(crate) fn split<'a>(&self, text: &'a str) -> Vec<Part<'a>> {
        let (mut parts, mut from, mut at) = (Vec::new(), 0, 0);
        while let Some(c) = text[at..].chars().next() {
            let Some((length, mark)) = self.at(&text[at..]) else {
                at += c.len_utf8();
                continue;
            };
            if at > from {
                parts.push(Part::Text(&text[from..at]));
            }
            parts.push(Part::Mark(mark.id));
            at += length;
            if mark.strips {
                at = text.len() - text[at..].trim_start().len();
            }
            from = at;
        }
        if at > from {
            parts.push(Part::Text(&text[from..]));
        }
        parts
    }
}

/// A vocabulary of pieces.
#[derive(Clone, Debug)]
pub(crate) struct Pieces {
    pub(crate) known: BTreeMap<Box<str>, Piece>,
    /// Tokens of bytes, if there is one for each.
    pub(crate) bytes: Option<Box<[u32; 256]>>,
    pub(crate) unknown: Option<u32>,
    pub(crate) marks: Marks,
    /// Whether a space is put before each stretch.
    pub(crate) prefix: bool,
    /// Whether spaces at a stretch's ends go, and of several inside all but one.
    pub(crate) squeeze: bool,
}

/// A stretch of characters that has become one.
struct Node {
    from: usize,
    to: usize,
    /// What it was merged from.
    parts: Option<[usize; 2]>,
}

/// The chain of what is left.
struct Link {
    node: usize,
    previous: Option<usize>,
    next: Option<usize>,
    /// Whether it is still in the chain.
    there: bool,
}

/// A merge that may be done: the highest rank first, of equals the leftmost. Behind: the right one, bytes of both.
type Candidate = (i32, Reverse<usize>, usize, usize);

impl Pieces {
    /// Ids of a text.
    pub(crate) fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        let mut fresh = true;
        for part in self.marks.split(text) {
            match part {
                Part::Mark(id) => ids.push(id),
                Part::Text(text) => self.merge(&self.prepared(text, fresh), &mut ids),
            }
            fresh = matches!(part, Part::Mark(_));
        }
        ids
    }

    /// A stretch of text with visible spaces.
    fn prepared(&self, text: &str, fresh: bool) -> String {
        let squeezed = || text.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
        let text = if self.squeeze { squeezed() } else { text.to_owned() };
        let prefix = if self.prefix && fresh && !text.is_empty() { " " } else { "" };
        [prefix, &text].concat().replace(' ', "\u{2581}")
    }

    fn candidate(&self, text: &str, nodes: &[Node], links: &[Link], left: usize) -> Option<Candidate> {
        let right = links[left].next?;
        let (from, to) = (nodes[links[left].node].from, nodes[links[right].node].to);
        let piece = self.known.get(&text[from..to])?;
        Some((piece.rank, Reverse(left), right, to - from))
    }

    /// Ids of a stretch, appended.
    fn merge(&self, text: &str, ids: &mut Vec<u32>) {
        let mut nodes: Vec<Node> =
            text.char_indices().map(|(i, c)| Node { from: i, to: i + c.len_utf8(), parts: None }).collect();
        let count = nodes.len();
        let mut links: Vec<Link> = (0..count)
            .map(|i| Link {
                node: i,
                previous: i.checked_sub(1),
                next: (i + 1 < count).then_some(i + 1),
                there: true,
            })
            .collect();
        let mut heap: BinaryHeap<Candidate> =
            (0..count).filter_map(|i| self.candidate(text, &nodes, &links, i)).collect();
        while let Some((_, Reverse(left), right, bytes)) = heap.pop() {
            let [a, b] = [&links[left], &links[right]];
            let (from, to) = (nodes[a.node].from, nodes[b.node].to);
            // Either has become part of something else meanwhile.
            if !a.there || !b.there || a.next != Some(right) || to - from != bytes {
                continue;
            }
            let (parts, next) = ([a.node, b.node], b.next);
            nodes.push(Node { from, to, parts: Some(parts) });
            links[right].there = false;
            links[left].node = nodes.len() - 1;
            links[left].next = next;
            if let Some(next) = next {
                links[next].previous = Some(left);
            }
            let before = links[left].previous.and_then(|i| self.candidate(text, &nodes, &links, i));
            heap.extend(before);
            heap.extend(self.candidate(text, &nodes, &links, left));
        }
        let mut unknown = false;
        for link in links.iter().filter(|link| link.there) {
            self.tell(text, &nodes, link.node, ids, &mut unknown);
        }
    }

    /// The ids of what a node came to.
    fn tell(&self, text: &str, nodes: &[Node], node: usize, ids: &mut Vec<u32>, unknown: &mut bool) {
        let mut left = vec![node];
        while let Some(node) = left.pop() {
            let Node { from, to, parts } = nodes[node];
            let piece = self.known.get(&text[from..to]);
            match (piece, parts) {
                (Some(piece), Some([a, b])) if piece.unused => {
                    left.extend([b, a]);
                    continue;
                }
                (Some(piece), _) => ids.push(piece.id),
                (None, _) => match &self.bytes {
                    Some(bytes) => ids.extend(text[from..to].bytes().map(|b| bytes[usize::from(b)])),
                    // Neighbours that are unknown are one unknown.
                    None => ids.extend(self.unknown.filter(|_| !*unknown)),
                },
            }
            *unknown = piece.is_none() && self.bytes.is_none();
        }
    }
}

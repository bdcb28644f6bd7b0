//! Observation without influence: a system collects probes, a sink keeps or drops them, and can never answer.
//!
//! Models: spans, instants and counters on named tracks, arguments by name, flows that tie them together.
//! Does not model: what any of it means; names come from the emitting system's own [`Names`].

use std::collections::BTreeMap;

use crate::units::Time;

/// A name of the emitting system: index into its [`Names`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(u32);

impl Name {
    /// Position in the table, counted from 0.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A lane of observations: index in the order of declaration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Track(u32);

impl Track {
    /// The track at a position in the order of declaration.
    ///
    /// # Panics
    /// If there are more than 2^32.
    #[must_use]
    pub fn at(index: usize) -> Self {
        Self(u32::try_from(index).expect("few tracks"))
    }

    /// Position in the order of declaration.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a track carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrackKind {
    /// Spans that do not overlap, and instants.
    Spans,
    /// Values in a unit; an emitted value is `10^decimals` times the value in that unit.
    Counter {
        /// Unit.
        unit: &'static str,
        /// Decimal places.
        decimals: u32,
    },
}

/// A declared track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackInfo {
    /// Group it is shown in.
    pub group: String,
    /// Its own name, unique over all groups.
    pub name: String,
    /// What it carries.
    pub kind: TrackKind,
}

/// Most arguments of one probe.
pub const ARGUMENTS: usize = 16;

/// Named numbers of one observation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    values: [(Name, u64); ARGUMENTS],
    count: usize,
}

impl Arguments {
    /// One more argument; a probe that is full keeps what it has.
    #[must_use]
    pub fn with(mut self, name: Name, value: u64) -> Self {
        if let Some(slot) = self.values.get_mut(self.count) {
            *slot = (name, value);
            self.count += 1;
        }
        self
    }

    /// One more argument unless it is zero.
    #[must_use]
    pub fn unless_zero(self, name: Name, value: u64) -> Self {
        if value == 0 { self } else { self.with(name, value) }
    }

    /// All of them, in order.
    #[must_use]
    pub fn all(&self) -> &[(Name, u64)] {
        &self.values[..self.count]
    }
}

/// What an observation has to do with a chain of causes that crosses tracks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flow {
    /// Nothing.
    #[default]
    None,
    /// It belongs to the chain of this number.
    Through(u64),
    /// It ends the chain of this number.
    Ends(u64),
}

/// One observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Something lasted from `start` to `end`.
    Span {
        /// Where.
        track: Track,
        /// What.
        name: Name,
        /// First instant.
        start: Time,
        /// First instant after.
        end: Time,
        /// Chain of causes.
        flow: Flow,
        /// Numbers.
        arguments: Arguments,
    },
    /// Something happened.
    Instant {
        /// Where.
        track: Track,
        /// What.
        name: Name,
        /// When.
        at: Time,
        /// Chain of causes.
        flow: Flow,
        /// Numbers.
        arguments: Arguments,
    },
    /// A value from now on.
    Counter {
        /// Where.
        track: Track,
        /// When.
        at: Time,
        /// New value, in the track's unit and decimals.
        value: u64,
    },
}

/// Takes probes. Every track and name is declared before the first probe that uses it, in order of its number.
pub trait Sink {
    /// A new track, with the next number.
    fn track(&mut self, info: &TrackInfo);
    /// A new name, with the next number.
    fn name(&mut self, text: &str);
    /// Keeps one observation.
    fn emit(&mut self, probe: &Probe);
}

impl Sink for () {
    fn track(&mut self, _info: &TrackInfo) {}
    fn name(&mut self, _text: &str) {}
    fn emit(&mut self, _probe: &Probe) {}
}

/// Names by text: each text has one number.
#[derive(Clone, Debug, Default)]
pub struct Names {
    texts: Vec<String>,
    numbers: BTreeMap<String, Name>,
}

impl Names {
    /// The number of a text, new or known.
    ///
    /// # Panics
    /// If there are more than 2^32.
    pub fn of(&mut self, text: &str) -> Name {
        if let Some(name) = self.numbers.get(text) {
            return *name;
        }
        let name = Name(u32::try_from(self.texts.len()).expect("few names"));
        self.texts.push(text.to_owned());
        self.numbers.insert(text.to_owned(), name);
        name
    }

    /// All texts, in the order of their numbers.
    #[must_use]
    pub fn texts(&self) -> &[String] {
        &self.texts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_one_number_and_arguments_keep_their_order() {
        let mut names = Names::default();
        let (a, b) = (names.of("a"), names.of("b"));
        assert_eq!((names.of("a"), names.texts().len(), b.index()), (a, 2, 1));
        let args = Arguments::default().with(b, 3).unless_zero(a, 0).with(a, 1);
        assert_eq!(args.all(), [(b, 3), (a, 1)]);
        let full = (0..40).fold(Arguments::default(), |x, i| x.with(a, i));
        assert_eq!(full.all().len(), ARGUMENTS);
    }
}

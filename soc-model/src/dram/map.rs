//! Address maps: a one-line notation that says which address bits choose row, bank, group and column.
//!
//! ```text
//! row:15 bank:2 column:5 group:2 column:1 byte:5        widths, most significant first
//! byte=4:0 column=5 group=7:6 column=12:8 bank=14:13 row=29:15 group^row[1:0]
//!                                                      explicit bits, any order; then XOR terms
//! ```
//!
//! Models: any linear bit map, with XOR terms. Does not model: division by numbers that are not powers of two.
//! Source: map-a and map-32 are the two maps of our reference measurements; the others are our own.
#![allow(clippy::cast_possible_truncation, reason = "places are packed and unpacked field by field")]

use super::Place;

/// A field of a DRAM address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// Byte within a burst.
    Byte,
    /// Burst within a row.
    Column,
    /// Bank group.
    Group,
    /// Bank within its group.
    Bank,
    /// Row.
    Row,
}

impl Field {
    const ALL: [Self; 5] = [Self::Byte, Self::Column, Self::Group, Self::Bank, Self::Row];

    /// The name used in map strings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Byte => "byte",
            Self::Column => "column",
            Self::Group => "group",
            Self::Bank => "bank",
            Self::Row => "row",
        }
    }

    /// Width every map must give this field, or `None` where it follows from the capacity.
    const fn width(self) -> Option<u32> {
        match self {
            Self::Byte => Some(5),
            Self::Column => Some(6),
            Self::Group | Self::Bank => Some(2),
            Self::Row => None,
        }
    }

    fn parse(text: &str) -> Result<Self, MapError> {
        Self::ALL.into_iter().find(|f| f.name() == text).ok_or_else(|| MapError::UnknownField {
            name: text.to_owned(),
            nearest: nearest(text, Self::ALL.iter().map(|f| f.name())),
        })
    }
}

/// The candidate most like `text`.
pub(crate) fn nearest<'a>(text: &str, candidates: impl Iterator<Item = &'a str>) -> String {
    candidates
        .min_by_key(|c| strsim::damerau_levenshtein(&text.to_lowercase(), &c.to_lowercase()))
        .unwrap_or_default()
        .to_owned()
}

/// What is wrong with a map string.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// A name that is no field.
    #[error("no field is called `{name}`; the nearest is `{nearest}`")]
    UnknownField {
        /// What was written.
        name: String,
        /// The most similar field.
        nearest: String,
    },
    /// A name that is no preset.
    #[error("no address map is called `{name}`; the nearest is `{nearest}`")]
    UnknownMap {
        /// What was written.
        name: String,
        /// The most similar map.
        nearest: String,
    },
    /// A token that is not of any known form.
    #[error("`{token}` is neither `field:width`, `field=high:low` nor `field^field[high:low]`")]
    Token {
        /// The token.
        token: String,
    },
    /// Two fields claim an address bit.
    #[error("address bit {bit} belongs to both {first} and {second}")]
    Overlap {
        /// The bit.
        bit: u32,
        /// First owner.
        first: &'static str,
        /// Second owner.
        second: &'static str,
    },
    /// An address bit below the highest used one has no field.
    #[error("address bit {bit} belongs to no field")]
    Gap {
        /// The bit.
        bit: u32,
    },
    /// A field has the wrong number of bits.
    #[error("field {field} has {bits} bits, a channel has {expected}")]
    Width {
        /// Field.
        field: &'static str,
        /// Bits given.
        bits: u32,
        /// Bits required.
        expected: u32,
    },
    /// BL32 needs its two halves in one row.
    #[error("address bit 5 must be the column's lowest bit: a burst of 64 bytes lies in one row")]
    SplitBurst,
    /// The XOR terms make two addresses share a place.
    #[error("the XOR terms are not reversible: bit {bit} of {field} depends on the bits before it")]
    NotBijective {
        /// Field.
        field: &'static str,
        /// Bit of the field.
        bit: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    field: Field,
    low: u32,
    width: u32,
    /// Lowest bit of the field this piece fills.
    to: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Xor {
    target: Field,
    source: Field,
    low: u32,
    width: u32,
}

/// A checked, bijective map from channel-local addresses to places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressMap {
    /// Least significant first.
    pieces: Vec<Piece>,
    xors: Vec<Xor>,
    bits: u32,
    /// The map is linear over GF(2): the place of an address is the XOR of the places of its parts.
    parts: Vec<u64>,
}

/// Address bits looked up at once, and how many such parts cover the largest channel.
const PART_BITS: u32 = 9;
const PARTS: u32 = 4;
/// Largest channel: 2 TiB.
const MOST_BITS: u32 = 5 + PART_BITS * PARTS;

/// Names and definitions of the built-in maps.
pub const MAPS: [(&str, &str); 5] = [
    ("map-a", "row:15 bank:2 column:5 group:2 column:1 byte:5"),
    ("map-32", "row:15 bank:2 column:6 group:2 byte:5"),
    ("map-bg8", "row:15 bank:2 column:3 group:2 column:3 byte:5"),
    ("map-a-xor", "row:15 bank:2 column:5 group:2 column:1 byte:5 bank^row[1:0]"),
    (
        "map-bg8-xor",
        "row:15 bank:2 column:3 group:2 column:3 byte:5 bank^row[1:0] group^row[3:2] bank^row[5:4] \
         group^row[7:6] bank^row[9:8] group^row[11:10]",
    ),
];

impl AddressMap {
    /// A built-in map by name, or the map a string describes.
    ///
    /// # Errors
    /// If the text is neither.
    pub fn named_or_parsed(text: &str) -> Result<Self, MapError> {
        if let Some((_, definition)) = MAPS.iter().find(|(name, _)| *name == text) {
            return Self::parse(definition);
        }
        if !text.contains([':', '=', ' ']) {
            return Err(MapError::UnknownMap {
                name: text.to_owned(),
                nearest: nearest(text, MAPS.iter().map(|(n, _)| *n)),
            });
        }
        Self::parse(text)
    }

    /// The map of a string in the notation of this module.
    ///
    /// # Errors
    /// If a token is malformed, bits overlap or are missing, or XOR terms cannot be undone.
    pub fn parse(text: &str) -> Result<Self, MapError> {
        let (mut spans, mut xors) = (Vec::new(), Vec::new());
        let mut packed: Vec<(Field, u32)> = Vec::new();
        for token in text.split_whitespace() {
            let malformed = || MapError::Token { token: token.to_owned() };
            if let Some((target, rest)) = token.split_once('^') {
                let (source, bits) = rest.split_once('[').ok_or_else(malformed)?;
                let (low, width) =
                    span(bits.strip_suffix(']').ok_or_else(malformed)?).ok_or_else(malformed)?;
                xors.push(Xor { target: Field::parse(target)?, source: Field::parse(source)?, low, width });
            } else if let Some((field, bits)) = token.split_once('=') {
                let (low, width) = span(bits).ok_or_else(malformed)?;
                spans.push((Field::parse(field)?, low, width));
            } else if let Some((field, width)) = token.split_once(':') {
                let width = width.parse().ok().filter(|w| (1..=32).contains(w)).ok_or_else(malformed)?;
                packed.push((Field::parse(field)?, width));
            } else {
                return Err(malformed());
            }
        }
        let mut low = 0;
        for &(field, width) in packed.iter().rev() {
            spans.push((field, low, width));
            low += width;
        }
        Self::build(spans, xors)
    }

    fn build(mut spans: Vec<(Field, u32, u32)>, xors: Vec<Xor>) -> Result<Self, MapError> {
        spans.sort_by_key(|&(_, low, _)| low);
        let mut owner: [Option<Field>; 64] = [None; 64];
        for &(field, low, width) in &spans {
            for bit in low..low + width {
                let slot = &mut owner[bit as usize];
                if let Some(first) = slot {
                    return Err(MapError::Overlap { bit, first: first.name(), second: field.name() });
                }
                *slot = Some(field);
            }
        }
        let bits: u32 = spans.iter().map(|&(_, _, w)| w).sum();
        if let Some(gap) = (0..bits).find(|&b| owner[b as usize].is_none()) {
            return Err(MapError::Gap { bit: gap });
        }
        let mut filled = [0u32; 5];
        let mut pieces = Vec::new();
        for (field, low, width) in spans {
            pieces.push(Piece { field, low, width, to: filled[field as usize] });
            filled[field as usize] += width;
        }
        for field in Field::ALL {
            let have = filled[field as usize];
            let expected = field.width().unwrap_or(have.clamp(1, 32));
            if have != expected {
                return Err(MapError::Width { field: field.name(), bits: have, expected });
            }
        }
        for x in &xors {
            let (have, want) = (x.low + x.width, filled[x.source as usize]);
            if have > want {
                return Err(MapError::Width { field: x.source.name(), bits: want, expected: have });
            }
            let (have, want) = (filled[x.target as usize], x.width);
            if want > have {
                return Err(MapError::Width { field: x.target.name(), bits: have, expected: want });
            }
        }
        let map = Self { pieces, xors, bits, parts: Vec::new() };
        map.checked()
    }

    fn checked(mut self) -> Result<Self, MapError> {
        self.check_bijective()?;
        if self.bits > MOST_BITS {
            return Err(MapError::Width { field: "row", bits: self.bits, expected: MOST_BITS });
        }
        self.parts = (0..PARTS)
            .flat_map(|part| (0..1u64 << PART_BITS).map(move |value| value << (5 + part * PART_BITS)))
            .map(|address| pack(self.place_by_fields(address & ((1 << self.bits) - 1))))
            .collect();
        Ok(self)
    }

    /// Gaussian elimination over GF(2): every place bit as a set of address bits.
    fn check_bijective(&self) -> Result<(), MapError> {
        let plain = |field: Field, bit: u32| {
            self.pieces
                .iter()
                .find(|p| p.field == field && (p.to..p.to + p.width).contains(&bit))
                .map_or(0, |p| 1u64 << (p.low + bit - p.to))
        };
        let mut basis = [0u64; 64];
        for field in Field::ALL {
            let width: u32 = self.pieces.iter().filter(|p| p.field == field).map(|p| p.width).sum();
            for bit in 0..width {
                let mut mask = plain(field, bit);
                for x in self.xors.iter().filter(|x| x.target == field && bit < x.width) {
                    mask ^= plain(x.source, x.low + bit);
                }
                while mask != 0 {
                    let top = 63 - mask.leading_zeros();
                    if basis[top as usize] == 0 {
                        basis[top as usize] = mask;
                        break;
                    }
                    mask ^= basis[top as usize];
                }
                if mask == 0 {
                    return Err(MapError::NotBijective { field: field.name(), bit });
                }
            }
        }
        Ok(())
    }

    /// The same map for a channel of `1 << bits` bytes: the topmost row piece grows or shrinks, and XOR terms
    /// over rows a smaller channel does not have fall away.
    ///
    /// # Errors
    /// If the topmost field is not the row, or would vanish.
    pub fn resized(&self, bits: u32) -> Result<Self, MapError> {
        let mut map = self.clone();
        let top = map.pieces.last_mut().expect("a checked map has pieces");
        let width = (top.width + bits).saturating_sub(self.bits);
        if top.field != Field::Row || width == 0 || top.to + width > 32 {
            return Err(MapError::Width { field: top.field.name(), bits: top.width, expected: width });
        }
        top.width = width;
        map.bits = bits;
        let rows: u32 = map.pieces.iter().filter(|p| p.field == Field::Row).map(|p| p.width).sum();
        map.xors.retain(|x| x.source != Field::Row || x.low + x.width <= rows);
        map.checked()
    }

    /// Address bits the map covers.
    #[must_use]
    pub const fn bits(&self) -> u32 {
        self.bits
    }

    /// Place of a channel-local byte address; addresses wrap at the capacity.
    #[must_use]
    #[inline]
    pub fn place(&self, address: u64) -> Place {
        let parts: &[u64; (PARTS << PART_BITS) as usize] =
            self.parts.as_slice().try_into().expect("built with the map");
        let part = |n: u32| {
            let value = (address >> (5 + n * PART_BITS)) & ((1 << PART_BITS) - 1);
            parts[(u64::from(n) << PART_BITS | value) as usize]
        };
        let packed = part(0) ^ part(1) ^ part(2) ^ part(3);
        Place { bank: (packed >> 16) as u8, row: (packed >> 32) as u32, column: packed as u16 }
    }

    fn place_by_fields(&self, address: u64) -> Place {
        let mut fields = [0u64; 5];
        for p in &self.pieces {
            fields[p.field as usize] |= ((address >> p.low) & ((1 << p.width) - 1)) << p.to;
        }
        if !self.xors.is_empty() {
            let plain = fields;
            for x in &self.xors {
                fields[x.target as usize] ^= (plain[x.source as usize] >> x.low) & ((1 << x.width) - 1);
            }
        }
        let narrow =
            |field: Field| u32::try_from(fields[field as usize]).expect("a field is at most 32 bits");
        let small = |field: Field| u8::try_from(fields[field as usize]).expect("two bits");
        Place {
            bank: small(Field::Group) << 2 | small(Field::Bank),
            row: narrow(Field::Row),
            column: u16::try_from(fields[Field::Column as usize]).expect("six bits"),
        }
    }
}

const fn pack(p: Place) -> u64 {
    (p.row as u64) << 32 | (p.bank as u64) << 16 | p.column as u64
}

/// `high:low` or a single bit, as (low, width).
fn span(text: &str) -> Option<(u32, u32)> {
    let (high, low) = match text.split_once(':') {
        Some((h, l)) => (h.parse::<u32>().ok()?, l.parse::<u32>().ok()?),
        None => (text.parse().ok()?, text.parse().ok()?),
    };
    (high >= low && high < 64).then(|| (low, high - low + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_map_is_a_bijection_by_enumeration() {
        for (name, text) in MAPS {
            let map = AddressMap::parse(text).expect(name).resized(24).expect(name);
            let mut seen = vec![false; 1 << 19];
            for address in (0..1u64 << 24).step_by(32) {
                let p = map.place(address);
                assert_eq!(p, map.place_by_fields(address));
                let index = (p.row as usize) << 10 | usize::from(p.bank) << 6 | usize::from(p.column);
                assert!(!seen[index], "{name}: two addresses at {p:?}");
                seen[index] = true;
            }
            assert!(seen.iter().all(|&s| s));
        }
    }

    #[test]
    fn map_a_is_the_documented_one_in_both_notations() {
        let a = AddressMap::named_or_parsed("map-a").unwrap();
        let text = "byte=4:0 column=5 group=7:6 column=12:8 bank=14:13 row=29:15";
        assert_eq!(a, AddressMap::parse(text).unwrap());
        assert_eq!(a.place(0x2_E3A0), Place { bank: 0b1011, row: 5, column: 0b000111 });
        assert_eq!(a.bits(), 30);
    }

    #[test]
    fn errors_name_the_bits() {
        let e = |s: &str| AddressMap::named_or_parsed(s).unwrap_err().to_string();
        assert_eq!(
            e("byte=4:0 column=10:5 group=11:10 bank=13:12 row=20:14"),
            "address bit 10 belongs to both column and group"
        );
        assert_eq!(
            e("byte=4:0 column=10:5 group=12:11 bank=15:14 row=20:16"),
            "address bit 13 belongs to no field"
        );
        assert_eq!(
            e("row:15 bank:2 colum:6 group:2 byte:5"),
            "no field is called `colum`; the nearest is `column`"
        );
        assert_eq!(e("map-b"), "no address map is called `map-b`; the nearest is `map-a`");
        assert_eq!(e("row:15 bank:2 column:7 group:2 byte:5"), "field column has 7 bits, a channel has 6");
        assert!(e("row:15 bank:2 column:6 group:2 byte:5 bank^bank[1:0]").contains("not reversible"));
        assert!(
            e("row:15 bank:2 column:6 group:2 byte:5 bank^group[1:0] group^bank[1:0]")
                .contains("not reversible")
        );
        assert!(e("row:15 bank").contains("`bank` is neither"));
    }

    /// A random map of 18 bits in explicit notation, its pieces cut and shuffled, and some XOR terms.
    fn random_map(r: &mut sim_kernel::Stream) -> (Vec<(&'static str, u32, u32)>, String) {
        let mut pieces: Vec<(&str, u32)> = vec![("row", 1), ("row", 2)];
        for (field, width) in [("bank", 2), ("group", 2), ("column", 6)] {
            let cut = u32::try_from(r.below(u64::from(width))).unwrap();
            pieces.extend([(field, cut), (field, width - cut)].into_iter().filter(|p| p.1 > 0));
        }
        for i in (1..pieces.len()).rev() {
            pieces.swap(i, usize::try_from(r.below(i as u64 + 1)).unwrap());
        }
        let mut low = 5;
        let mut spans = vec![("byte", 0, 5)];
        for (field, width) in pieces {
            spans.push((field, low, width));
            low += width;
        }
        let xors = [
            "",
            " bank^row[1:0]",
            " group^row[2:1] bank^row[1:0]",
            " bank^group[1:0]",
            " group^bank[1:0] bank^group[1:0]",
        ];
        (spans, xors[usize::try_from(r.below(5)).unwrap()].to_owned())
    }

    fn text(spans: &[(&str, u32, u32)]) -> String {
        spans.iter().map(|(f, low, w)| format!("{f}={}:{low}", low + w - 1)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn any_map_is_a_bijection_or_refused_with_its_bits() {
        let (mut taken, mut refused) = (0, 0);
        for seed in 0..300 {
            let mut r = sim_kernel::Stream::new(seed, "test.map", "random");
            let (spans, xors) = random_map(&mut r);
            match AddressMap::parse(&format!("{}{xors}", text(&spans))) {
                Ok(map) => {
                    let mut seen = vec![false; 1 << 13];
                    for address in (0..1u64 << 18).step_by(32) {
                        let p = map.place(address);
                        let index = (p.row as usize) << 10 | usize::from(p.bank) << 6 | usize::from(p.column);
                        assert!(!std::mem::replace(&mut seen[index], true), "{spans:?}{xors}: twice {p:?}");
                    }
                    taken += 1;
                }
                Err(e) => {
                    assert!(
                        matches!(e, MapError::NotBijective { .. }) && !xors.is_empty(),
                        "{spans:?}{xors}: {e}"
                    );
                    refused += 1;
                }
            }
            // One piece moved: the bits it lands on have two owners, or those it left have none.
            let mut moved = spans.clone();
            let victim = usize::try_from(1 + r.below(spans.len() as u64 - 1)).unwrap();
            let up = r.below(2) == 1;
            moved[victim].1 = if up { moved[victim].1 + 1 } else { moved[victim].1 - 1 };
            let e = AddressMap::parse(&text(&moved)).unwrap_err();
            let bits = spans[victim].1.saturating_sub(1)..=spans[victim].1 + spans[victim].2;
            match e {
                MapError::Overlap { bit, .. } | MapError::Gap { bit } => {
                    assert!(bits.contains(&bit), "{moved:?}: {e}")
                }
                other => panic!("{moved:?}: {other}"),
            }
        }
        assert!(taken > 100 && refused > 20, "{taken} {refused}");
    }
}

//! Statistics with name, unit and description in one row, so that what a number means cannot be lost.

/// Unit of a statistic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A plain count.
    Count,
    /// Cycles of the owning clock.
    Cycles,
    /// Bytes.
    Bytes,
    /// Femtoseconds.
    Femtoseconds,
}

/// One statistic as it leaves a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatRow {
    /// Name within the component, snake case.
    pub name: &'static str,
    /// Unit.
    pub unit: Unit,
    /// One sentence.
    pub description: &'static str,
    /// Value.
    pub value: u64,
}

/// A monotone counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter(u64);

impl Counter {
    /// Adds `n`.
    pub fn add(&mut self, n: u64) {
        self.0 += n;
    }
    /// The count.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

/// Declares a component's statistics: the struct, and `rows()` from the same lines.
#[macro_export]
macro_rules! stats {
    ($(#[$doc:meta])* $vis:vis struct $name:ident { $( $field:ident : $unit:ident = $text:literal ),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        $vis struct $name { $( #[doc = $text] pub $field: $crate::Counter, )* }
        impl $name {
            /// All rows with unit and description.
            #[must_use]
            pub fn rows(&self) -> Vec<$crate::StatRow> {
                vec![ $( $crate::StatRow {
                    name: stringify!($field), unit: $crate::Unit::$unit, description: $text, value: self.$field.get(),
                }, )* ]
            }
        }
    };
}

#[cfg(test)]
mod tests {
    stats! {
        /// Test statistics.
        struct Demo { hits: Count = "Hits.", moved: Bytes = "Bytes moved." }
    }

    #[test]
    fn rows_carry_unit_and_text() {
        let mut d = Demo::default();
        d.hits.add(3);
        d.moved.add(64);
        let rows = d.rows();
        assert_eq!((rows[0].name, rows[0].value, rows[1].unit), ("hits", 3, super::Unit::Bytes));
        assert_eq!(rows[1].description, "Bytes moved.");
    }
}

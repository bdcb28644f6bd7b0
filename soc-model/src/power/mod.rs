//! Power: what an action costs and what a block leaks, as data.

mod table;

pub use table::{AccuracyClass, EnergyRow, EnergyTable, LeakageRow, energy_table_names, energy_table_text};

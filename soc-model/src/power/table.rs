//! The energy table: attojoules per action and microwatts of leakage, read from strict TOML.
//!
//! Models: energy of each counted action at a reference supply, scaled by the square of the supply; leakage linear
//! in the supply and doubling with temperature. Does not model: data-dependent switching, process spread.
//! Source: every row names its own.

use serde::{Deserialize, Serialize};

use crate::config::{ConfigError, Problem, Unit, nearest};

/// Energy tables by name.
const TABLES: [(&str, &str); 1] = [("n3e", include_str!("../../presets/energy/n3e.toml"))];

/// Names of the built-in energy tables.
pub fn energy_table_names() -> impl Iterator<Item = &'static str> {
    TABLES.iter().map(|(name, _)| *name)
}

/// The TOML text of a built-in energy table.
#[must_use]
pub fn energy_table_text(name: &str) -> Option<&'static str> {
    TABLES.iter().find(|(candidate, _)| *candidate == name).map(|(_, text)| *text)
}

/// How far a figure may be off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum AccuracyClass {
    /// Measured on this kind of silicon, about 10 %.
    A,
    /// Derived from measured or published figures of a near node, about 30 %.
    B,
    /// Estimate, a factor of two either way.
    C,
}

/// Energy of one action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EnergyRow {
    /// Component charged.
    pub component: String,
    /// Action.
    pub action: String,
    /// Largest memory this row holds for, where the action's cost depends on the size of a memory.
    pub up_to_bytes: Option<u64>,
    /// Energy at `at_mv`.
    pub attojoules: u64,
    /// Supply at which the row holds.
    pub at_mv: u64,
    /// How far it may be off.
    pub class: AccuracyClass,
    /// Where the figure is from.
    pub source: String,
}

impl EnergyRow {
    /// Energy in attojoules at another supply, by the square of the ratio, rounded to nearest.
    ///
    /// # Panics
    /// If the result exceeds 18 joules, which no validated supply reaches.
    #[must_use]
    pub fn attojoules_at(&self, millivolt: u64) -> u64 {
        let scaled = u128::from(self.attojoules) * u128::from(millivolt) * u128::from(millivolt);
        let reference = u128::from(self.at_mv) * u128::from(self.at_mv);
        u64::try_from((scaled + reference / 2) / reference).expect("an action costs far less than 18 J")
    }
}

/// Leakage of one block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeakageRow {
    /// Block, one instance of it.
    pub block: String,
    /// Power at `at_mv` and `at_mc`.
    pub microwatts: u64,
    /// Supply at which the row holds.
    pub at_mv: u64,
    /// Temperature at which the row holds, in thousandths of a degree Celsius.
    pub at_mc: u64,
    /// Temperature rise that doubles it, in thousandths of a degree.
    pub doubling_mc: u64,
    /// How far it may be off.
    pub class: AccuracyClass,
    /// Where the figure is from.
    pub source: String,
}

impl LeakageRow {
    /// Power in microwatts at a supply and a junction temperature from 0 to 125 degrees; between doublings the
    /// exponential is drawn as a straight line, at most 6 % above it.
    #[must_use]
    pub fn microwatts_at(&self, millivolt: u64, millicelsius: u64) -> u64 {
        // Shift the origin by whole doublings so that the exponent is never negative.
        let back = self.at_mc.div_ceil(self.doubling_mc);
        let above = millicelsius + back * self.doubling_mc - self.at_mc;
        let (doublings, rest) = (above / self.doubling_mc, above % self.doubling_mc);
        let grown = (u128::from(self.microwatts) * u128::from(millivolt)) << doublings;
        let grown = grown * u128::from(self.doubling_mc + rest);
        let scale = (u128::from(self.at_mv) * u128::from(self.doubling_mc)) << back;
        u64::try_from(grown / scale).unwrap_or(u64::MAX)
    }
}

/// A whole energy table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnergyTable {
    name: String,
    rows: Vec<EnergyRow>,
    leakage: Vec<LeakageRow>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawTable {
    name: String,
    row: Vec<toml::Spanned<RawRow>>,
    leakage: Vec<toml::Spanned<RawLeakage>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawRow {
    component: String,
    action: String,
    up_to: Option<String>,
    attojoules: u64,
    at: String,
    class: AccuracyClass,
    source: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawLeakage {
    block: String,
    microwatts: u64,
    at: String,
    temperature: String,
    doubling: String,
    class: AccuracyClass,
    source: String,
}

/// Reads one quantity of a row, naming the key if it is not one.
fn quantity(unit: Unit, key: &str, text: &str, low: u64, high: u64) -> Result<u64, String> {
    match unit.parse(text) {
        Some(value) if (low..=high).contains(&value) => Ok(value),
        _ => Err(format!("`{key}`: expected {}, found \"{text}\"", unit.expects())),
    }
}

impl RawRow {
    fn checked(self) -> Result<EnergyRow, String> {
        let up_to_bytes =
            self.up_to.as_deref().map(|text| quantity(Unit::Size, "up-to", text, 1, 1 << 40)).transpose()?;
        if self.source.trim().is_empty() {
            return Err("`source`: expected where the figure is from".to_owned());
        }
        if self.attojoules > 1_000_000_000_000 {
            return Err(format!("`attojoules`: expected at most 10^12 (1 uJ), found {}", self.attojoules));
        }
        Ok(EnergyRow {
            up_to_bytes,
            attojoules: self.attojoules,
            at_mv: quantity(Unit::Voltage, "at", &self.at, 300, 1500)?,
            component: self.component,
            action: self.action,
            class: self.class,
            source: self.source,
        })
    }
}

impl RawLeakage {
    fn checked(self) -> Result<LeakageRow, String> {
        if self.microwatts > 100_000_000 {
            return Err(format!("`microwatts`: expected at most 10^8 (100 W), found {}", self.microwatts));
        }
        Ok(LeakageRow {
            microwatts: self.microwatts,
            at_mv: quantity(Unit::Voltage, "at", &self.at, 300, 1500)?,
            at_mc: quantity(Unit::Temperature, "temperature", &self.temperature, 0, 125_000)?,
            doubling_mc: quantity(Unit::Temperature, "doubling", &self.doubling, 5_000, 100_000)?,
            block: self.block,
            class: self.class,
            source: self.source,
        })
    }
}

impl EnergyTable {
    /// A built-in table.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn preset(name: &str) -> Result<Self, ConfigError> {
        let Some(text) = energy_table_text(name) else {
            let near = nearest(name, energy_table_names());
            let help = near.map_or_else(
                || format!("energy tables: {}", energy_table_names().collect::<Vec<_>>().join(", ")),
                |near| format!("did you mean `{near}`?"),
            );
            return Err(Problem {
                place: "energy table".to_owned(),
                path: name.to_owned(),
                message: "no such energy table".to_owned(),
                help: Some(help),
                line: None,
            }
            .into());
        };
        Self::from_toml(text, &format!("preset {name}"))
    }

    /// Reads a table; `place` names the file in messages.
    ///
    /// # Errors
    /// If the text is not a table, with every wrong row.
    pub fn from_toml(text: &str, place: &str) -> Result<Self, ConfigError> {
        let line_of =
            |offset: usize| text.as_bytes()[..offset.min(text.len())].iter().filter(|b| **b == b'\n').count();
        let problem = |offset: usize, path: &str, message: String| Problem {
            place: format!("{place}:{}", line_of(offset) + 1),
            path: path.to_owned(),
            message,
            help: None,
            line: text.lines().nth(line_of(offset)).map(|line| line.trim().to_owned()),
        };
        let raw: RawTable = toml::from_str(text)
            .map_err(|e| problem(e.span().map_or(0, |span| span.start), "", e.message().to_owned()))?;
        let mut problems = Vec::new();
        let mut rows: Vec<EnergyRow> = Vec::new();
        for row in raw.row {
            let start = row.span().start;
            let row = row.into_inner();
            let path = format!("{} {}", row.component, row.action);
            match row.checked() {
                Ok(row) if rows.iter().any(|r| r.key() == row.key()) => {
                    problems.push(problem(start, &path, "is there twice".to_owned()));
                }
                Ok(row) => rows.push(row),
                Err(message) => problems.push(problem(start, &path, message)),
            }
        }
        let mut leakage = Vec::new();
        for row in raw.leakage {
            let start = row.span().start;
            let row = row.into_inner();
            let path = row.block.clone();
            match row.checked() {
                Ok(row) => leakage.push(row),
                Err(message) => problems.push(problem(start, &path, message)),
            }
        }
        if problems.is_empty() {
            Ok(Self { name: raw.name, rows, leakage })
        } else {
            Err(ConfigError { problems })
        }
    }

    /// Name of the table.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Every row.
    #[must_use]
    pub fn rows(&self) -> &[EnergyRow] {
        &self.rows
    }

    /// Every leakage row.
    #[must_use]
    pub fn leakage_rows(&self) -> &[LeakageRow] {
        &self.leakage
    }

    fn no_row(&self, component: &str, action: &str) -> ConfigError {
        let of_component = self.rows.iter().filter(|row| row.component == component);
        let near = nearest(action, of_component.map(|row| row.action.as_str()))
            .map(|near| format!("{component} has `{near}`"))
            .or_else(|| {
                nearest(component, self.rows.iter().map(|row| row.component.as_str()))
                    .map(|near| format!("there is a component `{near}`"))
            });
        Problem {
            place: format!("energy table {}", self.name),
            path: format!("{component} {action}"),
            message: "no such row".to_owned(),
            help: near,
            line: None,
        }
        .into()
    }

    /// The row of an action whose cost does not depend on a size.
    ///
    /// # Errors
    /// If the table has none.
    pub fn lookup(&self, component: &str, action: &str) -> Result<&EnergyRow, ConfigError> {
        self.rows
            .iter()
            .find(|row| row.component == component && row.action == action && row.up_to_bytes.is_none())
            .ok_or_else(|| self.no_row(component, action))
    }

    /// The row of an action in a memory of `bytes`: the smallest size class that holds it.
    ///
    /// # Errors
    /// If the table has none that large.
    pub fn sized(&self, component: &str, action: &str, bytes: u64) -> Result<&EnergyRow, ConfigError> {
        self.rows
            .iter()
            .filter(|row| row.component == component && row.action == action)
            .filter(|row| row.up_to_bytes.is_some_and(|up_to| bytes <= up_to))
            .min_by_key(|row| row.up_to_bytes)
            .ok_or_else(|| self.no_row(component, action))
    }

    /// The leakage of one instance of a block.
    ///
    /// # Errors
    /// If the table has none.
    pub fn leakage(&self, block: &str) -> Result<&LeakageRow, ConfigError> {
        self.leakage.iter().find(|row| row.block == block).ok_or_else(|| self.no_row(block, "leakage"))
    }
}

impl EnergyRow {
    fn key(&self) -> (&str, &str, Option<u64>) {
        (&self.component, &self.action, self.up_to_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{EnergyClass, NumberFormat, resolve};

    fn n3e() -> EnergyTable {
        EnergyTable::preset("n3e").expect("the preset loads")
    }

    /// Femtojoules of one int8 MAC in the array alone at a supply.
    fn array_fj(table: &EnergyTable, millivolt: u64) -> f64 {
        ["mac_int8", "operand_int8"]
            .iter()
            .map(|action| {
                let row = table.lookup("npu.matrix", action).expect("row");
                f64::from(u32::try_from(row.attojoules_at(millivolt)).expect("small")) / 1e3
            })
            .sum()
    }

    #[test]
    fn every_preset_table_loads_and_has_the_rows_models_ask_for() {
        for name in energy_table_names() {
            let table = EnergyTable::preset(name).expect("loads");
            assert_eq!(table.name(), name);
            for format in NumberFormat::ALL {
                for kind in ["mac", "operand"] {
                    table
                        .lookup("npu.matrix", &format!("{kind}_{}", format.name()))
                        .expect("a row per format");
                }
            }
            for class in EnergyClass::ALL {
                let component = format!("cpu.{}", class.name());
                for action in
                    ["alu", "mul_div", "load", "store", "amo", "branch", "fp", "system", "stall_cycle"]
                {
                    table.lookup(&component, action).expect("a row per instruction class");
                }
                table.leakage(&component).expect("leakage per class");
            }
        }
    }

    #[test]
    fn a_missing_row_is_an_error_that_names_the_nearest() {
        let error = n3e().lookup("npu.matrix", "mac_int9").expect_err("no such row");
        let text = error.to_string();
        assert!(text.contains("npu.matrix mac_int9") && text.contains("mac_int"), "{text}");
    }

    #[test]
    fn size_classes_are_chosen_upwards() {
        let table = n3e();
        let bytes_of = |bytes| table.sized("npu.scratchpad", "read_byte", bytes).map(|row| row.up_to_bytes);
        assert_eq!(bytes_of(1_572_864), Ok(Some(2 << 20)));
        assert_eq!(bytes_of(2 << 20), Ok(Some(2 << 20)));
        assert!(bytes_of(64 << 20).is_err());
    }

    #[test]
    fn leakage_doubles_with_temperature_and_follows_the_supply() {
        let table = n3e();
        let row = table.leakage("npu.core").expect("row");
        assert_eq!(row.microwatts_at(750, 45_000), 15_000);
        assert_eq!(row.microwatts_at(750, 70_000), 30_000);
        assert_eq!(row.microwatts_at(750, 20_000), 7_500);
        assert_eq!(row.microwatts_at(375, 45_000), 7_500);
        assert!(row.microwatts_at(750, 0) < row.microwatts_at(750, 20_000));
    }

    #[test]
    fn the_array_alone_lands_between_15_and_40_tops_per_watt_at_its_lowest_supply() {
        let soc = resolve("xring-o1", &[]).expect("preset").config;
        let tops_per_watt = 2e3 / array_fj(&n3e(), soc.npu.vmin_mv.into());
        assert!((15.0..=40.0).contains(&tops_per_watt), "{tops_per_watt}");
    }

    #[test]
    fn the_npu_rail_lands_between_4_and_10_tops_per_watt_at_the_running_point() {
        let soc = resolve("xring-o1", &[]).expect("preset").config;
        let (npu, table) = (&soc.npu, n3e());
        let mv = u64::from(npu.voltage_mv);
        let fj = |row: &EnergyRow| f64::from(u32::try_from(row.attojoules_at(mv)).expect("small")) / 1e3;
        let spm = fj(table.sized("npu.scratchpad", "read_byte", npu.scratchpad_bytes).expect("row"));
        let acc_read = fj(table.sized("npu.accumulator", "read_byte", npu.accumulator_bytes).expect("row"));
        let acc_write = fj(table.sized("npu.accumulator", "write_byte", npu.accumulator_bytes).expect("row"));
        let (rows, cols, tile_rows) = (f64::from(npu.rows), f64::from(npu.cols), 128.0);
        let memories = spm / cols + spm / tile_rows + 4.0 * (acc_read + acc_write) / rows;
        let macs_per_cycle = rows * cols;
        let clock = fj(table.lookup("npu.core", "active_cycle").expect("row")) / macs_per_cycle;
        let leak_uw =
            table.leakage("npu.core").expect("row").microwatts_at(mv, soc.power.temperature_mc.into());
        let frequency = f64::from(u32::try_from(npu.frequency_hz).expect("below 4 GHz"));
        let leak = f64::from(u32::try_from(leak_uw).expect("small")) * 1e9 / (macs_per_cycle * frequency);
        let total = array_fj(&table, mv) + memories + clock + leak;
        let tops_per_watt = 2e3 / total;
        assert!((4.0..=10.0).contains(&tops_per_watt), "{tops_per_watt} TOPS/W, {total} fJ a MAC");
    }

    #[test]
    fn cpu_rows_average_to_the_published_coefficients() {
        // Picojoules of a cycle at 1 V (Linux sm8650.dtsi), IPC they are taken at; instructions of each class in 100.
        let mix = [
            ("alu", 45),
            ("load", 25),
            ("branch", 15),
            ("store", 10),
            ("mul_div", 2),
            ("fp", 2),
            ("system", 1),
        ];
        for (class, coefficient, ipc) in [("little", 100.0, 1.1), ("mid", 238.0, 2.0), ("big", 588.0, 2.5)] {
            let table = n3e();
            let sum: u64 = mix
                .iter()
                .map(|(action, share)| {
                    table.lookup(&format!("cpu.{class}"), action).expect("row").attojoules_at(1000) * share
                })
                .sum();
            let mean_pj = f64::from(u32::try_from(sum / 100_000_000).expect("small"));
            let node_scaled = coefficient * 0.87 / ipc;
            assert!(
                (mean_pj / node_scaled - 1.0).abs() < 0.02,
                "{class}: {mean_pj} against {node_scaled} pJ"
            );
        }
    }

    #[test]
    fn wrong_rows_are_reported_with_their_line() {
        let text = "name = \"x\"\nleakage = []\nrow = [\n  { component = \"a\", action = \"b\", attojoules = 1, at = \
                    \"750\", class = \"C\", source = \"s\" },\n]\n";
        let error = EnergyTable::from_toml(text, "x.toml").expect_err("no unit");
        assert!(error.to_string().starts_with("x.toml:4: a b: `at`: expected a voltage"), "{error}");
        let error = EnergyTable::from_toml("name = 3", "x.toml").expect_err("not a table");
        assert!(error.to_string().starts_with("x.toml:1: "), "{error}");
    }
}

//! `SPACE.toml`: what a sweep varies and what it is after, read strictly; every problem names file, line and key.

use std::io::Read as _;
use std::path::Path;

use soc_model::config::{Problem, nearest};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::goals::{Goals, Sense};
use super::options::{Refusal, Scalar, check_option, check_value, default_of, is_path};
use crate::error::CliError;

/// Most points of a grid.
pub const MAX_POINTS: u128 = 1_000_000;

/// Largest file that is read.
const MAX_FILE: u64 = 4 << 20;

/// A key with the value all points have.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Option or `--set` path.
    pub key: String,
    /// Its value.
    pub value: Scalar,
    offset: usize,
}

/// A key with the values points differ in.
#[derive(Clone, Debug)]
pub struct Axis {
    /// Option or `--set` path.
    pub key: String,
    /// Its values, all different.
    pub values: Vec<Scalar>,
    offsets: Vec<usize>,
}

/// A sweep as its file describes it.
#[derive(Clone, Debug)]
pub struct Space {
    /// What all points have, without what the grid replaces.
    pub base: Vec<Setting>,
    /// What they differ in, in the order of the file; the last varies fastest.
    pub axes: Vec<Axis>,
    /// What is wanted.
    pub goals: Goals,
}

impl Space {
    /// Reads a file.
    ///
    /// # Errors
    /// Every problem found, each with its place.
    pub fn read(path: &Path) -> Result<Self, CliError> {
        let place = path.display().to_string();
        let mut bytes = Vec::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
            .map_err(|e| CliError::input(format!("{place}: cannot be read: {}", e.kind())))?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(CliError::input(format!("{place}: more than {MAX_FILE} bytes, expected a sweep")));
        }
        let text = String::from_utf8(bytes).map_err(|e| {
            let at = e.utf8_error().valid_up_to();
            CliError::input(format!("{place}: not a text file: byte {at} is not UTF-8, expected TOML"))
        })?;
        Self::parse(&place, &text)
    }

    /// Reads a text; `place` names it in messages.
    ///
    /// # Errors
    /// Every problem found, each with its place.
    pub fn parse(place: &str, text: &str) -> Result<Self, CliError> {
        let mut reader = Reader { place, text, problems: Vec::new() };
        let space = reader.space();
        reader.finish()?;
        Ok(space)
    }

    /// Number of points.
    #[must_use]
    pub fn points(&self) -> usize {
        self.axes.iter().map(|axis| axis.values.len()).product()
    }

    /// What sets a point apart, in the order of the axes.
    pub fn overrides(&self, point: usize) -> impl Iterator<Item = (&str, &Scalar)> {
        let mut stride = self.points();
        self.axes.iter().map(move |axis| {
            stride /= axis.values.len();
            (axis.key.as_str(), &axis.values[point / stride % axis.values.len()])
        })
    }

    /// All settings of a point.
    pub fn settings(&self, point: usize) -> impl Iterator<Item = (&str, &Scalar)> {
        self.base.iter().map(|s| (s.key.as_str(), &s.value)).chain(self.overrides(point))
    }
}

struct Reader<'a> {
    place: &'a str,
    text: &'a str,
    /// With the offset each is at.
    problems: Vec<(usize, Problem)>,
}

impl Reader<'_> {
    fn line_of(&self, offset: usize) -> usize {
        self.text.as_bytes()[..offset.min(self.text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
    }

    fn report(&mut self, offset: usize, path: &str, refusal: Refusal) {
        let line = self.line_of(offset);
        let problem = Problem {
            place: format!("{}:{line}", self.place),
            path: path.to_owned(),
            message: refusal.message,
            help: refusal.help,
            line: self.text.lines().nth(line - 1).map(|line| line.trim_end().to_owned()),
        };
        self.problems.push((offset, problem));
    }

    fn finish(mut self) -> Result<(), CliError> {
        if self.problems.is_empty() {
            return Ok(());
        }
        self.problems.sort_by_key(|(offset, _)| *offset);
        Err(CliError::Input(self.problems.iter().map(|(_, problem)| problem.to_string()).collect()))
    }

    fn space(&mut self) -> Space {
        let mut space = Space { base: Vec::new(), axes: Vec::new(), goals: Goals::default() };
        let document = match DeTable::parse(self.text) {
            Ok(document) => document,
            Err(e) => {
                let offset = e.span().map_or(0, |span| span.start);
                self.report(offset, "", Refusal::new(format!("not valid TOML: {}", e.message()), None));
                return space;
            }
        };
        let (mut grid_at, mut objectives_at) = (None, None);
        for (offset, name, value) in in_order(document.get_ref()) {
            let DeValue::Table(table) = value.get_ref() else {
                match name {
                    "base" | "grid" | "objectives" => {
                        self.wrong_type(offset, name, "a table", value.get_ref())
                    }
                    _ => self.unknown(offset, name, &["base", "grid", "objectives"]),
                }
                continue;
            };
            match name {
                "base" => space.base = self.base(table),
                "grid" => {
                    grid_at = Some(offset);
                    space.axes = self.grid(table);
                }
                "objectives" => {
                    objectives_at = Some(offset);
                    self.objectives(table, &mut space.goals);
                }
                _ => self.unknown(offset, name, &["base", "grid", "objectives"]),
            }
        }
        self.whole(&mut space, grid_at, objectives_at);
        space
    }

    /// What can only be said once everything is read.
    fn whole(&mut self, space: &mut Space, grid_at: Option<usize>, objectives_at: Option<usize>) {
        let wanted =
            |what: &str, example: &str| Refusal::new(format!("expected {what}"), Some(example.into()));
        let wholly_read = self.problems.is_empty();
        // What is missing is missed where the file ends.
        let end = self.text.trim_end().len();
        if wholly_read && space.axes.is_empty() {
            let refusal = wanted("at least one list of values", "for example \"npu.cores\" = [2, 4, 6]");
            self.report(grid_at.unwrap_or(end), "grid", refusal);
        }
        if wholly_read && space.goals.objectives.is_empty() {
            let example = "for example minimise = [\"time.ttft_s\", \"energy.total_j\"]";
            let refusal = wanted("at least one metric to minimise or maximise", example);
            self.report(objectives_at.unwrap_or(end), "objectives", refusal);
        }
        let points = space.axes.iter().fold(1u128, |n, a| n.saturating_mul(a.values.len().max(1) as u128));
        if points > MAX_POINTS {
            let message = format!("{points} points, at most {MAX_POINTS} are run");
            self.report(grid_at.unwrap_or(0), "grid", Refusal::new(message, None));
        }
        space.base.retain(|setting| space.axes.iter().all(|axis| axis.key != setting.key));
        let socs = self.socs(space);
        for setting in &space.base {
            if let Err(refusal) = check_value(&setting.key, &setting.value, &socs) {
                self.report(setting.offset, &format!("base.{}", quoted(&setting.key)), refusal);
            }
        }
        for axis in &space.axes {
            for (value, offset) in axis.values.iter().zip(&axis.offsets) {
                if let Err(refusal) = check_value(&axis.key, value, &socs) {
                    self.report(*offset, &format!("grid.{}", quoted(&axis.key)), refusal);
                }
            }
        }
    }

    /// All chips of the sweep that can be resolved; one that cannot is reported where it is named.
    fn socs(&self, space: &Space) -> Vec<String> {
        let mut socs: Vec<String> = space
            .axes
            .iter()
            .filter(|axis| axis.key == "soc")
            .flat_map(|axis| &axis.values)
            .chain(space.base.iter().filter(|s| s.key == "soc").map(|s| &s.value))
            .map(ToString::to_string)
            .collect();
        if socs.is_empty() {
            socs.extend(default_of("soc"));
        }
        socs.retain(|soc| check_value("soc", &Scalar::Text(soc.clone()), &[]).is_ok());
        socs
    }

    fn unknown(&mut self, offset: usize, path: &str, valid: &[&str]) {
        let name = path.rsplit('.').next().unwrap_or(path);
        let help = match nearest(name, valid.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("valid here: {}", valid.join(", ")),
        };
        self.report(offset, path, Refusal::new("unknown key", Some(help)));
    }

    fn wrong_type(&mut self, offset: usize, path: &str, expected: &str, found: &DeValue<'_>) {
        let message = format!("expected {expected}, found a value of type {}", found.type_str());
        self.report(offset, path, Refusal::new(message, None));
    }

    /// Whether a key may be set at all; a table is most likely a path whose quotes were forgotten.
    fn key(&mut self, offset: usize, table: &str, key: &str, value: &DeValue<'_>) -> bool {
        let path = format!("{table}.{}", quoted(key));
        if let DeValue::Table(inner) = value {
            let first = inner.iter().next().map_or("...", |(name, _)| name.get_ref().as_ref());
            let help = format!("a --set path goes in quotes: \"{key}.{first}\"");
            self.report(offset, &path, Refusal::new("expected a value, found a table", Some(help)));
            return false;
        }
        if !is_path(key)
            && let Err(refusal) = check_option(key)
        {
            self.report(offset, &path, refusal);
            return false;
        }
        true
    }

    fn scalar(&mut self, offset: usize, path: &str, value: &DeValue<'_>) -> Option<Scalar> {
        let scalar = match value {
            DeValue::String(text) => Some(Scalar::Text(text.to_string())),
            DeValue::Integer(n) => i64::from_str_radix(n.as_str(), n.radix()).ok().map(Scalar::Integer),
            DeValue::Float(x) => x.as_str().parse().ok().filter(|x: &f64| x.is_finite()).map(Scalar::Float),
            DeValue::Boolean(b) => Some(Scalar::Boolean(*b)),
            DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
        };
        if scalar.is_none() {
            let expected = "a string, a whole number, a finite number, true or false";
            self.wrong_type(offset, path, expected, value);
        }
        scalar
    }

    fn base(&mut self, table: &DeTable<'_>) -> Vec<Setting> {
        let mut settings = Vec::new();
        for (offset, key, value) in in_order(table) {
            if !self.key(offset, "base", key, value.get_ref()) {
                continue;
            }
            let path = format!("base.{}", quoted(key));
            if let DeValue::Array(_) = value.get_ref() {
                let help = Some("a list of values goes into [grid]".to_owned());
                self.report(offset, &path, Refusal::new("expected one value, found a list", help));
            } else if let Some(value) = self.scalar(offset, &path, value.get_ref()) {
                settings.push(Setting { key: key.to_owned(), value, offset });
            }
        }
        settings
    }

    fn grid(&mut self, table: &DeTable<'_>) -> Vec<Axis> {
        let mut axes = Vec::new();
        for (offset, key, value) in in_order(table) {
            if !self.key(offset, "grid", key, value.get_ref()) {
                continue;
            }
            let path = format!("grid.{}", quoted(key));
            let DeValue::Array(list) = value.get_ref() else {
                let help = Some("a single value goes into [base], or into brackets".to_owned());
                let message = format!(
                    "expected a list of values, found a value of type {}",
                    value.get_ref().type_str()
                );
                self.report(offset, &path, Refusal::new(message, help));
                continue;
            };
            if list.is_empty() {
                self.report(offset, &path, Refusal::new("expected at least one value, found []", None));
            }
            let mut axis = Axis { key: key.to_owned(), values: Vec::new(), offsets: Vec::new() };
            for item in list {
                let at = item.span().start;
                let Some(value) = self.scalar(at, &path, item.get_ref()) else { continue };
                if axis.values.contains(&value) {
                    let message = format!("{} is given twice, its points would be too", value.written());
                    self.report(at, &path, Refusal::new(message, None));
                    continue;
                }
                axis.values.push(value);
                axis.offsets.push(at);
            }
            axes.push(axis);
        }
        axes
    }

    fn objectives(&mut self, table: &DeTable<'_>, goals: &mut Goals) {
        for (offset, key, value) in in_order(table) {
            let path = format!("objectives.{key}");
            if !matches!(key, "minimise" | "maximise" | "constraints") {
                self.unknown(offset, &path, &["minimise", "maximise", "constraints"]);
                continue;
            }
            let DeValue::Array(list) = value.get_ref() else {
                self.wrong_type(offset, &path, "a list of strings", value.get_ref());
                continue;
            };
            for item in list {
                let at = item.span().start;
                let DeValue::String(text) = item.get_ref() else {
                    self.wrong_type(at, &path, "a string", item.get_ref());
                    continue;
                };
                let added = match key {
                    "minimise" => goals.add_objective(text, Sense::Minimise),
                    "maximise" => goals.add_objective(text, Sense::Maximise),
                    _ => goals.add_constraint(text),
                };
                if let Err(refusal) = added {
                    self.report(at, &path, refusal);
                }
            }
        }
    }
}

/// Keys and values in the order they are written, with the offset of the key.
fn in_order<'a, 't>(table: &'a DeTable<'t>) -> Vec<(usize, &'a str, &'a Spanned<DeValue<'t>>)> {
    let mut entries: Vec<_> =
        table.iter().map(|(key, value)| (key.span().start, key.get_ref().as_ref(), value)).collect();
    entries.sort_by_key(|(offset, _, _)| *offset);
    entries
}

/// A key as TOML writes it.
fn quoted(key: &str) -> String {
    if is_path(key) { format!("\"{key}\"") } else { key.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::Space;

    const GOALS: &str = "[objectives]\nminimise = [\"time.ttft_s\"]\n";

    fn space(text: &str) -> Result<Space, String> {
        Space::parse("space.toml", &format!("{text}{GOALS}")).map_err(|e| e.to_string())
    }

    #[test]
    fn points_count_with_the_last_axis_fastest_and_the_grid_over_the_base() {
        let space = space(
            "[base]\nsoc = \"tiny\"\nprefill = 8\n[grid]\nprefill = [4, 8]\n\"npu.cores\" = [1, 2]\ndecode = [3]\n",
        )
        .expect("a space");
        assert_eq!(space.points(), 4);
        let text = |point| {
            space.settings(point).map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(text(0), "soc=tiny prefill=4 npu.cores=1 decode=3");
        assert_eq!(text(1), "soc=tiny prefill=4 npu.cores=2 decode=3");
        assert_eq!(text(2), "soc=tiny prefill=8 npu.cores=1 decode=3");
        assert_eq!(text(3), "soc=tiny prefill=8 npu.cores=2 decode=3");
    }

    #[test]
    fn a_path_need_only_exist_on_one_chip_of_the_sweep() {
        let both = "[grid]\nsoc = [\"tiny\", \"xring-o1\"]\n\"cpu.prime.frequency\" = [\"3 GHz\"]\n";
        assert_eq!(space(both).map(|s| s.points()), Ok(2));
        let neither = "[grid]\nsoc = [\"tiny\"]\n\"cpu.prime.frequency\" = [\"3 GHz\"]\n";
        assert!(
            space(neither).is_err_and(|e| e.starts_with("error: space.toml:3: grid.\"cpu.prime.frequency\""))
        );
    }

    #[test]
    fn absurd_grids_are_refused_with_their_count() {
        let list: Vec<String> = (1..=1001).map(|n| n.to_string()).collect();
        let list = list.join(",");
        let refused = space(&format!("[grid]\nprefill = [{list}]\nseed = [{list}]\n")).expect_err("too many");
        assert!(
            refused.starts_with("error: space.toml:1: grid: 1002001 points, at most 1000000"),
            "{refused}"
        );
    }
}

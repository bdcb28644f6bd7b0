//! What is wrong with a user's configuration: every problem, each with its place and what would be right.

use std::fmt;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// File and line, `--set`, or the name that was given.
    pub place: String,
    /// Dotted path of the key; empty where the whole file is meant.
    pub path: String,
    /// What is wrong and what was expected.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
    /// The line of the file.
    pub line: Option<String>,
}

impl Problem {
    pub(crate) fn new(place: impl Into<String>, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: place.into(), path: path.into(), message: message.into(), help: None, line: None }
    }

    pub(crate) fn help(mut self, help: Option<String>) -> Self {
        self.help = help;
        self
    }

    pub(crate) fn line(mut self, line: Option<&str>) -> Self {
        self.line = line.map(str::to_owned);
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{}", self.message)?;
        if let Some(line) = &self.line {
            write!(f, "\n  | {line}")?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

/// The user's configuration is wrong; all problems found, in file order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// Every problem.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }
}

/// The candidate most like `name`, if any is alike enough to be what was meant.
#[must_use]
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut best: Option<(&str, f64)> = None;
    for candidate in candidates {
        let slip = strsim::damerau_levenshtein(name, candidate) == 1;
        let likeness = if slip { 1.0 } else { strsim::jaro_winkler(name, candidate) };
        if likeness > best.map_or(0.7, |(_, so_far)| so_far) {
            best = Some((candidate, likeness));
        }
    }
    best.map(|(candidate, _)| candidate)
}

/// "did you mean `x`?", or the list of valid names where none is alike.
pub(crate) fn suggestion(name: &str, candidates: &[&str]) -> Option<String> {
    match nearest(name, candidates.iter().copied()) {
        Some(near) => Some(format!("did you mean `{near}`?")),
        None if candidates.is_empty() => None,
        None => Some(format!("valid here: {}", candidates.join(", "))),
    }
}

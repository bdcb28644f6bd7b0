//! What is wrong with a model or scheme the user named.

use std::fmt;

/// One thing that is wrong, with its place and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadProblem {
    /// File (and line where known) or option.
    pub place: String,
    /// Key; empty where the whole file is meant.
    pub key: String,
    /// What is wrong and what was expected.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
}

impl WorkloadProblem {
    pub(crate) fn new(place: impl Into<String>, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: place.into(), key: key.into(), message: message.into(), help: None }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for WorkloadProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}", self.message)?;
        if let Some(help) = &self.help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

/// The user's workload is wrong; all problems found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct WorkloadError {
    /// Every problem.
    pub problems: Vec<WorkloadProblem>,
}

impl fmt::Display for WorkloadError {
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

impl From<WorkloadProblem> for WorkloadError {
    fn from(problem: WorkloadProblem) -> Self {
        Self { problems: vec![problem] }
    }
}

/// An error that names the nearest valid name, or all of them where none is alike.
pub(crate) fn unknown_name(place: &str, what: &str, name: &str, valid: &[&str]) -> WorkloadError {
    let mut best: Option<(&str, f64)> = None;
    for candidate in valid {
        let slip = strsim::damerau_levenshtein(name, candidate) == 1;
        // An unfinished name means more than a slip of one character.
        let unfinished = name.len() >= 3 && candidate.starts_with(name);
        let likeness = match (unfinished, slip) {
            (true, _) => 2.0,
            (false, true) => 1.0,
            (false, false) => strsim::jaro_winkler(name, candidate),
        };
        if likeness > best.map_or(0.7, |(_, so_far)| so_far) {
            best = Some((candidate, likeness));
        }
    }
    let help = match best {
        Some((near, _)) => format!("did you mean `{near}`?"),
        None => format!("there are: {}", valid.join(", ")),
    };
    WorkloadProblem::new(place, "", format!("no {what} `{name}`")).help(help).into()
}

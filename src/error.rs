//! What ends a command early, and the exit code it ends with.

use std::fmt;
use std::io;

use soc_model::config::ConfigError;
use traces::workload::WorkloadError;

/// A command that did not end well; one variant per exit code.
#[derive(Debug)]
pub enum CliError {
    /// Done, and what was asked does not hold: a regression, a failed guest or validation row (exit code 1).
    DoesNotHold(String),
    /// The user's input is wrong: one message per problem (exit code 3).
    Input(Vec<String>),
    /// The modelled software failed, or the model has a gap (exit code 4).
    Simulation(String),
    /// Interrupted and resumable (exit code 75).
    Interrupted(String),
    /// The result could not be written; a closed pipe is not an error.
    Output(io::Error),
}

impl CliError {
    /// One problem in the user's input.
    pub fn input(message: impl Into<String>) -> Self {
        Self::Input(vec![message.into()])
    }

    /// The exit code.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::DoesNotHold(_) => 1,
            Self::Input(_) => 3,
            Self::Simulation(_) => 4,
            Self::Interrupted(_) => 75,
            Self::Output(e) if e.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Output(_) => 3,
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DoesNotHold(message) => write!(f, "failed: {message}"),
            Self::Input(messages) => {
                for (index, message) in messages.iter().enumerate() {
                    if index > 0 {
                        writeln!(f)?;
                    }
                    write!(f, "error: {message}")?;
                }
                Ok(())
            }
            Self::Simulation(message) => write!(f, "simulation fault: {message}"),
            Self::Interrupted(message) => write!(f, "interrupted: {message}"),
            Self::Output(e) => write!(f, "error: cannot write the result: {e}"),
        }
    }
}

impl std::error::Error for CliError {}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        Self::Input(error.problems.iter().map(ToString::to_string).collect())
    }
}

impl From<WorkloadError> for CliError {
    fn from(error: WorkloadError) -> Self {
        Self::Input(error.problems.iter().map(ToString::to_string).collect())
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

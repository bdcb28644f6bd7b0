//! The file of a trace: written beside its name while the run goes on, renamed when it is whole.

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use sim_kernel::Sink;
use traces::perfetto::Writer;

use crate::error::CliError;

/// A trace being written. Dropped before its end, it leaves nothing.
pub(super) struct TraceFile {
    path: PathBuf,
    partial: PathBuf,
    writer: Option<Writer<BufWriter<File>>>,
}

fn borrowed<'a>(facts: &'a [(&'a str, String)]) -> Vec<(&'a str, &'a str)> {
    facts.iter().map(|(k, v)| (*k, v.as_str())).collect()
}

impl TraceFile {
    /// Starts the file.
    pub(super) fn create(path: &Path, header: &[(&'static str, String)]) -> Result<Self, CliError> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.tmp", std::process::id()));
        let partial = path.with_file_name(name);
        let file = File::create(&partial).map_err(|e| cannot(path, &e))?;
        let writer = Writer::new(BufWriter::with_capacity(1 << 18, file), &borrowed(header));
        Ok(Self { path: path.to_owned(), partial, writer: Some(writer) })
    }

    /// Takes the run's probes.
    pub(super) fn sink(&mut self) -> &mut dyn Sink {
        self.writer.as_mut().expect("taken only at the end")
    }

    /// Ends the file and gives it its name.
    pub(super) fn finish(mut self, footer: &[(&'static str, String)]) -> Result<(), CliError> {
        let writer = self.writer.take().expect("taken only here");
        let written = writer.finish(&borrowed(footer)).and_then(|_| fs::rename(&self.partial, &self.path));
        written.map_err(|e| cannot(&self.path, &e))
    }
}

impl Drop for TraceFile {
    fn drop(&mut self) {
        // Renamed where the trace is whole; else whatever is there is of no use.
        let _ = fs::remove_file(&self.partial);
    }
}

fn cannot(path: &Path, error: &io::Error) -> CliError {
    CliError::input(format!("--trace: {}: cannot be written: {error}", path.display()))
}

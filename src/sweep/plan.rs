//! The points of a sweep with the content of each as a key: points of equal content are one design, run once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use rayon::prelude::*;
use reports::RunRecord;
use reports::facts::{MemoryModel as RecordedMemoryModel, ModelInfo, Named, Workload};
use serde_json::json;
use soc_model::soc::MemoryTiming;

use super::options::{one_line, request};
use super::space::Space;
use crate::error::CliError;
use crate::session::{PREFILL_CHUNK, RunRequest, firmware_sha256};

/// A design: all that decides the result of a run.
#[derive(Clone, Debug)]
pub struct Design {
    /// Hash of its content, in hexadecimal.
    pub key: String,
    /// The first point that is this design.
    pub point: usize,
}

/// Points and designs of a sweep.
#[derive(Debug)]
pub struct Plan<'a> {
    /// What was asked.
    pub space: &'a Space,
    /// Every design once, in the order of their first points.
    pub designs: Vec<Design>,
    /// Per point its index into the designs, or why it is none.
    pub points: Vec<Result<usize, String>>,
    firmware: Firmware,
}

impl<'a> Plan<'a> {
    /// Resolves every point.
    ///
    /// # Errors
    /// If no point of the grid can be run at all.
    pub fn new(space: &'a Space) -> Result<Self, CliError> {
        let firmware = Firmware::default();
        let keys: Vec<Result<String, CliError>> = (0..space.points())
            .into_par_iter()
            .map(|point| {
                let request = request(space.settings(point))?;
                Ok(key(&request, &firmware.sha256(&request)?))
            })
            .collect();
        if let Some(Err(first)) = keys.first()
            && keys.iter().all(Result::is_err)
        {
            let CliError::Input(messages) = first else { return Err(CliError::input(first.to_string())) };
            let mut messages = messages.clone();
            messages
                .push("no point of the grid can be run; above is what is wrong with the first".to_owned());
            return Err(CliError::Input(messages));
        }
        let mut designs: Vec<Design> = Vec::new();
        let mut known: BTreeMap<String, usize> = BTreeMap::new();
        let mut points = Vec::with_capacity(keys.len());
        for (point, key) in keys.into_iter().enumerate() {
            points.push(key.map_err(|e| message(&e)).map(|key| {
                *known.entry(key.clone()).or_insert_with(|| {
                    designs.push(Design { key, point });
                    designs.len() - 1
                })
            }));
        }
        Ok(Self { space, designs, points, firmware })
    }

    /// The run that a design is.
    ///
    /// # Errors
    /// If a file it is made from has changed for the worse since the plan.
    pub fn request(&self, design: &Design) -> Result<RunRequest, CliError> {
        request(self.space.settings(design.point))
    }

    /// Whether a record is the result of this request.
    #[must_use]
    pub fn made(&self, request: &RunRequest, record: &RunRecord) -> bool {
        record.soc == Named { name: request.soc.name.clone(), hash: request.soc.hash() }
            && record.model
                == ModelInfo {
                    name: request.model.name.clone(),
                    params: request.model.params(),
                    quant: request.quant.name.to_string(),
                }
            && record.workload
                == Workload {
                    prompt_tokens: request.prefill_tokens.into(),
                    decode_tokens: request.decode_tokens.into(),
                    context_tokens: request.context_tokens.into(),
                    seed: request.seed,
                }
            && record.memory_model == recorded(request.memory_model)
            && record.version == env!("CARGO_PKG_VERSION")
            && self.firmware.sha256(request).is_ok_and(|sha256| sha256 == record.firmware.sha256)
    }
}

/// The memory path as records name it.
const fn recorded(memory: MemoryTiming) -> RecordedMemoryModel {
    match memory {
        MemoryTiming::Sampled => RecordedMemoryModel::Sampled,
        MemoryTiming::Burst => RecordedMemoryModel::Burst,
    }
}

/// Why a point failed, in one line.
pub(super) fn message(error: &CliError) -> String {
    match error {
        CliError::Input(messages) => one_line(&messages.join("\n")),
        other => one_line(&other.to_string()),
    }
}

/// Hashes of firmware files, each read once.
#[derive(Debug, Default)]
struct Firmware(Mutex<BTreeMap<Option<PathBuf>, String>>);

impl Firmware {
    fn sha256(&self, request: &RunRequest) -> Result<String, CliError> {
        let mut known = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(sha256) = known.get(&request.firmware) {
            return Ok(sha256.clone());
        }
        let sha256 = firmware_sha256(request.firmware.as_deref())?;
        known.insert(request.firmware.clone(), sha256.clone());
        Ok(sha256)
    }
}

/// The hash of everything that decides a result. A new field of the request must find its place here.
fn key(request: &RunRequest, firmware_sha256: &str) -> String {
    let RunRequest {
        soc,
        model,
        quant,
        prefill_tokens,
        decode_tokens,
        context_tokens,
        memory_model,
        // By content, not by name.
        firmware: _,
        seed,
        // Sweeps have no prompt option, so nothing of theirs has a text.
        text,
        ids,
        sampling,
        pages,
    } = request;
    assert!(text.is_none() && ids.is_none(), "a sweep cannot ask for a text or for ids");
    let canonical = json!({
        "record": reports::SCHEMA,
        "version": env!("CARGO_PKG_VERSION"),
        "soc": soc,
        "model": model,
        "quant": quant,
        "prefill_tokens": prefill_tokens,
        "decode_tokens": decode_tokens,
        "context_tokens": context_tokens,
        "prefill_chunk": PREFILL_CHUNK,
        "memory_model": recorded(*memory_model).word(),
        "firmware_sha256": firmware_sha256,
        "seed": seed,
        "kv_pages": (pages.page_positions, pages.pool_positions),
        "sampling": (sampling.temperature, sampling.candidates(), sampling.top_p),
    });
    blake3::hash(canonical.to_string().as_bytes()).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Plan;
    use crate::sweep::space::Space;

    fn keys(grid: &str) -> Vec<String> {
        let text = format!(
            "[base]\nsoc = \"tiny\"\nmodel = \"qwen2.5-1.5b\"\n[grid]\n{grid}\n[objectives]\nminimise = [\"time.ttft_s\"]\n"
        );
        let space = Space::parse("space.toml", &text).expect("a space");
        let plan = Plan::new(&space).expect("a plan");
        plan.points
            .iter()
            .map(|p| p.as_ref().map_or_else(Clone::clone, |d| plan.designs[*d].key.clone()))
            .collect()
    }

    #[test]
    fn equal_content_is_one_design_and_everything_that_matters_is_content() {
        let same = keys("\"npu.frequency\" = [\"500 MHz\", \"0.5 GHz\"]");
        assert_eq!(same[0], same[1]);
        let mut all = BTreeSet::from([same[0].clone()]);
        for grid in [
            "\"npu.cores\" = [1]",
            "model = [\"llama-3.2-1b\"]",
            "quant = [\"w8a8\"]",
            "prefill = [4]",
            "decode = [4]",
            "context = [4]",
            "seed = [4]",
        ] {
            all.extend(keys(grid));
        }
        assert_eq!(all.len(), 8, "some key does not depend on all it should");
        assert_eq!(keys("seed = [0]"), [same[0].clone()], "the default, written out");
    }

    #[test]
    fn a_point_that_cannot_be_is_no_design_and_a_grid_of_them_is_no_plan() {
        let mixed = keys("\"npu.cores\" = [9, 1]");
        assert!(mixed[0].contains("npu.cores: expected a whole number from 1 to 8, found 9"), "{}", mixed[0]);
        let text = "[base]\nsoc = \"tiny\"\n[grid]\n\"npu.cores\" = [9, 10]\n[objectives]\nminimise = [\"time.ttft_s\"]\n";
        let space = Space::parse("space.toml", text).expect("a space");
        assert!(Plan::new(&space).is_err_and(|e| e.code() == 3));
    }
}

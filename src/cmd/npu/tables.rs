//! SCALE-Sim's three reports of a list of products.
//!
//! Columns are named and numbered as SCALE-Sim 3 does: cycles from 0, so one less than elsewhere here. Memory columns
//! spread an operand's traffic over the whole job; with an ideal memory each element passes once.

use std::fs;
use std::path::Path;

use npu_model::study::Study;
use npu_model::study::access::Port;

use super::Ran;
use crate::error::CliError;

const COMPUTE: &str = "LayerID, Total Cycles (incl. prefetch), Total Cycles, Stall Cycles, Overall Util %, Mapping \
                       Efficiency %, Compute Util %,\n";
const BANDWIDTH: &str = "LayerID, Avg IFMAP SRAM BW, Avg FILTER SRAM BW, Avg OFMAP SRAM BW, Avg IFMAP DRAM BW, Avg \
                         FILTER DRAM BW, Avg OFMAP DRAM BW,\n";
const ACCESS: &str = "LayerID, SRAM IFMAP Start Cycle, SRAM IFMAP Stop Cycle, SRAM IFMAP Reads, SRAM Filter Start Cycle, \
                      SRAM Filter Stop Cycle, SRAM Filter Reads, SRAM OFMAP Start Cycle, SRAM OFMAP Stop Cycle, SRAM \
                      OFMAP Writes, DRAM IFMAP Start Cycle, DRAM IFMAP Stop Cycle, DRAM IFMAP Reads, DRAM Filter Start \
                      Cycle, DRAM Filter Stop Cycle, DRAM Filter Reads, DRAM OFMAP Start Cycle, DRAM OFMAP Stop Cycle, \
                      DRAM OFMAP Writes,\n";

/// Writes the three files to `folder`, which is made if it is not there.
///
/// # Errors
/// If a file cannot be written.
pub(super) fn write(folder: &Path, study: &Study, rows: &[Ran]) -> Result<(), CliError> {
    let (mut compute, mut bandwidth, mut access) =
        (COMPUTE.to_owned(), BANDWIDTH.to_owned(), ACCESS.to_owned());
    for (id, (_, p, outcome)) in rows.iter().enumerate() {
        let a = study.access(*p, outcome);
        // One product on one PE with no constant lasts one cycle, which is numbered 0.
        let total = outcome.total_cycles - 1;
        let stall = outcome.total_cycles - outcome.compute_cycles;
        let pes = study.array.rows as f64 * study.array.cols as f64;
        let rate = |elements: u64| elements as f64 / (total.max(1) as f64);
        let utilisation = 100.0 * outcome.macs as f64 / (total.max(1) as f64 * pes);
        compute += &format!(
            "{id}, {total}, {total}, {stall}, {utilisation}, {}, {},\n",
            100.0 * a.mapping_efficiency,
            100.0 * a.compute_utilisation
        );
        let rates: Vec<String> =
            a.local.iter().chain(&a.memory).map(|p: &Port| rate(p.elements).to_string()).collect();
        bandwidth += &format!("{id}, {},\n", rates.join(", "));
        let ports: Vec<String> = a
            .local
            .iter()
            .chain(&a.memory)
            .map(|p| format!("{}, {}, {}", p.start, p.stop, p.elements))
            .collect();
        access += &format!("{id}, {},\n", ports.join(", "));
    }
    let bad = |path: &Path, e: std::io::Error| CliError::input(format!("--reports {}: {e}", path.display()));
    fs::create_dir_all(folder).map_err(|e| bad(folder, e))?;
    for (name, text) in [
        ("COMPUTE_REPORT.csv", compute),
        ("BANDWIDTH_REPORT.csv", bandwidth),
        ("DETAILED_ACCESS_REPORT.csv", access),
    ] {
        let path = folder.join(name);
        fs::write(&path, text).map_err(|e| bad(&path, e))?;
    }
    Ok(())
}

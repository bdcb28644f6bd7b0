//! The presets built into the program.

use crate::dram::standard::STANDARDS;

/// SoC presets by name.
const SOCS: [(&str, &str); 6] = [
    ("xring-o1", include_str!("../../presets/soc/xring-o1.toml")),
    ("snapdragon-8-gen3", include_str!("../../presets/soc/snapdragon-8-gen3.toml")),
    ("snapdragon-8-elite", include_str!("../../presets/soc/snapdragon-8-elite.toml")),
    ("a18-pro", include_str!("../../presets/soc/a18-pro.toml")),
    ("tensor-g4", include_str!("../../presets/soc/tensor-g4.toml")),
    ("tiny", include_str!("../../presets/soc/tiny.toml")),
];

/// Names of the SoC presets.
pub fn soc_names() -> impl Iterator<Item = &'static str> {
    SOCS.iter().map(|(name, _)| *name)
}

/// Names of the memory standards and speed bins.
pub fn standard_names() -> impl Iterator<Item = &'static str> {
    STANDARDS.iter().map(|(name, _)| *name)
}

pub(crate) fn soc_text(name: &str) -> Option<&'static str> {
    SOCS.iter().find(|(candidate, _)| *candidate == name).map(|(_, text)| *text)
}

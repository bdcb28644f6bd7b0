//! From a preset, a user's file and `--set` options to one checked, integer [`SocConfig`].
//!
//! Layers (`layer`) are laid over each other with every value's origin kept, checked against the tree of valid
//! keys (`shape`, derived from the strict structs of `raw`), validated as a whole (`validate`) and turned into
//! integers (`resolved`).

mod error;
mod layer;
mod preset;
mod quantity;
mod raw;
mod resolved;
mod shape;
mod show;
#[cfg(test)]
mod tests;
mod validate;

use serde::Deserialize;

pub use error::{ConfigError, Problem, nearest};
pub use layer::Origin;
pub use preset::{soc_names, standard_names};
pub use quantity::Unit;
pub use resolved::{
    BootConfig, CacheConfig, ClusterConfig, CoreConfig, DramConfig, EnergyClass, FabricConfig, InOrderConfig,
    L3Config, NpuConfig, NumberFormat, PowerConfig, QosClass, SlcConfig, SocConfig, TrafficConfig,
};
pub use shape::soc_schema;

use layer::Entries;
use raw::RawSoc;

/// A resolved configuration together with where each of its values came from.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The configuration.
    pub config: SocConfig,
    entries: Entries,
}

impl Resolved {
    /// Where the value at a dotted path came from.
    #[must_use]
    pub fn origin(&self, path: &str) -> Option<&Origin> {
        self.entries.get(path).map(|entry| &entry.origin)
    }

    /// The configuration as TOML, each value with its source as a trailing comment.
    #[must_use]
    pub fn to_toml(&self) -> String {
        show::soc(&self.entries)
    }
}

impl SocConfig {
    /// Hash of the canonical form, in hexadecimal.
    ///
    /// # Panics
    /// Never: the structure has only keys that JSON can hold.
    #[must_use]
    pub fn hash(&self) -> String {
        let canonical = serde_json::to_vec(self).expect("plain structs of integers and strings serialise");
        blake3::hash(&canonical).to_hex().to_string()
    }
}

/// Resolves a preset name or a file with `--set path=value` options laid over it.
///
/// # Errors
/// Every problem found, each with its place.
pub fn resolve(soc: &str, sets: &[String]) -> Result<Resolved, ConfigError> {
    let shape = shape::soc_shape();
    let mut entries = layer::read(soc, &shape)?;
    let mut problems: Vec<Problem> =
        sets.iter().filter_map(|option| layer::set(&mut entries, &shape, option).err()).collect();
    let missing = layer::missing(&entries, &shape);
    if let Some(first) = missing.first() {
        let message = match missing.len() {
            1 => "is missing".to_owned(),
            n => format!("is missing, and {} more keys", n - 1),
        };
        let help = format!("start the file with extends = \"{}\"", soc_names().next().unwrap_or_default());
        problems.push(Problem::new(soc, first, message).help(Some(help)));
    }
    if !problems.is_empty() {
        return Err(ConfigError { problems });
    }
    let raw = RawSoc::deserialize(layer::nested(&entries))
        .map_err(|e| Problem::new(soc, "", e.message().to_owned()))?;
    let config = validate::validate(&raw, &entries)?;
    Ok(Resolved { config, entries })
}

/// Checks that a `path=value` names a value of this SoC and has its type; ranges and relations are [`resolve`]'s.
///
/// # Errors
/// What is wrong with it, or with the SoC.
pub fn check_set(soc: &str, option: &str) -> Result<(), ConfigError> {
    let shape = shape::soc_shape();
    let mut entries = layer::read(soc, &shape)?;
    layer::set(&mut entries, &shape, option).map_err(ConfigError::from)
}

//! How a sentence encoder's folder says that rows become a vector: `modules.json` and the pooling module's settings.
//!
//! Models: the mean of all tokens or the first token's vector, with or without the module that brings it to length one;
//! a folder without such files: the mean at length one. Does not model: other poolings, dense layers behind them.
//! Source: the layout of a model folder as sentence-transformers writes it.

use std::path::Path;

use serde_json::Value;

use super::model::{json, problem};
use crate::workload::{Pooling, WorkloadError};

/// Settings of the pooling module that are refused when they are on.
const OTHERS: [&str; 4] = [
    "pooling_mode_max_tokens",
    "pooling_mode_mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens",
    "pooling_mode_lasttoken",
];

/// What the folder says.
///
/// # Errors
/// What it asks for and is not modelled, with file and key.
pub(super) fn read(folder: &Path) -> Result<Pooling, WorkloadError> {
    let path = folder.join("modules.json");
    if !path.exists() {
        let settings = folder.join("1_Pooling/config.json");
        let first = if settings.exists() { first(&settings)? } else { false };
        return Ok(Pooling { first, as_it_is: false });
    }
    let modules = json(&path)?;
    let Some(modules) = modules.as_array() else {
        return Err(problem(&path, "", "expected a list of modules"));
    };
    let mut pooling = Pooling { first: false, as_it_is: true };
    let mut pooled = false;
    for (i, module) in modules.iter().enumerate() {
        let key = |key: &str| format!("[{i}].{key}");
        let kind = module["type"].as_str().unwrap_or_default();
        // Their paths in the library have changed, their names have not.
        match kind.rsplit('.').next().unwrap_or_default() {
            "Transformer" if i == 0 => {}
            "Pooling" if !pooled => {
                let inner = module["path"].as_str().unwrap_or_default();
                if inner.is_empty() || inner.contains(['/', '\\', '\0']) || inner == ".." {
                    return Err(problem(
                        &path,
                        &key("path"),
                        format!("expected a folder's name, found {}", module["path"]),
                    ));
                }
                pooling.first = first(&folder.join(inner).join("config.json"))?;
                pooled = true;
            }
            "Normalize" if pooled => pooling.as_it_is = false,
            _ => {
                let message = format!(
                    "`{kind}` is not supported there, only Transformer, then Pooling, then Normalize or nothing"
                );
                return Err(problem(&path, &key("type"), message));
            }
        }
    }
    if !pooled {
        return Err(problem(&path, "", "has no Pooling: a vector for each token is not supported"));
    }
    Ok(pooling)
}

/// Whether the first token's vector is taken; else the mean.
fn first(path: &Path) -> Result<bool, WorkloadError> {
    let settings = json(path)?;
    let on = |key: &str| settings[key] == Value::Bool(true);
    if let Some(key) = OTHERS.into_iter().find(|key| on(key)) {
        let message = "is not supported, only pooling_mode_cls_token or pooling_mode_mean_tokens";
        return Err(problem(path, key, message));
    }
    // The newer form: one name.
    if let Some(mode) = settings.get("pooling_mode") {
        return match mode.as_str() {
            Some("cls") => Ok(true),
            Some("mean") => Ok(false),
            _ => Err(problem(
                path,
                "pooling_mode",
                format!("{mode} is not supported, only \"cls\" or \"mean\""),
            )),
        };
    }
    match ["pooling_mode_cls_token", "pooling_mode_mean_tokens"].map(on) {
        [true, true] => Err(problem(
            path,
            "pooling_mode_cls_token",
            "is on beside pooling_mode_mean_tokens: two vectors in one are not supported",
        )),
        [false, false] => Err(problem(path, "pooling_mode_mean_tokens", "no pooling is on")),
        [first, _] => Ok(first),
    }
}

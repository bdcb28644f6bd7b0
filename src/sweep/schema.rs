//! The JSON Schema of `SPACE.toml`, from the same table of options that the reader checks.

use serde_json::{Map, Value, json};

use super::options::{Kind, OPTIONS};

/// The schema.
#[must_use]
pub fn space_schema() -> Value {
    let value = |kind: Kind| match kind {
        Kind::Text => json!({ "type": "string" }),
        Kind::Count => json!({ "type": "integer", "minimum": 0 }),
        Kind::Number => json!({ "type": "number", "minimum": 0 }),
    };
    let scalar = json!({ "type": ["string", "number", "boolean"] });
    let list = |items: Value| json!({ "type": "array", "items": items, "minItems": 1, "uniqueItems": true });
    let base: Map<String, Value> =
        OPTIONS.iter().map(|(name, kind)| ((*name).to_owned(), value(*kind))).collect();
    let grid: Map<String, Value> =
        OPTIONS.iter().map(|(name, kind)| ((*name).to_owned(), list(value(*kind)))).collect();
    let metrics = json!({ "type": "array", "items": { "type": "string" } });
    let constraint = r"^\s*[^<>=\s]+\s*(<|<=|>|>=)\s*[-+0-9.eE]+\s*$";
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "presil sweep",
        "description": "Options of `presil run` and, in quotes, --set paths: fixed in base, varied in grid.",
        "type": "object",
        "additionalProperties": false,
        "required": ["grid", "objectives"],
        "properties": {
            "base": {
                "description": "What all points have.",
                "type": "object",
                "properties": base,
                "patternProperties": { "\\.": scalar },
                "additionalProperties": false,
            },
            "grid": {
                "description": "What they differ in: every combination, the last key varying fastest.",
                "type": "object",
                "properties": grid,
                "patternProperties": { "\\.": list(scalar.clone()) },
                "additionalProperties": false,
                "minProperties": 1,
            },
            "objectives": {
                "description": "Metrics by their path in the run record; see METRICS.md.",
                "type": "object",
                "properties": {
                    "minimise": metrics,
                    "maximise": metrics,
                    "constraints": {
                        "type": "array",
                        "items": { "type": "string", "pattern": constraint },
                    },
                },
                "additionalProperties": false,
            },
        },
    })
}

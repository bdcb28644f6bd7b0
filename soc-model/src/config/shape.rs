//! The tree of valid keys, read from the JSON Schema of the raw structs so that it cannot disagree with them.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::quantity::Unit;
use super::raw::RawSoc;

/// What may stand at a place of the configuration.
#[derive(Clone, Debug)]
pub(crate) enum Shape {
    /// A table with these keys.
    Group(Vec<Field>),
    /// A table with keys of the user's choice.
    Map(Box<Shape>),
    /// A value.
    Leaf(Leaf),
}

/// A key of a table.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) required: bool,
    pub(crate) shape: Shape,
}

/// The kinds of value.
#[derive(Clone, Debug)]
pub(crate) enum Leaf {
    Text,
    Count,
    Quantity(Unit),
    Choice(Vec<String>),
    ChoiceList(Vec<String>),
}

impl Leaf {
    /// What a value must look like.
    pub(crate) fn expects(&self) -> String {
        match self {
            Self::Text => "a string".to_owned(),
            Self::Count => "a whole number from 0 to 4294967295".to_owned(),
            Self::Quantity(unit) => unit.expects().to_owned(),
            Self::Choice(names) => format!("one of {}", names.join(", ")),
            Self::ChoiceList(names) => format!("a list of {}", names.join(", ")),
        }
    }

    /// Whether `value` is one.
    pub(crate) fn accepts(&self, value: &toml::Value) -> bool {
        match self {
            Self::Text => value.is_str(),
            Self::Count => value.as_integer().is_some_and(|n| u32::try_from(n).is_ok()),
            Self::Quantity(unit) => unit.parse_value(value).is_some(),
            Self::Choice(names) => value.as_str().is_some_and(|v| names.iter().any(|name| name == v)),
            Self::ChoiceList(names) => value.as_array().is_some_and(|list| {
                list.iter().all(|v| v.as_str().is_some_and(|v| names.iter().any(|name| name == v)))
            }),
        }
    }

    /// Valid values, where they can be listed.
    pub(crate) fn names(&self) -> &[String] {
        match self {
            Self::Choice(names) | Self::ChoiceList(names) => names,
            Self::Text | Self::Count | Self::Quantity(_) => &[],
        }
    }
}

fn generated() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<RawSoc>().to_value()
}

/// The tree of valid keys of a SoC description.
pub(crate) fn soc_shape() -> Shape {
    shape_of(&generated())
}

/// Drops the `null` alternative that an optional field carries.
fn without_null(schema: &Value) -> &Value {
    schema
        .get("anyOf")
        .and_then(Value::as_array)
        .and_then(|alternatives| alternatives.iter().find(|a| a.get("type") != Some(&json!("null"))))
        .unwrap_or(schema)
}

fn names_of(schema: &Value) -> Option<Vec<String>> {
    let list = schema.get("enum")?.as_array()?;
    Some(list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

fn shape_of(schema: &Value) -> Shape {
    let schema = without_null(schema);
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        let required: Vec<&str> = schema
            .get("required")
            .and_then(Value::as_array)
            .map(|list| list.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        let field = |(name, inner): (&String, &Value)| Field {
            name: name.clone(),
            required: required.contains(&name.as_str()),
            shape: shape_of(inner),
        };
        return Shape::Group(properties.iter().map(field).collect());
    }
    if let Some(inner) = schema.get("additionalProperties").filter(|inner| inner.is_object()) {
        return Shape::Map(Box::new(shape_of(inner)));
    }
    if let Some(names) = names_of(schema) {
        return Shape::Leaf(Leaf::Choice(names));
    }
    if let Some(names) = schema.get("items").and_then(names_of) {
        return Shape::Leaf(Leaf::ChoiceList(names));
    }
    let format = schema.get("format").and_then(Value::as_str).unwrap_or_default();
    match Unit::of_format(format) {
        Some(unit) => Shape::Leaf(Leaf::Quantity(unit)),
        None if format == "uint32" => Shape::Leaf(Leaf::Count),
        None => Shape::Leaf(Leaf::Text),
    }
}

/// The JSON Schema of a SoC file: any key may be left to the preset it extends, and any value may be written
/// `{ value = ..., source = "..." }`.
#[must_use]
pub fn soc_schema() -> Value {
    let mut schema = generated();
    relax(&mut schema);
    if let Some(top) = schema.as_object_mut() {
        top.insert("title".into(), json!("presil SoC description"));
    }
    schema
}

/// Drops `required` and the `null` of optional keys, and allows every value to carry its source.
fn relax(schema: &mut Value) {
    *schema = without_null(schema).clone();
    let Some(object) = schema.as_object_mut() else { return };
    object.remove("required");
    if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
        for (name, inner) in properties.iter_mut() {
            if name == "extends" {
                inner["type"] = json!("string");
            } else {
                relax(inner);
            }
        }
        return;
    }
    if let Some(inner) = object.get_mut("additionalProperties").filter(|inner| inner.is_object()) {
        relax(inner);
        return;
    }
    let description = object.remove("description");
    let value = Value::Object(std::mem::take(object));
    let sourced = json!({
        "type": "object",
        "properties": { "value": value.clone(), "source": { "type": "string" } },
        "required": ["value"],
        "additionalProperties": false,
    });
    let mut either = Map::new();
    either.extend(description.map(|d| ("description".to_owned(), d)));
    either.insert("anyOf".to_owned(), json!([value, sourced]));
    *object = either;
}

//! A resolved configuration written back as TOML with the source of every value.

use std::fmt::Write as _;

use super::layer::{Entries, Entry, children};
use super::shape::{Shape, soc_shape};

/// Column at which the comments start, where the value leaves room.
const COMMENT_COLUMN: usize = 40;

/// The whole configuration in the order of its struct.
pub(crate) fn soc(entries: &Entries) -> String {
    let mut out = String::new();
    group(entries, &soc_shape(), "", &mut out);
    out
}

fn line(key: &str, entry: &Entry, out: &mut String) {
    let assignment = format!("{key} = {}", entry.value);
    let source = entry.origin.source.as_deref().unwrap_or("no source given");
    let comment = format!("{}: {source}", entry.origin.layer).replace('\n', " ");
    writeln!(out, "{assignment:COMMENT_COLUMN$} # {comment}").expect("a string takes any text");
}

fn group(entries: &Entries, shape: &Shape, path: &str, out: &mut String) {
    let inside = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match shape {
        Shape::Leaf(_) => {}
        Shape::Map(inner) => {
            let prefix = format!("{path}.");
            let names = children(entries, &prefix);
            for name in names {
                group(entries, inner, &inside(name), out);
            }
        }
        Shape::Group(fields) => {
            let leaves: Vec<(&str, &Entry)> = fields
                .iter()
                .filter_map(|field| Some((field.name.as_str(), entries.get(&inside(&field.name))?)))
                .collect();
            if !path.is_empty() && !leaves.is_empty() {
                writeln!(out, "\n[{path}]").expect("a string takes any text");
            }
            for (name, entry) in leaves {
                line(name, entry, out);
            }
            for field in fields {
                group(entries, &field.shape, &inside(&field.name), out);
            }
        }
    }
}

//! Layers of a configuration: presets, files and `--set` options laid over each other, every value with its origin.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Problem, nearest, suggestion};
use super::preset;
use super::shape::{Field, Leaf, Shape};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Preset, file and line, or the `--set` option.
    pub layer: String,
    /// The source the author gave, with its accuracy class where it is an estimate.
    pub source: Option<String>,
}

/// One value with its origin.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) value: toml::Value,
    pub(crate) origin: Origin,
}

/// All values by dotted path; a later layer replaces an earlier one.
pub(crate) type Entries = BTreeMap<String, Entry>;

/// Largest file that is read.
const MAX_FILE: u64 = 4 << 20;

/// Longest chain of `extends`.
const MAX_DEPTH: usize = 8;

/// One file's or preset's text with the name it has in messages.
struct Text {
    place: String,
    stem: String,
    directory: PathBuf,
    text: String,
}

/// Reads `soc` (a preset name or a path) and all it extends, base first.
pub(crate) fn read(soc: &str, shape: &Shape) -> Result<Entries, ConfigError> {
    let mut chain: Vec<Text> = vec![open(soc, Path::new("."), "--soc")?];
    loop {
        let last = &chain[chain.len() - 1];
        let Some((base, line)) = extends_of(last)? else { break };
        let place = format!("{}:{line}", last.place);
        let next = open(&base, &last.directory, &place)?;
        if chain.iter().any(|seen| seen.place == next.place) || chain.len() >= MAX_DEPTH {
            return Err(Problem::new(place, "extends", format!("`{base}` extends itself in the end")).into());
        }
        chain.push(next);
    }
    let mut entries = Entries::new();
    let mut problems = Vec::new();
    for text in chain.iter().rev() {
        let table = parse(text)?;
        let named = table.get_ref().keys().any(|key| key.get_ref() == "name");
        let mut walker = Walker { text, entries: &mut entries, problems: Vec::new() };
        walker.table(table.get_ref(), shape, "");
        let mut found = walker.problems;
        found.sort_by_key(|(line, _)| *line);
        problems.extend(found.into_iter().map(|(_, problem)| problem));
        if !named {
            let origin = Origin { layer: text.place.clone(), source: Some("the file's name".to_owned()) };
            entries
                .insert("name".to_owned(), Entry { value: toml::Value::String(text.stem.clone()), origin });
        }
    }
    if problems.is_empty() { Ok(entries) } else { Err(ConfigError { problems }) }
}

fn open(soc: &str, directory: &Path, asked_at: &str) -> Result<Text, ConfigError> {
    if let Some(text) = preset::soc_text(soc) {
        return Ok(Text {
            place: format!("preset {soc}"),
            stem: soc.to_owned(),
            directory: directory.to_owned(),
            text: text.to_owned(),
        });
    }
    let path = directory.join(soc);
    let looks_like_path = Path::new(soc).extension().is_some_and(|e| e == "toml") || soc.contains('/');
    if !looks_like_path && !path.is_file() {
        let names: Vec<&str> = preset::soc_names().collect();
        let problem = Problem::new(asked_at, "", format!("no SoC preset `{soc}`, nor a file of that name"));
        return Err(problem.help(suggestion(soc, &names)).into());
    }
    let shown = if directory == Path::new(".") { soc.to_owned() } else { path.display().to_string() };
    let mut bytes = Vec::new();
    std::fs::File::open(&path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
        .map_err(|e| Problem::new(asked_at, "", format!("cannot read `{shown}`: {}", e.kind())))?;
    if bytes.len() as u64 > MAX_FILE {
        let message = format!("more than {MAX_FILE} bytes, expected a SoC description");
        return Err(Problem::new(&shown, "", message).into());
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Problem::new(&shown, "", format!("not a text file: byte {at} is not UTF-8, expected TOML"))
    })?;
    let stem =
        Path::new(soc).file_stem().map_or_else(|| soc.to_owned(), |s| s.to_string_lossy().into_owned());
    let directory = path.parent().unwrap_or(directory).to_owned();
    Ok(Text { place: shown, stem, directory, text })
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

fn parse(text: &Text) -> Result<Spanned<DeTable<'_>>, ConfigError> {
    DeTable::parse(&text.text).map_err(|e| {
        let line = line_of(&text.text, e.span().map_or(0, |span| span.start));
        Problem::new(format!("{}:{line}", text.place), "", format!("not valid TOML: {}", e.message()))
            .line(text.text.lines().nth(line - 1))
            .into()
    })
}

fn extends_of(text: &Text) -> Result<Option<(String, usize)>, ConfigError> {
    let table = parse(text)?;
    let Some((key, value)) = table.get_ref().iter().find(|(key, _)| key.get_ref() == "extends") else {
        return Ok(None);
    };
    let line = line_of(&text.text, key.span().start);
    match value.get_ref() {
        DeValue::String(base) => Ok(Some((base.to_string(), line))),
        other => {
            let message =
                format!("expected a preset name or a path, found a value of type {}", other.type_str());
            Err(Problem::new(format!("{}:{line}", text.place), "extends", message).into())
        }
    }
}

/// Checks one layer against the tree of valid keys and adds its values.
struct Walker<'a> {
    text: &'a Text,
    entries: &'a mut Entries,
    /// With the line each is on.
    problems: Vec<(usize, Problem)>,
}

impl Walker<'_> {
    fn report(&mut self, offset: usize, path: &str, message: String, help: Option<String>) {
        let line = line_of(&self.text.text, offset);
        let shown = self.text.text.lines().nth(line - 1);
        let problem = Problem::new(format!("{}:{line}", self.text.place), path, message);
        self.problems.push((line, problem.help(help).line(shown)));
    }

    fn table(&mut self, table: &DeTable<'_>, shape: &Shape, prefix: &str) {
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            if prefix.is_empty() && name == "extends" {
                continue;
            }
            let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
            let offset = key.span().start;
            let inner = match shape {
                Shape::Group(fields) => match fields.iter().find(|field| field.name == name) {
                    Some(field) => &field.shape,
                    None => {
                        let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
                        self.report(offset, &path, "unknown key".to_owned(), suggestion(name, &names));
                        continue;
                    }
                },
                Shape::Map(inner) if is_identifier(name) => inner.as_ref(),
                Shape::Map(_) => {
                    let message = "expected a name of small letters, digits and dashes".to_owned();
                    self.report(offset, &path, message, None);
                    continue;
                }
                Shape::Leaf(_) => unreachable!("a leaf is never walked as a table"),
            };
            self.value(value, inner, &path, offset);
        }
    }

    fn value(&mut self, value: &Spanned<DeValue<'_>>, shape: &Shape, path: &str, offset: usize) {
        match (shape, value.get_ref()) {
            (Shape::Leaf(leaf), DeValue::Table(table)) => self.sourced(table, leaf, path, offset),
            (Shape::Leaf(leaf), _) => self.leaf(value, leaf, path, offset, None),
            (Shape::Group(_) | Shape::Map(_), DeValue::Table(table)) => self.table(table, shape, path),
            (Shape::Group(_) | Shape::Map(_), other) => {
                let message = format!("expected a table, found a value of type {}", other.type_str());
                self.report(offset, path, message, None);
            }
        }
    }

    /// A value written `{ value = ..., source = "..." }`.
    fn sourced(&mut self, table: &DeTable<'_>, leaf: &Leaf, path: &str, offset: usize) {
        let mut found = None;
        let mut source = None;
        for (key, inner) in table {
            match (key.get_ref().as_ref(), inner.get_ref()) {
                ("value", _) => found = Some(inner),
                ("source", DeValue::String(text)) => source = Some(text.to_string()),
                ("source", _) => {
                    self.report(key.span().start, path, "`source` must be a string".into(), None)
                }
                (name, _) => {
                    let help = suggestion(name, &["value", "source"]);
                    self.report(key.span().start, &format!("{path}.{name}"), "unknown key".into(), help);
                }
            }
        }
        match found {
            Some(inner) => self.leaf(inner, leaf, path, offset, source),
            None => self.report(offset, path, format!("expected {}, found a table", leaf.expects()), None),
        }
    }

    fn leaf(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        leaf: &Leaf,
        path: &str,
        offset: usize,
        source: Option<String>,
    ) {
        let Some(value) = plain(value.get_ref()) else {
            let message = format!("expected {}, found {}", leaf.expects(), value.get_ref().type_str());
            return self.report(offset, path, message, None);
        };
        if leaf.accepts(&value) {
            let layer = format!("{}:{}", self.text.place, line_of(&self.text.text, offset));
            self.entries.insert(path.to_owned(), Entry { value, origin: Origin { layer, source } });
        } else {
            let (message, help) = refusal(leaf, &value);
            self.report(offset, path, message, help);
        }
    }
}

fn refusal(leaf: &Leaf, value: &toml::Value) -> (String, Option<String>) {
    let near = value.as_str().and_then(|text| nearest(text, leaf.names().iter().map(String::as_str)));
    let help = near.map(|near| format!("did you mean `{near}`?"));
    (format!("expected {}, found {value}", leaf.expects()), help)
}

/// The value without its span; `None` for tables, dates and numbers out of range.
fn plain(value: &DeValue<'_>) -> Option<toml::Value> {
    Some(match value {
        DeValue::String(text) => toml::Value::String(text.to_string()),
        DeValue::Integer(n) => toml::Value::Integer(i64::from_str_radix(n.as_str(), n.radix()).ok()?),
        DeValue::Float(f) => toml::Value::Float(f.as_str().parse().ok()?),
        DeValue::Boolean(b) => toml::Value::Boolean(*b),
        DeValue::Array(list) => {
            let list: Option<Vec<_>> = list.iter().map(|inner| plain(inner.get_ref())).collect();
            toml::Value::Array(list?)
        }
        DeValue::Datetime(_) | DeValue::Table(_) => return None,
    })
}

fn is_identifier(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.len() <= 32
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// Applies one `--set path=value`.
pub(crate) fn set(entries: &mut Entries, shape: &Shape, option: &str) -> Result<(), Problem> {
    let place = format!("--set {option}");
    let Some((path, text)) = option.split_once('=') else {
        let help = Some("for example --set npu.cores=4".to_owned());
        return Err(Problem::new(place, "", "expected path=value").help(help));
    };
    let (path, text) = (path.trim(), text.trim());
    let leaf = find(entries, shape, path)
        .map_err(|(message, help)| Problem::new(place.clone(), path, message).help(help))?;
    let value = match leaf {
        Leaf::Text | Leaf::Choice(_) => toml::Value::String(text.trim_matches('"').to_owned()),
        Leaf::Count | Leaf::Quantity(_) | Leaf::ChoiceList(_) => written(text),
    };
    if !leaf.accepts(&value) {
        let (message, help) = refusal(leaf, &value);
        return Err(Problem::new(place, path, message).help(help));
    }
    entries.insert(path.to_owned(), Entry { value, origin: Origin { layer: place, source: None } });
    Ok(())
}

/// A value as typed after `=`: TOML where it is TOML ("4", "[...]"), the text itself otherwise ("1 GHz").
fn written(text: &str) -> toml::Value {
    let parsed = DeValue::parse(text).ok().and_then(|value| plain(value.get_ref()));
    parsed.unwrap_or_else(|| toml::Value::String(text.to_owned()))
}

/// The leaf at `path`, or why there is none and what may have been meant.
fn find<'a>(entries: &Entries, shape: &'a Shape, path: &str) -> Result<&'a Leaf, (String, Option<String>)> {
    let mut here = shape;
    let mut prefix = String::new();
    for name in path.split('.') {
        let (names, inner): (Vec<&str>, Option<&Shape>) = match here {
            Shape::Group(fields) => (
                fields.iter().map(|field| field.name.as_str()).filter(|name| *name != "extends").collect(),
                fields.iter().find(|field| field.name == name && name != "extends").map(|field| &field.shape),
            ),
            Shape::Map(inner) => {
                let names = children(entries, &prefix);
                let known = names.contains(&name);
                (names, known.then_some(inner.as_ref()))
            }
            Shape::Leaf(_) => (Vec::new(), None),
        };
        let Some(inner) = inner else {
            let near = nearest(name, names.iter().copied());
            let help = match near {
                Some(near) => Some(format!("did you mean `{prefix}{near}`?")),
                None => suggestion(name, &names),
            };
            return Err(("unknown path".to_owned(), help));
        };
        here = inner;
        prefix.push_str(name);
        prefix.push('.');
    }
    match here {
        Shape::Leaf(leaf) => Ok(leaf),
        Shape::Group(fields) => {
            let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
            Err((
                "is a table, expected a key in it".to_owned(),
                Some(format!("its keys: {}", names.join(", "))),
            ))
        }
        Shape::Map(_) => Err(("is a table, expected a key in it".to_owned(), None)),
    }
}

/// The keys directly under `prefix` (which ends in a dot), in order.
pub(crate) fn children<'a>(entries: &'a Entries, prefix: &str) -> Vec<&'a str> {
    let mut names: Vec<&str> =
        entries.keys().filter_map(|key| key.strip_prefix(prefix)?.split('.').next()).collect();
    names.dedup();
    names
}

/// Every required key that no layer supplies.
pub(crate) fn missing(entries: &Entries, shape: &Shape) -> Vec<String> {
    let mut found = Vec::new();
    collect_missing(entries, shape, "", true, &mut found);
    found
}

fn present(entries: &Entries, path: &str) -> bool {
    let inside = format!("{path}.");
    entries.contains_key(path)
        || entries.range(inside.clone()..).next().is_some_and(|(key, _)| key.starts_with(&inside))
}

fn collect_missing(entries: &Entries, shape: &Shape, path: &str, required: bool, found: &mut Vec<String>) {
    if !required && !present(entries, path) {
        return;
    }
    match shape {
        Shape::Leaf(_) => {
            if !entries.contains_key(path) {
                found.push(path.to_owned());
            }
        }
        Shape::Group(fields) => {
            for Field { name, required, shape } in fields {
                let inner = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                collect_missing(entries, shape, &inner, *required, found);
            }
        }
        Shape::Map(inner) => {
            let prefix = format!("{path}.");
            let names = children(entries, &prefix);
            if names.is_empty() {
                found.push(path.to_owned());
            }
            for name in names {
                collect_missing(entries, inner, &format!("{prefix}{name}"), true, found);
            }
        }
    }
}

/// The values as one nested table, as serde reads it.
pub(crate) fn nested(entries: &Entries) -> toml::Table {
    let mut root = toml::Table::new();
    for (path, entry) in entries {
        let mut here = &mut root;
        let mut names = path.split('.').peekable();
        while let Some(name) = names.next() {
            if names.peek().is_none() {
                here.insert(name.to_owned(), entry.value.clone());
                break;
            }
            let inner = here.entry(name).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            here = inner.as_table_mut().expect("a path is either a table or a value, by its shape");
        }
    }
    root
}

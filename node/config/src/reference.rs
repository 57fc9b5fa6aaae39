//! All keys of a configuration file, with type, default and meaning, as the code says them: the text of the types in `lib.rs` is read, so
//! that there is no second list that could differ from it.

use crate::{Failover, Journal, Link, Metrics, Scrub, Timing};
use serde::Serialize;
use std::fmt::Write as _;

/// Where the types are.
const SOURCE: &str = include_str!("lib.rs");
/// The type of the whole file.
const WHOLE: &str = "Config";

/// A key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) name: String,
    /// In words.
    pub(crate) kind: String,
    /// As it would be written; none where the key has to be there, or may be left out without there being one.
    pub(crate) default: Option<String>,
    pub(crate) required: bool,
    pub(crate) meaning: String,
}

/// The keys that stand together: those before the first table have no name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) name: String,
    /// Whether there may be several: `[[name]]`.
    pub(crate) repeated: bool,
    pub(crate) required: bool,
    pub(crate) meaning: String,
    pub(crate) keys: Vec<Key>,
}

/// A type of the source.
struct Type {
    name: String,
    meaning: String,
    defaulted: bool,
    fields: Vec<Field>,
    /// Of an enum.
    words: Vec<String>,
}

struct Field {
    name: String,
    kind: String,
    defaulted: bool,
    meaning: String,
}

/// All sections, in the order in which the file's type has them.
pub(crate) fn sections() -> Vec<Section> {
    let types = types(SOURCE);
    let find = |name: &str| types.iter().find(|found| found.name == name);
    let mut plain = Section {
        name: String::new(),
        repeated: false,
        required: true,
        meaning: String::new(),
        keys: Vec::new(),
    };
    let mut tables = Vec::new();
    for field in find(WHOLE).into_iter().flat_map(|whole| &whole.fields) {
        let inner = field
            .kind
            .strip_prefix("Vec<")
            .and_then(|kind| kind.strip_suffix('>'));
        let table = find(inner.unwrap_or(&field.kind)).filter(|table| !table.fields.is_empty());
        let Some(table) = table else {
            plain.keys.push(key(field, &types, field.defaulted, None));
            continue;
        };
        let defaults = defaults(&field.name);
        let keys = table.fields.iter().map(|inner| {
            let default = defaults.as_ref().and_then(|table| table.get(&inner.name));
            key(inner, &types, table.defaulted, default)
        });
        tables.push(Section {
            name: field.name.clone(),
            repeated: inner.is_some(),
            required: !field.defaulted,
            meaning: table.meaning.clone(),
            keys: keys.collect(),
        });
    }
    tables.insert(0, plain);
    tables
}

fn key(field: &Field, types: &[Type], defaulted: bool, default: Option<&toml::Value>) -> Key {
    let inner = field
        .kind
        .strip_prefix("Option<")
        .and_then(|kind| kind.strip_suffix('>'));
    let default = match (default, field.kind.as_str()) {
        (Some(value), _) => Some(value.to_string()),
        (None, "bool") if defaulted => Some("false".to_owned()),
        (None, _) => None,
    };
    Key {
        name: field.name.clone(),
        kind: words_for(inner.unwrap_or(&field.kind), types),
        required: !defaulted && !field.defaulted && inner.is_none(),
        default,
        meaning: field.meaning.clone(),
    }
}

/// A type, for people.
fn words_for(kind: &str, types: &[Type]) -> String {
    let known = types.iter().find(|found| found.name == kind);
    if let Some(known) = known.filter(|known| !known.words.is_empty()) {
        let words: Vec<String> = known
            .words
            .iter()
            .map(|word| format!("`\"{word}\"`"))
            .collect();
        return words.join(" or ");
    }
    match kind {
        "String" => "string",
        "PathBuf" => "path",
        "bool" => "`true` or `false`",
        "u32" | "u64" => "whole number",
        "SocketAddr" => "`\"ADDRESS:PORT\"`",
        "ClusterId" => "16 hex digits, as a string",
        other => other,
    }
    .to_owned()
}

/// The values that hold in a section that is left out.
fn defaults(section: &str) -> Option<toml::Table> {
    fn table(values: impl Serialize) -> Option<toml::Table> {
        toml::Table::try_from(values).ok()
    }
    match section {
        "link" => table(Link::default()),
        "timing" => table(Timing::default()),
        "failover" => table(Failover::default()),
        "journal" => table(Journal::default()),
        "scrub" => table(Scrub::default()),
        "metrics" => table(Metrics::default()),
        _ => None,
    }
}

/// The types of a source, as far as a configuration needs them: one item or field a line, each with its comment and attributes before it.
fn types(source: &str) -> Vec<Type> {
    let mut types: Vec<Type> = Vec::new();
    let (mut meaning, mut attributes) = (String::new(), String::new());
    let mut inside = false;
    for line in source.lines() {
        let line = line.trim();
        if let Some(words) = line.strip_prefix("///") {
            let gap = if meaning.is_empty() { "" } else { " " };
            meaning = format!("{meaning}{gap}{}", words.trim());
            continue;
        }
        if line.starts_with("#[") {
            attributes.push_str(line);
            continue;
        }
        let item = ["pub struct ", "pub enum "];
        let item = item.iter().find_map(|word| line.strip_prefix(word));
        if let Some(name) = item.and_then(|item| item.strip_suffix(" {")) {
            inside = true;
            types.push(Type {
                name: name.to_owned(),
                meaning: meaning.clone(),
                defaulted: attributes.contains("default)]"),
                fields: Vec::new(),
                words: Vec::new(),
            });
        } else if line == "}" {
            inside = false;
        } else if let Some(found) = types.last_mut().filter(|_| inside) {
            found.take(line, &meaning, &attributes);
        }
        meaning.clear();
        attributes.clear();
    }
    types
}

impl Type {
    /// A line within it: a field, or a variant.
    fn take(&mut self, line: &str, meaning: &str, attributes: &str) {
        let line = line.trim_end_matches(',');
        if let Some((name, kind)) = line
            .strip_prefix("pub ")
            .and_then(|line| line.split_once(": "))
        {
            let renamed = attributes
                .split_once("rename = \"")
                .and_then(|(_, rest)| rest.split('"').next());
            self.fields.push(Field {
                name: renamed.unwrap_or(name).to_owned(),
                kind: kind.to_owned(),
                defaulted: attributes.contains("default"),
                meaning: meaning.to_owned(),
            });
        } else if !line.is_empty() && line.chars().all(char::is_alphanumeric) {
            self.words.push(kebab_case(line));
        }
    }
}

/// A variant's name as the file has it.
fn kebab_case(name: &str) -> String {
    let mut word = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !word.is_empty() {
            word.push('-');
        }
        word.extend(letter.to_lowercase());
    }
    word
}

/// The reference, as Markdown.
#[must_use]
pub fn document() -> String {
    let mut text = "# A node's configuration file\n\n\
        Made by `isthmusd config reference`. The file is TOML; paths are relative to it; a key that is not listed here is an error.\n\
        `isthmusd config check FILE` says everything that is wrong with one.\n"
        .to_owned();
    for section in sections() {
        let title = match (section.name.as_str(), section.repeated) {
            ("", _) => "Before the first table".to_owned(),
            (name, false) => format!("`[{name}]`"),
            (name, true) => format!("`[[{name}]]`, one for each"),
        };
        // Writing to a String can't fail.
        let _ = write!(text, "\n## {title}\n\n");
        if !section.meaning.is_empty() {
            let _ = write!(text, "{}\n\n", section.meaning);
        }
        text.push_str("| key | type | default | meaning |\n| --- | --- | --- | --- |\n");
        for key in section.keys {
            let default = match (&key.default, key.required) {
                (Some(value), _) => format!("`{value}`"),
                (None, true) => "has to be there".to_owned(),
                (None, false) => "none".to_owned(),
            };
            let _ = writeln!(
                text,
                "| `{}` | {} | {default} | {} |",
                key.name, key.kind, key.meaning
            );
        }
    }
    text
}

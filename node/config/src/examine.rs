//! Everything that is wrong with a configuration file, not only what is found first.

use crate::reference::{Section, sections};
use crate::{
    Cluster, Config, Domain, FILE_BYTES_MAX, Failover, Journal, Link, Listen, Member, Metrics,
    Scrub, Timing, Tls, one_line,
};
use serde::de::DeserializeOwned;
use std::path::Path;
use toml::{Table, Value};

impl Config {
    /// Everything that is wrong with a file, and the configuration where nothing is. One line each: the key, what is wrong, what to do.
    ///
    /// # Errors
    /// The problems, one at least.
    pub fn examine(path: &Path) -> Result<Config, Vec<String>> {
        let unreadable = |why: String| vec![format!("the file can't be read: {why}")];
        let length = std::fs::metadata(path)
            .map_err(|error| unreadable(error.to_string()))?
            .len();
        if length > FILE_BYTES_MAX {
            return Err(unreadable(format!(
                "it has {length} bytes; is it a configuration file?"
            )));
        }
        let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
        let problems = Config::problems_in(&text);
        if !problems.is_empty() {
            return Err(problems);
        }
        let config = Config::load(path).map_err(|error| vec![error.to_string()])?;
        let problems = config.files_missing();
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(problems)
        }
    }

    /// Everything that is wrong with the text of a configuration.
    #[must_use]
    pub fn problems_in(text: &str) -> Vec<String> {
        let table: Table = match toml::from_str(text) {
            Ok(table) => table,
            Err(error) => return vec![one_line(text, &error)],
        };
        let mut problems = wrong_keys(&table);
        match toml::from_str::<Config>(text) {
            Ok(config) => problems.extend(config.problems()),
            Err(error) if problems.is_empty() => problems.push(one_line(text, &error)),
            Err(_) => {}
        }
        problems
    }

    /// Files that the configuration names and that can't be read.
    fn files_missing(&self) -> Vec<String> {
        let tls = &self.tls;
        let files = [
            ("tls.authority", &tls.authority),
            ("tls.certificate", &tls.certificate),
            ("tls.key", &tls.key),
        ];
        let missing = files.into_iter().filter_map(|(key, file)| {
            let error = std::fs::File::open(file).err()?;
            Some(format!(
                "{key}: {} can't be read: {error}: put the file there, or correct the path (it is relative to the configuration file)",
                file.display()
            ))
        });
        missing.collect()
    }
}

/// What is wrong with the keys and the types of their values.
fn wrong_keys(table: &Table) -> Vec<String> {
    let mut problems = Vec::new();
    let sections = sections();
    let (plain, tables) = sections.split_at(1);
    let known = |name: &str| {
        plain[0].keys.iter().any(|key| key.name == name)
            || tables.iter().any(|section| section.name == name)
    };
    for name in table.keys().filter(|name| !known(name)) {
        problems.push(unknown(name));
    }
    for key in &plain[0].keys {
        match table.get(&key.name) {
            None if key.required => problems.push(missing(&key.name, &key.kind)),
            Some(value) => {
                let right = match key.name.as_str() {
                    "bootstrap" => value.is_bool(),
                    _ => value.is_str(),
                };
                if !right {
                    problems.push(format!(
                        "{}: {} is wrong here: write {}",
                        key.name,
                        value.type_str(),
                        key.kind
                    ));
                }
            }
            None => {}
        }
    }
    for section in tables {
        match table.get(&section.name) {
            None if section.required => {
                problems.push(format!(
                    "{}: it is missing: add a table [{}]",
                    section.name, section.name
                ));
            }
            None => {}
            Some(Value::Table(found)) if !section.repeated => {
                wrong_in(section, &section.name, found, &mut problems);
            }
            Some(Value::Array(found)) if section.repeated => {
                for (index, found) in found.iter().enumerate() {
                    let place = format!("{}[{index}]", section.name);
                    match found {
                        Value::Table(found) => wrong_in(section, &place, found, &mut problems),
                        other => problems.push(format!(
                            "{place}: {} is wrong here: write a table",
                            other.type_str()
                        )),
                    }
                }
            }
            Some(other) => {
                let heading = if section.repeated {
                    format!("[[{}]]", section.name)
                } else {
                    format!("[{}]", section.name)
                };
                problems.push(format!(
                    "{}: {} is wrong here: write tables with the heading {heading}",
                    section.name,
                    other.type_str()
                ));
            }
        }
    }
    problems
}

/// The same in one table.
fn wrong_in(section: &Section, place: &str, found: &Table, problems: &mut Vec<String>) {
    for (name, value) in found {
        let key = format!("{place}.{name}");
        if section.keys.iter().all(|key| key.name != *name) {
            problems.push(unknown(&key));
        } else if let Some(error) = wrong_value(&section.name, name, value) {
            problems.push(format!("{key}: {error}"));
        }
    }
    for key in section.keys.iter().filter(|key| key.required) {
        if !found.contains_key(&key.name) {
            problems.push(missing(&format!("{place}.{}", key.name), &key.kind));
        }
    }
}

fn unknown(key: &str) -> String {
    format!(
        "{key:?}: there is no such key: correct or remove it (isthmusd config reference lists them)"
    )
}

fn missing(key: &str, kind: &str) -> String {
    format!("{key}: it is missing: write {kind}")
}

/// What is wrong with a value, by the type of its section alone.
fn wrong_value(section: &str, name: &str, value: &Value) -> Option<String> {
    let alone = Table::from_iter([(name.to_owned(), value.clone())]);
    match section {
        "cluster" => refused::<Cluster>(alone),
        "listen" => refused::<Listen>(alone),
        "tls" => refused::<Tls>(alone),
        "link" => refused::<Link>(alone),
        "timing" => refused::<Timing>(alone),
        "failover" => refused::<Failover>(alone),
        "journal" => refused::<Journal>(alone),
        "scrub" => refused::<Scrub>(alone),
        "metrics" => refused::<Metrics>(alone),
        "domain" => refused::<Domain>(alone),
        "member" => refused::<Member>(alone),
        _ => None,
    }
}

/// Why this is no part of a `T`; that other parts of it are missing says nothing.
fn refused<T: DeserializeOwned>(alone: Table) -> Option<String> {
    let error = alone.try_into::<T>().err()?;
    let message = error.message().replace(['\n', '\r'], " ");
    (!message.starts_with("missing field")).then_some(message)
}

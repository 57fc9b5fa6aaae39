//! Rules of the source tree: who may depend on whom, and what no file may hold.

#![allow(
    clippy::unwrap_used,
    reason = "a test may fail loudly in its helpers, too"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use tests::binaries::workspace;

/// Each crate with what it may depend on among ours; tests of a crate may use the simulated disk, too.
const ARROWS: [(&str, &[&str]); 18] = [
    // Rules broken on purpose: `false` for the compiler in what ships.
    ("isthmus-mutation", &[]),
    ("isthmus-engine", &["isthmus-mutation"]),
    ("isthmus-journal", &["isthmus-engine", "isthmus-mutation"]),
    (
        "isthmus-volume",
        &["isthmus-engine", "isthmus-journal", "isthmus-mutation"],
    ),
    ("isthmus-catalog", &["isthmus-engine"]),
    (
        "isthmus-kvdb",
        &["isthmus-engine", "isthmus-journal", "isthmus-catalog"],
    ),
    ("isthmus-api", &[]),
    ("isthmus-config", &["isthmus-engine", "isthmus-catalog"]),
    ("isthmus-disk", &["isthmus-journal"]),
    ("isthmus-transport", &["isthmus-engine"]),
    ("isthmus-nbd", &[]),
    (
        "isthmus-host",
        &[
            "isthmus-engine",
            "isthmus-journal",
            "isthmus-volume",
            "isthmus-catalog",
            "isthmus-mutation",
        ],
    ),
    ("domain-ctl", &["isthmus-api"]),
    ("isthmus-csi-interface", &[]),
    ("isthmus-csi", &["isthmus-api", "isthmus-csi-interface"]),
    (
        "isthmus-simulated-disk",
        &["isthmus-journal", "isthmus-engine"],
    ),
    ("isthmus-simulated-runtime", &["isthmus-simulated-disk"]),
    // The rules are written down anew there: sharing code with the engine would share its mistakes.
    ("isthmus-model", &[]),
];

/// Crates that are synchronous and threadless: no runtime, no sockets, no clock.
const BELOW_THE_RIM: [&str; 5] = ["engine", "journal", "volume", "kvdb/catalog", "node/host"];

fn members() -> Vec<PathBuf> {
    let text = fs::read_to_string(workspace().join("Cargo.toml")).unwrap();
    let root: toml::Table = text.parse().unwrap();
    let members = root["workspace"]["members"].as_array().unwrap();
    members
        .iter()
        .map(|member| workspace().join(member.as_str().unwrap()))
        .collect()
}

fn manifest(folder: &Path) -> toml::Table {
    fs::read_to_string(folder.join("Cargo.toml"))
        .unwrap()
        .parse()
        .unwrap()
}

fn name(manifest: &toml::Table) -> String {
    manifest["package"]["name"].as_str().unwrap().to_owned()
}

fn keys(manifest: &toml::Table, table: &str) -> BTreeSet<String> {
    let table = manifest.get(table).and_then(toml::Value::as_table);
    table
        .map(|table| table.keys().cloned().collect())
        .unwrap_or_default()
}

/// All Rust files below a folder, but for those of build results.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn crates_depend_only_downwards() {
    let arrows: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    let manifests: Vec<toml::Table> = members().iter().map(|folder| manifest(folder)).collect();
    let ours: BTreeSet<String> = manifests.iter().map(name).collect();
    for manifest in &manifests {
        let name = name(manifest);
        let Some(allowed) = arrows.get(name.as_str()) else {
            continue;
        };
        let used = keys(manifest, "dependencies");
        for dependency in used.intersection(&ours) {
            assert!(
                allowed.contains(&dependency.as_str()),
                "{name} must not depend on {dependency}"
            );
        }
    }
}

#[test]
fn below_the_rim_there_is_no_runtime() {
    for folder in BELOW_THE_RIM {
        let used = keys(&manifest(&workspace().join(folder)), "dependencies");
        for runtime in ["tokio", "quinn", "axum", "openraft", "rustix"] {
            assert!(!used.contains(runtime), "{folder} must not use {runtime}");
        }
    }
}

#[test]
fn pure_code_reads_no_clock_and_starts_no_thread() {
    for folder in BELOW_THE_RIM {
        let mut found = Vec::new();
        sources(&workspace().join(folder).join("src"), &mut found);
        for path in found {
            let text = fs::read_to_string(&path).unwrap();
            for word in [
                "Instant::now",
                "SystemTime::now",
                "thread::spawn",
                "std::net::",
            ] {
                assert!(!text.contains(word), "{} has {word}", path.display());
            }
        }
    }
}

#[test]
fn no_test_sleeps_or_is_switched_off_and_nothing_is_left_to_do() {
    // Written in pieces, or this file would break its own rule.
    let everywhere = [
        concat!("#[ig", "nore"),
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
    ];
    let in_tests = [concat!("thread::sl", "eep("), concat!("time::sl", "eep(")];
    let mut found = Vec::new();
    sources(workspace(), &mut found);
    assert!(found.len() > 50, "the tree was not found");
    for path in found {
        let text = fs::read_to_string(&path).unwrap();
        let shown = path.strip_prefix(workspace()).unwrap();
        for word in everywhere {
            assert!(!text.contains(word), "{} has {word}", shown.display());
        }
        let is_test = shown.components().any(|part| {
            let part = part.as_os_str().to_string_lossy();
            part == "tests" || part == "tests.rs" || part == "simulation"
        });
        for word in in_tests.iter().filter(|_| is_test) {
            // Virtual time (`SimulatedRuntime`'s) may pass.
            let real = |(at, _)| !text[..at].ends_with(char::is_alphanumeric);
            let found = text.match_indices(word).any(real);
            assert!(!found, "{} has {word}", shown.display());
        }
    }
}

#[test]
fn no_file_is_called_by_a_name_that_says_nothing() {
    let mut found = Vec::new();
    sources(workspace(), &mut found);
    for path in found {
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        for empty in ["mod", "util", "utils", "common", "misc", "types", "helpers"] {
            assert!(stem != empty, "{}", path.display());
        }
    }
}

/// The words between backquotes in a line.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

#[test]
fn each_row_of_the_fault_table_names_a_test_that_is_there() {
    let text = fs::read_to_string(workspace().join("docs/reliability.md")).unwrap();
    let (_, table) = text.split_once("\n## The fault table\n").unwrap();
    let table = table.split("\n## ").next().unwrap();
    for row in 1..=24 {
        let begin = format!("| {row} |");
        let line = table.lines().find(|line| line.starts_with(&begin));
        let line = line.unwrap_or_else(|| panic!("row {row} is missing"));
        let file = quoted(line).find(|word| word.ends_with(".rs"));
        let file = file.unwrap_or_else(|| panic!("row {row} names no file"));
        let code = fs::read_to_string(workspace().join(file)).unwrap();
        let name = format!("row_{row:02}_");
        let tests: Vec<&str> = quoted(line)
            .filter(|word| word.starts_with("row_"))
            .collect();
        assert!(!tests.is_empty(), "row {row} names no test");
        for test in tests {
            assert!(test.starts_with(&name), "{test} in row {row}");
            let function = format!("#[test]\nfn {test}(");
            assert!(code.contains(&function), "{file} has no test {test}");
        }
    }
}

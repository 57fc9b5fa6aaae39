//! Each transcript that names a mutation breaks a rule with that mutation, and none without (which `seeds` checks).

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn a_rule_broken_on_purpose_is_seen_in_its_transcript() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut checked = 0;
    let mut lost = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let Some(name) = text
            .lines()
            .find_map(|line| line.strip_prefix("# mutation: "))
        else {
            continue;
        };
        let output = Command::new(env!("CARGO_BIN_EXE_simulation"))
            .arg("replay")
            .arg(&path)
            .args(["--mutation", name])
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        checked += 1;
        if !said.contains("BROKE A RULE") && !said.contains("panicked at") {
            lost.push(name.to_owned());
        }
    }
    println!("{checked} transcripts");
    assert!(checked >= 5, "only {checked} transcripts name a mutation");
    assert!(
        lost.is_empty(),
        "no rule breaks any more in the transcripts of {lost:?}: write them again with `cargo run --release -p simulation --features mutations -- mutations --write simulation/scenarios --only NAME`"
    );
}

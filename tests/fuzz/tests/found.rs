//! Inputs that once broke a rule: `found/<target>-<checksum>.<what was expected>`. What each of them was is said here.

use fuzz::runner::{Runner, replay};
use fuzz::target::Verdict;
use fuzz::{current, targets};
use std::path::Path;

fn run(file: &Path) -> Verdict {
    let name = file
        .file_stem()
        .expect("a file has a name")
        .to_string_lossy();
    let (target, _) = name.rsplit_once('-').expect("target and checksum");
    let found = targets::all()
        .into_iter()
        .find(|known| known.name() == target);
    let target = found.unwrap_or_else(|| panic!("{}: no such target", file.display()));
    replay(&mut Runner::new(target, 0), file).expect("it can be read")
}

fn named(name: &str) -> Verdict {
    run(&current::found_folder().join(name))
}

#[test]
fn nothing_that_was_found_breaks_a_rule_again() {
    let mut count = 0;
    for entry in std::fs::read_dir(current::found_folder()).expect("the folder is there") {
        run(&entry.expect("it can be read").path());
        count += 1;
    }
    assert!(count > 0, "the folder holds what was found");
}

/// A text's length was believed before the text was there: 54 bytes of a request asked for 9 MiB, and 64 MiB would have been given.
#[test]
fn a_few_bytes_of_an_envelope_do_not_ask_for_megabytes() {
    assert_eq!(named("catalog-request-9b7d524e.anything"), Verdict::Refused);
    assert_eq!(named("catalog-answer-a3fa1876.anything"), Verdict::Refused);
    assert_eq!(named("kvdb-entry-52de546f.anything"), Verdict::Refused);
    assert_eq!(named("kvdb-snapshot-24939bf3.anything"), Verdict::Refused);
}

/// The log was put together by what records said of their entries, and handed over by what the entries said: with a gap.
#[test]
fn a_log_whose_records_lie_about_their_entries_is_refused() {
    assert_eq!(named("kvdb-store-188bbd3c.anything"), Verdict::Refused);
}

/// A record whose epoch is lower than that of the record before it stopped the whole node at its start; it stops its volume now.
#[test]
fn a_journal_whose_epochs_go_back_does_not_stop_the_node() {
    assert_eq!(named("host-recovery-93484ee0.anything"), Verdict::Accepted);
}

//! What tells an operator why and what: `explain`, `get events`, `status --watch`, and what is generated from the grammar.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

#[path = "support/stand_in.rs"]
mod support;

use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use support::{expect, observed, run, stand_in};

fn explanation() -> Value {
    json!({"subject": "volume db", "state": "Frozen, InSync", "since_ms": Value::Null,
           "facts": ["its I/O waits at a1: waiting for b1", "its in-sync set, as kvdb has it: a1 and b1 (epoch 1.7)"],
           "rule": "a write is answered once every member holds it (I1)",
           "remedies": [{"command": "start b1", "consequence": "I/O goes on by itself"},
                        {"command": "domain-ctl deactivate clusterdomain site-b --wait", "consequence": "site-b is fenced"}],
           "observed": observed(true)})
}

fn event(revision: u64, what: &str) -> Value {
    json!({"revision": revision, "at_ms": 1_795_341_845_000_u64, "who": "operator", "why": "drill", "what": what})
}

fn events(items: &[Value]) -> Value {
    json!({"items": items, "complete_from": 0, "observed": observed(true)})
}

#[test]
fn an_explanation_says_what_is_so_which_rule_holds_it_and_what_changes_it() {
    let api = stand_in(&[
        ("GET /v1/volumes/db/explain", 200, explanation()),
        ("GET /v1/clusterdomains/site-b/explain", 200, {
            let mut domain = explanation();
            domain["since_ms"] = json!(1_795_341_835_000_u64);
            domain["remedies"] = json!([]);
            domain
        }),
    ]);
    let text = "volume db: Frozen, InSync\n\n\
                What is so:\n  - its I/O waits at a1: waiting for b1\n  - its in-sync set, as kvdb has it: a1 and b1 (epoch 1.7)\n\n\
                The rule: a write is answered once every member holds it (I1)\n\n\
                What would change it:\n  start b1\n      I/O goes on by itself\n  \
                domain-ctl deactivate clusterdomain site-b --wait\n      site-b is fenced\n";
    expect(
        &run(&api.address, &["explain", "volume", "db"]),
        0,
        text,
        "",
    );
    for alias in ["clusterdomain", "cd", "domain"] {
        let output = run(&api.address, &["explain", alias, "site-b"]);
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(
            said.contains(", since 2026-11-22 10:03:55 UTC (5s)\n"),
            "{said}"
        );
        assert!(said.ends_with("\nThere is nothing to do.\n"), "{said}");
    }
    let output = run(&api.address, &["explain", "volume", "db", "-o", "json"]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json, explanation());
    let nothing = run(&api.address, &["explain", "volume", "none"]);
    assert_eq!(nothing.status.code(), Some(1));
}

#[test]
fn events_are_listed_and_followed_without_gap_or_repeat() {
    let api = stand_in(&[
        (
            "GET /v1/events",
            200,
            events(&[event(4, "volume db created")]),
        ),
        (
            "GET /v1/events?after=4",
            200,
            events(&[event(6, "domain site-b deactivated")]),
        ),
        ("GET /v1/events?after=6", 200, events(&[])),
    ]);
    let table = "REVISION   TIME                      WHO        WHAT                REASON\n\
                 4          2026-11-22 10:04:05 UTC   operator   volume db created   drill\n";
    expect(&run(&api.address, &["get", "events"]), 0, table, "");
    let mut following = Command::new(env!("CARGO_BIN_EXE_domain-ctl"))
        .args([
            "--api",
            &api.address,
            "get",
            "events",
            "--follow",
            "-o",
            "json",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(following.stdout.take().unwrap());
    let lines: Vec<Value> = out
        .lines()
        .take(2)
        .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
        .collect();
    assert_eq!(lines[0]["revision"], 4);
    assert_eq!(lines[1], event(6, "domain site-b deactivated"));
    following.kill().unwrap();
    following.wait().unwrap();
}

#[test]
fn completions_and_manual_pages_come_from_the_grammar() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run("http://127.0.0.1:1", &["completion", shell]);
        assert_eq!(output.status.code(), Some(0));
        let text = String::from_utf8(output.stdout).unwrap();
        for word in ["clusterdomain", "explain", "accept-data-loss"] {
            assert!(text.contains(word), "{shell}: {word}");
        }
    }
    let page = run(
        "http://127.0.0.1:1",
        &["manual", "deactivate", "clusterdomain"],
    );
    let text = String::from_utf8(page.stdout).unwrap();
    assert!(
        text.contains(".TH") && text.contains("accept\\-data\\-loss"),
        "{text}"
    );
    let wrong = run("http://127.0.0.1:1", &["manual", "explode"]);
    assert_eq!(wrong.status.code(), Some(2));
    let said = String::from_utf8(wrong.stderr).unwrap();
    assert!(
        said.contains("no command 'explode'") && said.contains("deactivate"),
        "{said}"
    );
}

//! What `domain-ctl` prints and how it exits, over a stand-in for the admin API that answers with fixed texts.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

#[path = "support/stand_in.rs"]
mod support;

use serde_json::{Value, json};
use std::net::TcpListener;
use support::{expect, observed, run, stand_in};

fn domain(name: &str, role: &str, state: &str, sync: Value) -> Value {
    json!({"name": name, "role": role, "state": state, "since_ms": 1_795_341_840_000_u64, "sync_status": sync,
           "nodes": [format!("{name}-1")], "reason": "", "next": ""})
}

fn status(confirmed: bool) -> Value {
    json!({"name": "px", "local_domain": "zone1", "created_ms": 1_795_341_840_000_u64, "observed": observed(confirmed),
           "domains": [domain("zone1", "data", "Active", json!("SyncInProgress")), domain("zone2", "data", "Active", json!("InSync")),
                       domain("zone3", "data", "Inactive", json!("NotInSync")), domain("w", "witness", "Active", Value::Null)]})
}

fn updates(states: &[(&str, &str)]) -> Value {
    let items: Vec<Value> = states
        .iter()
        .map(|(status, reason)| {
            json!({"name": "zone2-deactivate-7", "cluster_domain": "zone2", "action": "Deactivate", "status": status,
                   "reason": reason, "detail": "", "created_ms": 1_795_341_840_000_u64})
        })
        .collect();
    json!({"items": items, "observed": observed(true)})
}

const DOMAINS: &str = "GET /v1/clusterdomains";
const UPDATES: &str = "GET /v1/clusterdomainupdates";
const DEACTIVATE: &str = "POST /v1/clusterdomains/zone2/deactivate";

fn begun() -> Value {
    json!({"cluster_domain": "zone2", "update": "zone2-deactivate-7", "plan": [], "refusal": ""})
}

#[test]
fn clusterdomainsstatus_has_storkctls_columns() {
    let api = stand_in(&[(DOMAINS, 200, status(true))]);
    let table = "NAME   LOCAL-DOMAIN   ACTIVE                                   INACTIVE            CREATED\n\
                 px     zone1          zone1 (SyncInProgress), zone2 (InSync)   zone3 (NotInSync)   22 Nov 26 10:04 UTC\n";
    for alias in ["clusterdomainsstatus", "cds"] {
        expect(&run(&api.address, &["get", alias]), 0, table, "");
    }
    expect(
        &run(&api.address, &["get", "cds", "other"]),
        1,
        "",
        "error: clusterdomainsstatus other not found\n",
    );
}

#[test]
fn the_witness_is_among_the_cluster_domains() {
    let api = stand_in(&[(DOMAINS, 200, status(true))]);
    let output = run(&api.address, &["get", "cd", "w"]);
    expect(
        &output,
        0,
        "NAME   ROLE      STATE    SYNC   NODES   SINCE\nw      witness   Active   -      w-1     22 Nov 26 10:04 UTC\n",
        "",
    );
}

#[test]
fn clusterdomainupdate_has_storkctls_columns_and_texts() {
    let api = stand_in(&[(UPDATES, 200, updates(&[("Successful", "")]))]);
    let table = "NAME                 CLUSTER-DOMAIN   ACTION       STATUS       CREATED\n\
                 zone2-deactivate-7   zone2            Deactivate   Successful   22 Nov 26 10:04 UTC\n";
    expect(
        &run(&api.address, &["get", "clusterdomainupdate"]),
        0,
        table,
        "",
    );
    expect(
        &run(&api.address, &["get", "cdu", "zone2-deactivate-7"]),
        0,
        table,
        "",
    );
    let empty = stand_in(&[(UPDATES, 200, updates(&[]))]);
    expect(
        &run(&empty.address, &["get", "cdu"]),
        0,
        "No resources found.\n",
        "",
    );
}

#[test]
fn json_and_yaml_hold_the_same() {
    let api = stand_in(&[(UPDATES, 200, updates(&[("Failed", "it said: no")]))]);
    let json: Value =
        serde_json::from_slice(&run(&api.address, &["get", "cdu", "-o", "json"]).stdout).unwrap();
    assert_eq!(json, updates(&[("Failed", "it said: no")]));
    let yaml = String::from_utf8(run(&api.address, &["get", "cdu", "-o", "yaml"]).stdout).unwrap();
    for line in [
        "items:",
        "cluster_domain: zone2",
        "status: Failed",
        "confirmed: true",
    ] {
        assert!(yaml.contains(line), "{yaml}");
    }
    assert!(
        yaml.contains("'it said: no'") || yaml.contains("\"it said: no\""),
        "a colon needs quotes: {yaml}"
    );
}

#[test]
fn a_deactivation_that_is_waited_for_ends_with_the_truth() {
    let started = "Cluster Domain deactivate operation started successfully for zone2\n";
    let api = stand_in(&[(DEACTIVATE, 202, begun())]);
    expect(
        &run(&api.address, &["deactivate", "clusterdomain", "zone2"]),
        0,
        started,
        "",
    );
    let progress = updates(&[("InProgress", "")]);
    let good = stand_in(&[
        (DEACTIVATE, 202, begun()),
        (UPDATES, 200, progress.clone()),
        (UPDATES, 200, updates(&[("Successful", "")])),
    ]);
    let text = format!(
        "{started}Deactivating....InProgress..Successful\nCluster Domain zone2 updated successfully\n\
         Cluster Domain zone2 deactivated successfully\n"
    );
    expect(
        &run(&good.address, &["deactivate", "cd", "zone2", "--wait"]),
        0,
        &text,
        "",
    );
    let bad = stand_in(&[
        (DEACTIVATE, 202, begun()),
        (UPDATES, 200, updates(&[("Failed", "given up")])),
    ]);
    let text = format!("{started}Deactivating....Failed\n");
    let failed = "Failed to update ClusterDomain, Reason : given up\n";
    expect(
        &run(&bad.address, &["deactivate", "domain", "zone2", "--wait"]),
        1,
        &text,
        failed,
    );
    let slow = stand_in(&[(DEACTIVATE, 202, begun()), (UPDATES, 200, progress)]);
    let output = run(
        &slow.address,
        &["deactivate", "cd", "zone2", "--wait", "--timeout", "1s"],
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("Timed out performing task"));
}

#[test]
fn all_inactive_domains_can_be_activated_at_once() {
    let answer =
        json!({"cluster_domain": "zone3", "update": "zone3-activate-9", "plan": [], "refusal": ""});
    let api = stand_in(&[
        (DOMAINS, 200, status(true)),
        ("POST /v1/clusterdomains/zone3/activate", 202, answer),
    ]);
    let text = "Cluster Domain activate operation started successfully for zone3\n";
    expect(
        &run(&api.address, &["activate", "clusterdomain", "--all"]),
        0,
        text,
        "",
    );
}

#[test]
fn refusals_and_wrong_usage_have_their_exit_codes() {
    let refusal =
        json!({"error": "provided cluster domain zone9 not found", "reason": "", "next": ""});
    let api = stand_in(&[("POST /v1/clusterdomains/zone9/activate", 404, refusal)]);
    expect(
        &run(&api.address, &["activate", "cd", "zone9"]),
        1,
        "",
        "error: provided cluster domain zone9 not found\n",
    );
    for verb in ["activate", "deactivate"] {
        let text = format!(
            "error: exactly one cluster domain name needs to be provided to the {verb} command\n"
        );
        expect(&run(&api.address, &[verb, "clusterdomain"]), 2, "", &text);
    }
    let output = run(&api.address, &["create", "volume", "x", "--size", "10GB"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("write KiB, MiB, GiB or TiB"));
    assert_eq!(
        run("https://127.0.0.1:1", &["status"]).status.code(),
        Some(2)
    );
}

#[test]
fn a_dry_run_prints_the_plan_and_fails_where_it_would_be_refused() {
    let plan = json!({"cluster_domain": "zone2", "update": null, "plan": ["first", "second"], "refusal": "demo would be lost"});
    let api = stand_in(&[(DEACTIVATE, 200, plan)]);
    let text = "Deactivating cluster domain zone2 would do this (nothing was changed):\n  1. first\n  2. second\n";
    let output = run(&api.address, &["deactivate", "cd", "zone2", "--dry-run"]);
    expect(
        &output,
        1,
        text,
        "error: it would be refused now: demo would be lost\n",
    );
    assert!(api.seen.lock().unwrap()[0].2.contains("\"dry_run\":true"));
}

/// An address where nobody listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[test]
fn a_change_is_tried_at_all_nodes_under_one_request_id() {
    let unable = json!({"error": "no quorum", "reason": "", "next": ""});
    let first = stand_in(&[("POST /v1/volumes", 503, unable)]);
    let second = stand_in(&[("POST /v1/volumes", 201, json!({"name": "demo", "id": 1}))]);
    let api = format!("{},{},{}", nobody(), first.address, second.address);
    let output = run(&api, &["create", "volume", "demo", "--size", "10GiB"]);
    expect(&output, 0, "Volume demo created successfully\n", "");
    let (first, second) = (first.seen.lock().unwrap(), second.seen.lock().unwrap());
    assert_eq!(first.len(), 1);
    assert_eq!(first[0].1, second[0].1, "the same request id");
    assert!(!first[0].1.is_empty());
    assert!(second[0].2.contains(&format!("\"bytes\":{}", 10_u64 << 30)));
}

#[test]
fn a_confirmed_answer_is_preferred_and_an_unconfirmed_one_is_marked() {
    let cut_off = stand_in(&[(DOMAINS, 200, status(false))]);
    let good = stand_in(&[(DOMAINS, 200, status(true))]);
    let output = run(
        &format!("{},{}", cut_off.address, good.address),
        &["get", "cds"],
    );
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
    let output = run(&cut_off.address, &["get", "cds"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(
        String::from_utf8_lossy(&output.stderr).starts_with("warning: no node reaches a majority")
    );
}

#[test]
fn nobody_there_is_an_error_that_names_who_was_tried() {
    let address = nobody();
    let output = run(&address, &["get", "volumes"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        text.contains(&address) && text.contains("ISTHMUS_API"),
        "{text}"
    );
}

#[test]
fn a_volume_is_described_with_its_replicas_and_the_next_step() {
    let volume = json!({
        "name": "demo", "id": 1, "bytes": 1_073_741_824_u64, "block_bytes": 4096, "created_ms": 1_795_341_840_000_u64,
        "on_peer_loss": "degrade", "durability": "acknowledged", "preferred_domain": null, "epoch": "3", "service": "Serving",
        "sync_status": "SyncInProgress", "primary": "a1", "in_sync": ["a1"], "unprotected_since_ms": 1_795_341_780_000_u64,
        "nbd": ["nbd://127.0.0.1:10809/demo"], "reason": "", "next": "wait", "observed": observed(true),
        "replicas": [
            {"node": "a1", "domain": "site-a", "primary": true, "state": "InSync", "observed_at_ms": 1_795_341_840_000_u64, "reason": ""},
            {"node": "b1", "domain": "site-b", "primary": false, "state": "Resyncing", "done_bytes": 10_485_760, "total_bytes": 41_943_040,
             "bytes_per_second": 5_242_880, "seconds_left": 6, "observed_at_ms": null, "reason": "it is being brought back"}]
    });
    let api = stand_in(&[("GET /v1/volumes/demo", 200, volume)]);
    let text =
        String::from_utf8(run(&api.address, &["describe", "volume", "demo"]).stdout).unwrap();
    for words in [
        "Size:              1 GiB (1073741824 bytes, thin)\n",
        "Unprotected:       for 60s, since 22 Nov 26 10:03 UTC\n",
        "Next step:         wait\n",
        "  b1     site-b   secondary   SyncInProgress (10 MiB of 40 MiB, 5 MiB/s, 6s left)   never    it is being brought back\n",
    ] {
        assert!(text.contains(words), "{words}\n{text}");
    }
}

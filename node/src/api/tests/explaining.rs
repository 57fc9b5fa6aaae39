//! What explanations and events say.

use super::*;
use isthmus_api::Grant;

async fn explained(memory: &Arc<Memory>, what: &str) -> Value {
    let (status, explanation) = get(memory, &format!("/v1/{what}/explain")).await;
    assert_eq!(status, StatusCode::OK, "{explanation}");
    explanation
}

fn texts(value: &Value) -> Vec<&str> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|text| text.as_str().unwrap())
        .collect()
}

/// The consequence of the remedy with this command.
fn consequence<'a>(explanation: &'a Value, command: &str) -> &'a str {
    let remedies = explanation["remedies"].as_array().unwrap();
    let found = remedies
        .iter()
        .find(|remedy| remedy["command"] == json!(command));
    found.unwrap_or_else(|| panic!("{command}: {explanation}"))["consequence"]
        .as_str()
        .unwrap()
}

/// Makes the replica on this node primary, as the catalog sees it, and lets the node say what it does.
fn serve(memory: &Memory, node: u32, role: VolumeRole, reason: &str) {
    let id = {
        let mut catalog = memory.catalog.lock();
        let (id, epoch) = catalog
            .volumes
            .iter()
            .next()
            .map(|(id, volume)| (*id, volume.epoch))
            .unwrap();
        let replica = ReplicaId {
            node: NodeId(node),
            incarnation: Incarnation(u64::from(node)),
        };
        let promote = Command::Promote {
            volume: id,
            expected: epoch,
            candidate: replica,
        };
        assert!(!matches!(
            apply(&mut catalog, 90, promote),
            Answer::Refused(_)
        ));
        id
    };
    let mut observations = memory.observations.lock();
    let runtime = observations.get_mut(&NodeId(node)).unwrap();
    runtime.runtime.as_mut().unwrap().volumes = vec![VolumeRuntime {
        volume: id.0,
        epoch: (1, 2),
        role,
        may_serve: true,
        committed_seq: 0,
        last_epoch: (0, 0),
        last_seq: 0,
        whole: true,
        clients: 1,
        welcomed: false,
        absent: Vec::new(),
        moved_bytes: 0,
        reason: reason.to_owned(),
        frozen_since_ms: None,
        grants: Vec::new(),
        disk: isthmus_api::DiskState::default(),
    }];
}

#[tokio::test]
async fn a_volume_that_nobody_uses_says_where_it_can_be_opened() {
    let memory = with_volume().await;
    let idle = explained(&memory, "volumes/demo").await;
    assert_eq!(idle["state"], json!("Idle, InSync"));
    assert!(texts(&idle["facts"])[1].contains("a1 and b1"), "{idle}");
    let opened = consequence(&idle, "open nbd://127.0.0.1:10809/demo");
    assert!(opened.contains("becomes primary"));
    let (status, _) = get(&memory, "/v1/volumes/none/explain").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_frozen_volume_says_for_whom_it_waits_and_what_each_way_out_costs() {
    let memory = with_volume().await;
    serve(
        &memory,
        1,
        VolumeRole::Frozen,
        "waiting for the replica on n2",
    );
    memory.silence(2);
    {
        let mut observations = memory.observations.lock();
        let said = observations.get_mut(&NodeId(1)).unwrap();
        let said = &mut said.runtime.as_mut().unwrap().volumes[0];
        said.frozen_since_ms = Some(50_531_000);
        let (to, from) = (1, Some(2));
        said.grants = vec![
            Grant {
                from,
                to,
                ends_in_ms: 1_500,
            },
            Grant {
                from: None,
                to,
                ends_in_ms: 0,
            },
        ];
    }
    let frozen = explained(&memory, "volumes/demo").await;
    assert!(
        frozen["state"].as_str().unwrap().starts_with("Frozen"),
        "{frozen}"
    );
    assert!(texts(&frozen["facts"])[0].contains("waiting for the replica on n2"));
    assert_eq!(frozen["since_ms"], json!(50_531_000));
    let facts = texts(&frozen["facts"]);
    assert!(
        facts[1].starts_with("frozen since 14:02:11 UTC, "),
        "{frozen}"
    );
    assert!(
        facts[2].starts_with("the grant of b1 to a1 runs out in 1.5 s"),
        "{frozen}"
    );
    assert!(
        facts[3].starts_with("kvdb's grant to a1 is over"),
        "{frozen}"
    );
    assert!(frozen["rule"].as_str().unwrap().contains("I2"), "{frozen}");
    assert!(consequence(&frozen, "start b1").contains("nothing is lost"));
    let without = consequence(&frozen, "domain-ctl deactivate clusterdomain site-b --wait");
    assert!(without.contains("a1 serves"), "{without}");
}

#[tokio::test]
async fn a_volume_whose_primary_is_silent_says_who_could_take_over() {
    let memory = with_volume().await;
    serve(&memory, 1, VolumeRole::Primary, "");
    memory.silence(1);
    let unknown = explained(&memory, "volumes/demo").await;
    assert!(unknown["state"].as_str().unwrap().starts_with("Unknown"));
    let command = "domain-ctl deactivate clusterdomain site-a --wait";
    assert!(consequence(&unknown, command).contains("b1 serves every acknowledged write"));
    memory.silence(2);
    let lost = explained(&memory, "volumes/demo").await;
    assert!(consequence(&lost, command).contains("is refused"), "{lost}");
}

#[tokio::test]
async fn a_domain_says_what_its_loss_would_mean_and_what_changes_its_state() {
    let memory = with_volume().await;
    let active = explained(&memory, "clusterdomains/site-a").await;
    assert_eq!(active["state"], json!("Active, InSync"));
    assert!(
        texts(&active["facts"]).contains(&"if it failed now, no acknowledged write would be lost")
    );
    assert_eq!(active["remedies"], json!([]));
    memory.silence(1);
    let silent = explained(&memory, "clusterdomains/site-a").await;
    let command = "domain-ctl deactivate clusterdomain site-a --wait";
    assert!(consequence(&silent, command).contains("the other site serves"));
    let path = "/v1/clusterdomains/site-a/deactivate";
    let (status, _) = post(&memory, path, &id(3), json!({"reason": "drill 7"})).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let leaving = explained(&memory, "clusterdomains/site-a").await;
    assert!(
        leaving["rule"].as_str().unwrap().contains("proven"),
        "{leaving}"
    );
    let volume = explained(&memory, "volumes/demo").await;
    let back = "domain-ctl activate clusterdomain site-a --wait";
    assert!(consequence(&volume, back).contains("a1 is brought back"));

    let (_, events) = get(&memory, "/v1/events").await;
    let last = events["items"].as_array().unwrap().last().unwrap();
    assert_eq!(last["why"], json!("drill 7"));
    assert_eq!(last["who"], json!("operator"));
    let after = format!("/v1/events?after={}", last["revision"]);
    let (_, none) = get(&memory, &after).await;
    assert_eq!(none["items"], json!([]));
    let (status, error) = get(&memory, "/v1/events?after=yesterday").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{error}");
    let (status, _) = get(&memory, "/v1/events?since=1").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

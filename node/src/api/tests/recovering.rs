//! Going on without quorum, as far as a node decides it by itself.

use super::*;

const PATH: &str = "/v1/kvdb/recover";

async fn recover(memory: &Arc<Memory>, body: Value) -> (StatusCode, Value) {
    post(memory, PATH, &id(70), body).await
}

#[tokio::test]
async fn a_generation_is_forced_without_a_majority_and_by_the_operators_word_only() {
    let memory = with_volume().await;
    let (status, refused) = recover(&memory, json!({"others_are_off": true})).await;
    assert_eq!(status, StatusCode::CONFLICT, "{refused}");
    assert!(
        refused["error"]
            .as_str()
            .unwrap()
            .contains("nothing to recover")
    );

    *memory.quorum.lock() = false;
    let (status, plan) = recover(&memory, json!({"dry_run": true})).await;
    assert_eq!(
        (status, &plan["generation"]),
        (StatusCode::OK, &Value::Null)
    );
    assert_eq!((&plan["node"], &plan["volumes"]), (&json!("a1"), &json!(1)));
    let (status, refused) = recover(&memory, json!({})).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(
        refused["next"]
            .as_str()
            .unwrap()
            .contains("--others-are-off"),
        "{refused}"
    );
    assert_eq!(*memory.change.lock(), None, "nothing has changed so far");

    let word = json!({"others_are_off": true, "reason": "burnt down"});
    let (status, begun) = recover(&memory, word.clone()).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let Some(Change::Force {
        lineage,
        cause,
        catalog: None,
    }) = memory.change.lock().clone()
    else {
        panic!("it was told to go on with what it holds")
    };
    assert_eq!(begun["generation"], json!(lineage.to_string()));
    assert_eq!((lineage.number(), cause.why.as_str()), (1, "burnt down"));
    assert_eq!(recover(&memory, word).await.0, StatusCode::CONFLICT, "once");
}

#[tokio::test]
async fn what_was_saved_is_restored_in_its_own_cluster_only() {
    let memory = with_volume().await;
    let (status, saved) = get(&memory, "/v1/kvdb/snapshot").await;
    assert_eq!((status, &saved["volumes"]), (StatusCode::OK, &json!(1)));
    let restore = |snapshot: &Value| json!({"others_are_off": true, "snapshot": snapshot});

    let mut damaged = saved.clone();
    damaged["crc32"] = json!(saved["crc32"].as_u64().unwrap() ^ 1);
    let (status, refused) = recover(&memory, restore(&damaged)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(
        refused["error"].as_str().unwrap().contains("snapshot"),
        "{refused}"
    );

    let other = Memory::new();
    other.catalog.lock().cluster_id ^= 1;
    assert_eq!(
        recover(&other, restore(&saved)).await.0,
        StatusCode::CONFLICT
    );
    assert_eq!(*other.change.lock(), None);

    // Also where kvdb has a majority: what it has agreed on may be what is wrong.
    assert_eq!(
        recover(&memory, restore(&saved)).await.0,
        StatusCode::ACCEPTED
    );
    let change = memory.change.lock().clone();
    assert!(matches!(
        change,
        Some(Change::Force {
            catalog: Some(_),
            ..
        })
    ));
}

#[tokio::test]
async fn a_replica_is_named_only_where_none_counts_and_where_it_says_that_it_is_whole() {
    let memory = with_volume().await;
    let path = "/v1/volumes/demo/recover";
    let (status, shown) = post(&memory, path, &id(71), json!({})).await;
    assert_eq!(
        (status, &shown["unproven"]),
        (StatusCode::OK, &json!(false))
    );
    let (status, _) = post(&memory, path, &id(72), json!({"from": "a1"})).await;
    assert_eq!(status, StatusCode::CONFLICT, "its set counts");

    let forced = apply(
        &mut memory.catalog.lock(),
        900,
        Command::ForceGeneration { id: 5 },
    );
    assert_eq!(forced, Answer::Done);
    let (_, shown) = get(&memory, "/v1/volumes/demo").await;
    assert!(
        shown["next"]
            .as_str()
            .unwrap()
            .contains("recover volume demo"),
        "{shown}"
    );
    let (_, status) = get(&memory, "/v1/status").await;
    assert_eq!(status["site_loss"][0]["zero_data_loss"], json!(false));
    // No node says that it has one.
    let (status, refused) = post(&memory, path, &id(73), json!({"from": "a1"})).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(
        refused["reason"]
            .as_str()
            .unwrap()
            .contains("says nothing of it"),
        "{refused}"
    );
    let (status, refused) = post(&memory, path, &id(74), json!({"from": "w1"})).await;
    assert_eq!(status, StatusCode::CONFLICT, "{refused}");
}

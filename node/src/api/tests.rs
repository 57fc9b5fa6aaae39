//! The routes over a catalog in memory.

mod explaining;
mod recovering;

use crate::api::access::{ClusterAccess, Observation, Observations, SHOWN_WITHIN, Unavailable};
use crate::api::routes::{OPENAPI, router};
use crate::generation::Change;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode};
use isthmus_api::{
    KeptOut, KvdbView, LinkAction, LinkChange, LinkRuntime, LinkState, NodeRuntime,
    ReplicaProgress, VolumeRole, VolumeRuntime,
};
use isthmus_catalog::{
    Answer, Catalog, Cause, Command, DomainRecord, DomainRole, DomainState, Lineage, NodeRecord,
    RequestId,
};
use isthmus_engine::{DomainId, Incarnation, NodeId, ReplicaId, VolumeId};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tower::ServiceExt;

/// Two data nodes and a witness; all answer unless said otherwise.
pub struct Memory {
    pub catalog: Mutex<Catalog>,
    pub observations: Mutex<Observations>,
    quorum: Mutex<bool>,
    /// What this node was told to change to.
    change: Mutex<Option<Change>>,
    link_action: Mutex<LinkAction>,
}

pub const NODES: [(u32, &str, &str); 3] = [
    (1, "a1", "site-a"),
    (2, "b1", "site-b"),
    (3, "w1", "witness"),
];

pub fn runtime(node: u32) -> NodeRuntime {
    NodeRuntime {
        node,
        name: NODES[node as usize - 1].1.to_owned(),
        version: "0".to_owned(),
        incarnation: Incarnation(u64::from(node)).to_string(),
        starts: 1,
        uptime_seconds: 1,
        observed_at_ms: 1,
        kvdb: KvdbView::default(),
        acted_on_revision: u64::MAX,
        volumes: Vec::new(),
        sessions: Some(Vec::new()),
        updates_waiting: Vec::new(),
        links: Vec::new(),
        store_bytes_total: Some(1000),
        store_bytes_free: Some(600 + u64::from(node)),
    }
}

pub fn heard(runtime: NodeRuntime) -> Observation {
    Observation {
        runtime: Some(runtime),
        heard_at_ms: Some(1),
        answers: true,
        ..Observation::default()
    }
}

pub fn apply(catalog: &mut Catalog, number: u64, command: Command) -> Answer {
    let cause = Cause {
        who: "test".to_owned(),
        why: String::new(),
        at_ms: 1_000,
    };
    catalog.apply(&isthmus_catalog::Request {
        id: RequestId { client: 1, number },
        cause,
        command,
    })
}

/// A formed cluster whose nodes have registered.
pub fn formed() -> Catalog {
    let mut catalog = Catalog::default();
    let domains = NODES.map(|(id, _, domain)| {
        let role = if id == 3 {
            DomainRole::Witness
        } else {
            DomainRole::Data
        };
        let record = DomainRecord {
            name: domain.to_owned(),
            role,
            state: DomainState::Active,
            since_ms: 1_000,
            created_ms: 1_000,
        };
        (DomainId(id), record)
    });
    let nodes = NODES.map(|(id, name, _)| {
        let record = NodeRecord {
            name: name.to_owned(),
            domain: DomainId(id),
            peer_address: format!("127.0.0.1:{}", 9539 + id),
            api_address: format!("127.0.0.1:{}", 9439 + id),
            nbd_address: (id != 3).then(|| format!("127.0.0.1:{}", 10808 + id)),
            incarnation: None,
            starts: 0,
        };
        (NodeId(id), record)
    });
    let form = Command::Form {
        cluster_name: "test".to_owned(),
        cluster_id: 7,
        domains: domains.to_vec(),
        nodes: nodes.to_vec(),
    };
    assert_eq!(apply(&mut catalog, 1, form), Answer::Done);
    for (id, ..) in NODES {
        let started = Command::NodeStarted {
            node: NodeId(id),
            incarnation: Incarnation(u64::from(id)),
            starts: 1,
        };
        assert!(!matches!(
            apply(&mut catalog, 1 + u64::from(id), started),
            Answer::Refused(_)
        ));
    }
    catalog
}

impl Memory {
    fn new() -> Arc<Memory> {
        let observations = NODES.map(|(id, ..)| (NodeId(id), heard(runtime(id))));
        Arc::new(Memory {
            catalog: Mutex::new(formed()),
            observations: Mutex::new(observations.into()),
            quorum: Mutex::new(true),
            change: Mutex::new(None),
            link_action: Mutex::default(),
        })
    }

    fn silence(&self, node: u32) {
        self.observations
            .lock()
            .get_mut(&NodeId(node))
            .unwrap()
            .answers = false;
    }
}

impl ClusterAccess for Memory {
    async fn propose(
        &self,
        id: RequestId,
        cause: Cause,
        command: Command,
    ) -> Result<Answer, Unavailable> {
        self.confirmed(SHOWN_WITHIN).await?;
        Ok(self
            .catalog
            .lock()
            .apply(&isthmus_catalog::Request { id, cause, command }))
    }

    async fn confirmed(&self, _within: Duration) -> Result<Arc<Catalog>, Unavailable> {
        if *self.quorum.lock() {
            Ok(self.local())
        } else {
            Err(Unavailable("no majority".to_owned()))
        }
    }

    fn local(&self) -> Arc<Catalog> {
        Arc::new(self.catalog.lock().clone())
    }

    fn kvdb(&self) -> KvdbView {
        KvdbView {
            leader: Some(1),
            term: 1,
            voters: vec![1, 2, 3],
            revision: self.catalog.lock().revision,
            ..KvdbView::default()
        }
    }

    async fn observe(&self) -> Observations {
        self.observations.lock().clone()
    }

    async fn metrics(&self) -> Arc<str> {
        "isthmus_node_info 1\n".into()
    }

    async fn own_runtime(&self) -> NodeRuntime {
        runtime(1)
    }

    fn link_action(&self) -> LinkAction {
        *self.link_action.lock()
    }

    fn this_node(&self) -> NodeId {
        NodeId(1)
    }

    fn lineage(&self) -> Lineage {
        self.catalog.lock().lineage.clone()
    }

    fn cluster_id(&self) -> u64 {
        self.catalog.lock().cluster_id
    }

    fn change_generation(&self, change: Change) -> bool {
        self.change.lock().replace(change).is_none()
    }
}

async fn send(memory: &Arc<Memory>, request: Request<Body>) -> (StatusCode, Value) {
    let response = router(Arc::clone(memory), 99)
        .oneshot(request)
        .await
        .unwrap();
    let status = response.status();
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (
        status,
        serde_json::from_slice(&bytes).unwrap_or(Value::Null),
    )
}

async fn get(memory: &Arc<Memory>, path: &str) -> (StatusCode, Value) {
    let request = Request::get(path)
        .header("host", "127.0.0.1:9440")
        .body(Body::empty())
        .unwrap();
    send(memory, request).await
}

async fn post(memory: &Arc<Memory>, path: &str, id: &str, body: Value) -> (StatusCode, Value) {
    let request = Request::post(path)
        .header("host", "localhost:9440")
        .header("content-type", "application/json")
        .header("isthmus-request-id", id)
        .body(Body::from(body.to_string()))
        .unwrap();
    send(memory, request).await
}

fn id(number: u32) -> String {
    format!("00000000000000aa-{number}")
}

async fn with_volume() -> Arc<Memory> {
    let memory = Memory::new();
    let (status, made) = post(
        &memory,
        "/v1/volumes",
        &id(1),
        json!({"name": "demo", "bytes": 1 << 30}),
    )
    .await;
    assert_eq!(
        (status, &made["name"]),
        (StatusCode::CREATED, &json!("demo")),
        "{made}"
    );
    memory
}

#[tokio::test]
async fn a_repeated_creation_is_applied_once() {
    let memory = with_volume().await;
    let wanted = json!({"name": "demo", "bytes": 1 << 30});
    assert_eq!(
        post(&memory, "/v1/volumes", &id(1), wanted.clone()).await.0,
        StatusCode::CREATED
    );
    assert_eq!(memory.catalog.lock().volumes.len(), 1);
    let (status, error) = post(&memory, "/v1/volumes", &id(2), wanted).await;
    assert_eq!(status, StatusCode::CONFLICT, "{error}");
}

#[tokio::test]
async fn a_repeated_deletion_is_still_a_success() {
    let memory = with_volume().await;
    let delete = |number| {
        let request = Request::delete("/v1/volumes/demo")
            .header("host", "[::1]")
            .header("isthmus-request-id", id(number));
        request.body(Body::empty()).unwrap()
    };
    assert_eq!(send(&memory, delete(2)).await.0, StatusCode::OK);
    assert_eq!(send(&memory, delete(2)).await.0, StatusCode::OK);
    assert_eq!(send(&memory, delete(3)).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn wrong_input_is_refused_with_the_name_of_its_field() {
    let memory = Memory::new();
    for (body, field) in [
        (json!({"name": "UPPER", "bytes": 4096}), "name"),
        (json!({"name": "demo", "bytes": 1000}), "bytes"),
        (json!({"name": "demo", "bytes": "big"}), "bytes"),
        (
            json!({"name": "demo", "bytes": 4096, "block_bytes": 1024}),
            "block_bytes",
        ),
        (json!({"name": "demo", "bytes": 4096, "sise": 1}), "sise"),
        (
            json!({"name": "demo", "bytes": 4096, "preferred_domain": "witness"}),
            "preferred_domain",
        ),
    ] {
        let (status, error) = post(&memory, "/v1/volumes", &id(1), body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(
            error["error"].as_str().unwrap().starts_with(field),
            "{error}"
        );
    }
    let (status, error) = post(
        &memory,
        "/v1/volumes",
        "nonsense",
        json!({"name": "demo", "bytes": 4096}),
    )
    .await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{error}");
    assert!(memory.catalog.lock().volumes.is_empty());
}

#[tokio::test]
async fn what_a_web_page_could_send_is_refused() {
    let memory = with_volume().await;
    let rebound = Request::get("/v1/status")
        .header("host", "evil.example:9440")
        .body(Body::empty())
        .unwrap();
    assert_eq!(send(&memory, rebound).await.0, StatusCode::FORBIDDEN);
    let simple = Request::post("/v1/clusterdomains/site-a/deactivate")
        .header("host", "127.0.0.1")
        .body(Body::from("{}"))
        .unwrap();
    assert_eq!(
        send(&memory, simple).await.0,
        StatusCode::UNSUPPORTED_MEDIA_TYPE
    );
    let long = post(
        &memory,
        "/v1/volumes",
        &id(5),
        json!({"name": "x".repeat(100_000)}),
    )
    .await;
    assert_eq!(long.0, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn unknown_things_are_not_found() {
    let memory = Memory::new();
    let (status, error) = post(
        &memory,
        "/v1/clusterdomains/nowhere/activate",
        &id(1),
        json!({}),
    )
    .await;
    assert_eq!(
        (status, &error["error"]),
        (
            StatusCode::NOT_FOUND,
            &json!("provided cluster domain nowhere not found")
        )
    );
    assert_eq!(
        get(&memory, "/v1/volumes/none").await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(get(&memory, "/v2").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn without_quorum_reads_say_so_and_changes_are_refused_with_what_to_do() {
    let memory = with_volume().await;
    *memory.quorum.lock() = false;
    let (status, error) = post(
        &memory,
        "/v1/clusterdomains/site-a/deactivate",
        &id(2),
        json!({}),
    )
    .await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        error["next"]
            .as_str()
            .unwrap()
            .contains("domain-ctl status"),
        "{error}"
    );
    let (status, list) = get(&memory, "/v1/volumes").await;
    assert_eq!(
        (status, &list["observed"]["confirmed"]),
        (StatusCode::OK, &json!(false))
    );
    assert_eq!(list["items"][0]["sync_status"], json!("SyncStatusUnknown"));
    let (_, verdict) = get(&memory, "/v1/status").await;
    assert_eq!(verdict["site_loss"][0]["zero_data_loss"], json!(false));
}

#[tokio::test]
async fn a_deactivation_takes_its_replicas_out_and_a_second_one_is_refused() {
    let memory = with_volume().await;
    let path = "/v1/clusterdomains/site-a/deactivate";
    let (status, dry) = post(&memory, path, &id(2), json!({"dry_run": true})).await;
    assert_eq!(
        (status, &dry["refusal"], &dry["update"]),
        (StatusCode::OK, &json!(""), &Value::Null),
        "{dry}"
    );
    let (status, begun) = post(&memory, path, &id(3), json!({"reason": "test"})).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{begun}");
    let (status, again) = post(&memory, path, &id(4), json!({})).await;
    assert_eq!(
        (status, &again["update"]),
        (StatusCode::OK, &begun["update"])
    );
    let (_, updates) = get(&memory, "/v1/clusterdomainupdates").await;
    assert_eq!(updates["items"][0]["status"], json!("InProgress"));
    let (_, domains) = get(&memory, "/v1/clusterdomains").await;
    assert_eq!(domains["domains"][0]["sync_status"], json!("NotInSync"));
    assert_eq!(domains["domains"][1]["sync_status"], json!("InSync"));
    let (status, error) = post(
        &memory,
        "/v1/clusterdomains/site-b/deactivate",
        &id(5),
        json!({}),
    )
    .await;
    assert_eq!(status, StatusCode::CONFLICT, "{error}");
}

#[tokio::test]
async fn a_node_whose_start_is_not_noted_yet_counts_for_nothing() {
    let memory = with_volume().await;
    {
        let mut observations = memory.observations.lock();
        let runtime = observations.get_mut(&NodeId(2)).unwrap().runtime.as_mut();
        runtime.unwrap().starts = 2;
    }
    let path = "/v1/clusterdomains/site-a/deactivate";
    let (status, error) = post(&memory, path, &id(2), json!({})).await;
    assert_eq!(status, StatusCode::CONFLICT, "{error}");
}

#[tokio::test]
async fn a_deactivation_that_would_lose_writes_is_refused_unless_the_loss_is_accepted() {
    let memory = with_volume().await;
    memory.silence(2);
    let path = "/v1/clusterdomains/site-a/deactivate";
    let (status, error) = post(&memory, path, &id(2), json!({})).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(error["error"].as_str().unwrap().contains("demo"), "{error}");
    let (_, dry) = post(&memory, path, &id(3), json!({"dry_run": true})).await;
    assert!(
        dry["refusal"]
            .as_str()
            .unwrap()
            .contains("--accept-data-loss"),
        "{dry}"
    );
    let (status, _) = post(&memory, path, &id(4), json!({"accept_data_loss": true})).await;
    assert_eq!(status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn the_verdict_says_no_when_a_site_holds_the_only_replica_that_answers() {
    let memory = with_volume().await;
    let (_, status) = get(&memory, "/v1/status").await;
    assert!(
        status["site_loss"]
            .as_array()
            .unwrap()
            .iter()
            .all(|site| site["zero_data_loss"] == json!(true)),
        "{status}"
    );
    assert_eq!(status["kvdb"]["quorum_margin"], json!(1));
    assert_eq!(
        status["kvdb"]["tolerates_loss_of"],
        json!(["site-a", "site-b", "witness"])
    );
    memory.silence(2);
    let (_, status) = get(&memory, "/v1/status").await;
    assert_eq!(
        status["site_loss"][0]["zero_data_loss"],
        json!(false),
        "{status}"
    );
    assert_eq!(
        status["site_loss"][1]["zero_data_loss"],
        json!(true),
        "{status}"
    );
    assert_eq!(status["kvdb"]["quorum_margin"], json!(0));
    assert_eq!(
        status["kvdb"]["tolerates_loss_of"],
        json!([]),
        "a silent voter is lost already, and no other may be"
    );
    assert_eq!(status["nodes_silent"], json!(["b1"]));
}

#[tokio::test]
async fn a_resync_shows_its_progress_as_the_primary_tells_it() {
    let memory = with_volume().await;
    let volume = *memory.catalog.lock().volumes.keys().next().unwrap();
    let a1 = ReplicaId {
        node: NodeId(1),
        incarnation: Incarnation(1),
    };
    let b1 = ReplicaId {
        node: NodeId(2),
        incarnation: Incarnation(2),
    };
    lose_b1(&mut memory.catalog.lock(), volume, a1, b1);
    let mut said = runtime(1);
    let absent = ReplicaProgress {
        node: 2,
        resyncing: true,
        dirty_bytes: 400,
        done_bytes: 100,
        total_bytes: 400,
        bytes_per_second: 50,
        since_ms: Some(5),
    };
    said.volumes.push(VolumeRuntime {
        volume: volume.0,
        epoch: (0, 2),
        role: VolumeRole::Primary,
        may_serve: true,
        committed_seq: 1,
        last_epoch: (0, 0),
        last_seq: 0,
        whole: true,
        moved_bytes: 0,
        clients: 1,
        welcomed: false,
        absent: vec![absent],
        reason: String::new(),
        frozen_since_ms: None,
        grants: Vec::new(),
        disk: isthmus_api::DiskState::default(),
    });
    memory.observations.lock().insert(NodeId(1), heard(said));
    let (_, shown) = get(&memory, "/v1/volumes/demo").await;
    assert_eq!(
        (&shown["service"], &shown["sync_status"]),
        (&json!("Serving"), &json!("SyncInProgress")),
        "{shown}"
    );
    assert_eq!(shown["replicas"][1]["seconds_left"], json!(6), "{shown}");
    memory.silence(1);
    let (_, shown) = get(&memory, "/v1/volumes/demo").await;
    assert_eq!(
        (&shown["service"], &shown["replicas"][1]["state"]),
        (&json!("Unknown"), &json!("Unknown")),
        "{shown}"
    );
}

fn link_to(peer: u32, p50_us: u64) -> LinkRuntime {
    LinkRuntime {
        peer,
        state: LinkState::LatencyExceeded,
        reason: "slow".to_owned(),
        p50_us: Some(p50_us),
        probes: 60,
        observed_at_ms: 1,
        ..LinkRuntime::default()
    }
}

#[tokio::test]
async fn the_link_between_the_sites_is_shown_as_an_end_that_answers_measures_it() {
    let memory = Memory::new();
    for (node, peer, p50_us) in [(1, 2, 12_000), (2, 1, 13_000), (2, 3, 1)] {
        let mut observations = memory.observations.lock();
        let said = observations.get_mut(&NodeId(node)).unwrap();
        let links = &mut said.runtime.as_mut().unwrap().links;
        links.push(link_to(peer, p50_us));
    }
    let link = |status: &Value| {
        let links = status["links"].as_array().unwrap();
        assert_eq!(links.len(), 1, "the witness holds no replicas: {status}");
        links[0].clone()
    };
    let (_, status) = get(&memory, "/v1/status").await;
    let shown = link(&status);
    assert_eq!(
        (&shown["from"], &shown["to_domain"], &shown["p50_us"]),
        (&json!("a1"), &json!("site-b"), &json!(12_000))
    );
    assert_eq!(shown["state"], json!("LatencyExceeded"));
    assert!(shown["next"].as_str().unwrap().contains("max_rtt_ms"));
    memory.silence(1);
    let (_, status) = get(&memory, "/v1/status").await;
    assert_eq!(link(&status)["p50_us"], json!(13_000));
    memory.silence(2);
    let (_, status) = get(&memory, "/v1/status").await;
    assert_eq!(link(&status)["state"], json!("Unknown"));
}

#[tokio::test]
async fn no_volume_is_created_over_a_link_that_is_too_slow_where_that_is_the_action() {
    let memory = with_volume().await;
    let say = |node: u32, link: LinkRuntime| {
        let mut observations = memory.observations.lock();
        let said = observations.get_mut(&NodeId(node)).unwrap();
        said.runtime.as_mut().unwrap().links = vec![link];
    };
    let create = |number: u32, name: &str| {
        let body = json!({"name": name, "bytes": 1 << 20});
        let (memory, id) = (Arc::clone(&memory), id(number));
        async move { post(&memory, "/v1/volumes", &id, body).await }
    };
    // One end's word is enough; the witness's links are nobody's.
    say(2, link_to(1, 14_200));
    say(3, link_to(1, 14_200));
    assert_eq!(
        create(20, "over").await.0,
        StatusCode::CREATED,
        "reported only"
    );
    *memory.link_action.lock() = LinkAction::RefuseNew;
    let (status, refused) = create(21, "more").await;
    assert_eq!(status, StatusCode::CONFLICT, "{refused}");
    assert_eq!(refused["error"], json!("volume more is not created"));
    let reason = refused["reason"].as_str().unwrap();
    assert!(
        reason.contains("b1 and a1") && reason.contains("refuse-new"),
        "{refused}"
    );
    assert!(refused["next"].as_str().unwrap().contains("get links"));
    // What was created before is answered as it was, and what is there as ever.
    assert_eq!(create(20, "over").await.0, StatusCode::CREATED);
    let (_, taken) = create(22, "demo").await;
    assert!(taken["error"].as_str().unwrap().contains("demo"), "{taken}");
    assert_ne!(taken["error"], json!("volume demo is not created"));
    let good = LinkRuntime {
        state: LinkState::Good,
        ..link_to(1, 900)
    };
    say(2, good);
    assert_eq!(create(23, "more").await.0, StatusCode::CREATED);
}

#[tokio::test]
async fn a_replica_that_is_out_for_its_link_says_why_and_when_it_comes_back() {
    let memory = with_volume().await;
    let replica = |node: u32| ReplicaId {
        node: NodeId(node),
        incarnation: Incarnation(u64::from(node)),
    };
    {
        let mut catalog = memory.catalog.lock();
        let volume = *catalog.volumes.keys().next().unwrap();
        lose_b1(&mut catalog, volume, replica(1), replica(2));
    }
    serving_at_a1(&memory);
    let kept_out = |good_since_ms| KeptOut {
        since_ms: 50_531_000,
        reason: "the median round trip of the last 30 s is 14.2 ms, over max_rtt_ms = 10"
            .to_owned(),
        good_since_ms,
        hold_down_seconds: 300,
    };
    let say = |good_since_ms| {
        let mut observations = memory.observations.lock();
        let said = observations.get_mut(&NodeId(1)).unwrap();
        let change = LinkChange {
            at_ms: 50_531_000,
            state: LinkState::LatencyExceeded,
            reason: "slow".to_owned(),
        };
        said.runtime.as_mut().unwrap().links = vec![LinkRuntime {
            action: LinkAction::Degrade,
            kept_out: Some(kept_out(good_since_ms)),
            changes: vec![change],
            ..link_to(2, 14_200)
        }];
    };
    say(None);
    let (_, shown) = get(&memory, "/v1/volumes/demo").await;
    let reason = shown["replicas"][1]["reason"].as_str().unwrap();
    assert_eq!(
        reason,
        "it is out of the set for the link to a1, at 14:02:11 UTC: the median round trip of the last 30 s is 14.2 ms, over max_rtt_ms = 10; \
         replicas behind it come back when it was good for 5:00 min (it is not good now)"
    );
    assert!(
        shown["reason"]
            .as_str()
            .unwrap()
            .contains("b1: it is out of the set"),
        "{shown}"
    );
    assert!(
        shown["next"].as_str().unwrap().contains("get links"),
        "{shown}"
    );
    say(Some(crate::api::access::now_ms()));
    let (_, explained) = get(&memory, "/v1/volumes/demo/explain").await;
    let facts = explained["facts"].to_string();
    assert!(
        facts.contains("14.2 ms") && facts.contains("5:00 min left"),
        "{facts}"
    );
    let (_, links) = get(&memory, "/v1/links").await;
    assert_eq!(
        links["items"][0]["kept_out"]["hold_down_seconds"],
        json!(300)
    );
    let (_, events) = get(&memory, "/v1/events").await;
    assert_eq!(
        events["links"][0]["state"],
        json!("LatencyExceeded"),
        "{events}"
    );
    assert_eq!(events["links"][0]["from"], json!("a1"));
}

#[tokio::test]
async fn prometheus_is_answered_in_its_text_format() {
    let memory = Memory::new();
    let request = Request::get("/metrics").header("host", "localhost");
    let request = request.body(Body::empty()).unwrap();
    let response = router(Arc::clone(&memory), 99)
        .oneshot(request)
        .await
        .unwrap();
    let kind = response.headers()["content-type"].to_str().unwrap();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    assert_eq!(bytes, "isthmus_node_info 1\n");
}

#[tokio::test]
async fn a_node_shows_its_own_room_and_none_when_it_does_not_answer() {
    let memory = Memory::new();
    memory.silence(2);
    let (_, nodes) = get(&memory, "/v1/nodes").await;
    assert_eq!(nodes["items"][0]["store_bytes_total"], json!(1000));
    assert_eq!(nodes["items"][0]["store_bytes_free"], json!(601));
    assert_eq!(nodes["items"][2]["store_bytes_free"], json!(603));
    let silent = nodes["items"][1].as_object().unwrap();
    assert!(!silent.contains_key("store_bytes_total"), "{nodes}");
    assert!(!silent.contains_key("store_bytes_free"), "{nodes}");
}

/// a1 says that it serves the only volume, and what b1 lacks.
fn serving_at_a1(memory: &Memory) {
    let volume = *memory.catalog.lock().volumes.keys().next().unwrap();
    let mut observations = memory.observations.lock();
    let said = observations.get_mut(&NodeId(1)).unwrap();
    said.runtime.as_mut().unwrap().volumes = vec![VolumeRuntime {
        volume: volume.0,
        epoch: (0, 3),
        role: VolumeRole::Primary,
        may_serve: true,
        committed_seq: 0,
        last_epoch: (0, 0),
        last_seq: 0,
        whole: true,
        clients: 1,
        welcomed: false,
        absent: Vec::new(),
        moved_bytes: 0,
        reason: String::new(),
        frozen_since_ms: None,
        grants: Vec::new(),
        disk: isthmus_api::DiskState::default(),
    }];
}

/// a1 becomes primary, serves, and goes on without b1.
pub fn lose_b1(catalog: &mut Catalog, volume: VolumeId, a1: ReplicaId, b1: ReplicaId) {
    let expected = catalog.volumes[&volume].epoch;
    apply(
        catalog,
        100,
        Command::Promote {
            volume,
            expected,
            candidate: a1,
        },
    );
    let epoch = catalog.volumes[&volume].epoch;
    apply(
        catalog,
        101,
        Command::Opened {
            volume,
            epoch,
            primary: a1,
        },
    );
    let answer = apply(
        catalog,
        102,
        Command::Shrink {
            volume,
            epoch,
            primary: a1,
            leaving: [b1].into(),
        },
    );
    assert!(!matches!(answer, Answer::Refused(_)), "{answer:?}");
}

#[tokio::test]
async fn the_description_names_exactly_the_routes_that_are_there() {
    let memory = Memory::new();
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 28);
    for (path, operations) in paths {
        let real = path.replace("{name}", "demo");
        for method in [
            Method::GET,
            Method::POST,
            Method::PUT,
            Method::DELETE,
            Method::PATCH,
        ] {
            let described = operations.get(method.as_str().to_lowercase()).is_some();
            let request = Request::builder()
                .method(&method)
                .uri(&real)
                .header("host", "127.0.0.1")
                .body(Body::empty())
                .unwrap();
            let status = send(&memory, request).await.0;
            assert_eq!(
                status != StatusCode::METHOD_NOT_ALLOWED,
                described,
                "{method} {path}: {status}"
            );
        }
        let unknown = format!("there is no {real} in this API");
        assert_ne!(
            get(&memory, &real).await.1["error"],
            json!(unknown),
            "{path}"
        );
    }
}

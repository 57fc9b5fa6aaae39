//! Elections, failures and changes of members.

use super::cluster::{A, Cluster, NODES, WITHIN, cause, nodes};
use bytes::Bytes;
use isthmus_catalog::{Answer, Command, Request, VolumePolicy};
use isthmus_engine::{NodeId, VolumeId};
use isthmus_kvdb::KvdbError;
use std::time::Duration;

fn create(name: &str) -> Command {
    Command::CreateVolume {
        name: name.to_owned(),
        bytes: 1 << 20,
        block_bytes: 4096,
        policy: VolumePolicy::default(),
    }
}

fn deactivate_a() -> Command {
    Command::Deactivate {
        domain: A,
        answering: nodes(&[2, 3]),
        accept_data_loss: false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_proposes_and_sees_what_was_applied() {
    let cluster = Cluster::formed().await;
    for (number, node) in NODES.into_iter().enumerate() {
        let answer = cluster
            .kvdb(node)
            .propose(create(&format!("volume-{node}")), cause())
            .await
            .unwrap();
        assert_eq!(answer, Answer::Volume(VolumeId(number as u64 + 1)));
        let seen = cluster.kvdb(node).confirm().await.unwrap();
        assert_eq!(seen.volumes.len(), number + 1);
    }
    for node in NODES {
        cluster
            .until(node, |catalog| catalog.volumes.len() == 3)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_witness_does_not_keep_the_lead() {
    let cluster = Cluster::formed().await;
    let leader = cluster
        .leader(NodeId(3), |leader| leader != NodeId(3))
        .await;
    cluster.kill(leader).await;
    let next = cluster
        .leader(NodeId(3), |next| next != leader && next != NodeId(3))
        .await;
    assert!(NODES.contains(&next));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_group_goes_on_without_its_leader_and_takes_it_back() {
    let mut cluster = Cluster::formed().await;
    let leader = cluster
        .leader(NodeId(3), |leader| leader != NodeId(3))
        .await;
    cluster
        .kvdb(leader)
        .propose(create("before"), cause())
        .await
        .unwrap();
    cluster.kill(leader).await;
    assert_eq!(
        cluster
            .kvdb(NodeId(3))
            .propose(create("after"), cause())
            .await
            .unwrap(),
        Answer::Volume(VolumeId(2))
    );
    cluster.start(leader).await;
    cluster
        .until(leader, |catalog| catalog.volumes.len() == 2)
        .await;
    cluster.register(leader).await;
    assert_eq!(
        cluster.kvdb(leader).confirm().await.unwrap().nodes[&leader].starts,
        2
    );
}

/// Its log may have lost a tail that others hold: in the same term it would give the same log ids to other entries.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_restarts_leads_again_only_in_a_newer_term() {
    let mut cluster = Cluster::formed().await;
    let leader = cluster.leader(NodeId(1), |_| true).await;
    let known = cluster.kvdb(leader).wait_until(WITHIN, |_| true).await;
    let before = known.unwrap().term;
    for node in NODES {
        cluster.kill(node).await;
    }
    for node in NODES {
        cluster.start(node).await;
    }
    let risen = cluster
        .kvdb(leader)
        .wait_until(WITHIN, |metrics| metrics.term > before)
        .await;
    assert!(risen.is_ok(), "it leads on in term {before}: {risen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_loss_everywhere_loses_nothing() {
    let mut cluster = Cluster::formed().await;
    for number in 0..20 {
        cluster
            .kvdb(NODES[number % 3])
            .propose(create(&format!("v{number}")), cause())
            .await
            .unwrap();
    }
    let before = cluster.kvdb(NodeId(1)).confirm().await.unwrap();
    for node in NODES {
        cluster.kill(node).await;
        cluster.crash_disk(node);
    }
    for node in NODES {
        cluster.start(node).await;
    }
    assert_eq!(*cluster.kvdb(NodeId(2)).confirm().await.unwrap(), *before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_request_is_applied_once_whoever_forwards_it() {
    let cluster = Cluster::formed().await;
    let request = Request {
        id: cluster.kvdb(NodeId(1)).next_request(),
        cause: cause(),
        command: create("once"),
    };
    for node in NODES {
        let answer = cluster
            .kvdb(node)
            .propose_request(request.clone(), WITHIN)
            .await
            .unwrap();
        assert_eq!(
            answer,
            Answer::Volume(VolumeId(1)),
            "not that it exists already"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_cut_off_from_the_leader_asks_over_another() {
    let cluster = Cluster::formed().await;
    let leader = cluster
        .leader(NodeId(3), |leader| leader != NodeId(3))
        .await;
    let other = if leader == NodeId(1) {
        NodeId(2)
    } else {
        NodeId(1)
    };
    cluster.cut(leader, other);
    assert_eq!(
        cluster
            .kvdb(other)
            .propose(create("over"), cause())
            .await
            .unwrap(),
        Answer::Volume(VolumeId(1))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_isolated_leader_confirms_nothing_and_steps_back_when_it_returns() {
    let cluster = Cluster::formed().await;
    let leader = cluster
        .leader(NodeId(3), |leader| leader != NodeId(3))
        .await;
    cluster.isolate(leader);
    let confirmed = cluster
        .kvdb(leader)
        .confirm_within(Duration::from_millis(700))
        .await;
    assert!(
        matches!(confirmed, Err(KvdbError::Unavailable { .. })),
        "{confirmed:?}"
    );
    cluster
        .kvdb(NodeId(3))
        .propose(create("meanwhile"), cause())
        .await
        .unwrap();
    assert!(cluster.kvdb(leader).catalog().volumes.is_empty());
    cluster.heal();
    assert_eq!(
        cluster.kvdb(leader).confirm().await.unwrap().volumes.len(),
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn votes_follow_the_domains_and_come_back() {
    let mut cluster = Cluster::formed().await;
    let leader = cluster
        .leader(NodeId(3), |leader| leader != NodeId(3))
        .await;
    cluster.kill(NodeId(1)).await;
    cluster
        .kvdb(NodeId(2))
        .propose(deactivate_a(), cause())
        .await
        .unwrap();
    cluster.until_voters(&[2]).await;
    // Losing the witness after the site costs nothing.
    cluster.kill(NodeId(3)).await;
    cluster
        .kvdb(NodeId(2))
        .propose(
            Command::Deactivated {
                domain: A,
                proof: String::new(),
            },
            cause(),
        )
        .await
        .unwrap();
    cluster
        .kvdb(NodeId(2))
        .propose(Command::Activate { domain: A }, cause())
        .await
        .unwrap();
    cluster.start(NodeId(3)).await;
    cluster.start(NodeId(1)).await;
    cluster.until_voters(&[1, 2, 3]).await;
    cluster
        .kvdb(NodeId(1))
        .propose(Command::Activated { domain: A }, cause())
        .await
        .unwrap();
    cluster.kill(NodeId(2)).await;
    cluster
        .kvdb(NodeId(1))
        .propose(Command::Nothing, cause())
        .await
        .unwrap();
    assert!(NODES.contains(&leader));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_living_leader_in_the_deactivated_domain_hands_over_and_learns_of_it() {
    let cluster = Cluster::formed().await;
    let answer = cluster
        .kvdb(NodeId(1))
        .propose(deactivate_a(), cause())
        .await
        .unwrap();
    assert!(matches!(answer, Answer::Update(_)), "{answer:?}");
    cluster.until_voters(&[2]).await;
    assert_eq!(
        cluster
            .leader(NodeId(1), |leader| leader == NodeId(2))
            .await,
        NodeId(2)
    );
    cluster
        .kvdb(NodeId(2))
        .propose(
            Command::Deactivated {
                domain: A,
                proof: "told".to_owned(),
            },
            cause(),
        )
        .await
        .unwrap();
    cluster
        .until(NodeId(1), |catalog| {
            catalog.updates.iter().any(|update| update.detail == "told")
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_disk_comes_back_as_a_new_learner() {
    let mut cluster = Cluster::formed().await;
    cluster.kill(NodeId(2)).await;
    cluster.replace_disk(NodeId(2));
    cluster.start(NodeId(2)).await;
    let early = cluster.kvdb(NodeId(2)).metrics();
    assert!(
        early.voters.is_empty() && early.leader.is_none(),
        "nobody talks to the new member under its old name: {early:?}"
    );
    cluster.register(NodeId(2)).await;
    cluster.until_voters(&[1, 2, 3]).await;
    let forgotten = |metrics: &isthmus_kvdb::KvdbMetrics| metrics.learners.is_empty();
    cluster
        .kvdb(NodeId(1))
        .wait_until(WITHIN, forgotten)
        .await
        .unwrap();
    cluster.kvdb(NodeId(2)).confirm().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_for_long_gets_a_snapshot() {
    let mut cluster = Cluster::new();
    cluster.snapshot_entries = 100;
    cluster.form().await;
    cluster.kill(NodeId(2)).await;
    for number in 0..300 {
        cluster
            .kvdb(NodeId(1))
            .propose(create(&format!("v{number}")), cause())
            .await
            .unwrap();
    }
    cluster.start(NodeId(2)).await;
    cluster
        .until(NodeId(2), |catalog| catalog.volumes.len() == 300)
        .await;
    cluster.kill(NodeId(2)).await;
    cluster.start(NodeId(2)).await;
    assert_eq!(
        cluster
            .kvdb(NodeId(2))
            .confirm()
            .await
            .unwrap()
            .volumes
            .len(),
        300
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_talk_nonsense_get_an_answer() {
    let cluster = Cluster::formed().await;
    let kvdb = cluster.kvdb(NodeId(1));
    let valid = isthmus_kvdb::decoders::question(u64::MAX);
    for length in 0..valid.len() {
        assert!(
            !kvdb
                .serve(NodeId(2), valid.slice(..length))
                .await
                .is_empty()
        );
    }
    assert!(
        !kvdb
            .serve(NodeId(9), Bytes::from(vec![0xff; 2 << 20]))
            .await
            .is_empty()
    );
    assert!(!kvdb.serve(NodeId(9), valid).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_disk_failed_still_says_over_others_what_it_gives_up() {
    let cluster = Cluster::formed().await;
    let failing = cluster.kvdb(NodeId(1));
    cluster.fail_disk(NodeId(1));
    cluster
        .kvdb(NodeId(2))
        .propose(create("one"), cause())
        .await
        .unwrap();
    failing
        .wait_until(WITHIN, |metrics| metrics.stopped.is_some())
        .await
        .unwrap();
    assert_eq!(
        failing.propose(create("two"), cause()).await.unwrap(),
        Answer::Volume(VolumeId(2))
    );
    assert!(
        matches!(failing.confirm().await, Err(KvdbError::Stopped(_))),
        "its own copy stays where it is"
    );
}

//! Going on without the majority of kvdb: a survivor forces a generation, the others follow it as they come back; kvdb saved and restored.

use crate::rounds::{
    DEMO, SOON, assert_replicas_identical, check_at, history, load_at, steady, until_voters,
};
use isthmus_api::{KvdbSnapshot, Status, VolumeRecovery};
use tests::Node;
use tests::cluster::{Cluster, Options};
use tests::patience::wait_until;

const SECTORS: u64 = (64 << 20) / 512;

/// What domain-ctl prints as JSON.
fn recovery_of(cluster: &Cluster, volume: &str) -> VolumeRecovery {
    let found = cluster.get(&["recover", "volume", volume]);
    found.expect("it says what there is")
}

fn generation(cluster: &Cluster, node: Node) -> Option<String> {
    let status: Status = cluster.get_at(node, &["status"])?;
    Some(status.kvdb.generation)
}

#[test]
fn a_survivor_goes_on_alone_with_every_acknowledged_write_and_the_others_follow() {
    let mut cluster = Cluster::start(&Options::with_volume(64 << 20));
    let history = history(0x6e1);
    let load = load_at(&cluster, Node::A1, &history, &steady(SECTORS, 1), 300);
    cluster.kill_at_once(&[Node::A1, Node::W1]);
    let _ = load.abandon();

    // Nothing can be agreed on any more.
    cluster.refused(&["deactivate", "clusterdomain", "site-a"]);
    let force = ["kvdb", "recover", "--force-new-cluster"];
    let plan = cluster.done(&[&force[..], &["--dry-run"]].concat());
    assert!(
        plan.contains("b1 in site-b") && plan.contains("Must be off: a1, w1"),
        "{plan}"
    );
    let said = cluster.refused(&force);
    assert!(said.contains("--others-are-off"), "{said}");
    let word = ["--others-are-off", "--reason", "site-a burnt down"];
    let said = cluster.done(&[&force[..], &word].concat());
    assert!(said.contains("generation 1-"), "{said}");
    let said = cluster.refused(&[&force[..], &word].concat());
    assert!(said.contains("nothing to recover"), "{said}");

    // No set counts before a replica is named, and naming one tells what others may hold.
    let opened = tests::nbd::Session::open(&cluster.nbd(Node::B1), DEMO);
    assert!(opened.is_err(), "nobody may serve it");
    let why = cluster.done(&["explain", "volume", DEMO]);
    assert!(why.contains("recover volume demo --from b1"), "{why}");
    assert!(recovery_of(&cluster, DEMO).unproven);
    let name = ["recover", "volume", DEMO, "--from"];
    let said = cluster.refused(&[&name[..], &["a1", "--accept-data-loss"]].concat());
    assert!(said.contains("does not answer"), "{said}");
    let said = cluster.refused(&[&name[..], &["b1"]].concat());
    assert!(
        said.contains("a1 may hold more") && said.contains("--accept-data-loss"),
        "{said}"
    );
    cluster.done(&[&name[..], &["b1", "--accept-data-loss"]].concat());
    let said = cluster.refused(&[&name[..], &["b1", "--accept-data-loss"]].concat());
    assert!(said.contains("is not unproven"), "{said}");

    // The survivor was in sync: it holds all that was acknowledged, and takes writes.
    check_at(&cluster, Node::B1, &history, SECTORS);
    let load = load_at(&cluster, Node::B1, &history, &steady(SECTORS, 2), 300);
    let events = cluster.done(&["get", "events"]);
    assert!(
        events.contains("forced generation") && events.contains("site-a burnt down"),
        "{events}"
    );

    // The others come back with what they know of the old generation, and follow.
    cluster.start_node(Node::A1);
    cluster.start_node(Node::W1);
    cluster.until_in_sync(SOON);
    until_voters(&cluster, &Node::ALL);
    load.until_more(100, SOON);
    assert_eq!(load.finish().refused, 0);
    check_at(&cluster, Node::A1, &history, SECTORS);
    assert_replicas_identical(&cluster, SECTORS);
    let generations = Node::ALL.map(|node| generation(&cluster, node));
    assert!(
        generations.iter().all(|one| *one == generations[0]),
        "{generations:?}"
    );
}

#[test]
fn a_saved_kvdb_is_restored_and_replicas_of_volumes_that_it_does_not_know_are_kept() {
    let mut cluster = Cluster::start(&Options::with_volume(64 << 20));
    let history = history(0x5a7e);
    let load = load_at(&cluster, Node::A1, &history, &steady(SECTORS, 3), 200);
    assert_eq!(load.finish().refused, 0);
    let file = cluster.folder().join("kvdb.json");
    let file = file.to_str().expect("a path of letters");
    let snapshot = |what| ["kvdb", "snapshot", what, file];
    cluster.done(&snapshot("save"));
    let said = cluster.refused(&snapshot("save"));
    assert!(said.contains("exists"), "nothing is overwritten: {said}");
    let status = cluster.done(&snapshot("status"));
    assert!(
        status.contains("Volumes:     1") && status.contains("Whole:       yes"),
        "{status}"
    );
    cluster.done(&["create", "volume", "later", "--size", "16MiB"]);
    let load = load_at(&cluster, Node::A1, &history, &steady(SECTORS, 4), 200);
    assert_eq!(load.finish().refused, 0);

    // A file that is not what was saved changes nothing.
    let text = std::fs::read_to_string(file).expect("it was saved");
    let mut damaged: KvdbSnapshot = serde_json::from_str(&text).expect("it is JSON");
    damaged.crc32 ^= 1;
    let wrong = cluster.folder().join("damaged.json");
    std::fs::write(
        &wrong,
        serde_json::to_vec(&damaged).expect("it can be written"),
    )
    .expect("it is");
    let wrong = wrong.to_str().expect("a path of letters");
    let said = cluster.refused(&["kvdb", "snapshot", "restore", wrong, "--others-are-off"]);
    assert!(said.contains("damaged"), "{said}");
    let said = cluster.refused(&snapshot("restore"));
    assert!(said.contains("--others-are-off"), "{said}");

    cluster.done(&[&snapshot("restore")[..], &["--others-are-off"]].concat());
    let begun = generation(&cluster, Node::A1);
    wait_until("the others follow", SOON, || {
        let all = Node::ALL.map(|node| generation(&cluster, node));
        all.iter()
            .all(|one| *one == begun && one.is_some())
            .then_some(())
    });
    assert!(
        cluster.volume("later").is_none(),
        "the copy does not know it"
    );
    let kept = cluster.folder().join("b1/volumes/2");
    assert!(kept.exists(), "its replicas are kept: {}", kept.display());

    // Both replicas answer and hold the same: nothing is given up by naming one.
    wait_until("both replicas say what they hold", SOON, || {
        let all = recovery_of(&cluster, DEMO).replicas;
        all.iter()
            .all(|replica| replica.whole == Some(true))
            .then_some(())
    });
    cluster.done(&["recover", "volume", "--all", "--from", "b1"]);
    check_at(&cluster, Node::B1, &history, SECTORS);
    cluster.until_in_sync(SOON);
    assert_replicas_identical(&cluster, SECTORS);
    // A new volume takes nothing of the one that is not known.
    cluster.done(&["create", "volume", "new", "--size", "16MiB"]);
    let new = cluster.volume("new").expect("it was made");
    assert!(new.id > 2, "{}", new.id);
    cluster.kill(Node::W1);
    check_at(&cluster, Node::A1, &history, SECTORS);
}

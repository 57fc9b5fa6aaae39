//! A survivor that goes on without the others, and these as they come back.

use super::cluster::{Cluster, cause};
use isthmus_catalog::{Answer, Command, VolumePolicy};
use isthmus_engine::NodeId;

const A: NodeId = NodeId(1);
const SURVIVOR: NodeId = NodeId(2);
const WITNESS: NodeId = NodeId(3);

fn create(name: &str) -> Command {
    Command::CreateVolume {
        name: name.to_owned(),
        bytes: 1 << 20,
        block_bytes: 4096,
        policy: VolumePolicy::default(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survivor_goes_on_alone_with_all_that_it_holds() {
    let mut cluster = Cluster::formed().await;
    cluster
        .kvdb(A)
        .propose(create("before"), cause())
        .await
        .unwrap();
    cluster
        .until(SURVIVOR, |catalog| catalog.volumes.len() == 1)
        .await;
    for node in [A, WITNESS, SURVIVOR] {
        cluster.kill(node).await;
    }
    cluster.force(SURVIVOR, 0xabcd);
    cluster.start(SURVIVOR).await;
    cluster.register(SURVIVOR).await;
    cluster.until_voters(&[2]).await;
    let catalog = cluster.kvdb(SURVIVOR).confirm().await.unwrap();
    assert_eq!(catalog.lineage.0, [0xabcd]);
    assert_eq!(catalog.volumes.len(), 1);
    // And again: the generation after it.
    cluster.kill(SURVIVOR).await;
    cluster.force(SURVIVOR, 0xef);
    cluster.start(SURVIVOR).await;
    cluster.register(SURVIVOR).await;
    let catalog = cluster.kvdb(SURVIVOR).confirm().await.unwrap();
    assert_eq!(catalog.lineage.0, [0xabcd, 0xef]);
    assert_eq!(catalog.volumes.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_come_back_join_the_new_generation_and_bring_nothing_of_the_old_one() {
    let mut cluster = Cluster::formed().await;
    for node in [SURVIVOR, A, WITNESS] {
        cluster.kill(node).await;
    }
    cluster.force(SURVIVOR, 0xabcd);
    cluster.start(SURVIVOR).await;
    cluster.register(SURVIVOR).await;
    // These two still are most of the old group, and commit there; they elect, and say so to the survivor, too.
    for node in [A, WITNESS] {
        cluster.start(node).await;
    }
    let old = cluster.kvdb(A).propose(create("old"), cause()).await;
    let new = cluster.kvdb(SURVIVOR).propose(create("new"), cause()).await;
    assert!(matches!(
        (old, new),
        (Ok(Answer::Volume(_)), Ok(Answer::Volume(_)))
    ));
    let catalog = cluster.kvdb(SURVIVOR).confirm().await.unwrap();
    let names: Vec<&str> = catalog
        .volumes
        .values()
        .map(|volume| volume.name.as_str())
        .collect();
    assert_eq!(names, ["new"]);

    for node in [A, WITNESS] {
        cluster.kill(node).await;
        cluster.adopt(node, SURVIVOR);
        cluster.start(node).await;
        cluster.register(node).await;
    }
    cluster.until_voters(&[1, 2, 3]).await;
    let catalog = cluster.kvdb(A).confirm().await.unwrap();
    assert!(catalog.volumes.values().all(|volume| volume.name == "new"));
}

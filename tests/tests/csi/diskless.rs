//! A pod's volume on a node without a replica.

use crate::used::Used;
use isthmus_csi_interface::v1::{ControllerUnpublishVolumeRequest, NodeGetInfoRequest};
use std::fs::{self, File};
use std::io::Write;
use std::time::Duration;
use tests::Node;
use tests::cluster::{Cluster, Options};
use tests::csi::{self, Driver};
use tests::patience::wait_until;
use tonic::Code;

const SOON: Duration = Duration::from_secs(30);

/// A cluster with a diskless node at each site, each with a driver.
fn cluster() -> (Cluster, [Driver; 2]) {
    let options = Options::with_volume(16 << 20).with_workers(&[Node::A1, Node::B1]);
    let cluster = Cluster::start(&options);
    let drivers = [0, 1].map(|index| Driver::start_at_worker(&cluster, index));
    for driver in &drivers {
        wait_until("the node is known", SOON, || {
            let mut node = driver.node();
            let info = driver.run(node.node_get_info(NodeGetInfoRequest {}));
            info.ok().map(drop)
        });
    }
    (cluster, drivers)
}

fn at(cluster: &Cluster, index: usize) -> Used {
    let name = &cluster.worker(index).name;
    Used::at(cluster, name, "data", csi::mounted(""))
}

#[test]
fn a_volume_is_used_on_a_diskless_node_and_then_on_one_at_the_other_site() {
    let (cluster, [at_a, at_b]) = cluster();
    for (driver, site) in [(&at_a, Node::A1), (&at_b, Node::B1)] {
        let info = driver.done(driver.node().node_get_info(NodeGetInfoRequest {}));
        let topology = info.accessible_topology.expect("a node is somewhere");
        let mut segments = topology.segments.values();
        assert!(segments.any(|domain| domain == site.domain()));
    }
    let first = at(&cluster, 0);
    first.create(&at_a, 64 << 20);
    first.up(&at_a);
    let content: Vec<u8> = (0..8_u32 << 20).map(|at| (at % 253) as u8).collect();
    let mut file = File::create(first.target.join("file")).unwrap();
    file.write_all(&content).unwrap();
    file.sync_all().unwrap();
    drop(file);
    first.down(&at_a);
    let second = at(&cluster, 1);
    second.up(&at_b);
    assert!(fs::read(second.target.join("file")).unwrap() == content);
    second.down(&at_b);
}

#[test]
fn a_volume_leaves_a_dead_diskless_node_and_what_waits_there_is_never_written() {
    let (mut cluster, [at_a, at_b]) = cluster();
    let old = at(&cluster, 0);
    old.create(&at_a, 64 << 20);
    old.up(&at_a);
    let mut file = File::create(old.target.join("file")).unwrap();
    file.write_all(b"from a").unwrap();
    file.sync_all().unwrap();
    let unpublish = || ControllerUnpublishVolumeRequest {
        volume_id: old.id.clone(),
        node_id: old.node.clone(),
        ..Default::default()
    };
    let mut controller = at_b.controller();
    let said = at_b.refused(
        Code::FailedPrecondition,
        controller.controller_unpublish_volume(unpublish()),
    );
    assert!(said.contains("worker-1"), "{said}");

    cluster.kill_worker(0);
    // Cached at the old node, never acknowledged by the volume.
    file.write_all(b" and more").unwrap();
    wait_until("the primary has no client of it any more", SOON, || {
        let mut controller = at_b.controller();
        let answer = at_b.run(controller.controller_unpublish_volume(unpublish()));
        answer.ok().map(drop)
    });
    let new = at(&cluster, 1);
    new.up(&at_b);
    assert_eq!(fs::read(new.target.join("file")).unwrap(), b"from a");
    let mut file_at_b = File::create(new.target.join("file")).unwrap();
    file_at_b.write_all(b"from b").unwrap();
    file_at_b.sync_all().unwrap();
    drop(file_at_b);

    // The old node comes back: what waited there fails.
    cluster.start_worker(0);
    new.down(&at_b);
    wait_until("the old attachment fails", SOON, || {
        file.sync_all().is_err().then_some(())
    });
    drop(file);
    old.down(&at_a);
    let new = at(&cluster, 1);
    new.up(&at_b);
    assert_eq!(fs::read(new.target.join("file")).unwrap(), b"from b");
    new.down(&at_b);
}

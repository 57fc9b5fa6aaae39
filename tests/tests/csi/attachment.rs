//! A volume stuck at a node that died goes to another one as soon as it is proven that the old one can't serve it, and no sooner; what
//! waits at the old one is never written over what the new one wrote.

use crate::used::Used;
use std::fs::{self, File};
use std::io::Write;
use std::time::Duration;
use tests::Node;
use tests::cluster::{Cluster, Options};
use tests::csi::{self, Driver};
use tests::patience;
use tonic::Code;

#[test]
fn a_volume_leaves_a_dead_node_once_that_can_not_serve_it() {
    let mut cluster = Cluster::start(&Options::with_volume(16 << 20));
    let at_a = Driver::start(&cluster, Node::A1);
    let at_b = Driver::start(&cluster, Node::B1);
    let old = Used::new(&cluster, Node::A1, "stuck", csi::mounted(""));
    old.create(&at_a, 32 << 20);
    old.up(&at_a);
    let mut file = File::create(old.target.join("file")).unwrap();
    file.write_all(b"from a").unwrap();
    file.sync_all().unwrap();

    cluster.kill(Node::A1);
    // Cached at the old node, never acknowledged by the volume.
    file.write_all(b" and more").unwrap();
    let new = Used::new(&cluster, Node::B1, "stuck", csi::mounted(""));
    let mut controller = at_b.controller();
    let said = at_b.refused(
        Code::FailedPrecondition,
        controller.controller_publish_volume(new.publishing()),
    );
    assert!(said.contains("a1"), "{said}");
    cluster.deactivate(Node::A1);
    patience::wait_until(
        "the volume may be used at b1",
        Duration::from_secs(20),
        || {
            let mut controller = at_b.controller();
            match at_b.run(controller.controller_publish_volume(new.publishing())) {
                Ok(_) => Some(()),
                Err(status) => {
                    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
                    None
                }
            }
        },
    );
    new.up(&at_b);
    assert_eq!(fs::read(new.target.join("file")).unwrap(), b"from a");
    let mut file_at_b = File::create(new.target.join("file")).unwrap();
    file_at_b.write_all(b"from b").unwrap();
    file_at_b.sync_all().unwrap();
    drop(file_at_b);
    new.down(&at_b);

    // The old node comes back: what waited there fails.
    cluster.start_node(Node::A1);
    cluster.activate(Node::A1);
    cluster.until_in_sync(Duration::from_secs(30));
    patience::wait_until("the old attachment fails", Duration::from_secs(30), || {
        file.sync_all().is_err().then_some(())
    });
    drop(file);
    old.down(&at_a);
    let new = Used::new(&cluster, Node::B1, "stuck", csi::mounted(""));
    new.up(&at_b);
    assert_eq!(fs::read(new.target.join("file")).unwrap(), b"from b");
    new.down(&at_b);
}

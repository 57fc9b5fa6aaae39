//! Calls of the node service that can't be answered.

use crate::used::{Used, text};
use isthmus_csi_interface::v1::volume_capability::access_mode::Mode;
use isthmus_csi_interface::v1::volume_capability::{AccessType, MountVolume};
use isthmus_csi_interface::v1::*;
use tests::Node;
use tests::cluster::Cluster;
use tests::csi::{self, Driver};
use tonic::Code;

/// Bad arguments, missing volumes, wrong states.
pub fn calls_are_refused(cluster: &Cluster, driver: &Driver) {
    let used = Used::new(cluster, Node::A1, "block", csi::block());
    let stage = |change: &dyn Fn(&mut NodeStageVolumeRequest)| {
        let mut request = used.staging();
        change(&mut request);
        request
    };
    for (code, request) in [
        (Code::FailedPrecondition, stage(&|_| {})), // not published
        (
            Code::InvalidArgument,
            stage(&|request| request.volume_id.clear()),
        ),
        (
            Code::InvalidArgument,
            stage(&|request| request.staging_target_path.clear()),
        ),
        (
            Code::InvalidArgument,
            stage(&|request| request.staging_target_path = "a/b".to_owned()),
        ),
        (
            Code::InvalidArgument,
            stage(&|request| request.volume_capability = None),
        ),
        (
            Code::NotFound,
            stage(&|request| request.volume_id = "none".to_owned()),
        ),
        (
            Code::NotFound,
            stage(&|request| request.volume_id = "NO".to_owned()),
        ),
    ] {
        driver.refused(code, driver.node().node_stage_volume(request));
    }
    let show = |change: &dyn Fn(&mut NodePublishVolumeRequest)| {
        let mut request = used.showing(false);
        change(&mut request);
        request
    };
    for (code, request) in [
        (Code::FailedPrecondition, show(&|_| {})), // not staged
        (
            Code::InvalidArgument,
            show(&|request| request.volume_id.clear()),
        ),
        (
            Code::InvalidArgument,
            show(&|request| request.target_path.clear()),
        ),
        (
            Code::InvalidArgument,
            show(&|request| request.staging_target_path.clear()),
        ),
        (
            Code::InvalidArgument,
            show(&|request| request.volume_capability = None),
        ),
        (
            Code::NotFound,
            show(&|request| request.volume_id = "none".to_owned()),
        ),
    ] {
        driver.refused(code, driver.node().node_publish_volume(request));
    }
    for (code, volume_id, volume_path) in [
        (Code::InvalidArgument, "", "/x"),
        (Code::InvalidArgument, "block", ""),
        (Code::NotFound, "block", "some/path"),
        (Code::NotFound, "none", "/x"),
    ] {
        let (volume_id, volume_path) = (volume_id.to_owned(), volume_path.to_owned());
        let stats = NodeGetVolumeStatsRequest {
            volume_id: volume_id.clone(),
            volume_path: volume_path.clone(),
            ..Default::default()
        };
        driver.refused(code, driver.node().node_get_volume_stats(stats));
        let expand = NodeExpandVolumeRequest {
            volume_id,
            volume_path,
            ..Default::default()
        };
        driver.refused(code, driver.node().node_expand_volume(expand));
    }
    for (volume_id, path) in [("", "/x"), ("block", "")] {
        let unstage = NodeUnstageVolumeRequest {
            volume_id: volume_id.to_owned(),
            staging_target_path: path.to_owned(),
        };
        driver.refused(
            Code::InvalidArgument,
            driver.node().node_unstage_volume(unstage),
        );
        let unpublish = NodeUnpublishVolumeRequest {
            volume_id: volume_id.to_owned(),
            target_path: path.to_owned(),
        };
        driver.refused(
            Code::InvalidArgument,
            driver.node().node_unpublish_volume(unpublish),
        );
    }
}

/// What is in use is not shared, taken away or found elsewhere.
pub fn users_are_refused(cluster: &Cluster, driver: &Driver) {
    // One user only, where that is asked for.
    let single = AccessType::Mount(MountVolume::default());
    let capability = csi::capability(single, Mode::SingleNodeSingleWriter);
    let used = Used::new(cluster, Node::A1, "single", capability);
    used.create(driver, 16 << 20);
    used.up(driver);
    let mut other = used.showing(false);
    other.target_path.push_str("-2");
    driver.refused(
        Code::FailedPrecondition,
        driver.node().node_publish_volume(other),
    );
    let gone = NodeUnstageVolumeRequest {
        volume_id: used.id.clone(),
        staging_target_path: text(&used.staging),
    };
    driver.refused(
        Code::FailedPrecondition,
        driver.node().node_unstage_volume(gone),
    );
    let wrong = NodeGetVolumeStatsRequest {
        volume_id: used.id.clone(),
        volume_path: "some/path".to_owned(),
        ..Default::default()
    };
    driver.refused(Code::NotFound, driver.node().node_get_volume_stats(wrong));
    used.down(driver);
}

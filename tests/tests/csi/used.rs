//! A volume's way up and down, on one node.

use isthmus_csi_interface::v1::volume_capability::AccessType;
use isthmus_csi_interface::v1::volume_usage::Unit;
use isthmus_csi_interface::v1::*;
use std::fs;
use std::path::{Path, PathBuf};
use tests::Node;
use tests::cluster::Cluster;
use tests::csi::Driver;

/// A volume's way from the orchestrator to its user, on one node.
pub struct Used {
    pub id: String,
    pub node: String,
    pub staging: PathBuf,
    pub target: PathBuf,
    pub capability: VolumeCapability,
}

impl Used {
    pub fn new(cluster: &Cluster, node: Node, id: &str, capability: VolumeCapability) -> Used {
        Used::at(cluster, node.name(), id, capability)
    }

    /// The same on any node.
    pub fn at(cluster: &Cluster, node: &str, id: &str, capability: VolumeCapability) -> Used {
        let folder = cluster.folder().join(format!("kubelet-{node}"));
        let staging = folder.join(format!("staging {id}"));
        fs::create_dir_all(&staging).unwrap();
        Used {
            id: id.to_owned(),
            node: node.to_owned(),
            staging,
            target: folder.join(format!("target-{id}")),
            capability,
        }
    }

    pub fn create(&self, driver: &Driver, bytes: i64) {
        let request = CreateVolumeRequest {
            name: self.id.clone(),
            volume_capabilities: vec![self.capability.clone()],
            capacity_range: Some(CapacityRange {
                required_bytes: bytes,
                limit_bytes: bytes,
            }),
            ..Default::default()
        };
        driver.done(driver.controller().create_volume(request));
    }

    pub fn publishing(&self) -> ControllerPublishVolumeRequest {
        ControllerPublishVolumeRequest {
            volume_id: self.id.clone(),
            node_id: self.node.clone(),
            volume_capability: Some(self.capability.clone()),
            ..Default::default()
        }
    }

    pub fn staging(&self) -> NodeStageVolumeRequest {
        NodeStageVolumeRequest {
            volume_id: self.id.clone(),
            staging_target_path: text(&self.staging),
            volume_capability: Some(self.capability.clone()),
            ..Default::default()
        }
    }

    pub fn showing(&self, readonly: bool) -> NodePublishVolumeRequest {
        NodePublishVolumeRequest {
            volume_id: self.id.clone(),
            staging_target_path: text(&self.staging),
            target_path: text(&self.target),
            volume_capability: Some(self.capability.clone()),
            readonly,
            ..Default::default()
        }
    }

    /// All the way up, each step twice.
    pub fn up(&self, driver: &Driver) {
        for _ in 0..2 {
            driver.done(
                driver
                    .controller()
                    .controller_publish_volume(self.publishing()),
            );
        }
        for _ in 0..2 {
            driver.done(driver.node().node_stage_volume(self.staging()));
        }
        for _ in 0..2 {
            driver.done(driver.node().node_publish_volume(self.showing(false)));
        }
    }

    pub fn hide(&self, driver: &Driver) {
        for _ in 0..2 {
            let request = NodeUnpublishVolumeRequest {
                volume_id: self.id.clone(),
                target_path: text(&self.target),
            };
            driver.done(driver.node().node_unpublish_volume(request));
        }
        assert!(!self.target.exists(), "the target path is removed");
    }

    /// All the way down, each step twice.
    pub fn down(&self, driver: &Driver) {
        self.hide(driver);
        for _ in 0..2 {
            let request = NodeUnstageVolumeRequest {
                volume_id: self.id.clone(),
                staging_target_path: text(&self.staging),
            };
            driver.done(driver.node().node_unstage_volume(request));
        }
        for _ in 0..2 {
            let request = ControllerUnpublishVolumeRequest {
                volume_id: self.id.clone(),
                node_id: self.node.clone(),
                ..Default::default()
            };
            driver.done(driver.controller().controller_unpublish_volume(request));
        }
    }

    pub fn stats(&self, driver: &Driver) -> NodeGetVolumeStatsResponse {
        let request = NodeGetVolumeStatsRequest {
            volume_id: self.id.clone(),
            volume_path: text(&self.target),
            ..Default::default()
        };
        driver.done(driver.node().node_get_volume_stats(request))
    }

    fn fs_type(&self) -> &str {
        match &self.capability.access_type {
            Some(AccessType::Mount(mount)) => &mount.fs_type,
            _ => "",
        }
    }

    /// Its size in bytes, as the node says.
    pub fn bytes(&self, driver: &Driver) -> i64 {
        let usage = self.stats(driver).usage;
        let bytes = usage.iter().find(|usage| usage.unit() == Unit::Bytes);
        bytes.unwrap().total
    }

    /// Makes the volume larger, and lets its device follow, and its file system where this machine can do that while it is mounted.
    pub fn expand(&self, driver: &Driver, bytes: i64) {
        let capacity_range = Some(CapacityRange {
            required_bytes: bytes,
            limit_bytes: 0,
        });
        let request = ControllerExpandVolumeRequest {
            volume_id: self.id.clone(),
            capacity_range,
            ..Default::default()
        };
        driver.done(driver.controller().controller_expand_volume(request));
        for _ in 0..2 {
            let request = NodeExpandVolumeRequest {
                volume_id: self.id.clone(),
                volume_path: text(&self.target),
                capacity_range,
                ..Default::default()
            };
            match driver.run(driver.node().node_expand_volume(request)) {
                Ok(grown) => assert_eq!(grown.into_inner().capacity_bytes, bytes),
                Err(status) => {
                    let said = status.message();
                    assert!(said.contains("lacks CAP_SYS_RESOURCE"), "{status:?}");
                    assert!(!can_grow_ext4() && self.fs_type() == "ext4", "{status:?}");
                }
            }
        }
    }
}

pub fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// The kernel wants this of whoever lets a mounted ext4 grow.
pub fn can_grow_ext4() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    u64::from_str_radix(line.unwrap().trim(), 16).unwrap() >> 24 & 1 == 1
}

//! Parameters of storage classes (`parameters`) and of volume attribute classes (`mutable_parameters`), by name.
//!
//! | parameter | values | may be changed later |
//! | --- | --- | --- |
//! | `onPeerLoss` | `degrade` (default), `suspend` | yes |
//! | `durability` | `acknowledged` (default), `flush` | yes |
//! | `preferredDomain` | a data domain's name; empty for none (default) | yes |
//! | `blockSize` | `512`, `4096` (default) | no |
//! | `replicasPerDomain` | `1` (default), `2`, `3` | no |
//! | `fsType` | `ext4` (default), `xfs`: for claims that name no file system | no |

use isthmus_api::{ChangePolicy, Durability, OnPeerLoss};
use std::collections::HashMap;

/// What the provisioner of Kubernetes adds of its own: names of the claim, for people.
const FOR_PEOPLE: &str = "csi.storage.k8s.io/";

/// File systems that a volume can be given.
pub const FILE_SYSTEMS: [&str; 2] = ["ext4", "xfs"];
/// In a volume's context: the file system where the capability names none.
pub const FS_TYPE: &str = "fsType";

/// What a volume is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// What happens when a replica is lost.
    pub on_peer_loss: Option<OnPeerLoss>,
    /// What an acknowledgement means.
    pub durability: Option<Durability>,
    /// The domain that goes on when only the link between the sites is cut; `Some(None)` for none.
    pub preferred_domain: Option<Option<String>>,
    /// The logical block size in bytes.
    pub block_bytes: Option<u32>,
    /// Replicas in each data domain.
    pub replicas_per_domain: Option<u8>,
    /// The file system where the capability names none.
    pub fs_type: Option<String>,
}

impl Parameters {
    /// Reads a new volume's parameters.
    ///
    /// # Errors
    /// A sentence that names what is unknown or wrong.
    pub fn read(
        fixed: &HashMap<String, String>,
        mutable: &HashMap<String, String>,
    ) -> Result<Parameters, String> {
        let mut read = Parameters::default();
        for (key, value) in fixed {
            match key.as_str() {
                "blockSize" => read.block_bytes = Some(block_bytes(value)?),
                "replicasPerDomain" => read.replicas_per_domain = Some(replicas(value)?),
                FS_TYPE => read.fs_type = Some(file_system(value)?),
                _ if key.starts_with(FOR_PEOPLE) => {}
                _ => read.take_mutable(key, value)?,
            }
        }
        // What both name is as the more particular one says.
        for (key, value) in mutable {
            read.take_mutable(key, value)?;
        }
        Ok(read)
    }

    /// Reads what of a volume is to change.
    ///
    /// # Errors
    /// A sentence that names what is unknown, wrong, or can't be changed.
    pub fn read_mutable(mutable: &HashMap<String, String>) -> Result<ChangePolicy, String> {
        let mut read = Parameters::default();
        for (key, value) in mutable {
            read.take_mutable(key, value)?;
        }
        Ok(ChangePolicy {
            on_peer_loss: read.on_peer_loss,
            durability: read.durability,
            preferred_domain: read.preferred_domain,
        })
    }

    fn take_mutable(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "onPeerLoss" => {
                self.on_peer_loss = Some(match value {
                    "degrade" => OnPeerLoss::Degrade,
                    "suspend" => OnPeerLoss::Suspend,
                    _ => return Err(wrong(key, value, "degrade or suspend")),
                });
            }
            "durability" => {
                self.durability = Some(match value {
                    "acknowledged" => Durability::Acknowledged,
                    "flush" => Durability::Flush,
                    _ => return Err(wrong(key, value, "acknowledged or flush")),
                });
            }
            "preferredDomain" => {
                self.preferred_domain =
                    Some(Some(value.to_owned()).filter(|name| !name.is_empty()));
            }
            "blockSize" | "replicasPerDomain" | FS_TYPE => {
                return Err(format!(
                    "parameter {key} is fixed when a volume is made: it belongs to the StorageClass, and can't be changed"
                ));
            }
            _ => {
                return Err(format!(
                    "parameter {key:?} is unknown; there are onPeerLoss, durability, preferredDomain, blockSize, replicasPerDomain, fsType"
                ));
            }
        }
        Ok(())
    }
}

fn block_bytes(value: &str) -> Result<u32, String> {
    match value {
        "512" => Ok(512),
        "4096" => Ok(4096),
        _ => Err(wrong("blockSize", value, "512 or 4096")),
    }
}

fn replicas(value: &str) -> Result<u8, String> {
    match value {
        "1" => Ok(1),
        "2" => Ok(2),
        "3" => Ok(3),
        _ => Err(wrong("replicasPerDomain", value, "1, 2 or 3")),
    }
}

/// The name of a file system that a volume can be given.
///
/// # Errors
/// A sentence, for any other.
pub fn file_system(value: &str) -> Result<String, String> {
    if FILE_SYSTEMS.contains(&value) {
        return Ok(value.to_owned());
    }
    Err(wrong(FS_TYPE, value, "ext4 or xfs"))
}

fn wrong(key: &str, value: &str, right: &str) -> String {
    format!("parameter {key} is {value:?}; write {right}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn what_is_known_is_read() {
        let fixed = map(&[
            ("onPeerLoss", "suspend"),
            ("blockSize", "512"),
            ("fsType", "xfs"),
            ("csi.storage.k8s.io/pvc/name", "data"),
        ]);
        let mutable = map(&[("onPeerLoss", "degrade"), ("preferredDomain", "site-b")]);
        let read = Parameters::read(&fixed, &mutable).unwrap();
        assert_eq!(read.on_peer_loss, Some(OnPeerLoss::Degrade));
        assert_eq!(read.block_bytes, Some(512));
        assert_eq!(read.fs_type.as_deref(), Some("xfs"));
        assert_eq!(read.preferred_domain, Some(Some("site-b".to_owned())));
    }

    #[test]
    fn what_is_unknown_wrong_or_fixed_is_refused_by_name() {
        for (key, value) in [
            ("onpeerloss", "degrade"),
            ("onPeerLoss", "give-up"),
            ("durability", ""),
            ("blockSize", "1024"),
            ("replicasPerDomain", "4"),
            ("fsType", "btrfs"),
            ("replicas", "3"),
        ] {
            let error = Parameters::read(&map(&[(key, value)]), &HashMap::new()).unwrap_err();
            assert!(error.contains(key), "{error}");
            let error = Parameters::read_mutable(&map(&[(key, value)])).unwrap_err();
            assert!(error.contains(key), "{error}");
        }
        let policy = Parameters::read_mutable(&map(&[("preferredDomain", "")])).unwrap();
        assert_eq!(policy.preferred_domain, Some(None));
    }
}

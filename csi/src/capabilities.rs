//! What an orchestrator wants to do with a volume, and whether it can.

use crate::parameters;
use isthmus_csi_interface::v1::VolumeCapability;
use isthmus_csi_interface::v1::volume_capability::access_mode::Mode;
use isthmus_csi_interface::v1::volume_capability::{AccessType, MountVolume};
use tonic::Status;

/// Bytes of all mount flags at most, as the interface's specification says.
const FLAGS_BYTES_MAX: usize = 4096;

/// How a volume is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Use {
    /// As a block device.
    Block,
    /// By a file system.
    Mount(FileSystem),
}

/// The file system that is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileSystem {
    /// Which; none where the volume's own parameters say it.
    pub fs_type: Option<String>,
    /// Mount options.
    pub flags: Vec<String>,
    /// The group that may use it.
    pub group: Option<u32>,
}

/// A sound capability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// As what.
    pub used_as: Use,
    /// Nothing may be written.
    pub read_only: bool,
    /// Only one target path on its node.
    pub single_target: bool,
}

/// Why a capability is none of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It is not one at all.
    Malformed(String),
    /// Isthmus can't do it.
    Unsupported(String),
}

impl From<Unfit> for Status {
    fn from(unfit: Unfit) -> Status {
        match unfit {
            Unfit::Malformed(text) | Unfit::Unsupported(text) => Status::invalid_argument(text),
        }
    }
}

/// Reads a capability.
///
/// # Errors
/// Why it can't be.
pub fn read(capability: Option<&VolumeCapability>) -> Result<Access, Unfit> {
    let malformed = |text: &str| Unfit::Malformed(text.to_owned());
    let capability = capability.ok_or_else(|| malformed("volume_capability is missing"))?;
    let mode = capability
        .access_mode
        .ok_or_else(|| malformed("volume_capability.access_mode is missing"))?
        .mode;
    let mode = Mode::try_from(mode)
        .map_err(|_| Unfit::Malformed(format!("access mode {mode} is unknown")))?;
    let (read_only, single_target) = match mode {
        Mode::Unknown => return Err(malformed("volume_capability.access_mode is UNKNOWN")),
        Mode::SingleNodeWriter | Mode::SingleNodeMultiWriter => (false, false),
        Mode::SingleNodeSingleWriter => (false, true),
        Mode::SingleNodeReaderOnly => (true, false),
        Mode::MultiNodeReaderOnly | Mode::MultiNodeSingleWriter | Mode::MultiNodeMultiWriter => {
            return Err(Unfit::Unsupported(format!(
                "access mode {} is not possible: a volume is used at one node at a time; use a SINGLE_NODE_* mode (ReadWriteOnce or ReadWriteOncePod)",
                mode.as_str_name()
            )));
        }
    };
    let used_as = match &capability.access_type {
        None => {
            return Err(malformed(
                "volume_capability.access_type is missing: write block or mount",
            ));
        }
        Some(AccessType::Block(_)) => Use::Block,
        Some(AccessType::Mount(mount)) => Use::Mount(file_system(mount)?),
    };
    Ok(Access {
        used_as,
        read_only,
        single_target,
    })
}

/// Reads several, of which there must be at least one.
///
/// # Errors
/// Why one of them can't be.
pub fn read_all(capabilities: &[VolumeCapability]) -> Result<Vec<Access>, Unfit> {
    if capabilities.is_empty() {
        return Err(Unfit::Malformed(
            "volume_capabilities are missing".to_owned(),
        ));
    }
    capabilities
        .iter()
        .map(|capability| read(Some(capability)))
        .collect()
}

fn file_system(mount: &MountVolume) -> Result<FileSystem, Unfit> {
    let fs_type = match mount.fs_type.as_str() {
        "" => None,
        name => Some(parameters::file_system(name).map_err(Unfit::Unsupported)?),
    };
    let bytes: usize = mount.mount_flags.iter().map(String::len).sum();
    if bytes > FLAGS_BYTES_MAX {
        return Err(Unfit::Malformed(format!(
            "mount_flags have {bytes} bytes; at most {FLAGS_BYTES_MAX} are allowed"
        )));
    }
    let group = match mount.volume_mount_group.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| {
            Unfit::Malformed(format!("volume_mount_group {text:?} is no group's number"))
        })?),
    };
    Ok(FileSystem {
        fs_type,
        flags: mount.mount_flags.clone(),
        group,
    })
}

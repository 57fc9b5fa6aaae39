//! File systems on volumes: made where there is nothing yet, checked, mounted, made larger.

use super::programs;
use crate::capabilities::FileSystem;
use crate::parameters::FILE_SYSTEMS;
use rustix::fs::{Gid, Mode};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use tonic::Status;
use tracing::info;

/// For claims and classes that name none.
const DEFAULT: &str = "ext4";
/// The same on a node that can't let ext4 grow while it is mounted.
const DEFAULT_THAT_GROWS: &str = "xfs";
/// `mkfs.xfs` makes nothing smaller.
const XFS_BYTES_MIN: u64 = 300 << 20;
/// What `ext4` leaves unused at the end of its device at most: less than a group.
const EXT4_REST_BYTES_MAX: u64 = 16 << 20;
/// `blkid`: nothing was found.
const NOTHING_FOUND: i32 = 2;
/// `e2fsck`: from here on, something is left uncorrected.
const UNCORRECTED: i32 = 4;
/// Group may read, write and search; new files get the group.
const GROUP_MODE: u32 = 0o2070;

/// What is on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nothing that `blkid` knows.
    Nothing,
    /// A file system of this type.
    FileSystem(String),
    /// Something else: a partition table, a member of a RAID.
    Other(String),
}

/// Looks at a device.
///
/// # Errors
/// INTERNAL when that can't be said for sure.
pub fn probe(device: &str) -> Result<Content, Status> {
    let ended = programs::attempt("blkid", &["-p", "-o", "export", device])?;
    let value = |key: &str| {
        let mut lines = ended.out.lines();
        lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    };
    match (ended.code, value("TYPE"), value("USAGE")) {
        (Some(NOTHING_FOUND), ..) => Ok(Content::Nothing),
        (Some(0), Some(kind), Some("filesystem")) => Ok(Content::FileSystem(kind.to_owned())),
        (Some(0), kind, _) => {
            let kind = kind.or_else(|| value("PTTYPE")).unwrap_or("unknown");
            Ok(Content::Other(kind.to_owned()))
        }
        _ => Err(Status::internal(ended.told("blkid"))),
    }
}

/// Mounts the device's file system, and makes it first where there is nothing on it.
///
/// # Errors
/// FAILED_PRECONDITION where something else is on it, INTERNAL where a program fails.
pub fn mount(
    device: &str,
    at: &Path,
    wanted: &FileSystem,
    default: Option<&str>,
    bytes: u64,
    read_only: bool,
) -> Result<(), Status> {
    let named = wanted.fs_type.as_deref().or(default);
    let fs_type = match probe(device)? {
        Content::Nothing if read_only => {
            return Err(Status::failed_precondition(
                "the volume is empty, and nothing may be written to it; use it for writing first",
            ));
        }
        Content::Nothing => {
            let fs_type = named.unwrap_or_else(|| usual(bytes));
            make(device, fs_type)?;
            fs_type.to_owned()
        }
        Content::FileSystem(found)
            if FILE_SYSTEMS.contains(&found.as_str()) && named.is_none_or(|name| name == found) =>
        {
            if found == "ext4" && !read_only {
                check_ext4(device)?;
                fill_ext4(device, bytes)?;
            }
            found
        }
        Content::FileSystem(found) | Content::Other(found) => {
            return Err(Status::failed_precondition(format!(
                "{found} is on the volume, and {} is wanted: it is left as it is; ask for what is there, or use another volume",
                named.unwrap_or("ext4 or xfs")
            )));
        }
    };
    fs::create_dir_all(at)
        .map_err(|error| Status::internal(format!("{} can't be made: {error}", at.display())))?;
    let mut options = wanted.flags.clone();
    if read_only {
        options.push("ro".to_owned());
    }
    let options = options.join(",");
    let at = at
        .to_str()
        .ok_or_else(|| Status::invalid_argument("staging_target_path is not UTF-8"))?;
    let mut arguments = vec!["-t", fs_type.as_str()];
    if !options.is_empty() {
        arguments.extend(["-o", options.as_str()]);
    }
    arguments.extend(["--", device, at]);
    programs::run("mount", &arguments)?;
    Ok(())
}

fn make(device: &str, fs_type: &str) -> Result<(), Status> {
    info!(
        device,
        fs_type, "the volume is empty: a file system is made"
    );
    match fs_type {
        "xfs" => programs::run("mkfs.xfs", &["-q", "-K", device])?,
        // No blocks are kept for root; what was never written needs no discarding.
        _ => programs::run(
            "mkfs.ext4",
            &["-q", "-F", "-m", "0", "-E", "nodiscard", device],
        )?,
    };
    Ok(())
}

fn check_ext4(device: &str) -> Result<(), Status> {
    let ended = programs::attempt("e2fsck", &["-p", device])?;
    match ended.code {
        Some(0) => Ok(()),
        Some(code) if code < UNCORRECTED => {
            info!(
                device,
                said = ended.out.trim(),
                "the file system was corrected"
            );
            Ok(())
        }
        _ => Err(Status::internal(format!(
            "the file system is damaged: {}; repair it by hand with e2fsck",
            ended.told("e2fsck")
        ))),
    }
}

/// Lets an ext4 that is not mounted fill its device, where that was made larger meanwhile.
fn fill_ext4(device: &str, bytes: u64) -> Result<(), Status> {
    let said = programs::run("dumpe2fs", &["-h", device])?;
    let number = |name: &str| -> Option<u64> {
        let value = said.lines().find_map(|line| line.strip_prefix(name))?;
        value.trim().parse().ok()
    };
    let (Some(blocks), Some(block_bytes)) = (number("Block count:"), number("Block size:")) else {
        return Err(Status::internal(
            "dumpe2fs does not say how large the file system is",
        ));
    };
    let has = blocks.saturating_mul(block_bytes);
    if bytes.saturating_sub(has) <= EXT4_REST_BYTES_MAX {
        return Ok(());
    }
    info!(
        device,
        has, bytes, "the device has grown: the file system follows"
    );
    let checked = programs::attempt("e2fsck", &["-f", "-p", device])?;
    if checked.code.is_none_or(|code| code >= UNCORRECTED) {
        return Err(Status::internal(checked.told("e2fsck")));
    }
    programs::run("resize2fs", &[device])?;
    Ok(())
}

/// The file system where none is named.
fn usual(bytes: u64) -> &'static str {
    if can_grow_ext4() || bytes < XFS_BYTES_MIN {
        DEFAULT
    } else {
        DEFAULT_THAT_GROWS
    }
}

/// Whether this process may let ext4 grow while it is mounted: the kernel wants CAP_SYS_RESOURCE for that (for xfs, CAP_SYS_ADMIN will do).
pub fn can_grow_ext4() -> bool {
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok())
        .is_some_and(|effective| effective >> CAP_SYS_RESOURCE & 1 == 1)
}

/// Lets a mounted file system fill its device.
///
/// # Errors
/// INTERNAL where the program fails, FAILED_PRECONDITION where the kernel won't.
pub fn grow(fs_type: &str, device: &str, at: &Path) -> Result<(), Status> {
    let at = at
        .to_str()
        .ok_or_else(|| Status::invalid_argument("volume_path is not UTF-8"))?;
    match fs_type {
        "ext4" if !can_grow_ext4() => {
            return Err(Status::failed_precondition(
                "this process lacks CAP_SYS_RESOURCE, without which the kernel does not let ext4 grow while it is mounted; it grows when the volume is staged next, or give the driver that capability",
            ));
        }
        "ext4" => programs::run("resize2fs", &[device])?,
        "xfs" => programs::run("xfs_growfs", &[at])?,
        other => {
            return Err(Status::internal(format!(
                "{other} is mounted at {at}: only ext4 and xfs can be made larger"
            )));
        }
    };
    Ok(())
}

/// Lets a group use the file system: its root gets the group, and new files there, too.
///
/// # Errors
/// INTERNAL where the file system refuses.
pub fn give_to_group(at: &Path, group: u32) -> Result<(), Status> {
    let give = || -> std::io::Result<()> {
        let metadata = fs::metadata(at)?;
        if metadata.gid() != group {
            rustix::fs::chown(at, None, Some(Gid::from_raw(group)))?;
        }
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & GROUP_MODE != GROUP_MODE {
            rustix::fs::chmod(at, Mode::from_raw_mode(mode | GROUP_MODE))?;
        }
        Ok(())
    };
    give().map_err(|error| {
        Status::internal(format!(
            "{} can't be given to group {group}: {error}",
            at.display()
        ))
    })
}

//! The kernel's list of mounts.

use rustix::mount::{MountFlags, UnmountFlags};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Mounts on top of each other that are taken away from one path at most.
const STACK_MAX: usize = 64;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Its device's numbers, `7:0`.
    pub device: String,
    /// Which part of its file system it shows.
    pub root: PathBuf,
    /// Where.
    pub point: PathBuf,
    /// Whether nothing can be written by this mount.
    pub read_only: bool,
    /// What else is said of this mount alone, and lost by changing it without saying it again.
    pub kept: MountFlags,
    /// The file system's type.
    pub fs_type: String,
}

/// All mounts, those on top last.
///
/// # Errors
/// When `/proc` can't be read.
pub fn all() -> io::Result<Vec<Mount>> {
    let text = fs::read("/proc/self/mountinfo")?;
    Ok(text
        .split(|byte| *byte == b'\n')
        .filter_map(parse)
        .collect())
}

fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = String::from_utf8(fields.nth(2)?.to_vec()).ok()?;
    let root = unescape(fields.next()?);
    let point = unescape(fields.next()?);
    let options = fields.next()?;
    let read_only = options
        .split(|byte| *byte == b',')
        .any(|option| option == b"ro");
    let fs_type = fields.skip_while(|field| *field != b"-").nth(1)?;
    Some(Mount {
        device,
        root,
        point,
        read_only,
        kept: kept(options),
        fs_type: String::from_utf8(fs_type.to_vec()).ok()?,
    })
}

fn kept(options: &[u8]) -> MountFlags {
    let flag = |option: &[u8]| match option {
        b"nosuid" => MountFlags::NOSUID,
        b"nodev" => MountFlags::NODEV,
        b"noexec" => MountFlags::NOEXEC,
        b"noatime" => MountFlags::NOATIME,
        b"nodiratime" => MountFlags::NODIRATIME,
        b"relatime" => MountFlags::RELATIME,
        _ => MountFlags::empty(),
    };
    options
        .split(|byte| *byte == b',')
        .fold(MountFlags::empty(), |all, option| all | flag(option))
}

/// Spaces and the like are written as `\040`.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, after)) = rest.split_first() {
        let octal = after
            .get(..3)
            .filter(|_| *byte == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(escaped) => {
                bytes.push(escaped);
                rest = &after[3..];
            }
            None => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// A path as the kernel writes it, without links on its way. The last part is not looked at: it may be a dead mount.
pub fn resolved(path: &Path) -> PathBuf {
    let parent = path.parent().and_then(|parent| parent.canonicalize().ok());
    match (parent, path.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => path.to_owned(),
    }
}

/// The mount on top of a path.
///
/// # Errors
/// When `/proc` can't be read.
pub fn at(path: &Path) -> io::Result<Option<Mount>> {
    let path = resolved(path);
    Ok(all()?.into_iter().rfind(|mount| mount.point == path))
}

/// Whether something is mounted there.
pub fn is_mount_point(path: &Path) -> bool {
    at(path).is_ok_and(|mount| mount.is_some())
}

/// Takes away all that is mounted there.
///
/// # Errors
/// When it is in use.
pub fn unmount(path: &Path) -> io::Result<()> {
    for _ in 0..STACK_MAX {
        if at(path)?.is_none() {
            return Ok(());
        }
        match rustix::mount::unmount(path, UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::other("too many mounts on top of each other"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_read() {
        let line = b"36 35 7:3 / /mnt/a\\040b ro,noatime shared:1 master:2 - ext4 /dev/loop3 rw,errors=continue";
        let mount = parse(line).unwrap();
        assert_eq!(mount.device, "7:3");
        assert_eq!(mount.point, Path::new("/mnt/a b"));
        assert!(mount.read_only);
        assert_eq!(mount.fs_type, "ext4");
    }

    #[test]
    fn the_root_is_mounted_and_nothing_else_is_made_up() {
        assert!(
            all()
                .unwrap()
                .iter()
                .any(|mount| mount.point == Path::new("/proc"))
        );
        assert!(!is_mount_point(Path::new("/no/such/folder")));
        for line in [&b""[..], b"1 2", b"1 2 3:4 / /x rw", b"\\"] {
            assert_eq!(parse(line), None);
        }
    }
}

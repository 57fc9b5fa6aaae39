//! Loop devices: a block device over a file.

use rustix::ioctl::{self, Getter, IntegerSetter, NoArg, Setter};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};
use tracing::warn;

// From linux/loop.h, linux/fs.h and linux/major.h.
const LOOP_CLR_FD: ioctl::Opcode = 0x4C01;
const LOOP_GET_STATUS64: ioctl::Opcode = 0x4C05;
const LOOP_SET_CAPACITY: ioctl::Opcode = 0x4C07;
const LOOP_SET_DIRECT_IO: ioctl::Opcode = 0x4C08;
const LOOP_CONFIGURE: ioctl::Opcode = 0x4C0A;
const LOOP_CTL_ADD: ioctl::Opcode = 0x4C80;
const BLKROSET: ioctl::Opcode = 0x125D;
const LO_FLAGS_DIRECT_IO: u32 = 16;
const LOOP_MAJOR: u32 = 7;
const O_DIRECT: i32 = 0x4000;

const NAME_BYTES: usize = 64;
const HASH_DIGITS: usize = 48;

/// Devices at most: the kernel makes them as they are needed.
const DEVICES_MAX: u32 = 4096;
/// How long a device that is let go may still be in somebody's hands (`udev` looks at new ones).
const FREE_LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; NAME_BYTES],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<Info>() == 232, "the kernel's struct loop_info64");
const _: () = assert!(
    size_of::<Config>() == 304,
    "the kernel's struct loop_config"
);

/// Names a file within what the kernel keeps of a loop device.
fn mark(file: &Path) -> [u8; NAME_BYTES] {
    let mut mark = [0; NAME_BYTES];
    let hash = blake3::hash(file.as_os_str().as_bytes()).to_hex();
    let text = format!("isthmus:{}", &hash[..HASH_DIGITS]);
    mark[..text.len()].copy_from_slice(text.as_bytes());
    mark
}

/// A loop device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopDevice {
    /// Its number.
    pub number: u32,
}

impl LoopDevice {
    /// Its node.
    pub fn path(self) -> PathBuf {
        PathBuf::from(format!("/dev/loop{}", self.number))
    }

    /// As `/proc/self/mountinfo` names it.
    pub fn major_minor(self) -> String {
        format!("{LOOP_MAJOR}:{}", self.number)
    }

    /// The device whose file that is, as the kernel says.
    pub fn of(file: &Path) -> io::Result<Option<LoopDevice>> {
        for entry in fs::read_dir("/sys/block")? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("loop"));
            let Some(number) = number.and_then(|number| number.parse().ok()) else {
                continue;
            };
            let device = LoopDevice { number };
            let Some(path) = device.file() else {
                continue;
            };
            // The path is as it was in the mount namespace that opened the file, which a container takes with it. The mark stays, but
            // is not told of a file whose file system is dead. (Of others' files it is not asked: theirs may hang.)
            let may_be = path.file_name() == file.file_name();
            if path == file || may_be && device.mark().is_ok_and(|found| found == mark(file)) {
                return Ok(Some(device));
            }
        }
        Ok(None)
    }

    /// What was written into it when it was made.
    fn mark(self) -> io::Result<[u8; NAME_BYTES]> {
        let device = File::open(self.path())?;
        // SAFETY: LOOP_GET_STATUS64 writes a struct loop_info64, all of whose bytes are plain numbers.
        let info = unsafe { ioctl::ioctl(&device, Getter::<LOOP_GET_STATUS64, Info>::new())? };
        Ok(info.file_name)
    }

    /// The device at that path, if there is one.
    pub fn at(path: &Path) -> Option<LoopDevice> {
        let metadata = fs::metadata(path).ok()?;
        let device = metadata.rdev();
        let is_loop =
            metadata.file_type().is_block_device() && rustix::fs::major(device) == LOOP_MAJOR;
        is_loop.then(|| LoopDevice {
            number: rustix::fs::minor(device),
        })
    }

    /// The file behind it; none while it is free.
    pub fn file(self) -> Option<PathBuf> {
        let path = format!("/sys/block/loop{}/loop/backing_file", self.number);
        let text = fs::read_to_string(path).ok()?;
        Some(PathBuf::from(text.trim_end_matches('\n')))
    }

    /// Its size.
    pub fn bytes(self) -> io::Result<u64> {
        let text = fs::read_to_string(format!("/sys/block/loop{}/size", self.number))?;
        let sectors: u64 = text.trim().parse().map_err(io::Error::other)?;
        Ok(sectors * 512)
    }

    /// Whether nothing can be written to it.
    pub fn is_read_only(self) -> io::Result<bool> {
        let text = fs::read_to_string(format!("/sys/block/loop{}/ro", self.number))?;
        Ok(text.trim() == "1")
    }

    /// Lets it be written to, or not.
    pub fn set_read_only(self, read_only: bool) -> io::Result<()> {
        let device = File::open(self.path())?;
        let value = i32::from(read_only);
        // SAFETY: BLKROSET reads an int.
        unsafe { ioctl::ioctl(&device, Setter::<BLKROSET, i32>::new(value))? };
        Ok(())
    }

    /// Makes a device over a file, without caching what that holds a second time where the kernel can do so.
    pub fn over(file: &Path, block_bytes: u32) -> io::Result<LoopDevice> {
        let backing = File::options()
            .read(true)
            .write(true)
            .custom_flags(O_DIRECT)
            .open(file)?;
        for number in 0..DEVICES_MAX {
            let device = LoopDevice { number };
            if device.file().is_some() {
                continue;
            }
            device.make_node()?;
            match device.configure(&backing, block_bytes, mark(file)) {
                Ok(()) => return Ok(device),
                // Somebody was faster.
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other(format!(
            "all {DEVICES_MAX} loop devices are taken"
        )))
    }

    fn make_node(self) -> io::Result<()> {
        if self.path().exists() {
            return Ok(());
        }
        let control = File::open("/dev/loop-control")?;
        // SAFETY: LOOP_CTL_ADD takes a number, not a pointer.
        let added = unsafe {
            ioctl::ioctl(
                &control,
                IntegerSetter::<LOOP_CTL_ADD>::new_usize(self.number as usize),
            )
        };
        match added {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        if self.path().exists() {
            return Ok(());
        }
        // A container's /dev does not follow the kernel.
        rustix::fs::mknodat(
            rustix::fs::CWD,
            self.path(),
            rustix::fs::FileType::BlockDevice,
            rustix::fs::Mode::from_raw_mode(0o660),
            rustix::fs::makedev(LOOP_MAJOR, self.number),
        )?;
        Ok(())
    }

    fn open(self) -> io::Result<File> {
        File::options().read(true).write(true).open(self.path())
    }

    fn configure(self, backing: &File, block_bytes: u32, mark: [u8; NAME_BYTES]) -> io::Result<()> {
        let device = self.open()?;
        let config = |flags| Config {
            fd: backing.as_raw_fd().cast_unsigned(),
            block_size: block_bytes,
            info: Info {
                device: 0,
                inode: 0,
                rdevice: 0,
                offset: 0,
                size_limit: 0,
                number: 0,
                encrypt_type: 0,
                encrypt_key_size: 0,
                flags,
                file_name: mark,
                crypt_name: [0; 64],
                encrypt_key: [0; 32],
                init: [0; 2],
            },
            reserved: [0; 8],
        };
        // SAFETY: LOOP_CONFIGURE reads a struct loop_config, which this is; its file is open for as long.
        let configured = unsafe {
            ioctl::ioctl(
                &device,
                Setter::<LOOP_CONFIGURE, Config>::new(config(LO_FLAGS_DIRECT_IO)),
            )
        };
        match configured {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::INVAL) => {
                // SAFETY: as above.
                unsafe {
                    ioctl::ioctl(&device, Setter::<LOOP_CONFIGURE, Config>::new(config(0)))?;
                }
                // SAFETY: LOOP_SET_DIRECT_IO takes a number, not a pointer. Where it is refused, the file is cached twice.
                let _ = unsafe {
                    ioctl::ioctl(&device, IntegerSetter::<LOOP_SET_DIRECT_IO>::new_usize(1))
                };
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the file's new size over.
    pub fn take_size(self) -> io::Result<()> {
        let device = self.open()?;
        // SAFETY: LOOP_SET_CAPACITY takes nothing.
        unsafe { ioctl::ioctl(&device, NoArg::<LOOP_SET_CAPACITY>::new())? };
        Ok(())
    }

    /// Makes all that was written durable where that is still possible, and lets the file go.
    pub fn free(self) -> io::Result<()> {
        let Some(file) = self.file() else {
            return Ok(());
        };
        let device = self.open()?;
        if let Err(error) = device.sync_all() {
            // Its users were told by their own syncs; holding on to the device would not bring it back.
            warn!(device = %self.path().display(), %error, "what was not made durable is lost");
        }
        // SAFETY: LOOP_CLR_FD takes nothing.
        let freed = unsafe { ioctl::ioctl(&device, NoArg::<LOOP_CLR_FD>::new()) };
        match freed {
            Ok(()) | Err(rustix::io::Errno::NXIO) => {}
            Err(error) => return Err(error.into()),
        }
        drop(device);
        let end = Instant::now() + FREE_LIMIT;
        while self.file().as_ref() == Some(&file) {
            if Instant::now() > end {
                return Err(io::Error::other(format!(
                    "{} is still open somewhere",
                    self.path().display()
                )));
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }
}

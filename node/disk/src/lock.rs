//! The lock on a data directory: one process at a time.

use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;

/// Held by the process that uses a data directory, until dropped or until the process ends in any way.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Locks `root` (which is made when it is absent) by its file `lock`, which then holds the process id as text.
    ///
    /// # Errors
    /// `ResourceBusy`, with a sentence for people, when another process (or this one) holds it; else what the file system said.
    pub fn acquire(root: &Path) -> io::Result<DirectoryLock> {
        std::fs::create_dir_all(root)?;
        let path = root.join("lock");
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)?;
        if let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return Err(error.into());
            }
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                format!(
                    "the data directory {} is in use by {}; stop that process or choose another directory",
                    root.display(),
                    holder(&mut file)
                ),
            ));
        }
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        Ok(DirectoryLock { _file: file })
    }
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    match file.take(20).read_to_string(&mut text) {
        Ok(_) if text.trim().parse::<u32>().is_ok() => format!("process {}", text.trim()),
        _ => "another process".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_is_held_by_one_at_a_time_and_names_its_holder() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("data");
        let held = DirectoryLock::acquire(&folder).unwrap();
        let refused = DirectoryLock::acquire(&folder).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ResourceBusy);
        let named = format!("process {}", std::process::id());
        assert!(refused.to_string().contains(&named), "{refused}");
        drop(held);
        DirectoryLock::acquire(&folder).unwrap();
    }
}

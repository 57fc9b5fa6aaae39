//! Whose turn it is: a machine runs two whole clusters at a time, whatever runs the tests. Much of each test is waiting (for leases, mostly);
//! more at once would starve each other of processors.

use rustix::fs::{FlockOperation, flock};
use std::fs::File;

/// Clusters at a time.
const TURNS: u32 = 2;

/// A test's turn; the next one's begins when it is dropped.
#[derive(Debug)]
pub struct Turn {
    _lock: File,
}

/// Waits for this test's turn.
///
/// # Panics
/// When the temporary folder can't be written.
#[must_use]
pub fn take() -> Turn {
    let mut locks: Vec<File> = (0..TURNS).map(open).collect();
    let free = locks
        .iter()
        .position(|lock| flock(lock, FlockOperation::NonBlockingLockExclusive).is_ok());
    let place = free.unwrap_or_else(|| {
        let place = (std::process::id() % TURNS) as usize;
        flock(&locks[place], FlockOperation::LockExclusive).expect("a file can be locked");
        place
    });
    Turn {
        _lock: locks.swap_remove(place),
    }
}

fn open(place: u32) -> File {
    let path = std::env::temp_dir().join(format!("isthmus-tests-{place}.lock"));
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .expect("a lock in the temporary folder")
}

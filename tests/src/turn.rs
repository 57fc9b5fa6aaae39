//! Whose turn it is: whole clusters run one at a time on a machine, whatever runs the tests.

use rustix::fs::{FlockOperation, flock};
use std::fs::File;

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
    let path = std::env::temp_dir().join("isthmus-tests.lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .expect("a lock in the temporary folder");
    flock(&file, FlockOperation::LockExclusive).expect("a file can be locked");
    Turn { _lock: file }
}

//! Random numbers for identities, from the kernel.

use std::fs::File;
use std::io::{self, Read};

/// A random number, never 0.
///
/// # Errors
/// When the kernel's source can't be read.
pub fn number() -> io::Result<u64> {
    let mut source = File::open("/dev/urandom")?;
    let mut bytes = [0; 8];
    source.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes).max(1))
}

//! The case under way, so that whatever goes wrong can be told with the bytes that did it: a panic (also one that aborts), an
//! allocation without bound, a case without end.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, Once, OnceLock, PoisonError};

use crate::target::Expect;

/// Bytes of an input that are printed as hex; all of them are in the file.
const SHOWN_BYTES_MAX: usize = 2048;

#[derive(Debug)]
struct Current {
    target: &'static str,
    expect: Expect,
    bytes: Vec<u8>,
    number: u64,
    running: bool,
}

static CURRENT: Mutex<Current> = Mutex::new(Current {
    target: "",
    expect: Expect::Anything,
    bytes: Vec::new(),
    number: 0,
    running: false,
});

fn lock() -> MutexGuard<'static, Current> {
    CURRENT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A case begins.
pub fn begin(target: &'static str, expect: Expect, bytes: &[u8]) {
    let mut current = lock();
    current.target = target;
    current.expect = expect;
    current.bytes.clear();
    current.bytes.extend_from_slice(bytes);
    current.number += 1;
    current.running = true;
}

/// The case has ended.
pub fn end() {
    lock().running = false;
}

/// The number of the case under way, if one is.
#[must_use]
pub fn number() -> Option<u64> {
    let current = lock();
    current.running.then_some(current.number)
}

/// Lets every panic during a case tell the case.
pub fn tell_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            crate::allocation::stop();
            fail(&panic.to_string());
            before(panic);
        }));
    });
}

/// Where inputs that failed are kept.
#[must_use]
pub fn found_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("found")
}

static KEPT_IN: OnceLock<PathBuf> = OnceLock::new();

/// Keeps inputs that fail in another folder; the first call counts.
pub fn keep_in(folder: PathBuf) {
    KEPT_IN.get_or_init(|| folder);
}

/// Tells what went wrong in the case under way, keeps its bytes in a file, and says how to run it again.
pub fn fail(what: &str) {
    let mut current = lock();
    if !std::mem::replace(&mut current.running, false) {
        return;
    }
    let name = format!(
        "{}-{:08x}.{}",
        current.target,
        crc32fast::hash(&current.bytes),
        current.expect.word()
    );
    let folder = KEPT_IN.get().cloned().unwrap_or_else(found_folder);
    let path = folder.join(&name);
    let written =
        std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, &current.bytes));
    let mut hex = String::new();
    for byte in current.bytes.iter().take(SHOWN_BYTES_MAX) {
        // Writing to a string can't fail.
        let _ = write!(hex, "{byte:02x}");
    }
    if current.bytes.len() > SHOWN_BYTES_MAX {
        hex.push('…');
    }
    eprintln!(
        "\nFAILED: {} ({}), case {}: {what}",
        current.target,
        current.expect.word(),
        current.number
    );
    eprintln!("input, {} bytes: {hex}", current.bytes.len());
    match written {
        Ok(()) => eprintln!(
            "again: cargo run --release -p fuzz -- --target {} --replay {}",
            current.target,
            path.display()
        ),
        Err(error) => eprintln!(
            "the input could not be written to {}: {error}",
            path.display()
        ),
    }
}

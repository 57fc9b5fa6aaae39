//! The programs under test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The folder that holds the programs under test: `ISTHMUS_BINARIES`, or else they are built, so that a test never runs
/// against an old program.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        if let Some(folder) = std::env::var_os("ISTHMUS_BINARIES") {
            return PathBuf::from(folder);
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let status = Command::new(cargo)
            .args([
                "build",
                "--quiet",
                "--release",
                "--bin",
                "isthmusd",
                "--bin",
                "domain-ctl",
                "--bin",
                "isthmus-csi",
            ])
            .current_dir(workspace())
            .status()
            .expect("cargo runs these tests, so it can be run");
        assert!(status.success(), "the programs under test can't be built");
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| workspace().join("target"), PathBuf::from);
        target.join("release")
    })
}

/// The root of the source tree.
///
/// # Panics
/// When this crate is not in a folder of it.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("this crate is a folder of the workspace")
}

/// The node.
#[must_use]
pub fn isthmusd() -> PathBuf {
    folder().join("isthmusd")
}

/// The command line.
#[must_use]
pub fn domain_ctl() -> PathBuf {
    folder().join("domain-ctl")
}

/// The CSI driver.
#[must_use]
pub fn isthmus_csi() -> PathBuf {
    folder().join("isthmus-csi")
}

//! Names in the data directory: which are allowed, and how files appear and vanish whole, whatever moment a crash takes.
//!
//! A file is made under a name that ends in `.creating` and renamed when it is whole and synced; what is removed is first
//! renamed to `.removing`. Such leftovers of a crash are never listed, and are swept at the next start.

use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};

const CREATING: &str = ".creating";
const REMOVING: &str = ".removing";

/// `path` below `root`. Only plain names are taken: no root, no `.`, no `..`, no name of a leftover.
pub(crate) fn below(root: &Path, path: &str) -> io::Result<PathBuf> {
    let refuse = || {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{path:?} is not a path inside the data directory"),
        )
    };
    let plain = Path::new(path)
        .components()
        .all(|component| matches!(component, Component::Normal(_)));
    if path.is_empty() || !plain || path.contains('\0') || is_leftover(path) {
        return Err(refuse());
    }
    Ok(root.join(path))
}

fn is_leftover(name: &str) -> bool {
    name.ends_with(CREATING) || name.ends_with(REMOVING)
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

fn parent(path: &Path) -> &Path {
    path.parent().expect("a path below the root has a parent")
}

/// Makes the names in `folder` durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Makes the folder of `path` and all folders above it, up to `root`, durably.
fn create_parents(root: &Path, path: &Path) -> io::Result<()> {
    let folder = parent(path);
    if folder.is_dir() {
        return Ok(());
    }
    create_parents(root, folder)?;
    fs::create_dir(folder)?;
    assert!(
        folder.starts_with(root),
        "{} is below the root",
        folder.display()
    );
    sync_folder(parent(folder))
}

/// Makes a file that holds what `fill` writes into it: after a crash it is there whole, or not at all.
pub(crate) fn create_whole(
    root: &Path,
    path: &Path,
    fill: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    if path.symlink_metadata().is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    create_parents(root, path)?;
    let unfinished = with_ending(path, CREATING);
    let made = File::create(&unfinished)
        .and_then(|file| fill(&file).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&unfinished, path));
    if let Err(error) = made {
        // The space of a file that could not be made whole is given back at once; if that fails too, at the next start.
        let _ = fs::remove_file(&unfinished);
        return Err(error);
    }
    sync_folder(parent(path))
}

/// Removes a file, or a folder with all it holds, durably and as one step. Absent is fine.
pub(crate) fn remove_whole(path: &Path) -> io::Result<()> {
    let leftover = with_ending(path, REMOVING);
    remove_now(&leftover)?;
    match fs::rename(path, &leftover) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    sync_folder(parent(path))?;
    remove_now(&leftover)
}

fn remove_now(path: &Path) -> io::Result<()> {
    let metadata = match path.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if metadata.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}

/// The names in a folder, sorted, without leftovers; an absent folder is empty.
pub(crate) fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        // A name that is not UTF-8 is none of ours.
        if let Ok(name) = entry?.file_name().into_string()
            && !is_leftover(&name)
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Removes what crashes left half made or half removed, in `folder` and below.
pub(crate) fn sweep(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(is_leftover) {
            remove_now(&entry.path())?;
        } else if entry.file_type()?.is_dir() {
            sweep(&entry.path())?;
        }
    }
    Ok(())
}

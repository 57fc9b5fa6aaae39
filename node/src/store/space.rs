//! How much room the file system of the data directory has.
//!
//! It is asked once a second, apart from whoever wants to know: a disk that hangs must not hold up what a node says about itself
//! (fences are proven by that). A figure that has become old is not told.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How often the file system is asked.
const PERIOD: Duration = Duration::from_secs(1);
/// An older figure is not told: the disk does not answer.
const AGE_MAX: Duration = Duration::from_secs(10);

/// Bytes of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// All of them.
    pub total_bytes: u64,
    /// Those that this process may still fill.
    pub free_bytes: u64,
}

/// The figure, kept up to date. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct StoreSpace(Arc<Mutex<Option<(Space, Instant)>>>);

impl StoreSpace {
    /// Looks now, and from now on. Needs a running tokio runtime.
    pub fn follow(data_dir: &Path) -> StoreSpace {
        let space = StoreSpace::default();
        tokio::spawn(space.clone().live(data_dir.to_owned()));
        space
    }

    /// The figure; none while the disk does not say.
    pub fn now(&self) -> Option<Space> {
        let (space, seen) = (*self.0.lock())?;
        (seen.elapsed() <= AGE_MAX).then_some(space)
    }

    async fn live(self, data_dir: PathBuf) {
        loop {
            let asked = data_dir.clone();
            // One question at a time: while the disk hangs, only this task waits.
            match tokio::task::spawn_blocking(move || ask(&asked)).await {
                Ok(Ok(space)) => *self.0.lock() = Some((space, Instant::now())),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "the data directory's file system does not say how much room it has")
                }
                Err(_) => return,
            }
            tokio::time::sleep(PERIOD).await;
        }
    }
}

fn ask(path: &Path) -> std::io::Result<Space> {
    let said = rustix::fs::statvfs(path)?;
    Ok(Space {
        total_bytes: said.f_blocks.saturating_mul(said.f_frsize),
        free_bytes: said.f_bavail.saturating_mul(said.f_frsize),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_has_more_bytes_than_are_free() {
        let space = ask(Path::new("/")).unwrap();
        assert!(space.total_bytes > 0 && space.free_bytes <= space.total_bytes);
        assert!(ask(Path::new("/nowhere/at/all")).is_err());
    }

    #[test]
    fn an_old_figure_is_not_told() {
        let space = StoreSpace::default();
        assert_eq!(space.now(), None);
        let figure = Space {
            total_bytes: 2,
            free_bytes: 1,
        };
        *space.0.lock() = Some((figure, Instant::now()));
        assert_eq!(space.now(), Some(figure));
        let long_ago = Instant::now().checked_sub(AGE_MAX * 2);
        if let Some(long_ago) = long_ago {
            *space.0.lock() = Some((figure, long_ago));
            assert_eq!(space.now(), None);
        }
    }
}

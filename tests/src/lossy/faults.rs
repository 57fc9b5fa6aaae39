//! What a disk does wrong, by order of the test.

use rustix::io::Errno;
use std::time::Duration;

/// What a program does to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Reads.
    Read,
    /// Writes, takes space, makes holes, changes the length.
    Write,
    /// Makes durable: a sync, or a write that is one.
    Sync,
    /// Makes, renames or removes a name.
    Name,
}

/// What goes wrong, until something else is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Only files whose path begins so are concerned; all, when empty.
    pub below: String,
    /// Reads fail with EIO.
    pub reads_fail: bool,
    /// Writes fail with EIO.
    pub writes_fail: bool,
    /// Syncs fail with EIO; what they were to make durable is lost in the next cut or not.
    pub syncs_fail: bool,
    /// Everything that changes something fails with EROFS.
    pub read_only: bool,
    /// How long a read takes.
    pub read_takes: Duration,
    /// How long a sync, or a write that is one, takes: the longer, the more a power cut finds half done.
    pub sync_takes: Duration,
}

impl Faults {
    /// A disk that does nothing wrong at once.
    #[must_use]
    pub fn none() -> Faults {
        Faults::default()
    }

    /// How an action on that path fails, if it does.
    #[must_use]
    pub fn refusal(&self, path: &str, action: Action) -> Option<Errno> {
        if !path.starts_with(&self.below) {
            return None;
        }
        let fails = match action {
            Action::Read => self.reads_fail,
            Action::Write | Action::Name => self.writes_fail,
            Action::Sync => self.syncs_fail,
        };
        match action {
            Action::Write | Action::Name if self.read_only => Some(Errno::ROFS),
            _ => fails.then_some(Errno::IO),
        }
    }

    /// How long an action on that path takes.
    #[must_use]
    pub fn delay(&self, path: &str, action: Action) -> Duration {
        match action {
            _ if !path.starts_with(&self.below) => Duration::ZERO,
            Action::Read => self.read_takes,
            Action::Sync => self.sync_takes,
            Action::Write | Action::Name => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_fails() {
        let faults = Faults {
            below: "volumes/".to_owned(),
            writes_fail: true,
            ..Faults::none()
        };
        assert_eq!(
            faults.refusal("volumes/1/slots", Action::Write),
            Some(Errno::IO)
        );
        assert_eq!(faults.refusal("volumes/1/slots", Action::Read), None);
        assert_eq!(faults.refusal("journal/0", Action::Write), None);
        let read_only = Faults {
            read_only: true,
            ..Faults::none()
        };
        assert_eq!(
            read_only.refusal("journal/0", Action::Name),
            Some(Errno::ROFS)
        );
        assert_eq!(read_only.refusal("journal/0", Action::Sync), None);
    }
}

//! kvdb is one register with one history: each member applies a prefix of the same sequence of catalogs, and everything that is answered
//! fits into that sequence in real time.
//!
//! Why it must hold: kvdb is the protocol's configuration master (design, section 3). Two histories would be two primaries of one
//! epoch; a proposal that is answered and then missing would be a shrink that a primary relied on (I2); a confirmed read that misses
//! what was committed before it began would let a deposed primary renew its right to serve.
//!
//! How it is checked: every applied entry of every member is seen ([`History::applied`]), so all revisions are known, each with its
//! catalog. An operation's place in the one order is its revision. Linearizability of a register whose versions are totally ordered and
//! known is then this: an operation's place is not before that of any operation which had ended when it began (and for a change:
//! strictly after). Whatever was neither answered nor refused may have happened or not.

use isthmus_catalog::{Answer, Catalog, RequestId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The one history, as far as it is known.
#[derive(Debug)]
pub struct History {
    /// By revision, from 0.
    versions: Vec<Arc<Catalog>>,
    /// The revision after each log index.
    revisions: BTreeMap<u64, u64>,
    /// Where each request has changed something.
    changes: BTreeMap<RequestId, u64>,
    /// The last index that each process has applied, by member and life.
    applied: BTreeMap<(usize, u64), u64>,
    /// The newest revision that an ended operation has shown.
    shown: u64,
    broken: Option<String>,
}

/// An operation that has begun: its place may not be before what had been shown then.
#[derive(Clone, Copy, Debug)]
pub struct Begun {
    shown: u64,
}

impl Default for History {
    fn default() -> History {
        History {
            versions: vec![Arc::default()],
            revisions: BTreeMap::new(),
            changes: BTreeMap::new(),
            applied: BTreeMap::new(),
            shown: 0,
            broken: None,
        }
    }
}

impl History {
    /// The first broken rule, if any.
    #[must_use]
    pub fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// All versions that any member has applied.
    #[must_use]
    pub fn versions(&self) -> &[Arc<Catalog>] {
        &self.versions
    }

    fn breaks(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }

    /// A process has applied the log up to `index`, and has this catalog now.
    pub fn applied(&mut self, member: usize, life: u64, index: u64, catalog: &Catalog) {
        let revision = catalog.revision;
        if let Some(before) = self.applied.insert((member, life), index)
            && before >= index
        {
            self.breaks(format!(
                "member {member} (life {life}) applies index {index} after {before}"
            ));
        }
        if let Some(known) = self.revisions.insert(index, revision)
            && known != revision
        {
            self.breaks(format!(
                "index {index} comes to revision {known} at one member, to {revision} at member {member}"
            ));
        }
        match usize::try_from(revision).map(|revision| (revision, self.versions.get(revision))) {
            Ok((_, Some(known))) if **known == *catalog => {}
            Ok((_, Some(known))) => {
                let theirs = known.answers.back().cloned();
                self.breaks(format!(
                    "revision {revision} of member {member} (life {life}, index {index}) is another one than that of the others: by {:?}, not by {theirs:?}; indexes {:?}",
                    catalog.answers.back(),
                    self.revisions.iter().rev().take(5).collect::<Vec<_>>()
                ));
            }
            Ok((place, None)) if place == self.versions.len() => {
                if let Some(rule) = catalog.broken_rules().first() {
                    self.breaks(format!("the catalog breaks a rule: {rule}"));
                }
                let changed_by = catalog.answers.back().map(|(id, _)| *id);
                if let Some(id) = changed_by
                    && let Some(twice) = self.changes.insert(id, revision)
                {
                    self.breaks(format!(
                        "request {id:?} has changed revision {twice}, and {revision} again"
                    ));
                }
                self.versions.push(Arc::new(catalog.clone()));
            }
            Ok((_, None)) | Err(_) => self.breaks(format!(
                "member {member} applies revision {revision}, and nobody has applied the one before"
            )),
        }
    }

    /// An operation begins.
    #[must_use]
    pub fn begin(&self) -> Begun {
        Begun { shown: self.shown }
    }

    /// A proposal was answered.
    pub fn answered(&mut self, begun: Begun, id: RequestId, answer: &Answer) {
        let Some(place) = self.changes.get(&id).copied() else {
            // It was refused, or found its wish fulfilled: it has changed nothing, and its place is not told.
            return;
        };
        if place <= begun.shown {
            self.breaks(format!(
                "a proposal ({id:?}) takes place at revision {place}, but {} was shown before it began",
                begun.shown
            ));
        }
        let recorded = usize::try_from(place)
            .ok()
            .and_then(|place| self.versions.get(place))
            .and_then(|version| version.answers.back().map(|(_, answer)| answer.clone()));
        if recorded.as_ref() != Some(answer) {
            self.breaks(format!(
                "a proposal ({id:?}) was answered {answer:?}, and the catalog has {recorded:?}"
            ));
        }
        self.shown = self.shown.max(place);
    }

    /// A linearizable read has seen this catalog.
    pub fn confirmed(&mut self, begun: Begun, catalog: &Catalog) {
        let revision = catalog.revision;
        if revision < begun.shown {
            self.breaks(format!(
                "a confirmed read sees revision {revision}, but {} was shown before it began",
                begun.shown
            ));
        }
        let known = usize::try_from(revision)
            .ok()
            .and_then(|place| self.versions.get(place));
        if known.is_none_or(|known| **known != *catalog) {
            self.breaks(format!(
                "a confirmed read sees a revision {revision} that nobody has applied"
            ));
        }
        self.shown = self.shown.max(revision);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(revision: u64) -> Catalog {
        Catalog {
            revision,
            cluster_id: 1,
            ..Catalog::default()
        }
    }

    fn id(number: u64) -> RequestId {
        RequestId { client: 1, number }
    }

    /// Member 0 has applied revisions 1 and 2, by requests 1 and 2.
    fn history() -> History {
        let mut history = History::default();
        for number in 1..=2 {
            let mut catalog = version(number);
            catalog.answers.push_back((id(number), Answer::Done));
            history.applied(0, 1, number, &catalog);
        }
        assert_eq!(history.broken(), None);
        history
    }

    #[test]
    fn another_catalog_at_the_same_place_is_found() {
        let mut history = history();
        let mut other = version(2);
        other.cluster_id = 2;
        history.applied(1, 1, 2, &other);
        assert!(history.broken().is_some());
    }

    #[test]
    fn a_read_that_misses_what_was_shown_before_it_began_is_found() {
        let mut history = history();
        history.answered(history.begin(), id(2), &Answer::Done);
        let begun = history.begin();
        let old = Catalog::clone(&history.versions()[1]);
        history.confirmed(begun, &old);
        assert!(history.broken().is_some());
    }

    #[test]
    fn a_read_beside_a_change_may_miss_it() {
        let mut history = history();
        let begun = history.begin();
        history.answered(begun, id(2), &Answer::Done);
        let old = Catalog::clone(&history.versions()[1]);
        history.confirmed(begun, &old);
        assert_eq!(history.broken(), None);
    }

    #[test]
    fn a_change_that_takes_place_before_it_was_asked_for_is_found() {
        let mut history = history();
        history.answered(history.begin(), id(2), &Answer::Done);
        history.answered(history.begin(), id(1), &Answer::Done);
        assert!(history.broken().is_some());
    }
}

//! The audit trail: who did what, when and why, each record chained to all before it by a digest, so that a gap or a change shows.

use super::cut;
use crate::command::Cause;
use crate::record::{AuditDigest, AuditRecord, Catalog};

impl Catalog {
    pub(super) fn record_audit(&mut self, cause: &Cause, what: &str) {
        let record = AuditRecord {
            revision: self.revision,
            at_ms: cause.at_ms,
            who: cut(&cause.who),
            why: cut(&cause.why),
            what: cut(what),
        };
        let before = self.audit_digests.back().copied().unwrap_or_default();
        self.audit_digests.push_back(record.digest_after(before));
        self.audit.push_back(record);
        while self.audit.len() > Catalog::AUDIT_MAX {
            self.audit.pop_front();
        }
        while self.audit_digests.len() > self.audit.len() {
            self.audit_digests.pop_front();
        }
    }

    /// Gives digests to a trail of before there were any, the same on every node.
    pub(crate) fn complete_digests(&mut self) {
        if !self.audit_digests.is_empty() {
            return;
        }
        let mut before = AuditDigest::default();
        for record in &self.audit {
            before = record.digest_after(before);
            self.audit_digests.push_back(before);
        }
    }

    /// The audit trail with the digest of each record.
    pub fn audit_trail(&self) -> impl Iterator<Item = (&AuditRecord, AuditDigest)> {
        self.audit.iter().zip(self.audit_digests.iter().copied())
    }

    /// The first record that is not what its digest says, or that does not follow the one before it; none where the trail is whole.
    #[must_use]
    pub fn audit_gap(&self) -> Option<&AuditRecord> {
        let mut before: Option<AuditDigest> = None;
        for (record, digest) in self.audit_trail() {
            if before.is_some_and(|before| record.digest_after(before) != digest) {
                return Some(record);
            }
            before = Some(digest);
        }
        None
    }
}

impl AuditRecord {
    /// The digest of this record behind one whose digest was `before`: BLAKE3 of `before`, then revision and time as little-endian
    /// numbers, then the three texts, each after its length (u64, little-endian).
    #[must_use]
    pub fn digest_after(&self, before: AuditDigest) -> AuditDigest {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&before.0);
        hasher.update(&self.revision.to_le_bytes());
        hasher.update(&self.at_ms.to_le_bytes());
        for text in [&self.who, &self.why, &self.what] {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        AuditDigest(*hasher.finalize().as_bytes())
    }
}

//! Going on without quorum, what a kvdb was saved as, and naming the replica that counts of a volume.

use crate::observed::Observed;
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// kvdb's catalog, saved: what a file of `domain-ctl kvdb snapshot save` holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvdbSnapshot {
    /// What this is: [`KvdbSnapshot::FORMAT`].
    pub format: String,
    /// The cluster's name.
    pub cluster: String,
    /// Its id, in hex.
    pub cluster_id: String,
    /// The generation of the cluster that it was taken in.
    pub generation: String,
    /// The catalog's revision.
    pub revision: u64,
    /// When it was taken, in ms since 1970.
    pub taken_ms: u64,
    /// How many nodes it knows.
    pub nodes: u32,
    /// How many volumes it knows.
    pub volumes: u32,
    /// Whether a majority of kvdb's voters confirmed that it was the newest one.
    pub confirmed: bool,
    /// The CRC-32 of the catalog's bytes.
    pub crc32: u32,
    /// The catalog's bytes, in hex.
    pub catalog: String,
}

impl KvdbSnapshot {
    /// Names this format and its version.
    pub const FORMAT: &str = "isthmus-kvdb-snapshot/1";
    /// Bytes of a catalog that can be saved, at most.
    pub const CATALOG_BYTES_MAX: usize = 16 << 20;

    /// The text and the checksum of a catalog's bytes.
    #[must_use]
    pub fn sealed(bytes: &[u8]) -> (String, u32) {
        let mut text = String::with_capacity(bytes.len() * 2);
        for byte in bytes {
            // A string takes all that is written to it.
            let _ = write!(text, "{byte:02x}");
        }
        (text, crc32fast::hash(bytes))
    }

    /// The catalog's bytes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn bytes(&self) -> Result<Vec<u8>, String> {
        if self.format != KvdbSnapshot::FORMAT {
            return Err(format!(
                "its format is {:?}, this version reads {:?}",
                self.format,
                KvdbSnapshot::FORMAT
            ));
        }
        if self.catalog.len() > KvdbSnapshot::CATALOG_BYTES_MAX * 2 {
            return Err("it is too long for a snapshot".to_owned());
        }
        let digits = self.catalog.as_bytes();
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let bytes: Option<Vec<u8>> = digits
            .chunks(2)
            .map(|pair| match pair {
                [high, low] => u8::try_from(digit(*high)? << 4 | digit(*low)?).ok(),
                _ => None,
            })
            .collect();
        let bytes = bytes.ok_or("its catalog is no hex text")?;
        if crc32fast::hash(&bytes) != self.crc32 {
            return Err("it is damaged: the checksum of its catalog differs".to_owned());
        }
        Ok(bytes)
    }
}

/// Asks a survivor to go on without the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoverKvdb {
    /// The operator's word that no other node serves anything, or will before it has met this one.
    #[serde(default)]
    pub others_are_off: bool,
    /// Change nothing; say what would happen.
    #[serde(default)]
    pub dry_run: bool,
    /// Why, for the audit trail.
    #[serde(default)]
    pub reason: String,
    /// Go on with this catalog instead of what the survivor holds.
    #[serde(default)]
    pub snapshot: Option<KvdbSnapshot>,
}

/// What going on without the others means, or meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// The survivor.
    pub node: String,
    /// Its cluster domain.
    pub domain: String,
    /// The generation that ends.
    pub from: String,
    /// The one that begins; none in a dry run.
    pub generation: Option<String>,
    /// The revision of the catalog that it begins with.
    pub revision: u64,
    /// Its volumes: none is served before a replica is named for it.
    pub volumes: u32,
    /// The other nodes that answer now: they will follow.
    pub answering: Vec<String>,
    /// Those that do not: they must be off, and will follow when they meet this one.
    pub silent: Vec<String>,
}

/// Names the replica of a volume that counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoverVolume {
    /// The node that holds it; none to be shown what there is.
    #[serde(default)]
    pub from: Option<String>,
    /// The operator's word that what only other replicas hold may be lost.
    #[serde(default)]
    pub accept_data_loss: bool,
    /// Why, for the audit trail.
    #[serde(default)]
    pub reason: String,
}

/// What is known of a volume's replicas, and which one was named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecovery {
    /// The volume's name.
    pub volume: String,
    /// Whether nobody is served until a replica is named.
    pub unproven: bool,
    /// Its replicas.
    pub replicas: Vec<ReplicaEvidence>,
    /// The node whose replica was named; none if nothing was changed.
    pub named: Option<String>,
    /// How far this can be trusted.
    pub observed: Observed,
}

/// What is known of a replica of an unproven volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaEvidence {
    /// Its node.
    pub node: String,
    /// Its cluster domain.
    pub domain: String,
    /// Whether it was in the last in-sync set that the survivor knew.
    pub was_in_sync: bool,
    /// Whether its node answers now.
    pub answers: bool,
    /// When it was heard last, in ms since 1970.
    pub heard_at_ms: Option<u64>,
    /// Whether its blocks are those of one moment; none if it has not said.
    pub whole: Option<bool>,
    /// The epoch of its last record; empty if it has not said.
    pub epoch: String,
    /// The seq of its last record.
    pub last_seq: Option<u64>,
    /// The last position that it knows as committed.
    pub committed_seq: Option<u64>,
    /// Why it can't be named, or what would be given up by naming it; empty when nothing is known.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(bytes: &[u8]) -> KvdbSnapshot {
        let (catalog, crc32) = KvdbSnapshot::sealed(bytes);
        KvdbSnapshot {
            format: KvdbSnapshot::FORMAT.to_owned(),
            cluster: "demo".to_owned(),
            cluster_id: "7".to_owned(),
            generation: "0".to_owned(),
            revision: 1,
            taken_ms: 1,
            nodes: 3,
            volumes: 0,
            confirmed: true,
            crc32,
            catalog,
        }
    }

    #[test]
    fn a_snapshot_comes_back_as_it_was() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(snapshot(&bytes).bytes(), Ok(bytes));
        assert_eq!(snapshot(&[]).bytes(), Ok(Vec::new()));
    }

    #[test]
    fn every_change_of_a_snapshot_is_noticed() {
        let sound = snapshot(b"catalog");
        for place in 0..sound.catalog.len() {
            for letter in ["0", "f", "x", ""] {
                let mut other = sound.clone();
                other.catalog.replace_range(place..=place, letter);
                assert_eq!(other.bytes().is_ok(), other == sound, "{other:?}");
            }
        }
        let other = KvdbSnapshot {
            format: "isthmus-kvdb-snapshot/2".to_owned(),
            ..sound
        };
        assert!(other.bytes().unwrap_err().contains("snapshot/2"));
    }
}

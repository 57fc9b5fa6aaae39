//! Reports of failovers: what the deactivation of a data domain meant for each volume.

use crate::observed::Observed;
use serde::{Deserialize, Serialize};

/// What one deactivation of a data domain meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverReport {
    /// The domain update's name.
    pub name: String,
    /// The domain that was deactivated.
    pub cluster_domain: String,
    /// Whether the failover policy did it, not an operator.
    pub automatic: bool,
    /// When, in ms since 1970.
    pub at_ms: u64,
    /// Whether every volume kept all that was acknowledged.
    pub zero_data_loss: bool,
    /// The proof that no node of the domain could serve any more; empty while it is not there yet.
    pub proof: String,
    /// Volumes with nothing to tell: their primary was elsewhere, and nothing was missing.
    pub others: u32,
    /// The volumes that moved, or that lacked a replica before, or for which a loss was accepted; the worst first.
    pub volumes: Vec<FailoverVolume>,
}

/// What a failover meant for a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverVolume {
    /// Its name then.
    pub name: String,
    /// Whether its primary was in the domain.
    pub moved: bool,
    /// Whether it is shown that no acknowledged write was lost: a survivor was in the in-sync set.
    pub zero_data_loss: bool,
    /// Its epoch before.
    pub epoch: String,
    /// The nodes that held every acknowledged write before.
    pub in_sync_before: Vec<String>,
    /// Of these, and by the operator's word, those that count from then on.
    pub in_sync_after: Vec<String>,
    /// Since when a replica had been missing before, in ms since 1970.
    pub unprotected_since_ms: Option<u64>,
    /// The last committed position (its seq) that a survivor knew.
    pub committed_seq: Option<u64>,
    /// In words.
    pub verdict: String,
}

/// All reports that are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverReportList {
    /// The newest first.
    pub items: Vec<FailoverReport>,
    /// How far this can be trusted.
    pub observed: Observed,
}

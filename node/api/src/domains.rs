//! Cluster domains: their state, and the updates that change it.

use crate::observed::Observed;
use serde::{Deserialize, Serialize};

/// What a domain is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DomainRole {
    /// Holds replicas.
    Data,
    /// Only votes.
    Witness,
}

/// A domain's life. Only in `Active` its nodes may serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DomainState {
    /// Its nodes may hold in-sync replicas and serve.
    Active,
    /// Its replicas are out of every set; votes and fences still move.
    Deactivating,
    /// It serves nothing, joins no set, has no vote.
    Inactive,
    /// Its nodes catch up with kvdb; it still serves nothing.
    Activating,
}

/// How a domain's replicas (or a volume's) stand to the in-sync sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SyncStatus {
    /// Every replica holds every acknowledged write.
    InSync,
    /// At least one replica is being brought back.
    SyncInProgress,
    /// At least one replica lacks writes, and none of these is being brought back.
    NotInSync,
    /// Nobody who would know answers.
    SyncStatusUnknown,
}

impl SyncStatus {
    /// The word that people and tools see.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            SyncStatus::InSync => "InSync",
            SyncStatus::SyncInProgress => "SyncInProgress",
            SyncStatus::NotInSync => "NotInSync",
            SyncStatus::SyncStatusUnknown => "SyncStatusUnknown",
        }
    }
}

/// One cluster domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterDomain {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub role: DomainRole,
    /// Where it is in its life.
    pub state: DomainState,
    /// Since when, in ms since 1970.
    pub since_ms: u64,
    /// How its replicas stand; none for a witness, which has no replicas.
    pub sync_status: Option<SyncStatus>,
    /// Its nodes' names.
    pub nodes: Vec<String>,
    /// Why it is not simply active and in sync; empty when it is.
    pub reason: String,
    /// What to do about it; empty when there is nothing.
    pub next: String,
}

/// All cluster domains, as one node sees them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterDomainsStatus {
    /// The cluster's name.
    pub name: String,
    /// The domain of the node that answers.
    pub local_domain: String,
    /// All domains in the order of their ids.
    pub domains: Vec<ClusterDomain>,
    /// When the cluster was formed, in ms since 1970.
    pub created_ms: u64,
    /// How far this can be trusted.
    pub observed: Observed,
}

/// Which way a domain goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdateAction {
    /// To serve again.
    Activate,
    /// To serve nothing.
    Deactivate,
}

/// How far a domain update is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdateStatus {
    /// Asked for, not begun.
    Pending,
    /// Under way.
    InProgress,
    /// Done; a deactivation also has its proof that the domain's nodes can serve no more.
    Successful,
    /// Given up; `reason` says why.
    Failed,
}

/// One activation or deactivation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterDomainUpdate {
    /// Unique.
    pub name: String,
    /// The domain's name.
    pub cluster_domain: String,
    /// Which way.
    pub action: UpdateAction,
    /// How far.
    pub status: UpdateStatus,
    /// Why it failed; empty otherwise.
    pub reason: String,
    /// What it proved, or what it waits for.
    pub detail: String,
    /// When it was asked for, in ms since 1970.
    pub created_ms: u64,
}

/// Domain updates, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterDomainUpdateList {
    /// The updates.
    pub items: Vec<ClusterDomainUpdate>,
    /// How far this can be trusted.
    pub observed: Observed,
}

/// Asks for an activation or a deactivation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DomainChange {
    /// Why, for the audit trail; at most 1,000 bytes.
    pub reason: String,
    /// Deactivation only: the operator's word that what only this domain holds may be lost.
    pub accept_data_loss: bool,
    /// Deactivation only: change nothing, say what would happen.
    pub dry_run: bool,
}

/// What became of a [`DomainChange`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainChanged {
    /// The domain's name.
    pub cluster_domain: String,
    /// The name of the update that was recorded; none for a dry run, and where the domain is already there.
    pub update: Option<String>,
    /// What happens, or would happen, step by step.
    pub plan: Vec<String>,
    /// A dry run only: why it would be refused now; empty when it would not.
    pub refusal: String,
}

/// Asks for the primaries of all volumes to be moved out of a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DomainRelocate {
    /// The domain where they go; none: wherever an in-sync replica is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// Which primaries are being moved out of a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainRelocated {
    /// The domain's name.
    pub cluster_domain: String,
    /// The volumes that move.
    pub moving: Vec<String>,
    /// Those that can't, each with why.
    pub refused: Vec<(String, String)>,
}

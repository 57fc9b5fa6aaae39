//! The cluster at one glance: what would happen if a site failed now.

use crate::domains::ClusterDomain;
use crate::links::Link;
use crate::observed::Observed;
use serde::{Deserialize, Serialize};

/// What would happen if one site failed now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteLoss {
    /// The site's domain.
    pub domain: String,
    /// Whether every acknowledged write of every volume would survive.
    pub zero_data_loss: bool,
    /// Whether kvdb would keep its majority, so that the other site can take over.
    pub kvdb_goes_on: bool,
    /// Why not; empty when both are true.
    pub reasons: Vec<String>,
}

/// kvdb in figures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvdbStatus {
    /// The leader's name, as the answering node knows.
    pub leader: Option<String>,
    /// The voters' names.
    pub voters: Vec<String>,
    /// The voters that answer now.
    pub voters_answering: Vec<String>,
    /// How many more voters may be lost before nothing can be committed; none when that is so already.
    pub quorum_margin: Option<u32>,
    /// The domains of which any one may be lost now, with all that is there, and a majority is left. Empty when the next loss ends it. A
    /// domain without a voter that answers is none of them: it has nothing to lose.
    #[serde(default)]
    pub tolerates_loss_of: Vec<String>,
    /// The generation of the cluster: 0, or the number of forced ones with the random id of the last.
    #[serde(default)]
    pub generation: String,
    /// Nodes that were reached and belong to a generation that was forced apart from this one, with theirs.
    #[serde(default)]
    pub strangers: Vec<String>,
}

/// A replica that is being brought back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resync {
    /// The volume's name.
    pub volume: String,
    /// The replica's node.
    pub node: String,
    /// Bytes that need no more work.
    pub done_bytes: u64,
    /// Bytes to bring over in all.
    pub total_bytes: u64,
    /// How fast, in bytes per second; 0 when not known yet.
    pub bytes_per_second: u64,
    /// At that speed; none when not known yet.
    pub seconds_left: Option<u64>,
}

/// The cluster at one glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The cluster's name.
    pub cluster: String,
    /// For each active data domain: what its loss would mean now.
    pub site_loss: Vec<SiteLoss>,
    /// All domains.
    pub domains: Vec<ClusterDomain>,
    /// kvdb.
    pub kvdb: KvdbStatus,
    /// The links between the data domains.
    #[serde(default)]
    pub links: Vec<Link>,
    /// How many volumes there are.
    pub volumes: u32,
    /// How many of them are in sync everywhere.
    pub volumes_in_sync: u32,
    /// What is wrong with volumes: `name: reason; next step`. At most 100 lines.
    pub volume_problems: Vec<String>,
    /// Replicas that are being brought back. At most 100.
    pub resyncs: Vec<Resync>,
    /// Nodes that do not answer.
    pub nodes_silent: Vec<String>,
    /// How far this can be trusted.
    pub observed: Observed,
}

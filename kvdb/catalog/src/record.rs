//! What kvdb keeps: domains, nodes, volumes with their in-sync sets, domain updates and the audit trail.

use isthmus_engine::{DomainId, Epoch, Incarnation, NodeId, ReplicaId, VolumeId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use crate::command::{Answer, RequestId};

/// All that the cluster has agreed on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalog {
    /// The cluster's name and random id, set once by `Form`.
    pub cluster_name: String,
    /// Random id of the cluster, set once by `Form`; 0 before. A node whose store belongs to another id refuses to start.
    pub cluster_id: u64,
    /// The cluster's incarnation: rises when a survivor is forced to go on without quorum. The length of `lineage`.
    pub generation: u32,
    /// The number of applied commands that changed something: the position of the watch stream.
    pub revision: u64,
    /// Cluster domains by id.
    pub domains: BTreeMap<DomainId, DomainRecord>,
    /// Nodes by id.
    pub nodes: BTreeMap<NodeId, NodeRecord>,
    /// Volumes by id. Deleted ones are gone; their ids are never used again.
    pub volumes: BTreeMap<VolumeId, VolumeRecord>,
    /// The id that the next volume gets.
    pub next_volume: u64,
    /// Activations and deactivations, newest last; at most [`Catalog::UPDATES_MAX`].
    pub updates: VecDeque<DomainUpdate>,
    /// Who did what when and why, newest last; at most [`Catalog::AUDIT_MAX`].
    pub audit: VecDeque<AuditRecord>,
    /// Answers of the last requests by id, so that a repeated request is applied once; at most [`Catalog::ANSWERS_MAX`].
    pub answers: VecDeque<(RequestId, Answer)>,
    /// The boot id of the kernel under which each node was started last, where it has said so. Since schema 3.
    pub boots: BTreeMap<NodeId, BootId>,
    /// Of volumes with [`Durability::Flush`]: the members of the last opened set that lost power (their kernel was booted anew) since they
    /// were last known to hold everything acknowledged. As long as another member may have kept it, these are not promoted.
    /// Never empty. Since schema 3.
    pub rebooted: BTreeMap<VolumeId, BTreeSet<ReplicaId>>,
    /// The node on which an orchestrator has a volume in use, where there is one. Since schema 4.
    pub published: BTreeMap<VolumeId, Publication>,
    /// Planned moves of primaries that are under way. Since schema 4.
    pub relocations: BTreeMap<VolumeId, Relocation>,
    /// What the last deactivations of data domains meant for each volume, newest last; at most [`Catalog::FAILOVERS_MAX`]. Since schema 4.
    pub failovers: VecDeque<FailoverReport>,
    /// A digest for each record of `audit`, in their order. Since schema 4; computed where an older catalog is read.
    pub audit_digests: VecDeque<AuditDigest>,
    /// Where the present generation comes from. Since schema 5.
    pub lineage: Lineage,
    /// Volumes whose in-sync set counts no more since a generation was forced, because the survivor may not have heard of its last
    /// changes: nobody is promoted until an operator has named the replica that counts. Since schema 5.
    pub unproven: BTreeSet<VolumeId>,
    /// Ids that volumes may have got which a forced generation has not heard of: from the first to before the second of each pair. A
    /// replica of such a volume was not deleted: it is kept where it is. Since schema 5.
    pub unheard: Vec<(u64, u64)>,
    /// The nodes without a store: they hold no replica and have no vote, and forward their clients to the primaries. Since schema 5.
    pub diskless: BTreeSet<NodeId>,
}

/// The random ids of all forced generations up to the present one; none of the first. A generation descends from another one if its
/// lineage begins with the other's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lineage(pub Vec<u64>);

impl Lineage {
    /// Generations that may be forced.
    pub const MAX: usize = 64;

    /// The generation's number.
    #[must_use]
    pub fn number(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// What tells this generation from all others with the same number; 0 of the first.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.0.last().copied().unwrap_or_default()
    }

    /// Whether this generation was forced from that one, directly or over others.
    #[must_use]
    pub fn descends_from(&self, other: &Lineage) -> bool {
        self.0.len() > other.0.len() && self.0.starts_with(&other.0)
    }

    /// The one that is forced from this one.
    #[must_use]
    pub fn forced(&self, id: u64) -> Lineage {
        let mut ids = self.0.clone();
        ids.push(id);
        Lineage(ids)
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.last() {
            None => write!(out, "0"),
            Some(id) => write!(out, "{}-{id:016x}", self.number()),
        }
    }
}

/// A node has a volume in use: clients come there only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// The node.
    pub node: NodeId,
    /// Whether it only reads.
    pub read_only: bool,
    /// Since when, in ms of wall-clock time since 1970.
    pub since_ms: u64,
}

/// A volume's primary is being moved to a node: the old one sends its clients away and releases the volume, the new one is promoted and
/// waits for clients. Ends when a client has come there, or by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relocation {
    /// Where to.
    pub to: NodeId,
    /// When it was asked for, in ms of wall-clock time since 1970.
    pub since_ms: u64,
}

/// What the deactivation of a data domain meant for the volumes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverReport {
    /// The domain update's name.
    pub name: String,
    /// Which domain was deactivated.
    pub domain: DomainId,
    /// Whether the failover policy did it, not an operator.
    pub automatic: bool,
    /// When, in ms of wall-clock time since 1970.
    pub at_ms: u64,
    /// Volumes for which nothing had to be moved and nothing could be lost, and those that did not fit in `volumes`.
    pub others: u32,
    /// The volumes that had a primary in the domain, or were not in sync; at most [`Catalog::FAILOVER_VOLUMES_MAX`], the worst first.
    pub volumes: Vec<FailoverVolume>,
}

/// What a deactivation meant for one volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverVolume {
    /// Which.
    pub volume: VolumeId,
    /// Its name then.
    pub name: String,
    /// Whether its primary was in the domain.
    pub moved: bool,
    /// Whether its set counted only by the operator's word (`accept_data_loss`): writes may be missing.
    pub lost: bool,
    /// Its epoch before.
    pub epoch: Epoch,
    /// The nodes of its in-sync set before: each of them held every acknowledged write.
    pub in_sync_before: BTreeSet<NodeId>,
    /// The nodes of its in-sync set after.
    pub in_sync_after: BTreeSet<NodeId>,
    /// Since when a replica had been missing before, in ms of wall-clock time since 1970.
    pub unprotected_since_ms: Option<u64>,
    /// The last committed position (its seq) that a member of the set after it knew, as far as it was said.
    pub committed_seq: Option<u64>,
}

/// Chains an audit record to all before it: BLAKE3 of the digest before (zeroes for the first) and the record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditDigest(pub [u8; 32]);

/// Names a run of a machine's kernel: another one after each boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BootId(pub u128);

impl Catalog {
    /// Domain updates kept.
    pub const UPDATES_MAX: usize = 256;
    /// Audit records kept.
    pub const AUDIT_MAX: usize = 4096;
    /// Reports of failovers kept.
    pub const FAILOVERS_MAX: usize = 8;
    /// Volumes that such a report names at most.
    pub const FAILOVER_VOLUMES_MAX: usize = 1000;
    /// Request answers kept for repeats.
    pub const ANSWERS_MAX: usize = 4096;
    /// Domains a cluster may have.
    pub const DOMAINS_MAX: usize = 16;
    /// Nodes a cluster may have.
    pub const NODES_MAX: usize = 256;
    /// Replicas of a volume in one domain at most.
    pub const REPLICAS_PER_DOMAIN_MAX: u8 = 3;
    /// Bytes of a name (of a cluster, domain, node or volume) at most.
    pub const NAME_BYTES_MAX: usize = 63;
    /// Bytes of an address at most.
    pub const ADDRESS_BYTES_MAX: usize = 300;
    /// Bytes of a text for people at most; what is longer is cut.
    pub const TEXT_BYTES_MAX: usize = 512;
    /// Volumes a cluster may have.
    pub const VOLUMES_MAX: usize = 10_000;
    /// Ids of volumes that are passed over when a generation is forced: more than volumes can have been made that it has not heard of.
    pub const IDS_PASSED_OVER: u64 = 1 << 20;
    /// Bytes of a volume at most (256 TiB).
    pub const VOLUME_BYTES_MAX: u64 = 256 << 40;
}

/// What a domain is for: written down, never guessed.
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
    /// Its nodes catch up with kvdb; it still serves nothing and joins no set.
    Activating,
}

/// A cluster domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainRecord {
    /// For people and flags, unique.
    pub name: String,
    /// What it is for.
    pub role: DomainRole,
    /// Where it is in its life.
    pub state: DomainState,
    /// When it came into that state, in ms of wall-clock time since 1970 (for people only).
    pub since_ms: u64,
    /// When it was made, the same way.
    pub created_ms: u64,
}

/// How often a store was started, without what tells two starts of the same count apart.
#[must_use]
pub const fn starts_counted(starts: u64) -> u64 {
    starts & u32::MAX as u64
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// For people and flags, unique.
    pub name: String,
    /// Its domain.
    pub domain: DomainId,
    /// `host:port` where other nodes reach it.
    pub peer_address: String,
    /// `host:port` of its admin API.
    pub api_address: String,
    /// `host:port` of its NBD server; none on a witness.
    pub nbd_address: Option<String>,
    /// The incarnation of its store, once it has registered (I12).
    pub incarnation: Option<Incarnation>,
    /// How often that store was started, in the lower half; in the upper one a random number of that start. A smaller count
    /// means a disk that was rolled back, and so does the same count with another random number.
    pub starts: u64,
}

/// What a volume does when a replica of its set is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnPeerLoss {
    /// Go on with the others after a committed shrink.
    #[default]
    Degrade,
    /// Hold I/O until the peer is back or its domain is deactivated.
    Suspend,
}

/// What an acknowledgement means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// On stable storage at every member.
    #[default]
    Acknowledged,
    /// Held by every member's kernel; FLUSH and FUA make it durable.
    Flush,
}

/// What an operator chose for a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumePolicy {
    /// What happens when a replica is lost.
    pub on_peer_loss: OnPeerLoss,
    /// What an acknowledgement means.
    pub durability: Durability,
    /// The domain that should go on when only the link between the sites is cut.
    pub preferred_domain: Option<DomainId>,
}

/// How the last primary's rights ended, which says how long the next one has to wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Handover {
    /// It gave them back itself, or its process is known to be gone: no wait.
    #[default]
    Released,
    /// It was taken away: every grant of lower epochs must run out first.
    Taken,
}

/// A volume and its replicated configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// For people, flags and NBD export names, unique.
    pub name: String,
    /// Its size in bytes: a multiple of 4096.
    pub bytes: u64,
    /// Its logical block size in bytes: 512 or 4096.
    pub block_bytes: u32,
    /// When it was made, in ms of wall-clock time since 1970.
    pub created_ms: u64,
    /// What its operator chose.
    pub policy: VolumePolicy,
    /// The configuration number; rises with every change of `primary` or `in_sync`.
    pub epoch: Epoch,
    /// Who orders and serves I/O now; none while nobody is attached.
    pub primary: Option<ReplicaId>,
    /// Whether `in_sync` is the set that counts, because its primary has reconciled it and committed that (I3). Only then
    /// may the primary serve. Cleared by a promotion; shrink, growth, release and loss of the primary keep it. While it
    /// is set, `opened_set` equals `in_sync`.
    pub opened: bool,
    /// The replicas known to hold every acknowledged write. Never empty; holds `primary`; a part of `opened_set`.
    pub in_sync: BTreeSet<ReplicaId>,
    /// The set of the last opened epoch: where a promotion that never opened may go back to (I3).
    pub opened_set: BTreeSet<ReplicaId>,
    /// The set of the last primary that opened the volume, i.e. whose grants the next one has to see out: a replica in it that has taken a
    /// higher epoch has promised nothing to that primary any more, and without that promise it serves nothing.
    pub granted_set: BTreeSet<ReplicaId>,
    /// The replicas that hold the volume whole, as it is or as it once was: those in the set, and those that have left an opened one and
    /// have not begun to copy since. Only these can serve where the operator accepts a loss: a replica half way through a copy holds a
    /// mixture that never was.
    pub complete: BTreeSet<ReplicaId>,
    /// How the last primary's rights ended.
    pub handover: Handover,
    /// Whether a primary has ever opened the volume. While none has, every replica is empty, and so whole.
    pub served: bool,
    /// The nodes that hold a replica.
    pub replicas: BTreeSet<NodeId>,
    /// Since when a domain that holds replicas has none in the in-sync set, in ms of wall-clock time; none while each has one.
    pub unprotected_since_ms: Option<u64>,
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdateStatus {
    /// Asked for, not begun.
    Pending,
    /// Under way.
    InProgress,
    /// Done; a deactivation also has its proof that the domain's nodes can serve no more.
    Successful,
    /// Given up, with the reason.
    Failed(String),
}

/// One activation or deactivation of a domain: a recorded plan, resumed by whichever node leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainUpdate {
    /// Unique, for people: `<domain>-<action>-<number>`.
    pub name: String,
    /// Which domain.
    pub domain: DomainId,
    /// Which way.
    pub action: UpdateAction,
    /// How far.
    pub status: UpdateStatus,
    /// When it was asked for, in ms of wall-clock time since 1970.
    pub created_ms: u64,
    /// What it proved or what it waits for, for people.
    pub detail: String,
}

/// One line of the audit trail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// The catalog's revision after it.
    pub revision: u64,
    /// Wall-clock time in ms since 1970, as the asking node had it.
    pub at_ms: u64,
    /// Who asked.
    pub who: String,
    /// Why.
    pub why: String,
    /// What was done, for people.
    pub what: String,
}

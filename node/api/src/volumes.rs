//! Volumes and their replicas.

use crate::domains::SyncStatus;
use crate::nodes::DiskState;
use crate::observed::Observed;
use serde::{Deserialize, Serialize};

/// What a volume does when a replica of its in-sync set is lost.
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

/// Whether a volume answers its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceState {
    /// No client is attached, nobody is primary.
    Idle,
    /// A primary was chosen and reconciles; I/O waits.
    Opening,
    /// I/O is answered.
    Serving,
    /// A client is attached and I/O waits; `reason` says for what.
    Frozen,
    /// A fault on its replicas keeps it from serving; `reason` says which.
    Stopped,
    /// The primary's node does not answer.
    Unknown,
}

/// How one replica stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state")]
pub enum ReplicaState {
    /// It holds every acknowledged write.
    InSync,
    /// It is being brought back.
    Resyncing {
        /// Bytes that need no more work.
        done_bytes: u64,
        /// Bytes to bring over in all.
        total_bytes: u64,
        /// How fast, in bytes per second; 0 when not known yet.
        bytes_per_second: u64,
        /// At that speed; none when not known yet.
        seconds_left: Option<u64>,
    },
    /// It lacks acknowledged writes, and nobody brings them.
    NotInSync {
        /// Since when, in ms since 1970; none when not known.
        since_ms: Option<u64>,
        /// How much it lacks at most; none when the volume's primary does not say.
        dirty_bytes: Option<u64>,
    },
    /// Nobody who would know answers.
    Unknown,
}

/// One full copy of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// Its node's name.
    pub node: String,
    /// Its node's domain.
    pub domain: String,
    /// Whether its node orders and serves the volume's I/O.
    pub primary: bool,
    /// How it stands.
    #[serde(flatten)]
    pub state: ReplicaState,
    /// When its node was last heard, in ms since 1970; none when never since the answering node started.
    pub observed_at_ms: Option<u64>,
    /// What is wrong with it; empty when nothing is.
    pub reason: String,
    /// Its disk, as its own node says; nothing is wrong with it where that does not answer.
    #[serde(flatten)]
    pub disk: DiskState,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its name, which is also its NBD export's.
    pub name: String,
    /// Its number, never used again.
    pub id: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its logical block size in bytes.
    pub block_bytes: u32,
    /// When it was made, in ms since 1970.
    pub created_ms: u64,
    /// What happens when a replica is lost.
    pub on_peer_loss: OnPeerLoss,
    /// What an acknowledgement means.
    pub durability: Durability,
    /// The domain that goes on when only the link between the sites is cut.
    pub preferred_domain: Option<String>,
    /// Its configuration number.
    pub epoch: String,
    /// Whether its clients are answered.
    pub service: ServiceState,
    /// Whether all its replicas hold every acknowledged write.
    pub sync_status: SyncStatus,
    /// The primary's node, if any.
    pub primary: Option<String>,
    /// The nodes whose replicas hold every acknowledged write.
    pub in_sync: Vec<String>,
    /// All replicas.
    pub replicas: Vec<Replica>,
    /// Since when its in-sync set lacks a replica, in ms since 1970; none while all are in it.
    pub unprotected_since_ms: Option<u64>,
    /// The nodes on which an orchestrator has it in use: where there is one, clients come there only.
    #[serde(default)]
    pub published: Vec<Published>,
    /// Where its primary is being moved; none while it is not.
    #[serde(default)]
    pub relocating: Option<Relocating>,
    /// `nbd://` addresses where it may be opened now.
    pub nbd: Vec<String>,
    /// Why it is not simply serving (or idle) and in sync; empty when it is.
    pub reason: String,
    /// What to do about it; empty when there is nothing.
    pub next: String,
}

/// A node has a volume in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The node's name.
    pub node: String,
    /// Since when, in ms since 1970.
    pub since_ms: u64,
    /// Whether it only reads.
    pub read_only: bool,
}

/// A volume's primary is being moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relocating {
    /// To which node.
    pub to: String,
    /// Since when, in ms since 1970.
    pub since_ms: u64,
}

/// Asks for a volume to be made larger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpandVolume {
    /// Its size from now on: a multiple of 4096, not less than now.
    pub bytes: u64,
}

/// Asks for what was chosen for a volume to be changed, where something is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChangePolicy {
    /// What happens when a replica is lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_peer_loss: Option<OnPeerLoss>,
    /// What an acknowledgement means. `flush` can't be taken back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durability: Option<Durability>,
    /// The domain that goes on when only the link between the sites is cut; null for none.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub preferred_domain: Option<Option<String>>,
}

/// Something is given, even if that is null.
fn given<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<String>>, D::Error> {
    Option::<String>::deserialize(deserializer).map(Some)
}

/// An orchestrator will use a volume on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishVolume {
    /// The node's name.
    pub node: String,
    /// Whether it only reads.
    #[serde(default)]
    pub read_only: bool,
}

/// An orchestrator uses a volume on a node no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnpublishVolume {
    /// The node's name.
    pub node: String,
}

/// Asks for a volume's primary to be moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relocate {
    /// The name of a data domain, or of a node.
    pub to: String,
}

/// All volumes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeList {
    /// The volumes in the order of their names.
    pub items: Vec<Volume>,
    /// How far this can be trusted.
    pub observed: Observed,
}

/// Asks for a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateVolume {
    /// 1 to 63 of `a-z 0-9 . _ -`, beginning with a letter or digit.
    pub name: String,
    /// More than 0, a multiple of 4096.
    pub bytes: u64,
    /// 512 or 4096.
    #[serde(default = "default_block_bytes")]
    pub block_bytes: u32,
    /// What happens when a replica is lost.
    #[serde(default)]
    pub on_peer_loss: OnPeerLoss,
    /// What an acknowledgement means.
    #[serde(default)]
    pub durability: Durability,
    /// The domain that goes on when only the link between the sites is cut.
    #[serde(default)]
    pub preferred_domain: Option<String>,
    /// Replicas in each data domain, each on a node of its own: 1 to 3.
    #[serde(default = "default_replicas_per_domain")]
    pub replicas_per_domain: u8,
}

const fn default_replicas_per_domain() -> u8 {
    1
}

/// A node is to hold a replica of a volume, too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddReplica {
    /// The node's name.
    pub node: String,
}

const fn default_block_bytes() -> u32 {
    4096
}

/// A volume was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeCreated {
    /// Its name.
    pub name: String,
    /// Its number.
    pub id: u64,
}

/// A volume was deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeDeleted {
    /// Its name.
    pub name: String,
}

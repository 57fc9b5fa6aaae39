//! Nodes: as the cluster knows them, and what each says about itself.

use crate::domains::DomainState;
use crate::links::LinkRuntime;
use crate::observed::Observed;
use serde::{Deserialize, Serialize};

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeRole {
    /// Holds replicas.
    Data,
    /// Only votes.
    Witness,
    /// Holds nothing and never votes: forwards its clients to the volumes' primaries.
    Diskless,
}

impl NodeRole {
    /// The word that people and tools see.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            NodeRole::Data => "data",
            NodeRole::Witness => "witness",
            NodeRole::Diskless => "diskless",
        }
    }
}

/// A node as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its number.
    pub id: u32,
    /// Its domain's name.
    pub domain: String,
    /// What it is.
    pub role: NodeRole,
    /// Its domain's state.
    pub domain_state: DomainState,
    /// Where other nodes reach it.
    pub peer_address: String,
    /// Where its admin API is.
    pub api_address: String,
    /// Where its NBD server is; none on a witness.
    pub nbd_address: Option<String>,
    /// The incarnation of its store, in hex; none before its first start.
    pub incarnation: Option<String>,
    /// How often that store was started.
    pub starts: u64,
    /// Whether it has a vote in kvdb.
    pub voter: bool,
    /// Whether it leads kvdb.
    pub leader: bool,
    /// Whether it answered just now.
    pub answers: bool,
    /// When it was last heard, in ms since 1970; none when never since the answering node started.
    pub observed_at_ms: Option<u64>,
    /// Round trip from the answering node, in microseconds; none when not known.
    pub round_trip_us: Option<u64>,
    /// Bytes of the file system that holds its data directory; left out where they are not known, as when it does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_bytes_total: Option<u64>,
    /// Of these, how many it may still fill.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_bytes_free: Option<u64>,
    /// What is wrong; empty when nothing is.
    pub reason: String,
    /// What to do about it; empty when there is nothing.
    pub next: String,
}

/// All nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeList {
    /// The nodes in the order of their ids.
    pub items: Vec<Node>,
    /// How far this can be trusted.
    pub observed: Observed,
}

/// A node is no member any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRemoved {
    /// Its name.
    pub name: String,
}

/// kvdb as one node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvdbView {
    /// The id of the node that leads, as this node knows.
    pub leader: Option<u32>,
    /// The Raft term.
    pub term: u64,
    /// The ids of the voters, as this node knows.
    pub voters: Vec<u32>,
    /// The catalog's revision that this node has applied.
    pub revision: u64,
    /// The generation of the cluster that this node belongs to: 0, or the number of forced ones with the random id of the last.
    #[serde(default)]
    pub generation: String,
    /// Nodes that this one has reached, and which belong to a generation that was forced apart from its own: their ids, with theirs.
    #[serde(default)]
    pub strangers: Vec<(u32, String)>,
}

/// What a node says about itself, and about the volumes of which it holds a replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRuntime {
    /// Its id.
    pub node: u32,
    /// Its name.
    pub name: String,
    /// The program's version.
    pub version: String,
    /// The incarnation of its store, in hex.
    pub incarnation: String,
    /// How often its store was started.
    pub starts: u64,
    /// How long it runs, in seconds.
    pub uptime_seconds: u64,
    /// When it said this, in ms since 1970 by its own clock.
    pub observed_at_ms: u64,
    /// kvdb as it sees it.
    pub kvdb: KvdbView,
    /// Its host has acted on the catalog up to this revision: no volume of it serves by an older one, and it renews no grant
    /// to a primary that was replaced by then.
    pub acted_on_revision: u64,
    /// Its replicas, in the order of their volumes' ids.
    pub volumes: Vec<VolumeRuntime>,
    /// The ids of the nodes with which it has a session now; none where its version does not say.
    #[serde(default)]
    pub sessions: Option<Vec<u32>>,
    /// Only on the node that leads kvdb: what each domain update in progress waits for, by the update's name.
    #[serde(default)]
    pub updates_waiting: Vec<(String, String)>,
    /// Its links to the other nodes, in the order of their ids.
    #[serde(default)]
    pub links: Vec<LinkRuntime>,
    /// Bytes of the file system that holds its data directory; left out where its disk does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_bytes_total: Option<u64>,
    /// Of these, how many it may still fill.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_bytes_free: Option<u64>,
}

/// What a node's replica does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumeRole {
    /// Nothing: nobody is primary, or it is outside the set.
    Idle,
    /// It mirrors.
    Secondary,
    /// It was chosen and reconciles; it does not serve yet.
    Opening,
    /// It orders and serves I/O.
    Primary,
    /// It is primary and its I/O waits; `reason` says for what.
    Frozen,
    /// Its disk does not let it take part; `fault` says why.
    Unable,
    /// A fault stopped it; `reason` says which.
    Stopped,
}

/// What kind of fault keeps a replica from taking part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FaultKind {
    /// Its disk is full. It comes back by itself when there is space.
    Full,
    /// Its disk fails, or is read-only. It comes back when its node is started again on a disk that works.
    Failing,
    /// Records of it were lost. It comes back by itself, compared whole, once the in-sync set is without it.
    Lost,
}

/// Why a replica can't take part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaFault {
    /// What kind.
    pub kind: FaultKind,
    /// In words, with what to do.
    pub reason: String,
    /// Since when, in ms since 1970.
    pub since_ms: u64,
}

/// What a replica's disk has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskState {
    /// Blocks found bad and not yet repaired or overwritten.
    #[serde(default)]
    pub bad_blocks: u64,
    /// Blocks found bad since its node was started.
    #[serde(default)]
    pub checksum_errors: u64,
    /// Of these, repaired from a peer.
    #[serde(default)]
    pub repaired_blocks: u64,
    /// Why it can't take part; none when it can.
    #[serde(default)]
    pub fault: Option<ReplicaFault>,
    /// Since when writes that need space are refused, in ms since 1970; none while they are not.
    #[serde(default)]
    pub short_of_space_since_ms: Option<u64>,
}

/// One replica, as its own node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRuntime {
    /// The volume's id.
    pub volume: u64,
    /// The highest epoch that the replica has durably seen: (generation, number).
    pub epoch: (u32, u32),
    /// What it does.
    pub role: VolumeRole,
    /// Whether it may still answer a client under any epoch: false is a promise, and part of the proof of a fence.
    pub may_serve: bool,
    /// The committed position's seq that it knows.
    pub committed_seq: u64,
    /// The epoch under which the last record that it holds was ordered: (generation, number). Seqs of different epochs can't be compared.
    #[serde(default)]
    pub last_epoch: (u32, u32),
    /// The seq of that record.
    #[serde(default)]
    pub last_seq: u64,
    /// Whether its blocks are those of one moment: false while, and after, it was copied over in part.
    #[serde(default)]
    pub whole: bool,
    /// Clients attached.
    pub clients: u32,
    /// Whether a client has come since the volume is being moved here.
    #[serde(default)]
    pub welcomed: bool,
    /// Only from a primary: the replicas outside the set.
    #[serde(default)]
    pub absent: Vec<ReplicaProgress>,
    /// Bytes of blocks that travelled for resync, to or from this replica, since its node was started.
    #[serde(default)]
    pub moved_bytes: u64,
    /// What it waits for, or what stopped it; empty when nothing.
    #[serde(default)]
    pub reason: String,
    /// Since when its clients' requests can't be answered, in ms since 1970; none when they can.
    #[serde(default)]
    pub frozen_since_ms: Option<u64>,
    /// The grants that something waits for: of a frozen primary those that it has, over or not; of a replica that hears its primary no more the
    /// one that it gave.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<Grant>,
    /// Its disk.
    #[serde(flatten)]
    pub disk: DiskState,
}

/// A promise not to let another primary serve before it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The node whose promise it is; none for kvdb's.
    pub from: Option<u32>,
    /// The primary's node.
    pub to: u32,
    /// How long it still holds, in ms; 0 when it is over.
    pub ends_in_ms: u64,
}

/// A replica outside the set, as the volume's primary sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaProgress {
    /// The replica's node id.
    pub node: u32,
    /// Whether it is being brought back now.
    pub resyncing: bool,
    /// Bytes that it may lack (all of its dirty map).
    pub dirty_bytes: u64,
    /// Bytes that need no more work, of `total_bytes`; 0 when not resyncing.
    pub done_bytes: u64,
    /// Bytes to bring over in all; 0 when not resyncing.
    pub total_bytes: u64,
    /// How fast, in bytes per second; 0 when not known.
    pub bytes_per_second: u64,
    /// Since when it is outside, in ms since 1970.
    pub since_ms: Option<u64>,
}

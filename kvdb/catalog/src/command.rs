//! What may be asked of the catalog, and how it answers.

use isthmus_engine::{DomainId, Epoch, Incarnation, NodeId, ReplicaId, VolumeId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

use crate::record::{BootId, DomainRecord, Durability, NodeRecord, OnPeerLoss, VolumePolicy};

/// Names a request, so that a repeat of it is applied once: random per client process, then counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId {
    /// Random number of the asking process.
    pub client: u64,
    /// Counts its requests.
    pub number: u64,
}

/// Who asks, why and when: kept in the audit trail for what an operator asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// A node's name, or `operator`.
    pub who: String,
    /// In words; may be empty.
    pub why: String,
    /// Wall-clock time of the asking node in ms since 1970.
    pub at_ms: u64,
}

/// A command with its id and cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// For applying it once.
    pub id: RequestId,
    /// For the audit trail.
    pub cause: Cause,
    /// What to do.
    pub command: Command,
}

/// What may be done. Every command is checked against the state it finds: commands about a volume's configuration
/// compare and set on its epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Sets up an empty catalog: the cluster's name, id, domains and nodes. Repeating it with the same id is fine.
    Form {
        /// The cluster's name.
        cluster_name: String,
        /// Its random id, not 0.
        cluster_id: u64,
        /// All domains.
        domains: Vec<(DomainId, DomainRecord)>,
        /// All nodes.
        nodes: Vec<(NodeId, NodeRecord)>,
    },
    /// A node's process has started on a store (I12). Refused when the start count of a known incarnation went back.
    /// A new incarnation leaves its old replicas behind: they leave every in-sync set (epochs rise), but a set is never
    /// emptied: a volume whose only in-sync replica is lost keeps it, and can't be promoted. Ends the primary rights of the node's earlier
    /// process, which is known to be gone (`Handover::Released`), without a new epoch: the next promotion makes it.
    NodeStarted {
        /// Which node.
        node: NodeId,
        /// Of its store.
        incarnation: Incarnation,
        /// Of its store, this start included; with this start's random number in the upper half.
        starts: u64,
    },
    /// Makes a thin volume with one replica in each data domain (on the node with the lowest id there that has
    /// registered and the fewest replicas), all of them in sync (all are empty).
    CreateVolume {
        /// Its name: 1 to 63 of `a-z 0-9 . _ -`, beginning with a letter or digit.
        name: String,
        /// Its size in bytes: more than 0, a multiple of 4096, at most `Catalog::VOLUME_BYTES_MAX`.
        bytes: u64,
        /// 512 or 4096.
        block_bytes: u32,
        /// What its operator chose.
        policy: VolumePolicy,
    },
    /// Deletes a volume that has no primary.
    DeleteVolume {
        /// Which.
        volume: VolumeId,
    },
    /// Makes `candidate` the volume's primary, under a new epoch, not opened yet. Refused when another is primary, when the
    /// candidate is not in the set that counts (`in_sync`; before `opened`, `opened_set` less inactive domains), or its
    /// domain is not active.
    Promote {
        /// Which volume.
        volume: VolumeId,
        /// The epoch that the candidate saw.
        expected: Epoch,
        /// Who wants to be primary.
        candidate: ReplicaId,
    },
    /// The primary of exactly this epoch has reconciled its set, and serves.
    Opened {
        /// Which volume.
        volume: VolumeId,
        /// The epoch that it opens.
        epoch: Epoch,
        /// Its primary.
        primary: ReplicaId,
    },
    /// The primary of exactly this epoch takes replicas out of the set (new epoch). It can't take itself out.
    Shrink {
        /// Which volume.
        volume: VolumeId,
        /// The epoch that the primary serves or opens.
        epoch: Epoch,
        /// Its primary.
        primary: ReplicaId,
        /// Who leaves.
        leaving: BTreeSet<ReplicaId>,
    },
    /// The primary of exactly this epoch is about to copy over a replica that is not in the set: from now on, and until it is in
    /// the set again, the replica is not complete. Refused for a replica in the set. The epoch stays.
    BeginCopy {
        /// Which volume.
        volume: VolumeId,
        /// The epoch that the primary serves.
        epoch: Epoch,
        /// Its primary.
        primary: ReplicaId,
        /// Who is copied to.
        joining: ReplicaId,
    },
    /// The primary of exactly this epoch adds a replica to the set (new epoch). Refused when the replica's domain is not
    /// active, its node has no replica of the volume, or its incarnation is not the node's registered one.
    Grow {
        /// Which volume.
        volume: VolumeId,
        /// The epoch that the primary serves.
        epoch: Epoch,
        /// Its primary.
        primary: ReplicaId,
        /// Who joins.
        joining: ReplicaId,
    },
    /// The primary of exactly this epoch starts a new epoch with the same set, which leaves an asked-for joiner out (I6).
    Renew {
        /// Which volume.
        volume: VolumeId,
        /// The epoch that the primary serves.
        epoch: Epoch,
        /// Its primary.
        primary: ReplicaId,
    },
    /// The primary of exactly this epoch serves no more and has given every grant back: nobody is primary now.
    /// The epoch stays, `handover` becomes `Released`, and `in_sync` stays the set that counts. A primary that never opened
    /// gives its promotion up the same way; `handover` and `granted_set` then still speak of the primary before it.
    Release {
        /// Which volume.
        volume: VolumeId,
        /// The epoch that it served.
        epoch: Epoch,
        /// Its primary.
        primary: ReplicaId,
    },
    /// First step of a deactivation: the domain is `Deactivating`, its replicas leave every set, primaries in it end
    /// (`Handover::Taken`), epochs of *all* volumes rise (I6). Refused for an unknown domain, the last active data domain, or
    /// when a volume would be left without an in-sync replica on a node in `answering` (in an active domain, not in this one),
    /// unless `accept_data_loss`: then such a volume's set becomes all its complete replicas that answer in the other active
    /// domains (none is known to be better), which the audit trail says; if none answers, its set keeps what it can. A witness
    /// domain holds no replicas: no volume changes. A deactivation that failed may be asked for again.
    Deactivate {
        /// Which domain.
        domain: DomainId,
        /// The nodes that answer now, as the asking node knows.
        answering: BTreeSet<NodeId>,
        /// The operator's word that what only this domain holds may be lost.
        accept_data_loss: bool,
    },
    /// Last step of a deactivation: no node of the domain can serve any more; votes have moved.
    Deactivated {
        /// Which domain.
        domain: DomainId,
        /// The proof, for people.
        proof: String,
    },
    /// First step of an activation: the domain is `Activating`. Only from `Inactive`, or when its deactivation has failed.
    Activate {
        /// Which domain.
        domain: DomainId,
    },
    /// Last step of an activation: its nodes have caught up and votes have moved: the domain is `Active`.
    Activated {
        /// Which domain.
        domain: DomainId,
    },
    /// A domain update can't go on: recorded as failed. The domain goes the safe way, which never serves: an activation
    /// goes back to `Inactive`; a deactivation stays `Deactivating` (its replicas are out of every set, but that none of its
    /// nodes serves is not proven), from where it may be deactivated again or activated.
    UpdateFailed {
        /// Which domain.
        domain: DomainId,
        /// Why.
        reason: String,
    },
    /// Changes nothing; proves that the asker reaches the leader.
    Nothing,
    /// As `NodeStarted`, by a process that says under which boot of its kernel it runs. If that is another one than at the node's last
    /// start, its replicas of `flush` volumes may lack what they held: those volumes get a new epoch, and the replica, if it is in
    /// the last opened set, counts as rebooted. When all of that set are, none is any more.
    NodeStartedIn {
        /// Which node.
        node: NodeId,
        /// Of its store.
        incarnation: Incarnation,
        /// As in `NodeStarted`.
        starts: u64,
        /// Its kernel's.
        boot: BootId,
    },
    /// The primary of exactly this epoch says that rebooted members hold all that was acknowledged again. The epoch stays.
    CaughtUp {
        /// Which volume.
        volume: VolumeId,
        /// The epoch that the primary serves.
        epoch: Epoch,
        /// Its primary.
        primary: ReplicaId,
        /// Who.
        replicas: BTreeSet<ReplicaId>,
    },
    /// Makes a volume larger, on all replicas, also on those that are away: each takes the new size when it hears of it.
    ExpandVolume {
        /// Which volume.
        volume: VolumeId,
        /// Its size in bytes from now on: as in `CreateVolume`, and not less than now.
        bytes: u64,
    },
    /// Changes what an operator chose for a volume, where something is given. `Flush` can't be taken back: what was acknowledged under it
    /// may be in a kernel's memory still.
    ChangePolicy {
        /// Which volume.
        volume: VolumeId,
        /// What happens when a replica is lost.
        on_peer_loss: Option<OnPeerLoss>,
        /// What an acknowledgement means.
        durability: Option<Durability>,
        /// The domain that should go on when only the link between the sites is cut: given, and perhaps none.
        preferred_domain: Option<Option<DomainId>>,
    },
    /// An orchestrator will use the volume on this node: clients come there only. Refused while it is published to another node, unless
    /// that one's domain is inactive (which is proven), or another node is primary already. The node holds a replica, or is diskless; in an
    /// active domain.
    Publish {
        /// Which volume.
        volume: VolumeId,
        /// Where.
        node: NodeId,
        /// Whether it only reads there.
        read_only: bool,
    },
    /// The orchestrator uses the volume there no more. Refused while that node may still serve a client: it is primary and not said to be
    /// idle, or its domain is being deactivated. For a diskless node: while there is a primary that is not said to be idle. Not published
    /// there: fine.
    Unpublish {
        /// Which volume.
        volume: VolumeId,
        /// Where.
        node: NodeId,
        /// The node says that it has no client of the volume (it may be primary to bring another replica back); of a diskless node, the
        /// volume's primary says so.
        idle: bool,
    },
    /// Moves the primary of a volume to a node whose replica is in sync, in an active domain. Refused for a volume that is published to
    /// another node.
    Relocate {
        /// Which volume.
        volume: VolumeId,
        /// Where to.
        to: NodeId,
    },
    /// A move is over: a client has come, or nobody came in time.
    EndRelocation {
        /// Which volume.
        volume: VolumeId,
        /// Where it was moved to.
        to: NodeId,
    },
    /// `Deactivate` by the failover policy: without any loss, or refused.
    FailOver {
        /// Which domain.
        domain: DomainId,
        /// The nodes that answer now, as the asking node knows.
        answering: BTreeSet<NodeId>,
    },
    /// The positions that the survivors of a failover know as committed, for its report.
    NoteFailover {
        /// The domain update's name.
        name: String,
        /// By volume: the seq.
        positions: Vec<(VolumeId, u64)>,
    },
    /// A survivor goes on without the others, by the operator's word that these serve nothing: every epoch rises into the new
    /// generation, nobody is primary, and no set counts until a replica is named for it. Never proposed: the survivor applies it alone,
    /// to what it holds of the catalog, and that is what the new generation begins with.
    ForceGeneration {
        /// Random, not 0.
        id: u64,
    },
    /// The replica that counts of a volume whose set is unproven, by the operator's word: the set is this one alone, whatever others
    /// hold beyond it. It says of itself that it holds the volume whole. Its domain is active.
    NameReplica {
        /// Which volume.
        volume: VolumeId,
        /// Which of its replicas.
        replica: ReplicaId,
    },
    /// A node without a store is a member: it forwards its clients to the primaries, holds no replica and never votes. In a data domain. Said
    /// again with other addresses, it has these from then on. Refused for the id or the name of another node.
    AddDiskless {
        /// Its number.
        node: NodeId,
        /// Its name, domain and addresses.
        record: Box<NodeRecord>,
    },
    /// As `CreateVolume`, with more than one replica in each data domain: each on a node of its own.
    CreateVolumeWith {
        /// As in `CreateVolume`.
        name: String,
        /// As in `CreateVolume`.
        bytes: u64,
        /// As in `CreateVolume`.
        block_bytes: u32,
        /// As in `CreateVolume`.
        policy: VolumePolicy,
        /// 1 to `Catalog::REPLICAS_PER_DOMAIN_MAX`.
        replicas_per_domain: u8,
    },
    /// A node is to hold a replica of a volume, too (new epoch): a node with a store in a data domain. It is not in the set before a primary has brought it
    /// in sync. It has one already: fine.
    AddReplica {
        /// Which volume.
        volume: VolumeId,
        /// Where.
        node: NodeId,
    },
    /// A node is to hold no replica of a volume any more (new epoch): it leaves every set, and what it holds is removed. Refused for the
    /// primary, where the volume is published, and unless another replica in the same domain is in sync and on a node in `answering`; one that
    /// never held anything whole needs only to have another one beside it.
    RemoveReplica {
        /// Which volume.
        volume: VolumeId,
        /// Where.
        node: NodeId,
        /// The nodes that answer now and whose replicas of the volume are whole and able to serve, as the asking node knows.
        answering: BTreeSet<NodeId>,
    },
    /// As `AddDiskless`, for a node with a store that was not there when the cluster was formed. It registers like all others
    /// (`NodeStartedIn`), and may then hold replicas and vote.
    AddNode {
        /// Its number.
        node: NodeId,
        /// Its name, domain and addresses.
        record: Box<NodeRecord>,
    },
    /// A node is no member any more. Refused while it holds a replica, a volume is published there, or it is the last one with a store in
    /// its domain.
    RemoveNode {
        /// Which.
        node: NodeId,
    },
}

/// The answer to a request: what it made, or why it was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Done.
    Done,
    /// The volume that was made.
    Volume(VolumeId),
    /// The volume's epoch after the command.
    Epoch(Epoch),
    /// The name of the domain update that was recorded.
    Update(String),
    /// Refused; nothing has changed.
    Refused(Refusal),
}

/// Why a command was refused. Its text says what, why and what to do next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The cluster has no members yet.
    #[error(
        "the cluster is not formed yet: start its nodes and wait until they have elected a leader"
    )]
    NotFormed,
    /// The cluster was formed with another id.
    #[error("the store belongs to another cluster (id {0:016x})")]
    OtherCluster(u64),
    /// The disk's start count went back: it was rolled back or copied.
    #[error(
        "the store of node {node} was started {theirs} times, the cluster has seen {ours}, the last one not by this store: its disk was rolled back or copied; empty its data directory, so that it comes back as a new replica"
    )]
    RolledBack {
        /// Which node.
        node: NodeId,
        /// Starts that kvdb has seen.
        ours: u64,
        /// Starts that the store counts.
        theirs: u64,
    },
    /// No such node.
    #[error("node {0} is not a member of the cluster")]
    UnknownNode(NodeId),
    /// No such domain.
    #[error("provided cluster domain {0} not found")]
    UnknownDomain(DomainId),
    /// No such volume.
    #[error("volume {0} does not exist")]
    UnknownVolume(VolumeId),
    /// A name is taken.
    #[error("volume {0} exists already")]
    VolumeExists(String),
    /// A value is out of its bounds.
    #[error("{0}")]
    Invalid(String),
    /// Too few nodes to place replicas.
    #[error("no node with a store has registered in domain {0} yet: start it, then try again")]
    NoNode(String),
    /// The volume's configuration has moved on.
    #[error("the volume is at epoch {ours}, the request was for epoch {theirs}")]
    StaleEpoch {
        /// The volume's.
        ours: Epoch,
        /// The request's.
        theirs: Epoch,
    },
    /// Another replica is primary.
    #[error("replica {0} is primary")]
    OtherPrimary(ReplicaId),
    /// The asker is not the volume's primary (any more).
    #[error("replica {0} is not the volume's primary")]
    NotPrimary(ReplicaId),
    /// The replica is not in the set that counts.
    #[error("replica {0} is not in the volume's in-sync set")]
    NotInSync(ReplicaId),
    /// Nobody has said yet which replica counts in this generation.
    #[error(
        "volume {0} is unproven since a new generation was forced: name the replica that counts with: domain-ctl recover volume {0} --from NODE"
    )]
    Unproven(String),
    /// There is nothing to say about which replica counts.
    #[error("volume {0} is not unproven: its in-sync set counts, and needs no word")]
    Proven(String),
    /// The volume is in use.
    #[error("volume {0} is attached: disconnect its clients first")]
    InUse(String),
    /// The domain's state forbids it.
    #[error("cluster domain {name} is {state}")]
    DomainState {
        /// Its name.
        name: String,
        /// Its state, in words.
        state: String,
    },
    /// It is the last active data domain.
    #[error("cluster domain {0} is the last active data domain: activate another one first")]
    LastDataDomain(String),
    /// Volumes would lose their only in-sync replica (the first [`Refusal::VOLUMES_MAX`] are named).
    #[error("deactivating {domain} would leave these volumes without an in-sync replica that answers: {}; bring another replica in sync first, or accept the loss with --accept-data-loss", volumes.join(", "))]
    WouldLose {
        /// The domain's name.
        domain: String,
        /// The volumes' names.
        volumes: Vec<String>,
    },
    /// The replica lost power, and may lack acknowledged writes that another member has.
    #[error(
        "the machine of replica {0} was booted anew: the replica may lack writes that another in-sync replica holds, and has to catch up with that one first"
    )]
    Rebooted(ReplicaId),
    /// A volume does not shrink.
    #[error(
        "volume {name} has {bytes} bytes: it can be made larger, not smaller ({wanted} were asked for)"
    )]
    WouldShrink {
        /// Its name.
        name: String,
        /// Its size.
        bytes: u64,
        /// What was asked for.
        wanted: u64,
    },
    /// Durability can't be made stronger in place.
    #[error(
        "volume {0} has durability flush: what was acknowledged so far may be in memory only, so it can't be called durable now; make a new volume and copy it"
    )]
    StaysFlush(String),
    /// An orchestrator uses the volume on another node.
    #[error(
        "volume {volume} is published to node {node}, and it is not proven that this node can't serve it"
    )]
    Published {
        /// Its name.
        volume: String,
        /// That node's name.
        node: String,
    },
    /// A node may still serve a volume.
    #[error("node {node} may still serve volume {volume}")]
    MayServe {
        /// The volume's name.
        volume: String,
        /// The node's name.
        node: String,
    },
    /// The node has no replica of the volume.
    #[error("node {node} holds no replica of volume {volume}: choose one of {}", holders.join(", "))]
    NoReplica {
        /// The volume's name.
        volume: String,
        /// The node's name.
        node: String,
        /// The names of the nodes that hold one.
        holders: Vec<String>,
    },
}

impl Refusal {
    /// Volumes that a refusal names at most; the last line then counts the others.
    pub const VOLUMES_MAX: usize = 100;
}

//! The admin API's types, as JSON: what `isthmusd` answers and what `domain-ctl` (and any other client) sends.
//!
//! Times are milliseconds of wall-clock time since 1970 (`*_ms`), for people; sizes are bytes. Whatever can be old says in
//! [`Observed`] or in an `observed_at_ms` when it was seen, and whatever is wrong says why (`reason`) and what to do (`next`).
//!
//! Reading order: [`observed`], [`domains`], [`volumes`], [`nodes`], [`links`], [`status`], [`explain`],
//! [`failovers`], [`events`], [`recovery`], [`error`].

pub mod domains;
pub mod error;
pub mod events;
pub mod explain;
pub mod failovers;
pub mod links;
pub mod nodes;
pub mod observed;
pub mod recovery;
pub mod size;
pub mod status;
pub mod volumes;

pub use domains::{
    ClusterDomain, ClusterDomainUpdate, ClusterDomainUpdateList, ClusterDomainsStatus,
    DomainChange, DomainChanged, DomainRelocate, DomainRelocated, DomainRole, DomainState,
    SyncStatus, UpdateAction, UpdateStatus,
};
pub use error::ApiError;
pub use events::{Event, EventList, LinkEvent};
pub use explain::{Explanation, Remedy};
pub use failovers::{FailoverReport, FailoverReportList, FailoverVolume};
pub use links::{
    KeptOut, Link, LinkAction, LinkChange, LinkList, LinkRuntime, LinkState, RoundTrip,
};
pub use nodes::{
    DiskState, FaultKind, Grant, KvdbView, Node, NodeList, NodeRemoved, NodeRole, NodeRuntime,
    ReplicaFault, ReplicaProgress, VolumeRole, VolumeRuntime,
};
pub use observed::Observed;
pub use recovery::{
    KvdbSnapshot, RecoverKvdb, RecoverVolume, Recovery, ReplicaEvidence, VolumeRecovery,
};
pub use status::{KvdbStatus, Resync, SiteLoss, Status};
pub use volumes::{
    AddReplica, ChangePolicy, CreateVolume, Durability, ExpandVolume, OnPeerLoss, PublishVolume,
    Published, Relocate, Relocating, Replica, ReplicaState, ServiceState, UnpublishVolume, Volume,
    VolumeCreated, VolumeDeleted, VolumeList,
};

/// The header in which a client names a change, so that a repeat of it (also at another node) is applied once:
/// 16 hex digits of the client's random number, `-`, and a decimal count.
pub const REQUEST_ID_HEADER: &str = "isthmus-request-id";

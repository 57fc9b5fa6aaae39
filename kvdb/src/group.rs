//! The types with which openraft is used here.

use isthmus_catalog::{Answer, Request};
use isthmus_engine::{Incarnation, NodeId};
use serde::{Deserialize, Serialize};
use std::fmt;

use crate::machine::CatalogMachine;

/// A member of the Raft group: a node with one incarnation of its store (I12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MemberId {
    /// The node.
    pub node: NodeId,
    /// Of its store.
    pub incarnation: Incarnation,
}

impl fmt::Display for MemberId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.node, self.incarnation)
    }
}

/// A request as an entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal(pub Request);

impl fmt::Display for Proposal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "request {}/{}", self.0.id.client, self.0.id.number)
    }
}

openraft::declare_raft_types!(
    /// openraft over the catalog's requests and answers.
    pub Types:
        D = Proposal,
        R = Answer,
        NodeId = MemberId,
        Node = openraft::EmptyNode,
);

pub(crate) type Raft = openraft::Raft<Types, CatalogMachine>;
pub(crate) type Entry = openraft::alias::EntryOf<Types>;
pub(crate) type LogId = openraft::alias::LogIdOf<Types>;
pub(crate) type Vote = openraft::alias::VoteOf<Types>;
pub(crate) type Membership = openraft::alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<Types>;
pub(crate) type Snapshot = openraft::alias::SnapshotOf<Types, bytes::Bytes>;

/// The codec's kinds of this crate.
pub(crate) mod kind {
    use isthmus_catalog::codec::Kind;

    pub(crate) const MESSAGE: Kind = Kind(16);
    pub(crate) const REPLY: Kind = Kind(17);
    pub(crate) const VOTE: Kind = Kind(18);
    pub(crate) const ENTRY: Kind = Kind(19);
    pub(crate) const LOG_ID: Kind = Kind(20);
    pub(crate) const SNAPSHOT: Kind = Kind(21);
}

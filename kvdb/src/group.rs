//! The types with which openraft is used here.

use isthmus_catalog::{Answer, Lineage, Request};
use isthmus_engine::{Incarnation, NodeId};
use openraft::impls::leader_id_adv::LeaderId;
use openraft::impls::{BoxedErrorSource, InlineBatch, ProgressResponder};
use openraft::vote::RaftLeaderId;
use openraft::{EmptyNode, EntryPayload, OptionalSend, RaftTypeConfig};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::marker::PhantomData;

use crate::machine::CatalogMachine;
use crate::runtime::{Runtime, Tokio};

/// A member of the Raft group: a node with one incarnation of its store (I12), in one generation of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MemberId {
    /// The node.
    pub node: NodeId,
    /// Of its store; other than the first generation, with the generation's id mixed in. Both are random, so that no member of one
    /// generation is one of another: none can take what was meant for, or said by, what it was before.
    pub incarnation: Incarnation,
}

impl MemberId {
    /// The member that a store's incarnation is in the generation with this lineage.
    #[must_use]
    pub fn of(node: NodeId, incarnation: Incarnation, lineage: &Lineage) -> MemberId {
        MemberId {
            node,
            incarnation: Incarnation(incarnation.0 ^ lineage.id()),
        }
    }
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

/// openraft over the catalog's requests and answers, on the runtime `R`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Types<R>(PhantomData<R>);

impl<R: Runtime> RaftTypeConfig for Types<R> {
    type D = Proposal;
    type R = Answer;
    type NodeId = MemberId;
    type Node = EmptyNode;
    type Term = u64;
    type LeaderId = LeaderId<u64, MemberId>;
    type Vote = Vote;
    type Payload = EntryPayload<Proposal, MemberId, EmptyNode>;
    type Entry = Entry;
    type AsyncRuntime = R::Async;
    type Responder<T>
        = ProgressResponder<Self, T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = BoxedErrorSource;
}

pub(crate) type Raft<R> = openraft::Raft<Types<R>, CatalogMachine<R>>;
type Committed = <LeaderId<u64, MemberId> as RaftLeaderId>::Committed;
pub(crate) type Vote = openraft::impls::Vote<LeaderId<u64, MemberId>>;
pub(crate) type Entry = openraft::Entry<Committed, EntryPayload<Proposal, MemberId, EmptyNode>>;
// The same on every runtime.
pub(crate) type LogId = openraft::alias::LogIdOf<Types<Tokio>>;
pub(crate) type Membership = openraft::alias::StoredMembershipOf<Types<Tokio>>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<Types<Tokio>>;
pub(crate) type Snapshot = openraft::alias::SnapshotOf<Types<Tokio>, bytes::Bytes>;

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

//! What kvdb says about one volume, as its replicas see it.

use crate::ids::{DomainId, Epoch, NodeId, ReplicaId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A volume's replicated configuration: what an epoch stands for. It goes with the epoch into every replica's journal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// Its number, the fencing token.
    pub epoch: Epoch,
    /// Who orders and serves I/O; none while nobody is attached.
    pub primary: Option<ReplicaId>,
    /// Whether the primary has reconciled its set and may serve (I3).
    pub opened: bool,
    /// The replicas known to hold every acknowledged write.
    pub in_sync: BTreeSet<ReplicaId>,
}

/// The newest configuration that a node knows from kvdb, with what else the protocol decides by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The configuration.
    pub configuration: Configuration,
    /// Whether the last primary's rights were given back (or its process is known to be gone): then nobody waits for grants.
    pub released: bool,
    /// The set whose grants the next primary has to see out, unless `released`.
    pub granted_set: BTreeSet<ReplicaId>,
    /// The registered replicas of the volume that may be in sync (their domain is active), in the set or not. None while nobody has said
    /// which replica counts in a forced generation.
    pub eligible: BTreeSet<ReplicaId>,
    /// The replicas that hold the volume whole, as it is or as it once was. Before one that is not in the set is copied over, it
    /// must be out of here by commit.
    pub complete: BTreeSet<ReplicaId>,
    /// The domain of each node that holds a replica.
    pub domains: BTreeMap<NodeId, DomainId>,
    /// Whether a lost replica may leave the set while no other member is left in its domain (policy `degrade`).
    pub may_degrade: bool,
    /// Whether a write is answered when every member's kernel has it (durability `flush`), and not only when it is durable there.
    pub answers_held: bool,
    /// Members of the last opened set that lost power since they were last known to hold everything answered: not to be promoted.
    pub rebooted: BTreeSet<ReplicaId>,
    /// The domain that should go on when only the link between the sites is cut.
    pub preferred_domain: Option<DomainId>,
}

impl View {
    /// Whether all the replicas lie in one domain, so that one site could serve alone, unknown to the other: such a set needs
    /// kvdb's grant.
    #[must_use]
    pub fn in_one_domain(&self, replicas: &BTreeSet<ReplicaId>) -> bool {
        let domains: BTreeSet<_> = replicas
            .iter()
            .map(|replica| self.domains.get(&replica.node))
            .collect();
        domains.len() <= 1
    }
}

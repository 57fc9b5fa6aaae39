//! Who should vote in kvdb, given which domains are active: what the membership controller converges to.

use crate::record::{Catalog, DomainRole, DomainState};
use isthmus_engine::{DomainId, NodeId};
use std::collections::BTreeSet;

/// Voters at most: each commit waits for the majority of them.
const VOTERS_MAX: usize = 5;

impl Catalog {
    /// The nodes that should vote.
    ///
    /// While two or more data domains are active: one node in each active domain, the witness included. While one is: three
    /// of its nodes, or one, and neither the witness nor the other sites, so that losing these costs nothing; with
    /// exactly two nodes there, these and the witness. Of a domain's nodes, one that is reachable comes before one that is not,
    /// then one that votes now, then the lowest id. A voter that is not reachable keeps its vote while nobody in its domain
    /// can take it over. Only nodes that have registered vote, diskless ones never. A domain that is being activated counts as soon as one of its
    /// nodes is reachable. Where no node fits, the current voters stay.
    pub fn voters(
        &self,
        reachable: &BTreeSet<NodeId>,
        current: &BTreeSet<NodeId>,
    ) -> BTreeSet<NodeId> {
        self.voters_without(None, reachable, current)
    }

    /// The same, as if one domain were inactive.
    pub(crate) fn voters_without(
        &self,
        without: Option<DomainId>,
        reachable: &BTreeSet<NodeId>,
        current: &BTreeSet<NodeId>,
    ) -> BTreeSet<NodeId> {
        let ranked = |domain: DomainId| self.ranked_nodes(domain, reachable, current);
        let mut data: Vec<DomainId> = Vec::new();
        let mut witnesses: Vec<DomainId> = Vec::new();
        for (id, domain) in &self.domains {
            let may_vote = match domain.state {
                DomainState::Active => true,
                DomainState::Activating => ranked(*id)
                    .first()
                    .is_some_and(|node| reachable.contains(node)),
                DomainState::Deactivating | DomainState::Inactive => false,
            };
            if !may_vote || Some(*id) == without || ranked(*id).is_empty() {
                continue;
            }
            match domain.role {
                DomainRole::Data => data.push(*id),
                DomainRole::Witness => witnesses.push(*id),
            }
        }
        let voters = match data.as_slice() {
            [] => BTreeSet::new(),
            [only] => one_site(
                &ranked(*only),
                reachable,
                witnesses
                    .first()
                    .and_then(|id| ranked(*id).first().copied()),
            ),
            _ => {
                let mut domains: Vec<DomainId> = data
                    .iter()
                    .chain(&witnesses)
                    .copied()
                    .take(VOTERS_MAX)
                    .collect();
                // An even number tolerates no more losses than the odd one below it; of two sites, both are needed: a
                // commit that only one site holds would be lost with it.
                if domains.len() > 2 && domains.len().is_multiple_of(2) {
                    domains.pop();
                }
                domains
                    .iter()
                    .filter_map(|id| ranked(*id).first().copied())
                    .collect()
            }
        };
        if voters.is_empty() {
            current.clone()
        } else {
            voters
        }
    }

    /// The domain's registered nodes, the fittest voter first.
    fn ranked_nodes(
        &self,
        domain: DomainId,
        reachable: &BTreeSet<NodeId>,
        current: &BTreeSet<NodeId>,
    ) -> Vec<NodeId> {
        let mut nodes: Vec<NodeId> = self
            .nodes_with_store(domain)
            .filter(|(_, node)| node.incarnation.is_some())
            .map(|(id, _)| id)
            .collect();
        nodes.sort_by_key(|id| (!reachable.contains(id), !current.contains(id), *id));
        nodes
    }
}

/// The voters when one data domain is all there is.
fn one_site(
    nodes: &[NodeId],
    reachable: &BTreeSet<NodeId>,
    witness: Option<NodeId>,
) -> BTreeSet<NodeId> {
    let answering = nodes.iter().filter(|node| reachable.contains(node)).count();
    match (answering, witness) {
        (3.., _) => nodes.iter().take(3).copied().collect(),
        (2, Some(witness)) => nodes.iter().take(2).copied().chain([witness]).collect(),
        _ => nodes.iter().take(1).copied().collect(),
    }
}

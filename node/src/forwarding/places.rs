//! Where a volume may be served: pure.

use isthmus_catalog::Catalog;
use isthmus_engine::{NodeId, ReplicaId, VolumeId};
use std::collections::BTreeSet;

/// Where to ask for a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Who serves it, or is to; only this one's word is final. None while nobody does.
    pub first: Option<NodeId>,
    /// Who else could, the likeliest first. Each decides by its own rules whether it does.
    pub others: Vec<NodeId>,
}

/// Where a client that came to `me` may be served.
pub fn places(catalog: &Catalog, volume: VolumeId, me: NodeId) -> Places {
    let Some(record) = catalog.volumes.get(&volume) else {
        return Places {
            first: None,
            others: Vec::new(),
        };
    };
    let goal = catalog.relocations.get(&volume).map(|move_| move_.to);
    let first = goal.or_else(|| record.primary.map(|primary| primary.node));
    // Before `opened` kvdb may go back to the set of the last opened epoch (I3).
    let members: &BTreeSet<ReplicaId> = if record.opened {
        &record.in_sync
    } else {
        &record.opened_set
    };
    let domain = |node: NodeId| catalog.nodes.get(&node).map(|record| record.domain);
    let preferred = record.policy.preferred_domain;
    let mut others: Vec<NodeId> = members
        .iter()
        .filter(|replica| Some(replica.node) != first && catalog.in_active_domain(replica.node))
        .map(|replica| replica.node)
        .collect();
    others.sort_by_key(|node| {
        let is_far = domain(*node) != domain(me);
        let is_preferred = preferred.is_some() && domain(*node) == preferred;
        (is_far, !is_preferred, *node)
    });
    Places { first, others }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isthmus_catalog::{
        Answer, Cause, Command, DomainRecord, DomainRole, DomainState, NodeRecord, Request,
        RequestId, VolumePolicy,
    };
    use isthmus_engine::{DomainId, Incarnation};

    const DEMO: VolumeId = VolumeId(1);
    const DISKLESS: NodeId = NodeId(4);

    fn apply(catalog: &mut Catalog, command: Command) {
        let request = Request {
            id: RequestId {
                client: 1,
                number: catalog.revision,
            },
            cause: Cause {
                who: String::new(),
                why: String::new(),
                at_ms: 0,
            },
            command,
        };
        let answer = catalog.apply(&request);
        assert!(!matches!(answer, Answer::Refused(_)), "{answer:?}");
    }

    fn node(id: u32) -> NodeRecord {
        NodeRecord {
            name: format!("node-{id}"),
            domain: DomainId(if id == 4 { 2 } else { id }),
            peer_address: String::new(),
            api_address: String::new(),
            nbd_address: None,
            incarnation: None,
            starts: 0,
        }
    }

    fn started(id: u32) -> Command {
        Command::NodeStarted {
            node: NodeId(id),
            incarnation: Incarnation(id.into()),
            starts: 1,
        }
    }

    fn replica(id: u32) -> ReplicaId {
        ReplicaId {
            node: NodeId(id),
            incarnation: Incarnation(id.into()),
        }
    }

    /// Nodes 1 and 2 in domains of their own hold a volume; node 4, in the second domain, is diskless.
    fn catalog() -> Catalog {
        let mut catalog = Catalog::default();
        let domain = |id: u32| DomainRecord {
            name: format!("site-{id}"),
            role: DomainRole::Data,
            state: DomainState::Active,
            since_ms: 0,
            created_ms: 0,
        };
        let form = Command::Form {
            cluster_name: "test".to_owned(),
            cluster_id: 1,
            domains: [1, 2].map(|id| (DomainId(id), domain(id))).into(),
            nodes: [1, 2].map(|id| (NodeId(id), node(id))).into(),
        };
        let add = Command::AddDiskless {
            node: DISKLESS,
            record: Box::new(node(4)),
        };
        let create = Command::CreateVolume {
            name: "demo".to_owned(),
            bytes: 1 << 20,
            block_bytes: 4096,
            policy: VolumePolicy::default(),
        };
        for command in [form, started(1), started(2), add, started(4), create] {
            apply(&mut catalog, command);
        }
        catalog
    }

    fn at(catalog: &Catalog) -> (Option<u32>, Vec<u32>) {
        let Places { first, others } = places(catalog, DEMO, DISKLESS);
        let others = others.into_iter().map(|node| node.0);
        (first.map(|node| node.0), others.collect())
    }

    #[test]
    fn an_idle_volume_is_asked_for_in_the_own_site_first() {
        let mut catalog = catalog();
        assert_eq!(at(&catalog), (None, vec![2, 1]));
        apply(
            &mut catalog,
            Command::Deactivate {
                domain: DomainId(2),
                answering: [NodeId(1)].into(),
                accept_data_loss: false,
            },
        );
        assert_eq!(at(&catalog), (None, vec![1]));
        assert_eq!(
            places(&catalog, VolumeId(9), DISKLESS),
            Places {
                first: None,
                others: Vec::new()
            }
        );
    }

    #[test]
    fn the_primary_is_asked_first_and_before_it_the_goal_of_a_move() {
        let mut catalog = catalog();
        let expected = catalog.volumes[&DEMO].epoch;
        apply(
            &mut catalog,
            Command::Promote {
                volume: DEMO,
                expected,
                candidate: replica(1),
            },
        );
        assert_eq!(at(&catalog), (Some(1), vec![2]));
        let epoch = catalog.volumes[&DEMO].epoch;
        apply(
            &mut catalog,
            Command::Opened {
                volume: DEMO,
                epoch,
                primary: replica(1),
            },
        );
        apply(
            &mut catalog,
            Command::Relocate {
                volume: DEMO,
                to: NodeId(2),
            },
        );
        assert_eq!(at(&catalog), (Some(2), vec![1]));
    }
}

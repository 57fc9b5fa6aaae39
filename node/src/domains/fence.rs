//! The proof that no node of a deactivated domain can serve any more.
//!
//! Either every node of the domain says so itself, having acted on the deactivation. Or time proves it, volume by volume:
//! a primary serves only while it holds a grant of *every* other member of its set (and of kvdb, when the set lies in one
//! domain). So once one giver outside the domain has acted on the deactivation, it renews no more, and a lease later (plus
//! drift) the primary's right is over, whatever the domain's nodes still believe. A new primary that has opened went through
//! the same wait (I3). Diskless nodes hold no right of their own: all that they serve passes through a primary.

use crate::api::access::Observations;
use isthmus_catalog::{Catalog, DomainRole, Handover, VolumeRecord};
use isthmus_engine::{DomainId, NodeId, Time, VolumeId};
use std::collections::BTreeSet;
use std::time::Duration;

/// Only [`Fence::prove`] makes one.
#[derive(Debug)]
pub struct FenceProof {
    text: String,
}

impl FenceProof {
    /// The proof in words, for the audit trail.
    pub fn into_text(self) -> String {
        self.text
    }
}

/// What is known of a domain's fence so far, on the node that leads kvdb.
#[derive(Debug)]
pub struct Fence {
    /// The catalog's revision when this leader saw the deactivation: at least that of its commit.
    revision: u64,
    /// Volumes for which only the lease has to run out.
    ending: BTreeSet<VolumeId>,
    /// Since when that is so for all volumes.
    ending_since: Option<Time>,
}

impl Fence {
    /// Begins to prove the fence of a deactivation that was seen at this revision.
    pub fn new(revision: u64) -> Fence {
        Fence {
            revision,
            ending: BTreeSet::new(),
            ending_since: None,
        }
    }

    /// Looks again.
    ///
    /// # Errors
    /// What the proof waits for, in words.
    pub fn prove(
        &mut self,
        catalog: &Catalog,
        domain: DomainId,
        observations: &Observations,
        now: Time,
        lease: Duration,
    ) -> Result<FenceProof, String> {
        let Some(record) = catalog.domains.get(&domain) else {
            return Err("the domain is unknown".to_owned());
        };
        if record.role == DomainRole::Witness {
            return Ok(FenceProof {
                text: "a witness serves nothing".to_owned(),
            });
        }
        self.check_forwarders(catalog, domain, observations)?;
        let nodes: BTreeSet<NodeId> = catalog.nodes_with_store(domain).map(|(id, _)| id).collect();
        if nodes
            .iter()
            .all(|node| self.says_it_serves_nothing(observations, *node))
        {
            return Ok(FenceProof {
                text: "each of its nodes said that it serves nothing".to_owned(),
            });
        }
        for (id, volume) in &catalog.volumes {
            if self.ending.contains(id) {
                continue;
            }
            self.check_givers(catalog, volume, &nodes, observations)?;
            self.ending.insert(*id);
        }
        let since = *self.ending_since.get_or_insert(now);
        // The giver's clock may be 1 % slower than the holder's: the bound on drift that the design states.
        let wait = lease + lease / 100;
        let waited = now.since(since);
        if waited < wait {
            return Err(format!(
                "the leases of its nodes run out in {} ms",
                (wait - waited).as_millis() + 1
            ));
        }
        Ok(FenceProof {
            text: format!(
                "every lease of its nodes ran out ({} ms without renewal)",
                waited.as_millis()
            ),
        })
    }

    /// Whether no node that answers takes requests from the domain's diskless nodes any more. These serve nothing themselves: what they forward
    /// to a primary in the domain ends with that one's right; a primary outside sends their clients away when it acts on the deactivation.
    fn check_forwarders(
        &self,
        catalog: &Catalog,
        domain: DomainId,
        observations: &Observations,
    ) -> Result<(), String> {
        let nodes = catalog.nodes.iter();
        let mut forwarders = nodes
            .filter(|(id, node)| node.domain == domain && catalog.diskless.contains(id))
            .map(|(id, _)| *id);
        // What such a node says of itself does not count: what it sent before may be on its way.
        if forwarders.next().is_none() {
            return Ok(());
        }
        let mut outside = catalog
            .nodes
            .iter()
            .filter(|(id, node)| node.domain != domain && !catalog.diskless.contains(id));
        let has_not_heard = |node: NodeId| {
            let observation = observations.get(&node).filter(|observed| observed.answers);
            let runtime = observation.and_then(|observation| observation.runtime.as_ref());
            runtime.is_some_and(|runtime| runtime.acted_on_revision < self.revision)
        };
        match outside.find(|(id, _)| has_not_heard(**id)) {
            None => Ok(()),
            Some((_, node)) => Err(format!("{} must have heard of it", node.name)),
        }
    }

    fn says_it_serves_nothing(&self, observations: &Observations, node: NodeId) -> bool {
        let observation = observations
            .get(&node)
            .filter(|observation| observation.answers);
        observation
            .and_then(|observation| observation.runtime.as_ref())
            .is_some_and(|runtime| {
                runtime.acted_on_revision >= self.revision
                    && runtime.volumes.iter().all(|volume| !volume.may_serve)
            })
    }

    /// Whether no grant for a primary in the domain is renewed any more.
    fn check_givers(
        &self,
        catalog: &Catalog,
        volume: &VolumeRecord,
        nodes: &BTreeSet<NodeId>,
        observations: &Observations,
    ) -> Result<(), String> {
        let opened_elsewhere = volume.opened
            && volume
                .primary
                .is_some_and(|primary| !nodes.contains(&primary.node));
        if opened_elsewhere || volume.handover == Handover::Released {
            return Ok(());
        }
        let mut givers = volume
            .granted_set
            .iter()
            .filter(|replica| !nodes.contains(&replica.node))
            .peekable();
        if givers.peek().is_none() {
            return Ok(()); // The set lay in the domain: its primary needed kvdb's grant, which ended with the commit.
        }
        let acted = |node: NodeId| {
            let observation = observations
                .get(&node)
                .filter(|observation| observation.answers);
            let runtime = observation.and_then(|observation| observation.runtime.as_ref());
            runtime.is_some_and(|runtime| runtime.acted_on_revision >= self.revision)
        };
        if givers.clone().any(|replica| acted(replica.node)) {
            return Ok(());
        }
        let names: Vec<&str> = givers
            .filter_map(|replica| catalog.nodes.get(&replica.node))
            .map(|node| node.name.as_str())
            .collect();
        Err(format!(
            "volume {}: {} must have heard of it",
            volume.name,
            names.join(" or ")
        ))
    }
}

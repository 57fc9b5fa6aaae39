//! What an answer is made from.

use crate::api::access::{Observation, Observations};
use crate::api::errors::HttpError;
use isthmus_api::{KvdbView, Observed, VolumeRuntime};
use isthmus_catalog::{
    Catalog, DomainRecord, DomainState, NodeRecord, VolumeRecord, starts_counted,
};
use isthmus_engine::{DomainId, NodeId, VolumeId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What an answer is made from: all pure functions of the API take this.
pub struct Facts {
    /// The catalog.
    pub catalog: Arc<Catalog>,
    /// Whether a majority confirmed the catalog just now.
    pub confirmed: bool,
    /// What the nodes say.
    pub observations: Observations,
    /// kvdb as the answering node sees it.
    pub kvdb: KvdbView,
    /// The answering node.
    pub this_node: NodeId,
    /// Wall-clock time in ms since 1970.
    pub now_ms: u64,
}

impl Facts {
    /// How far an answer made from this can be trusted.
    pub fn observed(&self) -> Observed {
        Observed {
            at_ms: self.now_ms,
            confirmed: self.confirmed,
        }
    }

    /// A node's name; its number where the catalog does not know it.
    pub fn node_name(&self, node: NodeId) -> String {
        self.catalog
            .nodes
            .get(&node)
            .map_or_else(|| node.to_string(), |record| record.name.clone())
    }

    /// A domain's name; its number where the catalog does not know it.
    pub fn domain_name(&self, domain: DomainId) -> String {
        self.catalog
            .domains
            .get(&domain)
            .map_or_else(|| domain.to_string(), |record| record.name.clone())
    }

    /// The domain of that name.
    pub fn domain_named(&self, name: &str) -> Option<(DomainId, &DomainRecord)> {
        self.catalog
            .domains
            .iter()
            .find(|(_, record)| record.name == name)
            .map(|(id, record)| (*id, record))
    }

    /// The volume of that name.
    ///
    /// # Errors
    /// 404 when there is none.
    pub fn volume_named(&self, name: &str) -> Result<(VolumeId, &VolumeRecord), HttpError> {
        volume_named(&self.catalog, name)
    }

    /// The nodes of a domain.
    pub fn nodes_of(&self, domain: DomainId) -> impl Iterator<Item = (NodeId, &NodeRecord)> {
        self.catalog
            .nodes
            .iter()
            .filter(move |(_, node)| node.domain == domain)
            .map(|(id, node)| (*id, node))
    }

    /// Whether a node answered just now.
    pub fn answers(&self, node: NodeId) -> bool {
        self.observations
            .get(&node)
            .is_some_and(|observation| observation.answers)
    }

    /// The nodes that answered just now, with the stores that the catalog knows.
    pub fn answering(&self) -> BTreeSet<NodeId> {
        let mut answering = answering(&self.observations);
        // A node whose disk was replaced answers, but is not yet what the catalog counts on. Nor is one that was started anew and whose
        // start the catalog has not noted: it may have lost with its kernel's memory what the catalog takes it to hold.
        answering.retain(|node| {
            let known = self
                .catalog
                .nodes
                .get(node)
                .and_then(|record| Some((record.incarnation?, starts_counted(record.starts))));
            let runtime = self
                .observations
                .get(node)
                .and_then(|observation| observation.runtime.as_ref());
            known
                .zip(runtime)
                .is_some_and(|((incarnation, starts), runtime)| {
                    incarnation.to_string() == runtime.incarnation && starts == runtime.starts
                })
        });
        answering
    }

    /// Whether a node's domain is active.
    pub fn in_active_domain(&self, node: NodeId) -> bool {
        let domain = self
            .catalog
            .nodes
            .get(&node)
            .and_then(|record| self.catalog.domains.get(&record.domain));
        domain.is_some_and(|domain| domain.state == DomainState::Active)
    }

    /// What a node that answered just now says about its replica of a volume.
    pub fn runtime(&self, node: NodeId, volume: VolumeId) -> Option<&VolumeRuntime> {
        let observation = self
            .observations
            .get(&node)
            .filter(|observation| observation.answers)?;
        observation
            .runtime
            .as_ref()?
            .volumes
            .iter()
            .find(|runtime| runtime.volume == volume.0)
    }

    /// When a node was last heard, in ms since 1970.
    pub fn heard_at_ms(&self, node: NodeId) -> Option<u64> {
        self.observations
            .get(&node)
            .and_then(|observation| observation.heard_at_ms)
    }
}

/// The volume of that name.
///
/// # Errors
/// 404 when there is none.
pub fn volume_named<'a>(
    catalog: &'a Catalog,
    name: &str,
) -> Result<(VolumeId, &'a VolumeRecord), HttpError> {
    let found = catalog
        .volumes
        .iter()
        .find(|(_, record)| record.name == name);
    found
        .map(|(id, record)| (*id, record))
        .ok_or_else(|| HttpError::not_found(format!("volume {name} not found")))
}

/// The nodes that answered just now.
pub fn answering(observations: &Observations) -> BTreeSet<NodeId> {
    let answering = observations
        .iter()
        .filter(|(_, Observation { answers, .. })| *answers);
    answering.map(|(id, _)| *id).collect()
}

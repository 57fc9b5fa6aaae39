//! Forming the cluster: its name, id, domains and nodes; and the nodes that come to it later, or leave it.

use super::{Outcome, check_name};
use crate::command::{Answer, Refusal};
use crate::record::{Catalog, DomainRecord, DomainRole, DomainState, NodeRecord};
use isthmus_engine::{DomainId, NodeId, VolumeId};
use std::collections::{BTreeMap, BTreeSet};

impl Catalog {
    pub(super) fn form(
        &mut self,
        cluster_name: &str,
        cluster_id: u64,
        domains: &[(DomainId, DomainRecord)],
        nodes: &[(NodeId, NodeRecord)],
        at_ms: u64,
    ) -> Result<Outcome, Refusal> {
        if self.cluster_id != 0 {
            return if self.cluster_id == cluster_id {
                Ok(Outcome::Unchanged(Answer::Done))
            } else {
                Err(Refusal::OtherCluster(self.cluster_id))
            };
        }
        check_name("cluster", cluster_name)?;
        if cluster_id == 0 {
            return Err(Refusal::Invalid("a cluster's id is not 0".to_owned()));
        }
        let domains = checked_domains(domains, at_ms)?;
        let nodes = checked_nodes(nodes, &domains)?;
        self.cluster_name = cluster_name.to_owned();
        self.cluster_id = cluster_id;
        self.domains = domains;
        self.nodes = nodes;
        self.next_volume = 1;
        Ok(Outcome::Audited(
            Answer::Done,
            format!("formed cluster {cluster_name} with id {cluster_id:016x}"),
        ))
    }
}

impl Catalog {
    /// A node is a member from now on, or has other addresses.
    pub(super) fn add_node(
        &mut self,
        id: NodeId,
        record: &NodeRecord,
        is_diskless: bool,
    ) -> Result<Outcome, Refusal> {
        check_name("node", &record.name)?;
        check_addresses(record)?;
        let domain = self.domain(record.domain)?;
        if is_diskless && domain.role != DomainRole::Data {
            return Err(Refusal::Invalid(format!(
                "diskless node {}: cluster domain {} is a witness; put the node into a data domain",
                record.name, domain.name
            )));
        }
        let mut others = self.nodes.iter().filter(|(other, _)| **other != id);
        if id.0 == 0 || others.any(|(_, other)| other.name == record.name) {
            return Err(Refusal::Invalid(format!(
                "node {}: ids begin at 1, and names differ",
                record.name
            )));
        }
        let domain_name = domain.name.clone();
        let (mut incarnation, mut starts) = (None, 0);
        if let Some(known) = self.nodes.get(&id) {
            let is_same = known.name == record.name && known.domain == record.domain;
            if !is_same || self.diskless.contains(&id) != is_diskless {
                return Err(Refusal::Invalid(format!(
                    "node id {id} is that of node {}: give {} another one",
                    known.name, record.name
                )));
            }
            (incarnation, starts) = (known.incarnation, known.starts);
        } else if self.is_remembered(id) {
            return Err(Refusal::Invalid(format!(
                "node id {id} is that of a node that was removed: give {} another one",
                record.name
            )));
        } else if self.nodes.len() >= Catalog::NODES_MAX {
            return Err(Refusal::Invalid(format!(
                "a cluster has 1 to {} nodes",
                Catalog::NODES_MAX
            )));
        }
        let record = NodeRecord {
            incarnation,
            starts,
            ..record.clone()
        };
        if self.nodes.get(&id) == Some(&record) {
            return Ok(Outcome::Unchanged(Answer::Done));
        }
        let manner = if is_diskless { " (diskless)" } else { "" };
        let what = format!(
            "node {}{manner} is a member of cluster domain {domain_name}",
            record.name
        );
        self.nodes.insert(id, record);
        if is_diskless {
            self.diskless.insert(id);
        }
        Ok(Outcome::Audited(Answer::Done, what))
    }

    /// Whether a volume's past still names a node of this number.
    fn is_remembered(&self, id: NodeId) -> bool {
        let mut volumes = self.volumes.values();
        volumes.any(|volume| {
            let sets = [&volume.granted_set, &volume.opened_set, &volume.complete];
            sets.into_iter().flatten().any(|replica| replica.node == id)
        })
    }

    /// A node is no member any more: it holds no replica, and nothing is in use there.
    pub(super) fn remove_node(&mut self, id: NodeId) -> Result<Outcome, Refusal> {
        let record = self.nodes.get(&id).ok_or(Refusal::UnknownNode(id))?;
        let is_used = |volume: &VolumeId| {
            let published = self.published.get(volume);
            published.is_some_and(|published| published.node == id)
        };
        let mut volumes = self.volumes.iter();
        if let Some((_, volume)) =
            volumes.find(|(volume, record)| record.replicas.contains(&id) || is_used(volume))
        {
            return Err(Refusal::Invalid(format!(
                "node {0} is still needed by volume {1}: domain-ctl remove replica volume {1} --node {0}, or unpublish it there",
                record.name, volume.name
            )));
        }
        let domain = record.domain;
        let stays =
            |(other, node): (NodeId, &NodeRecord)| other != id && node.incarnation.is_some();
        if !self.diskless.contains(&id) && !self.nodes_with_store(domain).any(stays) {
            return Err(Refusal::Invalid(format!(
                "node {} is the last one with a store that has registered in its domain: start the one that replaces it first",
                record.name
            )));
        }
        let what = format!("node {} is no member any more", record.name);
        self.nodes.remove(&id);
        self.diskless.remove(&id);
        self.boots.remove(&id);
        Ok(Outcome::Audited(Answer::Done, what))
    }
}

/// The domains, all active from now, or why they can't be so.
fn checked_domains(
    domains: &[(DomainId, DomainRecord)],
    at_ms: u64,
) -> Result<BTreeMap<DomainId, DomainRecord>, Refusal> {
    if domains.len() > Catalog::DOMAINS_MAX {
        return Err(Refusal::Invalid(format!(
            "a cluster has at most {} domains",
            Catalog::DOMAINS_MAX
        )));
    }
    let mut checked = BTreeMap::new();
    let mut names = BTreeSet::new();
    for (id, domain) in domains {
        check_name("domain", &domain.name)?;
        if id.0 == 0 || !names.insert(&domain.name) {
            return Err(Refusal::Invalid(format!(
                "domain {}: ids begin at 1, and names differ",
                domain.name
            )));
        }
        let record = DomainRecord {
            name: domain.name.clone(),
            role: domain.role,
            state: DomainState::Active,
            since_ms: at_ms,
            created_ms: at_ms,
        };
        if checked.insert(*id, record).is_some() {
            return Err(Refusal::Invalid(format!("domain id {id} is used twice")));
        }
    }
    if !checked
        .values()
        .any(|domain| domain.role == DomainRole::Data)
    {
        return Err(Refusal::Invalid(
            "a cluster needs at least one data domain".to_owned(),
        ));
    }
    Ok(checked)
}

/// The nodes, none of them registered yet, or why they can't be so.
fn checked_nodes(
    nodes: &[(NodeId, NodeRecord)],
    domains: &BTreeMap<DomainId, DomainRecord>,
) -> Result<BTreeMap<NodeId, NodeRecord>, Refusal> {
    if nodes.is_empty() || nodes.len() > Catalog::NODES_MAX {
        return Err(Refusal::Invalid(format!(
            "a cluster has 1 to {} nodes",
            Catalog::NODES_MAX
        )));
    }
    let mut checked = BTreeMap::new();
    let mut names = BTreeSet::new();
    for (id, node) in nodes {
        check_name("node", &node.name)?;
        if id.0 == 0 || !names.insert(&node.name) {
            return Err(Refusal::Invalid(format!(
                "node {}: ids begin at 1, and names differ",
                node.name
            )));
        }
        if !domains.contains_key(&node.domain) {
            return Err(Refusal::UnknownDomain(node.domain));
        }
        check_addresses(node)?;
        if checked
            .insert(
                *id,
                NodeRecord {
                    incarnation: None,
                    starts: 0,
                    ..node.clone()
                },
            )
            .is_some()
        {
            return Err(Refusal::Invalid(format!("node id {id} is used twice")));
        }
    }
    Ok(checked)
}

fn check_addresses(node: &NodeRecord) -> Result<(), Refusal> {
    let addresses = [
        Some(&node.peer_address),
        Some(&node.api_address),
        node.nbd_address.as_ref(),
    ];
    let is_too_long = |address: &String| address.len() > Catalog::ADDRESS_BYTES_MAX;
    if addresses.into_iter().flatten().any(is_too_long) {
        return Err(Refusal::Invalid(format!(
            "node {}: an address has at most {} bytes",
            node.name,
            Catalog::ADDRESS_BYTES_MAX
        )));
    }
    Ok(())
}

//! Nodes as the API shows them.

use crate::api::domains;
use crate::api::facts::Facts;
use isthmus_api::{DomainState, Node, NodeList, NodeRole};
use isthmus_catalog::{DomainRole, NodeRecord, starts_counted};
use isthmus_engine::NodeId;

/// All nodes in the order of their ids.
pub fn list(facts: &Facts) -> NodeList {
    let items = facts
        .catalog
        .nodes
        .iter()
        .map(|(id, record)| node(facts, *id, record))
        .collect();
    NodeList {
        items,
        observed: facts.observed(),
    }
}

fn node(facts: &Facts, id: NodeId, record: &NodeRecord) -> Node {
    let domain = facts.catalog.domains.get(&record.domain);
    let observation = facts.observations.get(&id);
    let answers = facts.answers(id);
    let said = observation
        .filter(|_| answers)
        .and_then(|observation| observation.runtime.as_ref());
    let (reason, next) = if record.incarnation.is_none() {
        (
            "it has never been started".to_owned(),
            format!("start it: isthmusd run --config {}.toml", record.name),
        )
    } else if !answers {
        let why = observation.map_or("nothing was heard of it yet", |observation| {
            observation.reason.as_str()
        });
        (
            format!("it does not answer: {why}"),
            format!("start it: isthmusd run --config {}.toml", record.name),
        )
    } else {
        (String::new(), String::new())
    };
    Node {
        name: record.name.clone(),
        id: id.0,
        domain: facts.domain_name(record.domain),
        role: match domain.map(|domain| domain.role) {
            _ if facts.catalog.diskless.contains(&id) => NodeRole::Diskless,
            Some(DomainRole::Witness) => NodeRole::Witness,
            Some(DomainRole::Data) | None => NodeRole::Data,
        },
        domain_state: domain.map_or(DomainState::Inactive, |domain| domains::state(domain.state)),
        peer_address: record.peer_address.clone(),
        api_address: record.api_address.clone(),
        nbd_address: record.nbd_address.clone(),
        incarnation: record
            .incarnation
            .map(|incarnation| incarnation.to_string()),
        starts: starts_counted(record.starts),
        voter: facts.kvdb.voters.contains(&id.0),
        leader: facts.kvdb.leader == Some(id.0),
        answers,
        observed_at_ms: facts.heard_at_ms(id),
        round_trip_us: observation.and_then(|observation| observation.round_trip_us),
        store_bytes_total: said.and_then(|said| said.store_bytes_total),
        store_bytes_free: said.and_then(|said| said.store_bytes_free),
        reason,
        next,
    }
}

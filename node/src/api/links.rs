//! The links between the data domains as the API shows them: each once, as one of its ends measures it.

use crate::api::facts::Facts;
use isthmus_api::{Link, LinkRuntime, LinkState};
use isthmus_catalog::DomainRole;
use isthmus_engine::NodeId;

/// Links that are shown at most: there is one for each two nodes.
const LINKS_MAX: usize = 100;

/// The links between nodes of different data domains.
pub fn between_data_domains(facts: &Facts) -> Vec<Link> {
    let in_data_domain = |node: &NodeId| {
        let record = facts.catalog.nodes.get(node);
        let domain = record.and_then(|record| facts.catalog.domains.get(&record.domain));
        domain.is_some_and(|domain| domain.role == DomainRole::Data)
    };
    let nodes: Vec<NodeId> = facts.catalog.nodes.keys().copied().collect();
    let holds_replicas =
        |node: &NodeId| in_data_domain(node) && !facts.catalog.diskless.contains(node);
    let nodes: Vec<NodeId> = nodes.into_iter().filter(holds_replicas).collect();
    let mut links = Vec::new();
    for (index, one) in nodes.iter().enumerate() {
        for other in &nodes[index + 1..] {
            if domain_of(facts, *one) != domain_of(facts, *other) && links.len() < LINKS_MAX {
                links.push(link(facts, *one, *other));
            }
        }
    }
    links
}

fn domain_of(facts: &Facts, node: NodeId) -> String {
    let record = facts.catalog.nodes.get(&node);
    record.map_or_else(String::new, |record| facts.domain_name(record.domain))
}

/// What a node that answers says about its link to another one.
fn said(facts: &Facts, from: NodeId, to: NodeId) -> Option<&LinkRuntime> {
    let observation = facts
        .observations
        .get(&from)
        .filter(|observation| observation.answers)?;
    let links = &observation.runtime.as_ref()?.links;
    links.iter().find(|link| link.peer == to.0)
}

fn link(facts: &Facts, one: NodeId, other: NodeId) -> Link {
    let there = said(facts, one, other).map(|said| (one, other, Some(said)));
    let back = said(facts, other, one).map(|said| (other, one, Some(said)));
    let (from, to, said) = there.or(back).unwrap_or((one, other, None));
    let state = said.map_or(LinkState::Unknown, |said| said.state);
    let (reason, next) = match state {
        LinkState::Good => (String::new(), String::new()),
        LinkState::Unknown if said.is_none() => (
            "neither of its nodes answers".to_owned(),
            "start them: domain-ctl get nodes".to_owned(),
        ),
        LinkState::Unknown => (
            "it has not been probed yet".to_owned(),
            "look again in some seconds".to_owned(),
        ),
        LinkState::LatencyExceeded => (
            said.map_or_else(String::new, |said| said.reason.clone()),
            "each write takes at least as long: ask who runs the link between the sites, or raise [link] max_rtt_ms".to_owned(),
        ),
        LinkState::Down => (
            said.map_or_else(String::new, |said| said.reason.clone()),
            format!(
                "look at the link and at {}; if that site is lost: domain-ctl deactivate clusterdomain {} --wait",
                facts.node_name(to),
                domain_of(facts, to)
            ),
        ),
    };
    Link {
        from: facts.node_name(from),
        from_domain: domain_of(facts, from),
        to: facts.node_name(to),
        to_domain: domain_of(facts, to),
        state,
        reason,
        next,
        since_ms: said.map(|said| said.since_ms).filter(|since| *since > 0),
        p50_us: said.and_then(|said| said.p50_us),
        p99_us: said.and_then(|said| said.p99_us),
        probes: said.map_or(0, |said| said.probes),
        lost: said.map_or(0, |said| said.lost),
        observed_at_ms: said.map(|said| said.observed_at_ms),
    }
}

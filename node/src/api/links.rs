//! The links between the data domains as the API shows them: each once, as one of its ends measures it.

use crate::api::errors::HttpError;
use crate::api::facts::Facts;
use axum::http::StatusCode;
use isthmus_api::{
    ApiError, KeptOut, Link, LinkAction, LinkEvent, LinkList, LinkRuntime, LinkState,
};
use isthmus_catalog::DomainRole;
use isthmus_engine::NodeId;
use std::collections::BTreeSet;

/// Links that are shown at most: there is one for each two nodes.
const LINKS_MAX: usize = 100;

/// All of them.
pub fn list(facts: &Facts) -> LinkList {
    LinkList {
        items: between_data_domains(facts),
        observed: facts.observed(),
    }
}

/// What the nodes that answer have seen of them since they were started, oldest first; of each link what one of its ends has seen.
pub fn events(facts: &Facts) -> Vec<LinkEvent> {
    let mut events: Vec<LinkEvent> = Vec::new();
    for (one, other) in pairs(facts) {
        let Some((from, to, said)) = said_by_either(facts, one, other) else {
            continue;
        };
        let changes = said.changes.iter().cloned();
        events.extend(changes.map(|change| LinkEvent {
            from: facts.node_name(from),
            to: facts.node_name(to),
            change,
        }));
    }
    events.sort_by_key(|event| event.change.at_ms);
    events
}

/// Refuses a volume whose replicas would be on these nodes, where an end that answers finds a link between them too slow (action `refuse-new`).
///
/// # Errors
/// 409 with why, and what to do.
pub fn check_new_volume(
    facts: &Facts,
    name: &str,
    places: &BTreeSet<NodeId>,
) -> Result<(), HttpError> {
    for from in places {
        for to in places {
            let Some(link) = said(facts, *from, *to) else {
                continue;
            };
            let refuses = link.state == LinkState::LatencyExceeded
                && domain_of(facts, *from) != domain_of(facts, *to);
            if refuses {
                let (from, to) = (facts.node_name(*from), facts.node_name(*to));
                let error = ApiError::new(format!("volume {name} is not created"))
                    .because(format!(
                        "its replicas would be on {from} and {to}, and the link between them is too slow for new volumes ([link] action = \"refuse-new\"): {}",
                        link.reason
                    ))
                    .next("wait until the link is good (domain-ctl get links), or raise [link] max_rtt_ms or write action = \"report\" on both nodes");
                return Err(HttpError {
                    status: StatusCode::CONFLICT,
                    error,
                });
            }
        }
    }
    Ok(())
}

/// Why the replica on `to` stays out of sets that `from` is in, if it does for their link.
pub fn kept_out(facts: &Facts, from: NodeId, to: NodeId) -> Option<&KeptOut> {
    said(facts, from, to)?.kept_out.as_ref()
}

/// The links between nodes of different data domains.
pub fn between_data_domains(facts: &Facts) -> Vec<Link> {
    let pairs = pairs(facts).into_iter();
    pairs.map(|(one, other)| link(facts, one, other)).collect()
}

/// The ends of each.
fn pairs(facts: &Facts) -> Vec<(NodeId, NodeId)> {
    let in_data_domain = |node: &NodeId| {
        let record = facts.catalog.nodes.get(node);
        let domain = record.and_then(|record| facts.catalog.domains.get(&record.domain));
        domain.is_some_and(|domain| domain.role == DomainRole::Data)
    };
    let nodes: Vec<NodeId> = facts.catalog.nodes.keys().copied().collect();
    let holds_replicas =
        |node: &NodeId| in_data_domain(node) && !facts.catalog.diskless.contains(node);
    let nodes: Vec<NodeId> = nodes.into_iter().filter(holds_replicas).collect();
    let mut pairs = Vec::new();
    for (index, one) in nodes.iter().enumerate() {
        for other in &nodes[index + 1..] {
            if domain_of(facts, *one) != domain_of(facts, *other) && pairs.len() < LINKS_MAX {
                pairs.push((*one, *other));
            }
        }
    }
    pairs
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

/// What either end says, the first one before the second; with who measures whom.
fn said_by_either(
    facts: &Facts,
    one: NodeId,
    other: NodeId,
) -> Option<(NodeId, NodeId, &LinkRuntime)> {
    let there = said(facts, one, other).map(|said| (one, other, said));
    there.or_else(|| Some((other, one, said(facts, other, one)?)))
}

fn link(facts: &Facts, one: NodeId, other: NodeId) -> Link {
    let (from, to, said) = match said_by_either(facts, one, other) {
        Some((from, to, said)) => (from, to, Some(said)),
        None => (one, other, None),
    };
    let kept_out = kept_out(facts, one, other).or_else(|| kept_out(facts, other, one));
    let state = said.map_or(LinkState::Unknown, |said| said.state);
    let action = said.map_or_else(LinkAction::default, |said| said.action);
    let (reason, next) = match state {
        LinkState::Good => match kept_out {
            None => (String::new(), String::new()),
            Some(kept_out) => (
                format!("it was too slow: {}", staying_out(kept_out, facts.now_ms)),
                String::new(),
            ),
        },
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
            format!(
                "{}: ask who runs the link between the sites, or raise [link] max_rtt_ms",
                match action {
                    LinkAction::Report => "each write takes at least as long",
                    LinkAction::RefuseNew =>
                        "each write takes at least as long, and no volumes are created over it",
                    LinkAction::Degrade =>
                        "replicas behind it stay out of the in-sync sets of volumes with the policy degrade",
                }
            ),
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
        max_rtt_us: said.map_or(0, |said| said.max_rtt_us),
        action,
        kept_out: kept_out.cloned(),
        history: said.map_or_else(Vec::new, |said| said.history.clone()),
    }
}

/// When replicas behind a link come back.
pub fn staying_out(kept_out: &KeptOut, now_ms: u64) -> String {
    let left = match kept_out.seconds_left(now_ms) {
        Some(seconds) => format!("{} left", minutes(seconds)),
        None => "it is not good now".to_owned(),
    };
    format!(
        "replicas behind it come back when it was good for {} ({left})",
        minutes(kept_out.hold_down_seconds)
    )
}

/// `45 s`, or `3:12 min`.
fn minutes(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        _ => format!("{}:{:02} min", seconds / 60, seconds % 60),
    }
}

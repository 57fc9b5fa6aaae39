//! A volume explained.

use super::{activate, all_of, deactivate, remedy};
use crate::api::facts::Facts;
use crate::api::replicas::clock_time;
use crate::api::volumes;
use isthmus_api::{
    Explanation, OnPeerLoss, Remedy, Replica, ReplicaState, ServiceState, Volume, size,
};
use isthmus_catalog::VolumeRecord;
use isthmus_engine::{DomainId, NodeId, VolumeId};
use std::collections::BTreeSet;

/// Explains the state of a volume.
pub fn volume(facts: &Facts, id: VolumeId, record: &VolumeRecord) -> Explanation {
    let shown = volumes::volume(facts, id, record);
    let story = Story {
        facts,
        id,
        record,
        shown: &shown,
    };
    let mut remedies = story.service_remedies();
    remedies.extend(story.sync_remedies());
    let mut said = BTreeSet::new();
    remedies.retain(|remedy| said.insert(remedy.command.clone()));
    Explanation {
        subject: format!("volume {}", shown.name),
        state: format!("{:?}, {}", shown.service, shown.sync_status.as_str()),
        since_ms: story.frozen_since_ms().or(record.unprotected_since_ms),
        facts: story.facts(),
        rule: story.rule(),
        remedies,
        observed: facts.observed(),
    }
}

struct Story<'a> {
    facts: &'a Facts,
    id: VolumeId,
    record: &'a VolumeRecord,
    shown: &'a Volume,
}

impl Story<'_> {
    fn facts(&self) -> Vec<String> {
        let Story { shown, .. } = self;
        let mut facts = vec![self.service()];
        facts.extend(self.frozen_since_ms().map(|since_ms| {
            format!(
                "frozen since {}, {} s ago",
                clock_time(since_ms),
                self.facts.now_ms.saturating_sub(since_ms) / 1000
            )
        }));
        facts.extend(self.grants());
        facts.push(format!(
            "its in-sync set, as kvdb has it: {} (epoch {})",
            all_of(&shown.in_sync),
            shown.epoch
        ));
        for replica in &shown.replicas {
            if replica.state != ReplicaState::InSync || !replica.reason.is_empty() {
                facts.push(lacking(replica));
            }
        }
        if !self.facts.confirmed {
            facts.push(format!(
                "no majority of kvdb's voters answers ({}): this may be old, and nothing can be committed",
                self.votes()
            ));
        }
        facts
    }

    /// Since when its I/O waits, as its primary says.
    fn frozen_since_ms(&self) -> Option<u64> {
        let primary = self.record.primary?;
        self.facts.runtime(primary.node, self.id)?.frozen_since_ms
    }

    /// The grants that something waits for, as the nodes that answer say.
    fn grants(&self) -> Vec<String> {
        let said = self.record.replicas.iter();
        let said = said.filter_map(|node| self.facts.runtime(*node, self.id));
        said.flat_map(|runtime| &runtime.grants)
            .map(|grant| {
                let from = match grant.from {
                    Some(node) => format!("the grant of {}", self.facts.node_name(NodeId(node))),
                    None => "kvdb's grant".to_owned(),
                };
                let to = self.facts.node_name(NodeId(grant.to));
                match grant.ends_in_ms {
                    0 => format!("{from} to {to} is over: {to} answers nothing until it has the next one, or a set that does without"),
                    left => format!(
                        "{from} to {to} runs out in {:.1} s: until then no other primary serves",
                        left as f64 / 1e3
                    ),
                }
            })
            .collect()
    }

    fn service(&self) -> String {
        let shown = self.shown;
        let primary = shown.primary.as_deref().unwrap_or("its primary");
        match shown.service {
            ServiceState::Idle => "nobody has it open, so it has no primary".to_owned(),
            ServiceState::Serving => format!("{primary} orders and answers its I/O"),
            ServiceState::Opening => {
                format!("{primary} is about to serve it: {}", shown.reason)
            }
            ServiceState::Frozen => format!("its I/O waits at {primary}: {}", shown.reason),
            ServiceState::Stopped if self.is_unproven() => shown.reason.clone(),
            ServiceState::Stopped => format!("{primary} does not serve it: {}", shown.reason),
            ServiceState::Unknown => shown.reason.clone(),
        }
    }

    fn rule(&self) -> String {
        let suspend = self.shown.on_peer_loss == OnPeerLoss::Suspend;
        match self.shown.service {
            ServiceState::Idle => {
                "a replica becomes primary when a client opens the volume (NBD GO) at its node, and only if it is in sync".to_owned()
            }
            ServiceState::Serving => String::new(),
            ServiceState::Opening => {
                "a new primary serves once every grant of the epoch before is over and all members hold the same blocks (I3, I5)".to_owned()
            }
            ServiceState::Frozen if suspend => {
                "a write is answered once every member of the in-sync set holds it (I1); under the policy `suspend` a member that is \
                 lost stays in the set until it is back or its domain is deactivated"
                    .to_owned()
            }
            ServiceState::Frozen => {
                "a write is answered once every member of the in-sync set holds it (I1); a member leaves the set by a commit of kvdb \
                 only (I2)"
                    .to_owned()
            }
            ServiceState::Stopped if self.is_unproven() => {
                "the node from which a generation was forced may not have heard of the last changes of the set: so an operator has to \
                 say which replica counts"
                    .to_owned()
            }
            ServiceState::Stopped => {
                "a replica that can't vouch for its data serves nothing (I10)".to_owned()
            }
            ServiceState::Unknown => {
                "nobody takes over from a primary across sites by itself: it may serve where nobody sees it (promise 2)".to_owned()
            }
        }
    }

    fn is_unproven(&self) -> bool {
        self.facts.catalog.unproven.contains(&self.id)
    }

    fn name_one(&self) -> Vec<Remedy> {
        let name = &self.shown.name;
        let show = remedy(
            format!("domain-ctl recover volume {name}"),
            "shows what each replica holds; changes nothing",
        );
        let holders = self.shown.replicas.iter().map(|replica| {
            remedy(
                format!("domain-ctl recover volume {name} --from {}", replica.node),
                "this replica alone counts from then on: what only others hold is given up, and they are copied over",
            )
        });
        std::iter::once(show).chain(holders).collect()
    }

    fn service_remedies(&self) -> Vec<Remedy> {
        match self.shown.service {
            ServiceState::Idle => self
                .shown
                .nbd
                .iter()
                .map(|address| {
                    remedy(
                        format!("open {address}"),
                        "that node's replica becomes primary",
                    )
                })
                .collect(),
            ServiceState::Serving | ServiceState::Opening => Vec::new(),
            ServiceState::Stopped if self.is_unproven() => self.name_one(),
            ServiceState::Frozen | ServiceState::Unknown | ServiceState::Stopped => self.unfreeze(),
        }
    }

    /// What lets I/O go on.
    fn unfreeze(&self) -> Vec<Remedy> {
        let mut remedies = Vec::new();
        let silent = self.silent_members();
        if !silent.is_empty() {
            let names: Vec<String> = silent
                .iter()
                .map(|node| self.facts.node_name(*node))
                .collect();
            remedies.push(remedy(
                format!("start {}", all_of(&names)),
                "I/O goes on by itself once it answers; nothing is lost",
            ));
        }
        let domains: BTreeSet<DomainId> = silent
            .iter()
            .filter_map(|node| self.facts.catalog.nodes.get(node))
            .map(|node| node.domain)
            .collect();
        remedies.extend(domains.into_iter().map(|domain| self.without(domain)));
        if !self.facts.confirmed {
            remedies.push(remedy(
                "domain-ctl get nodes",
                format!("shows which of kvdb's voters to start: {}", self.votes()),
            ));
        }
        remedies
    }

    /// What deactivating a domain would mean for this volume.
    fn without(&self, domain: DomainId) -> Remedy {
        let name = self.facts.domain_name(domain);
        let elsewhere: Vec<String> = self
            .record
            .in_sync
            .iter()
            .filter(|replica| {
                let node = self.facts.catalog.nodes.get(&replica.node);
                node.is_some_and(|node| node.domain != domain)
                    && self.facts.in_active_domain(replica.node)
                    && self.facts.answers(replica.node)
            })
            .map(|replica| self.facts.node_name(replica.node))
            .collect();
        let consequence = if elsewhere.is_empty() {
            format!(
                "is refused for this volume: no in-sync replica outside {name} answers, so its latest writes would be given up"
            )
        } else {
            format!(
                "{name} is fenced (a lease at most), then {} serves every acknowledged write; {name} serves nothing until it is activated",
                all_of(&elsewhere)
            )
        };
        remedy(deactivate(&name), consequence)
    }

    fn sync_remedies(&self) -> Vec<Remedy> {
        let mut remedies = Vec::new();
        for (replica, node) in self.shown.replicas.iter().zip(&self.record.replicas) {
            match replica.state {
                ReplicaState::InSync | ReplicaState::Resyncing { .. } => continue,
                ReplicaState::NotInSync { .. } | ReplicaState::Unknown => {}
            }
            if !self.facts.in_active_domain(*node) {
                remedies.push(remedy(
                    activate(&replica.domain),
                    format!(
                        "{} is brought back: what changed meanwhile is copied",
                        replica.node
                    ),
                ));
            } else if !self.facts.answers(*node) {
                remedies.push(remedy(
                    format!("start {}", replica.node),
                    "it is brought back by itself: what changed meanwhile is copied",
                ));
            }
        }
        remedies
    }

    fn silent_members(&self) -> Vec<NodeId> {
        let members = self.record.in_sync.iter().chain(&self.record.primary);
        let silent = members
            .map(|replica| replica.node)
            .filter(|node| !self.facts.answers(*node));
        Vec::from_iter(silent.collect::<BTreeSet<_>>())
    }

    fn votes(&self) -> String {
        let voters = &self.facts.kvdb.voters;
        let answering = voters
            .iter()
            .filter(|id| self.facts.answers(NodeId(**id)))
            .count();
        format!("{answering} of {} answer", voters.len())
    }
}

fn lacking(replica: &Replica) -> String {
    let lack = match &replica.state {
        ReplicaState::InSync => "is in sync".to_owned(),
        ReplicaState::Resyncing {
            done_bytes,
            total_bytes,
            ..
        } => format!(
            "is being brought back, {} of {} done",
            size::format(*done_bytes),
            size::format(*total_bytes)
        ),
        ReplicaState::NotInSync {
            dirty_bytes: Some(bytes),
            ..
        } => format!("lacks up to {}", size::format(*bytes)),
        ReplicaState::NotInSync { .. } => "lacks acknowledged writes".to_owned(),
        ReplicaState::Unknown => "is in a state that nobody who answers knows".to_owned(),
    };
    let reason = if replica.reason.is_empty() {
        String::new()
    } else {
        format!(": {}", replica.reason)
    };
    format!(
        "the replica at {} ({}) {lack}{reason}",
        replica.node, replica.domain
    )
}

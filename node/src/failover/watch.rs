//! What the node that leads kvdb finds it should do: pure.

use crate::api::access::Observations;
use crate::api::facts::answering;
use isthmus_api::{VolumeRole, VolumeRuntime};
use isthmus_catalog::{
    Catalog, Command, DomainRole, DomainState, FailoverReport, Relocation, UpdateStatus,
};
use isthmus_engine::{DomainId, NodeId, Time, VolumeId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a moved volume waits for a client at its goal.
pub const RELOCATION_TIME_MAX: Duration = Duration::from_secs(60);
/// How long the goal of a move may be silent before the move is off.
pub const GOAL_SILENCE_MAX: Duration = Duration::from_secs(3);

/// What the policy says.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Whether a lost data domain is deactivated without an operator.
    pub automatic: bool,
    /// For how long nobody must have heard it; and for how long it must have answered before it is activated again.
    pub after: Duration,
    /// Whether it is activated again by itself.
    pub auto_activate: bool,
}

/// What is decided by.
pub struct View<'a> {
    /// The confirmed catalog.
    pub catalog: &'a Catalog,
    /// Who votes in kvdb now.
    pub voters: &'a BTreeSet<NodeId>,
    /// What the nodes say.
    pub observations: &'a Observations,
    /// The nodes that answer, with the stores that kvdb counts on.
    pub answering: &'a BTreeSet<NodeId>,
    /// This machine's time.
    pub now: Time,
}

/// What this leader has seen so far.
#[derive(Debug, Default)]
pub struct Watch {
    /// Since when nobody has heard any node of a domain.
    silent: BTreeMap<DomainId, Time>,
    /// Since when all nodes of a domain answer.
    back: BTreeMap<DomainId, Time>,
    /// Since when a volume is being moved, and its goal was heard last.
    moves: BTreeMap<VolumeId, (Relocation, Time, Time)>,
    /// Why the policy does not act, by domain: so that it is said once.
    kept: BTreeMap<DomainId, String>,
}

/// What to do, and what to tell people.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// For kvdb.
    pub commands: Vec<(Command, String)>,
    /// For the log.
    pub notes: Vec<String>,
}

impl Watch {
    /// Looks again.
    pub fn look(&mut self, view: &View<'_>, policy: Policy) -> Findings {
        let mut findings = Findings::default();
        if policy.automatic {
            self.look_for_lost_domains(view, policy, &mut findings);
        }
        if policy.automatic && policy.auto_activate {
            self.look_for_returned_domains(view, policy, &mut findings);
        }
        self.look_at_moves(view, &mut findings);
        note_positions(view, &mut findings);
        findings
    }

    fn look_for_lost_domains(&mut self, view: &View<'_>, policy: Policy, findings: &mut Findings) {
        let data = view.catalog.domains.iter().filter(|(_, domain)| {
            domain.role == DomainRole::Data && domain.state == DomainState::Active
        });
        let lost: BTreeSet<DomainId> = data
            .filter(|(id, _)| is_lost(view, **id))
            .map(|(id, _)| *id)
            .collect();
        self.silent.retain(|id, _| lost.contains(id));
        self.kept.retain(|id, _| lost.contains(id));
        for id in lost {
            let since = *self.silent.entry(id).or_insert(view.now);
            let silence = view.now.since(since);
            if silence < policy.after {
                continue;
            }
            let answering = view.answering.clone();
            match view.catalog.plan_deactivation(id, &answering) {
                Ok(plan) if plan.lost.is_empty() => {
                    let command = Command::FailOver {
                        domain: id,
                        answering,
                    };
                    let why = format!(
                        "failover policy: no voter has heard it for {} ms",
                        silence.as_millis()
                    );
                    findings.commands.push((command, why));
                }
                Ok(plan) => {
                    let text = format!(
                        "{} volumes would be left without an in-sync replica that answers",
                        plan.lost.len()
                    );
                    self.keep(view.catalog, id, text, findings);
                }
                Err(refusal) => self.keep(view.catalog, id, refusal.to_string(), findings),
            }
        }
    }

    fn keep(&mut self, catalog: &Catalog, id: DomainId, why: String, findings: &mut Findings) {
        if self.kept.get(&id) != Some(&why) {
            let name = catalog.domains.get(&id).map_or("?", |domain| &domain.name);
            findings.notes.push(format!(
                "the failover policy leaves cluster domain {name} as it is: {why}"
            ));
            self.kept.insert(id, why);
        }
    }

    fn look_for_returned_domains(
        &mut self,
        view: &View<'_>,
        policy: Policy,
        findings: &mut Findings,
    ) {
        let returned: BTreeSet<DomainId> = view
            .catalog
            .domains
            .iter()
            .filter(|(id, domain)| {
                domain.state == DomainState::Inactive
                    && failed_over_by_policy(view.catalog, **id)
                    && nodes_of(view.catalog, **id).all(|node| view.answering.contains(&node))
            })
            .map(|(id, _)| *id)
            .collect();
        self.back.retain(|id, _| returned.contains(id));
        for id in returned {
            let since = *self.back.entry(id).or_insert(view.now);
            if view.now.since(since) >= policy.after {
                let why = "failover policy: auto_activate".to_owned();
                findings
                    .commands
                    .push((Command::Activate { domain: id }, why));
            }
        }
    }

    fn look_at_moves(&mut self, view: &View<'_>, findings: &mut Findings) {
        let wanted = &view.catalog.relocations;
        self.moves
            .retain(|volume, (relocation, ..)| wanted.get(volume) == Some(relocation));
        for (volume, relocation) in wanted {
            let (_, since, heard) =
                self.moves
                    .entry(*volume)
                    .or_insert((*relocation, view.now, view.now));
            let goal = runtime(view.observations, relocation.to, *volume);
            if view.answering.contains(&relocation.to) && goal.is_none_or(can_serve) {
                *heard = view.now;
            }
            let has_come = runtime(view.observations, relocation.to, *volume)
                .is_some_and(|runtime| runtime.welcomed);
            let why = if has_come {
                "a client has come"
            } else if view.now.since(*heard) >= GOAL_SILENCE_MAX {
                "its goal does not answer, or can't serve it"
            } else if view.now.since(*since) >= RELOCATION_TIME_MAX {
                "no client came in time"
            } else {
                continue;
            };
            let command = Command::EndRelocation {
                volume: *volume,
                to: relocation.to,
            };
            findings.commands.push((command, why.to_owned()));
        }
    }
}

/// Whether a replica's disk lets it serve.
pub fn can_serve(runtime: &VolumeRuntime) -> bool {
    let is_broken = matches!(runtime.role, VolumeRole::Unable | VolumeRole::Stopped);
    !is_broken && runtime.disk.fault.is_none()
}

/// Whether it is known that nobody hears any node of the domain: all voters outside it answer, and none of them, nor any other node that
/// answers, has a session with one.
fn is_lost(view: &View<'_>, domain: DomainId) -> bool {
    let nodes: BTreeSet<NodeId> = nodes_of(view.catalog, domain).collect();
    let answering = answering(view.observations);
    let voters_answer = view
        .voters
        .iter()
        .all(|voter| nodes.contains(voter) || answering.contains(voter));
    // Who does not say what it hears, may hear it.
    let may_hear = |other: &NodeId, node: &NodeId| {
        view.observations
            .get(other)
            .and_then(|observation| observation.runtime.as_ref()?.sessions.as_ref())
            .is_none_or(|sessions| sessions.contains(&node.0))
    };
    let is_heard = |node: &NodeId| {
        answering.contains(node) || answering.iter().any(|other| may_hear(other, node))
    };
    voters_answer && !nodes.is_empty() && !nodes.iter().any(is_heard)
}

/// Those whose loss is the domain's: a diskless node alone serves nothing. (What it hears of the others counts.)
fn nodes_of(catalog: &Catalog, domain: DomainId) -> impl Iterator<Item = NodeId> {
    catalog.nodes_with_store(domain).map(|(id, _)| id)
}

/// Whether the domain's last update is a deactivation by the policy, and done.
fn failed_over_by_policy(catalog: &Catalog, domain: DomainId) -> bool {
    let last = catalog
        .updates
        .iter()
        .rev()
        .find(|update| update.domain == domain)
        .filter(|update| update.status == UpdateStatus::Successful);
    last.is_some_and(|update| {
        let mut reports = catalog.failovers.iter();
        reports.any(|report| report.automatic && report.name == update.name)
    })
}

fn runtime(observations: &Observations, node: NodeId, volume: VolumeId) -> Option<&VolumeRuntime> {
    let observation = observations
        .get(&node)
        .filter(|observation| observation.answers)?;
    let volumes = &observation.runtime.as_ref()?.volumes;
    volumes.iter().find(|runtime| runtime.volume == volume.0)
}

/// Adds to the newest failover's report what its survivors know as committed, once they say so.
fn note_positions(view: &View<'_>, findings: &mut Findings) {
    let Some(report) = view.catalog.failovers.back() else {
        return;
    };
    let positions = positions(view.observations, report);
    if !positions.is_empty() {
        let command = Command::NoteFailover {
            name: report.name.clone(),
            positions,
        };
        findings.commands.push((command, report.name.clone()));
    }
}

fn positions(observations: &Observations, report: &FailoverReport) -> Vec<(VolumeId, u64)> {
    let missing = report
        .volumes
        .iter()
        .filter(|volume| volume.committed_seq.is_none());
    missing
        .filter_map(|volume| {
            let survivors = volume.in_sync_after.iter();
            let known = survivors
                .filter_map(|node| runtime(observations, *node, volume.volume))
                .map(|runtime| runtime.committed_seq);
            Some((volume.volume, known.max()?))
        })
        .collect()
}

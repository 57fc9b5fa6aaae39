//! The next step of a domain update: pure.

use crate::api::access::Observations;
use crate::api::facts::answering;
use crate::domains::fence::Fence;
use isthmus_catalog::{Catalog, Command, DomainUpdate, UpdateAction};
use isthmus_engine::{NodeId, Time};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long one leader tries before it gives an update up: long enough for a node to be started by hand.
pub const UPDATE_TIME_MAX: Duration = Duration::from_secs(600);

/// What the step is decided by.
pub struct View<'a> {
    /// The confirmed catalog.
    pub catalog: &'a Catalog,
    /// Who votes in kvdb now.
    pub voters: &'a BTreeSet<NodeId>,
    /// What the nodes say.
    pub observations: &'a Observations,
    /// This machine's time.
    pub now: Time,
    /// For how long a grant lasts.
    pub lease: Duration,
}

/// An update that this leader works on.
#[derive(Debug)]
pub struct Update {
    revision: u64,
    since: Time,
    fence: Fence,
}

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing yet: what it waits for, in words.
    Wait(String),
    /// This.
    Propose(Command),
}

impl Update {
    /// An update that this leader sees for the first time.
    pub fn new(catalog: &Catalog, now: Time) -> Update {
        Update {
            revision: catalog.revision,
            since: now,
            fence: Fence::new(catalog.revision),
        }
    }

    /// What to do now.
    pub fn step(&mut self, view: &View<'_>, record: &DomainUpdate) -> Step {
        let next = match record.action {
            UpdateAction::Deactivate => self.deactivation(view, record),
            UpdateAction::Activate => self.activation(view, record),
        };
        match next {
            Ok(command) => Step::Propose(command),
            Err(waits) if view.now.since(self.since) >= UPDATE_TIME_MAX => {
                let reason = format!(
                    "given up after {} minutes: {waits}",
                    UPDATE_TIME_MAX.as_secs() / 60
                );
                Step::Propose(Command::UpdateFailed {
                    domain: record.domain,
                    reason,
                })
            }
            Err(waits) => Step::Wait(waits),
        }
    }

    fn deactivation(&mut self, view: &View<'_>, record: &DomainUpdate) -> Result<Command, String> {
        // Both run at the same time; what is missing in both is said.
        let votes = votes_moved(view);
        let fence = self.fence.prove(
            view.catalog,
            record.domain,
            view.observations,
            view.now,
            view.lease,
        );
        match (votes, fence) {
            (Ok(()), Ok(proof)) => Ok(Command::Deactivated {
                domain: record.domain,
                proof: proof.into_text(),
            }),
            (Err(votes), Err(fence)) => Err(format!("{fence}; {votes}")),
            (Err(waits), Ok(_)) | (Ok(()), Err(waits)) => Err(waits),
        }
    }

    fn activation(&mut self, view: &View<'_>, record: &DomainUpdate) -> Result<Command, String> {
        let mut nodes = view.catalog.nodes_with_store(record.domain).peekable();
        // Where all nodes are diskless there is nothing that has to catch up.
        let (mut answers, mut silent) = (nodes.peek().is_none(), Vec::new());
        for (id, node) in nodes {
            let observation = view
                .observations
                .get(&id)
                .filter(|observation| observation.answers);
            let Some(runtime) = observation.and_then(|observation| observation.runtime.as_ref())
            else {
                silent.push(node.name.as_str());
                continue;
            };
            if runtime.acted_on_revision < self.revision {
                return Err(format!("{} catches up with kvdb", node.name));
            }
            answers = true;
        }
        if !answers {
            return Err(format!(
                "none of its nodes answers: start {}",
                silent.join(" or ")
            ));
        }
        votes_moved(view)?;
        Ok(Command::Activated {
            domain: record.domain,
        })
    }
}

fn votes_moved(view: &View<'_>) -> Result<(), String> {
    let wanted = view
        .catalog
        .voters(&answering(view.observations), view.voters);
    if wanted == *view.voters {
        return Ok(());
    }
    let names: Vec<&str> = wanted
        .iter()
        .filter_map(|id| view.catalog.nodes.get(id))
        .map(|node| node.name.as_str())
        .collect();
    Err(format!("kvdb's votes move to {}", names.join(", ")))
}

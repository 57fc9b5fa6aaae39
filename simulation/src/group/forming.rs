//! A new cluster of two data nodes and a witness.

use super::{Formation, Group, MEMBERS, Output};
use crate::schedule::{MILLISECOND, SECOND};
use isthmus_catalog::{Answer, Command, DomainRecord, DomainRole, DomainState, NodeRecord};
use isthmus_engine::{DomainId, Incarnation, NodeId};
use std::time::Duration;

/// How long forming may take.
const FORMING_TIME_MAX: u64 = 60 * SECOND;

/// Sites a and b with a node each, and the witness.
#[must_use]
pub fn formation() -> Formation {
    let domain = |number: u32, name: &str, role: DomainRole| {
        let record = DomainRecord {
            name: name.to_owned(),
            role,
            state: DomainState::Active,
            since_ms: 0,
            created_ms: 0,
        };
        (DomainId(number), record)
    };
    let node = |number: u32, name: &str| {
        let record = NodeRecord {
            name: name.to_owned(),
            domain: DomainId(number),
            peer_address: String::new(),
            api_address: String::new(),
            nbd_address: None,
            incarnation: None,
            starts: 0,
        };
        (NodeId(number), record)
    };
    Formation {
        domains: [
            domain(1, "site-a", DomainRole::Data),
            domain(2, "site-b", DomainRole::Data),
            domain(3, "witness", DomainRole::Witness),
        ]
        .into(),
        nodes: [node(1, "a1"), node(2, "b1"), node(3, "w1")].into(),
    }
}

impl Group {
    /// Starts all members for the first time, and lets them form a cluster in which all three vote.
    ///
    /// # Errors
    /// When that is not done in a minute, or a rule breaks.
    pub fn form(
        &mut self,
        incarnations: [Incarnation; MEMBERS],
        starts: [u64; MEMBERS],
    ) -> Result<(), String> {
        for index in 0..MEMBERS {
            let formation = (index == 0).then(formation);
            self.start(index, incarnations[index], starts[index], formation);
        }
        self.until("all vote", |group| {
            (0..MEMBERS).all(|index| {
                group
                    .metrics(index)
                    .is_some_and(|metrics| metrics.voters.len() == MEMBERS && !metrics.is_changing)
            })
        })
    }

    /// Proposes at a running member until there is an answer.
    ///
    /// # Errors
    /// When there is none in a minute, or a rule breaks.
    pub fn propose_now(&mut self, command: &Command) -> Result<Answer, String> {
        for token in u64::MAX / 2.. {
            let asked = (0..MEMBERS)
                .any(|index| self.propose(index, token, command.clone(), Duration::from_secs(5)));
            if !asked {
                return Err("no member runs".to_owned());
            }
            let mut found = None;
            self.until("a proposal is answered", |group| {
                for output in group.take_outputs() {
                    if let Output::Proposed {
                        token: of, result, ..
                    } = output
                        && of == token
                    {
                        found = Some(result);
                    }
                }
                found.is_some()
            })?;
            if let Some(Ok(answer)) = found {
                return Ok(answer);
            }
        }
        Err("there are no more tokens".to_owned())
    }

    /// Lets time pass until something is so.
    ///
    /// # Errors
    /// When that is not so in a minute, or a rule breaks.
    pub fn until(
        &mut self,
        what: &str,
        mut is_so: impl FnMut(&mut Group) -> bool,
    ) -> Result<(), String> {
        let deadline = self.now() + FORMING_TIME_MAX;
        while !is_so(self) {
            if let Some(broken) = self.failure() {
                return Err(broken);
            }
            if self.now() >= deadline {
                let metrics: Vec<_> = (0..MEMBERS).map(|index| self.metrics(index)).collect();
                return Err(format!("it takes too long until {what}: {metrics:?}"));
            }
            self.advance(self.now() + 10 * MILLISECOND);
        }
        Ok(())
    }
}

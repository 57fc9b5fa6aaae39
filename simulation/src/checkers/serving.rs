//! Nothing is answered by a node of an inactive domain, nor by any node but the one that kvdb has opened last.
//!
//! Why it must hold: "deactivated" is what the operator is told when the fence is proven, and what he acts by (I8, promise 6); and
//! from when a new primary is opened, another's answers are a split brain (promise 2, I3). The exceptions, with clocks outside of
//! their bound, are answers that are true however late: a change that was asked for before and that all members held by then, and a
//! flush (see `acknowledging`).

use super::{Kind, Operation, Stamp};
use isthmus_catalog::DomainState;
use isthmus_engine::{Epoch, NodeId, VolumeId};
use std::collections::BTreeMap;

/// Who may answer.
#[derive(Debug, Default)]
pub struct Serving {
    /// Since when.
    inactive: BTreeMap<NodeId, Stamp>,
    /// And since when.
    opened: BTreeMap<VolumeId, (Epoch, NodeId, Stamp)>,
}

impl Serving {
    /// kvdb has committed that a primary serves.
    pub fn opened(&mut self, now: Stamp, volume: VolumeId, epoch: Epoch, primary: NodeId) {
        self.opened.insert(volume, (epoch, primary, now));
    }

    /// kvdb has committed a new state of a node's domain.
    pub fn domain_state(&mut self, now: Stamp, node: NodeId, state: Option<DomainState>) {
        if matches!(state, Some(DomainState::Inactive | DomainState::Activating)) {
            self.inactive.entry(node).or_insert(now);
        } else {
            self.inactive.remove(&node);
        }
    }

    /// A node has answered an operation well.
    ///
    /// # Errors
    /// When it must not.
    pub fn answered(
        &self,
        operation: &Operation,
        node: NodeId,
        late_is_fine: bool,
    ) -> Result<(), String> {
        let Operation {
            kind,
            number,
            volume,
            begun,
            ..
        } = operation;
        let is_late = |since: Stamp| {
            late_is_fine
                && match kind {
                    Kind::Read => false,
                    Kind::Flush => true,
                    _ => *begun < since,
                }
        };
        if let Some(since) = self.inactive.get(&node)
            && !is_late(*since)
        {
            return Err(format!(
                "{node} answers {kind:?} {number} of {volume}, but its domain is proven inactive"
            ));
        }
        match self.opened.get(volume) {
            Some((_, primary, since)) if *primary == node || is_late(*since) => Ok(()),
            Some((epoch, primary, _)) => Err(format!(
                "{node} answers {kind:?} {number} of {volume}, but {primary} was opened under epoch {epoch}"
            )),
            None => Err(format!(
                "{node} answers for {volume}, which nobody has opened"
            )),
        }
    }
}

//! Nothing is answered by a node of an inactive domain, nor by any node but the one that kvdb has opened last.
//!
//! Why it must hold: "deactivated" is what the operator is told when the fence is proven, and what he acts by (I8, promise 6); and
//! from when a new primary is opened, another's answers are a split brain (promise 2, I3).

use isthmus_catalog::DomainState;
use isthmus_engine::{Epoch, NodeId, VolumeId};
use std::collections::{BTreeMap, BTreeSet};

/// Who may answer.
#[derive(Debug, Default)]
pub struct Serving {
    inactive: BTreeSet<NodeId>,
    opened: BTreeMap<VolumeId, (Epoch, NodeId)>,
}

impl Serving {
    /// kvdb has committed that a primary serves.
    pub fn opened(&mut self, volume: VolumeId, epoch: Epoch, primary: NodeId) {
        self.opened.insert(volume, (epoch, primary));
    }

    /// kvdb has committed a new state of a node's domain.
    pub fn domain_state(&mut self, node: NodeId, state: Option<DomainState>) {
        if matches!(state, Some(DomainState::Inactive | DomainState::Activating)) {
            self.inactive.insert(node);
        } else {
            self.inactive.remove(&node);
        }
    }

    /// A node has answered an operation well.
    ///
    /// # Errors
    /// When it must not.
    pub fn answered(&self, volume: VolumeId, node: NodeId) -> Result<(), String> {
        if self.inactive.contains(&node) {
            return Err(format!(
                "{node} answers for {volume}, but its domain is proven inactive"
            ));
        }
        match self.opened.get(&volume) {
            Some((_, primary)) if *primary == node => Ok(()),
            Some((epoch, primary)) => Err(format!(
                "{node} answers for {volume}, but {primary} was opened under epoch {epoch}"
            )),
            None => Err(format!(
                "{node} answers for {volume}, which nobody has opened"
            )),
        }
    }
}

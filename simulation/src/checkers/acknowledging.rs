//! At most one primary answers under an epoch, and the epochs under which a volume is answered never go back.
//!
//! Why it must hold: the epoch is the fencing token. Were an answer given under an older epoch after one under a newer, the older
//! primary's reads could miss what the newer one acknowledged, and what it acknowledges itself could be lost (promises 1 to 3; I1, I4).
//! Two primaries under one epoch would order two writes at one place.

use isthmus_engine::{Epoch, NodeId, VolumeId};
use std::collections::BTreeMap;

/// Who answered last, under which epoch.
#[derive(Debug, Default)]
pub struct Acknowledging {
    last: BTreeMap<VolumeId, (Epoch, NodeId)>,
}

impl Acknowledging {
    /// A node has answered an operation well.
    ///
    /// # Errors
    /// When another node did under this epoch, or anybody under a later one.
    pub fn answered(&mut self, volume: VolumeId, node: NodeId, epoch: Epoch) -> Result<(), String> {
        if let Some((last, who)) = self.last.get(&volume)
            && (epoch < *last || (epoch == *last && node != *who))
        {
            return Err(format!(
                "{node} answers for {volume} under epoch {epoch}, after {who} has under epoch {last}"
            ));
        }
        self.last.insert(volume, (epoch, node));
        Ok(())
    }
}

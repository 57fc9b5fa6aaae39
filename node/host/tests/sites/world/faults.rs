//! What goes wrong, what the operator does, and how all comes back.

use super::*;

impl World {
    pub(super) fn trouble(&mut self) {
        let node = self.random.below(NODES as u64) as usize;
        match self.random.below(12) {
            0 | 1 => self.crash(node, false),
            2 => self.crash(node, true),
            3 => {
                // The primary, which is what takes over are about.
                let primary = self.catalog().volumes[&VOLUME].primary;
                if let Some(primary) = primary {
                    self.crash(primary.node.0 as usize - 1, true);
                }
            }
            4 | 5 => {
                let other = self.random.below(NODES as u64) as usize;
                self.cut(node, other);
            }
            6 => {
                // A site from the other one.
                for (one, other) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
                    self.cut(one, other);
                }
            }
            7 | 8 => {
                self.nodes[node].reaches_kvdb = false;
                self.note(|| format!("n{} does not reach kvdb", node + 1));
                let delay = self.below(4000);
                self.later(delay, Event::Reachable(node));
            }
            9 => {
                let answering = (0..NODES).filter(|node| {
                    self.nodes[*node].host.is_some() && self.nodes[*node].registered
                });
                let answering = answering.map(node_id).collect();
                if self.commit(Command::RemoveReplica {
                    volume: VOLUME,
                    node: node_id(node),
                    answering,
                }) {
                    self.counts.removed += 1;
                }
            }
            10 => self.add_replica(node),
            _ => {
                let domain = site(node);
                let answering = (0..NODES).filter(|node| {
                    self.nodes[*node].host.is_some() && self.nodes[*node].reaches_kvdb
                });
                let answering = answering.map(node_id).collect();
                if self.commit(Command::Deactivate {
                    domain,
                    answering,
                    accept_data_loss: false,
                }) {
                    self.counts.deactivated += 1;
                    let delay = self.below(6000);
                    self.later(delay, Event::Activate(domain));
                }
            }
        }
    }

    pub(super) fn add_replica(&mut self, node: usize) {
        let holds = self.catalog().volumes[&VOLUME]
            .replicas
            .contains(&node_id(node));
        let command = Command::AddReplica {
            volume: VOLUME,
            node: node_id(node),
        };
        if !holds && self.commit(command) {
            self.counts.added += 1;
        }
    }

    pub(super) fn cut(&mut self, one: usize, other: usize) {
        let pair = (one.min(other), one.max(other));
        if one == other || !self.cut.insert(pair) {
            return;
        }
        self.counts.cuts += 1;
        self.note(|| {
            format!(
                "n{} and n{} are cut off from each other",
                one + 1,
                other + 1
            )
        });
        self.disconnect(one, other, 400);
        let delay = 500 * MS + self.below(4000);
        self.later(delay, Event::Heal(pair.0, pair.1));
    }

    /// Everything comes back, by and by.
    pub(super) fn heal(&mut self) {
        if !self.random.chance(1, 500) {
            return;
        }
        for node in 0..NODES {
            self.add_replica(node);
        }
        for domain in [DomainId(1), DomainId(2)] {
            let state = self.catalog().domains[&domain].state;
            if matches!(state, DomainState::Deactivating | DomainState::Inactive) {
                self.happen(Event::Activate(domain));
            }
        }
    }

    pub(super) fn is_well(&self) -> bool {
        let volume = &self.catalog().volumes[&VOLUME];
        volume.in_sync.len() == NODES && self.nodes.iter().all(|node| node.host.is_some())
    }
}

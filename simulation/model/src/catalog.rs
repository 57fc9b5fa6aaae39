//! What kvdb allows, after `kvdb/catalog/src/apply/`: every change compares and sets on the epoch.

use crate::state::{DomainState, Kvdb, NOBODY, State, member, next_epoch};

impl Kvdb {
    /// Whether `primary` is the primary under exactly this epoch.
    fn is_led_by(&self, primary: usize, epoch: u8) -> bool {
        self.configuration.epoch == epoch && usize::from(self.configuration.primary) == primary
    }

    /// The primary has levelled its set, and serves.
    pub fn open(&mut self, primary: usize, epoch: u8) -> bool {
        if !self.is_led_by(primary, epoch) || self.configuration.opened {
            return false;
        }
        self.configuration.opened = true;
        self.released = false;
        self.follow_set();
        true
    }

    /// The primary goes on without some members.
    pub fn shrink(&mut self, primary: usize, epoch: u8, leaving: u8) -> bool {
        if !self.is_led_by(primary, epoch) || leaving & self.configuration.in_sync == 0 {
            return false;
        }
        self.configuration.epoch = next_epoch(epoch);
        self.configuration.in_sync &= !leaving;
        if self.configuration.opened {
            self.follow_set();
        }
        true
    }

    /// The primary drops a joiner that was asked for.
    pub fn renew(&mut self, primary: usize, epoch: u8) -> bool {
        if !self.is_led_by(primary, epoch) {
            return false;
        }
        self.configuration.epoch = next_epoch(epoch);
        true
    }

    /// The primary has given its rights back.
    pub fn release(&mut self, primary: usize, epoch: u8) -> bool {
        if !self.is_led_by(primary, epoch) {
            return false;
        }
        self.end_released();
        true
    }

    /// The registered replica of a node.
    #[must_use]
    pub fn registered_name(&self, node: usize) -> u8 {
        member(node, self.registered >> node & 1)
    }

    fn follow_set(&mut self) {
        self.opened_set = self.configuration.in_sync;
        self.granted_set = self.configuration.in_sync;
    }

    fn end_released(&mut self) {
        self.configuration.primary = NOBODY;
        if self.configuration.opened {
            self.released = true;
            self.granted_set = 0;
        }
    }

    fn end_taken(&mut self) {
        self.configuration.primary = NOBODY;
        self.released = false;
    }

    /// Takes replicas out of both sets, but empties neither.
    fn remove(&mut self, gone: u8) {
        let stay = self.opened_set & !gone;
        if stay == 0 {
            return;
        }
        let configuration = &mut self.configuration;
        configuration.in_sync &= !gone;
        if configuration.in_sync == 0 || (!configuration.opened && configuration.primary == NOBODY)
        {
            configuration.in_sync = stay;
        }
        self.opened_set = stay;
        if self.configuration.opened && self.configuration.primary != NOBODY {
            self.granted_set = self.configuration.in_sync;
        }
    }
}

impl<const N: usize> State<N> {
    /// Whether a node's domain is active (I8).
    #[must_use]
    pub fn is_active(&self, node: usize) -> bool {
        self.kvdb.domains[Self::domain(node)] == DomainState::Active
    }

    /// The registered replicas in active domains.
    #[must_use]
    pub fn eligible(&self) -> u8 {
        (0..N)
            .filter(|node| self.is_active(*node))
            .fold(0, |set, node| set | self.kvdb.registered_name(node))
    }

    /// The set under which `node` may be promoted (I3): the committed one, or before `opened` what is left of the last opened one.
    #[must_use]
    pub fn set_for_promotion(&self, node: usize) -> Option<u8> {
        let (kvdb, candidate) = (&self.kvdb, self.name(node));
        if self.eligible() & candidate == 0 {
            return None;
        }
        if kvdb.configuration.in_sync & candidate != 0 {
            return Some(kvdb.configuration.in_sync);
        }
        if kvdb.configuration.opened || kvdb.opened_set & candidate == 0 {
            return None;
        }
        Some(kvdb.opened_set & self.eligible())
    }

    /// Commits a promotion under `in_sync`.
    pub fn promote(&mut self, node: usize, in_sync: u8) {
        let before = self.kvdb.configuration.primary;
        if before != NOBODY && usize::from(before) != node {
            self.kvdb.end_taken();
        }
        let configuration = &mut self.kvdb.configuration;
        configuration.epoch = next_epoch(configuration.epoch);
        configuration.primary = node as u8;
        configuration.opened = false;
        configuration.in_sync = in_sync;
    }

    /// Commits a growth by `joining`, if kvdb allows it.
    pub fn grow(&mut self, primary: usize, epoch: u8, joining: u8) -> bool {
        if !self.kvdb.is_led_by(primary, epoch)
            || !self.kvdb.configuration.opened
            || self.eligible() & joining == 0
            || self.kvdb.configuration.in_sync & joining != 0
        {
            return false;
        }
        self.kvdb.configuration.epoch = next_epoch(epoch);
        self.kvdb.configuration.in_sync |= joining;
        self.kvdb.follow_set();
        true
    }

    /// A node's process has started on its store (I12).
    pub fn register(&mut self, node: usize) {
        let name = self.name(node);
        let known = self.kvdb.registered_name(node);
        let kvdb = &mut self.kvdb;
        let leads = usize::from(kvdb.configuration.primary) == node;
        if name == known {
            if leads {
                kvdb.end_released();
            }
            return;
        }
        if (kvdb.configuration.in_sync | kvdb.opened_set) & known != 0 {
            kvdb.configuration.epoch = next_epoch(kvdb.configuration.epoch);
            if leads {
                kvdb.end_taken();
            }
            kvdb.remove(known);
        }
        kvdb.registered ^= 1 << node;
    }

    /// Whether deactivating a domain leaves an in-sync replica that answers.
    #[must_use]
    pub fn may_deactivate(&self, domain: usize) -> bool {
        let configuration = &self.kvdb.configuration;
        let counts = configuration.in_sync
            | if configuration.opened {
                0
            } else {
                self.kvdb.opened_set
            };
        self.kvdb.domains == [DomainState::Active; 2]
            && (0..N).any(|node| {
                Self::domain(node) != domain
                    && self.replicas[node].is_up()
                    && self.replicas[node].view.is_some()
                    && counts & self.kvdb.registered_name(node) != 0
            })
    }

    /// Commits the first step of a deactivation: the domain is out of every set.
    pub fn deactivate(&mut self, domain: usize) {
        let gone = (0..N)
            .filter(|node| Self::domain(*node) == domain)
            .fold(0, |set, node| set | member(node, 0) | member(node, 1));
        let kvdb = &mut self.kvdb;
        kvdb.configuration.epoch = next_epoch(kvdb.configuration.epoch);
        if nodes_hold(gone, kvdb.configuration.primary) {
            kvdb.end_taken();
        }
        kvdb.remove(gone);
        kvdb.domains[domain] = DomainState::Deactivating;
        kvdb.deactivated_at = kvdb.configuration.epoch;
        kvdb.fencing = false;
    }

    /// The generation after a forced restart: the set is `node` alone, by the operator's word; every epoch is newer than all before.
    pub fn force(&mut self, node: usize, keeps_set: bool) {
        let named = self.name(node);
        let kvdb = &mut self.kvdb;
        let number = (next_epoch(kvdb.configuration.epoch)) & 15;
        kvdb.configuration.epoch = ((kvdb.configuration.epoch >> 4) + 1) << 4 | number;
        kvdb.configuration.primary = NOBODY;
        kvdb.configuration.opened = true;
        if !keeps_set {
            kvdb.configuration.in_sync = named;
            kvdb.opened_set = named;
        }
        kvdb.granted_set = 0;
        kvdb.released = true;
    }
}

fn nodes_hold(set: u8, node: u8) -> bool {
    node != NOBODY && crate::state::nodes(set) >> node & 1 == 1
}

//! One state of the whole cluster: kvdb, the replicas of one volume, and what their clients have seen.

use crate::bounds::Bounds;
use crate::log::{Log, POSITIONS};
use std::hash::{Hash, Hasher};

/// No replica.
pub const NOBODY: u8 = 15;
/// Blocks of the volume.
pub const BLOCKS: usize = 2;
/// All blocks, as a set.
pub const ALL_BLOCKS: u8 = 0b11;
/// Content that a newer record has overtaken: the answer under way is not written (resync).
pub const OVERTAKEN: u8 = 14;

/// The epoch after `epoch` in the same generation. The generation is the upper half.
#[must_use]
pub fn next_epoch(epoch: u8) -> u8 {
    assert!(epoch & 15 < 15, "bounds keep epochs below 16");
    epoch + 1
}

/// The name of a replica in sets: (node, incarnation) as one bit.
#[must_use]
pub fn member(node: usize, incarnation: u8) -> u8 {
    1 << (node + 4 * usize::from(incarnation))
}

/// The nodes of a set, whatever their incarnations.
#[must_use]
pub fn nodes(set: u8) -> u8 {
    (set | set >> 4) & 15
}

/// What an epoch stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// Its number, under its generation.
    pub epoch: u8,
    /// The primary's node.
    pub primary: u8,
    /// Whether the primary has reconciled its set.
    pub opened: bool,
    /// The members.
    pub in_sync: u8,
}

impl Configuration {
    /// The incarnation under which a node's replica is a member.
    #[must_use]
    pub fn incarnation(&self, node: usize) -> u8 {
        u8::from(self.in_sync & member(node, 1) != 0)
    }

    fn pack(&self, out: &mut Vec<u8>) {
        out.push(self.epoch);
        out.push(self.primary | u8::from(self.opened) << 4);
        out.push(self.in_sync);
    }
}

/// What a replica has heard from kvdb last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// The configuration.
    pub configuration: Configuration,
    /// The replicas that may be in sync.
    pub eligible: u8,
}

/// Where a domain is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainState {
    /// It may serve.
    Active,
    /// Out of every set; not yet proven to serve nothing.
    Deactivating,
    /// Proven to serve nothing.
    Inactive,
    /// Catching up.
    Activating,
}

/// The metadata store, atomic: it always has a majority, and each replica reaches it or not, step by step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kvdb {
    /// The newest configuration.
    pub configuration: Configuration,
    /// The set of the last opened epoch.
    pub opened_set: u8,
    /// The set whose grants the next primary sees out.
    pub granted_set: u8,
    /// Whether the last primary's rights were given back, or its process is known to be gone.
    pub released: bool,
    /// Both data domains.
    pub domains: [DomainState; 2],
    /// The incarnation registered of each node, a bit each.
    pub registered: u8,
    /// The epoch of the deactivation under way.
    pub deactivated_at: u8,
    /// Whether its leases run out now: no grant that a node of the domain holds from before is renewed.
    pub fencing: bool,
}

/// What a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Not running.
    Down,
    /// Neither primary nor following one.
    Idle,
    /// Behind a primary, aligned with its log; `joining` while it is not a member.
    Following {
        /// The primary's node.
        primary: u8,
        /// Whether it follows as a joiner.
        joining: bool,
    },
    /// Bringing the members' logs to the same end.
    Promoting,
    /// Serving clients.
    Serving,
    /// Rights are given back; kvdb is asked to note it.
    Releasing,
}

/// How a primary regards another replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Not at all.
    #[default]
    None,
    /// A joiner that copies.
    Joining,
    /// A joiner that has everything.
    Copied,
    /// A joiner that kvdb was asked to add: perhaps a member.
    Asked,
    /// A member of the set.
    InSet,
}

/// What a primary knows of another replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// How it counts.
    pub standing: Standing,
    /// The incarnation that it has for this primary.
    pub incarnation: u8,
    /// Whether records flow to it.
    pub aligned: bool,
    /// Mutation only: a shrink without it was asked for.
    pub leaving: bool,
    /// Its durable position, as it said on this session and under this epoch.
    pub acked: u8,
}

/// A dirty map of an absent replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AbsentMap {
    /// Which replica, as a set of one; 0: there is no map.
    pub of: u8,
    /// The position from which it is complete.
    pub from: u8,
    /// The blocks that may differ.
    pub blocks: u8,
}

/// A copied block on its way to a joiner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copy {
    /// Whether there is one.
    pub under_way: bool,
    /// The write whose content it is, or [`OVERTAKEN`].
    pub id: u8,
    /// The committed position that it reflects.
    pub as_of: u8,
}

/// One replica and the process that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica<const N: usize> {
    /// What it is now.
    pub role: Role,
    /// The incarnation that its store claims.
    pub incarnation: u8,
    /// How often its disk was really replaced.
    pub disk: u8,
    /// The newest configuration that it has taken.
    pub configuration: Configuration,
    /// The newest one that a crash leaves it: the same, but for a mutation.
    pub persisted: Configuration,
    /// Its log.
    pub log: Log,
    /// The last write applied to each block; 0: none.
    pub extents: [u8; BLOCKS],
    /// Whether the extents hold everything committed.
    pub whole: bool,
    /// Blocks still to be copied.
    pub todo: u8,
    /// Blocks to be copied again if it crashed now and no checkpoint was made since the join.
    pub todo_durable: u8,
    /// Its dirty maps, by node.
    pub maps: [AbsentMap; N],
    /// What it has heard from kvdb since its start.
    pub view: Option<View>,
    /// To whom it has a promise out.
    pub promised_to: u8,
    /// Under which epoch.
    pub promised_epoch: u8,
    /// As primary: the others.
    pub members: [Member; N],
    /// As primary: the nodes whose grants it holds.
    pub grants: u8,
    /// As primary: whether it holds kvdb's grant.
    pub kvdb_grant: bool,
    /// Grants that it holds from before the leases of its domain began to run out; bit 4 is kvdb's.
    pub old_grants: u8,
    /// As primary: writes that it has accepted and not answered.
    pub pending: u8,
    /// Mutation only: writes kept over a demotion.
    pub kept: u8,
    /// As joiner: copies on their way.
    pub copies: [Copy; BLOCKS],
}

/// What clients were told, and what is settled: the yardstick of the properties, no part of the protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Block of each write, a bit for each id.
    pub blocks: u8,
    /// Writes that were acknowledged, a bit for each id.
    pub acknowledged: u8,
    /// Writes whose outcome the client does not know: their primary was demoted or crashed.
    pub failed: u8,
    /// Writes that a forced generation gave up, by the operator's word.
    pub given_up: u8,
    /// The write committed at each position.
    pub committed: [u8; POSITIONS],
    /// How many positions are committed.
    pub committed_end: u8,
    /// The epoch of the last acknowledgement.
    pub last_epoch: u8,
    /// Who gave it.
    pub last_by: u8,
}

/// A rule that a step broke, where the state afterwards alone would not show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Broken {
    /// None.
    #[default]
    Nothing,
    /// Acknowledged without a counted member (I1).
    Unheld,
    /// Acknowledged without a member of kvdb's set (I2).
    Uncommitted,
    /// Acknowledged under an older epoch than before (I4).
    OldEpoch,
    /// Another write was committed at a position (I5).
    Recommitted,
    /// A write was ordered twice (I9).
    Replayed,
    /// A replica found what the rules say is impossible (I10).
    Damaged,
    /// Two primaries acknowledged under one epoch.
    TwoPrimaries,
    /// A forced generation named a member of the set and lost something.
    ForcedLoss,
}

/// The whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State<const N: usize> {
    /// The metadata store.
    pub kvdb: Kvdb,
    /// The replicas, by node.
    pub replicas: [Replica<N>; N],
    /// What clients were told.
    pub seen: Seen,
    /// What has happened already, of what may.
    pub spent: Bounds,
    /// What the last step broke.
    pub broken: Broken,
}

impl<const N: usize> Replica<N> {
    fn new(node: usize, in_sync: u8) -> Replica<N> {
        let configuration = Configuration {
            epoch: 1,
            primary: 0,
            opened: true,
            in_sync,
        };
        let mut members = [Member::default(); N];
        if node == 0 {
            for other in members.iter_mut().skip(1) {
                other.standing = Standing::InSet;
                other.aligned = true;
            }
        }
        Replica {
            role: if node == 0 {
                Role::Serving
            } else {
                Role::Following {
                    primary: 0,
                    joining: false,
                }
            },
            incarnation: 0,
            disk: 0,
            configuration,
            persisted: configuration,
            log: Log::default(),
            extents: [0; BLOCKS],
            whole: true,
            todo: 0,
            todo_durable: 0,
            maps: [AbsentMap::default(); N],
            view: Some(View {
                configuration,
                eligible: in_sync,
            }),
            promised_to: NOBODY,
            promised_epoch: 0,
            members,
            grants: 0,
            kvdb_grant: false,
            old_grants: 0,
            pending: 0,
            kept: 0,
            copies: [Copy::default(); BLOCKS],
        }
    }

    /// Whether its process runs.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.role != Role::Down
    }

    /// Whether it acts as primary, in any phase.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        matches!(self.role, Role::Promoting | Role::Serving | Role::Releasing)
    }

    /// Makes durable what its journal holds.
    pub fn sync(&mut self) {
        self.log.durable = self.log.end;
        self.persisted = self.configuration;
    }

    /// As promoted primary: whether every member holds what it holds, durably.
    #[must_use]
    pub fn is_level(&self) -> bool {
        let level = |member: &Member| {
            member.standing == Standing::None || (member.aligned && member.acked >= self.log.end)
        };
        self.members.iter().all(level)
    }

    /// Its blocks once its log is applied up to `through`.
    #[must_use]
    pub fn content(&self, seen: &Seen, through: u8) -> [u8; BLOCKS] {
        let mut content = self.extents;
        for position in self.log.committed + 1..=through.min(self.log.end) {
            let id = self.log.id(position);
            content[seen.block(id)] = id;
        }
        content
    }

    /// The blocks that its records after the committed position touch.
    #[must_use]
    pub fn doubtful(&self, seen: &Seen) -> u8 {
        (self.log.committed + 1..=self.log.end)
            .fold(0, |blocks, at| blocks | 1 << seen.block(self.log.id(at)))
    }

    fn pack(&self, out: &mut Vec<u8>) {
        let (role, leader) = match self.role {
            Role::Down => (0, 0),
            Role::Idle => (1, 0),
            Role::Following { primary, joining } => (2 + u8::from(joining), primary),
            Role::Promoting => (4, 0),
            Role::Serving => (5, 0),
            Role::Releasing => (6, 0),
        };
        let differs = self.persisted != self.configuration;
        out.push(role | leader << 4);
        out.push(
            self.incarnation
                | self.disk << 1
                | u8::from(self.whole) << 2
                | u8::from(self.kvdb_grant) << 4
                | u8::from(self.view.is_some()) << 5
                | u8::from(differs) << 6,
        );
        self.configuration.pack(out);
        if differs {
            self.persisted.pack(out);
        }
        self.log.pack(out);
        out.push(self.extents[0] | self.extents[1] << 4);
        out.push(self.todo | self.todo_durable << 2);
        for map in &self.maps {
            out.push(map.of);
            out.push(map.from | map.blocks << 4);
        }
        if let Some(view) = &self.view {
            view.configuration.pack(out);
            out.push(view.eligible);
        }
        out.push(self.promised_to | self.grants << 4);
        out.push(self.promised_epoch);
        for member in &self.members {
            out.push(
                member.standing as u8
                    | u8::from(member.aligned) << 3
                    | u8::from(member.leaving) << 4
                    | member.acked << 5,
            );
            out.push(member.incarnation);
        }
        out.push(self.old_grants);
        out.push(self.pending);
        out.push(self.kept);
        for copy in &self.copies {
            out.push(u8::from(copy.under_way) | copy.id << 1 | copy.as_of << 5);
        }
    }
}

impl Seen {
    /// The block of a write.
    #[must_use]
    pub fn block(&self, id: u8) -> usize {
        usize::from(self.blocks >> id & 1)
    }

    /// The writes committed so far, in order.
    pub fn order(&self) -> impl DoubleEndedIterator<Item = u8> + '_ {
        self.committed
            .iter()
            .copied()
            .take(usize::from(self.committed_end))
    }

    /// Where a write is committed, or 0.
    #[must_use]
    pub fn position(&self, id: u8) -> u8 {
        let found = self.order().position(|committed| committed == id);
        found.map_or(0, |index| index as u8 + 1)
    }

    /// The blocks once everything committed up to `through` is applied.
    #[must_use]
    pub fn content(&self, through: u8) -> [u8; BLOCKS] {
        let mut content = [0; BLOCKS];
        for id in self.order().take(usize::from(through)) {
            content[self.block(id)] = id;
        }
        content
    }
}

impl<const N: usize> State<N> {
    /// Everything in sync, the first replica primary and serving, nothing written: the two sites are alike, so this halves the
    /// states and loses none.
    #[must_use]
    pub fn first() -> State<N> {
        let in_sync = (0..N).fold(0, |set, node| set | member(node, 0));
        State {
            kvdb: Kvdb {
                configuration: Configuration {
                    epoch: 1,
                    primary: 0,
                    opened: true,
                    in_sync,
                },
                opened_set: in_sync,
                granted_set: in_sync,
                released: false,
                domains: [DomainState::Active; 2],
                registered: 0,
                deactivated_at: 0,
                fencing: false,
            },
            replicas: std::array::from_fn(|node| Replica::new(node, in_sync)),
            seen: Seen {
                last_by: NOBODY,
                ..Seen::default()
            },
            spent: Bounds::default(),
            broken: Broken::Nothing,
        }
    }

    /// The domain of a node: the first half of them is one site, the rest the other.
    #[must_use]
    pub fn domain(node: usize) -> usize {
        node * 2 / N
    }

    /// The name of a node's replica in sets, as its store claims it.
    #[must_use]
    pub fn name(&self, node: usize) -> u8 {
        member(node, self.replicas[node].incarnation)
    }

    /// Whether all the replicas of a set lie in one domain.
    #[must_use]
    pub fn in_one_domain(set: u8) -> bool {
        let of =
            |domain| (0..N).any(|node| nodes(set) >> node & 1 == 1 && Self::domain(node) == domain);
        !(of(0) && of(1))
    }

    fn pack(&self, out: &mut Vec<u8>) {
        self.kvdb.configuration.pack(out);
        out.push(self.kvdb.opened_set);
        out.push(self.kvdb.granted_set);
        out.push(
            self.kvdb.registered
                | u8::from(self.kvdb.released) << 4
                | u8::from(self.kvdb.fencing) << 5,
        );
        out.push(self.kvdb.domains[0] as u8 | (self.kvdb.domains[1] as u8) << 4);
        out.push(self.kvdb.deactivated_at);
        for replica in &self.replicas {
            replica.pack(out);
        }
        for mask in [
            self.seen.blocks,
            self.seen.acknowledged,
            self.seen.failed,
            self.seen.given_up,
        ] {
            out.push(mask);
        }
        out.extend_from_slice(&self.seen.committed);
        out.push(self.seen.committed_end | self.seen.last_by << 4);
        out.push(self.seen.last_epoch);
        self.spent.pack(out);
        out.push(self.broken as u8);
    }
}

thread_local! {
    static PACKED: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

impl<const N: usize> Hash for State<N> {
    /// As one run of bytes: a derived hash of so many small fields would take most of the time.
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        PACKED.with_borrow_mut(|packed| {
            packed.clear();
            self.pack(packed);
            hasher.write(packed);
        });
    }
}

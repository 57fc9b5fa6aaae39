//! One replica of one volume: the whole protocol, from the point of view of one member.
//!
//! ```text
//!             view: I am primary, not opened             all members level, kvdb committed `Opened`
//!   Idle ───────────────────────────────▶ Promoting ───────────────────────────────▶ Serving
//!    ▲ ▲                                      │                                          │ last client gone
//!    │ └───────── view: I am not primary ─────┴──────────────────────────────────────────┤
//!    │                                                                                   ▼
//!    └──────────────────────────── view: nobody is primary ◀───────────────────── Releasing
//!
//!   Idle ──── Prepare from the primary of my epoch ──▶ Following ──── session lost, or a newer epoch ──▶ Idle
//! ```
//!
//! Beside these, a replica whose disk does not let it take part is *unable* (`unable`): it takes no role but the one of giving its
//! primary's rights back.
//!
//! Where to find which invariant: I4 (fence by epoch) and the grants' side of I3 in `adoption` and `grants`; I3 and I5 (promotion,
//! reconcile) in `promotion` and `following`; I1, I9, I11 (acknowledge, step down, read committed) in `serving`,
//! for volumes that answer what is held also in `flushing`; I2 and I6 (shrink,
//! grow) in `membership`, what a slow link has to do with them in `pacing`; I7 (divergence) in `following` and in [`Change::Rebase`].
//!
//! Extents hold committed entries only, so reconciling cuts and fills logs and never undoes data; why this keeps the rules is in
//! `docs/decisions/0001-extents-hold-committed-records-only.md`.

mod adoption;
mod flushing;
mod following;
mod grants;
mod membership;
mod mending;
mod pacing;
mod promotion;
mod serving;
mod unable;

pub use grants::Grant;

#[cfg(test)]
mod tests;

use isthmus_mutation::Mutation;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::configuration::{Configuration, View};
use crate::durable::Durable;
use crate::effect::{Change, ClientOp, Effect, Effects, Proposal, ProposalKind};
use crate::ids::{Epoch, NodeId, ReplicaId, Seq};
use crate::log::{Log, Token};
use crate::message::Message;
use crate::settings::Settings;
use crate::time::Time;

/// How often a primary, or a replica that waits for something, looks at its clock.
const TICK: Duration = Duration::from_millis(100);
/// After how long a proposal without an answer, or whose answer changed nothing, is made again.
const PROPOSAL_PATIENCE: Duration = Duration::from_secs(1);
/// How long a joiner that was lost is left alone before the next try.
const JOIN_BACKOFF: Duration = Duration::from_secs(1);

/// One replica of one volume.
#[derive(Debug)]
pub struct Replica {
    me: ReplicaId,
    settings: Settings,
    log: Log,
    /// The newest configuration that this replica has taken; durable once `adopted` is (I4).
    configuration: Configuration,
    /// What makes `configuration` durable.
    adopted: Token,
    /// Whether the extents hold everything committed.
    whole: bool,
    /// The newest view from kvdb, taken or not.
    view: Option<View>,
    /// To whom this replica has promised to take no higher epoch with another primary, and until when.
    given: Option<Given>,
    /// Peers with a session.
    sessions: BTreeSet<NodeId>,
    /// Peers whose links are too slow for members behind them, as the host says.
    slow: BTreeSet<NodeId>,
    role: Role,
    /// Whether clients want this replica to be primary.
    wanted: bool,
    /// Since when a primary in this replica's domain has no session with it.
    primary_gone_since: Option<Time>,
    /// What was asked of kvdb and shows no effect yet.
    asked: Option<(ProposalKind, Time)>,
    next_token: Token,
    persisted: Token,
    next_tick: Time,
    /// Found broken (I10): the replica takes part in nothing any more.
    damaged: Option<String>,
    /// The disk does not let it take part now, for this reason.
    unable: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Given {
    to: NodeId,
    /// Under which epoch.
    epoch: Epoch,
    until: Time,
}

#[derive(Debug)]
enum Role {
    /// Neither primary nor following one.
    Idle,
    /// A member or joiner behind a primary.
    Following(Following),
    /// Ordering and serving I/O, or about to.
    Primary(Box<Primary>),
}

#[derive(Debug)]
struct Following {
    primary: NodeId,
    /// Whether the primary has told where its log and this one meet: only then records are taken.
    aligned: bool,
    /// Whether this replica is copying.
    joining: bool,
    /// The committed position that the primary told last.
    told_committed: Seq,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Bringing the members' logs to the same end (I5).
    Promoting,
    /// Serving clients.
    Serving,
    /// Grants are given back; kvdb is asked to note it.
    Releasing,
}

#[derive(Debug)]
struct Primary {
    phase: Phase,
    /// Members of the set and joiners, by node, without this replica.
    members: BTreeMap<NodeId, Member>,
    /// Writes not yet committed, in order, with when they came.
    pending: VecDeque<(Seq, ClientOp, Time)>,
    /// Flushes, each with what has to be committed first. They wait for the right to answer, too.
    flushes: Vec<(ClientOp, Seq)>,
    /// Every write up to here is answered, and seen by reads; at least what is committed.
    answered: Seq,
    /// What was asked to be made durable and is not committed yet.
    syncing: Option<Syncing>,
    /// Reads admitted, not fetched yet or fetched without the right to answer.
    reads: BTreeMap<ClientOp, ReadState>,
    /// Until when kvdb's grant holds (needed where the set lies in one domain).
    kvdb_until: Time,
    /// When the confirmation under way was begun.
    kvdb_asked: Option<Time>,
    /// No serving before this: grants of lower epochs given by others may be out until then.
    wait_until: Time,
    next_renewal: Time,
    /// When joining was last tried, by node.
    join_tried: BTreeMap<NodeId, Time>,
}

/// All members were asked to make what they hold durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Syncing {
    /// For the first time of what is not committed yet: up to here, and then.
    first: Seq,
    since: Time,
    /// For the last time.
    last: Seq,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadState {
    /// Waits for the right to serve before it is fetched.
    Waiting,
    /// Being fetched.
    Fetching,
    /// Fetched; waits for the right to serve.
    Fetched,
}

#[derive(Clone, Debug)]
struct Member {
    replica: ReplicaId,
    stage: Stage,
    /// Its durable position, as acknowledged on this session and under this epoch.
    durable: Seq,
    /// Up to where its kernel has the log, the same way.
    held: Seq,
    /// Until when its grant holds.
    grant_until: Time,
    /// When it was last heard, or its silence began to count.
    heard: Time,
    /// When its session was lost, if it is.
    lost: Option<Time>,
    /// When `Prepare` was sent last.
    prepared: Time,
    /// It says that it can't take part.
    unable: bool,
    /// Set while it is not in the set but counted (I6).
    joiner: Option<Joiner>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Joiner {
    /// It holds everything, durably.
    copied: bool,
    /// kvdb has been asked to add it under the present epoch.
    asked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// No session.
    Unreached,
    /// `Prepare` was sent.
    Prepared,
    /// Told where the logs meet; records are sent as they come.
    Aligned,
}

/// What a replica is now, for people and for whoever decides about clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not in use here.
    Idle,
    /// Behind a primary; `joining` while it copies.
    Following {
        /// The primary's node.
        primary: NodeId,
        /// Whether it is copying.
        joining: bool,
    },
    /// About to serve; `waits_for` says what is missing.
    Promoting {
        /// For people.
        waits_for: String,
    },
    /// Serving; `frozen` says why I/O waits, if it does.
    Serving {
        /// For people.
        frozen: Option<String>,
    },
    /// Giving up its rights.
    Releasing,
    /// Its disk does not let it take part, for this reason: it serves, promises and acknowledges nothing.
    Unable(String),
    /// Stopped, with the reason.
    Damaged(String),
}

impl Replica {
    /// A replica as recovery found it. `now` is its start: whatever grant an earlier process gave counts from here.
    #[must_use]
    pub fn new(me: ReplicaId, settings: Settings, durable: Durable, now: Time) -> Replica {
        let given = durable
            .configuration
            .primary
            .filter(|primary| primary.node != me.node)
            .filter(|_| !Mutation::RestartForgetsPromise.is_on())
            .map(|primary| Given {
                to: primary.node,
                epoch: durable.configuration.epoch,
                until: now + settings.lease_of_giver(),
            });
        Replica {
            me,
            settings,
            log: Log::recovered(durable.history, durable.committed, durable.tail),
            configuration: durable.configuration,
            adopted: Token::default(),
            whole: durable.whole,
            view: None,
            given,
            sessions: BTreeSet::new(),
            slow: BTreeSet::new(),
            role: Role::Idle,
            wanted: false,
            primary_gone_since: None,
            asked: None,
            next_token: Token::default(),
            persisted: Token::default(),
            next_tick: now,
            damaged: None,
            unable: None,
        }
    }

    /// The durable state, as a checkpoint keeps it. Entries after the committed position are not part of it.
    #[must_use]
    pub fn durable(&self) -> Durable {
        // Without the epochs of those entries, too: replaying them notes these again.
        let mut history = self.log.history().clone();
        history.cut(self.log.committed());
        Durable {
            configuration: self.configuration.clone(),
            history,
            committed: self.log.committed(),
            tail: Vec::new(),
            whole: self.whole,
        }
    }

    /// This replica.
    #[must_use]
    pub fn me(&self) -> ReplicaId {
        self.me
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The newest configuration that it has taken.
    #[must_use]
    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// Whether the configuration that it has taken is durable.
    #[must_use]
    pub fn configuration_is_durable(&self) -> bool {
        self.persisted >= self.adopted
    }

    /// The newest view from kvdb.
    #[must_use]
    pub fn view(&self) -> Option<&View> {
        self.view.as_ref()
    }

    /// Whether its extents hold everything committed.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// When to call [`Replica::on_tick`] next, if time matters now.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let waits = if self.unable.is_some() {
            self.is_primary_by_view()
        } else {
            self.must_adopt()
                || self.wanted
                || matches!(self.role, Role::Primary(_))
                || self.misses_its_primary()
        };
        (waits && self.damaged.is_none()).then_some(self.next_tick)
    }

    /// Time has passed.
    pub fn on_tick(&mut self, now: Time, effects: &mut Effects) {
        if self.damaged.is_some() || now < self.next_tick {
            return;
        }
        // Stopped or starved ourselves: the members' silence is ours. They get their time from now.
        if now.since(self.next_tick) > self.settings.replica_timeout / 2
            && let Some(primary) = self.primary_mut()
        {
            primary
                .members
                .values_mut()
                .for_each(|member| member.heard = now);
        }
        self.next_tick = now + TICK;
        if self.unable.is_some() {
            self.step(now, effects);
            return;
        }
        self.adopt_if_free(now, effects);
        self.step(now, effects);
        if let Role::Primary(_) = self.role {
            self.renew_grants(now, effects);
            self.watch_members(now, effects);
            self.sync_what_is_answered(now, effects);
        }
    }

    /// What this replica is now.
    #[must_use]
    pub fn standing(&self, now: Time) -> Standing {
        if let Some(reason) = &self.damaged {
            return Standing::Damaged(reason.clone());
        }
        if let Some(reason) = &self.unable {
            return Standing::Unable(reason.clone());
        }
        match &self.role {
            Role::Idle => Standing::Idle,
            Role::Following(following) => Standing::Following {
                primary: following.primary,
                joining: following.joining,
            },
            Role::Primary(primary) => match primary.phase {
                Phase::Promoting => Standing::Promoting {
                    waits_for: self.promotion_waits_for(now, primary),
                },
                Phase::Serving => Standing::Serving {
                    frozen: self.frozen_because(now, primary),
                },
                Phase::Releasing => Standing::Releasing,
            },
        }
    }

    /// A session with a peer is up: nothing of an earlier one will arrive any more.
    pub fn on_session_up(&mut self, now: Time, peer: NodeId, effects: &mut Effects) {
        self.on_session_down(now, peer, effects);
        self.sessions.insert(peer);
        self.look_for_primary(now);
        if self.damaged.is_some() || self.unable.is_some() {
            return;
        }
        self.prepare_member(now, peer, effects);
    }

    /// The session with a peer is gone, with everything in it.
    pub fn on_session_down(&mut self, now: Time, peer: NodeId, effects: &mut Effects) {
        self.sessions.remove(&peer);
        match &mut self.role {
            Role::Following(following) if following.primary == peer => {
                if following.joining {
                    effects.push(Effect::StopCopy);
                }
                self.role = Role::Idle;
                self.sync_what_is_held(effects);
            }
            Role::Following(_) | Role::Idle => {}
            Role::Primary(_) => self.member_lost(now, peer, effects),
        }
        self.look_for_primary(now);
    }

    /// A message from a peer, over the session that is up.
    pub fn on_message(&mut self, now: Time, from: NodeId, message: Message, effects: &mut Effects) {
        if self.damaged.is_some() {
            return;
        }
        if self.unable.is_some() {
            self.on_message_while_unable(from, &message, effects);
            return;
        }
        match message {
            Message::Prepare { configuration } => {
                self.on_prepare(now, from, configuration, effects)
            }
            Message::Rewind { epoch, to } => self.on_rewind(now, from, epoch, to, effects),
            Message::Join {
                epoch,
                common,
                start,
                history,
                dirty,
            } => {
                self.on_join(now, from, epoch, (common, start, history, dirty), effects);
            }
            Message::Append {
                epoch,
                entry,
                committed,
            } => self.on_append(now, from, epoch, entry, committed, effects),
            Message::Configure { configuration } => {
                self.on_configure(now, from, configuration, effects)
            }
            Message::GrantRequest {
                epoch,
                asked,
                committed,
            } => {
                self.on_grant_request(now, from, epoch, asked, committed, effects);
            }
            Message::GiveUp { epoch } => self.on_give_up(now, from, epoch, effects),
            Message::Report {
                epoch,
                history,
                end,
                committed,
            } => {
                self.on_report(now, from, epoch, (history, end, committed), effects);
            }
            Message::Acked { epoch, durable } => {
                self.on_member_holds(now, from, epoch, (durable, durable), effects);
            }
            Message::Copied { epoch } => self.on_copied_by(now, from, epoch, effects),
            Message::Grant { epoch, asked } => self.on_grant(now, from, epoch, asked, effects),
            Message::Stale { epoch } => self.on_stale(now, from, epoch, effects),
            Message::Unable { .. } => self.on_unable(now, from, effects),
            Message::Held { epoch, held } => {
                self.on_member_holds(now, from, epoch, (held, Seq::ZERO), effects);
            }
            Message::Sync { epoch } => self.on_sync(from, epoch, effects),
        }
    }

    /// Everything handed to the journal up to `token` is durable.
    pub fn on_persisted(&mut self, now: Time, token: Token, effects: &mut Effects) {
        assert!(
            token <= self.next_token,
            "durable {token:?}, handed over {:?}",
            self.next_token
        );
        let before = (self.log.durable(), self.persisted >= self.adopted);
        self.persisted = self.persisted.max(token);
        self.log.persisted(token);
        if self.damaged.is_some() {
            return;
        }
        match &self.role {
            Role::Following(following) if following.aligned => {
                let (primary, told) = (following.primary, following.told_committed);
                // Acknowledgements speak under a durable epoch: those held back until it is are made up for now.
                if (self.log.durable(), true) > before && self.persisted >= self.adopted {
                    self.acknowledge_to(primary, None, effects);
                }
                self.follow_committed(told, effects);
            }
            Role::Following(_) | Role::Idle => {}
            Role::Primary(_) => self.step(now, effects),
        }
    }

    /// Whatever may go on now, goes on.
    fn step(&mut self, now: Time, effects: &mut Effects) {
        if self.unable.is_some() {
            self.give_up_primary(now, effects);
            return;
        }
        match &self.role {
            Role::Idle | Role::Following(_) => self.seek_promotion(now, effects),
            Role::Primary(primary) => match primary.phase {
                Phase::Promoting => self.promote(now, effects),
                Phase::Serving => self.serve(now, effects),
                Phase::Releasing => self.release(now, effects),
            },
        }
    }

    fn token(&mut self) -> Token {
        self.next_token = Token(self.next_token.0 + 1);
        self.next_token
    }

    fn persist(&mut self, change: Change, effects: &mut Effects) -> Token {
        let token = self.token();
        effects.push(Effect::Persist { token, change });
        token
    }

    fn send(&self, to: NodeId, message: Message, after: Option<Token>, effects: &mut Effects) {
        if self.sessions.contains(&to) {
            effects.push(Effect::Send {
                to,
                message,
                after: after.filter(|token| *token > self.persisted),
            });
        }
    }

    /// Asks kvdb, unless something was asked just now. Returns whether it did.
    fn propose(
        &mut self,
        now: Time,
        kind: ProposalKind,
        replicas: BTreeSet<ReplicaId>,
        effects: &mut Effects,
    ) -> bool {
        if self
            .asked
            .is_some_and(|(_, at)| now.since(at) < PROPOSAL_PATIENCE)
        {
            return false;
        }
        let epoch = match (kind, &self.view) {
            (ProposalKind::Promote, Some(view)) => view.configuration.epoch,
            // A change that was asked for before may have given it a newer epoch, which it does not take any more.
            (ProposalKind::Release, Some(view)) if self.unable.is_some() => {
                view.configuration.epoch
            }
            _ => self.configuration.epoch,
        };
        self.asked = Some((kind, now));
        effects.push(Effect::Propose(Proposal {
            kind,
            epoch,
            replicas,
        }));
        true
    }

    /// kvdb has answered the last proposal. A refusal or a failure is asked again later, if it still is wanted then.
    pub fn on_answer(&mut self, now: Time, done: bool) {
        if done {
            return;
        }
        if let Some((_, at)) = &mut self.asked {
            // Asked again after a pause, not at once: kvdb may be without a leader.
            *at = now - (PROPOSAL_PATIENCE - PROPOSAL_PATIENCE / 5);
        }
    }

    fn damage(&mut self, reason: String, effects: &mut Effects) {
        self.fail_everything(crate::effect::NotServed::Damaged, effects);
        if let Role::Following(Following { joining: true, .. }) = self.role {
            effects.push(Effect::StopCopy);
        }
        self.role = Role::Idle;
        self.damaged = Some(reason.clone());
        effects.push(Effect::Damaged { reason });
    }

    /// The epoch under which the last record was ordered that this replica holds; zero before any.
    #[must_use]
    pub fn end_epoch(&self) -> Epoch {
        let end = self.log.end();
        self.log.history().epoch_of(end).unwrap_or(Epoch::ZERO)
    }

    /// The volume has never been served, so this replica, empty, holds everything there is.
    pub fn begin_whole(&mut self, effects: &mut Effects) {
        assert!(
            self.log.end() == Seq::ZERO,
            "a volume that was never served has no records, here it ends at {}",
            self.log.end()
        );
        self.whole = true;
        self.persist(Change::Whole, effects);
    }

    /// To whom a promise is out at `now`.
    #[must_use]
    pub fn promised_to(&self, now: Time) -> Option<NodeId> {
        self.given
            .filter(|given| given.until >= now)
            .map(|given| given.to)
    }

    /// A read could not be fetched: it is answered already.
    pub fn forget_read(&mut self, op: ClientOp) {
        if let Some(primary) = self.primary_mut() {
            primary.reads.remove(&op);
        }
    }

    /// Whether a replica that may be in sync and isn't, or that lost power, could be brought back from here now: it has a session, and this
    /// replica may be primary.
    #[must_use]
    pub fn could_bring_back(&self) -> bool {
        let Some(view) = &self.view else { return false };
        let in_sync = &view.configuration.in_sync;
        let free = view
            .configuration
            .primary
            .is_none_or(|primary| primary == self.me);
        let lacks = view.eligible.iter().chain(&view.rebooted).any(|replica| {
            (!in_sync.contains(replica) || view.rebooted.contains(replica))
                && self.sessions.contains(&replica.node)
                && !self.is_too_slow(view, replica.node)
        });
        // Where several could, one does: in the preferred domain before others, then the lowest number.
        let rank = |node: NodeId| {
            let domain = view.domains.get(&node).copied();
            let is_preferred = view.preferred_domain.is_some() && domain == view.preferred_domain;
            (!is_preferred, node)
        };
        let is_first = in_sync.difference(&view.rebooted).all(|other| {
            !self.sessions.contains(&other.node) || rank(self.me.node) < rank(other.node)
        });
        self.damaged.is_none()
            && self.unable.is_none()
            && self.whole
            && free
            && is_first
            && in_sync.contains(&self.me)
            && view.eligible.contains(&self.me)
            && !view.rebooted.contains(&self.me)
            && lacks
    }

    /// The nodes that copy from this primary.
    #[must_use]
    pub fn joiners(&self) -> BTreeSet<NodeId> {
        let Role::Primary(primary) = &self.role else {
            return BTreeSet::new();
        };
        let joining = primary
            .members
            .iter()
            .filter(|(_, member)| member.joiner.is_some() && member.stage == Stage::Aligned);
        joining.map(|(node, _)| *node).collect()
    }

    /// Stops taking part, because the host found the replica's disk or records broken.
    pub fn stop(&mut self, reason: String, effects: &mut Effects) {
        if self.damaged.is_none() {
            self.damage(reason, effects);
        }
    }
}

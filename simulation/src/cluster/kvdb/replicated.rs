//! kvdb's three members as they ship ([`crate::group`]). A data member lives and dies with its node; a cut of the link between the sites
//! cuts its way, too; the witness has faults of its own. Questions come from the hosts as in `node/src/replicas/questions.rs`.
//!
//! The group has formed, and the volumes are made, before the simulation's time begins.

use super::super::node::{Input, Node};
use super::super::{Event as Happening, NAMES, Simulation};
use super::{Event, Kvdb, PATIENCE};
use crate::group::{Group, GroupPlan, MEMBERS, Output, WiresPlan};
use crate::scenario::Scenario;
use crate::schedule::{MICROSECOND, MILLISECOND, SECOND};
use isthmus_catalog::{Answer, Catalog, Command};
use isthmus_engine::{Incarnation, NodeId, Proposal, Time, VolumeId};
use isthmus_journal::Shape;
use isthmus_simulated_disk::Random;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The witness's place in the group.
const WITNESS: usize = 2;
/// How long kvdb may take to confirm the catalog, as in `isthmusd`.
const CONFIRM_WITHIN: Duration = Duration::from_secs(1);
/// A leader that heard from a majority so lately leads.
const FRESH: Duration = Duration::from_millis(500);
/// A command whose end is not known may still be committed for so long; not longer, since somebody leads then who does not have it.
const DOUBT: u64 = 30 * SECOND;

/// What is over for the witness, or the ways between the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum WitnessEnding {
    /// Its process starts again.
    Start,
    /// Its process goes on.
    Resume,
    /// The way from one member to another is whole again.
    Heal(usize, usize),
    /// The ways lose nothing any more.
    Clear,
}

/// Who waits for an answer.
#[derive(Clone, Debug)]
enum Asked {
    Proposal {
        node: usize,
        volume: VolumeId,
    },
    Confirm {
        node: usize,
        begun: Time,
    },
    /// The operator's wishes, and steps of domain updates.
    Command,
    /// Whoever carries domain updates on.
    Leader,
}

/// The group, and who waits for what of it.
#[derive(Debug)]
pub(super) struct Replicated {
    group: Group,
    /// The group's time when the simulation's began.
    offset: u64,
    /// By token.
    asked: BTreeMap<u64, Asked>,
    tokens: u64,
    /// Commands that may still be committed, until when.
    in_doubt: BTreeMap<u64, u64>,
    /// The group's event that is put into the schedule.
    scheduled: u64,
    /// The life of each node's member.
    lives: [u64; 2],
    /// The newest revision that each node's host was told.
    told: [u64; 2],
    /// Whether a node's host waits for a confirmation, and wants another one after that.
    confirming: [bool; 2],
    confirm_again: [bool; 2],
    witness_starts: u64,
    /// Cuts of the witness's ways by its own faults, from and to.
    cuts: [[u64; MEMBERS]; MEMBERS],
    leaders_catalog: Option<Arc<Catalog>>,
    /// When the leader was asked last, until it has answered: it may have died.
    leader_asked: Option<u64>,
}

fn plan(scenario: &Scenario, random: &mut Random) -> GroupPlan {
    let pick = |random: &mut Random, from: &[u64]| from[random.below(from.len() as u64) as usize];
    let world = &scenario.world;
    let rate = |drift: i64| 1_000_000u64.saturating_add_signed(drift);
    GroupPlan {
        clock_rates: world.drift_millionths.map(rate),
        wires: WiresPlan {
            delay: world.link_delay_us * MICROSECOND,
            jitter: world.link_jitter_us * MICROSECOND,
            lost_per_mille: 0,
            late_per_mille: pick(random, &[0, 5, 20]),
        },
        session_timeout: world.session_timeout_ms * MILLISECOND,
        snapshot_entries: pick(random, &[20, 100, 1000]),
        shape: Shape {
            segment_bytes: pick(random, &[64, 256]) << 10,
            segments: pick(random, &[4, 8]) as u32,
        },
        election_min: Duration::from_millis(500),
    }
}

impl Replicated {
    /// The group of a new cluster with its volumes. The data members are down at the end: their nodes are about to start.
    pub fn form(scenario: &Scenario, nodes: &[Node; 2]) -> (Kvdb, Vec<(VolumeId, u64)>) {
        // Numbers of its own: what else is left to chance is the same with either kind.
        let mut random = Random::new(nodes[0].incarnation.0);
        let seed = random.next_u64();
        let mut group = Group::new(seed, plan(scenario, &mut random));
        let [a, b] = [nodes[0].incarnation, nodes[1].incarnation];
        let mut form = || -> Result<Vec<(VolumeId, u64)>, String> {
            group.form([a, b, Incarnation(3)], [0, 0, 1])?;
            let mut volumes = Vec::new();
            for (plan, number) in scenario.volumes.iter().zip(1..) {
                let bytes = plan.blocks * isthmus_engine::BLOCK_BYTES;
                let made = group.propose_now(&Command::CreateVolume {
                    name: format!("v{number}"),
                    bytes: plan.bytes_made_with(),
                    block_bytes: 512,
                    policy: plan.policy(),
                })?;
                let Answer::Volume(volume) = made else {
                    return Err(format!("a formed cluster makes volumes: {made:?}"));
                };
                volumes.push((volume, bytes));
            }
            Ok(volumes)
        };
        let volumes = match form() {
            Ok(volumes) => volumes,
            Err(what) => panic!("seed {seed} of a group: no cluster comes to be: {what}"),
        };
        for node in 0..nodes.len() {
            group.stop(node, false);
        }
        drop(group.take_outputs());
        let replicated = Replicated {
            offset: group.now(),
            asked: BTreeMap::new(),
            tokens: 0,
            in_doubt: BTreeMap::new(),
            scheduled: u64::MAX,
            lives: [0; 2],
            told: [0; 2],
            confirming: [false; 2],
            confirm_again: [false; 2],
            witness_starts: 1,
            cuts: [[0; MEMBERS]; MEMBERS],
            leaders_catalog: None,
            leader_asked: None,
            group,
        };
        let kvdb = Kvdb {
            versions: replicated.group.versions_from(0),
            requests: 0,
            forgotten: [0; 2],
            is_down: false,
            replicated: Some(Box::new(replicated)),
        };
        (kvdb, volumes)
    }

    /// Whether any member's disk may be lost for good now: all three vote, two of them go on without the third, and no command is
    /// under way of which nobody knows yet whether it happens. (With two voters, or one, a lost disk can be the end of kvdb, and
    /// is not for a test of anything but `kvdb recover`.)
    pub fn survives_a_lost_disk(&self, now: u64) -> bool {
        let leader = self.group.leader();
        let metrics = leader.and_then(|leader| self.group.metrics(leader));
        let all_vote = metrics.is_some_and(|metrics| {
            metrics.voters.len() == MEMBERS
                && metrics.learners.is_empty()
                && !metrics.is_changing
                && metrics.quorum_contact.is_some_and(|ago| ago < FRESH)
        });
        all_vote && self.in_doubt.values().all(|until| *until <= now)
    }

    fn token(&mut self, asked: Asked, now: u64) -> u64 {
        self.tokens += 1;
        if matches!(asked, Asked::Proposal { .. } | Asked::Command) {
            self.in_doubt.retain(|_, until| *until > now);
            self.in_doubt.insert(self.tokens, now + DOUBT);
        }
        self.asked.insert(self.tokens, asked);
        self.tokens
    }
}

impl Simulation {
    /// Does something with the group, at this very time, and takes what comes of it.
    fn with_group<T>(&mut self, act: impl FnOnce(&mut Replicated) -> T) -> Option<T> {
        let now = self.schedule.now();
        let cuts = self.cuts_of_ways();
        let replicated = self.kvdb.replicated.as_mut()?;
        for (from, row) in cuts.into_iter().enumerate() {
            for (to, is_cut) in row.into_iter().enumerate() {
                let is_cut = is_cut || replicated.cuts[from][to] > 0;
                replicated.group.set_cut(from, to, is_cut);
            }
        }
        let at = now + replicated.offset;
        replicated.group.advance(at);
        let acted = act(replicated);
        replicated.group.advance(at);
        let outputs = replicated.group.take_outputs();
        let failure = replicated.group.failure();
        let seen = self.kvdb.versions.len();
        for version in replicated.group.versions_from(seen) {
            let before = Arc::clone(self.kvdb.catalog());
            self.kvdb.versions.push(Arc::clone(&version));
            self.timeline.mix(version.revision);
            self.note("kvdb", || {
                let by = version.answers.back();
                format!("revision {} by {by:?}", version.revision)
            });
            // A deactivation is the one change that an operator may force on volumes.
            if version.updates.len() != before.updates.len() {
                self.checkers.deactivating(&before, &version);
            }
            self.committed(&before, &version);
        }
        if let Some(what) = failure {
            self.fail("kvdb", what);
        }
        for output in outputs {
            self.take_output(output);
        }
        self.schedule_group();
        Some(acted)
    }

    fn schedule_group(&mut self) {
        let now = self.schedule.now();
        let Some(replicated) = self.kvdb.replicated.as_mut() else {
            return;
        };
        let Some(at) = replicated.group.next_event() else {
            return;
        };
        let at = at - replicated.offset;
        if at < replicated.scheduled || replicated.scheduled <= now {
            replicated.scheduled = at;
            self.schedule.at(at, Happening::Kvdb(Event::Group));
        }
    }

    /// Which ways between members are cut by faults of the cluster: from and to.
    fn cuts_of_ways(&self) -> [[bool; MEMBERS]; MEMBERS] {
        let mut cuts = [[self.kvdb.is_down; MEMBERS]; MEMBERS];
        for from in [0, 1] {
            cuts[from][1 - from] |= self.link.is_cut_from(from);
            let is_alone = !self.nodes[from].reaches_kvdb;
            cuts[from].iter_mut().for_each(|cut| *cut |= is_alone);
            cuts.iter_mut().for_each(|ways| ways[from] |= is_alone);
        }
        cuts
    }

    pub(super) fn at_group(&mut self, event: Event) {
        match event {
            Event::Group => {}
            Event::Reachable(node) => self.nodes[node].reaches_kvdb = true,
            Event::Up => {
                self.kvdb.is_down = false;
                if self.settling_begins() {
                    self.heal_group();
                }
            }
            Event::Witness(fault) => self.befall_witness(fault),
            Event::Apply { .. } | Event::Read { .. } | Event::Register { .. } => {
                unreachable!("these are the stand-in's")
            }
        }
        self.with_group(|_| ());
    }

    fn settling_begins(&self) -> bool {
        self.operator.heals
    }

    fn take_output(&mut self, output: Output) {
        match output {
            Output::Registered { .. } => {}
            Output::News {
                member,
                life,
                catalog,
            } => self.hear_news(member, life, catalog),
            Output::Proposed { token, result, .. } => {
                let done = matches!(&result, Ok(answer) if !matches!(answer, Answer::Refused(_)));
                let Some(replicated) = self.kvdb.replicated.as_mut() else {
                    return;
                };
                if result.is_ok() {
                    replicated.in_doubt.remove(&token);
                }
                let asked = replicated.asked.remove(&token);
                if let Some(Asked::Proposal { node, volume }) = asked {
                    let delay = self.random.below(MILLISECOND);
                    self.send_to(node, delay, Input::Answer { volume, done });
                }
            }
            Output::Confirmed {
                member,
                token,
                result,
                ..
            } => {
                let Some(replicated) = self.kvdb.replicated.as_mut() else {
                    return;
                };
                match replicated.asked.remove(&token) {
                    Some(Asked::Confirm { node, begun }) => {
                        let again = std::mem::take(&mut replicated.confirm_again[node]);
                        replicated.confirming[node] = false;
                        let delay = self.random.below(MILLISECOND);
                        let catalog = result;
                        self.send_to(node, delay, Input::Confirmed { begun, catalog });
                        if again {
                            // After the answer, as the host's thread does.
                            self.confirm_at_group(node);
                        }
                    }
                    Some(Asked::Leader) => {
                        replicated.leader_asked = None;
                        let still_leads = replicated.group.leader() == Some(member);
                        replicated.leaders_catalog = result.filter(|_| still_leads);
                    }
                    Some(Asked::Proposal { .. } | Asked::Command) | None => {}
                }
            }
        }
    }

    /// A member has applied something: its node's host hears of it once kvdb knows this start.
    fn hear_news(&mut self, member: usize, life: u64, catalog: Arc<Catalog>) {
        let Some(replicated) = self.kvdb.replicated.as_mut() else {
            return;
        };
        if member == WITNESS
            || replicated.lives[member] != life
            || catalog.revision < replicated.told[member]
        {
            return;
        }
        let node = &mut self.nodes[member];
        let knows_this_start = catalog.nodes.get(&node.id).is_some_and(|record| {
            record.incarnation == Some(node.incarnation) && record.starts == node.starts
        });
        if !knows_this_start {
            return;
        }
        replicated.told[member] = catalog.revision;
        node.registered = true;
        let delay = self.random.below(MILLISECOND);
        node.version_arrives = (node.version_arrives + 1).max(self.schedule.now() + delay);
        let (at, life) = (node.version_arrives, node.life);
        let input = Input::Catalog(catalog);
        self.schedule.at(
            at,
            Happening::ToNode {
                node: member,
                life,
                input,
            },
        );
    }

    pub(super) fn propose_to_group(&mut self, index: usize, volume: VolumeId, proposal: &Proposal) {
        let node = &self.nodes[index];
        let Some(me) = node.host.as_ref().map(|host| host.me()) else {
            return;
        };
        self.note(NAMES[index], || {
            format!(
                "{volume}: proposes {:?} for epoch {} {:?}",
                proposal.kind, proposal.epoch, proposal.replicas
            )
        });
        self.timeline.mix(u64::from(proposal.epoch.number));
        let command = isthmus_host::command_of(volume, me, proposal);
        let asked = Asked::Proposal {
            node: index,
            volume,
        };
        if !self.propose_at(index, asked, command) {
            self.send_to(
                index,
                MILLISECOND,
                Input::Answer {
                    volume,
                    done: false,
                },
            );
        }
    }

    fn propose_at(&mut self, member: usize, asked: Asked, command: Command) -> bool {
        let now = self.schedule.now();
        let within = Duration::from_nanos(PATIENCE);
        let is_asked = self.with_group(|replicated| {
            let token = replicated.token(asked, now);
            let is_asked = replicated.group.propose(member, token, command, within);
            if !is_asked {
                replicated.asked.remove(&token);
                replicated.in_doubt.remove(&token);
            }
            is_asked
        });
        is_asked == Some(true)
    }

    pub(super) fn confirm_at_group(&mut self, index: usize) {
        let now = self.schedule.now();
        let begun = self.nodes[index].clock.at(now);
        let is_asked = self.with_group(|replicated| {
            if std::mem::replace(&mut replicated.confirming[index], true) {
                replicated.confirm_again[index] = true;
                return true;
            }
            let token = replicated.token(Asked::Confirm { node: index, begun }, now);
            let is_asked = replicated.group.confirm(index, token, CONFIRM_WITHIN);
            replicated.confirming[index] = is_asked;
            is_asked
        });
        if is_asked == Some(false) {
            let catalog = None;
            self.send_to(index, SECOND, Input::Confirmed { begun, catalog });
        }
    }

    /// The node's process has started: kvdb is a part of it.
    pub(super) fn start_member(&mut self, index: usize) {
        let (incarnation, starts) = (self.nodes[index].incarnation, self.nodes[index].starts);
        self.with_group(|replicated| {
            replicated.told[index] = 0;
            replicated.confirming[index] = false;
            replicated.confirm_again[index] = false;
            replicated.lives[index] = replicated.group.start(index, incarnation, starts, None);
        });
    }

    /// The node's process is gone.
    pub(in super::super) fn stop_member(&mut self, index: usize, power_lost: bool) {
        self.with_group(|replicated| {
            replicated.group.stop(index, power_lost);
            let waits = |asked: &Asked| match asked {
                Asked::Proposal { node, .. } | Asked::Confirm { node, .. } => *node == index,
                Asked::Command | Asked::Leader => false,
            };
            replicated.asked.retain(|_, asked| !waits(asked));
        });
    }

    /// The node's disk is an empty one.
    pub(in super::super) fn replace_members_disk(&mut self, index: usize) {
        self.with_group(|replicated| replicated.group.replace_disk(index));
    }

    /// The node's process is stopped.
    pub(in super::super) fn pause_member(&mut self, index: usize) {
        self.with_group(|replicated| replicated.group.pause(index));
    }

    /// It goes on.
    pub(in super::super) fn resume_member(&mut self, index: usize) {
        self.with_group(|replicated| replicated.group.resume(index));
    }

    /// Its disk is so many times as slow.
    pub(in super::super) fn slow_members_disk(&mut self, index: usize, factor: u64) {
        self.with_group(|replicated| replicated.group.set_slowness(index, factor));
    }

    /// By any node that runs, as an operator would.
    pub(super) fn ask_group(&mut self, command: Command) {
        // Nobody takes a site away in the moment in which the other one's disk was lost.
        if matches!(command, Command::Deactivate { .. }) && !self.disks_are_registered() {
            return;
        }
        let first = self.random.below(MEMBERS as u64) as usize;
        for place in 0..MEMBERS {
            let member = (first + place) % MEMBERS;
            if self.propose_at(member, Asked::Command, command.clone()) {
                return;
            }
        }
    }

    /// As `node/src/domains/driver.rs` does: whoever leads reads, and acts on what that read has seen.
    pub(super) fn groups_leaders_catalog(&mut self) -> Option<Arc<Catalog>> {
        let now = self.schedule.now();
        self.with_group(|replicated| {
            let seen = replicated.leaders_catalog.take();
            let waits = replicated
                .leader_asked
                .is_some_and(|at| now < at + 2 * CONFIRM_WITHIN.as_nanos() as u64);
            if let Some(leader) = replicated.group.leader().filter(|_| !waits) {
                let token = replicated.token(Asked::Leader, now);
                let is_asked = replicated.group.confirm(leader, token, CONFIRM_WITHIN);
                replicated.leader_asked = is_asked.then_some(now);
            }
            seen
        })
        .flatten()
    }

    /// Whether kvdb's votes are where the catalog wants them.
    pub(in super::super) fn votes_have_moved(&self, catalog: &Catalog) -> bool {
        let Some(replicated) = &self.kvdb.replicated else {
            return true;
        };
        let Some(leader) = replicated.group.leader() else {
            return false;
        };
        let Some(metrics) = replicated.group.metrics(leader) else {
            return false;
        };
        let answering = (0..MEMBERS)
            .filter(|member| {
                let reaches = self.nodes.get(*member).is_none_or(|node| node.reaches_kvdb);
                replicated.group.answers(*member) && reaches
            })
            .map(|member| NodeId(member as u32 + 1))
            .collect();
        catalog.voters(&answering, &metrics.voters) == metrics.voters
    }

    fn befall_witness(&mut self, fault: WitnessEnding) {
        let Some(replicated) = self.kvdb.replicated.as_mut() else {
            return;
        };
        match fault {
            WitnessEnding::Start => {
                if !replicated.group.has_process(WITNESS) {
                    replicated.witness_starts += 1;
                    let starts = replicated.witness_starts;
                    self.with_group(|replicated| {
                        let incarnation = Incarnation(3);
                        replicated.group.start(WITNESS, incarnation, starts, None)
                    });
                }
            }
            WitnessEnding::Resume => {
                self.with_group(|replicated| replicated.group.resume(WITNESS));
            }
            WitnessEnding::Heal(from, to) => {
                let cuts = &mut replicated.cuts[from][to];
                *cuts = cuts.saturating_sub(1);
            }
            WitnessEnding::Clear => replicated.group.set_loss(0),
        }
    }

    fn witness_after(&mut self, delay: u64, ending: WitnessEnding) {
        self.schedule
            .after(delay, Happening::Kvdb(Event::Witness(ending)));
    }

    /// The witness's process ends, with `power_lost` its machine, too.
    pub(in super::super) fn kill_witness(&mut self, power_lost: bool, duration: u64) {
        self.with_group(|replicated| replicated.group.stop(WITNESS, power_lost));
        self.witness_after(duration, WitnessEnding::Start);
    }

    /// The witness's process is stopped for a while.
    pub(in super::super) fn pause_witness(&mut self, duration: u64) {
        self.with_group(|replicated| replicated.group.pause(WITNESS));
        self.witness_after(duration, WitnessEnding::Resume);
    }

    /// What the witness sends to a node is lost, and the other way round if `both`.
    pub(in super::super) fn cut_witness(&mut self, node: usize, both: bool, duration: u64) {
        let Some(replicated) = self.kvdb.replicated.as_mut() else {
            return;
        };
        let mut ways = vec![(WITNESS, node)];
        ways.extend(both.then_some((node, WITNESS)));
        for (from, to) in &ways {
            replicated.cuts[*from][*to] += 1;
        }
        for (from, to) in ways {
            self.witness_after(duration, WitnessEnding::Heal(from, to));
        }
    }

    /// Some of kvdb's messages are lost for a while.
    pub(in super::super) fn lose_messages(&mut self, per_mille: u64, duration: u64) {
        if let Some(replicated) = self.kvdb.replicated.as_mut() {
            replicated.group.set_loss(per_mille);
            self.witness_after(duration, WitnessEnding::Clear);
        }
    }

    /// Faults end for the witness, too.
    fn heal_group(&mut self) {
        if let Some(replicated) = self.kvdb.replicated.as_mut() {
            replicated.cuts = [[0; MEMBERS]; MEMBERS];
            replicated.group.heal_all();
        }
        self.befall_witness(WitnessEnding::Resume);
        self.befall_witness(WitnessEnding::Start);
    }

    /// The group's first event.
    pub(in super::super) fn begin_group(&mut self) {
        self.schedule_group();
    }
}

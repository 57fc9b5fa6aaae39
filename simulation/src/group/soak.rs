//! A group alone under everything that can befall it: members die, lose power, stop and go on; ways are cut in one direction or both, and
//! lose messages; disks are slow; domains go and come, and votes with them. Meanwhile every member is asked for changes and reads.
//! At the end all heals, and within a bound every member must answer, and have the same catalog.

use super::{Group, GroupPlan, MEMBERS, Output, WiresPlan};
use crate::clock::DRIFT_MILLIONTHS_MAX;
use crate::schedule::{MICROSECOND, MILLISECOND, SECOND};
use isthmus_catalog::{Command, UpdateAction, UpdateStatus, VolumePolicy};
use isthmus_engine::{DomainId, Incarnation, NodeId};
use isthmus_journal::Shape;
use isthmus_simulated_disk::Random;
use std::time::Duration;

/// How long whoever asks waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a soak came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SoakSummary {
    /// The hash of everything that happened.
    pub hash: u64,
    /// Proposals that changed something or were refused.
    pub answered: u64,
    /// Linearizable reads.
    pub confirmed: u64,
    /// Faults.
    pub faults: u64,
    /// Raft's term at the end.
    pub term: u64,
    /// The catalog's revision at the end.
    pub revision: u64,
    /// Virtual nanoseconds.
    pub nanoseconds: u64,
}

/// What is over at some time.
enum Ending {
    Start(usize),
    Resume(usize),
    Whole(usize, usize),
    NoLoss,
    Fast(usize),
}

struct Soak {
    group: Group,
    random: Random,
    starts: [u64; MEMBERS],
    endings: Vec<(u64, Ending)>,
    tokens: u64,
    volumes: u64,
    summary: SoakSummary,
}

fn plan(random: &mut Random) -> GroupPlan {
    let pick = |random: &mut Random, from: &[u64]| from[random.below(from.len() as u64) as usize];
    let rate = |random: &mut Random| {
        1_000_000 - DRIFT_MILLIONTHS_MAX + random.below(2 * DRIFT_MILLIONTHS_MAX + 1)
    };
    let delay = pick(random, &[50, 500, 5_000]) * MICROSECOND;
    GroupPlan {
        clock_rates: [rate(random), rate(random), rate(random)],
        wires: WiresPlan {
            delay,
            jitter: delay / 2 + pick(random, &[10, 1_000]) * MICROSECOND,
            lost_per_mille: 0,
            late_per_mille: pick(random, &[0, 5, 30]),
        },
        session_timeout: pick(random, &[300, 2_000]) * MILLISECOND,
        snapshot_entries: pick(random, &[20, 100]),
        shape: Shape {
            segment_bytes: 64 << 10,
            segments: pick(random, &[4, 8]) as u32,
        },
        election_min: Duration::from_millis(500),
    }
}

/// Runs a seed: `seconds` of faults, then healing.
///
/// # Errors
/// The first broken rule.
pub fn soak(seed: u64, seconds: u64) -> Result<SoakSummary, String> {
    let mut random = Random::new(seed);
    let plan = plan(&mut random);
    let mut soak = Soak {
        group: Group::new(random.next_u64(), plan),
        random,
        starts: [1; MEMBERS],
        endings: Vec::new(),
        tokens: 0,
        volumes: 0,
        summary: SoakSummary::default(),
    };
    soak.group.form([1, 2, 3].map(Incarnation), [1; MEMBERS])?;
    let until = soak.group.now() + seconds * SECOND;
    let (mut next_fault, mut next_question) = (0, 0);
    while soak.group.now() < until {
        let now = soak.group.now();
        soak.end_what_is_over(now);
        if now >= next_fault {
            soak.strike();
            next_fault = now + soak.random.below(3 * SECOND);
        }
        if now >= next_question {
            soak.ask();
            next_question = now + soak.random.below(200 * MILLISECOND);
        }
        let step = 1 + soak.random.below(20 * MILLISECOND);
        soak.group.advance(now + step);
        soak.take_outputs()?;
    }
    soak.heal()?;
    let metrics = soak.group.metrics(0);
    soak.summary.term = metrics.map_or(0, |metrics| metrics.term);
    soak.summary.revision = soak.group.newest().revision;
    soak.summary.hash = soak.group.hash();
    soak.summary.nanoseconds = soak.group.now();
    Ok(soak.summary)
}

impl Soak {
    fn end_what_is_over(&mut self, now: u64) {
        let (over, left) = std::mem::take(&mut self.endings)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.endings = left;
        let over: Vec<(u64, Ending)> = over;
        for (_, ending) in over {
            match ending {
                Ending::Start(member) => self.start(member),
                Ending::Resume(member) => self.group.resume(member),
                Ending::Whole(from, to) => self.group.set_cut(from, to, false),
                Ending::NoLoss => self.group.set_loss(0),
                Ending::Fast(member) => self.group.set_slowness(member, 1),
            }
        }
    }

    fn start(&mut self, member: usize) {
        if !self.group.has_process(member) {
            self.starts[member] += 1;
            let incarnation = Incarnation(member as u64 + 1);
            self.group
                .start(member, incarnation, self.starts[member], None);
        }
    }

    fn strike(&mut self) {
        let random = &mut self.random;
        let now = self.group.now();
        let long = random.chance(1, 3);
        let over = now + random.below(if long { 10 * SECOND } else { SECOND });
        let member = random.below(MEMBERS as u64) as usize;
        let other = (member + 1 + random.below(2) as usize) % MEMBERS;
        self.summary.faults += 1;
        match random.below(9) {
            0 | 1 => {
                self.group.stop(member, false);
                self.endings.push((over, Ending::Start(member)));
            }
            2 => {
                self.group.stop(member, true);
                self.endings.push((over, Ending::Start(member)));
            }
            3 => {
                for member in 0..MEMBERS {
                    self.group.stop(member, true);
                    let over = now + self.random.below(3 * SECOND);
                    self.endings.push((over, Ending::Start(member)));
                }
            }
            4 => {
                self.group.pause(member);
                self.endings.push((over, Ending::Resume(member)));
            }
            5 => self.cut(member, other, over),
            6 => {
                self.cut(member, other, over);
                self.cut(other, member, over);
            }
            7 => {
                for other in (0..MEMBERS).filter(|other| *other != member) {
                    self.cut(member, other, over);
                    self.cut(other, member, over);
                }
            }
            _ => {
                let (lost, factor) = (10 + random.below(300), 2 + random.below(50));
                self.group.set_loss(lost);
                self.endings.push((over, Ending::NoLoss));
                self.group.set_slowness(member, factor);
                self.endings.push((over, Ending::Fast(member)));
            }
        }
    }

    fn cut(&mut self, from: usize, to: usize, over: u64) {
        self.group.set_cut(from, to, true);
        self.endings.push((over, Ending::Whole(from, to)));
    }

    fn ask(&mut self) {
        self.tokens += 1;
        let (token, member) = (self.tokens, self.random.below(MEMBERS as u64) as usize);
        if self.random.chance(1, 2) {
            self.group.confirm(member, token, PATIENCE);
            return;
        }
        let command = self.command();
        self.group.propose(member, token, command, PATIENCE);
    }

    fn command(&mut self) -> Command {
        let newest = self.group.newest();
        let under_way = newest.updates.iter().find(|update| {
            matches!(
                update.status,
                UpdateStatus::Pending | UpdateStatus::InProgress
            )
        });
        match (self.random.below(8), under_way) {
            (0, Some(update)) => match update.action {
                UpdateAction::Activate => Command::Activated {
                    domain: update.domain,
                },
                UpdateAction::Deactivate => Command::Deactivated {
                    domain: update.domain,
                    proof: String::new(),
                },
            },
            (0, None) => Command::Deactivate {
                domain: DomainId(1 + self.random.below(2) as u32),
                answering: [1, 2, 3].map(NodeId).into(),
                accept_data_loss: true,
            },
            (1, _) => Command::Activate {
                domain: DomainId(1 + self.random.below(2) as u32),
            },
            _ => {
                self.volumes += 1;
                // Few names, so that many wishes are refused.
                let name = format!("v{}", self.random.below(self.volumes));
                Command::CreateVolume {
                    name,
                    bytes: 1 << 20,
                    block_bytes: 4096,
                    policy: VolumePolicy::default(),
                }
            }
        }
    }

    fn take_outputs(&mut self) -> Result<(), String> {
        for output in self.group.take_outputs() {
            match output {
                Output::Proposed { result, .. } => {
                    self.summary.answered += u64::from(result.is_ok())
                }
                Output::Confirmed { result, .. } => {
                    self.summary.confirmed += u64::from(result.is_some());
                }
                Output::Registered { .. } | Output::News { .. } => {}
            }
        }
        self.group.failure().map_or(Ok(()), Err)
    }

    /// Everything heals: every member must answer soon, and have what the others have.
    fn heal(&mut self) -> Result<(), String> {
        self.group.heal_all();
        for member in 0..MEMBERS {
            self.group.set_slowness(member, 1);
            self.group.resume(member);
            self.start(member);
        }
        let activate = |domain| Command::Activate {
            domain: DomainId(domain),
        };
        for domain in [1, 2] {
            // Refused where the domain was never to go.
            drop(self.group.propose_now(&activate(domain))?);
        }
        self.group
            .until("every member has what the others have", |group| {
                let newest = group.newest();
                (0..MEMBERS).all(|member| {
                    group
                        .catalog(member)
                        .is_some_and(|catalog| *catalog == *newest)
                })
            })?;
        self.take_outputs()
    }
}

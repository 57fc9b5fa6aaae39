//! A data node: its process with the host in it, or its disk while no process runs; and everything that passes between the two and
//! the rest of the world.

use super::{Event, Simulation};
use crate::checkers::{Broken, Held, check_bounds};
use crate::clock::NodeClock;
use crate::scenario::{Micros, Scenario};
use crate::schedule::{MICROSECOND, MILLISECOND, SECOND};
use bytes::{Bytes, BytesMut};
use isthmus_catalog::Catalog;
use isthmus_engine::{DomainId, Incarnation, NodeId, Standing, Time, VolumeId};
use isthmus_host::{ClientRequest, Host, Identity, Lane, Outcome, Outputs};
use isthmus_mutation::Mutation;
use isthmus_simulated_disk::{Random, SimulatedDisk};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// How often what nodes hold is looked at.
const LOOK: u64 = 100 * MILLISECOND;

/// The host that ships, over the simulated disk; requests are named by numbers.
pub(super) type SimulatedHost = Host<SimulatedDisk, u64>;

/// What reaches a node's process.
#[derive(Debug)]
pub(super) enum Input {
    SessionUp(u64),
    SessionDown(u64),
    Frame {
        session: u64,
        volume: VolumeId,
        lane: Lane,
        bytes: Bytes,
    },
    /// Whether the link to the other node is too slow for a replica behind it.
    SlowPeer(bool),
    Catalog(Arc<Catalog>),
    Answer {
        volume: VolumeId,
        done: bool,
    },
    Confirmed {
        begun: Time,
        catalog: Option<Arc<Catalog>>,
    },
    Attach {
        volume: VolumeId,
        number: u64,
    },
    Detach(VolumeId),
    Submit {
        volume: VolumeId,
        number: u64,
        request: ClientRequest,
    },
}

/// A data node.
#[derive(Debug)]
pub(super) struct Node {
    pub id: NodeId,
    pub domain: DomainId,
    pub incarnation: Incarnation,
    /// Starts of its store.
    pub starts: u64,
    /// Names the run of its kernel.
    pub boot: u128,
    /// Counts processes and power failures: what was on its way to an earlier life is lost.
    pub life: u64,
    pub host: Option<Box<SimulatedHost>>,
    /// While no process runs.
    disk: Option<SimulatedDisk>,
    /// Full, or read-only.
    pub disk_is_bad: bool,
    /// Power is lost when its disk has seen so many of the changes it watches for, and for how long.
    pub dies_at: Option<(u64, Micros)>,
    pub clock: NodeClock,
    rate: u64,
    /// Stopped; and which pause it is.
    pub paused: Option<u64>,
    pub paused_since: u64,
    pauses: u64,
    backlog: VecDeque<Input>,
    wake_at: u64,
    /// The session that this process believes in.
    pub session: Option<u64>,
    /// Frames of a session that it has not heard of yet.
    early: Vec<(u64, VolumeId, Lane, Bytes)>,
    pub reaches_kvdb: bool,
    /// Since when it finds the link to the other node too slow. A process that was started since finds it fast.
    pub slow_since: Option<u64>,
    /// Whether kvdb has noted this start.
    pub registered: bool,
    /// The next of kvdb's versions to send to it, and when the one before arrives.
    pub next_version: usize,
    pub version_arrives: u64,
    /// The revision that its host has acted on.
    pub acted_on: u64,
}

impl Node {
    pub fn new(index: usize, scenario: &Scenario, random: &mut Random) -> Node {
        let rate = 1_000_000u64.saturating_add_signed(scenario.world.drift_millionths[index]);
        Node {
            id: NodeId(index as u32 + 1),
            domain: DomainId(index as u32 + 1),
            incarnation: Incarnation(random.next_u64() | 1),
            starts: 0,
            boot: index as u128 * 1000 + 1,
            life: 0,
            host: None,
            disk: Some(new_disk(random.next_u64(), scenario)),
            disk_is_bad: false,
            dies_at: None,
            clock: NodeClock::new(0, random.below(1000 * SECOND), rate),
            rate,
            paused: None,
            paused_since: 0,
            pauses: 0,
            backlog: VecDeque::new(),
            wake_at: u64::MAX,
            session: None,
            early: Vec::new(),
            reaches_kvdb: true,
            slow_since: None,
            registered: false,
            next_version: 0,
            version_arrives: 0,
            acted_on: 0,
        }
    }

    /// Whether a process runs here and is not stopped.
    pub fn answers(&self) -> bool {
        self.host.is_some() && self.paused.is_none()
    }

    /// Whether its host says that it serves nothing.
    pub fn serves_nothing(&self, now: u64) -> bool {
        self.host.as_ref().is_some_and(|host| {
            host.status(self.clock.at(now)).iter().all(|status| {
                matches!(
                    status.standing,
                    Standing::Idle | Standing::Following { .. } | Standing::Unable(_)
                )
            })
        })
    }

    pub fn disk_mut(&mut self) -> &mut SimulatedDisk {
        match &mut self.host {
            Some(host) => host.disk_mut(),
            None => self
                .disk
                .as_mut()
                .expect("without a process there is a disk"),
        }
    }
}

fn new_disk(seed: u64, scenario: &Scenario) -> SimulatedDisk {
    let mut disk = SimulatedDisk::new(seed);
    disk.set_slow_per_mille(scenario.world.disk_slow_per_mille);
    disk
}

impl Simulation {
    /// Starts a process on the node's disk, as an operator or an init system would.
    pub(super) fn start(&mut self, index: usize) {
        let now = self.schedule.now();
        if self.nodes[index].disk_is_bad && self.nodes[index].host.is_none() {
            // Whoever starts it is told so, and tries again.
            self.schedule.after(SECOND / 2, Event::Start(index));
            return;
        }
        let node = &mut self.nodes[index];
        let Some(mut disk) = node.disk.take() else {
            return;
        };
        disk.advance(now);
        node.starts += 1;
        node.life += 1;
        node.registered = false;
        node.acted_on = 0;
        node.session = None;
        node.early.clear();
        node.wake_at = u64::MAX;
        let identity = Identity {
            node: node.id,
            incarnation: node.incarnation,
        };
        let opened = Host::open(
            disk,
            identity,
            self.scenario.world.settings(),
            self.scenario.world.shape(),
            node.clock.at(now),
        );
        let (id, life) = (node.id, node.life);
        match opened {
            Ok(host) => {
                let closed = format!("{:?}", host.closed());
                if !host.closed().is_empty() {
                    self.fail(
                        "recovery",
                        format!("{id} can't open replicas after a restart: {closed}"),
                    );
                }
                let text: Vec<String> = host
                    .status(Time(0))
                    .iter()
                    .map(|status| {
                        format!(
                            "{} epoch {} committed {} end {} whole {} {:?}",
                            status.volume,
                            status.epoch,
                            status.committed,
                            status.end,
                            status.whole,
                            status.standing
                        )
                    })
                    .collect();
                self.nodes[index].host = Some(Box::new(host));
                self.note(super::NAMES[index], || {
                    format!("starts (life {life}): {}", text.join("; "))
                });
                self.check_standing(index);
                self.register(index);
                self.wake_soon(index);
            }
            Err(error) => self.fail("recovery", format!("{id} can't start: {error}")),
        }
    }

    /// Ends the node's process; with `power_lost` also the machine, with what no sync covered.
    pub(super) fn stop(&mut self, index: usize, power_lost: bool) {
        let now = self.schedule.now();
        let random_start = self.random.below(1000 * SECOND);
        let node = &mut self.nodes[index];
        if let Some(host) = node.host.take() {
            node.disk = Some(host.into_disk());
        }
        let disk = node
            .disk
            .as_mut()
            .expect("without a process there is a disk");
        if power_lost {
            disk.advance(now);
            disk.crash();
            if !Mutation::ForgetReboot.is_on() {
                node.boot += 1;
            }
            node.clock = NodeClock::new(now, random_start, node.rate);
        } else {
            disk.reopen();
        }
        node.life += 1;
        node.paused = None;
        node.backlog.clear();
        node.session = None;
        self.stop_member(index, power_lost);
        self.node_died(index);
    }

    /// The node's disk is replaced by an empty one, while no process runs.
    pub(super) fn replace_disk(&mut self, index: usize) {
        let (seed, incarnation) = (self.random.next_u64(), self.random.next_u64() | 1);
        let node = &mut self.nodes[index];
        assert!(node.host.is_none(), "a disk is replaced while nothing runs");
        node.disk = Some(new_disk(seed, &self.scenario));
        node.disk_mut().advance(self.schedule.now());
        if !Mutation::KeepIncarnation.is_on() {
            node.incarnation = Incarnation(incarnation);
            node.starts = 0;
        }
        self.replace_members_disk(index);
    }

    pub(super) fn pause(&mut self, index: usize) -> u64 {
        self.pause_member(index);
        let node = &mut self.nodes[index];
        node.pauses += 1;
        node.paused = Some(node.pauses);
        node.paused_since = self.schedule.now();
        node.pauses
    }

    pub(super) fn resume(&mut self, index: usize, pause: u64) {
        if self.nodes[index].paused != Some(pause) {
            return;
        }
        self.nodes[index].paused = None;
        self.note(super::NAMES[index], || "goes on".into());
        self.resume_member(index);
        // A process that was stopped finds timers and input due at once, in an order that nobody chose.
        let timers_first = self.random.chance(1, 2);
        if timers_first {
            self.run_host(index);
        }
        while let Some(input) = self.nodes[index].backlog.pop_front() {
            self.give(index, input);
            if self.nodes[index].host.is_none() || self.failure.is_some() {
                return;
            }
        }
        self.wake_soon(index);
    }

    /// Something for the node's present process, `delay` nanoseconds from now.
    pub(super) fn send_to(&mut self, node: usize, delay: u64, input: Input) {
        let life = self.nodes[node].life;
        self.schedule
            .after(delay, Event::ToNode { node, life, input });
    }

    pub(super) fn arrive(&mut self, index: usize, life: u64, input: Input) {
        let node = &mut self.nodes[index];
        if node.life != life || node.host.is_none() {
            return;
        }
        if let Input::Frame { session, .. } = &input
            && self.link.is_lost(*session, 1 - index)
        {
            return;
        }
        if node.paused.is_some() {
            node.backlog.push_back(input);
            return;
        }
        self.timeline.mix(index as u64);
        self.give(index, input);
        self.wake_soon(index);
    }

    fn give(&mut self, index: usize, input: Input) {
        let now = self.schedule.now();
        let node = &mut self.nodes[index];
        let peer = NodeId(2 - index as u32);
        let time = node.clock.at(now);
        let Some(host) = &mut node.host else { return };
        host.disk_mut().advance(now);
        let mut outputs = Outputs::default();
        match input {
            Input::SessionUp(session) => {
                if node.session.is_some_and(|known| known >= session) {
                    return;
                }
                if node.session.is_some() && session.is_multiple_of(2) {
                    host.on_session_down(time, peer, &mut outputs);
                }
                node.session = Some(session);
                host.on_session_up(time, peer, &mut outputs);
                let early = std::mem::take(&mut node.early);
                self.note(super::NAMES[index], || format!("session {session} is up"));
                self.take_outputs(index, outputs);
                for (of, volume, lane, bytes) in early {
                    if of == session {
                        self.give(
                            index,
                            Input::Frame {
                                session,
                                volume,
                                lane,
                                bytes,
                            },
                        );
                    }
                }
                return;
            }
            Input::SessionDown(session) => {
                if node.session != Some(session) {
                    return;
                }
                node.session = None;
                host.on_session_down(time, peer, &mut outputs);
                self.note(super::NAMES[index], || format!("session {session} is down"));
            }
            Input::Frame {
                session,
                volume,
                lane,
                bytes,
            } => {
                if node.session.is_none_or(|known| known < session) {
                    node.early.push((session, volume, lane, bytes));
                    return;
                }
                if node.session != Some(session) {
                    return;
                }
                if let Err(malformed) =
                    host.on_frame(time, peer, volume, lane, &bytes, &mut outputs)
                {
                    self.fail(
                        "frames",
                        format!("a frame of {peer} is malformed: {malformed}"),
                    );
                }
            }
            Input::SlowPeer(slow) => {
                let slow = slow.then_some(peer).into_iter().collect();
                host.on_slow_peers(time, &slow, &mut outputs);
            }
            Input::Catalog(catalog) => {
                node.acted_on = catalog.revision;
                host.on_catalog(time, catalog, &mut outputs);
            }
            Input::Answer { volume, done } => host.on_answer(time, volume, done, &mut outputs),
            Input::Confirmed { begun, catalog } => {
                host.on_confirmed(time, begun, catalog.as_deref(), &mut outputs);
            }
            Input::Attach { volume, number } => host.attach(time, volume, number, &mut outputs),
            Input::Detach(volume) => host.detach(time, volume, &mut outputs),
            Input::Submit {
                volume,
                number,
                request,
            } => {
                host.submit(time, volume, number, request, &mut outputs);
            }
        }
        self.take_outputs(index, outputs);
    }

    pub(super) fn wake_soon(&mut self, index: usize) {
        let delay = self.random.below(100 * MICROSECOND);
        self.wake_by(index, self.schedule.now() + delay);
    }

    fn wake_by(&mut self, index: usize, at: u64) {
        let node = &mut self.nodes[index];
        if at < node.wake_at {
            node.wake_at = at;
            self.schedule.at(at, Event::Wake(index));
        }
    }

    pub(super) fn wake(&mut self, index: usize) {
        let now = self.schedule.now();
        let node = &mut self.nodes[index];
        if node.wake_at != now || node.host.is_none() {
            return;
        }
        node.wake_at = u64::MAX;
        if node.paused.is_none() {
            self.run_host(index);
        }
    }

    fn run_host(&mut self, index: usize) {
        let now = self.schedule.now();
        let node = &mut self.nodes[index];
        let time = node.clock.at(now);
        let Some(host) = &mut node.host else { return };
        host.disk_mut().advance(now);
        if let Some((sightings, for_us)) = node.dies_at
            && host.disk_mut().sightings() >= sightings
        {
            // Before it hears that this was done.
            node.dies_at = None;
            self.die(index, true, for_us);
            return;
        }
        let mut outputs = Outputs::default();
        let again = host.run(time, &mut outputs);
        self.take_outputs(index, outputs);
        let node = &mut self.nodes[index];
        let Some(host) = &mut node.host else { return };
        let due = host.deadline().map(|deadline| node.clock.when(deadline));
        let disk = host.disk_mut().next_event();
        let again = again.then_some(now + MICROSECOND);
        if let Some(at) = [due, disk, again].into_iter().flatten().min() {
            // Waking takes a little: nothing runs twice in one instant.
            self.wake_by(index, at.max(now + MICROSECOND));
        }
    }

    fn take_outputs(&mut self, index: usize, outputs: Outputs<u64>) {
        let id = self.nodes[index].id;
        for (volume, event) in outputs.events {
            self.timeline.mix(event.len() as u64);
            if event.starts_with("STOPPED") {
                self.fail("stopped", format!("{id} {volume}: {event}"));
            }
            self.note(super::NAMES[index], || format!("{volume}: {event}"));
        }
        // A frame that was handed out before an answer is on its way before it.
        for frame in outputs.frames {
            let mut bytes = BytesMut::with_capacity(frame.head.len() + frame.body.len());
            bytes.extend_from_slice(&frame.head);
            bytes.extend_from_slice(&frame.body);
            self.send_frame(index, frame.volume, frame.lane, bytes.freeze());
        }
        for (number, outcome) in outputs.replies {
            self.reply(index, number, outcome);
        }
        for (volume, proposal) in outputs.proposals {
            self.propose(index, volume, proposal);
        }
        if outputs.confirm {
            self.confirm(index);
        }
        for volume in outputs.demoted {
            self.demoted(index, volume);
        }
    }

    fn reply(&mut self, index: usize, number: u64, outcome: Outcome) {
        self.timeline.mix(number);
        self.client_hears(index, number, outcome);
    }

    /// Checks what every running node holds.
    pub(super) fn look_at_nodes(&mut self) {
        self.schedule.after(LOOK, Event::Look);
        for index in [0, 1] {
            self.check_standing(index);
            if let Err((rule, what)) = self.check_node(index) {
                let id = self.nodes[index].id;
                self.fail(rule, format!("{id}: {what}"));
            }
        }
    }

    fn check_node(&mut self, index: usize) -> Result<(), Broken> {
        let node = &mut self.nodes[index];
        let (id, incarnation) = (node.id, node.incarnation);
        let Some(host) = &mut node.host else {
            return Ok(());
        };
        let mut held = Held::default();
        for (volume, mirror) in host.mirrors() {
            let engine = mirror.engine();
            held.in_doubt
                .push((mirror.in_doubt_bytes(), mirror.blocks()));
            let progress = &mut self.checkers.progress;
            if engine.configuration_is_durable() {
                let epoch = engine.configuration().epoch;
                progress
                    .epoch_is_durable(id, incarnation, *volume, epoch)
                    .map_err(|what| ("progress", what))?;
            }
        }
        // A volume that was deleted while the disk was read-only leaves its files until the node is started again (seed 795375490046).
        let named = |path: &str| {
            path.strip_prefix("volumes/")?
                .split('/')
                .next()?
                .parse()
                .ok()
        };
        let on_disk: BTreeSet<u64> = host.disk_mut().paths().filter_map(named).collect();
        let left_over = on_disk
            .into_iter()
            .filter(|volume| !host.mirrors().contains_key(&VolumeId(*volume)));
        let plans = self.scenario.volumes.iter();
        let largest = plans.map(|plan| plan.blocks).max().unwrap_or(0);
        held.in_doubt.extend(left_over.map(|_| (0, largest)));
        held.disk_bytes = host.disk_mut().allocated_bytes();
        check_bounds(self.scenario.world.shape(), &held).map_err(|what| ("bounds", what))
    }

    /// No replica ever finds a rule broken (I10), unless we broke it.
    pub(super) fn check_standing(&mut self, index: usize) {
        let now = self.schedule.now();
        let node = &self.nodes[index];
        let Some(host) = &node.host else { return };
        let damaged = host
            .status(node.clock.at(now))
            .into_iter()
            .find_map(|status| match status.standing {
                Standing::Damaged(reason) => Some((status.volume, reason)),
                _ => None,
            });
        if let Some((volume, reason)) = damaged {
            let id = node.id;
            self.fail("stopped", format!("{id} {volume} stopped: {reason}"));
        }
    }
}

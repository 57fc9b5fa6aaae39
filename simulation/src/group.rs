//! kvdb's three members as they ship, in one thread: openraft, our log store, journal, snapshots, membership and client, each member on
//! a simulated runtime over a simulated disk, with its own clock; and what lies between them.
//!
//! It has its own event heap: whoever uses it asks for the next event ([`Group::next_event`]), lets time pass ([`Group::advance`]), and
//! takes what came of it ([`Group::take_outputs`]). Replaced are: the transport (calls get lost, late, or cut off), the kernel's disk, the
//! process (an executor), and the clock. Everything above these seams is the code of `isthmusd`.
//!
//! Reading order: `plan`, `process` (one life of a member), `shared_disk`, `wires`, `calls`, [`forming`] (a new cluster), [`soak`] (a group alone,
//! under everything).

mod calls;
pub mod forming;
mod plan;
mod process;
mod shared_disk;
pub mod soak;
mod wires;

use crate::checkers::history::{Begun, History};
use crate::checkers::votes::Votes;
use crate::clock::NodeClock;
use crate::schedule::{MICROSECOND, MILLISECOND, SECOND, Schedule};
use bytes::Bytes;
use isthmus_catalog::{BootId, Catalog, Command};
use isthmus_engine::{Incarnation, NodeId};
use isthmus_kvdb::{KvdbConfig, KvdbMetrics};
use isthmus_mutation::Mutation;
use isthmus_simulated_disk::Random;
use parking_lot::Mutex;
use process::{CallAnswer, Process, Said, Service};
use shared_disk::SharedDisk;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use wires::Wires;

pub use plan::{GroupPlan, Output};
pub use process::Formation;
pub use wires::{MEMBERS, WiresPlan};

/// How often the sessions' state is looked at.
const SESSIONS_LOOK: u64 = 100 * MILLISECOND;
/// How often it is looked whether a member has stopped by itself.
const LOOK: u64 = SECOND;

/// What reaches a process.
#[derive(Debug)]
enum Inbound {
    Request {
        call: u64,
        from: usize,
        service: Service,
        request: Bytes,
    },
    Answer {
        call: u64,
        result: io::Result<Bytes>,
    },
}

#[derive(Debug)]
enum Event {
    Wake(usize),
    Deliver {
        to: usize,
        life: u64,
        inbound: Inbound,
    },
    Look,
    Sessions,
}

/// A question of kvdb that waits for its answer.
struct Call {
    from: usize,
    life: u64,
    to: usize,
    request: Bytes,
    answer: Option<CallAnswer>,
}

struct Member {
    node: NodeId,
    /// Counts processes.
    life: u64,
    /// Names the run of its kernel.
    boot: u128,
    process: Option<Process>,
    disk: SharedDisk,
    /// The incarnation whose store is on the disk.
    formatted: Option<Incarnation>,
    clock: NodeClock,
    rate: u64,
    is_paused: bool,
    backlog: VecDeque<Inbound>,
    wake_at: u64,
}

/// The members and everything between them.
pub struct Group {
    plan: GroupPlan,
    random: Random,
    schedule: Schedule<Event>,
    members: Vec<Member>,
    wires: Wires,
    /// When both of two members last could hear each other.
    silent_since: [[u64; MEMBERS]; MEMBERS],
    calls: BTreeMap<u64, Call>,
    calls_made: u64,
    operations: BTreeMap<(usize, u64, u64), Begun>,
    history: Arc<Mutex<History>>,
    votes: Votes,
    outputs: Vec<Output>,
    hash: u64,
    failure: Option<String>,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Group")
            .field("now", &self.schedule.now())
            .field("calls", &self.calls.len())
            .finish_non_exhaustive()
    }
}

impl Group {
    /// Members 0 and 1 are nodes 1 and 2, member 2 is node 3, the witness. Nothing runs yet.
    #[must_use]
    pub fn new(seed: u64, plan: GroupPlan) -> Group {
        let mut random = Random::new(seed);
        let member = |index: usize, random: &mut Random| Member {
            node: NodeId(index as u32 + 1),
            life: 0,
            boot: 1,
            process: None,
            disk: SharedDisk::new(random.next_u64()),
            formatted: None,
            clock: NodeClock::new(0, random.below(1000 * SECOND), plan.clock_rates[index]),
            rate: plan.clock_rates[index],
            is_paused: false,
            backlog: VecDeque::new(),
            wake_at: u64::MAX,
        };
        let members = (0..MEMBERS)
            .map(|index| member(index, &mut random))
            .collect();
        let mut schedule = Schedule::default();
        schedule.after(LOOK, Event::Look);
        schedule.after(1, Event::Sessions);
        Group {
            plan,
            random,
            schedule,
            members,
            wires: Wires::new(plan.wires),
            silent_since: [[0; MEMBERS]; MEMBERS],
            calls: BTreeMap::new(),
            calls_made: 0,
            operations: BTreeMap::new(),
            history: Arc::default(),
            votes: Votes::default(),
            outputs: Vec::new(),
            hash: 0,
            failure: None,
        }
    }

    /// True time, in nanoseconds.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.schedule.now()
    }

    /// When something happens next.
    #[must_use]
    pub fn next_event(&self) -> Option<u64> {
        self.schedule.next_at()
    }

    /// Lets everything happen up to `now`.
    pub fn advance(&mut self, now: u64) {
        while self.schedule.next_at().is_some_and(|at| at <= now) && self.failure.is_none() {
            let Some(event) = self.schedule.pop() else {
                break;
            };
            self.take(event);
        }
        self.schedule.pass(now);
    }

    /// What came of it since the last call.
    pub fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// A hash of all that has happened.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The first broken rule.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let broken = self.failure.clone();
        let broken = broken.or_else(|| self.history.lock().broken().map(str::to_owned))?;
        let metrics: Vec<_> = (0..MEMBERS).map(|member| self.metrics(member)).collect();
        Some(format!("{broken}\n  members: {metrics:#?}"))
    }

    /// The newest catalog that any member has applied.
    #[must_use]
    pub fn newest(&self) -> Arc<Catalog> {
        self.history
            .lock()
            .versions()
            .last()
            .cloned()
            .unwrap_or_default()
    }

    /// The catalogs from this revision on.
    #[must_use]
    pub fn versions_from(&self, revision: usize) -> Vec<Arc<Catalog>> {
        let history = self.history.lock();
        history.versions().iter().skip(revision).cloned().collect()
    }

    /// How a member's kvdb is, if it runs.
    #[must_use]
    pub fn metrics(&self, member: usize) -> Option<KvdbMetrics> {
        self.members[member].process.as_ref()?.metrics()
    }

    /// What a member has applied, if it runs.
    #[must_use]
    pub fn catalog(&self, member: usize) -> Option<Arc<Catalog>> {
        self.members[member].process.as_ref()?.catalog()
    }

    /// Whether a member's process runs and is not stopped.
    #[must_use]
    pub fn answers(&self, member: usize) -> bool {
        let member = &self.members[member];
        member.process.is_some() && !member.is_paused
    }

    /// The member that believes to lead, and answers.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        let leads = |member: &usize| {
            self.answers(*member)
                && self
                    .metrics(*member)
                    .is_some_and(|metrics| metrics.is_leader)
        };
        (0..MEMBERS).rev().find(leads)
    }

    fn mix(&mut self, fact: u64) {
        self.hash = (self.hash ^ fact)
            .wrapping_mul(0x0000_0100_0000_01b3)
            .rotate_left(23);
    }

    fn mix_bytes(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn fail(&mut self, what: String) {
        self.failure.get_or_insert(what);
    }

    /// Starts a member's process on its disk; a store of another incarnation is formatted anew. Returns the process's life.
    pub fn start(
        &mut self,
        index: usize,
        incarnation: Incarnation,
        starts: u64,
        formation: Option<Formation>,
    ) -> u64 {
        let now = self.now();
        let (seed, client) = (self.random.next_u64(), self.random.next_u64());
        let identity = self.random.next_u64();
        let plan = self.plan;
        let member = &mut self.members[index];
        assert!(member.process.is_none(), "one process a member");
        member.life += 1;
        member.disk.advance(now);
        let nodes = (1..=MEMBERS as u32).map(NodeId).collect();
        let mut config = KvdbConfig::new(member.node, incarnation, client, nodes);
        config.snapshot_entries = plan.snapshot_entries;
        config.election_min = plan.election_min;
        config.election_max = plan.election_min * 2;
        if member.formatted != Some(incarnation) {
            let mut disk = member.disk.clone();
            let formatted =
                isthmus_kvdb::format_with(&mut disk, &config.folder, plan.shape, identity);
            if let Err(error) = formatted {
                self.fail(format!("member {index} can't be formatted: {error}"));
                return 0;
            }
            member.formatted = Some(incarnation);
        }
        let (history, life) = (Arc::clone(&self.history), member.life);
        let observe = move |applied: u64, catalog: &Catalog| {
            history.lock().applied(index, life, applied, catalog);
        };
        member.process = Some(Process::start(
            seed,
            member.clock.at(now).0,
            config,
            (starts, BootId(member.boot)),
            member.disk.clone(),
            Box::new(observe),
            formation,
        ));
        self.run(index);
        life
    }

    /// Ends a member's process; with `power_lost` also its machine, with what no sync covered.
    pub fn stop(&mut self, index: usize, power_lost: bool) {
        let now = self.now();
        let shows = self.random.below(1000 * SECOND);
        let member = &mut self.members[index];
        drop(member.process.take());
        member.disk.advance(now);
        member.disk.abandon(power_lost);
        if power_lost {
            member.clock = NodeClock::new(now, shows, member.rate);
            if !Mutation::ForgetReboot.is_on() {
                member.boot += 1;
            }
        }
        member.is_paused = false;
        member.backlog.clear();
        member.wake_at = u64::MAX;
        // Who waits for its answers hears that the connection is gone, or nothing.
        let lost: Vec<u64> = self
            .calls
            .iter()
            .filter(|(_, call)| call.to == index)
            .map(|(number, _)| *number)
            .collect();
        for call in lost {
            if self.random.chance(1, 2) {
                self.answer(index, call, Err(io::ErrorKind::ConnectionReset.into()));
            }
        }
    }

    /// The member's disk is replaced by an empty one, while no process runs.
    pub fn replace_disk(&mut self, index: usize) {
        let (now, seed) = (self.now(), self.random.next_u64());
        let member = &mut self.members[index];
        assert!(
            member.process.is_none(),
            "a disk is replaced while nothing runs"
        );
        member.disk = SharedDisk::new(seed);
        member.disk.advance(now);
        member.formatted = None;
    }

    /// Stops a member's process (SIGSTOP).
    pub fn pause(&mut self, index: usize) {
        self.members[index].is_paused = true;
    }

    /// Lets it go on: timers and input are due at once, in an order that nobody chose.
    pub fn resume(&mut self, index: usize) {
        if !std::mem::replace(&mut self.members[index].is_paused, false) {
            return;
        }
        if self.random.chance(1, 2) {
            self.run(index);
        }
        while let Some(inbound) = self.members[index].backlog.pop_front() {
            self.give(index, inbound);
        }
        self.run(index);
    }

    /// Cuts the way from one member to another, or makes it whole.
    pub fn set_cut(&mut self, from: usize, to: usize, is_cut: bool) {
        self.wires.set_cut(from, to, is_cut);
    }

    /// Lets so many messages in a thousand get lost.
    pub fn set_loss(&mut self, lost_per_mille: u64) {
        self.wires.plan.lost_per_mille = lost_per_mille;
    }

    /// Whether a member's process runs, stopped or not.
    #[must_use]
    pub fn has_process(&self, member: usize) -> bool {
        self.members[member].process.is_some()
    }

    /// Ends all cuts, and all loss and lateness.
    pub fn heal_all(&mut self) {
        self.wires.heal_all();
        self.wires.plan.lost_per_mille = 0;
        self.wires.plan.late_per_mille = 0;
    }

    /// Makes a member's disk slower.
    pub fn set_slowness(&mut self, index: usize, factor: u64) {
        self.members[index].disk.set_slowness(factor);
    }

    /// Proposes at a member; the end comes as an output. Whether kvdb is there to be asked.
    pub fn propose(
        &mut self,
        index: usize,
        token: u64,
        command: Command,
        within: Duration,
    ) -> bool {
        self.begin(index, token, |process| {
            process.propose(token, command, within)
        })
    }

    /// Reads at a member, linearizably; the end comes as an output. Whether kvdb is there to be asked.
    pub fn confirm(&mut self, index: usize, token: u64, within: Duration) -> bool {
        self.begin(index, token, |process| process.confirm(token, within))
    }

    fn begin(&mut self, index: usize, token: u64, ask: impl FnOnce(&Process) -> bool) -> bool {
        let begun = self.history.lock().begin();
        let member = &self.members[index];
        let is_asked = !member.is_paused && member.process.as_ref().is_some_and(ask);
        if is_asked {
            self.operations.insert((index, member.life, token), begun);
            self.run(index);
        }
        is_asked
    }

    fn take(&mut self, event: Event) {
        self.mix(self.schedule.now());
        match event {
            Event::Wake(index) => {
                let member = &mut self.members[index];
                if member.wake_at == self.schedule.now() {
                    member.wake_at = u64::MAX;
                    self.run(index);
                }
            }
            Event::Deliver { to, life, inbound } => {
                let member = &mut self.members[to];
                if member.life != life || member.process.is_none() {
                    return;
                }
                if member.is_paused {
                    member.backlog.push_back(inbound);
                } else {
                    self.give(to, inbound);
                    self.run(to);
                }
            }
            Event::Sessions => self.look_at_sessions(),
            Event::Look => {
                self.schedule.after(LOOK, Event::Look);
                for index in 0..MEMBERS {
                    let Some(metrics) = self.metrics(index) else {
                        continue;
                    };
                    if let Some(reason) = metrics.stopped {
                        self.fail(format!("member {index} has stopped: {reason}"));
                    }
                    let incarnation = self.members[index].formatted.unwrap_or(Incarnation(0));
                    if let Err(what) =
                        self.votes
                            .knows(index, incarnation, self.members[index].life, metrics.term)
                    {
                        self.fail(what);
                    }
                }
            }
        }
    }

    fn give(&mut self, index: usize, inbound: Inbound) {
        match inbound {
            Inbound::Request {
                call,
                from,
                service,
                request,
            } => {
                self.mix_bytes(&request);
                let from = self.members[from].node;
                if let Some(process) = &self.members[index].process {
                    process.serve(call, from, service, request);
                }
            }
            Inbound::Answer { call, result } => {
                if let Ok(bytes) = &result {
                    self.mix_bytes(bytes);
                }
                let answer = self.calls.remove(&call).and_then(|call| call.answer);
                if let Some(answer) = answer {
                    // Whoever asked may have given up.
                    drop(openraft::rt::OneshotSender::send(answer, result));
                }
            }
        }
    }

    /// Lets a process do all that it can do now.
    fn run(&mut self, index: usize) {
        let now = self.now();
        let member = &self.members[index];
        if member.is_paused {
            return;
        }
        let Some(process) = &member.process else {
            return;
        };
        member.disk.advance(now);
        for said in process.run(member.clock.at(now).0) {
            self.hear(index, said);
        }
        let member = &mut self.members[index];
        let Some(process) = &member.process else {
            return;
        };
        let timer = process.next_timer();
        let timer = timer.map(|at| member.clock.when(isthmus_engine::Time(at)));
        let ready = process.is_ready().then_some(now);
        let next = [timer, member.disk.next_event(), ready];
        if let Some(at) = next.into_iter().flatten().min() {
            let at = at.max(now + MICROSECOND);
            if at < member.wake_at || member.wake_at <= now {
                member.wake_at = at;
                self.schedule.at(at, Event::Wake(index));
            }
        }
    }

    fn hear(&mut self, index: usize, said: Said) {
        let life = self.members[index].life;
        match said {
            Said::Call {
                to,
                service,
                request,
                within,
                answer,
            } => self.send_request(index, to, (service, request), within, answer),
            Said::Served { call, answer } => {
                let incarnation = self.members[index].formatted.unwrap_or(Incarnation(0));
                let request = self.calls.get(&call).map(|call| call.request.clone());
                if let Some(vote) =
                    request.and_then(|request| isthmus_kvdb::given_vote(&request, &answer))
                    && let Err(what) = self.votes.gives(index, incarnation, life, vote)
                {
                    self.fail(what);
                }
                self.answer(index, call, Ok(answer));
            }
            Said::Broken(reason) => self.fail(format!("member {index} (life {life}): {reason}")),
            Said::Registered => {
                self.mix(index as u64);
                self.outputs.push(Output::Registered {
                    member: index,
                    life,
                });
            }
            Said::News(catalog) => {
                self.mix(catalog.revision);
                self.outputs.push(Output::News {
                    member: index,
                    life,
                    catalog,
                });
            }
            Said::Proposed { token, id, result } => {
                let begun = self.operations.remove(&(index, life, token));
                if let (Some(begun), Ok(answer)) = (begun, &result) {
                    self.history.lock().answered(begun, id, answer);
                }
                self.mix(token);
                self.outputs.push(Output::Proposed {
                    member: index,
                    life,
                    token,
                    result,
                });
            }
            Said::Confirmed { token, result } => {
                let begun = self.operations.remove(&(index, life, token));
                if let (Some(begun), Some(catalog)) = (begun, &result) {
                    self.history.lock().confirmed(begun, catalog);
                }
                self.mix(token);
                self.outputs.push(Output::Confirmed {
                    member: index,
                    life,
                    token,
                    result,
                });
            }
        }
    }
}

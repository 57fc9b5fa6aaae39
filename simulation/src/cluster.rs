//! The simulated world: what there is, the events, and the loop.
//!
//! Modules in reading order: `node` (a data node: start, death, its host's inputs and outputs), `link` (sessions and frames), `kvdb` (its members
//! as they ship, or an atomic stand-in), `operator` (domains go and come), `clients`, `faults`, `settling` (everything heals, and must become well).

mod clients;
mod faults;
mod kvdb;
mod link;
mod node;
mod operator;
mod settling;

use crate::checkers::Checkers;
use crate::scenario::Scenario;
use crate::schedule::Schedule;
use crate::timeline::{Recording, Timeline};
use clients::Clients;
use isthmus_simulated_disk::Random;
use kvdb::Kvdb;
use link::Link;
use node::{Input, Node};
use operator::Operator;
use settling::Settling;

/// What happens.
#[derive(Debug)]
enum Event {
    /// A node's host goes on: something is due, or its disk has finished something.
    Wake(usize),
    /// Something reaches a node's process, if it still is that process.
    ToNode {
        node: usize,
        life: u64,
        input: Input,
    },
    /// A node's process starts.
    Start(usize),
    /// A stopped process goes on.
    Resume { node: usize, pause: u64 },
    /// The sessions' state is looked at.
    Link,
    /// What the nodes hold is looked at.
    Look,
    /// A cut of the link ends.
    Heal(link::Cut),
    /// Something at kvdb.
    Kvdb(kvdb::Event),
    /// A client looks at what to do.
    Client(usize),
    /// The operator asks for something.
    Wish(usize),
    /// What domain updates wait for is looked at.
    DomainUpdates,
    /// A fault strikes.
    Fault(usize),
    /// The link is as fast as it was.
    LinkFast,
    /// A disk is fast again.
    DiskFast(usize),
    /// A node finds the link to the other one fast enough again, unless it has found it too slow since.
    PeerFast { node: usize, since: u64 },
    /// A disk is well again.
    DiskMended(usize),
    /// Faults end.
    Settle,
    /// How far settling is.
    Settling,
}

/// A broken rule.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The name of the rule.
    pub rule: &'static str,
    /// What was found.
    pub what: String,
    /// When, in nanoseconds since the beginning.
    pub at: u64,
    /// The last lines of the timeline, where it was recorded.
    pub lines: Vec<String>,
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The hash of everything that happened.
    pub hash: u64,
    /// Events.
    pub events: u64,
    /// Virtual nanoseconds.
    pub nanoseconds: u64,
    /// What clients asked for.
    pub operations: u64,
    /// Reads and changes that were answered well.
    pub answered: u64,
    /// Faults.
    pub faults: u64,
    /// Promotions that opened.
    pub opened: u64,
    /// Members that left a set by a primary's wish.
    pub shrunk: u64,
    /// Members that were taken into a set.
    pub grown: u64,
    /// Deactivations that were proven.
    pub deactivated: u64,
    /// Losses of power at all members of a set, of volumes whose writes are answered when they are held.
    pub kernels_lost: u64,
}

impl Summary {
    /// Adds another run's numbers.
    pub fn add(&mut self, other: &Summary) {
        self.hash ^= other.hash;
        for (sum, more) in [
            (&mut self.events, other.events),
            (&mut self.nanoseconds, other.nanoseconds),
            (&mut self.operations, other.operations),
            (&mut self.answered, other.answered),
            (&mut self.faults, other.faults),
            (&mut self.opened, other.opened),
            (&mut self.shrunk, other.shrunk),
            (&mut self.grown, other.grown),
            (&mut self.deactivated, other.deactivated),
            (&mut self.kernels_lost, other.kernels_lost),
        ] {
            *sum += more;
        }
    }
}

/// A cluster with its clients, operator, faults and checkers.
#[derive(Debug)]
pub struct Simulation {
    random: Random,
    scenario: Scenario,
    schedule: Schedule<Event>,
    timeline: Timeline,
    nodes: [Node; 2],
    link: Link,
    kvdb: Kvdb,
    operator: Operator,
    clients: Clients,
    settling: Option<Settling>,
    checkers: Checkers,
    summary: Summary,
    failure: Option<(&'static str, String)>,
    finished: bool,
}

/// The nodes' names: two with replicas, and the witness.
pub(crate) const NAMES: [&str; 3] = ["a1", "b1", "w1"];

/// More events than any healthy run has: a run that gets here goes round in circles.
const EVENTS_MAX: u64 = 20_000_000;

impl Simulation {
    /// The cluster of a scenario, about to start.
    #[must_use]
    pub fn new(scenario: Scenario, recording: Recording) -> Simulation {
        // Not the numbers that the scenario was drawn with.
        let mut random = Random::new(scenario.seed ^ 0x15_7a05);
        let nodes = [
            Node::new(0, &scenario, &mut random),
            Node::new(1, &scenario, &mut random),
        ];
        let (kvdb, volumes) = Kvdb::new(&scenario, &nodes);
        let clients = Clients::new(&scenario, &volumes);
        let checkers = Checkers::new(&volumes, scenario.world.clocks_are_good());
        let mut simulation = Simulation {
            random,
            scenario,
            schedule: Schedule::default(),
            timeline: Timeline::new(recording),
            nodes,
            link: Link::default(),
            kvdb,
            operator: Operator::default(),
            clients,
            settling: None,
            checkers,
            summary: Summary::default(),
            failure: None,
            finished: false,
        };
        simulation.begin();
        simulation
    }

    fn begin(&mut self) {
        let world = self.scenario.world.clone();
        self.note("world", || format!("{world:?}"));
        for volume in self.scenario.volumes.clone() {
            self.note("world", || format!("{volume:?}"));
        }
        for node in 0..self.nodes.len() {
            self.schedule
                .after(self.random.below(50_000_000), Event::Start(node));
        }
        self.begin_group();
        self.schedule.after(1, Event::Link);
        self.schedule.after(1, Event::Look);
        self.begin_clients();
        self.plan_wishes();
        self.schedule.after(1, Event::DomainUpdates);
        self.plan_faults();
        self.schedule.at(self.scenario.faults_end(), Event::Settle);
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// The first broken rule.
    pub fn run(mut self) -> Result<Summary, Failure> {
        while self.failure.is_none() && !self.finished {
            let Some(event) = self.schedule.pop() else {
                self.fail("liveness", "nothing is to happen any more".into());
                break;
            };
            self.summary.events += 1;
            if self.summary.events > EVENTS_MAX {
                self.fail("liveness", "it goes round in circles".into());
            }
            self.timeline.mix(self.schedule.now());
            self.take(event);
        }
        if self.failure.is_none()
            && let Err((rule, what)) = self.checkers.at_the_end()
        {
            self.fail(rule, what);
        }
        self.summary.answered = self.checkers.answered;
        self.summary.hash = self.timeline.hash();
        self.summary.nanoseconds = self.schedule.now();
        match self.failure {
            None => Ok(self.summary),
            Some((rule, what)) => Err(Failure {
                seed: self.scenario.seed,
                rule,
                what,
                at: self.schedule.now(),
                lines: self.timeline.lines(),
            }),
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Wake(node) => self.wake(node),
            Event::ToNode { node, life, input } => self.arrive(node, life, input),
            Event::Start(node) => self.start(node),
            Event::Resume { node, pause } => self.resume(node, pause),
            Event::Link => self.look_at_link(),
            Event::Look => self.look_at_nodes(),
            Event::Heal(cut) => self.heal(cut),
            Event::Kvdb(event) => self.at_kvdb(event),
            Event::Client(client) => self.client_looks(client),
            Event::Wish(index) => self.wish(index),
            Event::DomainUpdates => self.carry_domain_updates_on(),
            Event::Fault(index) => self.fault(index),
            Event::LinkFast => self.link.slower_by = 0,
            Event::DiskFast(node) => self.set_slowness(node, 1),
            Event::PeerFast { node, since } => self.find_fast(node, since),
            Event::DiskMended(node) => self.mend_disk(node),
            Event::Settle => self.settle(),
            Event::Settling => self.look_at_settling(),
        }
    }

    /// A broken rule was found.
    fn fail(&mut self, rule: &'static str, what: String) {
        self.note("BROKEN", || format!("{rule}: {what}"));
        self.failure.get_or_insert((rule, what));
    }

    fn note(&mut self, who: &str, line: impl FnOnce() -> String) {
        let now = self.schedule.now();
        self.timeline.note(now, who, line);
    }
}

use super::watch::{Findings, GOAL_SILENCE_MAX, Policy, RELOCATION_TIME_MAX, View, Watch};
use crate::api::access::Observations;
use crate::api::tests::{NODES, apply, formed, heard, runtime};
use isthmus_api::{VolumeRole, VolumeRuntime};
use isthmus_catalog::{Answer, Catalog, Command, NodeRecord, VolumePolicy};
use isthmus_engine::{DomainId, Epoch, Incarnation, NodeId, ReplicaId, Time, VolumeId};
use std::collections::BTreeSet;
use std::time::Duration;

const START: Time = Time(1_000_000_000_000);
const SITE_A: DomainId = DomainId(1);
const AFTER: Duration = Duration::from_secs(10);
const AUTOMATIC: Policy = Policy {
    automatic: true,
    after: AFTER,
    auto_activate: true,
};
const MANUAL: Policy = Policy {
    automatic: false,
    ..AUTOMATIC
};

/// A cluster whose volume `demo` is served by a1.
struct World {
    catalog: Catalog,
    watch: Watch,
    seen: Observations,
    voters: BTreeSet<NodeId>,
    requests: u64,
}

fn a1() -> ReplicaId {
    ReplicaId {
        node: NodeId(1),
        incarnation: Incarnation(1),
    }
}

impl World {
    fn new() -> World {
        let mut world = World {
            catalog: formed(),
            watch: Watch::default(),
            seen: Observations::new(),
            voters: NODES.map(|(id, ..)| NodeId(id)).into(),
            requests: 100,
        };
        world.answer(&[1, 2, 3]);
        world.done(Command::CreateVolume {
            name: "demo".to_owned(),
            bytes: 1 << 30,
            block_bytes: 4096,
            policy: VolumePolicy::default(),
        });
        let expected = world.epoch();
        world.done(Command::Promote {
            volume: VolumeId(1),
            expected,
            candidate: a1(),
        });
        let epoch = world.epoch();
        world.done(Command::Opened {
            volume: VolumeId(1),
            epoch,
            primary: a1(),
        });
        world
    }

    fn epoch(&self) -> Epoch {
        self.catalog.volumes[&VolumeId(1)].epoch
    }

    fn done(&mut self, command: Command) {
        self.requests += 1;
        let answer = apply(&mut self.catalog, self.requests, command);
        assert!(!matches!(answer, Answer::Refused(_)), "{answer:?}");
    }

    /// These nodes answer, and have sessions with each other.
    fn answer(&mut self, nodes: &[u32]) {
        self.seen.clear();
        for (id, ..) in NODES {
            let mut observation = heard(runtime(id));
            observation.answers = nodes.contains(&id);
            if let Some(runtime) = &mut observation.runtime {
                let others = nodes.iter().copied().filter(|other| *other != id);
                runtime.sessions = Some(others.collect());
            }
            self.seen.insert(NodeId(id), observation);
        }
    }

    fn volume(&mut self, node: u32, change: impl FnOnce(&mut VolumeRuntime)) {
        let observation = self.seen.get_mut(&NodeId(node)).unwrap();
        let mut volume = VolumeRuntime {
            volume: 1,
            epoch: (0, 2),
            role: VolumeRole::Secondary,
            may_serve: false,
            committed_seq: 0,
            last_epoch: (0, 0),
            last_seq: 0,
            whole: true,
            clients: 0,
            welcomed: false,
            absent: Vec::new(),
            moved_bytes: 0,
            reason: String::new(),
            frozen_since_ms: None,
            grants: Vec::new(),
            disk: isthmus_api::DiskState::default(),
        };
        change(&mut volume);
        observation.runtime.as_mut().unwrap().volumes = vec![volume];
    }

    fn look(&mut self, after: Duration, policy: Policy) -> Findings {
        let answering = crate::api::facts::answering(&self.seen);
        let view = View {
            catalog: &self.catalog,
            voters: &self.voters,
            observations: &self.seen,
            answering: &answering,
            now: START + after,
        };
        self.watch.look(&view, policy)
    }

    fn is_idle(&mut self, after: Duration) -> bool {
        self.look(after, AUTOMATIC) == Findings::default()
    }
}

fn fails_over(findings: &Findings) -> bool {
    matches!(&findings.commands[..], [(Command::FailOver { domain, .. }, _)] if *domain == SITE_A)
}

#[test]
fn a_site_that_nobody_hears_is_failed_over_after_its_time() {
    let mut world = World::new();
    assert!(world.is_idle(Duration::ZERO));
    world.answer(&[2, 3]);
    assert!(world.is_idle(Duration::from_secs(1)));
    assert!(world.is_idle(Duration::from_secs(1) + AFTER - Duration::from_millis(1)));
    let findings = world.look(Duration::from_secs(1) + AFTER, AUTOMATIC);
    assert!(fails_over(&findings), "{findings:?}");
    let (command, _) = findings.commands[0].clone();
    world.done(command);
    // Done: the domain is being deactivated, nothing is asked twice.
    assert!(world.is_idle(Duration::from_secs(2) + AFTER));
}

#[test]
fn without_the_policy_nothing_is_failed_over() {
    let mut world = World::new();
    world.answer(&[2, 3]);
    for seconds in 0..100 {
        let findings = world.look(Duration::from_secs(seconds), MANUAL);
        assert_eq!(findings, Findings::default());
    }
}

#[test]
fn a_site_that_the_witness_hears_is_left_alone() {
    let mut world = World::new();
    world.answer(&[2, 3]);
    // It says so, or its version does not say what it hears.
    for sessions in [Some(vec![1, 2]), None] {
        let witness = world.seen.get_mut(&NodeId(3)).unwrap();
        witness.runtime.as_mut().unwrap().sessions = sessions;
        assert!(world.is_idle(Duration::ZERO));
        assert!(world.is_idle(AFTER * 10));
    }
}

#[test]
fn a_site_of_which_only_a_diskless_node_is_left_is_lost_unless_that_one_hears_the_others() {
    let mut world = World::new();
    let worker = NodeRecord {
        name: "worker-1".to_owned(),
        domain: SITE_A,
        ..world.catalog.nodes[&NodeId(2)].clone()
    };
    world.done(Command::AddDiskless {
        node: NodeId(4),
        record: Box::new(worker),
    });
    world.answer(&[2, 3]);
    let mut worker = runtime(1);
    worker.node = 4;
    worker.sessions = Some(vec![1, 2, 3]);
    world.seen.insert(NodeId(4), heard(worker));
    assert!(world.is_idle(Duration::ZERO));
    assert!(world.is_idle(AFTER * 10));
    let worker = world.seen.get_mut(&NodeId(4)).unwrap();
    worker.runtime.as_mut().unwrap().sessions = Some(vec![2, 3]);
    assert!(world.is_idle(AFTER * 20));
    assert!(fails_over(&world.look(AFTER * 21, AUTOMATIC)));
}

#[test]
fn a_voter_that_does_not_answer_may_hear_the_site() {
    let mut world = World::new();
    world.answer(&[2]);
    assert!(world.is_idle(Duration::ZERO));
    assert!(world.is_idle(AFTER * 10));
}

#[test]
fn a_sign_of_life_and_a_new_leader_start_the_time_anew() {
    let mut world = World::new();
    world.answer(&[2, 3]);
    assert!(world.is_idle(Duration::ZERO));
    world.answer(&[1, 2, 3]);
    assert!(world.is_idle(AFTER / 2));
    world.answer(&[2, 3]);
    assert!(world.is_idle(AFTER / 2 + Duration::from_secs(1)));
    assert!(world.is_idle(AFTER));
    world.watch = Watch::default();
    assert!(world.is_idle(AFTER * 2));
    assert!(fails_over(&world.look(AFTER * 3, AUTOMATIC)));
}

#[test]
fn a_site_that_alone_has_the_writes_is_left_alone_and_that_is_said_once() {
    let mut world = World::new();
    let epoch = world.epoch();
    let b1 = ReplicaId {
        node: NodeId(2),
        incarnation: Incarnation(2),
    };
    world.done(Command::Shrink {
        volume: VolumeId(1),
        epoch,
        primary: a1(),
        leaving: [b1].into(),
    });
    world.answer(&[2, 3]);
    assert!(world.is_idle(Duration::ZERO));
    let findings = world.look(AFTER, AUTOMATIC);
    assert!(findings.commands.is_empty() && findings.notes.len() == 1);
    assert!(world.is_idle(AFTER * 2));
}

#[test]
fn a_site_that_came_back_is_activated_only_if_the_policy_had_deactivated_it() {
    for automatic in [true, false] {
        let mut world = World::new();
        let answering: BTreeSet<NodeId> = [NodeId(2), NodeId(3)].into();
        world.done(match automatic {
            true => Command::FailOver {
                domain: SITE_A,
                answering,
            },
            false => Command::Deactivate {
                domain: SITE_A,
                answering,
                accept_data_loss: false,
            },
        });
        world.done(Command::Deactivated {
            domain: SITE_A,
            proof: String::new(),
        });
        // Its report is complete.
        let name = world.catalog.failovers.back().unwrap().name.clone();
        world.done(Command::NoteFailover {
            name,
            positions: vec![(VolumeId(1), 1)],
        });
        world.answer(&[1, 2, 3]);
        assert!(world.is_idle(Duration::ZERO));
        let findings = world.look(AFTER, AUTOMATIC);
        let activates = matches!(
            &findings.commands[..],
            [(Command::Activate { domain }, _)] if *domain == SITE_A
        );
        assert_eq!(activates, automatic, "{findings:?}");
    }
}

#[test]
fn a_failovers_report_gets_the_positions_of_the_survivors() {
    let mut world = World::new();
    world.answer(&[2, 3]);
    world.done(Command::FailOver {
        domain: SITE_A,
        answering: [NodeId(2), NodeId(3)].into(),
    });
    assert!(world.look(Duration::ZERO, MANUAL).commands.is_empty());
    world.volume(2, |volume| volume.committed_seq = 7);
    let findings = world.look(Duration::ZERO, MANUAL);
    let [(command @ Command::NoteFailover { positions, .. }, _)] = &findings.commands[..] else {
        panic!("{findings:?}")
    };
    assert_eq!(*positions, vec![(VolumeId(1), 7)]);
    world.done(command.clone());
    assert_eq!(world.look(Duration::ZERO, MANUAL), Findings::default());
}

fn moving() -> World {
    let mut world = World::new();
    world.done(Command::Relocate {
        volume: VolumeId(1),
        to: NodeId(2),
    });
    world
}

fn ends_move(findings: &Findings, why: &str) -> bool {
    matches!(&findings.commands[..], [(Command::EndRelocation { .. }, text)] if text.contains(why))
}

#[test]
fn a_move_ends_with_the_first_client_at_its_goal() {
    let mut world = moving();
    assert!(world.is_idle(Duration::ZERO));
    world.volume(2, |volume| volume.may_serve = true);
    assert!(world.is_idle(Duration::from_secs(1)));
    world.volume(2, |volume| {
        (volume.may_serve, volume.welcomed) = (true, true)
    });
    let findings = world.look(Duration::from_secs(1), MANUAL);
    assert!(ends_move(&findings, "has come"), "{findings:?}");
}

#[test]
fn a_move_to_which_nobody_comes_ends_by_time() {
    let mut world = moving();
    assert!(world.is_idle(Duration::ZERO));
    assert!(world.is_idle(RELOCATION_TIME_MAX - Duration::from_millis(1)));
    let findings = world.look(RELOCATION_TIME_MAX, MANUAL);
    assert!(ends_move(&findings, "no client"), "{findings:?}");
}

#[test]
fn a_move_to_a_silent_node_is_off() {
    let mut world = moving();
    assert!(world.is_idle(Duration::ZERO));
    world.answer(&[1, 3]);
    assert!(world.look(GOAL_SILENCE_MAX / 2, MANUAL).commands.is_empty());
    let findings = world.look(GOAL_SILENCE_MAX, MANUAL);
    assert!(ends_move(&findings, "does not answer"), "{findings:?}");
}

#[test]
fn a_move_to_a_replica_that_can_not_serve_is_off() {
    let mut world = moving();
    world.volume(2, |volume| volume.role = VolumeRole::Unable);
    assert!(world.is_idle(Duration::ZERO));
    let findings = world.look(GOAL_SILENCE_MAX, MANUAL);
    assert!(ends_move(&findings, "can't serve"), "{findings:?}");
}

use crate::api::access::Observations;
use crate::api::tests::{apply, formed, heard, runtime};
use crate::domains::step::{Step, UPDATE_TIME_MAX, Update, View};
use isthmus_api::{VolumeRole, VolumeRuntime};
use isthmus_catalog::{Answer, Catalog, Command, DomainUpdate, NodeRecord, VolumePolicy};
use isthmus_engine::{DomainId, Incarnation, NodeId, ReplicaId, Time, VolumeId};
use std::collections::BTreeSet;
use std::time::Duration;

const LEASE: Duration = Duration::from_secs(3);
const START: Time = Time(1_000_000_000_000);

/// a1 serves demo, then site-a is deactivated.
fn deactivating() -> (Catalog, DomainUpdate) {
    let mut catalog = formed();
    let policy = VolumePolicy::default();
    let create = Command::CreateVolume {
        name: "demo".to_owned(),
        bytes: 1 << 30,
        block_bytes: 4096,
        policy,
    };
    let Answer::Volume(volume) = apply(&mut catalog, 10, create) else {
        panic!("no volume")
    };
    let a1 = ReplicaId {
        node: NodeId(1),
        incarnation: Incarnation(1),
    };
    let expected = catalog.volumes[&volume].epoch;
    apply(
        &mut catalog,
        11,
        Command::Promote {
            volume,
            expected,
            candidate: a1,
        },
    );
    let epoch = catalog.volumes[&volume].epoch;
    apply(
        &mut catalog,
        12,
        Command::Opened {
            volume,
            epoch,
            primary: a1,
        },
    );
    let answering = [NodeId(2), NodeId(3)].into();
    let deactivate = Command::Deactivate {
        domain: DomainId(1),
        answering,
        accept_data_loss: false,
    };
    assert!(matches!(
        apply(&mut catalog, 13, deactivate),
        Answer::Update(_)
    ));
    let update = catalog.updates.back().unwrap().clone();
    (catalog, update)
}

fn observations(nodes: &[u32]) -> Observations {
    nodes
        .iter()
        .map(|node| (NodeId(*node), heard(runtime(*node))))
        .collect()
}

fn step(
    update: &mut Update,
    catalog: &Catalog,
    record: &DomainUpdate,
    seen: &Observations,
    voters: &[u32],
    after: Duration,
) -> Step {
    let voters: BTreeSet<NodeId> = voters.iter().copied().map(NodeId).collect();
    update.step(
        &View {
            catalog,
            voters: &voters,
            observations: seen,
            now: START + after,
            lease: LEASE,
        },
        record,
    )
}

fn waits(step: &Step, word: &str) {
    assert!(
        matches!(step, Step::Wait(text) if text.contains(word)),
        "{step:?}, not {word}"
    );
}

#[test]
fn a_dead_sites_fence_is_proven_by_the_lease_from_when_its_giver_had_heard() {
    let (catalog, record) = deactivating();
    let mut update = Update::new(&catalog, START);
    let mut seen = observations(&[2, 3]);
    seen.get_mut(&NodeId(2))
        .unwrap()
        .runtime
        .as_mut()
        .unwrap()
        .acted_on_revision = 1;
    waits(
        &step(
            &mut update,
            &catalog,
            &record,
            &seen,
            &[2],
            Duration::from_secs(60),
        ),
        "b1 must have heard",
    );
    let seen = observations(&[2, 3]);
    let heard = Duration::from_secs(61);
    waits(
        &step(&mut update, &catalog, &record, &seen, &[2], heard),
        "run out",
    );
    waits(
        &step(&mut update, &catalog, &record, &seen, &[2], heard + LEASE),
        "run out",
    );
    let done = step(
        &mut update,
        &catalog,
        &record,
        &seen,
        &[2],
        heard + LEASE + LEASE / 100,
    );
    assert!(
        matches!(
            done,
            Step::Propose(Command::Deactivated {
                domain: DomainId(1),
                ..
            })
        ),
        "{done:?}"
    );
}

#[test]
fn a_site_that_says_that_it_serves_nothing_needs_no_wait() {
    let (catalog, record) = deactivating();
    let mut update = Update::new(&catalog, START);
    let mut seen = observations(&[1, 2, 3]);
    let replica = VolumeRuntime {
        volume: VolumeId(1).0,
        epoch: (0, 1),
        role: VolumeRole::Primary,
        may_serve: true,
        committed_seq: 0,
        last_epoch: (0, 0),
        last_seq: 0,
        whole: true,
        moved_bytes: 0,
        clients: 1,
        welcomed: false,
        absent: Vec::new(),
        reason: String::new(),
        frozen_since_ms: None,
        grants: Vec::new(),
        disk: isthmus_api::DiskState::default(),
    };
    seen.get_mut(&NodeId(1))
        .unwrap()
        .runtime
        .as_mut()
        .unwrap()
        .volumes
        .push(replica);
    waits(
        &step(&mut update, &catalog, &record, &seen, &[2], Duration::ZERO),
        "run out",
    );
    let done = step(
        &mut update,
        &catalog,
        &record,
        &observations(&[1, 2, 3]),
        &[2],
        Duration::ZERO,
    );
    assert!(
        matches!(done, Step::Propose(Command::Deactivated { .. })),
        "{done:?}"
    );
}

#[test]
fn a_diskless_node_holds_no_fence_up_once_those_who_could_serve_it_have_heard() {
    let (mut catalog, record) = deactivating();
    let worker = NodeRecord {
        name: "worker-1".to_owned(),
        domain: DomainId(1),
        ..catalog.nodes[&NodeId(2)].clone()
    };
    let add = Command::AddDiskless {
        node: NodeId(4),
        record: Box::new(worker),
    };
    assert_eq!(apply(&mut catalog, 20, add), Answer::Done);
    let heard_of_it = |seen: &mut Observations, node: u32, revision| {
        let observation = seen.get_mut(&NodeId(node)).unwrap();
        observation.runtime.as_mut().unwrap().acted_on_revision = revision;
    };
    let look = |seen: &Observations| {
        let mut update = Update::new(&catalog, START);
        step(&mut update, &catalog, &record, seen, &[2], Duration::ZERO)
    };
    // The diskless node is silent, and the primary at the other site has not heard: it may take its requests still.
    let mut seen = observations(&[1, 2, 3]);
    heard_of_it(&mut seen, 2, 1);
    waits(&look(&seen), "b1 must have heard");
    heard_of_it(&mut seen, 2, u64::MAX);
    assert!(matches!(look(&seen), Step::Propose(_)), "{:?}", look(&seen));
    // It says itself that it has acted: what it sent before may still be taken there.
    let mut worker = runtime(1);
    worker.node = 4;
    seen.insert(NodeId(4), heard(worker));
    heard_of_it(&mut seen, 2, 1);
    waits(&look(&seen), "b1 must have heard");
    heard_of_it(&mut seen, 2, u64::MAX);
    assert!(matches!(look(&seen), Step::Propose(_)), "{:?}", look(&seen));
}

#[test]
fn a_deactivation_is_not_done_before_the_votes_have_moved() {
    let (catalog, record) = deactivating();
    let mut update = Update::new(&catalog, START);
    let seen = observations(&[1, 2, 3]);
    waits(
        &step(
            &mut update,
            &catalog,
            &record,
            &seen,
            &[1, 2, 3],
            Duration::ZERO,
        ),
        "votes move to b1",
    );
    waits(
        &step(
            &mut update,
            &catalog,
            &record,
            &seen,
            &[2, 3],
            Duration::ZERO,
        ),
        "votes move to b1",
    );
    let late = step(
        &mut update,
        &catalog,
        &record,
        &seen,
        &[1, 2, 3],
        UPDATE_TIME_MAX,
    );
    assert!(
        matches!(late, Step::Propose(Command::UpdateFailed { .. })),
        "{late:?}"
    );
}

#[test]
fn an_activation_waits_for_a_node_that_has_caught_up_and_for_the_votes() {
    let (mut catalog, _) = deactivating();
    apply(
        &mut catalog,
        20,
        Command::Deactivated {
            domain: DomainId(1),
            proof: "test".to_owned(),
        },
    );
    apply(
        &mut catalog,
        21,
        Command::Activate {
            domain: DomainId(1),
        },
    );
    let record = catalog.updates.back().unwrap().clone();
    let mut update = Update::new(&catalog, START);
    waits(
        &step(
            &mut update,
            &catalog,
            &record,
            &observations(&[2, 3]),
            &[2],
            Duration::ZERO,
        ),
        "start a1",
    );
    let mut seen = observations(&[1, 2, 3]);
    seen.get_mut(&NodeId(1))
        .unwrap()
        .runtime
        .as_mut()
        .unwrap()
        .acted_on_revision = 1;
    waits(
        &step(&mut update, &catalog, &record, &seen, &[2], Duration::ZERO),
        "a1 catches up",
    );
    let seen = observations(&[1, 2, 3]);
    waits(
        &step(&mut update, &catalog, &record, &seen, &[2], Duration::ZERO),
        "votes move",
    );
    let done = step(
        &mut update,
        &catalog,
        &record,
        &seen,
        &[1, 2, 3],
        Duration::ZERO,
    );
    assert_eq!(
        done,
        Step::Propose(Command::Activated {
            domain: DomainId(1)
        })
    );
}

//! Random sequences of commands over a cluster small enough that they meet.

use super::*;
use crate::{BootId, Durability, Handover, OnPeerLoss};
use proptest::prelude::*;

/// A command with its epoch and replicas still to be taken from the state it meets.
#[derive(Clone, Debug)]
struct Step {
    what: u8,
    volume: u64,
    node: u32,
    other: u32,
    domain: u32,
    /// How far the epoch or start count is off: mostly not at all.
    off: u32,
    answering: BTreeSet<u32>,
    accept: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let off = prop_oneof![9 => Just(0_u32), 1 => 1_u32..3];
    (
        0_u8..25,
        1_u64..4,
        1_u32..6,
        1_u32..6,
        1_u32..4,
        off,
        proptest::collection::btree_set(1_u32..6, 0..6),
        any::<bool>(),
    )
        .prop_map(
            |(what, volume, node, other, domain, off, answering, accept)| Step {
                what,
                volume,
                node,
                other,
                domain,
                off,
                answering,
                accept,
            },
        )
}

fn command(catalog: &Catalog, step: &Step) -> Command {
    let volume = VolumeId(step.volume);
    let registered = |node: u32| {
        let incarnation = catalog
            .nodes
            .get(&NodeId(node))
            .and_then(|node| node.incarnation)
            .unwrap_or(Incarnation(u64::from(node)));
        ReplicaId {
            node: NodeId(node),
            incarnation,
        }
    };
    let record = catalog.volumes.get(&volume);
    let epoch = record.map_or(Epoch::ZERO, |record| Epoch {
        number: record.epoch.number.saturating_sub(step.off),
        ..record.epoch
    });
    let primary = record
        .and_then(|record| record.primary)
        .filter(|_| step.off == 0)
        .unwrap_or(registered(step.node));
    let domain = DomainId(step.domain);
    match step.what {
        0 => create(&format!("volume-{}", step.volume)),
        1 if step.accept => Command::DeleteVolume { volume },
        1..=3 => Command::Promote {
            volume,
            expected: epoch,
            candidate: registered(step.node),
        },
        4 | 5 => Command::Opened {
            volume,
            epoch,
            primary,
        },
        6 => Command::Shrink {
            volume,
            epoch,
            primary,
            leaving: [registered(step.node), registered(step.other)].into(),
        },
        7 => Command::Shrink {
            volume,
            epoch,
            primary,
            leaving: [registered(step.other)].into(),
        },
        8 if step.accept => Command::BeginCopy {
            volume,
            epoch,
            primary,
            joining: registered(step.other),
        },
        8 => Command::Grow {
            volume,
            epoch,
            primary,
            joining: registered(step.other),
        },
        9 if step.accept => Command::Renew {
            volume,
            epoch,
            primary,
        },
        9 => Command::Release {
            volume,
            epoch,
            primary,
        },
        10 => {
            let starts = catalog.nodes.get(&NodeId(step.node)).map_or(1, |node| {
                (node.starts + 1).saturating_sub(u64::from(step.off))
            });
            Command::NodeStartedIn {
                node: NodeId(step.node),
                incarnation: registered(step.node).incarnation,
                starts,
                boot: BootId(u128::from(step.accept)),
            }
        }
        11 => started(
            step.node,
            u64::from(step.other) * 100 + u64::from(step.off),
            1,
        ),
        12 => Command::Deactivate {
            domain,
            answering: step.answering.iter().map(|node| NodeId(*node)).collect(),
            accept_data_loss: step.accept,
        },
        13 if step.off > 0 => Command::UpdateFailed {
            domain,
            reason: String::new(),
        },
        13 => Command::Deactivated {
            domain,
            proof: String::new(),
        },
        14 => Command::Activate { domain },
        15 => Command::Activated { domain },
        16 => Command::Publish {
            volume,
            node: NodeId(step.node),
            read_only: step.accept,
        },
        17 => Command::Unpublish {
            volume,
            node: NodeId(step.node),
            idle: step.off > 0,
        },
        18 if step.accept => Command::EndRelocation {
            volume,
            to: NodeId(step.node),
        },
        18 => Command::Relocate {
            volume,
            to: NodeId(step.node),
        },
        19 if step.accept => Command::NoteFailover {
            name: catalog
                .failovers
                .back()
                .map_or_else(String::new, |report| report.name.clone()),
            positions: vec![(volume, u64::from(step.other))],
        },
        19 => Command::FailOver {
            domain,
            answering: step.answering.iter().map(|node| NodeId(*node)).collect(),
        },
        20 if step.off > 0 => Command::ForceGeneration {
            id: u64::from(step.other),
        },
        20 => Command::NameReplica {
            volume,
            replica: registered(step.node),
        },
        21 | 22 if step.accept => Command::AddReplica {
            volume,
            node: NodeId(step.node),
        },
        21 | 22 => Command::RemoveReplica {
            volume,
            node: NodeId(step.node),
            answering: step.answering.iter().map(|node| NodeId(*node)).collect(),
        },
        23 if step.accept => Command::RemoveNode {
            node: NodeId(step.node),
        },
        23 => Command::AddNode {
            node: NodeId(step.node),
            record: Box::new(NodeRecord {
                name: format!("node-{}", step.node),
                domain,
                peer_address: String::new(),
                api_address: String::new(),
                nbd_address: None,
                incarnation: None,
                starts: 0,
            }),
        },
        _ if step.accept => Command::ExpandVolume {
            volume,
            bytes: u64::from(step.other) << 20,
        },
        _ => Command::ChangePolicy {
            volume,
            on_peer_loss: Some(OnPeerLoss::Suspend),
            durability: (step.off > 0).then_some(Durability::Flush),
            preferred_domain: Some((step.other < 4).then_some(domain)),
        },
    }
}

/// Epochs never go back, and each change of a volume's primary to another one, or of its set, has a new one.
fn check_change(before: &Catalog, after: &Catalog) {
    for (id, old) in &before.volumes {
        let Some(new) = after.volumes.get(id) else {
            assert_eq!(
                old.primary, None,
                "only a volume without a primary is deleted"
            );
            continue;
        };
        assert!(new.epoch >= old.epoch, "{old:?} {new:?}");
        assert!(new.bytes >= old.bytes, "a volume does not shrink");
        if new.epoch == old.epoch {
            assert_eq!(
                old.in_sync, new.in_sync,
                "a set changes with the epoch only"
            );
            let opens = new.opened && !old.opened;
            assert!(
                opens || old.opened_set == new.opened_set,
                "the set to go back to changes with the epoch, or when one opens"
            );
            assert!(
                new.primary == old.primary || new.primary.is_none(),
                "a primary begins with an epoch"
            );
            assert!(
                !old.opened || new.opened,
                "only a promotion clears `opened`"
            );
        }
        if old.handover == Handover::Taken && new.handover == Handover::Released {
            assert!(
                old.opened && old.primary.is_some() && new.primary.is_none(),
                "only an opened primary's end ends the wait"
            );
        }
        if old.opened
            && old.primary.is_some()
            && new.primary != old.primary
            && new.handover == Handover::Taken
        {
            assert!(
                new.granted_set.is_superset(&old.in_sync),
                "all that granted are waited for"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_rules_hold_after_any_sequence_of_commands(steps in proptest::collection::vec(step(), 1..120)) {
        let mut cluster = Cluster::with_volume();
        cluster.done(started(4, 4, 1));
        for volume in cluster.catalog.volumes.values_mut() {
            volume.policy.durability = Durability::Flush;
        }
        let mut copy = cluster.catalog.clone();
        for (number, step) in steps.iter().enumerate() {
            let before = cluster.catalog.clone();
            let request = Request {
                id: RequestId { client: 2, number: number as u64 },
                cause: Cause { who: "node".to_owned(), why: String::new(), at_ms: number as u64 },
                command: command(&before, step),
            };
            let answer = cluster.catalog.apply(&request);
            prop_assert_eq!(cluster.catalog.broken_rules(), Vec::<String>::new());
            check_change(&before, &cluster.catalog);
            if matches!(answer, Answer::Refused(_)) {
                prop_assert_eq!(&before, &cluster.catalog, "a refusal changes nothing");
            } else {
                prop_assert!(cluster.catalog.revision <= before.revision + 1);
                prop_assert_eq!(cluster.catalog.revision == before.revision, before == cluster.catalog);
            }
            // A repeat of what changed something is answered from memory; a copy that applies the same comes to the same.
            let once = cluster.catalog.clone();
            if once != before {
                prop_assert_eq!(cluster.catalog.apply(&request), answer.clone());
                prop_assert_eq!(&once, &cluster.catalog);
            }
            prop_assert_eq!(copy.apply(&Request::decode(&request.encode().unwrap()).unwrap()), answer);
            prop_assert_eq!(&copy, &cluster.catalog);
            copy = Catalog::decode(&copy.encode().unwrap()).unwrap();
        }
    }
}

#[test]
fn a_policy_is_kept_as_it_was_given() {
    let mut cluster = Cluster::new();
    let policy = VolumePolicy {
        on_peer_loss: OnPeerLoss::Suspend,
        preferred_domain: Some(B),
        ..VolumePolicy::default()
    };
    cluster.done(Command::CreateVolume {
        name: "demo".to_owned(),
        bytes: 4096,
        block_bytes: 512,
        policy: policy.clone(),
    });
    assert_eq!(cluster.demo().policy, policy);
}

#[test]
fn a_repeated_request_is_applied_once() {
    let mut cluster = Cluster::new();
    let cause = Cause {
        who: "node".to_owned(),
        why: String::new(),
        at_ms: 0,
    };
    let request = Request {
        id: RequestId {
            client: 2,
            number: 1,
        },
        cause,
        command: create("demo"),
    };
    let answer = cluster.catalog.apply(&request);
    let once = cluster.catalog.clone();
    assert_eq!(
        (cluster.catalog.apply(&request), cluster.catalog.clone()),
        (answer, once)
    );
}

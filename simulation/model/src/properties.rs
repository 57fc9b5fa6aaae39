//! What must hold in every state, and what must be reached at all.
//!
//! Reads have no step of their own: in every state in which a replica would answer a read, the property looks at what it would say.

use crate::protocol::Protocol;
use crate::state::{BLOCKS, Broken, DomainState, NOBODY, Role, Standing, State, member, nodes};
use std::sync::atomic::Ordering;

/// How many properties there are.
pub const PROPERTIES: usize = 17 + SITUATIONS;
/// How many situations there are.
pub const SITUATIONS: usize = 14;

/// The names of the situations, in order: a run that reaches none of them has proven nothing.
pub const SITUATION_NAMES: [&str; SITUATIONS] = [
    "a write is acknowledged by a promoted replica",
    "a member's tail is about to be undone",
    "a lost member is back in the set, and its primary knows",
    "a newer write overtakes a copy under way",
    "a dirty map saves copying a block",
    "a promise delays an epoch",
    "a site is proven to serve nothing",
    "a site is active again, and back in the set",
    "a write is acknowledged after a forced generation",
    "an old replica is back in the set of a forced generation",
    "rights were given back, and another replica serves",
    "a replaced disk is in the set",
    "a write that its client saw fail survived",
    "a primary serves alone in its site",
];

macro_rules! properties {
    ($($index:literal $kind:ident $name:expr => $check:path;)*) => {
        impl<const N: usize> Protocol<N> {
            /// The properties as the checker takes them.
            pub(crate) fn all_properties() -> Vec<stateright::Property<Protocol<N>>> {
                vec![$(stateright::Property::$kind($name, |model: &Protocol<N>, state: &State<N>| {
                    properties!(@$kind model, $index, $check(model, state))
                })),*]
            }
        }
    };
    (@always $model:ident, $index:literal, $holds:expr) => {
        // Decided by an earlier state: what is broken there need not be told again.
        $holds || $model.decided[$index].swap(true, Ordering::Relaxed)
    };
    (@sometimes $model:ident, $index:literal, $reached:expr) => {
        !$model.decided[$index].load(Ordering::Relaxed)
            && $reached
            && !$model.decided[$index].swap(true, Ordering::Relaxed)
    };
}

properties! {
    0 always "acknowledged writes survive" => acknowledged_writes_survive;
    1 always "no stale read" => no_stale_read;
    2 always "one primary at a time" => one_primary_at_a_time;
    3 always "in-sync replicas agree" => in_sync_replicas_agree;
    4 always "I1 acknowledge" => acknowledged_means_held;
    5 always "I2 shrink first" => acknowledged_by_the_committed_set;
    6 always "I3 promote from the set" => promoted_from_the_set;
    7 always "I4 fence by epoch" => epochs_never_go_back;
    8 always "I5 reconcile" => opened_logs_agree;
    9 always "I6 grow safely" => members_are_whole;
    10 always "I7 divergence is remembered" => whole_means_equal;
    11 always "I8 gate" => inactive_domains_serve_nothing;
    12 always "I9 one way out of a freeze" => nothing_is_replayed;
    13 always "I10 detect" => nothing_impossible_is_found;
    14 always "I11 read committed" => reads_see_what_cannot_vanish;
    15 always "I12 identity" => members_are_who_they_were;
    16 always "a forced generation loses only by the operator's word" => forced_loses_by_word_only;
    17 sometimes SITUATION_NAMES[0] => acknowledged_by_another;
    18 sometimes SITUATION_NAMES[1] => tail_to_be_undone;
    19 sometimes SITUATION_NAMES[2] => grown_again;
    20 sometimes SITUATION_NAMES[3] => copy_overtaken;
    21 sometimes SITUATION_NAMES[4] => map_saves_copying;
    22 sometimes SITUATION_NAMES[5] => promise_delays;
    23 sometimes SITUATION_NAMES[6] => site_is_inactive;
    24 sometimes SITUATION_NAMES[7] => site_is_back;
    25 sometimes SITUATION_NAMES[8] => acknowledged_in_new_generation;
    26 sometimes SITUATION_NAMES[9] => back_in_new_generation;
    27 sometimes SITUATION_NAMES[10] => handed_over;
    28 sometimes SITUATION_NAMES[11] => replaced_disk_is_in;
    29 sometimes SITUATION_NAMES[12] => failed_write_survived;
    30 sometimes SITUATION_NAMES[13] => serves_alone;
}

/// The nodes whose replica, as its store claims it, is a member of kvdb's set.
fn members<const N: usize>(state: &State<N>) -> impl Iterator<Item = usize> + '_ {
    let in_sync = state.kvdb.configuration.in_sync;
    (0..N).filter(move |node| in_sync & state.name(*node) != 0)
}

fn holds_up_to<const N: usize>(state: &State<N>, node: usize, through: u8) -> bool {
    let log = &state.replicas[node].log;
    log.durable >= through
        && (1..=through).all(|at| log.holds(at, state.seen.committed[usize::from(at) - 1]))
}

/// A primary that serves under kvdb's newest configuration holds every acknowledged write, at the place where it was committed.
fn acknowledged_writes_survive<const N: usize>(_: &Protocol<N>, state: &State<N>) -> bool {
    let seen = &state.seen;
    let kvdb = &state.kvdb.configuration;
    let settled = (1..8).filter(|id| seen.acknowledged >> id & 1 == 1);
    let mut places = settled.map(|id| (id, seen.position(id)));
    places.all(|(id, position)| {
        position != 0
            && (0..N).all(|node| {
                let replica = &state.replicas[node];
                let leads = replica.role == Role::Serving
                    && usize::from(kvdb.primary) == node
                    && replica.configuration.epoch == kvdb.epoch;
                !leads || (replica.log.end >= position && replica.log.holds(position, id))
            })
    })
}

/// What a read at a replica would return now.
fn read<const N: usize>(model: &Protocol<N>, state: &State<N>, node: usize) -> [u8; BLOCKS] {
    let replica = &state.replicas[node];
    if model.breaks(crate::mutation::Mutation::ReadUncommitted) {
        replica.content(&state.seen, replica.log.end)
    } else {
        replica.extents
    }
}

/// Whoever would answer a read would return, for each block, the last acknowledged write or a later one.
fn no_stale_read<const N: usize>(model: &Protocol<N>, state: &State<N>) -> bool {
    (0..N)
        .filter(|node| model.may_read(state, *node))
        .all(|node| {
            let content = read(model, state, node);
            (0..BLOCKS).all(|block| {
                let last = state
                    .seen
                    .order()
                    .rev()
                    .find(|id| {
                        state.seen.block(*id) == block && state.seen.acknowledged >> id & 1 == 1
                    })
                    .map_or(0, |id| state.seen.position(id));
                last == 0 || state.seen.position(content[block]) >= last
            })
        })
}

/// At most one replica has the right to serve, and at most one acknowledges under one epoch.
fn one_primary_at_a_time<const N: usize>(model: &Protocol<N>, state: &State<N>) -> bool {
    (0..N).filter(|node| model.may_serve(state, *node)).count() <= 1
        && state.broken != Broken::TwoPrimaries
}

/// The members of kvdb's set have the same content once everything committed is applied, and no position was ever committed twice
/// with different writes.
fn in_sync_replicas_agree<const N: usize>(_: &Protocol<N>, state: &State<N>) -> bool {
    let end = state.seen.committed_end;
    let settled = state.seen.content(end);
    state.broken != Broken::Recommitted
        && members(state)
            .filter(|node| state.replicas[*node].log.end >= end)
            .all(|node| state.replicas[node].content(&state.seen, end) == settled)
}

/// When a write was acknowledged, every member of its primary's set, and every joiner asked for, held it durably.
fn acknowledged_means_held<const N: usize>(_: &Protocol<N>, state: &State<N>) -> bool {
    state.broken != Broken::Unheld
}

/// When a write was acknowledged under kvdb's newest epoch, every member of the *committed* set held it durably.
fn acknowledged_by_the_committed_set<const N: usize>(_: &Protocol<N>, state: &State<N>) -> bool {
    state.broken != Broken::Uncommitted
}

/// kvdb's primary is a member of its set, and serves under its epoch only once that is opened.
fn promoted_from_the_set<const N: usize>(_: &Protocol<N>, state: &State<N>) -> bool {
    let kvdb = &state.kvdb.configuration;
    if kvdb.primary == NOBODY {
        return true;
    }
    let node = usize::from(kvdb.primary);
    let replica = &state.replicas[node];
    let serves = replica.role == Role::Serving && replica.configuration.epoch == kvdb.epoch;
    let name = member(node, state.kvdb.registered >> node & 1);
    let holds = holds_up_to(state, node, state.seen.committed_end);
    kvdb.in_sync & name != 0 && (holds || !replica.is_up()) && (!serves || kvdb.opened)
}

/// No write is acknowledged under an older epoch than the one before.
fn epochs_never_go_back<const N: usize>(_: &Protocol<N>, state: &State<N>) -> bool {
    state.broken != Broken::OldEpoch
}

/// While an epoch is opened, the logs of its members are beginnings of one another: nothing is left that two of them tell differently.
fn opened_logs_agree<const N: usize>(_: &Protocol<N>, state: &State<N>) -> bool {
    !state.kvdb.configuration.opened
        || members(state).all(|one| {
            members(state).filter(|other| *other > one).all(|other| {
                let (one, other) = (&state.replicas[one].log, &state.replicas[other].log);
                (1..=one.end.min(other.end)).all(|at| {
                    one.epoch(at) == other.epoch(at)
                        && (at <= one.base || at <= other.base || one.id(at) == other.id(at))
                })
            })
        })
}

/// Every member of kvdb's set is whole, and holds everything committed durably.
fn members_are_whole<const N: usize>(_: &Protocol<N>, state: &State<N>) -> bool {
    members(state).all(|node| {
        state.replicas[node].whole && holds_up_to(state, node, state.seen.committed_end)
    })
}

/// A joiner that says that it has copied everything has the committed content in every block.
fn whole_means_equal<const N: usize>(_: &Protocol<N>, state: &State<N>) -> bool {
    (0..N).all(|primary| {
        (0..N).all(|node| {
            let standing = state.replicas[primary].members[node].standing;
            let replica = &state.replicas[node];
            let says = matches!(standing, Standing::Copied | Standing::Asked) && replica.whole;
            let end = state.seen.committed_end.min(replica.log.end);
            !says
                || replica.log.committed > end
                || !matches!(replica.role, Role::Following { .. })
                || replica.content(&state.seen, end) == state.seen.content(end)
        })
    })
}

/// A replica of an inactive domain serves nothing, is in no set, and is no primary.
fn inactive_domains_serve_nothing<const N: usize>(model: &Protocol<N>, state: &State<N>) -> bool {
    (0..N)
        .filter(|node| state.kvdb.domains[State::<N>::domain(*node)] == DomainState::Inactive)
        .all(|node| {
            let kvdb = &state.kvdb.configuration;
            !model.may_serve(state, node)
                && usize::from(kvdb.primary) != node
                && nodes(kvdb.in_sync) >> node & 1 == 0
        })
}

/// A write is ordered once: never again after its client was told how it ended.
fn nothing_is_replayed<const N: usize>(_: &Protocol<N>, state: &State<N>) -> bool {
    state.broken != Broken::Replayed
}

/// No replica ever finds what makes it stop: a log of a member that ends below a committed position, a set that counts a replica
/// which has not copied everything, an invitation to a member. (The digests of I10 have no part in the model.)
fn nothing_impossible_is_found<const N: usize>(_: &Protocol<N>, state: &State<N>) -> bool {
    state.broken != Broken::Damaged
}

/// Whoever would answer a read would return only what is committed, and so can't vanish.
fn reads_see_what_cannot_vanish<const N: usize>(model: &Protocol<N>, state: &State<N>) -> bool {
    (0..N)
        .filter(|node| model.may_read(state, *node))
        .all(|node| {
            let content = read(model, state, node);
            content
                .iter()
                .all(|id| *id == 0 || state.seen.position(*id) != 0)
        })
}

/// A member of the set is on the disk that it was on when it became one.
fn members_are_who_they_were<const N: usize>(_: &Protocol<N>, state: &State<N>) -> bool {
    members(state).all(|node| state.replicas[node].disk == state.replicas[node].incarnation)
}

/// A forced generation that names a member of an opened set loses no acknowledged write.
fn forced_loses_by_word_only<const N: usize>(_: &Protocol<N>, state: &State<N>) -> bool {
    state.broken != Broken::ForcedLoss
}

fn acknowledged_by_another<const N: usize>(_: &Protocol<N>, state: &State<N>) -> bool {
    state.seen.last_by != NOBODY && state.seen.last_by != 0
}

fn tail_to_be_undone<const N: usize>(_: &Protocol<N>, state: &State<N>) -> bool {
    let epoch = state.kvdb.configuration.epoch;
    state
        .replicas
        .iter()
        .filter(|leader| leader.role == Role::Promoting && leader.configuration.epoch == epoch)
        .any(|leader| {
            (0..N).any(|node| {
                let log = &state.replicas[node].log;
                leader.members[node].standing == Standing::InSet
                    && state.replicas[node].configuration.epoch == epoch
                    && !leader.members[node].aligned
                    && leader
                        .log
                        .common(log)
                        .is_some_and(|common| common < log.end)
            })
        })
}

/// The primary serves under kvdb's newest epoch, with every node's replica in its set.
fn complete<const N: usize>(state: &State<N>) -> bool {
    let kvdb = &state.kvdb.configuration;
    let leads = |replica: &crate::state::Replica<N>| {
        replica.role == Role::Serving && replica.configuration.epoch == kvdb.epoch
    };
    nodes(kvdb.in_sync) == (1 << N) - 1 && state.replicas.iter().any(leads)
}

fn grown_again<const N: usize>(_: &Protocol<N>, state: &State<N>) -> bool {
    state.spent.grows > 0 && complete(state)
}

fn copy_overtaken<const N: usize>(_: &Protocol<N>, state: &State<N>) -> bool {
    let mut copies = state.replicas.iter().flat_map(|replica| replica.copies);
    copies.any(|copy| copy.under_way && copy.id == crate::state::OVERTAKEN)
}

fn map_saves_copying<const N: usize>(_: &Protocol<N>, state: &State<N>) -> bool {
    let joining = |replica: &crate::state::Replica<N>| {
        matches!(replica.role, Role::Following { joining: true, .. })
    };
    state
        .replicas
        .iter()
        .any(|replica| joining(replica) && matches!(replica.todo_durable, 0b01 | 0b10))
}

fn promise_delays<const N: usize>(_: &Protocol<N>, state: &State<N>) -> bool {
    state.replicas.iter().any(|replica| {
        replica.promised_to != NOBODY
            && replica
                .view
                .is_some_and(|view| view.configuration.epoch > replica.configuration.epoch)
    })
}

fn site_is_inactive<const N: usize>(_: &Protocol<N>, state: &State<N>) -> bool {
    state.kvdb.domains.contains(&DomainState::Inactive)
}

fn site_is_back<const N: usize>(_: &Protocol<N>, state: &State<N>) -> bool {
    state.spent.activations > 0 && complete(state)
}

fn acknowledged_in_new_generation<const N: usize>(_: &Protocol<N>, state: &State<N>) -> bool {
    state.seen.last_epoch >> 4 > 0
}

fn back_in_new_generation<const N: usize>(_: &Protocol<N>, state: &State<N>) -> bool {
    state.kvdb.configuration.epoch >> 4 > 0 && complete(state)
}

fn handed_over<const N: usize>(_: &Protocol<N>, state: &State<N>) -> bool {
    state.spent.releases > 0
        && state.spent.crashes == 0
        && state.spent.deactivations == 0
        && state
            .replicas
            .iter()
            .skip(1)
            .any(|replica| replica.role == Role::Serving)
}

fn replaced_disk_is_in<const N: usize>(_: &Protocol<N>, state: &State<N>) -> bool {
    members(state).any(|node| state.replicas[node].incarnation == 1)
}

fn failed_write_survived<const N: usize>(_: &Protocol<N>, state: &State<N>) -> bool {
    state
        .seen
        .order()
        .any(|id| state.seen.failed >> id & 1 == 1)
}

fn serves_alone<const N: usize>(model: &Protocol<N>, state: &State<N>) -> bool {
    (0..N).any(|node| {
        model.may_serve(state, node)
            && State::<N>::in_one_domain(state.replicas[node].configuration.in_sync)
    })
}

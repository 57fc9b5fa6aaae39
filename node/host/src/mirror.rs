//! One volume's replica on this node: its engine, its extents, the bytes of records that are still in doubt, its clients.
//!
//! Modules in reading order: `effects` (what the engine asks for is done), `messages` (frames in), `clients` and `pieces` (requests in,
//! blocks and bytes), `attachment` (who may come), `copying` (resync, the joiner's side), `answering` (the primary's), `checkpoint`,
//! `recovery`; `flushing` (what is answered and not committed yet); `measuring` (what is counted and timed); and for disks that are not what
//! they should be: `fault` (full, failing, lost), `space` (reserved before it is needed), `mending` (bad blocks), `scrub`.

mod answering;
mod attachment;
mod checkpoint;
mod clients;
mod copying;
mod effects;
mod fault;
mod flushing;
mod growing;
mod measuring;
mod mending;
mod messages;
mod pieces;
mod recovery;
mod scrub;
mod space;

pub(crate) use fault::mark_of;
pub use recovery::{MirrorError, Recovering};

use crate::lives::stream_of;
use bytes::Bytes;
use isthmus_catalog::Catalog;
use isthmus_engine::{
    BlockRange, ClientOp, Effects, Entry, NodeId, Replica, ReplicaId, Seq, Time, Token, VolumeId,
};
use isthmus_journal::{Disk, Journal, Lsn, OpId, StreamId};
use isthmus_volume::{RegionMap, StoreEvent, StoreOp, VolumeStore};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::output::{OutgoingFrame, Outputs};
use crate::pace::Pace;
use crate::status::{CopyProgress, ReplicaFault, VolumeStatus};
use crate::wire::Payload;
use answering::{Answering, SourceRead};
use attachment::Waiter;
use checkpoint::Checkpoint;
use clients::{Merge, Operation, Request};
use copying::{Joining, Target};
use fault::{Applying, Backoff, Fault};
use measuring::Measures;
use mending::{Mending, MendingRead, Reader};
use messages::Arrival;
use scrub::Scrub;
use space::Space;

/// What a mirror works with for the length of one call.
pub struct Context<'a, R> {
    /// The time.
    pub now: Time,
    /// The node's journal of volume records.
    pub journal: &'a mut Journal,
    /// Which volume's record each position is, in order, while it isn't durable.
    pub unsettled: &'a mut VecDeque<(Lsn, VolumeId)>,
    /// The same for records of which it is enough that the kernel has them, while it doesn't.
    pub unwritten: &'a mut VecDeque<(Lsn, VolumeId)>,
    /// What is to be done outside.
    pub outputs: &'a mut Outputs<R>,
    /// The newest catalog.
    pub catalog: &'a Arc<Catalog>,
    /// Free journal bytes below which client writes wait.
    pub journal_reserve: u64,
    /// How fast questions of resyncs are answered.
    pub(crate) pace: &'a mut Pace,
}

impl<R> Context<'_, R> {
    /// Free journal bytes.
    fn journal_room(&self) -> u64 {
        self.journal
            .capacity_bytes()
            .saturating_sub(self.journal.used_bytes())
    }
}

/// A dirty map of a replica that is out of the set: everything that changed after `from`.
#[derive(Clone, Debug)]
pub(crate) struct AbsentMap {
    /// The map is complete for records after this one; the replica held everything up to it.
    from: Seq,
    regions: RegionMap,
}

/// A record in doubt, with its bytes.
#[derive(Clone, Debug)]
struct Doubtful {
    entry: Entry,
    payload: Payload,
    /// Its head, as made or received.
    head: Bytes,
    /// Whether it need not be durable before its holder says that it has it.
    held_is_enough: bool,
    /// When this replica ordered it; none for what it was given.
    ordered: Option<Time>,
}

impl Doubtful {
    fn bytes(&self) -> u64 {
        (self.head.len() + self.payload.data.len()) as u64
    }
}

/// A record that is being handed to the engine.
#[derive(Debug)]
struct Staged {
    payload: Payload,
    head: Bytes,
    held_is_enough: bool,
}

/// What a store operation is for.
#[derive(Debug)]
enum StoreWork {
    /// A client's read; `again` after bad blocks in it were mended, or could not be.
    ClientRead {
        op: ClientOp,
        again: bool,
    },
    MergeRead {
        id: u64,
        again: bool,
    },
    Status {
        request: u64,
        /// In blocks from the first: what answered records have written that the store does not hold yet.
        written: Vec<BlockRange>,
    },
    Source(SourceRead),
    TargetRead(u64),
    TargetWrite(u64),
    /// A read for a member whose blocks are bad.
    Mending(MendingRead),
    /// A good copy of a block, for a question.
    Mend(u64, u64),
    Scrub,
    Checkpoint,
}

/// Whether the volume's primary is being moved, as this replica sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Course {
    /// It is not.
    #[default]
    Stays,
    /// To this node: it takes it over, clients or not.
    Comes,
    /// To that one: here, clients are sent away.
    Leaves(NodeId),
}

/// One volume's replica on this node.
#[derive(Debug)]
pub struct Mirror<R> {
    volume: VolumeId,
    /// Of this replica, among those of the volume that were here.
    life: u16,
    /// What clients may ask for, as kvdb said last.
    bytes: u64,
    /// What the replica has room for: never less than any record that it holds or was given.
    blocks: u64,
    engine: Replica,
    store: VolumeStore,
    /// Entries after the committed position, in order, with their bytes.
    window: VecDeque<Doubtful>,
    /// Bytes in the window.
    window_bytes: u64,
    /// What came on the write lane and waits for room in the journal, in order. Bounded by what its primary lets in.
    deferred: VecDeque<(NodeId, Arrival)>,
    /// The bytes of the record that is being handed to the engine.
    staged: Option<Staged>,
    /// What was journalled, and when, and isn't durable yet.
    journalled: VecDeque<(Lsn, Token, Time)>,
    persisted: Token,
    /// Frames that wait for something to be durable, in order.
    held: VecDeque<(Token, OutgoingFrame)>,
    absent: BTreeMap<ReplicaId, AbsentMap>,
    /// What this replica has to compare or copy before it is whole.
    todo: Option<RegionMap>,
    target: Option<Target>,
    moved_bytes: u64,
    joiners: BTreeMap<NodeId, Joining>,
    answering: Answering,
    store_works: BTreeMap<StoreOp, StoreWork>,
    next_number: u64,
    requests: BTreeMap<u64, Request<R>>,
    operations: BTreeMap<ClientOp, Operation>,
    merges: BTreeMap<u64, Merge>,
    locked: BTreeSet<u64>,
    /// Requests that wait for a locked block, or for room in the journal, in order.
    waiting: VecDeque<u64>,
    waiters: Vec<Waiter<R>>,
    clients: usize,
    course: Course,
    /// Whether a client has come since the volume is being moved here.
    welcomed: bool,
    checkpoint: Checkpoint,
    /// Committed records on their way into the extents, in order.
    applying: VecDeque<Applying>,
    /// The last record that gives blocks back.
    last_clear: Seq,
    fault: Option<Fault>,
    backoff: Backoff,
    space: Space,
    mending: Mending,
    scrub: Scrub,
    measures: Measures,
    store_busy: bool,
}

impl<R> Mirror<R> {
    /// Which volume.
    #[must_use]
    pub fn volume(&self) -> VolumeId {
        self.volume
    }

    /// Its engine, to look at.
    #[must_use]
    pub fn engine(&self) -> &Replica {
        &self.engine
    }

    /// Its extents, to look at.
    #[must_use]
    pub fn store(&self) -> &VolumeStore {
        &self.store
    }

    /// Whether its primary is being moved.
    #[must_use]
    pub fn course(&self) -> Course {
        self.course
    }

    /// What clients may ask for, in bytes from the first.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Its size in blocks.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Bytes of records that are not known to be committed.
    #[must_use]
    pub fn in_doubt_bytes(&self) -> u64 {
        self.window_bytes
    }

    /// When to call [`Mirror::on_tick`] next, if time matters.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let attachment = self.waiters.iter().map(Waiter::next_look).min();
        let copying = self.target.as_ref().map(|target| target.next_look());
        let space = self.space.next_look().filter(|_| self.fault.is_none());
        [
            self.engine.deadline(),
            attachment,
            copying,
            space,
            self.next_look_at_fault(),
            self.answering.next_look(),
            self.mending.next_look(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Time has passed.
    pub fn on_tick(&mut self, context: &mut Context<'_, R>) {
        self.with_engine(context, |engine, now, effects| engine.on_tick(now, effects));
        self.measure_frozen(context.now);
        self.look_at_attachment(context);
        self.remind_copying(context);
        self.answer_questions(context);
        self.remind_mending(context);
    }

    /// A session with a peer is up.
    pub fn on_session_up(&mut self, context: &mut Context<'_, R>, peer: NodeId) {
        self.held.retain(|(_, frame)| frame.to != peer);
        self.deferred.retain(|(from, _)| *from != peer);
        self.answering.forget(peer);
        self.with_engine(context, |engine, now, effects| {
            engine.on_session_up(now, peer, effects)
        });
        self.tell_wanted(context);
    }

    /// The session with a peer is gone.
    pub fn on_session_down(&mut self, context: &mut Context<'_, R>, peer: NodeId) {
        self.held.retain(|(_, frame)| frame.to != peer);
        self.deferred.retain(|(from, _)| *from != peer);
        self.answering.forget(peer);
        self.with_engine(context, |engine, now, effects| {
            engine.on_session_down(now, peer, effects)
        });
        self.tell_wanted(context);
    }

    /// The links to these peers are too slow for replicas behind them to stay in sync.
    pub fn on_slow_peers(&mut self, context: &mut Context<'_, R>, slow: &BTreeSet<NodeId>) {
        self.with_engine(context, |engine, now, effects| {
            engine.on_slow_peers(now, slow, effects)
        });
        self.tell_wanted(context);
    }

    /// kvdb has answered a proposal.
    pub fn on_answer(&mut self, context: &mut Context<'_, R>, done: bool) {
        self.engine.on_answer(context.now, done);
    }

    /// kvdb has confirmed, by a read begun at `begun`, that this replica is primary at its epoch (or not).
    pub fn on_confirmed(&mut self, context: &mut Context<'_, R>, begun: Time, confirmed: bool) {
        self.with_engine(context, |engine, now, effects| {
            engine.on_confirmed(now, begun, confirmed, effects)
        });
    }

    /// The journal is durable up to `durable`.
    pub fn on_durable(&mut self, context: &mut Context<'_, R>, durable: Lsn) {
        let before = self.persisted;
        while let Some((lsn, token, since)) = self.journalled.front().copied() {
            if lsn > durable {
                break;
            }
            self.measures.note_durable(context.now.since(since));
            self.persisted = token;
            self.journalled.pop_front();
        }
        let persisted = self.persisted;
        if persisted > before {
            // What waited goes out before what the engine says next.
            self.release_held(context);
            self.with_engine(context, |engine, now, effects| {
                engine.on_persisted(now, persisted, effects)
            });
        }
        self.checkpoint_if_carried(context, durable);
    }

    /// Lets the store go on, and takes what it finished. Returns whether there was something.
    pub fn step_store<D: Disk>(&mut self, context: &mut Context<'_, R>, disk: &mut D) -> bool {
        self.look_at_fault(context, disk);
        self.look_at_space(context, disk);
        if !std::mem::take(&mut self.store_busy) {
            return false;
        }
        let mut events = Vec::new();
        self.store.step(disk, &mut events);
        let any = !events.is_empty();
        for event in events {
            self.on_store(context, event);
        }
        any || self.store_busy
    }

    /// One of the store's disk operations has completed.
    pub fn on_disk(&mut self, id: OpId, result: std::io::Result<isthmus_journal::Done>) {
        self.store_busy = true;
        self.store.on_completed(id, result);
    }

    /// The disk has completed something, and so may take what it refused before.
    pub fn disk_may_take_more(&mut self) {
        self.store_busy |= self.store.is_waiting_for_disk();
    }

    fn on_store(&mut self, context: &mut Context<'_, R>, event: StoreEvent) {
        match event {
            StoreEvent::Applied { op } => match self.store_works.remove(&op) {
                Some(StoreWork::TargetWrite(id)) => self.copy_written(context, id),
                Some(StoreWork::Mend(id, block)) => self.mend_written(context, id, block),
                _ => {
                    self.record_applied(op);
                }
            },
            StoreEvent::Read {
                op,
                data,
                checksums,
                bad,
            } => match self.store_works.remove(&op) {
                Some(StoreWork::ClientRead { op, again }) => {
                    self.client_read_done(context, op, data, &bad, again)
                }
                Some(StoreWork::MergeRead { id, again }) => {
                    self.merge_read_done(context, id, &data, &bad, again)
                }
                Some(StoreWork::Mending(read)) => {
                    self.mending_read_done(context, &read, &data, &checksums, &bad)
                }
                Some(StoreWork::Scrub) => self.scrub_done(context, &bad),
                Some(StoreWork::Source(source)) => {
                    self.source_read_done(context, &source, &data, &checksums, &bad)
                }
                Some(StoreWork::TargetRead(id)) => self.target_read_done(context, id, &data, &bad),
                _ => {}
            },
            StoreEvent::Status { op, runs } => {
                if let Some(StoreWork::Status { request, written }) = self.store_works.remove(&op) {
                    self.status_done(context, request, &runs, &written);
                }
            }
            StoreEvent::Checkpointed { op } => {
                self.store_works.remove(&op);
                self.checkpointed(context);
            }
            StoreEvent::Failed { op, error } => {
                if !self.record_failed(context, op, &error) {
                    let work = self.store_works.remove(&op);
                    self.store_failed(context, work, &error);
                }
            }
        }
    }

    /// A store operation that is no record has failed.
    fn store_failed(
        &mut self,
        context: &mut Context<'_, R>,
        work: Option<StoreWork>,
        error: &std::io::Error,
    ) {
        match work {
            Some(StoreWork::ClientRead { op: client, .. }) => {
                let error = format!("the disk of this node can't be read: {error}");
                self.fail_operation(
                    context,
                    client,
                    &crate::output::ClientError::Unreadable(error),
                );
            }
            Some(StoreWork::Status { request, .. }) => {
                self.status_done(context, request, &[], &[]);
            }
            Some(StoreWork::Checkpoint) => {
                self.checkpoint.failed(context.now);
                context.outputs.events.push((
                    self.volume,
                    format!("checkpoint failed, will be tried again: {error}"),
                ));
                // A lack of space passes; after anything else no later checkpoint can be relied on.
                if fault::kind_of(error) != crate::status::FaultKind::Full {
                    self.disk_failed(context, "a checkpoint can't be made", error);
                }
            }
            Some(
                StoreWork::Source(_)
                | StoreWork::Mending(_)
                | StoreWork::Scrub
                | StoreWork::TargetRead(_),
            )
            | None => {}
            Some(StoreWork::MergeRead { .. }) => {
                self.disk_failed(context, "a block can't be read", error);
            }
            Some(StoreWork::TargetWrite(_)) => {
                self.disk_failed(context, "a copied block can't be written", error);
            }
            Some(StoreWork::Mend(..)) => {
                self.disk_failed(
                    context,
                    "a good copy of a bad block can't be written",
                    error,
                );
            }
        }
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    fn store_op(&mut self, work: StoreWork) -> StoreOp {
        let op = StoreOp(self.number());
        self.store_works.insert(op, work);
        self.store_busy = true;
        op
    }

    fn stream(&self) -> StreamId {
        stream_of(self.volume, self.life)
    }

    /// Whether it is to be looked at in the next round, too: it waits for what nobody announces, such as room in the journal.
    #[must_use]
    pub fn is_awake(&self) -> bool {
        self.store_busy
            || self.store.is_waiting_for_disk()
            || !self.waiting.is_empty()
            || !self.deferred.is_empty()
            || self.wants_space()
            || self.wants_rounds_for_checkpoint()
    }

    /// Calls the engine and carries out what it asks for.
    fn with_engine(
        &mut self,
        context: &mut Context<'_, R>,
        call: impl FnOnce(&mut Replica, Time, &mut Effects),
    ) {
        let mut effects = Effects::new();
        call(&mut self.engine, context.now, &mut effects);
        self.carry_out(context, effects);
    }

    /// Whether everything handed in is done: for the simulator.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.requests.is_empty()
            && self.journalled.is_empty()
            && self.store_works.is_empty()
            && self.applying.is_empty()
            && !self.store_busy
    }

    /// What is known of this replica.
    #[must_use]
    pub fn status(&self, now: Time) -> VolumeStatus {
        VolumeStatus {
            volume: self.volume,
            standing: self.engine.standing(now),
            epoch: self.engine.configuration().epoch,
            promised_to: self.engine.promised_to(now),
            frozen_for: self.frozen_for(now),
            grants: self.engine.grants_in_question(now),
            end: self.engine.log().end(),
            end_epoch: self.engine.end_epoch(),
            committed: self.engine.log().committed(),
            whole: self.engine.is_whole(),
            clients: self.clients,
            welcomed: self.welcomed,
            copying: self.todo.as_ref().map(|todo| CopyProgress {
                total_bytes: self
                    .target
                    .as_ref()
                    .map_or(todo.dirty_bytes(), |target| target.total_bytes),
                left_bytes: todo.dirty_bytes(),
                bytes_per_second: 0,
            }),
            joiners: self.joiners(now),
            moved_bytes: self.moved_bytes,
            dirty: self
                .absent
                .iter()
                .map(|(replica, map)| (*replica, map.regions.dirty_bytes()))
                .collect(),
            bad_blocks: self.mending.bad_count(),
            checksum_errors: self.mending.found,
            repaired_blocks: self.mending.mended,
            fault: self.fault.as_ref().map(|fault| ReplicaFault {
                kind: fault.kind,
                reason: fault.reason.clone(),
                since: fault.since,
            }),
            short_of_space_since: self.space.short_since,
            used_bytes: u64::from(self.store.slots_used()) << 20,
        }
    }
}

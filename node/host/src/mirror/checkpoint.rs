//! Checkpoints: the extents made durable together with the engine's state and the maps, so that the journal can recycle.
//!
//! What the log holds beyond the committed position has to survive in the journal, so it is journalled again first ("carried
//! forward"); the checkpoint is begun once that is durable, and replay starts there.

use super::{AbsentMap, Context, Mirror, StoreWork};
use isthmus_engine::{Durable, ReplicaId, Seq, Time};
use isthmus_journal::Lsn;
use isthmus_mutation::Mutation;
use isthmus_volume::RegionMap;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Applied bytes after which a checkpoint is worth its syncs. Three times as many let the journal's writes wait for 80 ms behind one sync.
const WORTH_BYTES: u64 = 32 << 20;
/// What a record counts for besides its bytes.
const RECORD_BYTES: u64 = 512;
/// How long a failed checkpoint is left alone.
const PATIENCE: Duration = Duration::from_secs(1);

/// A mirror's checkpoints.
#[derive(Debug, Default)]
pub(super) struct Checkpoint {
    running: Option<Running>,
    wanted: bool,
    applied_bytes: u64,
    not_before: Time,
}

#[derive(Debug)]
struct Running {
    from: Lsn,
    /// Everything carried forward is durable from here on.
    carried: Lsn,
    state: Option<Vec<u8>>,
    /// Whether all that was to be copied is copied: its end is what the joiner waits for.
    ends_copying: bool,
}

impl Checkpoint {
    pub(super) fn note(&mut self, bytes: usize) {
        self.applied_bytes += bytes as u64 + RECORD_BYTES;
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    pub(super) fn failed(&mut self, now: Time) {
        self.running = None;
        self.wanted = true;
        self.not_before = now + PATIENCE;
    }
}

/// The state blob of a checkpoint.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct State {
    pub version: u32,
    pub durable: Durable,
    /// Records before this one are not replayed.
    pub replay_from: u64,
    /// Absent replicas: from where each map is complete, and the map, encoded.
    pub absent: Vec<(ReplicaId, Seq, Vec<u8>)>,
    pub todo: Option<Vec<u8>>,
}

/// The version of [`State`].
pub(super) const STATE_VERSION: u32 = 1;

/// The state of a new replica. That of the first life is empty.
pub(super) fn first_state(life: u16) -> Vec<u8> {
    if life == 0 {
        return Vec::new();
    }
    let state = State {
        version: STATE_VERSION,
        durable: Durable::default(),
        replay_from: 0,
        absent: Vec::new(),
        todo: None,
    };
    let scrub_at = 0_u64;
    let mut bytes = crate::wire::encode_state(&state);
    bytes.extend(crate::wire::encode_state(&scrub_at));
    bytes.extend(crate::wire::encode_state(&life));
    bytes
}

impl<R> Mirror<R> {
    /// Wants a checkpoint, because the journal runs full or the node is idle.
    pub fn want_checkpoint(&mut self) {
        self.checkpoint.want();
    }

    /// Whether all that was to be copied is.
    fn is_copied(&self) -> bool {
        self.target
            .as_ref()
            .is_some_and(|target| target.is_finished())
            && self.todo.as_ref().is_some_and(RegionMap::is_empty)
    }

    fn is_checkpoint_due(&self) -> bool {
        self.checkpoint.wanted
            || self.checkpoint.applied_bytes >= WORTH_BYTES
            || self.store.wants_checkpoint()
            || self.is_copied()
    }

    /// Whether a checkpoint waits to be begun, or for what is carried forward to be durable.
    pub(super) fn wants_rounds_for_checkpoint(&self) -> bool {
        match &self.checkpoint.running {
            Some(running) => running.state.is_some(),
            None => self.is_checkpoint_due(),
        }
    }

    /// Begins a checkpoint, if one is due and none is running.
    pub fn checkpoint_if_due(&mut self, context: &mut Context<'_, R>) {
        let copied = self.is_copied();
        if !self.is_checkpoint_due()
            || self.checkpoint.running.is_some()
            || context.now < self.checkpoint.not_before
            || !self.may_checkpoint()
        {
            return;
        }
        // What is in doubt is journalled again only if that leaves room for what was let in already; else once less is in doubt.
        let carries = self.window_bytes + self.window_bytes / 4;
        if carries > 0 && context.journal_room() < carries + context.journal_reserve / 4 {
            return;
        }
        let from = context.journal.next();
        let mut carried = context.journal.durable();
        for doubtful in &self.window {
            let parts = [doubtful.head.clone(), doubtful.payload.data.clone()];
            // The reserve is for this, too: it is what makes room.
            match context.journal.append_reserved(self.stream(), &parts) {
                Ok(lsn) => carried = lsn,
                Err(_) => {
                    self.checkpoint.failed(context.now);
                    return;
                }
            }
        }
        let state = State {
            version: STATE_VERSION,
            durable: self.engine.durable(),
            replay_from: from.0,
            absent: self
                .absent
                .iter()
                .map(|(replica, AbsentMap { from, regions })| (*replica, *from, regions.encode()))
                .collect(),
            todo: self.todo.as_ref().map(RegionMap::encode),
        };
        let mut state = crate::wire::encode_state(&state);
        // Behind the state, so that versions that don't know it pass over it.
        state.extend(crate::wire::encode_state(&self.scrub.position()));
        state.extend(crate::wire::encode_state(&self.life));
        self.checkpoint = Checkpoint {
            running: Some(Running {
                from,
                carried,
                state: Some(state),
                ends_copying: copied,
            }),
            ..Checkpoint::default()
        };
        if Mutation::ReleaseJournalEarly.is_on() {
            context.journal.release(self.stream(), from);
        }
        let durable = context.journal.durable();
        if from.0 - 1 > durable.0 {
            // What is before it may only be held, and nobody else may ask for it to be durable soon.
            context.journal.sync();
        }
        self.checkpoint_if_carried(context, durable);
    }

    pub(super) fn checkpoint_if_carried(&mut self, context: &Context<'_, R>, durable: Lsn) {
        // Changes made before this cut must be durable before it is, or a crash could know the later and not the earlier.
        let Some(running) = &mut self.checkpoint.running else {
            return;
        };
        let is_carried = running.carried <= durable && running.from.0 - 1 <= durable.0;
        if !is_carried && !Mutation::CheckpointBeforeCarried.is_on() {
            return;
        }
        if let Some(state) = running.state.take() {
            if !self.may_checkpoint() {
                self.checkpoint.failed(context.now);
                return;
            }
            let op = self.store_op(StoreWork::Checkpoint);
            self.store.checkpoint(op, state);
        }
    }

    pub(super) fn checkpointed(&mut self, context: &mut Context<'_, R>) {
        let Some(running) = self.checkpoint.running.take() else {
            return;
        };
        context.journal.release(self.stream(), running.from);
        self.forgotten_durably();
        if running.ends_copying && self.todo.as_ref().is_some_and(RegionMap::is_empty) {
            self.stop_copying();
            self.with_engine(context, |engine, _, effects| engine.on_copied(effects));
        }
    }
}

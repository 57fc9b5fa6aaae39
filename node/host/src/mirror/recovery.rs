//! Coming back: the last checkpoint, then the journal behind it.

use super::answering::Answering;
use super::checkpoint::{STATE_VERSION, State, first_state};
use super::effects::JournalledChange;
use super::fault::{Backoff, mark_of};
use super::measuring::Measures;
use super::mending::Mending;
use super::scrub::Scrub;
use super::space::Space;
use super::{AbsentMap, Checkpoint, Context, Course, Doubtful, Mirror};
use crate::wire::{self, TAG_CHANGE, decode_record, decode_value};
use bytes::Bytes;
use isthmus_engine::{
    BLOCK_BYTES, Change, Durable, Effects, Replica, ReplicaId, Seq, Settings, Time, Token, View,
    VolumeId,
};
use isthmus_journal::{Disk, Lsn};
use isthmus_mutation::Mutation;
use isthmus_volume::{BLOCKS_MAX, RegionMap, StoreError, VolumeSpec, VolumeStore};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Why a replica can't be opened. It stays closed then; others are not affected.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// Its extents.
    #[error("the extents can't be opened: {0}")]
    Store(#[from] StoreError),
    /// Its checkpoint's state.
    #[error(
        "{0}; this version of isthmusd can't read it: start the version that wrote it, or empty the data directory and let the replica resync"
    )]
    State(String),
}

/// A replica between opening its extents and the end of the journal.
#[derive(Debug)]
pub struct Recovering<R> {
    mirror: Mirror<R>,
    durable: Durable,
    replay_from: Lsn,
    /// A record that makes no sense: the volume stops, with this as its reason.
    broken: Option<String>,
    /// Records of it were lost: it is not what its checkpoint says.
    lost: bool,
}

impl<R> Recovering<R> {
    /// Opens the extents in `folder`.
    ///
    /// # Errors
    /// When they or the checkpoint's state can't be read.
    pub fn open<D: Disk>(
        disk: &mut D,
        folder: &str,
        tag: u16,
        me: ReplicaId,
        settings: Settings,
    ) -> Result<Recovering<R>, MirrorError> {
        let lost = disk
            .list(folder)
            .map_err(StoreError::listing(folder))?
            .iter()
            .any(|name| mark_of(folder).ends_with(&format!("/{name}")));
        let (store, state, spec) = VolumeStore::open(disk, folder, tag)?;
        let mut absent = BTreeMap::new();
        let mut todo = None;
        let mut durable = Durable::default();
        let mut replay_from = Lsn(0);
        let mut scrub_at = 0;
        let mut life = 0;
        if !state.is_empty() {
            let (state, rest): (State, _) =
                wire::decode_state(&state).map_err(|error| MirrorError::State(error.0))?;
            // Not there in states that older versions wrote.
            (scrub_at, life) = match wire::decode_state(rest) {
                Ok((at, rest)) => (at, wire::decode_state(rest).map_or(0, |(life, _)| life)),
                Err(_) => (0, 0),
            };
            if state.version != STATE_VERSION {
                return Err(MirrorError::State(format!(
                    "the state has version {}",
                    state.version
                )));
            }
            let decode = |map: &[u8]| {
                RegionMap::decode(map, spec.blocks)
                    .map_err(|error| MirrorError::State(error.to_string()))
            };
            for (replica, from, map) in state.absent {
                if Mutation::ForgetMapsInRecovery.is_on() {
                    let regions = RegionMap::new(spec.blocks);
                    absent.insert(replica, AbsentMap { from, regions });
                    continue;
                }
                absent.insert(
                    replica,
                    AbsentMap {
                        from,
                        regions: decode(&map)?,
                    },
                );
            }
            todo = state.todo.as_deref().map(decode).transpose()?;
            durable = state.durable;
            replay_from = Lsn(state.replay_from);
        }
        let engine = Replica::new(me, settings, Durable::default(), Time::default());
        let mirror = Mirror {
            volume: spec.volume,
            life,
            bytes: spec.blocks * BLOCK_BYTES,
            blocks: spec.blocks,
            engine,
            store,
            window: VecDeque::new(),
            window_bytes: 0,
            deferred: VecDeque::new(),
            staged: None,
            journalled: VecDeque::new(),
            persisted: Token::default(),
            held: VecDeque::new(),
            absent,
            todo,
            target: None,
            moved_bytes: 0,
            joiners: BTreeMap::new(),
            answering: Answering::default(),
            store_works: BTreeMap::new(),
            next_number: 0,
            requests: BTreeMap::new(),
            operations: BTreeMap::new(),
            merges: BTreeMap::new(),
            locked: BTreeSet::new(),
            waiting: VecDeque::new(),
            waiters: Vec::new(),
            clients: 0,
            course: Course::default(),
            welcomed: false,
            checkpoint: Checkpoint::default(),
            applying: VecDeque::new(),
            last_clear: Seq::ZERO,
            fault: None,
            backoff: Backoff::default(),
            space: Space::default(),
            mending: Mending::default(),
            scrub: Scrub::from(scrub_at),
            measures: Measures::default(),
            store_busy: true,
        };
        Ok(Recovering {
            mirror,
            durable,
            replay_from,
            broken: None,
            lost,
        })
    }

    /// Makes the folder of a new, empty replica, in a life of which the journal holds no record.
    ///
    /// # Errors
    /// What the disk says.
    pub fn format<D: Disk>(
        disk: &mut D,
        folder: &str,
        volume: VolumeId,
        life: u16,
        bytes: u64,
    ) -> Result<(), MirrorError> {
        VolumeStore::format_with(
            disk,
            folder,
            VolumeSpec {
                volume,
                blocks: bytes / BLOCK_BYTES,
            },
            first_state(life),
        )?;
        Ok(())
    }

    /// Whether records of it were lost, so that those in the journal say nothing.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// Which of the volume's replicas that were here it is.
    #[must_use]
    pub fn life(&self) -> u16 {
        self.mirror.life
    }

    /// Which volume.
    #[must_use]
    pub fn volume(&self) -> VolumeId {
        self.mirror.volume
    }

    /// A record of this volume from the journal, in order.
    pub fn replay(&mut self, lsn: Lsn, record: &Bytes) {
        if lsn < self.replay_from || self.broken.is_some() || self.lost {
            return;
        }
        let replayed = if wire::is_record(record) {
            self.replay_record(record)
        } else {
            self.replay_change(record)
        };
        self.broken = replayed.err();
    }

    fn replay_record(&mut self, bytes: &Bytes) -> Result<(), String> {
        let mirror = &mut self.mirror;
        let record = decode_record(bytes, mirror.volume).map_err(|error| error.0)?;
        // The volume had grown since the last checkpoint.
        mirror.grow_to(record.entry.range.end());
        if self.durable.replay_entry(record.entry)? {
            let head = bytes.slice(..bytes.len() - record.payload.data.len());
            mirror.note_clear(&record.entry);
            mirror.window.push_back(Doubtful {
                entry: record.entry,
                payload: record.payload,
                head,
                held_is_enough: record.held_is_enough,
                ordered: None,
            });
            for map in mirror.absent.values_mut() {
                if !Mutation::DoNotMarkReplayed.is_on() {
                    map.regions.mark(record.entry.range);
                }
            }
        }
        self.replay_committed(record.committed)
    }

    /// Applies what is known as committed up to here, as far as it is not applied yet.
    fn replay_committed(&mut self, committed: Seq) -> Result<(), String> {
        let mirror = &mut self.mirror;
        for applied in self.durable.replay_committed(committed) {
            let doubtful = mirror
                .window
                .pop_front()
                .ok_or("a committed record is not in the window")?;
            assert_eq!(doubtful.entry, applied, "window and log go together");
            mirror.apply_one(doubtful.entry, doubtful.payload);
        }
        Ok(())
    }

    fn replay_change(&mut self, bytes: &Bytes) -> Result<(), String> {
        let (journalled, _) =
            decode_value::<JournalledChange>(TAG_CHANGE, bytes).map_err(|error| error.0)?;
        self.mirror.grow_to(blocks_spoken_of(&journalled.change)?);
        if let Change::Rebase { committed, .. } = &journalled.change
            && !Mutation::DropCommittedAtRebase.is_on()
        {
            // What was committed by then was in the extents, and so is on no map; a loss of power may have taken it from there.
            self.replay_committed(*committed)?;
        }
        let mirror = &mut self.mirror;
        self.durable.replay_change(&journalled.change);
        match &journalled.change {
            Change::Rebase { .. } => {
                mirror.absent.clear();
                mirror.window.clear();
                if let Some(map) = &journalled.todo {
                    mirror.grow_to(RegionMap::blocks_of(map).unwrap_or(0));
                }
                let todo = journalled
                    .todo
                    .map(|map| RegionMap::decode(&map, mirror.blocks))
                    .transpose()
                    .map_err(|error| error.to_string())?;
                // What was copied since the last checkpoint is off the journalled map, and not in the extents: what was to be done at
                // that checkpoint, or by an earlier join, is still to be done.
                let kept = mirror.todo.take();
                let kept = kept.filter(|_| !Mutation::ForgetWhatWasNotKept.is_on());
                let all = kept.unwrap_or_else(|| RegionMap::new(mirror.blocks));
                let all = mirror.todo.insert(all);
                match todo {
                    Some(todo) => all.union(&todo),
                    None => all.mark_all(),
                }
            }
            change => {
                mirror.take_over(change);
                let end = self.durable.end();
                while mirror
                    .window
                    .back()
                    .is_some_and(|doubtful| doubtful.entry.position.seq > end)
                {
                    mirror.window.pop_back();
                }
            }
        }
        Ok(())
    }

    /// The journal is at its end: the replica is what it was.
    #[must_use]
    pub fn finish(
        self,
        me: ReplicaId,
        settings: Settings,
        now: Time,
        events: &mut Vec<(VolumeId, String)>,
    ) -> Mirror<R> {
        let mut mirror = self.mirror;
        assert_eq!(
            mirror.window.len(),
            self.durable.tail.len(),
            "window and log go together"
        );
        mirror.window_bytes = mirror.window.iter().map(Doubtful::bytes).sum();
        mirror.engine = Replica::new(me, settings, self.durable, now);
        if let Some(reason) = self.broken {
            let mut effects = Effects::new();
            mirror.engine.stop(
                format!("the journal of this replica makes no sense: {reason}"),
                &mut effects,
            );
        }
        if self.lost {
            mirror.begin_lost(now, events);
        }
        mirror
    }
}

/// How large a volume must be for a change to be one of it, in blocks.
fn blocks_spoken_of(change: &Change) -> Result<u64, String> {
    let doubtful = match change {
        Change::Adopt { doubtful, .. } => doubtful,
        Change::Rebase {
            doubtful, history, ..
        } => {
            if !history.is_sound() {
                return Err("a log was taken over whose epochs go back".into());
            }
            doubtful
        }
        Change::Rewind { .. } | Change::Whole => return Ok(0),
    };
    match doubtful.iter().find(|range| !range.fits(BLOCKS_MAX)) {
        Some(range) => Err(format!("a change speaks of {range:?}, outside any volume")),
        None => Ok(doubtful
            .iter()
            .map(|range| range.end())
            .max()
            .unwrap_or_default()),
    }
}

impl<R> Mirror<R> {
    /// kvdb has committed something about the volume. `never_served`: no primary has ever opened it, so every replica is empty
    /// and whole.
    pub fn on_view(&mut self, context: &mut Context<'_, R>, view: View, never_served: bool) {
        // A replica that came to a later epoch by its primary's word may be copied over by now: what an older view says is over (seed 910139).
        if never_served
            && !self.engine.is_whole()
            && self.engine.log().end() == Seq::ZERO
            && view.configuration.epoch >= self.engine.configuration().epoch
            && view.configuration.in_sync.contains(&self.engine.me())
        {
            self.with_engine(context, |engine, _, effects| engine.begin_whole(effects));
        }
        self.measure_view(&view);
        // What is kept of absent replicas is for their return; those that were removed do not come back to it.
        self.absent
            .retain(|replica, _| view.domains.contains_key(&replica.node));
        self.with_engine(context, |engine, now, effects| {
            engine.on_view(now, view, effects)
        });
        self.look_at_attachment(context);
        self.tell_wanted(context);
    }
}

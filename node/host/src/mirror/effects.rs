//! Carrying out what the engine asks for, in its order.

use super::{AbsentMap, Context, Doubtful, Mirror};
use crate::output::{ClientError, Lane, OutgoingFrame};
use crate::status::FaultKind;
use crate::wire::{TAG_CHANGE, encode_message, encode_value, record_head, record_head_to_be_held};
use bytes::Bytes;
use isthmus_engine::{
    BLOCK_BYTES, BlockRange, Change, Effect, Effects, Entry, Message, NodeId, NotServed,
    RecordKind, ReplicaId, Seq, Token,
};
use isthmus_journal::Lsn;
use isthmus_mutation::Mutation;
use isthmus_volume::RegionMap;
use serde::{Deserialize, Serialize};

/// The longest dirty map that a message or a journal record takes; a longer one becomes "compare everything".
pub(super) const MAP_BYTES_MAX: usize = 1 << 20;

/// A change as it is journalled: with the to-do map that a rebase ends in.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct JournalledChange {
    pub change: Change,
    /// After a rebase: what is to be copied, encoded; none means everything.
    pub todo: Option<Vec<u8>>,
}

impl<R> Mirror<R> {
    pub(super) fn carry_out(&mut self, context: &mut Context<'_, R>, effects: Effects) {
        for effect in effects {
            self.carry_out_one(context, effect);
        }
    }

    fn carry_out_one(&mut self, context: &mut Context<'_, R>, effect: Effect) {
        match effect {
            Effect::Append { token, entry } => self.journal_record(context, token, entry),
            Effect::Persist { token, change } => self.journal_change(context, token, change),
            Effect::Send { to, message, after } => self.send(context, to, message, after),
            Effect::Apply { through } => self.apply(context, through),
            Effect::Sync => context.journal.sync(),
            // Reads look for themselves how far that is; what waited for a block to be as it will be goes on.
            Effect::Show { .. } => self.merges_may_go_on(context),
            Effect::Cut { to } => {
                while let Some(last) = self.window.back()
                    && last.entry.position.seq > to
                {
                    self.window_bytes -= last.bytes();
                    self.window.pop_back();
                }
            }
            Effect::Acknowledge { op } => self.operation_done(context, op),
            Effect::Fetch { op } => self.fetch(op),
            Effect::Deliver { op } => self.deliver(context, op),
            Effect::Fail { op, why } => {
                let error = match why {
                    NotServed::NotPrimary => ClientError::NotServed("this replica is not primary any more: the volume is served elsewhere, or by nobody".into()),
                    NotServed::Unable(reason) => ClientError::NotServed(format!("this node can't serve the volume: {reason}; connect again, at another node that holds it")),
                    NotServed::Damaged => ClientError::NotServed("this replica has stopped: see its status".into()),
                };
                self.fail_operation(context, op, &error);
            }
            Effect::Propose(proposal) => context.outputs.proposals.push((self.volume, proposal)),
            Effect::Confirm => context.outputs.confirm = true,
            Effect::Serving => {
                let epoch = self.engine.configuration().epoch;
                context
                    .outputs
                    .events
                    .push((self.volume, format!("primary, serving under epoch {epoch}")));
                self.look_at_attachment(context);
            }
            Effect::Demoted => {
                context
                    .outputs
                    .events
                    .push((self.volume, "primary no more".into()));
                self.fail_waiting(context);
                if self.clients > 0 {
                    context.outputs.demoted.push(self.volume);
                }
            }
            Effect::StartCopy { from } => self.start_copying(context, from),
            Effect::StopCopy => self.stop_copying(),
            Effect::Damaged { reason } => {
                context
                    .outputs
                    .events
                    .push((self.volume, format!("STOPPED: {reason}")));
                self.fail_waiting(context);
                if self.clients > 0 {
                    context.outputs.demoted.push(self.volume);
                }
            }
        }
    }

    fn journal_record(&mut self, context: &mut Context<'_, R>, token: Token, entry: Entry) {
        if let Some(staged) = self.staged.take() {
            self.doubt(Doubtful {
                entry,
                payload: staged.payload,
                head: staged.head,
                held_is_enough: staged.held_is_enough,
                ordered: None,
            });
        }
        for map in self.absent.values_mut() {
            if !Mutation::DoNotMarkWrites.is_on() {
                map.regions.mark(entry.range);
            }
        }
        let doubtful = self
            .window
            .back()
            .expect("the record was staged or ordered just before");
        assert_eq!(
            doubtful.entry.position, entry.position,
            "records reach the journal in order"
        );
        let parts = [doubtful.head.clone(), doubtful.payload.data.clone()];
        // Room was looked for when the record was let in; parts of blocks are read first, so they may come when there is less.
        let held_is_enough = doubtful.held_is_enough;
        let appended = match held_is_enough {
            true => context.journal.append_to_be_held(self.stream(), &parts),
            false => context.journal.append(self.stream(), &parts),
        };
        let appended = appended.or_else(|_| context.journal.append_reserved(self.stream(), &parts));
        match appended {
            Ok(lsn) => {
                self.journalled_as(context, lsn, token);
                if held_is_enough {
                    context.unwritten.push_back((lsn, self.volume));
                }
            }
            Err(_) => self.journal_refused(context),
        }
    }

    fn journal_change(&mut self, context: &mut Context<'_, R>, token: Token, change: Change) {
        let mut journalled = JournalledChange { change, todo: None };
        self.take_over(&journalled.change);
        if let Change::Rebase {
            dirty, doubtful, ..
        } = &mut journalled.change
        {
            // What they say is in the to-do map now.
            *dirty = None;
            doubtful.clear();
            journalled.todo = self
                .todo
                .as_ref()
                .map(RegionMap::encode)
                .filter(|map| map.len() <= MAP_BYTES_MAX);
            if journalled.todo.is_none() {
                self.todo
                    .get_or_insert_with(|| RegionMap::new(self.blocks))
                    .mark_all();
                journalled.todo = Some(self.everything());
            }
        }
        let record = encode_value(TAG_CHANGE, &journalled);
        match context.journal.append_reserved(self.stream(), &[record]) {
            Ok(lsn) => self.journalled_as(context, lsn, token),
            Err(_) => self.journal_refused(context),
        }
    }

    fn journalled_as(&mut self, context: &mut Context<'_, R>, lsn: Lsn, token: Token) {
        self.journalled.push_back((lsn, token, context.now));
        context.unsettled.push_back((lsn, self.volume));
    }

    /// Neither durable nor ever to be called so: the replica can't go on in this process. (Room was looked for before; so the
    /// journal has failed.)
    fn journal_refused(&mut self, context: &mut Context<'_, R>) {
        let reason = "the journal takes no more records: it is full, or its disk failed; look at the disk, then restart the node";
        self.fail(context, FaultKind::Failing, reason.into());
    }

    /// What a change means for the maps. The same at run time and in recovery.
    pub(super) fn take_over(&mut self, change: &Change) {
        match change {
            Change::Adopt {
                configuration,
                absent,
                committed,
                doubtful,
            } => {
                for replica in absent {
                    let blocks = self.blocks;
                    let map = self.absent.entry(*replica).or_insert_with(|| AbsentMap {
                        from: *committed,
                        regions: RegionMap::new(blocks),
                    });
                    doubtful.iter().for_each(|range| map.regions.mark(*range));
                }
                self.absent
                    .retain(|replica, _| !configuration.in_sync.contains(replica));
            }
            Change::Rewind { .. } => {}
            Change::Rebase {
                primary,
                common,
                committed,
                doubtful,
                dirty,
                ..
            } => {
                self.todo = Some(self.what_may_differ(
                    *primary,
                    *common,
                    *committed,
                    doubtful,
                    dirty.as_deref(),
                ));
                // Maps of others tell of this replica's own history, which is no more.
                self.absent.clear();
            }
            Change::Whole => self.todo = None,
        }
    }

    /// What to compare with the primary (I7): what it wrote without this replica, what this replica wrote without it, and what an
    /// earlier join left undone.
    fn what_may_differ(
        &mut self,
        primary: ReplicaId,
        common: Option<Seq>,
        committed: Seq,
        doubtful: &[BlockRange],
        dirty: Option<&[u8]>,
    ) -> RegionMap {
        self.grow_to(dirty.and_then(RegionMap::blocks_of).unwrap_or(0));
        let mut todo = self
            .todo
            .take()
            .unwrap_or_else(|| RegionMap::new(self.blocks));
        doubtful.iter().for_each(|range| todo.mark(*range));
        let theirs = dirty.and_then(|bytes| {
            let blocks = RegionMap::blocks_of(bytes)?;
            let mut theirs = RegionMap::decode(bytes, blocks).ok()?;
            let is_everything = theirs.dirty_bytes() == blocks * BLOCK_BYTES;
            theirs.grow(self.blocks);
            Some(theirs).filter(|_| !is_everything)
        });
        let (Some(common), Some(theirs)) = (common, theirs) else {
            todo.mark_all();
            return todo;
        };
        todo.union(&theirs);
        if committed > common {
            // Records that were committed here without the primary: it was absent then, so there is a map of it.
            match self.absent.get(&primary) {
                _ if Mutation::ForgetWhatWasCommittedAlone.is_on() => {}
                Some(map) if map.from <= common => todo.union(&map.regions),
                _ => todo.mark_all(),
            }
        }
        todo
    }

    /// The map of all that this replica has room for.
    fn everything(&self) -> Vec<u8> {
        let mut all = RegionMap::new(self.blocks);
        all.mark_all();
        all.encode()
    }

    fn send(
        &mut self,
        context: &mut Context<'_, R>,
        to: NodeId,
        message: Message,
        after: Option<Token>,
    ) {
        let frame = match message {
            Message::Append {
                epoch,
                entry,
                committed,
            } => {
                let Some(doubtful) = self.doubtful(entry.position.seq) else {
                    unreachable!("records are sent while they are in doubt");
                };
                // The head as it was made for the journal serves, unless the epoch has changed since.
                let same_epoch = doubtful.entry.position.epoch == epoch;
                let head = if same_epoch {
                    doubtful.head.clone()
                } else {
                    let checksums = &doubtful.payload.checksums;
                    match doubtful.held_is_enough {
                        true => record_head_to_be_held(epoch, &entry, committed, checksums),
                        false => record_head(epoch, &entry, committed, checksums),
                    }
                };
                OutgoingFrame {
                    to,
                    volume: self.volume,
                    lane: Lane::Write,
                    head,
                    body: doubtful.payload.data.clone(),
                }
            }
            Message::Join {
                epoch,
                common,
                start,
                history,
                ..
            } => {
                let replica = self
                    .engine
                    .view()
                    .and_then(|view| view.eligible.iter().find(|replica| replica.node == to));
                let map = replica
                    .and_then(|replica| self.absent.get(replica))
                    .filter(|map| common.is_some_and(|common| map.from <= common));
                // Where that is everything, it is everything of the volume as this replica knows it: the joiner may not have heard that
                // the volume has grown, and would compare no more than what it was.
                let dirty = map
                    .map(|map| map.regions.encode())
                    .filter(|bytes| bytes.len() <= MAP_BYTES_MAX)
                    .or_else(|| Some(self.everything()));
                self.message_frame(
                    to,
                    &Message::Join {
                        epoch,
                        common,
                        start,
                        history,
                        dirty,
                    },
                )
            }
            message => self.message_frame(to, &message),
        };
        let behind = self
            .held
            .iter()
            .rev()
            .find(|(_, held)| held.to == to)
            .map(|(token, _)| *token);
        match after.max(behind).filter(|token| *token > self.persisted) {
            Some(token) => self.held.push_back((token, frame)),
            None => context.outputs.frames.push(frame),
        }
    }

    fn message_frame(&self, to: NodeId, message: &Message) -> OutgoingFrame {
        OutgoingFrame {
            to,
            volume: self.volume,
            lane: Lane::Write,
            head: encode_message(message, self.measures.took),
            body: Bytes::new(),
        }
    }

    pub(super) fn release_held(&mut self, context: &mut Context<'_, R>) {
        let persisted = self.persisted;
        let (due, held) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|(token, _)| *token <= persisted);
        self.held = held;
        context.outputs.frames.extend(
            due.into_iter()
                .map(|(_, frame): (Token, OutgoingFrame)| frame),
        );
    }

    /// A record joins the window.
    pub(super) fn doubt(&mut self, doubtful: Doubtful) {
        self.window_bytes += doubtful.bytes();
        self.note_clear(&doubtful.entry);
        self.window.push_back(doubtful);
    }

    /// What a clear gives back may be needed again by what comes after it.
    pub(super) fn note_clear(&mut self, entry: &Entry) {
        if entry.kind == RecordKind::Clear {
            self.last_clear = entry.position.seq;
        }
    }

    pub(super) fn doubtful(&self, seq: Seq) -> Option<&Doubtful> {
        let first = self.window.front()?.entry.position.seq;
        self.window
            .get(usize::try_from(seq.0.checked_sub(first.0)?).ok()?)
    }

    fn apply(&mut self, context: &mut Context<'_, R>, through: Seq) {
        while self
            .window
            .front()
            .is_some_and(|doubtful| doubtful.entry.position.seq <= through)
        {
            let Some(doubtful) = self.window.pop_front() else {
                break;
            };
            self.window_bytes -= doubtful.bytes();
            self.apply_one(doubtful.entry, doubtful.payload);
        }
        self.merges_may_go_on(context);
    }
}

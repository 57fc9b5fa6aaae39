//! Resync: the joiner asks for what is on its to-do map and differs; the primary answers from its extents (`answering`).
//!
//! The joiner names each block's hash, so equal blocks don't travel. Mirrored writes go on meanwhile: an answer reflects all records
//! up to `as_of` and none after; blocks that a newer record has touched here since the question keep what the record brought. Older
//! records that this replica applies later bring themselves to the same end, because they are applied in order.

use super::{Context, Mirror, StoreWork};
use crate::output::{Lane, OutgoingFrame};
use crate::status::CopyProgress;
use crate::wire::{
    BlockHash, COPY_BLOCKS_MAX, Copying, Malformed, Payload, TAG_COPY, block_hash, encode_value,
};
use bytes::Bytes;
use isthmus_engine::{BLOCK_BYTES, BlockRange, NodeId, RecordKind, Seq, Time};
use isthmus_mutation::Mutation;
use isthmus_volume::{BLOCKS_MAX, RegionMap};
use std::collections::BTreeMap;
use std::time::Duration;

/// Questions that a joiner has out at once.
const QUESTIONS_MAX: usize = 16;
/// After how long a question is asked again.
const PATIENCE: Duration = Duration::from_secs(2);
/// A hash that no block has: this replica can't read its own.
const UNREADABLE: BlockHash = [0xff; 16];

/// The joiner's side.
#[derive(Debug)]
pub(super) struct Target {
    from: NodeId,
    /// Up to where the to-do map has been asked for in this round.
    cursor: u64,
    questions: BTreeMap<u64, Question>,
    pub(super) total_bytes: u64,
    next_look: Time,
}

#[derive(Debug)]
struct Question {
    range: BlockRange,
    hashes: Vec<BlockHash>,
    /// The newest record that touched each block since its hash was taken.
    newer: Vec<Seq>,
    asked: Time,
    /// Writes of its answer that aren't applied yet.
    writes: usize,
    answered: bool,
}

impl Target {
    pub(super) fn note_newer(&mut self, range: BlockRange, seq: Seq) {
        for question in self.questions.values_mut() {
            if let Some(shared) = question.range.intersection(range) {
                let first = (shared.start - question.range.start) as usize;
                question.newer[first..first + shared.count as usize].fill(seq);
            }
        }
    }

    /// Nothing is asked any more.
    pub(super) fn is_finished(&self) -> bool {
        self.questions.is_empty()
    }

    pub(super) fn next_look(&self) -> Time {
        self.next_look
    }
}

/// How far a joiner says that it is.
#[derive(Debug)]
pub(super) struct Joining {
    total_bytes: u64,
    left_bytes: u64,
    /// When it was first heard, and what was left then.
    since: Time,
    left_then: u64,
}

impl<R> Mirror<R> {
    /// Replicas that copy from here, as far as they are still joining.
    pub(super) fn joiners(&self, now: Time) -> Vec<(NodeId, CopyProgress)> {
        let joining = self.engine.joiners();
        let known = self
            .joiners
            .iter()
            .filter(|(node, _)| joining.contains(node));
        let progress = known.map(|(node, joining)| {
            let elapsed = now.since(joining.since).as_millis().max(1);
            let rate =
                u128::from(joining.left_then.saturating_sub(joining.left_bytes)) * 1000 / elapsed;
            let bytes_per_second = u64::try_from(rate).unwrap_or(u64::MAX);
            (
                *node,
                CopyProgress {
                    total_bytes: joining.total_bytes,
                    left_bytes: joining.left_bytes,
                    bytes_per_second,
                },
            )
        });
        progress.collect()
    }

    fn note_joining(&mut self, now: Time, from: NodeId, left_bytes: u64, total_bytes: u64) {
        let joining = self.joiners.entry(from).or_insert(Joining {
            total_bytes,
            left_bytes,
            since: now,
            left_then: left_bytes,
        });
        if left_bytes > joining.left_bytes || total_bytes != joining.total_bytes {
            *joining = Joining {
                total_bytes,
                left_bytes,
                since: now,
                left_then: left_bytes,
            };
        }
        joining.left_bytes = left_bytes;
    }

    pub(super) fn start_copying(&mut self, context: &mut Context<'_, R>, from: NodeId) {
        let total_bytes = self.todo.as_ref().map_or(0, RegionMap::dirty_bytes);
        context.outputs.events.push((
            self.volume,
            format!("resync from {from}: {total_bytes} bytes to compare"),
        ));
        self.target = Some(Target {
            from,
            cursor: 0,
            questions: BTreeMap::new(),
            total_bytes,
            next_look: context.now + PATIENCE,
        });
        self.ask(context);
        self.checkpoint_if_due(context);
    }

    pub(super) fn stop_copying(&mut self) {
        self.target = None;
    }

    /// Asks for the next ranges.
    fn ask(&mut self, _context: &mut Context<'_, R>) {
        loop {
            let (Some(target), Some(todo)) = (&mut self.target, &self.todo) else {
                return;
            };
            if target.questions.len() >= QUESTIONS_MAX {
                return;
            }
            let Some(run) = todo.next_run(target.cursor).or_else(|| {
                // What an earlier round could not settle is asked for again, once nothing else is out.
                target.cursor = 0;
                todo.next_run(0).filter(|_| target.questions.is_empty())
            }) else {
                return;
            };
            let range = BlockRange::new(run.start, run.count.min(COPY_BLOCKS_MAX));
            target.cursor = range.end();
            if Mutation::ClearToDoTooEarly.is_on()
                && let Some(todo) = &mut self.todo
            {
                todo.clear(range);
            }
            let newer = vec![Seq::ZERO; range.count as usize];
            let question = Question {
                range,
                hashes: Vec::new(),
                newer,
                asked: Time(u64::MAX),
                writes: 0,
                answered: false,
            };
            let id = self.number();
            if let Some(target) = &mut self.target {
                target.questions.insert(id, question);
            }
            let op = self.store_op(StoreWork::TargetRead(id));
            self.store.read(op, range);
        }
    }

    pub(super) fn target_read_done(
        &mut self,
        context: &mut Context<'_, R>,
        id: u64,
        data: &Bytes,
        bad: &[u64],
    ) {
        let Some(question) = self
            .target
            .as_mut()
            .and_then(|target| target.questions.get_mut(&id))
        else {
            return;
        };
        let blocks = data
            .chunks_exact(BLOCK_BYTES as usize)
            .zip(question.range.start..);
        // A block that can't be read here is copied like one that differs.
        question.hashes = blocks
            .map(|(block, number)| {
                if bad.contains(&number) {
                    UNREADABLE
                } else {
                    block_hash(block)
                }
            })
            .collect();
        self.send_question(context, id);
    }

    fn send_question(&mut self, context: &mut Context<'_, R>, id: u64) {
        let left_bytes = self.todo.as_ref().map_or(0, RegionMap::dirty_bytes);
        let Some(target) = &mut self.target else {
            return;
        };
        let Some(question) = target.questions.get_mut(&id) else {
            return;
        };
        question.asked = context.now;
        let want = Copying::Want {
            id,
            range: question.range,
            hashes: question.hashes.clone(),
            left_bytes,
            total_bytes: target.total_bytes,
        };
        let frame = OutgoingFrame {
            to: target.from,
            volume: self.volume,
            lane: Lane::Resync,
            head: encode_value(TAG_COPY, &want),
            body: Bytes::new(),
        };
        context.outputs.frames.push(frame);
    }

    /// Questions without an answer are asked again.
    pub(super) fn remind_copying(&mut self, context: &mut Context<'_, R>) {
        let now = context.now;
        let Some(target) = &mut self.target else {
            return;
        };
        if now < target.next_look {
            return;
        }
        target.next_look = now + PATIENCE;
        let overdue = target
            .questions
            .iter()
            .filter(|(_, question)| !question.answered && now.since(question.asked) >= PATIENCE);
        let overdue: Vec<u64> = overdue.map(|(id, _)| *id).collect();
        for id in overdue {
            self.send_question(context, id);
        }
        self.ask(context);
    }

    pub(super) fn on_copying(
        &mut self,
        context: &mut Context<'_, R>,
        from: NodeId,
        copying: Copying,
        body: &Bytes,
    ) -> Result<(), Malformed> {
        match copying {
            Copying::Want {
                id,
                range,
                hashes,
                left_bytes,
                total_bytes,
            } => {
                if range.count == 0
                    || range.count > COPY_BLOCKS_MAX
                    || !range.fits(BLOCKS_MAX)
                    || hashes.len() as u64 != range.count
                {
                    return Err(Malformed(format!(
                        "a question about {range:?} with {} hashes",
                        hashes.len()
                    )));
                }
                // It may have heard earlier that the volume has grown.
                self.grow_to(range.end());
                self.note_joining(context.now, from, left_bytes, total_bytes);
                self.questioned(context, from, id, range, hashes);
                Ok(())
            }
            Copying::Have {
                id,
                as_of,
                same,
                holes,
                bad,
                checksums,
            } => self.on_have(
                context,
                from,
                (id, as_of),
                (same, holes, bad),
                &checksums,
                body,
            ),
            Copying::Mend {
                id,
                epoch,
                committed,
                range,
                blocks,
            } => self.mending_asked(context, from, (id, epoch, committed), range, blocks),
            Copying::Mended {
                id,
                as_of,
                holes,
                bad,
                checksums,
            } => self.on_mended(context, from, (id, as_of), (holes, bad), &checksums, body),
            Copying::AskSpace { slots } => {
                self.space_asked(from, slots);
                Ok(())
            }
            Copying::Space { short } => {
                self.space.note_answer(from, short);
                Ok(())
            }
        }
    }

    fn on_have(
        &mut self,
        context: &mut Context<'_, R>,
        from: NodeId,
        name: (u64, Seq),
        masks: (u64, u64, u64),
        checksums: &[u32],
        body: &Bytes,
    ) -> Result<(), Malformed> {
        let ((id, as_of), (same, holes, bad)) = (name, masks);
        let volume = self.volume;
        let Some(target) = self.target.as_mut().filter(|target| target.from == from) else {
            return Ok(());
        };
        let Some(question) = target
            .questions
            .get_mut(&id)
            .filter(|question| !question.answered && !question.hashes.is_empty())
        else {
            return Ok(());
        };
        let count = question.range.count as usize;
        let sent: Vec<usize> = (0..count)
            .filter(|index| (same | holes | bad) & (1 << index) == 0)
            .collect();
        if sent.len() != checksums.len() || body.len() as u64 != sent.len() as u64 * BLOCK_BYTES {
            return Err(Malformed(format!(
                "an answer with {} blocks where {} were announced",
                checksums.len(),
                sent.len()
            )));
        }
        // Neighbours together: each write of the extents costs about the same, however long it is.
        let mut runs: Vec<(RecordKind, BlockRange, usize)> = Vec::new();
        for index in 0..count {
            let block = question.range.start + index as u64;
            let newer = question.newer[index] > as_of && !Mutation::CopyOverNewerWrites.is_on();
            if newer || (same | bad) & (1 << index) != 0 {
                continue;
            }
            let is_hole = holes & (1 << index) != 0;
            let kind = if is_hole {
                RecordKind::Clear
            } else {
                RecordKind::Write
            };
            match runs.last_mut() {
                Some((last, range, _)) if *last == kind && range.end() == block => range.count += 1,
                _ => {
                    let at = sent.binary_search(&index).unwrap_or_default();
                    runs.push((kind, BlockRange::new(block, 1), at));
                }
            }
        }
        let mut changes: Vec<(RecordKind, BlockRange, Payload)> = Vec::new();
        for (kind, range, at) in runs {
            let mut payload = Payload::default();
            if kind == RecordKind::Write {
                // What is sent for neighbours lies side by side, too.
                let (first, end) = (at, at + range.count as usize);
                let bytes = first * BLOCK_BYTES as usize..end * BLOCK_BYTES as usize;
                payload = Payload {
                    data: body.slice(bytes),
                    checksums: checksums[first..end].into(),
                };
                if !payload.is_sound(volume, range) {
                    return Err(Malformed(format!(
                        "blocks {range:?} are not what their checksums say"
                    )));
                }
            }
            changes.push((kind, range, payload));
        }
        question.answered = true;
        question.writes = changes.len();

        self.moved_bytes += body.len() as u64;
        if bad != 0 {
            // Stays on the map; asked for again in the next round.
            if let Some(target) = &mut self.target {
                target.questions.remove(&id);
            }
        }
        for (kind, range, payload) in changes {
            let op = self.store_op(StoreWork::TargetWrite(id));
            self.mending.touch(range);
            self.checkpoint.note(payload.data.len());
            match kind {
                RecordKind::Write => self.store.write(op, range, payload.data, payload.checksums),
                RecordKind::Clear => self.store.clear(op, range),
            }
        }
        self.settle(context, id);
        Ok(())
    }

    pub(super) fn copy_written(&mut self, context: &mut Context<'_, R>, id: u64) {
        if let Some(question) = self
            .target
            .as_mut()
            .and_then(|target| target.questions.get_mut(&id))
        {
            question.writes -= 1;
        }
        self.settle(context, id);
    }

    /// A question whose answer is in the extents is off the map; the next checkpoint makes both durable together. Until then it is off
    /// the maps that joins journal, too: recovery unites these with the one of its checkpoint.
    fn settle(&mut self, context: &mut Context<'_, R>, id: u64) {
        let Some(target) = &mut self.target else {
            return;
        };
        let done = target
            .questions
            .get(&id)
            .is_some_and(|question| question.answered && question.writes == 0);
        if done && let Some(question) = target.questions.remove(&id) {
            if let Some(todo) = &mut self.todo {
                todo.clear(question.range);
            }
            self.ask(context);
            self.checkpoint_if_due(context);
        }
    }
}

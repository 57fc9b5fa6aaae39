//! Blocks that went bad: their good copies come from another member of the set (fault row 12).
//!
//! Whoever finds a bad block asks: a primary a member, a member its primary. The answer is what the other's extents hold: all records up to
//! `as_of` and none after. It is written here unless a record, or another copy, touched the block since the question: records are
//! whole blocks, so what touched it has mended it, and may be newer than the answer. For a block that nothing touched, every position from `needed` (what
//! was committed here when it was asked) to now has the same content; and if the answer is ahead of this replica, the records between come
//! in order and end where the answer is. So `as_of >= needed` is all that is to be checked.
//!
//! Reads that met a bad block wait, and read again.

use super::{Context, Mirror, StoreWork};
use crate::wire::{BLOCKS_MENDED_MAX, Copying, Malformed, Payload};
use bytes::{Bytes, BytesMut};
use isthmus_engine::{BLOCK_BYTES, BlockRange, ClientOp, Epoch, NodeId, Seq, Time};
use isthmus_volume::{BLOCKS_MAX, EXTENT_BLOCKS};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Questions out at once.
const QUESTIONS_MAX: usize = 16;
/// Questions that wait for those; more are not asked before the blocks are met again.
const WAITING_MAX: usize = 1024;
/// Bad blocks remembered; more are counted, and mended when they are met.
const BAD_MAX: usize = 65_536;
/// Questions of others that are answered at once for one volume; more are not answered, and asked again.
const ANSWERS_MAX: usize = 16;
/// After how long a question is asked again, and how often it is asked.
const PATIENCE: Duration = Duration::from_secs(1);
const TRIES_MAX: u32 = 3;
/// How often what could not be mended is tried again.
const RETRY: Duration = Duration::from_secs(30);

/// What this replica knows of its bad blocks.
#[derive(Debug, Default)]
pub(super) struct Mending {
    /// Found bad, and not mended or written since.
    bad: BTreeSet<u64>,
    /// Blocks that became bad, in all.
    pub found: u64,
    /// Blocks mended from a peer, in all.
    pub mended: u64,
    questions: BTreeMap<u64, Question>,
    waiting: VecDeque<(BlockRange, u64)>,
    readers: Vec<(Reader, BTreeSet<u64>)>,
    next_retry: Time,
}

/// A question about some blocks of a range.
#[derive(Debug)]
struct Question {
    range: BlockRange,
    /// Which blocks of it (bit i: the i-th).
    blocks: u64,
    to: NodeId,
    /// What was committed here when it was asked.
    needed: Seq,
    /// Blocks that were written here since.
    touched: u64,
    asked: Time,
    tries: u32,
    answered: bool,
    /// Writes of the answer that aren't done yet.
    writes: usize,
    mended: u64,
}

/// Who waits for blocks to be mended.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reader {
    Client(ClientOp),
    Merge(u64),
}

/// The other side: a read for an answer.
#[derive(Debug)]
pub(super) struct MendingRead {
    to: NodeId,
    id: u64,
    range: BlockRange,
    blocks: u64,
    as_of: Seq,
}

impl Mending {
    /// Blocks are written with something else.
    pub(super) fn touch(&mut self, range: BlockRange) {
        if !self.bad.is_empty() {
            let healed: Vec<u64> = self.bad.range(range.start..range.end()).copied().collect();
            healed.iter().for_each(|block| {
                self.bad.remove(block);
            });
        }
        for question in self.questions.values_mut() {
            if let Some(shared) = question.range.intersection(range) {
                for block in shared.start..shared.end() {
                    question.touched |= 1 << (block - question.range.start);
                }
            }
        }
    }

    /// Blocks known as bad.
    pub(super) fn bad_count(&self) -> u64 {
        self.bad.len() as u64
    }

    fn is_under_way(&self, block: u64) -> bool {
        let holds = |range: &BlockRange, blocks: u64| {
            (range.start..range.end()).contains(&block)
                && blocks & (1 << (block - range.start)) != 0
        };
        self.waiting
            .iter()
            .any(|(range, blocks)| holds(range, *blocks))
            || self
                .questions
                .values()
                .any(|question| holds(&question.range, question.blocks))
    }

    pub(super) fn next_look(&self) -> Option<Time> {
        let asked = self
            .questions
            .values()
            .map(|question| question.asked + PATIENCE);
        let retry = (!self.bad.is_empty()).then_some(self.next_retry);
        asked.chain(retry).min()
    }
}

impl<R> Mirror<R> {
    /// Blocks (ascending) were found bad: they are counted, and asked for where someone has good ones. The others of their extents
    /// are looked at, too.
    pub(super) fn found_bad(&mut self, context: &mut Context<'_, R>, blocks: &[u64]) {
        for block in blocks {
            if !self.mending.bad.contains(block) {
                self.scrub.look_at(block / EXTENT_BLOCKS);
            }
        }
        self.note_bad(context, blocks);
        self.scrub_soon();
    }

    /// As [`Mirror::found_bad`], where all of the extent was read.
    pub(super) fn note_bad(&mut self, context: &mut Context<'_, R>, blocks: &[u64]) {
        let mut new = 0u64;
        for block in blocks {
            if self.mending.bad.len() < BAD_MAX && self.mending.bad.insert(*block) {
                new += 1;
            }
        }
        if new > 0 {
            self.mending.found += new;
            self.mending.next_retry = context.now + RETRY;
            context.outputs.events.push((
                self.volume,
                format!(
                    "bad blocks: {new} don't match their checksums or can't be read, from block {} on",
                    blocks[0]
                ),
            ));
        }
        if self.engine.mending_source().is_some() {
            self.queue_mending(blocks);
            self.ask_for_blocks(context);
        }
    }

    fn queue_mending(&mut self, blocks: &[u64]) {
        for block in blocks {
            if self.mending.is_under_way(*block) {
                continue;
            }
            let full = self.mending.waiting.len() >= WAITING_MAX;
            match self.mending.waiting.back_mut() {
                Some((range, bits))
                    if *block > range.start && block - range.start < BLOCKS_MENDED_MAX =>
                {
                    range.count = range.count.max(block - range.start + 1);
                    *bits |= 1 << (block - range.start);
                }
                _ if full => return,
                _ => {
                    let one = (BlockRange::new(*block, 1), 1);
                    self.mending.waiting.push_back(one);
                }
            }
        }
    }

    /// A read met bad blocks. Returns whether it waits for them to be mended.
    pub(super) fn wait_for_mending(&mut self, reader: Reader, bad: &[u64]) -> bool {
        let under_way = |block: &&u64| self.mending.is_under_way(**block);
        let blocks: BTreeSet<u64> = bad.iter().filter(under_way).copied().collect();
        if blocks.is_empty() {
            return false;
        }
        self.mending.readers.push((reader, blocks));
        true
    }

    fn ask_for_blocks(&mut self, context: &mut Context<'_, R>) {
        while self.mending.questions.len() < QUESTIONS_MAX
            && let Some((range, blocks)) = self.mending.waiting.pop_front()
        {
            self.ask_for(context, range, blocks, 1);
        }
    }

    fn ask_for(
        &mut self,
        context: &mut Context<'_, R>,
        range: BlockRange,
        blocks: u64,
        tries: u32,
    ) {
        let Some(to) = self.engine.mending_source().filter(|_| tries <= TRIES_MAX) else {
            self.mending_ended(range, blocks);
            return;
        };
        let id = self.number();
        let needed = self.engine.log().committed();
        let ask = Copying::Mend {
            id,
            epoch: self.engine.configuration().epoch,
            committed: needed,
            range,
            blocks,
        };
        let frame = self.copying_frame(to, &ask, Bytes::new());
        context.outputs.frames.push(frame);
        self.mending.questions.insert(
            id,
            Question {
                range,
                blocks,
                to,
                needed,
                touched: 0,
                asked: context.now,
                tries,
                answered: false,
                writes: 0,
                mended: 0,
            },
        );
    }

    /// Questions without an answer are asked again, and what could not be mended is tried again now and then.
    pub(super) fn remind_mending(&mut self, context: &mut Context<'_, R>) {
        let now = context.now;
        let overdue: Vec<u64> = self
            .mending
            .questions
            .iter()
            .filter(|(_, question)| !question.answered && now.since(question.asked) >= PATIENCE)
            .map(|(id, _)| *id)
            .collect();
        for id in overdue {
            if let Some(question) = self.mending.questions.remove(&id) {
                let touched = question.blocks & question.touched;
                // What was written meanwhile is good, and not asked for again: who waits for it must not wait for an answer.
                self.mending_ended(question.range, touched);
                let blocks = question.blocks & !touched;
                if blocks != 0 {
                    self.ask_for(context, question.range, blocks, question.tries + 1);
                }
            }
        }
        if !self.mending.bad.is_empty() && now >= self.mending.next_retry {
            self.mending.next_retry = now + RETRY;
            if self.engine.mending_source().is_some() {
                let bad: Vec<u64> = self.mending.bad.iter().copied().collect();
                self.queue_mending(&bad);
            }
        }
        self.ask_for_blocks(context);
    }

    /// Another member asks for blocks.
    pub(super) fn mending_asked(
        &mut self,
        context: &mut Context<'_, R>,
        from: NodeId,
        name: (u64, Epoch, Seq),
        range: BlockRange,
        blocks: u64,
    ) -> Result<(), Malformed> {
        let (id, epoch, committed) = name;
        let beyond = |bits: u64| bits.checked_shr(range.count as u32).unwrap_or(0);
        if range.count == 0
            || range.count > BLOCKS_MENDED_MAX
            || !range.fits(BLOCKS_MAX)
            || beyond(blocks) != 0
        {
            return Err(Malformed(format!(
                "a question about bad blocks in {range:?}"
            )));
        }
        self.grow_to(range.end());
        let mut may = false;
        self.with_engine(context, |engine, now, effects| {
            may = engine.on_mending_asked(now, from, epoch, committed, effects);
        });
        let answering = self
            .store_works
            .values()
            .filter(|work| matches!(work, StoreWork::Mending(_)))
            .count();
        if may && answering < ANSWERS_MAX {
            let read = MendingRead {
                to: from,
                id,
                range,
                blocks,
                as_of: self.engine.log().committed(),
            };
            let op = self.store_op(StoreWork::Mending(read));
            self.store.read(op, range);
        }
        Ok(())
    }

    pub(super) fn mending_read_done(
        &mut self,
        context: &mut Context<'_, R>,
        read: &MendingRead,
        data: &Bytes,
        checksums: &[u32],
        bad_blocks: &[u64],
    ) {
        if !bad_blocks.is_empty() {
            self.found_bad(context, bad_blocks);
        }
        let (mut holes, mut bad) = (0u64, 0u64);
        let mut sent = Vec::new();
        let mut body = BytesMut::new();
        for (index, block) in data.chunks_exact(BLOCK_BYTES as usize).enumerate() {
            let bit = 1u64 << index;
            if read.blocks & bit == 0 {
                continue;
            }
            if bad_blocks.contains(&(read.range.start + index as u64)) {
                bad |= bit;
            } else if block.iter().all(|byte| *byte == 0) {
                holes |= bit;
            } else {
                sent.push(checksums[index]);
                body.extend_from_slice(block);
            }
        }
        let mended = Copying::Mended {
            id: read.id,
            as_of: read.as_of,
            holes,
            bad,
            checksums: sent,
        };
        let frame = self.copying_frame(read.to, &mended, body.freeze());
        context.outputs.frames.push(frame);
    }

    /// Good copies have come.
    pub(super) fn on_mended(
        &mut self,
        context: &mut Context<'_, R>,
        from: NodeId,
        name: (u64, Seq),
        masks: (u64, u64),
        checksums: &[u32],
        body: &Bytes,
    ) -> Result<(), Malformed> {
        let ((id, as_of), (holes, bad)) = (name, masks);
        let volume = self.volume;
        let Some(question) = self
            .mending
            .questions
            .get_mut(&id)
            .filter(|question| question.to == from && !question.answered)
        else {
            return Ok(());
        };
        let wanted = (0..question.range.count).filter(|index| question.blocks & (1 << index) != 0);
        let sent: Vec<u64> = wanted
            .filter(|index| (holes | bad) & (1 << index) == 0)
            .collect();
        if sent.len() != checksums.len() || body.len() as u64 != sent.len() as u64 * BLOCK_BYTES {
            return Err(Malformed(format!(
                "{} good blocks where {} were asked for",
                checksums.len(),
                sent.len()
            )));
        }
        if as_of < question.needed {
            return Ok(());
        }
        let mut writes: Vec<(BlockRange, Option<Payload>)> = Vec::new();
        for index in (0..question.range.count).filter(|index| question.blocks & (1 << index) != 0) {
            let bit = 1u64 << index;
            let block = BlockRange::new(question.range.start + index, 1);
            if (question.touched | bad) & bit != 0 {
                continue;
            }
            if holes & bit != 0 {
                writes.push((block, None));
                continue;
            }
            let at = sent.binary_search(&index).unwrap_or_default();
            let from = at * BLOCK_BYTES as usize;
            let payload = Payload {
                data: body.slice(from..from + BLOCK_BYTES as usize),
                checksums: [checksums[at]].into(),
            };
            if !payload.is_sound(volume, block) {
                return Err(Malformed(format!(
                    "block {} is not what its checksum says",
                    block.start
                )));
            }
            writes.push((block, Some(payload)));
        }
        question.answered = true;
        question.writes = writes.len();
        for (block, payload) in writes {
            let op = self.store_op(StoreWork::Mend(id, block.start));
            match payload {
                Some(payload) => self.store.write(op, block, payload.data, payload.checksums),
                None => self.store.clear(op, block),
            }
        }
        self.settle_mending(context, id);
        Ok(())
    }

    /// A good copy is in the extents.
    pub(super) fn mend_written(&mut self, context: &mut Context<'_, R>, id: u64, block: u64) {
        self.mending.bad.remove(&block);
        self.mending.mended += 1;
        if let Some(question) = self.mending.questions.get_mut(&id) {
            question.writes -= 1;
            question.mended += 1;
        }
        self.settle_mending(context, id);
    }

    fn settle_mending(&mut self, context: &mut Context<'_, R>, id: u64) {
        let done = self
            .mending
            .questions
            .get(&id)
            .is_some_and(|question| question.answered && question.writes == 0);
        if done && let Some(question) = self.mending.questions.remove(&id) {
            if question.mended > 0 {
                let name = context
                    .catalog
                    .nodes
                    .get(&question.to)
                    .map_or_else(|| question.to.to_string(), |node| node.name.clone());
                context.outputs.events.push((
                    self.volume,
                    format!(
                        "repaired: {} blocks from block {} on, from the replica on {name}",
                        question.mended, question.range.start
                    ),
                ));
            }
            self.mending_ended(question.range, question.blocks);
            self.ask_for_blocks(context);
        }
    }

    /// Nothing more becomes of these blocks now: who waited for them reads again.
    fn mending_ended(&mut self, range: BlockRange, ended: u64) {
        let mut ready = Vec::new();
        self.mending.readers.retain_mut(|(reader, blocks)| {
            blocks.retain(|block| {
                let within = (range.start..range.end()).contains(block);
                !within || ended & (1 << (block - range.start)) == 0
            });
            if blocks.is_empty() {
                ready.push(*reader);
            }
            !blocks.is_empty()
        });
        for reader in ready {
            match reader {
                Reader::Client(op) => self.fetch_again(op),
                Reader::Merge(id) => self.merge_again(id),
            }
        }
    }
}

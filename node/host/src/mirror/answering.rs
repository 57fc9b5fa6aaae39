//! Resync, the primary's side: a joiner's questions are answered from the extents, as fast as leaves the clients' latency within its budget.

use super::{Context, Mirror, StoreWork};
use crate::output::{Lane, OutgoingFrame};
use crate::wire::{BlockHash, Copying, TAG_COPY, block_hash, encode_value};
use bytes::{Bytes, BytesMut};
use isthmus_engine::{BLOCK_BYTES, BlockRange, NodeId, Seq, Time};
use std::collections::VecDeque;

/// Questions that a primary keeps, or works on, at once for one volume; more are not answered, and asked again.
const ANSWERS_MAX: usize = 64;

/// Questions that wait until they may be answered.
#[derive(Debug, Default)]
pub(super) struct Answering {
    questions: VecDeque<Question>,
    next_look: Option<Time>,
}

#[derive(Debug)]
struct Question {
    from: NodeId,
    id: u64,
    range: BlockRange,
    hashes: Vec<BlockHash>,
}

/// A read for an answer.
#[derive(Debug)]
pub(super) struct SourceRead {
    to: NodeId,
    id: u64,
    range: BlockRange,
    hashes: Vec<BlockHash>,
    as_of: Seq,
}

impl Answering {
    /// Its session is another one now, or over.
    pub(super) fn forget(&mut self, peer: NodeId) {
        self.questions.retain(|question| question.from != peer);
    }

    pub(super) fn next_look(&self) -> Option<Time> {
        self.next_look.filter(|_| !self.questions.is_empty())
    }
}

impl<R> Mirror<R> {
    /// A joiner has a question; one that it asks again takes the place of the first.
    pub(super) fn questioned(
        &mut self,
        context: &mut Context<'_, R>,
        from: NodeId,
        id: u64,
        range: BlockRange,
        hashes: Vec<BlockHash>,
    ) {
        let questions = &mut self.answering.questions;
        questions.retain(|question| (question.from, question.id) != (from, id));
        if questions.len() < ANSWERS_MAX {
            questions.push_back(Question {
                from,
                id,
                range,
                hashes,
            });
        }
        self.answer_questions(context);
    }

    /// Begins with the answers whose time has come.
    pub(super) fn answer_questions(&mut self, context: &mut Context<'_, R>) {
        // Only a primary's committed position says how new the blocks are.
        if !self.engine.is_serving() {
            self.answering.questions.clear();
        }
        let reads = self.store_works.values();
        let mut under_way = reads
            .filter(|work| matches!(work, StoreWork::Source(_)))
            .count();
        while under_way < ANSWERS_MAX && !self.answering.questions.is_empty() {
            if !context.pace.may_answer(context.now) {
                self.answering.next_look = Some(context.pace.next_answer());
                return;
            }
            let Some(question) = self.answering.questions.pop_front() else {
                return;
            };
            under_way += 1;
            let range = question.range;
            let op = self.store_op(StoreWork::Source(SourceRead {
                to: question.from,
                id: question.id,
                range,
                hashes: question.hashes,
                as_of: self.engine.log().committed(),
            }));
            self.store.read(op, range);
        }
        self.answering.next_look = None;
    }

    pub(super) fn source_read_done(
        &mut self,
        context: &mut Context<'_, R>,
        source: &SourceRead,
        data: &Bytes,
        checksums: &[u32],
        bad_blocks: &[u64],
    ) {
        let (mut same, mut holes, mut bad) = (0u64, 0u64, 0u64);
        let mut sent = Vec::new();
        let mut body = BytesMut::new();
        for (index, block) in data.chunks_exact(BLOCK_BYTES as usize).enumerate() {
            let bit = 1u64 << index;
            if bad_blocks.contains(&(source.range.start + index as u64)) {
                bad |= bit;
            } else if block_hash(block) == source.hashes[index] {
                same |= bit;
            } else if block.iter().all(|byte| *byte == 0) {
                holes |= bit;
            } else {
                sent.push(checksums[index]);
                body.extend_from_slice(block);
            }
        }
        if bad != 0 {
            // The joiner asks for these again.
            self.found_bad(context, bad_blocks);
        }
        self.moved_bytes += body.len() as u64;
        let have = Copying::Have {
            id: source.id,
            as_of: source.as_of,
            same,
            holes,
            bad,
            checksums: sent,
        };
        let frame = OutgoingFrame {
            to: source.to,
            volume: self.volume,
            lane: Lane::Resync,
            head: encode_value(TAG_COPY, &have),
            body: body.freeze(),
        };
        context.outputs.frames.push(frame);
        self.answer_questions(context);
    }
}

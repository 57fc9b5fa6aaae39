//! Volumes that answer what is held (durability `flush`): what the journal tells, what reads see of records that are answered and
//! not committed, and how much of that there may be.
//!
//! Extents hold committed records only. What was answered beyond that is in the window, and is laid over what the extents say: as it
//! was when the read was handed to the store, which reads behind all records that were handed to it before.

use super::{Context, Mirror};
use bytes::{Bytes, BytesMut};
use isthmus_engine::{BLOCK_BYTES, BlockRange, RecordKind, Time, Token};
use isthmus_journal::Lsn;

/// Bytes in doubt from which on the members are asked to make them durable; an eighth of the journal's reserve where that is less.
const IN_DOUBT_BYTES: u64 = 4 << 20;

/// Records that are answered and not in the extents yet, as far as they are about some blocks, in order.
#[derive(Debug, Default)]
pub(super) struct Over {
    records: Vec<(BlockRange, RecordKind, Bytes)>,
}

impl Over {
    /// What the blocks of `range` hold, where the extents hold `data`.
    pub(super) fn lay_over(&self, range: BlockRange, data: Bytes) -> Bytes {
        if self.records.is_empty() {
            return data;
        }
        let mut data = BytesMut::from(&data[..]);
        for (theirs, kind, bytes) in &self.records {
            let (start, end) = (theirs.start.max(range.start), theirs.end().min(range.end()));
            let within = |from: u64| {
                let block = |number: u64| ((number - from) * BLOCK_BYTES) as usize;
                block(start)..block(end)
            };
            match kind {
                RecordKind::Write => {
                    data[within(range.start)].copy_from_slice(&bytes[within(theirs.start)]);
                }
                RecordKind::Clear => data[within(range.start)].fill(0),
            }
        }
        data.freeze()
    }

    /// Which of the blocks of `range` were written, counted from its first. What was written and cleared again is among them.
    pub(super) fn written(&self, range: BlockRange) -> Vec<BlockRange> {
        let writes = self
            .records
            .iter()
            .filter(|(_, kind, _)| *kind == RecordKind::Write);
        writes
            .map(|(theirs, _, _)| {
                let start = theirs.start.max(range.start);
                BlockRange::new(start - range.start, theirs.end().min(range.end()) - start)
            })
            .collect()
    }
}

/// Runs of blocks, of which those that were written are allocated, too.
pub(super) fn with_written(runs: &[(u64, bool)], written: &[BlockRange]) -> Vec<(u64, bool)> {
    if written.is_empty() {
        return runs.to_vec();
    }
    let mut blocks: Vec<bool> = Vec::new();
    for (count, allocated) in runs {
        blocks.extend(std::iter::repeat_n(*allocated, *count as usize));
    }
    for range in written {
        let end = (range.end() as usize).min(blocks.len());
        blocks[(range.start as usize).min(end)..end].fill(true);
    }
    let runs = blocks.chunk_by(|one, next| one == next);
    runs.map(|run| (run.len() as u64, run[0])).collect()
}

impl<R> Mirror<R> {
    /// The kernel has the journal up to `written`.
    pub fn on_written(&mut self, context: &mut Context<'_, R>, written: Lsn) {
        let count = self.journalled.partition_point(|(lsn, ..)| *lsn <= written);
        let last: Option<(Token, Time)> = count
            .checked_sub(1)
            .and_then(|last| self.journalled.get(last))
            .map(|(_, token, since)| (*token, *since));
        if let Some((token, since)) = last {
            self.measures.took = context.now.since(since);
            self.with_engine(context, |engine, now, effects| {
                engine.on_held(now, token, effects)
            });
        }
    }

    /// What is answered of these blocks now, and is not in the extents.
    pub(super) fn over(&self, range: BlockRange) -> Over {
        let answered = self.engine.answered();
        let records = self.window.iter();
        let records = records
            .take_while(|doubtful| doubtful.entry.position.seq <= answered)
            .filter(|doubtful| doubtful.entry.range.overlaps(range))
            .map(|doubtful| {
                (
                    doubtful.entry.range,
                    doubtful.entry.kind,
                    doubtful.payload.data.clone(),
                )
            });
        Over {
            records: records.collect(),
        }
    }

    /// Much is in doubt: the members are to make it durable.
    pub(super) fn doubt_less(&mut self, context: &mut Context<'_, R>) {
        let bound = IN_DOUBT_BYTES.min(context.journal_reserve / 8);
        if self.window_bytes >= bound && self.engine.answers_held() {
            self.with_engine(context, |engine, now, effects| {
                engine.doubt_less(now, effects)
            });
        }
    }
}

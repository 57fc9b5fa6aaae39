//! Requests in bytes, cut at blocks.

use crate::output::ClientRequest;
use isthmus_engine::{BLOCK_BYTES, BlockRange};
use std::ops::Deref;

/// A piece of a request: whole blocks, or a part of one.
pub(super) enum Piece {
    Blocks(BlockRange),
    Part {
        block: u64,
        at: usize,
        length: usize,
    },
}

/// Cuts bytes into at most one part of a block, whole blocks, and at most one part of a block.
pub(super) fn pieces(offset: u64, length: u64) -> Vec<Piece> {
    let mut pieces = Vec::with_capacity(3);
    let (mut at, end) = (offset, offset + length);
    let part = |at: u64, end: u64, pieces: &mut Vec<Piece>| {
        pieces.push(Piece::Part {
            block: at / BLOCK_BYTES,
            at: (at % BLOCK_BYTES) as usize,
            length: (end - at) as usize,
        });
    };
    if at % BLOCK_BYTES != 0 {
        let stop = end.min(at.next_multiple_of(BLOCK_BYTES));
        part(at, stop, &mut pieces);
        at = stop;
    }
    let whole = (end - at) / BLOCK_BYTES;
    if whole > 0 {
        pieces.push(Piece::Blocks(BlockRange::new(at / BLOCK_BYTES, whole)));
        at += whole * BLOCK_BYTES;
    }
    if at < end {
        part(at, end, &mut pieces);
    }
    pieces
}

/// The bytes that a request is about.
pub(super) fn span(request: &ClientRequest) -> Option<(u64, u64)> {
    match request {
        ClientRequest::Read { offset, length }
        | ClientRequest::Zero { offset, length }
        | ClientRequest::Trim { offset, length }
        | ClientRequest::Status { offset, length } => Some((*offset, *length)),
        ClientRequest::Write { offset, data } => Some((*offset, data.len() as u64)),
        ClientRequest::Flush => None,
        ClientRequest::Durably(request) => span(request),
    }
}

/// Whether a request changes anything.
pub(super) fn changes(request: &ClientRequest) -> bool {
    matches!(
        request,
        ClientRequest::Write { .. } | ClientRequest::Zero { .. } | ClientRequest::Trim { .. }
    )
}

/// At most two ranges of blocks, without an allocation: every write asks for them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    ranges: [BlockRange; 2],
    count: usize,
}

impl Written {
    fn of(ranges: impl Iterator<Item = BlockRange>) -> Written {
        let mut written = Written {
            ranges: [BlockRange::new(0, 0); 2],
            count: 0,
        };
        for range in ranges {
            written.ranges[written.count] = range;
            written.count += 1;
        }
        written
    }
}

impl Deref for Written {
    type Target = [BlockRange];

    fn deref(&self) -> &[BlockRange] {
        &self.ranges[..self.count]
    }
}

/// The blocks that a request gives new content, so that they need space: all of a write's, and those that zeroing covers in part.
pub(super) fn written(request: &ClientRequest) -> Written {
    match request {
        ClientRequest::Write { offset, data } if !data.is_empty() => {
            let start = offset / BLOCK_BYTES;
            let end = (offset + data.len() as u64).div_ceil(BLOCK_BYTES);
            Written::of(std::iter::once(BlockRange::new(start, end - start)))
        }
        ClientRequest::Zero { offset, length } => {
            let parts = pieces(*offset, *length).into_iter();
            Written::of(parts.filter_map(|piece| match piece {
                Piece::Part { block, .. } => Some(BlockRange::new(block, 1)),
                Piece::Blocks(_) => None,
            }))
        }
        ClientRequest::Durably(request) => written(request),
        ClientRequest::Write { .. }
        | ClientRequest::Read { .. }
        | ClientRequest::Trim { .. }
        | ClientRequest::Flush
        | ClientRequest::Status { .. } => Written::of(std::iter::empty()),
    }
}

//! Requests in bytes, cut at blocks.

use crate::output::ClientRequest;
use isthmus_engine::{BLOCK_BYTES, BlockRange};

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
    }
}

/// Whether a request changes anything.
pub(super) fn changes(request: &ClientRequest) -> bool {
    matches!(
        request,
        ClientRequest::Write { .. } | ClientRequest::Zero { .. } | ClientRequest::Trim { .. }
    )
}

/// The blocks that a request gives new content, so that they need space.
pub(super) fn written(request: &ClientRequest) -> Vec<BlockRange> {
    let whole = |piece: Piece| match piece {
        Piece::Blocks(range) => range,
        Piece::Part { block, .. } => BlockRange::new(block, 1),
    };
    match request {
        ClientRequest::Write { offset, data } => pieces(*offset, data.len() as u64)
            .into_iter()
            .map(whole)
            .collect(),
        ClientRequest::Zero { offset, length } => pieces(*offset, *length)
            .into_iter()
            .filter(|piece| matches!(piece, Piece::Part { .. }))
            .map(whole)
            .collect(),
        ClientRequest::Read { .. }
        | ClientRequest::Trim { .. }
        | ClientRequest::Flush
        | ClientRequest::Status { .. } => Vec::new(),
    }
}

//! Clients' requests: bytes become blocks here, and long requests become records of at most 1 MiB.
//!
//! Records are whole blocks. A write that covers a part of a block is *merged*: the block is locked, whatever was ordered for it before is
//! committed, it is read, and ordered as a whole. Requests that touch a locked block wait behind.

use super::flushing::Over;
use super::measuring::{Kind, kind_of};
use super::pieces::{Piece, changes, pieces, span, written};
use super::{Context, Doubtful, Mirror, Reader, StoreWork};
use crate::output::{ClientError, ClientRequest, Outcome, Run};
use crate::wire::{Payload, RECORD_BLOCKS_MAX, record_head, record_head_to_be_held};
use bytes::{Bytes, BytesMut};
use isthmus_engine::{BLOCK_BYTES, BlockRange, ClientOp, Effects, RecordKind, Time};

/// A client's request under way.
#[derive(Debug)]
pub(super) struct Request<R> {
    reply: R,
    /// When it came.
    since: Time,
    /// What it is, and the bytes that it is about.
    kind: (Kind, u64),
    /// What is to be done, while it waits to be begun.
    waits: Option<ClientRequest>,
    parts_left: usize,
    error: Option<ClientError>,
    /// Its answer waits until it is durable.
    durably: bool,
}

impl<R> Request<R> {
    pub(super) fn into_reply(self) -> R {
        self.reply
    }

    /// When it came.
    pub(super) fn since(&self) -> Time {
        self.since
    }
}

/// What the engine knows as one operation of a client.
#[derive(Debug)]
pub(super) struct Operation {
    request: u64,
    read: Option<ReadOperation>,
}

#[derive(Debug)]
struct ReadOperation {
    range: BlockRange,
    /// Where the client's bytes begin in the blocks, and how many they are.
    skip: usize,
    length: usize,
    /// What was answered when it was fetched, and is not in the extents.
    over: Over,
    fetched: Option<Bytes>,
}

/// A write of a part of one block.
#[derive(Debug)]
pub(super) struct Merge {
    request: u64,
    block: u64,
    at: usize,
    data: Bytes,
    reading: bool,
    /// As for a read.
    over: Over,
}

static ZERO_BLOCK: [u8; BLOCK_BYTES as usize] = [0; BLOCK_BYTES as usize];

impl Merge {
    /// The block that it will write.
    pub(super) fn range(&self) -> BlockRange {
        BlockRange::new(self.block, 1)
    }
}

impl<R> Mirror<R> {
    /// A client asks for something.
    pub fn submit(&mut self, context: &mut Context<'_, R>, reply: R, request: ClientRequest) {
        if let Some((offset, length)) = span(&request)
            && offset
                .checked_add(length)
                .is_none_or(|end| end > self.bytes)
        {
            context
                .outputs
                .replies
                .push((reply, Outcome::Failed(ClientError::OutOfRange)));
            return;
        }
        let durably = matches!(request, ClientRequest::Durably(_));
        let request = match request {
            ClientRequest::Durably(request) => *request,
            request => request,
        };
        let number = self.number();
        let must_wait = self.must_wait(context, &request);
        self.requests.insert(
            number,
            Request {
                reply,
                since: context.now,
                kind: kind_of(&request),
                waits: None,
                parts_left: 1,
                error: None,
                durably: durably && self.engine.answers_held(),
            },
        );
        if must_wait {
            if let Some(kept) = self.requests.get_mut(&number) {
                kept.waits = Some(request);
            }
            self.waiting.push_back(number);
        } else {
            self.begin(context, number, request);
        }
    }

    fn must_wait(&self, context: &Context<'_, R>, request: &ClientRequest) -> bool {
        if !changes(request) || !self.engine.is_serving() {
            return false;
        }
        !self.waiting.is_empty()
            || !self.has_room(context)
            || self.is_locked(request)
            || !self.has_space_for(&written(request))
    }

    /// Whether a client's change may be ordered. A checkpoint journals again what is in doubt, so that must never be more than
    /// the reserve holds.
    fn has_room(&self, context: &Context<'_, R>) -> bool {
        context.journal_room() >= context.journal_reserve
            && self.window_bytes <= context.journal_reserve / 2
    }

    fn is_locked(&self, request: &ClientRequest) -> bool {
        let Some((offset, length)) = span(request) else {
            return false;
        };
        length > 0
            && self
                .locked
                .range(offset / BLOCK_BYTES..=(offset + length - 1) / BLOCK_BYTES)
                .next()
                .is_some()
    }

    /// Begins what waited for a lock or for room, as far as it may.
    pub fn begin_waiting(&mut self, context: &mut Context<'_, R>) {
        while let Some(number) = self.waiting.front().copied() {
            let Some(request) = self
                .requests
                .get(&number)
                .and_then(|request| request.waits.as_ref())
            else {
                break;
            };
            if self.engine.is_serving() && (!self.has_room(context) || self.is_locked(request)) {
                break;
            }
            let ranges = written(request);
            if self.engine.is_serving() && !self.has_space_for(&ranges) {
                let Some(error) = self.without_space(context, &ranges) else {
                    break;
                };
                // Stepping down has answered everything that waited.
                if self.waiting.front() == Some(&number) {
                    self.waiting.pop_front();
                    self.part_done(context, number, Some(error));
                }
                continue;
            }
            self.waiting.pop_front();
            if let Some(request) = self
                .requests
                .get_mut(&number)
                .and_then(|request| request.waits.take())
            {
                self.begin(context, number, request);
            }
        }
    }

    /// Begins a request. Its own hold (`parts_left` starts at 1) is given back at the end, so it can't end halfway.
    fn begin(&mut self, context: &mut Context<'_, R>, number: u64, request: ClientRequest) {
        match request {
            ClientRequest::Read { offset, length } if length > 0 => {
                self.begin_read(context, number, offset, length)
            }
            ClientRequest::Write { offset, data } => {
                for piece in pieces(offset, data.len() as u64) {
                    self.begin_piece(context, number, piece, Some((offset, &data)));
                }
            }
            ClientRequest::Zero { offset, length } => {
                for piece in pieces(offset, length) {
                    self.begin_piece(context, number, piece, None);
                }
            }
            ClientRequest::Trim { offset, length } => {
                let mut whole = pieces(offset, length);
                whole.retain(|piece| matches!(piece, Piece::Blocks(_)));
                if whole.is_empty() {
                    // Nothing to do; but only who has the right to serve may say so.
                    self.begin_flush(context, number);
                }
                for piece in whole {
                    self.begin_piece(context, number, piece, None);
                }
            }
            ClientRequest::Flush => self.begin_flush(context, number),
            ClientRequest::Durably(request) => return self.begin(context, number, *request),
            ClientRequest::Status { offset, length } if length > 0 && self.engine.is_serving() => {
                let (start, end) = (
                    offset / BLOCK_BYTES,
                    (offset + length).div_ceil(BLOCK_BYTES),
                );
                let range = BlockRange::new(start, end - start);
                let written = self.over(range).written(range);
                let request = number;
                let op = self.store_op(StoreWork::Status { request, written });
                self.store.status(op, range);
                self.hold(number);
            }
            ClientRequest::Status { length, .. } if length > 0 => {
                self.note_error(
                    number,
                    &ClientError::NotServed("this replica is not primary".into()),
                );
            }
            ClientRequest::Read { .. } | ClientRequest::Status { .. } => {}
        }
        let request = self.requests.get(&number);
        if request.is_some_and(|request| request.durably) {
            // Right behind the records, so that they are made durable as they arrive.
            self.with_engine(context, |engine, now, effects| {
                engine.want_durable(now, effects)
            });
        }
        self.part_done(context, number, None);
    }

    fn hold(&mut self, number: u64) {
        if let Some(request) = self.requests.get_mut(&number) {
            request.parts_left += 1;
        }
    }

    fn note_error(&mut self, number: u64, error: &ClientError) {
        if let Some(request) = self.requests.get_mut(&number) {
            request.error.get_or_insert_with(|| error.clone());
        }
    }

    fn operation(&mut self, request: u64, read: Option<ReadOperation>) -> ClientOp {
        let op = ClientOp(self.number());
        self.operations.insert(op, Operation { request, read });
        self.hold(request);
        op
    }

    fn taken_or_failed(
        &mut self,
        context: &mut Context<'_, R>,
        op: ClientOp,
        taken: Result<(), isthmus_engine::NotServed>,
        effects: Effects,
    ) {
        self.carry_out(context, effects);
        if taken.is_err() {
            self.fail_operation(context, op, &ClientError::NotServed("this replica is not primary (any more): connect again, at the node that serves the volume".into()));
        }
    }

    fn begin_flush(&mut self, context: &mut Context<'_, R>, number: u64) {
        let op = self.operation(number, None);
        let mut effects = Effects::new();
        let taken = self.engine.on_flush(context.now, op, &mut effects);
        self.taken_or_failed(context, op, taken, effects);
    }

    fn begin_read(&mut self, context: &mut Context<'_, R>, number: u64, offset: u64, length: u64) {
        let start = offset / BLOCK_BYTES;
        let range = BlockRange::new(start, (offset + length).div_ceil(BLOCK_BYTES) - start);
        let read = ReadOperation {
            range,
            skip: (offset - start * BLOCK_BYTES) as usize,
            length: length as usize,
            over: Over::default(),
            fetched: None,
        };
        let op = self.operation(number, Some(read));
        let mut effects = Effects::new();
        let taken = self.engine.on_read(context.now, op, &mut effects);
        self.taken_or_failed(context, op, taken, effects);
    }

    fn begin_piece(
        &mut self,
        context: &mut Context<'_, R>,
        number: u64,
        piece: Piece,
        source: Option<(u64, &Bytes)>,
    ) {
        match piece {
            Piece::Blocks(range) => match source {
                None => self.order(
                    context,
                    number,
                    RecordKind::Clear,
                    range,
                    Payload::default(),
                ),
                Some((offset, data)) => {
                    let mut start = range.start;
                    while start < range.end() {
                        let part =
                            BlockRange::new(start, RECORD_BLOCKS_MAX.min(range.end() - start));
                        let at = (start * BLOCK_BYTES - offset) as usize;
                        let payload = Payload::new(
                            self.volume,
                            part,
                            data.slice(at..at + part.bytes() as usize),
                        );
                        self.order(context, number, RecordKind::Write, part, payload);
                        start = part.end();
                    }
                }
            },
            // Stepping down has ended the locks, and may have ended in the middle of this request.
            Piece::Part { .. } if !self.engine.is_serving() => {
                let error = "this replica is not primary (any more): connect again, at the node that serves the volume";
                self.note_error(number, &ClientError::NotServed(error.into()));
            }
            Piece::Part { block, at, length } => {
                let data = match source {
                    Some((offset, data)) => {
                        let from = (block * BLOCK_BYTES + at as u64 - offset) as usize;
                        data.slice(from..from + length)
                    }
                    None => Bytes::from_static(&ZERO_BLOCK).slice(..length),
                };
                self.hold(number);
                let fresh = self.locked.insert(block);
                assert!(
                    fresh,
                    "a request that touches a locked block waits, and its own two parts are of two blocks"
                );
                let id = self.number();
                self.merges.insert(
                    id,
                    Merge {
                        request: number,
                        block,
                        at,
                        data,
                        reading: false,
                        over: Over::default(),
                    },
                );
                self.merge_may_go_on(id);
            }
        }
    }

    /// Hands a record to the engine.
    fn order(
        &mut self,
        context: &mut Context<'_, R>,
        number: u64,
        kind: RecordKind,
        range: BlockRange,
        payload: Payload,
    ) {
        let op = self.operation(number, None);
        let mut effects = Effects::new();
        let taken = self
            .engine
            .on_write(context.now, op, kind, range, &mut effects);
        if let Ok(seq) = &taken {
            let entry = *self.engine.log().entry(*seq).expect("just ordered");
            let (epoch, committed) = (entry.position.epoch, self.engine.log().committed());
            let held_is_enough = self.engine.answers_held();
            let head = match held_is_enough {
                true => record_head_to_be_held(epoch, &entry, committed, &payload.checksums),
                false => record_head(epoch, &entry, committed, &payload.checksums),
            };
            self.doubt(Doubtful {
                entry,
                payload,
                head,
                held_is_enough,
                ordered: Some(context.now),
            });
        }
        self.taken_or_failed(context, op, taken.map(|_| ()), effects);
        self.doubt_less(context);
    }

    /// Merges whose block has no record any more that is not answered are read.
    pub(super) fn merges_may_go_on(&mut self, _context: &mut Context<'_, R>) {
        let waiting: Vec<u64> = self
            .merges
            .iter()
            .filter(|(_, merge)| !merge.reading)
            .map(|(id, _)| *id)
            .collect();
        for id in waiting {
            self.merge_may_go_on(id);
        }
    }

    fn merge_may_go_on(&mut self, id: u64) {
        let Some(merge) = self.merges.get_mut(&id) else {
            return;
        };
        let block = BlockRange::new(merge.block, 1);
        let answered = self.engine.answered();
        if merge.reading
            || self.window.iter().any(|doubtful| {
                doubtful.entry.position.seq > answered && doubtful.entry.range.overlaps(block)
            })
        {
            return;
        }
        merge.reading = true;
        let over = self.over(block);
        if let Some(merge) = self.merges.get_mut(&id) {
            merge.over = over;
        }
        let op = self.store_op(StoreWork::MergeRead { id, again: false });
        self.store.read(op, block);
    }

    /// What was bad in a merge's block is mended, or can't be.
    pub(super) fn merge_again(&mut self, id: u64) {
        if let Some(block) = self.merges.get(&id).map(Merge::range) {
            let over = self.over(block);
            if let Some(merge) = self.merges.get_mut(&id) {
                merge.over = over;
            }
            let op = self.store_op(StoreWork::MergeRead { id, again: true });
            self.store.read(op, block);
        }
    }

    pub(super) fn merge_read_done(
        &mut self,
        context: &mut Context<'_, R>,
        id: u64,
        data: &Bytes,
        bad: &[u64],
        again: bool,
    ) {
        if !bad.is_empty() && !again && self.merges.contains_key(&id) {
            self.found_bad(context, bad);
            if self.wait_for_mending(Reader::Merge(id), bad) {
                return;
            }
        }
        let Some(merge) = self.merges.remove(&id) else {
            return;
        };
        self.locked.remove(&merge.block);
        let mut error = None;
        if bad.is_empty() {
            let range = BlockRange::new(merge.block, 1);
            let mut block = BytesMut::from(&merge.over.lay_over(range, data.clone())[..]);
            block[merge.at..merge.at + merge.data.len()].copy_from_slice(&merge.data);
            let payload = Payload::new(self.volume, range, block.freeze());
            self.order(context, merge.request, RecordKind::Write, range, payload);
        } else {
            error = Some(self.bad_block(merge.block));
        }
        self.part_done(context, merge.request, error);
        self.begin_waiting(context);
    }

    fn bad_block(&self, block: u64) -> ClientError {
        ClientError::Unreadable(format!(
            "block {block} of this node's replica does not match its checksum, and no other in-sync replica has answered with a good copy"
        ))
    }

    pub(super) fn fetch(&mut self, op: ClientOp) {
        let Some(read) = self
            .operations
            .get(&op)
            .and_then(|operation| operation.read.as_ref())
        else {
            return;
        };
        let range = read.range;
        self.read_for_client(op, range, false);
    }

    /// What the read sees is settled now: the extents behind all that is on its way into them, and over them what else was answered.
    fn read_for_client(&mut self, op: ClientOp, range: BlockRange, again: bool) {
        let over = self.over(range);
        let operation = self.operations.get_mut(&op);
        if let Some(read) = operation.and_then(|operation| operation.read.as_mut()) {
            read.over = over;
        }
        let store_op = self.store_op(StoreWork::ClientRead { op, again });
        self.store.read(store_op, range);
    }

    /// What was bad in a read is mended, or can't be.
    pub(super) fn fetch_again(&mut self, op: ClientOp) {
        if let Some(read) = self
            .operations
            .get(&op)
            .and_then(|operation| operation.read.as_ref())
        {
            let range = read.range;
            self.read_for_client(op, range, true);
        }
    }

    pub(super) fn client_read_done(
        &mut self,
        context: &mut Context<'_, R>,
        op: ClientOp,
        data: Bytes,
        bad: &[u64],
        again: bool,
    ) {
        if let Some(block) = bad.first() {
            if !again {
                self.found_bad(context, bad);
                if self.wait_for_mending(Reader::Client(op), bad) {
                    return;
                }
            }
            let error = self.bad_block(*block);
            self.fail_operation(context, op, &error);
            return;
        }
        if let Some(read) = self
            .operations
            .get_mut(&op)
            .and_then(|operation| operation.read.as_mut())
        {
            read.fetched = Some(read.over.lay_over(read.range, data));
        }
        self.with_engine(context, |engine, now, effects| {
            engine.on_fetched(now, op, effects)
        });
    }

    pub(super) fn deliver(&mut self, context: &mut Context<'_, R>, op: ClientOp) {
        let Some(operation) = self.operations.remove(&op) else {
            return;
        };
        let Some(ReadOperation {
            skip,
            length,
            fetched: Some(data),
            ..
        }) = operation.read
        else {
            return;
        };
        if let Some(request) = self.requests.remove(&operation.request) {
            self.note_answered(context, &request);
            let outcome = match request.error {
                Some(error) => Outcome::Failed(error),
                None => Outcome::Data(vec![data.slice(skip..skip + length)]),
            };
            context.outputs.replies.push((request.reply, outcome));
        }
    }

    fn note_answered(&mut self, context: &mut Context<'_, R>, request: &Request<R>) {
        let took = context.now.since(request.since);
        context.pace.note(context.now, took);
        self.measures
            .note_served(request.kind, took, request.error.is_none());
    }

    pub(super) fn operation_done(&mut self, context: &mut Context<'_, R>, op: ClientOp) {
        if let Some(operation) = self.operations.remove(&op) {
            self.part_done(context, operation.request, None);
        }
    }

    pub(super) fn fail_operation(
        &mut self,
        context: &mut Context<'_, R>,
        op: ClientOp,
        error: &ClientError,
    ) {
        if let Some(operation) = self.operations.remove(&op) {
            self.engine.forget_read(op);
            self.part_done(context, operation.request, Some(error.clone()));
        }
    }

    fn part_done(&mut self, context: &mut Context<'_, R>, number: u64, error: Option<ClientError>) {
        let Some(request) = self.requests.get_mut(&number) else {
            return;
        };
        if let Some(error) = error {
            request.error.get_or_insert(error);
        }
        request.parts_left -= 1;
        if request.parts_left == 0
            && request.error.is_none()
            && std::mem::take(&mut request.durably)
        {
            // Held everywhere; now what makes it durable is waited for.
            request.parts_left = 1;
            self.begin_flush(context, number);
            self.part_done(context, number, None);
            return;
        }
        if request.parts_left == 0
            && let Some(request) = self.requests.remove(&number)
        {
            self.note_answered(context, &request);
            let outcome = request.error.map_or(Outcome::Done, Outcome::Failed);
            context.outputs.replies.push((request.reply, outcome));
        }
    }

    pub(super) fn status_done(
        &mut self,
        context: &mut Context<'_, R>,
        number: u64,
        runs: &[(u64, bool)],
        written: &[BlockRange],
    ) {
        let Some(request) = self.requests.remove(&number) else {
            return;
        };
        let runs = super::flushing::with_written(runs, written);
        let runs = runs
            .iter()
            .map(|(blocks, allocated)| Run {
                length: blocks * BLOCK_BYTES,
                allocated: *allocated,
            })
            .collect();
        context
            .outputs
            .replies
            .push((request.reply, Outcome::Status(runs)));
    }

    /// This replica serves no more: what the engine has not seen yet fails, too (I9).
    pub(super) fn fail_waiting(&mut self, context: &mut Context<'_, R>) {
        let error = ClientError::NotServed(
            "this replica is not primary any more: the volume is served elsewhere, or by nobody"
                .into(),
        );
        let merges = std::mem::take(&mut self.merges);
        self.locked.clear();
        let waiting = std::mem::take(&mut self.waiting);
        for request in merges
            .into_values()
            .map(|merge| merge.request)
            .chain(waiting)
        {
            self.part_done(context, request, Some(error.clone()));
        }
    }
}

//! Frames from other replicas.

use super::{Context, Mirror};
use crate::output::Lane;
use crate::status::FaultKind;
use crate::wire::{self, Copying, Record, TAG_COPY, TAG_MESSAGE, decode_record, decode_value};
use bytes::Bytes;
use isthmus_engine::{Entry, Message, NodeId, RecordKind};
use isthmus_mutation::Mutation;

/// What came on the write lane, decoded.
#[derive(Debug)]
pub(super) enum Arrival {
    /// A record, and its head as it came.
    Record(Box<(Record, Bytes)>),
    /// Anything else.
    Message(Message),
}

impl<R> Mirror<R> {
    /// A frame from a peer, over the session that is up. Returns what was wrong with it, if something was: nothing has changed then.
    pub fn on_frame(
        &mut self,
        context: &mut Context<'_, R>,
        from: NodeId,
        lane: Lane,
        frame: &Bytes,
    ) -> Result<(), wire::Malformed> {
        match lane {
            Lane::Write if wire::is_record(frame) => {
                let record = decode_record(frame, self.volume)?;
                // Its primary may have heard earlier that the volume has grown. What an older epoch sends is refused by the engine.
                if record.epoch >= self.engine.configuration().epoch {
                    self.grow_to(record.entry.range.end());
                }
                let head = frame.slice(..frame.len() - record.payload.data.len());
                self.arrives(context, from, Arrival::Record(Box::new((record, head))));
            }
            Lane::Write => {
                let (message, used) = decode_value::<Message>(TAG_MESSAGE, frame)?;
                if matches!(message, Message::Append { .. }) {
                    return Err(wire::Malformed("a record without its bytes".into()));
                }
                self.measure_acknowledged(context.now, from, &message, &frame[used..]);
                self.arrives(context, from, Arrival::Message(message));
            }
            Lane::Resync => {
                let (copying, used) = decode_value::<Copying>(TAG_COPY, frame)?;
                self.on_copying(context, from, copying, &frame.slice(used..))?;
            }
        }
        Ok(())
    }

    /// A journal that is nearly full takes no more records: they, and what follows them, wait for the next checkpoint. Whatever is
    /// about grants needs no order, and tells what is committed, without which there would be no checkpoint.
    fn arrives(&mut self, context: &mut Context<'_, R>, from: NodeId, arrival: Arrival) {
        let waits = match &arrival {
            // An unable replica takes nothing, and so has nothing to wait for.
            _ if self.fault.is_some() => false,
            Arrival::Record(record) => {
                !self.deferred.is_empty()
                    || !self.has_room_to_follow(context)
                    || !self.has_space_to_follow(&record.0)
            }
            Arrival::Message(
                Message::GrantRequest { .. } | Message::Grant { .. } | Message::GiveUp { .. },
            ) => false,
            Arrival::Message(_) => !self.deferred.is_empty(),
        };
        if waits {
            self.deferred.push_back((from, arrival));
        } else {
            self.take_arrival(context, from, arrival);
        }
    }

    /// Takes what waited, as far as there is room now.
    pub fn take_deferred(&mut self, context: &mut Context<'_, R>) {
        while let Some((_, arrival)) = self.deferred.front() {
            if let Arrival::Record(record) = arrival {
                if !self.has_room_to_follow(context) {
                    return;
                }
                if !self.has_space_to_follow(&record.0) {
                    let Entry {
                        position, range, ..
                    } = record.0.entry;
                    // Space may have come back since the last look: it is looked for once for each record, before it is given up.
                    if self.space.short_since.is_none() || self.space.looks_again_for(position) {
                        self.want_space_for(&[range]);
                        return;
                    }
                    if self.space_may_come(context) {
                        return;
                    }
                    // To be said before it is acknowledged: the primary has room, or it would not have ordered it.
                    let reason = "the disk of this node is full; free space: the replica then comes back by itself";
                    self.fail(context, FaultKind::Full, reason.into());
                    return;
                }
            }
            if let Some((from, arrival)) = self.deferred.pop_front() {
                self.take_arrival(context, from, arrival);
            }
        }
    }

    fn take_arrival(&mut self, context: &mut Context<'_, R>, from: NodeId, arrival: Arrival) {
        let message = match arrival {
            Arrival::Message(message) => message,
            Arrival::Record(record) => {
                let (record, head) = *record;
                if Mutation::TrimOutOfOrder.is_on() && record.entry.kind == RecordKind::Clear {
                    let op = self.store_op(super::StoreWork::Checkpoint);
                    self.store_works.remove(&op);
                    self.store.clear(op, record.entry.range);
                }
                self.staged = Some(super::Staged {
                    payload: record.payload,
                    head,
                    held_is_enough: record.held_is_enough,
                });
                Message::Append {
                    epoch: record.epoch,
                    entry: record.entry,
                    committed: record.committed,
                }
            }
        };
        self.with_engine(context, |engine, now, effects| {
            engine.on_message(now, from, message, effects)
        });
        // Not taken: the record was refused, or was held already.
        self.staged = None;
    }

    fn has_space_to_follow(&self, record: &Record) -> bool {
        record.entry.kind == RecordKind::Clear || self.has_space_for(&[record.entry.range])
    }

    /// A follower takes what its primary let in, so it goes on a little longer than a primary does.
    fn has_room_to_follow(&self, context: &Context<'_, R>) -> bool {
        context.journal_room() >= context.journal_reserve / 2
    }
}

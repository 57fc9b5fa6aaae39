//! Frames from other replicas.

use super::{Context, Mirror};
use crate::output::Lane;
use crate::wire::{self, Copying, TAG_COPY, TAG_MESSAGE, decode_record, decode_value};
use bytes::Bytes;
use isthmus_engine::{Message, NodeId};

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
                let record = decode_record(frame, self.volume, self.blocks)?;
                let head = frame.slice(..frame.len() - record.payload.data.len());
                self.staged = Some((record.payload, head));
                let message = Message::Append {
                    epoch: record.epoch,
                    entry: record.entry,
                    committed: record.committed,
                };
                self.with_engine(context, |engine, now, effects| {
                    engine.on_message(now, from, message, effects)
                });
                // Not taken: the record was refused, or was held already.
                self.staged = None;
            }
            Lane::Write => {
                let (message, _) = decode_value::<Message>(TAG_MESSAGE, frame)?;
                if matches!(message, Message::Append { .. }) {
                    return Err(wire::Malformed("a record without its bytes".into()));
                }
                self.with_engine(context, |engine, now, effects| {
                    engine.on_message(now, from, message, effects)
                });
            }
            Lane::Resync => {
                let (copying, used) = decode_value::<Copying>(TAG_COPY, frame)?;
                self.on_copying(context, from, copying, &frame.slice(used..))?;
            }
        }
        Ok(())
    }
}

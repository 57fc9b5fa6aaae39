//! What a node answers for a replica that can't be opened.

use crate::output::{Lane, OutgoingFrame, Outputs};
use crate::wire::{self, Malformed};
use bytes::Bytes;
use isthmus_engine::{Message, NodeId, VolumeId};

/// A replica that can't be opened takes no part, and a primary that greets it is told so: it need not wait for it in the set, and has
/// kvdb note that it is not complete before it is made anew.
pub(super) fn answer_for_closed<R>(
    volume: VolumeId,
    reason: &str,
    from: NodeId,
    lane: Lane,
    frame: &Bytes,
    outputs: &mut Outputs<R>,
) -> Result<(), Malformed> {
    if lane != Lane::Write || wire::is_record(frame) {
        return Ok(());
    }
    let (message, _) = wire::decode_value::<Message>(wire::TAG_MESSAGE, frame)?;
    if let Message::Prepare { .. } = message {
        let unable = Message::Unable {
            reason: reason.to_owned(),
        };
        outputs.frames.push(OutgoingFrame {
            to: from,
            volume,
            lane,
            head: wire::encode_value(wire::TAG_MESSAGE, &unable),
            body: Bytes::new(),
        });
    }
    Ok(())
}

//! What replicas of one volume say to each other. How it looks in bytes is the host's business.

use crate::configuration::Configuration;
use crate::history::History;
use crate::ids::{Epoch, Seq};
use crate::log::Entry;
use crate::time::Time;
use serde::{Deserialize, Serialize};

/// A message between two replicas of one volume. All but grants travel in order on the volume's write lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Primary to all: "this is the configuration, I am its primary; how far does your log reach?" First on every session.
    Prepare {
        /// The configuration, which names the sender as primary.
        configuration: Configuration,
    },
    /// Answer to `Prepare`, once its epoch is durable.
    Report {
        /// The epoch that it answers.
        epoch: Epoch,
        /// Which epochs ordered the sender's log.
        history: History,
        /// Where its log ends.
        end: Seq,
        /// How far it knows its log as committed.
        committed: Seq,
    },
    /// Primary to member: "drop what lies after `to`; what I send next follows it" (I5).
    Rewind {
        /// The primary's epoch.
        epoch: Epoch,
        /// The last record in common.
        to: Seq,
    },
    /// Primary to joiner: "take my log's place at `start`; what I send next follows it; copy what differs before it" (I6, I7).
    Join {
        /// The primary's epoch.
        epoch: Epoch,
        /// The last record in common; none when the histories don't tell.
        common: Option<Seq>,
        /// The primary's committed position: copies are never older than this.
        start: Seq,
        /// The primary's history up to `start`.
        history: History,
        /// The primary's dirty map of the joiner (encoded), counted from at most `common`; none: compare everything.
        dirty: Option<Vec<u8>>,
    },
    /// A record. Its bytes travel with it.
    Append {
        /// The primary's epoch, at least that of the record.
        epoch: Epoch,
        /// The record.
        entry: Entry,
        /// The primary's committed position.
        committed: Seq,
    },
    /// Secondary to primary: its journal holds everything up to `durable`.
    Acked {
        /// The epoch that the sender is at.
        epoch: Epoch,
        /// Its durable position.
        durable: Seq,
    },
    /// Primary to member: the set has changed under it.
    Configure {
        /// The new configuration.
        configuration: Configuration,
    },
    /// Joiner to primary: everything is copied, and durable.
    Copied {
        /// The epoch that the sender is at.
        epoch: Epoch,
    },
    /// Primary to member: "promise for a lease to take no higher epoch with another primary".
    GrantRequest {
        /// The primary's epoch.
        epoch: Epoch,
        /// When it asked, by its own clock: the giver only sends it back.
        asked: Time,
        /// The primary's committed position.
        committed: Seq,
    },
    /// The promise.
    Grant {
        /// The epoch that it holds for.
        epoch: Epoch,
        /// When it was asked for.
        asked: Time,
    },
    /// Primary to member: "I serve no more under this epoch; your promise is void".
    GiveUp {
        /// The epoch given up.
        epoch: Epoch,
    },
    /// "Your epoch is older than mine."
    Stale {
        /// The sender's epoch.
        epoch: Epoch,
    },
    /// To a primary: "my disk does not let me take part; take me out of the set". Whatever its epoch: it speaks of now.
    Unable {
        /// For people; bounded by the frame.
        reason: String,
    },
    /// Secondary to primary: its kernel has everything up to `held`. Only for records that said that this is enough.
    Held {
        /// The epoch that the sender is at.
        epoch: Epoch,
        /// Up to where.
        held: Seq,
    },
    /// Primary to member: "make durable what you hold"; answered by `Acked`. Whoever holds nothing that is not durable does nothing.
    Sync {
        /// The primary's epoch.
        epoch: Epoch,
    },
}

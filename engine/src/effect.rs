//! What a replica's engine asks of its host, in the order in which it may be done.

use crate::blocks::BlockRange;
use crate::configuration::Configuration;
use crate::history::History;
use crate::ids::{Epoch, NodeId, ReplicaId, Seq};
use crate::log::{Entry, Token};
use crate::message::Message;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A client's operation, named by the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientOp(pub u64);

/// A change of what a replica knows durably, besides its records. Journalled in order with them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// A new configuration is taken (I4).
    Adopt {
        /// The configuration.
        configuration: Configuration,
        /// Replicas that left the set: a dirty map is started for each that has none, complete from `committed`, with the
        /// ranges in `doubtful` marked already.
        absent: BTreeSet<ReplicaId>,
        /// The position that every member of the former set holds.
        committed: Seq,
        /// The ranges of the entries after `committed`.
        doubtful: Vec<BlockRange>,
    },
    /// Entries after `to` are dropped (I5).
    Rewind {
        /// The last entry that stays.
        to: Seq,
    },
    /// This replica takes the place of the primary's log at `end`, and has to copy what may differ before it (I6, I7).
    Rebase {
        /// The primary's.
        primary: ReplicaId,
        /// The primary's history up to `end`.
        history: History,
        /// The primary's committed position.
        end: Seq,
        /// The last record in common; none when unknown.
        common: Option<Seq>,
        /// How far this replica's log was committed (and so applied) before.
        committed: Seq,
        /// The ranges of its own entries after `committed`: dropped, so to be copied.
        doubtful: Vec<BlockRange>,
        /// The primary's dirty map of this replica; none: compare everything.
        dirty: Option<Vec<u8>>,
    },
    /// Everything is copied, and durable: the replica is whole again.
    Whole,
}

/// Why a client's operation failed, or can't be served here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotServed {
    /// This replica is not primary (any more).
    NotPrimary,
    /// The replica stopped because it found a broken rule.
    Damaged,
    /// The replica's disk does not let it take part.
    Unable(String),
}

/// What a primary asks of kvdb. Every one names the epoch that it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProposalKind {
    /// To become primary.
    Promote,
    /// To serve.
    Opened,
    /// To take `Proposal::replicas` out of the set.
    Shrink,
    /// That `Proposal::replicas`, which lost power, hold everything answered again.
    CaughtUp,
    /// To copy over `Proposal::replicas` (one), which is not complete any more then.
    BeginCopy,
    /// To take `Proposal::replicas` (one) into the set.
    Grow,
    /// To start a new epoch without the joiner asked for.
    Renew,
    /// To be primary no more.
    Release,
}

/// A compare-and-set on the volume's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// What.
    pub kind: ProposalKind,
    /// The epoch that must still be the volume's.
    pub epoch: Epoch,
    /// Whom it is about, for `Shrink`, `CaughtUp`, `BeginCopy` and `Grow`.
    pub replicas: BTreeSet<ReplicaId>,
}

/// What a replica's engine asks of its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Journal a record; its bytes are in the host's window. The host says `on_persisted(token)` when it is durable.
    Append {
        /// Names it.
        token: Token,
        /// The record.
        entry: Entry,
    },
    /// Journal a change. The host says `on_persisted(token)` when it is durable.
    Persist {
        /// Names it.
        token: Token,
        /// The change.
        change: Change,
    },
    /// Make everything handed to the journal so far durable now. The host says `on_persisted`, as ever.
    Sync,
    /// Send a message, not before `after` is durable. `Append` messages take their bytes from the host's window.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
        /// What must be durable first.
        after: Option<Token>,
    },
    /// Entries up to this are committed: hand them to the extents, in order.
    Apply {
        /// The last of them.
        through: Seq,
    },
    /// Entries up to this one, committed or not, are answered: reads that are fetched from now on see them.
    Show {
        /// The last of them.
        through: Seq,
    },
    /// Forget the bytes of entries after this one: they were cut off.
    Cut {
        /// The last entry that stays.
        to: Seq,
    },
    /// The client's write, or flush, is done.
    Acknowledge {
        /// Which.
        op: ClientOp,
    },
    /// Read the data of the client's read, then say `on_fetched`.
    Fetch {
        /// Which.
        op: ClientOp,
    },
    /// Give the fetched data to the client.
    Deliver {
        /// Which.
        op: ClientOp,
    },
    /// The client's operation fails.
    Fail {
        /// Which.
        op: ClientOp,
        /// Why.
        why: NotServed,
    },
    /// Ask kvdb. The host says `on_answer`; what came of it shows in the next view.
    Propose(Proposal),
    /// Ask kvdb, by a linearizable read begun now, whether the view is still the newest. The host says `on_confirmed`.
    Confirm,
    /// This replica serves clients now.
    Serving,
    /// This replica serves clients no more.
    Demoted,
    /// Copy what is on the to-do map from the primary; again from the start of the map when it was under way.
    StartCopy {
        /// From whom.
        from: NodeId,
    },
    /// Stop copying; what is left stays on the map.
    StopCopy,
    /// A rule was found broken (I10): this volume stops on this replica.
    Damaged {
        /// What was found.
        reason: String,
    },
}

/// Where effects go.
pub type Effects = Vec<Effect>;

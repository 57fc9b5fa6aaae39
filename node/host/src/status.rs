//! What a host knows of a volume, for people and programs.

use isthmus_engine::{Epoch, Grant, NodeId, ReplicaId, Seq, Standing, Time, VolumeId};
use std::time::Duration;

/// How far copying is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyProgress {
    /// Bytes that may differ when it began.
    pub total_bytes: u64,
    /// Bytes that are still to be compared or copied.
    pub left_bytes: u64,
    /// How fast, in bytes per second since it began; 0 when not known.
    pub bytes_per_second: u64,
}

/// What kind of fault keeps a replica from taking part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Its disk is full. It comes back by itself.
    Full,
    /// Its disk fails, or is read-only. It comes back with the next start of the node.
    Failing,
    /// Records of it were lost. It comes back by itself, compared whole, once the in-sync set is without it.
    Lost,
}

/// Why a replica can't take part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaFault {
    /// What kind.
    pub kind: FaultKind,
    /// In words, with what to do.
    pub reason: String,
    /// Since when.
    pub since: Time,
}

/// One volume's replica on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeStatus {
    /// Which volume.
    pub volume: VolumeId,
    /// What the replica is now.
    pub standing: Standing,
    /// The newest epoch that it has taken, durably or nearly.
    pub epoch: Epoch,
    /// Until when nothing of a lower epoch can be served with this replica's promise: none when no promise is out.
    pub promised_to: Option<NodeId>,
    /// For how long its clients' requests can't be answered; none when they can.
    pub frozen_for: Option<Duration>,
    /// The grants that something waits for.
    pub grants: Vec<Grant>,
    /// The end of its log.
    pub end: Seq,
    /// The epoch under which its last record was ordered.
    pub end_epoch: Epoch,
    /// Its committed position.
    pub committed: Seq,
    /// Whether its extents hold everything committed.
    pub whole: bool,
    /// Clients attached here.
    pub clients: usize,
    /// Whether a client has come since the volume is being moved here.
    pub welcomed: bool,
    /// Copying to this replica, if it is under way or was.
    pub copying: Option<CopyProgress>,
    /// Only on a primary: replicas that copy from here.
    pub joiners: Vec<(NodeId, CopyProgress)>,
    /// Bytes of blocks that travelled for resync, to or from this replica, since this process started.
    pub moved_bytes: u64,
    /// Bytes that each absent replica would have to compare or copy.
    pub dirty: Vec<(ReplicaId, u64)>,
    /// Blocks found bad and not yet repaired or written since, as far as this process knows.
    pub bad_blocks: u64,
    /// Blocks found bad since this process started.
    pub checksum_errors: u64,
    /// Of these, repaired from a peer.
    pub repaired_blocks: u64,
    /// Why the disk does not let this replica take part, if it doesn't.
    pub fault: Option<ReplicaFault>,
    /// Since when writes that need space are refused here, if they are.
    pub short_of_space_since: Option<Time>,
    /// Bytes of slots in use.
    pub used_bytes: u64,
}

//! The names of things: volumes, nodes, replicas, epochs and positions in a volume's order of writes.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A volume, numbered by kvdb; never used again after the volume is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VolumeId(pub u64);

/// A node of the cluster, numbered in the cluster's member list (1 and up). Its name is only for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u32);

/// A cluster domain (one site), numbered in the cluster's member list (1 and up).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DomainId(pub u32);

/// The random number that a node's store gets when it is formatted (I12). A replaced or emptied disk has another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

/// One full copy of a volume: a node and the incarnation of the store that holds the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReplicaId {
    /// The node that holds the copy.
    pub node: NodeId,
    /// The incarnation of that node's store.
    pub incarnation: Incarnation,
}

/// A volume's configuration number, the fencing token: ordered first by the cluster's generation, then by the number.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Epoch {
    /// The cluster's incarnation; rises when a survivor is forced to go on without quorum.
    pub generation: u32,
    /// Rises with every change of the volume's primary or in-sync set.
    pub number: u32,
}

impl Epoch {
    /// The epoch before any: no primary has ever served under it.
    pub const ZERO: Epoch = Epoch {
        generation: 0,
        number: 0,
    };

    /// The next epoch of the same generation.
    #[must_use]
    pub fn next(self) -> Epoch {
        Epoch {
            generation: self.generation,
            number: self.number + 1,
        }
    }
}

/// The position of a write in its volume's one order of writes. The first write has 1; 0 is before any.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Seq(pub u64);

impl Seq {
    /// Before any write.
    pub const ZERO: Seq = Seq(0);

    /// The position after this one.
    #[must_use]
    pub fn next(self) -> Seq {
        Seq(self.0 + 1)
    }
}

/// What identifies a record: the epoch under which its primary ordered it, and its place in the order.
/// Two replicas that hold a record with the same position hold the same records before it, too.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Position {
    /// The epoch under which the record was ordered.
    pub epoch: Epoch,
    /// Its place in the order.
    pub seq: Seq,
}

macro_rules! display {
    ($($type:ty => |$this:ident, $out:ident| $body:expr;)*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, $out: &mut fmt::Formatter<'_>) -> fmt::Result {
                let $this = self;
                $body
            }
        }
    )*};
}

display! {
    VolumeId => |this, out| write!(out, "v{}", this.0);
    NodeId => |this, out| write!(out, "n{}", this.0);
    DomainId => |this, out| write!(out, "d{}", this.0);
    Incarnation => |this, out| write!(out, "{:016x}", this.0);
    ReplicaId => |this, out| write!(out, "{}/{}", this.node, this.incarnation);
    Epoch => |this, out| if this.generation == 0 { write!(out, "{}", this.number) } else { write!(out, "{}.{}", this.generation, this.number) };
    Seq => |this, out| write!(out, "{}", this.0);
    Position => |this, out| write!(out, "{}:{}", this.epoch, this.seq);
}

//! The protocol of a mirrored volume as pure state machines, and the vocabulary that all other crates share.
//!
//! Nothing here does I/O, reads a clock or starts a thread: facts come in as events with the time as an argument,
//! and decisions go out as effects. Reading order: [`ids`], [`blocks`], [`time`], then the protocol.

pub mod blocks;
pub mod ids;
pub mod time;

pub use blocks::{BLOCK_BYTES, BlockRange, block_checksum};
pub use ids::{DomainId, Epoch, Incarnation, NodeId, Position, ReplicaId, Seq, VolumeId};
pub use time::Time;

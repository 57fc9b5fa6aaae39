//! The protocol of a mirrored volume as pure state machines, and the vocabulary that all other crates share.
//!
//! Nothing here does I/O, reads a clock or starts a thread: facts come in as events with the time as an argument,
//! and decisions go out as effects. Reading order: [`ids`], [`blocks`], [`time`]; [`configuration`], [`history`], [`log`],
//! [`message`], [`effect`]; then [`replica`].

pub mod blocks;
pub mod configuration;
pub mod durable;
pub mod effect;
pub mod history;
pub mod ids;
pub mod log;
pub mod message;
pub mod replica;
pub mod settings;
pub mod time;

pub use blocks::{BLOCK_BYTES, BlockRange, block_checksum};
pub use configuration::{Configuration, View};
pub use durable::Durable;
pub use effect::{Change, ClientOp, Effect, Effects, NotServed, Proposal, ProposalKind};
pub use history::History;
pub use ids::{DomainId, Epoch, Incarnation, NodeId, Position, ReplicaId, Seq, VolumeId};
pub use log::{Entry, RecordKind, Token};
pub use message::Message;
pub use replica::{Grant, Replica, Standing};
pub use settings::Settings;
pub use time::Time;

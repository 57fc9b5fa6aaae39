//! The host: one thread's worth of volumes. It joins each volume's engine, journal records and extents, carries out the engine's
//! effects, and speaks the replicas' wire format. It is synchronous: facts come in as calls with the time, what is to be done outside
//! (frames, replies to clients, questions to kvdb) goes out in [`Outputs`]. The simulator drives the same code as `isthmusd`.
//!
//! Reading order: [`output`], [`wire`], [`mirror`] (one volume), `pace` (of resyncs), `lives` (whose records are whose), [`host`], [`proposal`], [`status`], [`figures`].

pub mod figures;
pub mod host;
mod lives;
pub mod mirror;
pub mod output;
mod pace;
pub mod proposal;
pub mod status;
pub mod wire;

pub use figures::{EpochChange, Figures, Histogram, Served, VolumeFigures};
pub use host::{Host, HostError, Identity, ScrubPace};
pub use output::{ClientError, ClientRequest, Lane, Outcome, OutgoingFrame, Outputs, Run};
pub use proposal::command_of;
pub use status::{CopyProgress, FaultKind, ReplicaFault, VolumeStatus};

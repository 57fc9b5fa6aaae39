//! The catalog: what the cluster has agreed on, as a pure, deterministic state machine.
//!
//! A command that breaks a rule is *refused*, the same way on every node; it never panics (invariant I10), and nothing has
//! changed then. Reading order: [`record`] says what is kept, [`command`] what may be asked, [`apply`] what a command does,
//! [`plan`] what a deactivation would do, [`voters`] who votes in kvdb, [`check`] what holds of every catalog, [`codec`] its
//! bytes.

pub mod apply;
pub mod check;
pub mod codec;
pub mod command;
pub mod plan;
pub mod record;
pub mod voters;

pub use codec::CodecError;
pub use command::{Answer, Cause, Command, Refusal, Request, RequestId};
pub use plan::DeactivationPlan;
pub use record::{
    AuditDigest, AuditRecord, BootId, Catalog, DomainRecord, DomainRole, DomainState, DomainUpdate,
    Durability, FailoverReport, FailoverVolume, Handover, Lineage, NodeRecord, OnPeerLoss,
    Publication, Relocation, UpdateAction, UpdateStatus, VolumePolicy, VolumeRecord,
    starts_counted,
};

#[cfg(test)]
mod tests;

//! The catalog: what the cluster has agreed on, as a pure, deterministic state machine.
//!
//! [`record`] says what is kept, [`command`] what may be asked. A command that breaks a rule is *refused*, the same way
//! on every node; it never panics (invariant I10).

pub mod command;
pub mod record;

pub use command::{Answer, Command, Cause, Refusal, Request, RequestId};
pub use record::{
    Catalog, DomainRecord, DomainRole, DomainState, DomainUpdate, Durability, Handover, NodeRecord, OnPeerLoss, UpdateAction,
    UpdateStatus, VolumePolicy, VolumeRecord, AuditRecord,
};

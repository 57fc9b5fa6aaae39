//! Domain updates: what happens between `Deactivate` and `Deactivated`, `Activate` and `Activated`.
//!
//! ```text
//! Deactivate ──▶ votes have left the domain ──▶ fence proven ──▶ Deactivated
//! Activate   ──▶ its nodes answer and have caught up ──▶ votes are spread again ──▶ Activated
//!                     either: not there after ten minutes ──▶ UpdateFailed
//! ```
//!
//! The plan is in kvdb; whichever node leads kvdb goes on with it, and starts every wait anew. Nothing is undone.
//!
//! Invariant: `Deactivated` is proposed only with a [`fence::FenceProof`] (design: "a fence is *proven* before the
//! command says done").
//!
//! Reading order: [`driver`] (acts), [`step`] (decides, pure), [`fence`] (proves, pure).

pub mod driver;
pub mod fence;
pub mod step;

#[cfg(test)]
mod tests;

//! What kvdb's leader does by itself: fails a lost site over where the policy says so, ends planned moves, and completes the reports of
//! failovers.
//!
//! ```text
//! nobody has heard any node of a data domain for `after` ──▶ FailOver ──▶ (as every deactivation: `domains`)
//! it was failed over so, and its nodes answer for `after` ──▶ Activate, where `auto_activate` says so
//! Relocate ──▶ a client has come to the goal, or nobody came in time, or the goal went silent ──▶ EndRelocation
//! ```
//!
//! Nothing here is needed for safety: a failover is a deactivation like any other, refused by kvdb where a volume would lose anything, and
//! its fence is proven the same way. A new leader counts every time anew.
//!
//! Reading order: [`watch`] (decides, pure), [`driver`] (acts).

pub mod driver;
pub mod watch;

#[cfg(test)]
mod tests;

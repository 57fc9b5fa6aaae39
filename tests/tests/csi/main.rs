//! The CSI driver over its socket, with a real cluster behind it.

#![allow(
    clippy::unwrap_used,
    reason = "a test may fail loudly in its helpers, too"
)]

mod attachment;
mod calls;
mod diskless;
mod used;
mod volumes;
mod wrong;

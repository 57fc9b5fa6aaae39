//! Rules of a whole cluster, checked with real processes.

#![allow(
    clippy::unwrap_used,
    reason = "a test may fail loudly in its helpers, too"
)]

mod clients;
mod comeback;
mod domains;
mod failover;
mod links;
mod nonsense;
mod power;
mod quickstart;
mod rounds;
mod service;
mod walkthrough;

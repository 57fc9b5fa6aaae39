//! Rules of a whole cluster, checked with real processes.

#![allow(
    clippy::unwrap_used,
    reason = "a test may fail loudly in its helpers, too"
)]

mod clients;
mod diskless;
mod domains;
mod members;
mod moves;
mod operating;
mod quickstart;
mod recovery;
mod rounds;
mod rows;
mod service;
mod walkthrough;

//! Why kvdb could not do what it was asked.

use std::time::Duration;

/// Why kvdb could not do what it was asked. That a command breaks a rule of the catalog is no error of kvdb: it is an
/// [`isthmus_catalog::Answer::Refused`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KvdbError {
    /// No majority answered in time. A command may have been committed all the same, or may still be: ask again with the same
    /// request, which is applied once.
    #[error(
        "kvdb: no answer from a majority within {within:?} ({last}); check that two of three voters run and reach each other"
    )]
    Unavailable {
        /// How long it was tried.
        within: Duration,
        /// What the last attempt met.
        last: String,
    },
    /// The request is longer than a request may be.
    #[error("kvdb: the request is too large: {0}")]
    TooLarge(String),
    /// kvdb on this node has stopped, mostly because its disk failed.
    #[error("kvdb has stopped on this node: {0}")]
    Stopped(String),
    /// The data directory can't be used.
    #[error("kvdb can't use its store: {0}")]
    Store(String),
}

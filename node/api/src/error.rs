//! What a client is told when something did not work.

use serde::{Deserialize, Serialize};
use std::fmt;

/// An error: what did not work, why, and what to do next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// What did not work, in one sentence without a full stop.
    pub error: String,
    /// Why; empty when `error` says it all.
    #[serde(default)]
    pub reason: String,
    /// What to do next; empty when there is nothing.
    #[serde(default)]
    pub next: String,
    /// Where time alone will change the answer: after how many seconds to ask again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
}

impl ApiError {
    /// An error that needs no more words.
    #[must_use]
    pub fn new(error: impl Into<String>) -> ApiError {
        ApiError {
            error: error.into(),
            reason: String::new(),
            next: String::new(),
            retry_after_seconds: None,
        }
    }

    /// The same with its reason.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> ApiError {
        self.reason = reason.into();
        self
    }

    /// The same with what to do next.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> ApiError {
        self.next = next.into();
        self
    }

    /// The same, to be asked again after so many seconds.
    #[must_use]
    pub fn after(mut self, seconds: u64) -> ApiError {
        self.retry_after_seconds = Some(seconds);
        self
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.error)?;
        if !self.reason.is_empty() {
            write!(out, ": {}", self.reason)?;
        }
        if !self.next.is_empty() {
            write!(out, "; {}", self.next)?;
        }
        Ok(())
    }
}

impl std::error::Error for ApiError {}

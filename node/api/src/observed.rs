//! How far an answer can be trusted.

use serde::{Deserialize, Serialize};

/// When an answer was put together, and whether a majority of kvdb's voters confirmed what it rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// When, in ms since 1970 by the answering node's clock.
    pub at_ms: u64,
    /// Whether a majority confirmed it. If not, it is what the answering node knew last, and may be old.
    pub confirmed: bool,
}

//! Why something is in its state, which rule holds it there, and what would change it.

use crate::observed::Observed;
use serde::{Deserialize, Serialize};

/// A command, and what comes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remedy {
    /// What to do: a command as it can be typed, or a sentence where none does it.
    pub command: String,
    /// What happens then.
    pub consequence: String,
}

/// Why a volume or a cluster domain is in its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// What is explained: `volume db`, `clusterdomain site-a`.
    pub subject: String,
    /// Its state, in one of the words that lists show.
    pub state: String,
    /// Since when, in ms since 1970; none when not known.
    pub since_ms: Option<u64>,
    /// What is so, the most important first.
    pub facts: Vec<String>,
    /// Which promise keeps it in this state; empty when nothing does.
    pub rule: String,
    /// What changes it; empty when nothing needs to.
    pub remedies: Vec<Remedy>,
    /// How far this can be trusted.
    pub observed: Observed,
}

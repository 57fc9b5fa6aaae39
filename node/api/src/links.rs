//! The links between nodes: how long a round trip takes, and how many probes are lost.

use serde::{Deserialize, Serialize};

/// What a link is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkState {
    /// No probe was answered yet, or nobody who would know answers.
    #[default]
    Unknown,
    /// Probes are answered in time.
    Good,
    /// The median round trip is longer than it should be.
    LatencyExceeded,
    /// Probes are not answered.
    Down,
}

/// A node's link to another one, as it measures it: a probe a second, over the last 60 s.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRuntime {
    /// The other node's id.
    pub peer: u32,
    /// What it is like.
    pub state: LinkState,
    /// Why it is not good; empty when it is.
    pub reason: String,
    /// Since when it is so, in ms since 1970.
    pub since_ms: u64,
    /// The median round trip in microseconds; none when no probe was answered.
    pub p50_us: Option<u64>,
    /// The 99th percentile.
    pub p99_us: Option<u64>,
    /// Probes sent.
    pub probes: u32,
    /// Of these, not answered.
    pub lost: u32,
    /// The round trip as the control connection estimates it, in microseconds; none without one.
    pub transport_us: Option<u64>,
    /// When the last probe was answered or given up, in ms since 1970 by this node's clock.
    pub observed_at_ms: u64,
}

/// The link between two nodes of different data domains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The node that measures it.
    pub from: String,
    /// Its domain.
    pub from_domain: String,
    /// The other node.
    pub to: String,
    /// Its domain.
    pub to_domain: String,
    /// What it is like.
    pub state: LinkState,
    /// Why it is not good; empty when it is.
    pub reason: String,
    /// What to do about it; empty when there is nothing.
    pub next: String,
    /// Since when it is so, in ms since 1970; none when not known.
    pub since_ms: Option<u64>,
    /// The median round trip of the last 60 s in microseconds; none when no probe was answered.
    pub p50_us: Option<u64>,
    /// The 99th percentile.
    pub p99_us: Option<u64>,
    /// Probes sent in that time.
    pub probes: u32,
    /// Of these, not answered.
    pub lost: u32,
    /// When it was measured last, in ms since 1970 by the measuring node's clock; none when not known.
    pub observed_at_ms: Option<u64>,
}

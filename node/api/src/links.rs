//! The links between nodes: how long a round trip takes, how many probes are lost, and what is done about a link that is too slow.

use crate::observed::Observed;
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

/// What is done about a link that is too slow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkAction {
    /// It is said.
    #[default]
    Report,
    /// No volumes are created over it.
    RefuseNew,
    /// Replicas behind it leave the in-sync sets.
    Degrade,
}

/// The median round trip of a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundTrip {
    /// When the while ended, in ms since 1970 by the measuring node's clock.
    pub at_ms: u64,
    /// In microseconds; none when no probe was answered.
    pub p50_us: Option<u64>,
}

/// A link went over into another state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkChange {
    /// When, in ms since 1970 by the measuring node's clock.
    pub at_ms: u64,
    /// Which it is since.
    pub state: LinkState,
    /// Why, or what it means; may be empty.
    pub reason: String,
}

/// Why replicas behind a link stay out of the in-sync sets (action `degrade`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptOut {
    /// Since when, in ms since 1970 by the measuring node's clock.
    pub since_ms: u64,
    /// Why, as it was then.
    pub reason: String,
    /// Since when the link is good again; none while it is not.
    pub good_since_ms: Option<u64>,
    /// For how long it has to be.
    pub hold_down_seconds: u64,
}

impl KeptOut {
    /// How many seconds are left if it stays good; none while it is not.
    #[must_use]
    pub fn seconds_left(&self, now_ms: u64) -> Option<u64> {
        let since_ms = self.good_since_ms?;
        let good_ms = now_ms.saturating_sub(since_ms);
        let hold_down_ms = self.hold_down_seconds.saturating_mul(1000);
        Some(hold_down_ms.saturating_sub(good_ms).div_ceil(1000))
    }
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
    /// The longest median that is as it should be, in microseconds; 0 when not known.
    #[serde(default)]
    pub max_rtt_us: u64,
    /// What this node does about it when it is too slow.
    #[serde(default)]
    pub action: LinkAction,
    /// Why replicas behind it stay out of the in-sync sets of this node's volumes, if they do.
    #[serde(default)]
    pub kept_out: Option<KeptOut>,
    /// The last ten minutes, a point for each ten seconds, oldest first.
    #[serde(default)]
    pub history: Vec<RoundTrip>,
    /// Its last changes since the node was started, oldest first.
    #[serde(default)]
    pub changes: Vec<LinkChange>,
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
    /// The longest median that is as it should be, in microseconds; 0 when not known.
    #[serde(default)]
    pub max_rtt_us: u64,
    /// What is done about it when it is too slow.
    #[serde(default)]
    pub action: LinkAction,
    /// Why replicas behind it stay out of the in-sync sets, if they do.
    #[serde(default)]
    pub kept_out: Option<KeptOut>,
    /// The last ten minutes, a point for each ten seconds, oldest first.
    #[serde(default)]
    pub history: Vec<RoundTrip>,
}

/// The links between the data domains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkList {
    /// The links, each once.
    pub items: Vec<Link>,
    /// How far this can be trusted.
    pub observed: Observed,
}

//! The audit trail: who did what, when and why.

use crate::links::LinkChange;
use crate::observed::Observed;
use serde::{Deserialize, Serialize};

/// Something that an operator, or a node by itself, changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its place in the order of all changes; rises.
    pub revision: u64,
    /// When, in ms since 1970 by the clock of the node that was asked.
    pub at_ms: u64,
    /// Who: `operator`, or a node's name.
    pub who: String,
    /// Why, as they said; empty when they did not.
    pub why: String,
    /// What was done.
    pub what: String,
    /// BLAKE3 of the digest of the event before and of this one, in hex; none for what was before events had digests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// A link between two data domains went over into another state. Measured by a node, and kept by nobody else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkEvent {
    /// The node that measures it.
    pub from: String,
    /// The other node.
    pub to: String,
    /// What happened.
    #[serde(flatten)]
    pub change: LinkChange,
}

/// Events, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventList {
    /// The events.
    pub items: Vec<Event>,
    /// The oldest revision from which nothing is missing: what was before it is no longer kept.
    pub complete_from: u64,
    /// Changes of the links between the data domains, as the nodes that answer have seen them since they were started, oldest first.
    #[serde(default)]
    pub links: Vec<LinkEvent>,
    /// The revision of the first event that is not what its digest says, or does not follow the one before it; none: the trail is whole.
    #[serde(default)]
    pub broken_at: Option<u64>,
    /// How far this can be trusted.
    pub observed: Observed,
}

//! The links to the other nodes: each is probed once a second, by a call that goes the way of all others, and judged by what the last probes say.
//!
//! A link that is too slow is reported: its state, with the reason and since when, here, in the API and in the metrics, and one line in the log
//! when it changes. Nothing is done about it yet.

mod window;

pub use window::Limits;

use crate::api::access::now_ms;
use crate::peers::{Outlet, SERVICE_PROBE};
use bytes::Bytes;
use isthmus_api::{LinkRuntime, LinkState};
use isthmus_engine::NodeId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::MissedTickBehavior;
use window::Window;

/// How often a link is probed; for so long, too, an answer is waited for.
const PERIOD: Duration = Duration::from_secs(1);

/// What is known of a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkFigures {
    /// What it is like.
    pub state: LinkState,
    /// Why it is not good.
    pub reason: String,
    /// Since when, in ms since 1970.
    pub since_ms: u64,
    /// The round trips of the last 60 s.
    pub median: Option<Duration>,
    /// Their 99th percentile.
    pub percentile_99: Option<Duration>,
    /// Probes in that time.
    pub probes: usize,
    /// Of these, not answered.
    pub lost: usize,
    /// Probes since the node was started.
    pub probes_total: u64,
    /// Of these, not answered.
    pub lost_total: u64,
    /// When the last one was answered or given up, in ms since 1970.
    pub observed_at_ms: u64,
}

impl LinkFigures {
    /// Whether the peer answers.
    pub fn is_up(&self) -> bool {
        matches!(self.state, LinkState::Good | LinkState::LatencyExceeded)
    }

    /// Whether it is too slow.
    pub fn is_exceeded(&self) -> bool {
        self.state == LinkState::LatencyExceeded
    }
}

/// All links of this node. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Links(Arc<Mutex<BTreeMap<NodeId, LinkFigures>>>);

impl Links {
    /// Probes these peers from now on. Needs a running tokio runtime.
    pub fn follow(outlet: &Outlet, peers: impl Iterator<Item = NodeId>, limits: Limits) -> Links {
        let links = Links::default();
        for peer in peers {
            links.0.lock().insert(peer, LinkFigures::default());
            let prober = links
                .clone()
                .probe(outlet.clone(), peer, Window::new(limits));
            tokio::spawn(prober);
        }
        links
    }

    /// What is known of each.
    pub fn list(&self) -> Vec<(NodeId, LinkFigures)> {
        let links = self.0.lock();
        links
            .iter()
            .map(|(peer, figures)| (*peer, figures.clone()))
            .collect()
    }

    /// The same, as a node says it.
    pub fn runtime(&self, outlet: &Outlet) -> Vec<LinkRuntime> {
        let us = |took: Duration| u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let links = self.list().into_iter().map(|(peer, figures)| LinkRuntime {
            peer: peer.0,
            state: figures.state,
            reason: figures.reason,
            since_ms: figures.since_ms,
            p50_us: figures.median.map(us),
            p99_us: figures.percentile_99.map(us),
            probes: count(figures.probes),
            lost: count(figures.lost),
            transport_us: outlet
                .transport()
                .and_then(|transport| transport.round_trip(peer))
                .map(us),
            observed_at_ms: figures.observed_at_ms,
        });
        links.collect()
    }

    async fn probe(self, outlet: Outlet, peer: NodeId, mut window: Window) {
        let begun = Instant::now();
        let mut period = tokio::time::interval(PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            period.tick().await;
            let sent = Instant::now();
            let answer = outlet.call(peer, SERVICE_PROBE, Bytes::new(), PERIOD).await;
            let took = answer.ok().map(|_| sent.elapsed());
            self.note(peer, &mut window, sent.duration_since(begun), took);
        }
    }

    fn note(&self, peer: NodeId, window: &mut Window, at: Duration, took: Option<Duration>) {
        let changed = window.note(at, took);
        let (state, reason) = window.state();
        if changed {
            match state {
                LinkState::Good => tracing::info!(%peer, "the link to a peer is good"),
                LinkState::Down | LinkState::LatencyExceeded | LinkState::Unknown => {
                    tracing::warn!(%peer, ?state, reason, "the link to a peer is not as it should be");
                }
            }
        }
        let (probes, lost) = window.counts();
        let mut links = self.0.lock();
        let figures = links.entry(peer).or_default();
        *figures = LinkFigures {
            state,
            reason: reason.to_owned(),
            since_ms: if changed { now_ms() } else { figures.since_ms },
            median: window.percentile(50),
            percentile_99: window.percentile(99),
            probes,
            lost,
            probes_total: figures.probes_total + 1,
            lost_total: figures.lost_total + u64::from(took.is_none()),
            observed_at_ms: now_ms(),
        };
    }
}

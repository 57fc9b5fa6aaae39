//! The links to the other nodes: each is probed once a second, by a call that goes the way of all others, and judged by what the last probes say.
//!
//! A link that is too slow is reported: its state, with the reason and since when, here, in the API and in the metrics, and one line in the log
//! when it changes. What else is done about it the configuration says (`docs/decisions/0022-latency-fence.md`): `refuse-new` is up to whoever
//! is asked to create a volume (`api/links.rs`); for `degrade` the data path is told here which peers' links are too slow.
//!
//! Modules: `window` (what the last probes say), `fence` (for how long replicas stay out), `history`, `admission` (first of all).

mod admission;
mod fence;
mod history;
mod window;

pub use window::Limits;

use crate::api::access::now_ms;
use crate::peers::{Outlet, SERVICE_PROBE};
use crate::serve::DataPath;
use bytes::Bytes;
use fence::Fence;
use history::History;
use isthmus_api::{KeptOut, LinkAction, LinkChange, LinkRuntime, LinkState};
use isthmus_engine::NodeId;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::MissedTickBehavior;
use window::Window;

/// How often a link is probed; for so long, too, an answer is waited for.
const PERIOD: Duration = Duration::from_secs(1);

/// What is done about links that are too slow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actions {
    /// What.
    pub action: LinkAction,
    /// For how long a link has to be good again before replicas behind it come back.
    pub hold_down: Duration,
    /// The peers behind whose links volumes may have replicas: the data nodes of the other data domains. None on a witness.
    pub across: BTreeSet<NodeId>,
}

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
    /// Why replicas behind it stay out of the in-sync sets, if they do.
    pub kept_out: Option<KeptOut>,
    /// Its past.
    pub history: History,
}

impl LinkFigures {
    /// Whether the peer answers.
    pub fn is_up(&self) -> bool {
        matches!(self.state, LinkState::Good | LinkState::LatencyExceeded)
    }

    /// For how long it has to stay good before replicas behind it come back; 0 while none stay out, none while it is not good.
    pub fn hold_down_seconds_left(&self) -> Option<u64> {
        let Some(kept_out) = &self.kept_out else {
            return Some(0);
        };
        kept_out.seconds_left(now_ms())
    }

    /// Whether it is too slow.
    pub fn is_exceeded(&self) -> bool {
        self.state == LinkState::LatencyExceeded
    }
}

/// All links of this node. Clones are the same.
#[derive(Clone)]
pub struct Links {
    known: Arc<Mutex<BTreeMap<NodeId, LinkFigures>>>,
    limits: Limits,
    actions: Arc<Actions>,
    data_path: Arc<dyn DataPath>,
}

/// A link that is being probed: what one task alone looks at.
struct Probed {
    peer: NodeId,
    window: Window,
    fence: Fence,
}

fn microseconds(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

impl Links {
    /// Probes these peers from now on, and tells the data path whose links are too slow. Needs a running tokio runtime.
    pub fn follow(
        outlet: &Outlet,
        peers: impl Iterator<Item = NodeId>,
        limits: Limits,
        actions: Actions,
        data_path: Arc<dyn DataPath>,
    ) -> Links {
        let links = Links {
            known: Arc::default(),
            limits,
            actions: Arc::new(actions),
            data_path,
        };
        for peer in peers {
            links.known.lock().insert(peer, LinkFigures::default());
            let probed = Probed {
                peer,
                window: Window::new(limits),
                fence: Fence::default(),
            };
            tokio::spawn(links.clone().probe(outlet.clone(), probed));
        }
        links
    }

    /// What is done about links that are too slow.
    pub fn action(&self) -> LinkAction {
        self.actions.action
    }

    /// What is known of each.
    pub fn list(&self) -> Vec<(NodeId, LinkFigures)> {
        let links = self.known.lock();
        links
            .iter()
            .map(|(peer, figures)| (*peer, figures.clone()))
            .collect()
    }

    /// The same, as a node says it.
    pub fn runtime(&self, outlet: &Outlet) -> Vec<LinkRuntime> {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let links = self.list().into_iter().map(|(peer, figures)| LinkRuntime {
            peer: peer.0,
            state: figures.state,
            reason: figures.reason,
            since_ms: figures.since_ms,
            p50_us: figures.median.map(microseconds),
            p99_us: figures.percentile_99.map(microseconds),
            probes: count(figures.probes),
            lost: count(figures.lost),
            transport_us: outlet
                .transport()
                .and_then(|transport| transport.round_trip(peer))
                .map(microseconds),
            observed_at_ms: figures.observed_at_ms,
            max_rtt_us: microseconds(self.limits.round_trip_max),
            action: self.actions.action,
            kept_out: figures.kept_out,
            history: figures.history.points(),
            changes: figures.history.changes(),
        });
        links.collect()
    }

    async fn probe(self, outlet: Outlet, mut probed: Probed) {
        let peer = probed.peer;
        let begun = Instant::now();
        let mut period = tokio::time::interval(PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            period.tick().await;
            let sent = Instant::now();
            let answer = outlet.call(peer, SERVICE_PROBE, Bytes::new(), PERIOD).await;
            let took = answer.ok().map(|_| sent.elapsed());
            self.note(&mut probed, sent.duration_since(begun), took);
        }
    }

    fn note(&self, probed: &mut Probed, at: Duration, took: Option<Duration>) {
        let Probed {
            peer,
            window,
            fence,
        } = probed;
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
        if self.actions.action == LinkAction::Degrade && self.actions.across.contains(peer) {
            *fence = fence.after(at, state, self.actions.hold_down);
        }
        let (probes, lost) = window.counts();
        let now_ms = now_ms();
        let mut links = self.known.lock();
        let figures = links.entry(*peer).or_default();
        figures.state = state;
        figures.reason = reason.to_owned();
        figures.median = window.percentile(50);
        figures.percentile_99 = window.percentile(99);
        (figures.probes, figures.lost) = (probes, lost);
        figures.probes_total += 1;
        figures.lost_total += u64::from(took.is_none());
        figures.observed_at_ms = now_ms;
        if changed {
            figures.since_ms = now_ms;
            figures.history.changed(LinkChange {
                at_ms: now_ms,
                state,
                reason: reason.to_owned(),
            });
        }
        figures.history.look(at, window);
        if self.keep_out(figures, *fence, now_ms) {
            tracing::warn!(%peer, kept_out = fence.keeps_out(), "replicas behind a link that is, or was, too slow");
            // Under the lock: the data path hears what came last, last.
            let slow = links.iter().filter(|(_, link)| link.kept_out.is_some());
            self.data_path
                .slow_peers(slow.map(|(peer, _)| *peer).collect());
        }
    }

    /// Notes what the fence says. Returns whether replicas begin or end to stay out.
    fn keep_out(&self, figures: &mut LinkFigures, fence: Fence, now_ms: u64) -> bool {
        let before = figures.kept_out.is_some();
        let hold_down_seconds = self.actions.hold_down.as_secs();
        if !fence.keeps_out() {
            if before {
                figures.history.changed(LinkChange {
                    at_ms: now_ms,
                    state: figures.state,
                    reason: format!(
                        "good for {hold_down_seconds} s: replicas behind it may come back"
                    ),
                });
            }
            figures.kept_out = None;
            return before;
        }
        let kept_out = figures.kept_out.get_or_insert_with(|| KeptOut {
            since_ms: now_ms,
            reason: figures.reason.clone(),
            good_since_ms: None,
            hold_down_seconds,
        });
        kept_out.good_since_ms = match fence {
            Fence::Open | Fence::Shut => None,
            Fence::HeldDown { since, seen } if since == seen => Some(now_ms),
            Fence::HeldDown { .. } => kept_out.good_since_ms.or(Some(now_ms)),
        };
        !before
    }
}

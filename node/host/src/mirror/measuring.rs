//! What is counted and timed on the way (`crate::figures`).
//!
//! A secondary says with each acknowledgement how long the newest record in it took in its journal. The primary knows when it ordered
//! that record; what is left of the time between was spent on the wire and in queues.

use super::Mirror;
use crate::figures::{EpochChange, Figures, VolumeFigures};
use crate::output::ClientRequest;
use crate::wire;
use isthmus_engine::{Message, NodeId, Seq, Time, View};
use std::collections::BTreeMap;
use std::time::Duration;

/// A replica looks whether it is frozen at each tick, of which there are ten a second: with a gap of this length between two looks
/// there are two freezes.
const GAP: Duration = Duration::from_secs(1);

/// What kind of request it is that a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
    Trim,
    Flush,
    /// Not counted.
    Other,
}

/// A request's kind, and the bytes that it is about.
pub(super) fn kind_of(request: &ClientRequest) -> (Kind, u64) {
    match request {
        ClientRequest::Read { length, .. } => (Kind::Read, *length),
        ClientRequest::Write { data, .. } => (Kind::Write, data.len() as u64),
        ClientRequest::Zero { length, .. } | ClientRequest::Trim { length, .. } => {
            (Kind::Trim, *length)
        }
        ClientRequest::Flush => (Kind::Flush, 0),
        ClientRequest::Durably(request) => kind_of(request),
        ClientRequest::Status { .. } => (Kind::Other, 0),
    }
}

/// The figures of a replica, and what is needed to note them.
#[derive(Debug, Default)]
pub(super) struct Measures {
    figures: Box<Figures>,
    /// How long the newest record took that was confirmed last, in this node's journal.
    pub(super) took: Duration,
    /// Up to where each member's acknowledgements are in the figures.
    acknowledged: BTreeMap<NodeId, Seq>,
    /// The freeze that was seen last: since when, and when it was looked at last.
    freeze: Option<(Time, Time)>,
}

impl Measures {
    /// A client's request was answered.
    pub(super) fn note_served(&mut self, (kind, bytes): (Kind, u64), took: Duration, well: bool) {
        if !well {
            self.figures.failed += 1;
            return;
        }
        let served = match kind {
            Kind::Read => &mut self.figures.reads,
            Kind::Write => &mut self.figures.writes,
            Kind::Trim => &mut self.figures.trims,
            Kind::Flush => &mut self.figures.flushes,
            Kind::Other => return,
        };
        served.bytes += bytes;
        served.latency.note(took);
    }

    /// The journal has made a record durable.
    pub(super) fn note_durable(&mut self, took: Duration) {
        self.took = took;
        self.figures.journal.note(took);
    }

    /// Whether requests can be answered was looked at.
    fn note_frozen(&mut self, now: Time, frozen: bool) {
        match self.freeze {
            Some((since, seen)) if frozen && now.since(seen) <= GAP => {
                self.freeze = Some((since, now));
            }
            Some((since, seen)) => {
                self.figures.frozen += seen.since(since);
                self.freeze = frozen.then_some((now, now));
            }
            None => self.freeze = frozen.then_some((now, now)),
        }
    }

    fn frozen(&self) -> Duration {
        let present = self
            .freeze
            .map_or(Duration::ZERO, |(since, seen)| seen.since(since));
        self.figures.frozen + present
    }
}

impl<R> Mirror<R> {
    /// For how long it has been frozen, if it is.
    pub(super) fn frozen_for(&self, now: Time) -> Option<Duration> {
        if !self.engine.is_frozen(now) {
            return None;
        }
        let since = self.measures.freeze.map_or(now, |(since, _)| since);
        Some(now.since(since))
    }

    /// Time has passed: is it frozen?
    pub(super) fn measure_frozen(&mut self, now: Time) {
        self.measures.note_frozen(now, self.engine.is_frozen(now));
    }

    /// A view comes that may have another epoch.
    pub(super) fn measure_view(&mut self, view: &View) {
        let old = self.engine.view().map(|old| &old.configuration);
        let change = old.and_then(|old| EpochChange::between(old, &view.configuration));
        if let Some(change) = change {
            self.measures.figures.epoch_changes[change as usize] += 1;
        }
    }

    /// A member has a record; `rest` is what follows the message in its frame.
    pub(super) fn measure_acknowledged(
        &mut self,
        now: Time,
        from: NodeId,
        message: &Message,
        rest: &[u8],
    ) {
        let (Message::Acked { durable: seq, .. } | Message::Held { held: seq, .. }) = *message
        else {
            return;
        };
        let Some(ordered) = self.doubtful(seq).and_then(|doubtful| doubtful.ordered) else {
            return;
        };
        let known = self.measures.acknowledged.entry(from).or_insert(Seq::ZERO);
        if seq == *known {
            return;
        }
        *known = seq;
        let Some(journal) = wire::took(rest) else {
            return;
        };
        let whole = now.since(ordered);
        let figures = &mut self.measures.figures;
        figures.peer_journal.note(journal.min(whole));
        figures.wire.note(whole.saturating_sub(journal));
    }

    /// The replica in figures.
    #[must_use]
    pub fn figures(&self, now: Time) -> VolumeFigures {
        let mut figures = Figures::clone(&self.measures.figures);
        figures.frozen = self.measures.frozen();
        let since = self.measures.freeze.filter(|_| self.engine.is_frozen(now));
        VolumeFigures {
            status: self.status(now),
            figures,
            in_flight: self.requests.len(),
            oldest: self
                .requests
                .first_key_value()
                .map_or(Duration::ZERO, |(_, request)| now.since(request.since())),
            frozen_for: since.map_or(Duration::ZERO, |(since, _)| now.since(since)),
        }
    }
}

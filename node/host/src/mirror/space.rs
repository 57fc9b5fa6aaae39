//! Space before it is needed: a write that needs slots is let in only when these are reserved beyond what writes under way may need
//! (fault row 14). So a committed record finds its space, here and at every member that acknowledged it.

use super::{Context, Mirror, fault};
use crate::output::{ClientError, Lane, OutgoingFrame};
use crate::status::FaultKind;
use crate::wire::{Copying, TAG_COPY, encode_value};
use bytes::Bytes;
use isthmus_engine::{BlockRange, NodeId, Position, RecordKind, Seq, Time};
use isthmus_journal::Disk;
use isthmus_volume::EXTENT_BLOCKS;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long members have to say whether they have room.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// Slots that a primary's question may make a member reserve, beyond its own needs.
const SLOTS_ASKED_MAX: u32 = 1024;
/// For how long their answers are believed.
const BELIEVED: Duration = Duration::from_secs(3);

/// What is known of this replica's space.
#[derive(Debug, Default)]
pub(super) struct Space {
    /// Slots to be reserved, with those for what is under way.
    wanted: u32,
    /// Since when they can't be.
    pub short_since: Option<Time>,
    next_try: Time,
    /// A primary's question to its members, and who answered that it is short.
    asked: Option<(Time, BTreeMap<NodeId, bool>)>,
    /// Who waits for an answer from here.
    askers: BTreeSet<NodeId>,
    /// The last record for which space was looked for although there was none a moment ago.
    looked_for: Option<Position>,
}

impl Space {
    /// There is room.
    pub(super) fn found(&mut self) {
        self.short_since = None;
        self.asked = None;
    }

    /// Whether space is to be looked for once more, for this record: true once.
    pub(super) fn looks_again_for(&mut self, record: Position) -> bool {
        self.looked_for.replace(record) != Some(record)
    }

    pub(super) fn note_answer(&mut self, from: NodeId, short: bool) {
        if let Some((_, answers)) = &mut self.asked {
            answers.insert(from, short);
        }
    }

    pub(super) fn next_look(&self) -> Option<Time> {
        self.short_since.map(|_| self.next_try)
    }
}

/// What becomes of a write that finds no reserved space.
enum Verdict {
    Wait,
    Refuse,
    /// Another member has room: it shall serve.
    StepDown,
}

fn extents(range: BlockRange) -> impl Iterator<Item = u64> {
    range.start / EXTENT_BLOCKS..=(range.end() - 1) / EXTENT_BLOCKS
}

impl<R> Mirror<R> {
    /// Slots that records under way and writes of `more` may still need, at most.
    pub(super) fn slots_needed(&self, more: &[BlockRange]) -> u32 {
        let under_way = self
            .window
            .iter()
            .map(|doubtful| doubtful.entry)
            .chain(self.applying.iter().map(|applying| applying.entry));
        let writes = under_way
            .filter(|entry| entry.kind == RecordKind::Write)
            .map(|entry| entry.range);
        let merges = self.merges.values().map(|merge| merge.range());
        let all: BTreeSet<u64> = writes
            .chain(merges)
            .chain(more.iter().copied())
            .flat_map(extents)
            .collect();
        let clearing = self.clears_are_under_way();
        let needed = all
            .into_iter()
            .filter(|extent| clearing || !self.store.has_slot_for(extent * EXTENT_BLOCKS));
        u32::try_from(needed.count()).unwrap_or(u32::MAX)
    }

    /// Whether a slot that is in use now may be given back by a record that is not applied yet.
    fn clears_are_under_way(&self) -> bool {
        let applied = self
            .applying
            .front()
            .map_or(self.engine.log().committed(), |applying| {
                Seq(applying.entry.position.seq.0 - 1)
            });
        self.last_clear > applied
    }

    /// Whether writes of these blocks are sure to find their space.
    pub(super) fn has_space_for(&self, ranges: &[BlockRange]) -> bool {
        let mapped = |extent: u64| self.store.has_slot_for(extent * EXTENT_BLOCKS);
        (!self.clears_are_under_way() && ranges.iter().copied().flat_map(extents).all(mapped))
            || self.slots_needed(ranges) <= self.store.slots_ready()
    }

    /// Wants space for these blocks to be reserved.
    pub(super) fn want_space_for(&mut self, ranges: &[BlockRange]) {
        self.space.wanted = self.space.wanted.max(self.slots_needed(ranges));
        self.store_busy = true;
    }

    /// A member's primary wants to know whether there is room here.
    pub(super) fn space_asked(&mut self, from: NodeId, theirs: u32) {
        self.space.askers.insert(from);
        // Some records are counted on both sides: what matters is that none is on neither.
        let slots = self.slots_needed(&[]) + theirs.min(SLOTS_ASKED_MAX) + fault::SLOTS_AGAIN;
        self.space.wanted = self.space.wanted.max(slots);
        self.store_busy = true;
    }

    /// Whether the next checkpoint may give space back that is missing now: worth a moment.
    pub(super) fn space_may_come(&self, context: &Context<'_, R>) -> bool {
        let since = self.space.short_since.unwrap_or(context.now);
        context.now.since(since) < ANSWER_WITHIN
            && (self.store.wants_checkpoint() || self.checkpoint.is_running())
    }

    /// Whether something waits for space to be reserved.
    #[must_use]
    pub fn wants_space(&self) -> bool {
        self.space.wanted > 0 && self.fault.is_none()
    }

    /// Reserves what is wanted, and looks again where it could not be had.
    pub fn look_at_space<D: Disk>(&mut self, context: &mut Context<'_, R>, disk: &mut D) {
        let again = self.space.short_since.is_some() && context.now >= self.space.next_try;
        if again {
            self.space.wanted = self
                .space
                .wanted
                .max(self.slots_needed(&[]) + fault::SLOTS_AGAIN);
        }
        if self.space.wanted == 0 || self.fault.is_some() {
            return;
        }
        let wanted = std::mem::take(&mut self.space.wanted);
        match self.store.reserve(wanted, disk) {
            Ok(()) if self.space.short_since.is_some() => {
                // What a single write wanted may fit where there is no room to speak of.
                if again {
                    self.space.found();
                    context
                        .outputs
                        .events
                        .push((self.volume, "space is back: writes are taken again".into()));
                }
            }
            Ok(()) => {}
            Err(error) if fault::kind_of(&error) == FaultKind::Full => {
                self.space.next_try = context.now + fault::AGAIN;
                if self.space.short_since.is_none() {
                    self.space.short_since = Some(context.now);
                    context.outputs.events.push((
                        self.volume,
                        format!("no space: {wanted} MiB can't be reserved for writes under way and to come: {error}"),
                    ));
                }
            }
            Err(error) => self.disk_failed(context, "no space can be reserved", &error),
        }
        self.answer_askers(context);
    }

    fn answer_askers(&mut self, context: &mut Context<'_, R>) {
        let short = self.space.short_since.is_some();
        for to in std::mem::take(&mut self.space.askers) {
            let frame = self.copying_frame(to, &Copying::Space { short }, Bytes::new());
            context.outputs.frames.push(frame);
        }
    }

    pub(super) fn copying_frame(
        &self,
        to: NodeId,
        copying: &Copying,
        body: Bytes,
    ) -> OutgoingFrame {
        OutgoingFrame {
            to,
            volume: self.volume,
            lane: Lane::Resync,
            head: encode_value(TAG_COPY, copying),
            body,
        }
    }

    /// A client's write has no reserved space. Returns whether it has to wait, or what it fails with.
    pub(super) fn without_space(
        &mut self,
        context: &mut Context<'_, R>,
        ranges: &[BlockRange],
    ) -> Option<ClientError> {
        match self.space_verdict(context, ranges) {
            Verdict::Wait => None,
            Verdict::Refuse => Some(ClientError::NoSpace(
                "no space: neither this node nor another in-sync one can hold more data of this volume; free space there, or trim"
                    .into(),
            )),
            Verdict::StepDown => {
                let reason = "the disk of this node is full, and another in-sync replica has room; free space: the replica then comes back by itself";
                self.fail(context, FaultKind::Full, reason.into());
                Some(ClientError::NotServed(reason.into()))
            }
        }
    }

    fn space_verdict(&mut self, context: &mut Context<'_, R>, ranges: &[BlockRange]) -> Verdict {
        if self.space.short_since.is_none() {
            self.want_space_for(ranges);
            return Verdict::Wait;
        }
        if self.space_may_come(context) {
            return Verdict::Wait;
        }
        let members = self.engine.members_in_reach();
        if members.is_empty() {
            return Verdict::Refuse;
        }
        if let Some((at, answers)) = &self.space.asked
            && context.now.since(*at) < BELIEVED
        {
            if answers.values().any(|short| !short) {
                return Verdict::StepDown;
            }
            let all = members.iter().all(|member| answers.contains_key(member));
            if all || context.now.since(*at) >= ANSWER_WITHIN {
                return Verdict::Refuse;
            }
            return Verdict::Wait;
        }
        for member in members {
            let slots = self.slots_needed(ranges);
            let frame = self.copying_frame(member, &Copying::AskSpace { slots }, Bytes::new());
            context.outputs.frames.push(frame);
        }
        self.space.asked = Some((context.now, BTreeMap::new()));
        Verdict::Wait
    }
}

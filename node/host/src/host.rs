//! The host: the volumes of one node, their journal, and the loop that lets them go on. How they are found at a start: `opening`.

mod closed;
mod measured;
mod opening;
mod schedule;
mod scrub;

use crate::lives::{Lives, owner_of};
use crate::mirror::{Context, Course, Mirror, Recovering};
use crate::output::{ClientError, ClientRequest, Lane, Outcome, Outputs};
use crate::pace::Pace;
use crate::status::{FaultKind, VolumeStatus};
use crate::wire::Malformed;
use bytes::Bytes;
use closed::answer_for_closed;
use isthmus_catalog::{Catalog, DomainState, Durability, Handover, OnPeerLoss, VolumeRecord};
use isthmus_engine::{
    Configuration, Epoch, Incarnation, NodeId, ReplicaId, Settings, Time, View, VolumeId,
};
use isthmus_journal::{Disk, Journal, JournalError, Lsn, OpId, Shape};
use opening::{Folders, give_journal_up};
use schedule::Schedule;
pub use scrub::ScrubPace;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;

const JOURNAL_FOLDER: &str = "journal";
const JOURNAL_TAG: u16 = 1;
const FIRST_VOLUME_TAG: u16 = 16;
/// The journal is kept emptier than this part of it, by checkpoints of whoever holds its oldest segment.
const JOURNAL_FILL_PERCENT: u64 = 50;
/// Writes of the journal under way at a time: while one is made durable, the next is on its way to the disk.
const JOURNAL_GROUPS_IN_FLIGHT: u32 = 2;
/// Rounds of one [`Host::run`]: a bound, so that the caller's other inputs are seen.
const ROUNDS_MAX: usize = 64;

/// Who this host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its node.
    pub node: NodeId,
    /// The incarnation of its store (I12).
    pub incarnation: Incarnation,
}

/// Why a host can't start.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The journal.
    #[error("the journal of volume writes: {0}")]
    Journal(#[from] JournalError),
    /// The disk.
    #[error("the data directory: {0}")]
    Disk(#[from] io::Error),
}

/// The volumes of one node. `R` is how the caller names a client's request.
#[derive(Debug)]
pub struct Host<D: Disk, R> {
    me: ReplicaId,
    settings: Settings,
    disk: D,
    journal: Journal,
    journal_reserve: u64,
    unsettled: VecDeque<(Lsn, VolumeId)>,
    unwritten: VecDeque<(Lsn, VolumeId)>,
    mirrors: BTreeMap<VolumeId, Mirror<R>>,
    schedule: Schedule,
    /// Replicas that could not be opened, with why.
    closed: BTreeMap<VolumeId, String>,
    tags: BTreeMap<u16, VolumeId>,
    next_tag: u16,
    lives: Lives,
    catalog: Arc<Catalog>,
    sessions: BTreeSet<NodeId>,
    /// Peers whose links are too slow for members behind them.
    slow: BTreeSet<NodeId>,
    completions: Vec<(OpId, io::Result<isthmus_journal::Done>)>,
    pace: Pace,
    journal_failed: bool,
    /// Replicas whose extents are damaged: they are made anew once the set is without them.
    damaged: BTreeSet<VolumeId>,
    /// What opening found, for the log.
    announced: Vec<(VolumeId, String)>,
    scrub: ScrubPace,
    next_scrub: Time,
    /// Whose turn it is.
    scrubbed: VolumeId,
}

pub(crate) fn folder(volume: VolumeId) -> String {
    format!("volumes/{}", volume.0)
}

macro_rules! context {
    ($host:ident, $now:ident, $outputs:ident) => {
        &mut Context {
            now: $now,
            journal: &mut $host.journal,
            unsettled: &mut $host.unsettled,
            unwritten: &mut $host.unwritten,
            outputs: $outputs,
            catalog: &$host.catalog,
            journal_reserve: $host.journal_reserve,
            pace: &mut $host.pace,
        }
    };
}

impl<D: Disk, R> Host<D, R> {
    /// Opens the data directory: formats a new one, recovers an old one.
    ///
    /// # Errors
    /// When the journal or the directory can't be opened. A single volume that can't is left closed, and says so in its status.
    pub fn open(
        mut disk: D,
        identity: Identity,
        settings: Settings,
        shape: Shape,
        now: Time,
    ) -> Result<Host<D, R>, HostError> {
        let me = ReplicaId {
            node: identity.node,
            incarnation: identity.incarnation,
        };
        if disk.list(JOURNAL_FOLDER)?.is_empty() {
            Journal::format(&mut disk, JOURNAL_FOLDER, shape, identity.incarnation.0)?;
        }
        let mut announced = Vec::new();
        let mut folders = Folders::open(&mut disk, me, settings, FIRST_VOLUME_TAG)?;
        let mut journal = match folders.replay(&mut disk) {
            Err(
                error @ (JournalError::Damaged { .. }
                | JournalError::BadDescription { .. }
                | JournalError::NotFormatted { .. }),
            ) => {
                give_journal_up(&mut disk, &error, &mut announced)?;
                Journal::format(&mut disk, JOURNAL_FOLDER, shape, identity.incarnation.0)?;
                // A part of it was replayed already: from the beginning, and without.
                folders = Folders::open(&mut disk, me, settings, folders.next_tag)?;
                folders.replay(&mut disk)?
            }
            opened => opened?,
        };
        let Folders {
            recovering,
            closed,
            damaged,
            tags,
            next_tag,
            lives,
        } = folders;
        let mirrors: BTreeMap<VolumeId, Mirror<R>> = recovering
            .into_iter()
            .map(|(number, mirror)| {
                let mirror = mirror.finish(me, settings, now, &mut announced);
                (VolumeId(number), mirror)
            })
            .collect();
        journal.set_groups_in_flight(JOURNAL_GROUPS_IN_FLIGHT);
        let journal_reserve = journal.capacity_bytes() / 4;
        let mut schedule = Schedule::default();
        schedule.wake_all(mirrors.keys().copied());
        Ok(Host {
            me,
            settings,
            disk,
            journal,
            journal_reserve,
            unsettled: VecDeque::new(),
            unwritten: VecDeque::new(),
            mirrors,
            schedule,
            closed,
            tags,
            next_tag,
            lives,
            catalog: Arc::default(),
            sessions: BTreeSet::new(),
            slow: BTreeSet::new(),
            completions: Vec::new(),
            pace: Pace::default(),
            journal_failed: false,
            damaged,
            announced,
            scrub: ScrubPace::default(),
            next_scrub: now,
            scrubbed: VolumeId(0),
        })
    }

    /// The replica that this host keeps of each volume, by its identity.
    #[must_use]
    pub fn me(&self) -> ReplicaId {
        self.me
    }

    /// The mirrors, to look at.
    #[must_use]
    pub fn mirrors(&self) -> &BTreeMap<VolumeId, Mirror<R>> {
        &self.mirrors
    }

    /// The disk, to look at, or to let its time pass.
    pub fn disk_mut(&mut self) -> &mut D {
        &mut self.disk
    }

    /// Gives the disk back, as a crash leaves it.
    #[must_use]
    pub fn into_disk(self) -> D {
        self.disk
    }

    /// kvdb has committed something: makes, removes and informs replicas. To be called only from when kvdb has noted this start of
    /// the node (`NodeStarted`) on.
    pub fn on_catalog(&mut self, now: Time, catalog: Arc<Catalog>, outputs: &mut Outputs<R>) {
        self.catalog = Arc::clone(&catalog);
        let gone: Vec<VolumeId> = self
            .mirrors
            .keys()
            .chain(self.closed.keys())
            .filter(|volume| catalog.was_deleted(**volume) || self.was_removed(&catalog, **volume))
            .copied()
            .collect();
        for volume in gone {
            self.remove(volume, outputs);
        }
        for (volume, record) in &catalog.volumes {
            if !record.replicas.contains(&self.me.node) {
                continue;
            }
            // Neither in the set, nor in one that kvdb may go back to (I3), nor to be chosen where a loss is accepted.
            if self.damaged.contains(volume)
                && !catalog.unproven.contains(volume)
                && !record.in_sync.contains(&self.me)
                && !record.opened_set.contains(&self.me)
                && !record.complete.contains(&self.me)
            {
                self.remove_damaged(*volume, outputs);
            }
            // While no set counts, it is not known what was here.
            let counts = !catalog.unproven.contains(volume);
            if counts && !self.mirrors.contains_key(volume) && !self.closed.contains_key(volume) {
                self.create(now, *volume, record, outputs);
            }
            let course = course(&catalog, *volume, self.me);
            if let Some(mirror) = self.mirrors.get_mut(volume) {
                mirror.on_size(record.bytes);
                if mirror.course() != course {
                    self.schedule.wake(*volume);
                }
                mirror.on_course(context!(self, now, outputs), course);
            }
            let view = view(&catalog, *volume, record);
            if let Some(mirror) = self.mirrors.get_mut(volume)
                && mirror.engine().view().is_none_or(|old| *old != view)
                && mirror
                    .engine()
                    .view()
                    .is_none_or(|old| old.configuration.epoch <= view.configuration.epoch)
            {
                self.schedule.wake(*volume);
                // Where no set counts, nothing is known of what was served.
                let never_served = !record.served && !catalog.unproven.contains(volume);
                mirror.on_view(context!(self, now, outputs), view, never_served);
            }
        }
    }

    /// Whether the replica here was removed from its volume.
    fn was_removed(&self, catalog: &Catalog, volume: VolumeId) -> bool {
        let mirror = self.mirrors.get(&volume);
        // One that can't be opened takes part in nothing.
        let taken = mirror.map_or(Epoch::ZERO, |mirror| mirror.engine().configuration().epoch);
        catalog.is_removed_from(volume, self.me.node, taken)
    }

    fn create(
        &mut self,
        now: Time,
        volume: VolumeId,
        record: &VolumeRecord,
        outputs: &mut Outputs<R>,
    ) {
        let folder = folder(volume);
        if record.served && record.in_sync.contains(&self.me) {
            let reason = format!(
                "kvdb counts the replica on this node as in sync, but {folder} is not there: it was lost. Empty the data directory, so that the node comes back as a new replica"
            );
            outputs.events.push((volume, format!("STOPPED: {reason}")));
            self.closed.insert(volume, reason);
            return;
        }
        let life = self.lives.fresh(volume);
        let made = Recovering::<R>::format(&mut self.disk, &folder, volume, life, record.bytes)
            .and_then(|()| {
                Recovering::open(
                    &mut self.disk,
                    &folder,
                    self.next_tag,
                    self.me,
                    self.settings,
                )
            });
        match made {
            Ok(mirror) => {
                let mut mirror = mirror.finish(self.me, self.settings, now, &mut outputs.events);
                for peer in self.sessions.clone() {
                    mirror.on_session_up(context!(self, now, outputs), peer);
                }
                mirror.on_slow_peers(context!(self, now, outputs), &self.slow);
                self.tags.insert(self.next_tag, volume);
                self.mirrors.insert(volume, mirror);
                self.schedule.wake(volume);
            }
            Err(error) => {
                outputs
                    .events
                    .push((volume, format!("the replica could not be made: {error}")));
                self.closed.insert(volume, error.to_string());
            }
        }
        self.next_tag = self
            .next_tag
            .checked_add(1)
            .expect("a node makes fewer than 65,000 replicas in one run");
    }

    /// The set is without a replica whose extents are damaged: it is made anew, and copied.
    fn remove_damaged(&mut self, volume: VolumeId, outputs: &mut Outputs<R>) {
        let reason = self.closed.get(&volume).cloned().unwrap_or_default();
        outputs
            .events
            .push((volume, format!("the replica is made anew: {reason}")));
        self.remove(volume, outputs);
    }

    fn remove(&mut self, volume: VolumeId, outputs: &mut Outputs<R>) {
        self.damaged.remove(&volume);
        if let Some(mirror) = self.mirrors.remove(&volume) {
            // Whoever still waits for an answer hears that it is gone, and connections to it are closed.
            let gone = |reply| (reply, Outcome::Failed(ClientError::NoReplica));
            outputs.replies.extend(mirror.into_unanswered().map(gone));
            outputs.demoted.push(volume);
        }
        self.schedule.forget(volume);
        self.closed.remove(&volume);
        self.tags.retain(|_, owner| *owner != volume);
        for stream in self.lives.streams(volume) {
            self.journal.release(stream, self.journal.next());
        }
        if let Err(error) = self.disk.remove(&folder(volume)) {
            outputs
                .events
                .push((volume, format!("its files could not be removed: {error}")));
        }
    }

    fn wake_all(&mut self) {
        self.schedule.wake_all(self.mirrors.keys().copied());
    }

    /// A session with a peer is up.
    pub fn on_session_up(&mut self, now: Time, peer: NodeId, outputs: &mut Outputs<R>) {
        self.sessions.insert(peer);
        self.wake_all();
        for mirror in self.mirrors.values_mut() {
            mirror.on_session_up(context!(self, now, outputs), peer);
        }
    }

    /// The session with a peer is gone. Frames that were received in it must not be given any more.
    pub fn on_session_down(&mut self, now: Time, peer: NodeId, outputs: &mut Outputs<R>) {
        self.sessions.remove(&peer);
        self.wake_all();
        for mirror in self.mirrors.values_mut() {
            mirror.on_session_down(context!(self, now, outputs), peer);
        }
    }

    /// The links to these peers are too slow for replicas behind them to stay in sync, those to all others are not. True from when it is
    /// said until something else is; a host that was just opened takes all links for fast enough.
    pub fn on_slow_peers(&mut self, now: Time, slow: &BTreeSet<NodeId>, outputs: &mut Outputs<R>) {
        self.slow.clone_from(slow);
        self.wake_all();
        for mirror in self.mirrors.values_mut() {
            mirror.on_slow_peers(context!(self, now, outputs), slow);
        }
    }

    /// A frame from a peer, over the session that is up.
    ///
    /// # Errors
    /// What is wrong with the frame; nothing has changed then.
    pub fn on_frame(
        &mut self,
        now: Time,
        from: NodeId,
        volume: VolumeId,
        lane: Lane,
        frame: &Bytes,
        outputs: &mut Outputs<R>,
    ) -> Result<(), Malformed> {
        self.schedule.wake(volume);
        match self.mirrors.get_mut(&volume) {
            Some(mirror) => mirror.on_frame(context!(self, now, outputs), from, lane, frame),
            None => match self.closed.get(&volume) {
                Some(reason) => answer_for_closed(volume, reason, from, lane, frame, outputs),
                // Not made yet, or gone already.
                None => Ok(()),
            },
        }
    }

    /// A client opens a volume here; answered with `Outcome::Attached` or why not.
    pub fn attach(&mut self, now: Time, volume: VolumeId, reply: R, outputs: &mut Outputs<R>) {
        self.attach_forwarded(now, volume, self.me.node, reply, outputs);
    }

    /// The same for a client that came to another node, which has no store and forwards it.
    pub fn attach_forwarded(
        &mut self,
        now: Time,
        volume: VolumeId,
        came_to: NodeId,
        reply: R,
        outputs: &mut Outputs<R>,
    ) {
        self.schedule.wake(volume);
        match self.mirrors.get_mut(&volume) {
            Some(mirror) => mirror.attach(context!(self, now, outputs), came_to, reply),
            None => {
                let error = self
                    .closed
                    .get(&volume)
                    .map_or(ClientError::NoReplica, |reason| {
                        ClientError::NotServed(reason.clone())
                    });
                outputs.replies.push((reply, Outcome::Failed(error)));
            }
        }
    }

    /// A client that was attached is gone.
    pub fn detach(&mut self, now: Time, volume: VolumeId, outputs: &mut Outputs<R>) {
        self.schedule.wake(volume);
        if let Some(mirror) = self.mirrors.get_mut(&volume) {
            mirror.detach(context!(self, now, outputs));
        }
    }

    /// An attached client asks for something.
    pub fn submit(
        &mut self,
        now: Time,
        volume: VolumeId,
        reply: R,
        request: ClientRequest,
        outputs: &mut Outputs<R>,
    ) {
        self.schedule.wake(volume);
        match self.mirrors.get_mut(&volume) {
            Some(mirror) => mirror.submit(context!(self, now, outputs), reply, request),
            None => outputs
                .replies
                .push((reply, Outcome::Failed(ClientError::NoReplica))),
        }
    }

    /// kvdb has answered a proposal: done, or refused or not reached.
    pub fn on_answer(&mut self, now: Time, volume: VolumeId, done: bool, outputs: &mut Outputs<R>) {
        self.schedule.wake(volume);
        if let Some(mirror) = self.mirrors.get_mut(&volume) {
            mirror.on_answer(context!(self, now, outputs), done);
        }
    }

    /// The answer to `Outputs::confirm`: the catalog as a linearizable read found it that was begun at `begun`; none when kvdb
    /// could not be asked.
    pub fn on_confirmed(
        &mut self,
        now: Time,
        begun: Time,
        catalog: Option<&Catalog>,
        outputs: &mut Outputs<R>,
    ) {
        self.wake_all();
        for (volume, mirror) in &mut self.mirrors {
            let epoch = mirror.engine().configuration().epoch;
            let record = catalog.and_then(|catalog| catalog.volumes.get(volume));
            let confirmed = record
                .is_some_and(|record| record.epoch == epoch && record.primary == Some(self.me));
            mirror.on_confirmed(context!(self, now, outputs), begun, confirmed);
        }
    }

    /// When to call [`Host::run`] at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let scrub = self.schedule.scrubs.first();
        let scrub = scrub.filter(|_| self.scrub.bytes_per_second > 0);
        let awake = self.schedule.awake();
        awake
            .filter_map(|volume| self.mirrors.get(&volume)?.deadline())
            .chain(self.schedule.ticks.first())
            .chain(scrub.map(|due| due.max(self.next_scrub)))
            .min()
    }

    /// Lets everything go on that can: journal, extents, timers. Call it after each batch of inputs: what came in together is
    /// made durable together. Returns whether it may go on at once.
    pub fn run(&mut self, now: Time, outputs: &mut Outputs<R>) -> bool {
        outputs.events.append(&mut self.announced);
        self.scrub(now);
        self.schedule.wake_due(now);
        self.each_awake(|host, volume| {
            if let Some(mirror) = host.mirrors.get_mut(&volume)
                && mirror.deadline().is_some_and(|deadline| deadline <= now)
            {
                mirror.on_tick(context!(host, now, outputs));
            }
        });
        let mut at_once = true;
        for _ in 0..ROUNDS_MAX {
            self.journal.step(&mut self.disk);
            let mut busy = self.step_stores(now, outputs);
            busy |= self.take_completions(now, outputs);
            if !busy {
                at_once = false;
                break;
            }
        }
        at_once |= self.make_room(now, outputs);
        self.let_sleep();
        at_once
    }

    /// Calls `act` for each volume that is awake, in order, those included that it wakes behind the present one.
    fn each_awake(&mut self, mut act: impl FnMut(&mut Host<D, R>, VolumeId)) {
        let mut last = None;
        while let Some(volume) = self.schedule.next_awake(last) {
            act(self, volume);
            last = Some(volume);
        }
    }

    fn step_stores(&mut self, now: Time, outputs: &mut Outputs<R>) -> bool {
        let mut busy = false;
        self.each_awake(|host, volume| {
            if let Some(mirror) = host.mirrors.get_mut(&volume) {
                busy |= mirror.step_store(context!(host, now, outputs), &mut host.disk);
            }
        });
        busy
    }

    /// Who has nothing to do for now is left alone until something is handed to it, or its time comes.
    fn let_sleep(&mut self) {
        for volume in self.schedule.take_awake() {
            let Some(mirror) = self.mirrors.get(&volume) else {
                continue;
            };
            self.schedule.ticks.set(volume, mirror.deadline());
            self.schedule.scrubs.set(volume, mirror.next_scrub());
            if mirror.is_awake() {
                self.schedule.wake(volume);
            }
        }
    }

    fn take_completions(&mut self, now: Time, outputs: &mut Outputs<R>) -> bool {
        let mut completions = std::mem::take(&mut self.completions);
        self.disk.completed(&mut completions);
        let any = !completions.is_empty();
        for (id, result) in completions.drain(..) {
            if id.tag() == JOURNAL_TAG {
                if let Err(error) = self.journal.on_completed(id, result) {
                    self.journal_broke(now, &error, outputs);
                }
            } else if let Some(volume) = self.tags.get(&id.tag()).copied()
                && let Some(mirror) = self.mirrors.get_mut(&volume)
            {
                self.schedule.wake(volume);
                mirror.on_disk(id, result);
            }
        }
        self.completions = completions;
        if any {
            self.each_awake(|host, volume| {
                if let Some(mirror) = host.mirrors.get_mut(&volume) {
                    mirror.disk_may_take_more();
                }
            });
        }
        let durable = self.journal.durable();
        for volume in settled(&mut self.unsettled, durable) {
            self.schedule.wake(volume);
            if let Some(mirror) = self.mirrors.get_mut(&volume) {
                mirror.on_durable(context!(self, now, outputs), durable);
            }
        }
        let written = self.journal.written();
        for volume in settled(&mut self.unwritten, written) {
            self.schedule.wake(volume);
            if let Some(mirror) = self.mirrors.get_mut(&volume) {
                mirror.on_written(context!(self, now, outputs), written);
            }
        }
        any
    }

    fn journal_broke(&mut self, now: Time, error: &JournalError, outputs: &mut Outputs<R>) {
        if std::mem::replace(&mut self.journal_failed, true) {
            return;
        }
        self.wake_all();
        for mirror in self.mirrors.values_mut() {
            let reason = format!("{error}; look at the disk, then restart the node");
            mirror.fail(context!(self, now, outputs), FaultKind::Failing, reason);
        }
    }

    /// Checkpoints whoever keeps the journal from recycling, and lets clients go on that waited for room. Returns whether that has brought
    /// something that is to go on at once.
    fn make_room(&mut self, now: Time, outputs: &mut Outputs<R>) -> bool {
        if self.journal.used_bytes() * 100 > self.journal.capacity_bytes() * JOURNAL_FILL_PERCENT
            && let Some((stream, _)) = self.journal.pinned_by()
            && let (volume, _) = owner_of(stream)
            && let Some(mirror) = self.mirrors.get_mut(&volume)
        {
            self.schedule.wake(volume);
            mirror.want_checkpoint();
            mirror.let_records_go(context!(self, now, outputs), &mut self.disk);
        }
        let durable = self.journal.durable();
        self.each_awake(|host, volume| {
            let Some(mirror) = host.mirrors.get_mut(&volume) else {
                return;
            };
            mirror.checkpoint_if_due(context!(host, now, outputs));
            mirror.on_durable(context!(host, now, outputs), durable);
            mirror.take_deferred(context!(host, now, outputs));
            mirror.begin_waiting(context!(host, now, outputs));
            for _ in 0..ROUNDS_MAX {
                if !mirror.wants_space() {
                    break;
                }
                mirror.look_at_space(context!(host, now, outputs), &mut host.disk);
                mirror.take_deferred(context!(host, now, outputs));
                mirror.begin_waiting(context!(host, now, outputs));
            }
        });
        // What that journalled or submitted starts now.
        self.journal.step(&mut self.disk);
        self.step_stores(now, outputs)
    }

    /// What is known of each volume here.
    #[must_use]
    pub fn status(&self, now: Time) -> Vec<VolumeStatus> {
        self.mirrors
            .values()
            .map(|mirror| mirror.status(now))
            .collect()
    }

    /// Replicas that could not be opened, with why.
    #[must_use]
    pub fn closed(&self) -> &BTreeMap<VolumeId, String> {
        &self.closed
    }

    /// Makes a checkpoint of every volume, so that the next start is short.
    pub fn checkpoint_all(&mut self) {
        self.mirrors.values_mut().for_each(Mirror::want_checkpoint);
        self.wake_all();
    }
}

/// Takes what is up to `lsn`, and says which volumes' it is.
fn settled(queue: &mut VecDeque<(Lsn, VolumeId)>, lsn: Lsn) -> BTreeSet<VolumeId> {
    let mut volumes = BTreeSet::new();
    while let Some((theirs, volume)) = queue.front().copied()
        && theirs <= lsn
    {
        volumes.insert(volume);
        queue.pop_front();
    }
    volumes
}

/// Where the volume's primary is being moved, as `me` sees it.
fn course(catalog: &Catalog, volume: VolumeId, me: ReplicaId) -> Course {
    match catalog.relocations.get(&volume) {
        None => Course::Stays,
        Some(relocation) if relocation.to == me.node => Course::Comes,
        Some(relocation) => Course::Leaves(relocation.to),
    }
}

/// A volume's record as the protocol sees it.
#[must_use]
pub fn view(catalog: &Catalog, volume: VolumeId, record: &VolumeRecord) -> View {
    let registered = record.replicas.iter().filter_map(|node| {
        let known = catalog.nodes.get(node)?;
        let active = catalog.domains.get(&known.domain)?.state == DomainState::Active;
        let incarnation = known.incarnation?;
        active.then_some(ReplicaId {
            node: *node,
            incarnation,
        })
    });
    View {
        configuration: Configuration {
            epoch: record.epoch,
            primary: record.primary,
            opened: record.opened,
            in_sync: record.in_sync.clone(),
        },
        released: record.handover == Handover::Released,
        granted_set: record.granted_set.clone(),
        eligible: match catalog.unproven.contains(&volume) {
            false => registered.collect(),
            true => BTreeSet::new(),
        },
        complete: record.complete.clone(),
        domains: record
            .replicas
            .iter()
            .filter_map(|node| Some((*node, catalog.nodes.get(node)?.domain)))
            .collect(),
        may_degrade: record.policy.on_peer_loss == OnPeerLoss::Degrade,
        answers_held: record.policy.durability == Durability::Flush,
        rebooted: catalog.rebooted.get(&volume).cloned().unwrap_or_default(),
        preferred_domain: record.policy.preferred_domain,
    }
}

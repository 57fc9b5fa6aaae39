//! The host's loop: waits for inputs, hands all that are there to the host, lets it run, and does what it wants done.

use super::inputs::{AttachError, Attachment, Client, Forwarded, Input, Inputs, Ticket};
use super::report;
use crate::clock;
use crate::peers::Outlet;
use crate::serve::FiguresPage;
use isthmus_catalog::Catalog;
use isthmus_disk::FileDisk;
use isthmus_engine::{Epoch, NodeId, Standing, Time, VolumeId};
use isthmus_host::{Host, Lane, Outputs};
use isthmus_journal::Disk;
use isthmus_kvdb::{Detour, Kvdb};
use isthmus_nbd::Connection;
use isthmus_transport::SessionId;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

/// Inputs taken before the host runs: what comes in together is made durable together.
const BATCH_MAX: usize = 256;
/// How long the loop waits when nothing wants it earlier.
const IDLE: Duration = Duration::from_secs(1);
/// How long writes into extents, for which nobody waits, are kept back, to be done together.
const KEPT_BACK: Duration = Duration::from_millis(10);
/// Timers are as fine as this: an alarm that is off by less stays as it is set.
const TIMER_STEP: Duration = Duration::from_millis(1);

/// The host and what its loop knows besides.
pub struct HostLoop {
    pub(super) host: Host<FileDisk, Ticket>,
    receiver: UnboundedReceiver<Input>,
    pub(super) inputs: Inputs,
    pub(super) outlet: Outlet,
    pub(super) kvdb: Kvdb,
    pub(super) detour: Detour,
    pub(super) runtime: Handle,
    pub(super) sessions: BTreeMap<NodeId, SessionId>,
    pub(super) clients: BTreeMap<VolumeId, BTreeMap<u64, Client>>,
    pub(super) outputs: Outputs<Ticket>,
    /// Whether kvdb is being asked to confirm the catalog, and whether it must be asked once more after that.
    pub(super) confirming: bool,
    pub(super) confirm_again: bool,
    /// The newest that the host has acted on.
    pub(super) catalog: Arc<Catalog>,
    kept_back_until: Option<Time>,
    stopping: Option<(Time, oneshot::Sender<()>)>,
}

/// Returns when the disk has completed something without a thread.
async fn completed(completions: Option<&AsyncFd<OwnedFd>>) {
    match completions {
        Some(completions) => match completions.readable().await {
            // Cleared before the completions are collected: what comes meanwhile is seen again.
            Ok(mut ready) => ready.clear_ready(),
            Err(error) => tracing::warn!(%error, "the disk's completions can't be awaited"),
        },
        None => std::future::pending().await,
    }
}

impl HostLoop {
    /// The loop's state. Nothing runs yet.
    pub fn new(
        host: Host<FileDisk, Ticket>,
        receiver: UnboundedReceiver<Input>,
        inputs: Inputs,
        outlet: Outlet,
        kvdb: Kvdb,
        detour: Detour,
        runtime: Handle,
    ) -> HostLoop {
        HostLoop {
            host,
            receiver,
            inputs,
            outlet,
            kvdb,
            detour,
            runtime,
            sessions: BTreeMap::new(),
            clients: BTreeMap::new(),
            outputs: Outputs::default(),
            confirming: false,
            confirm_again: false,
            catalog: Arc::default(),
            kept_back_until: None,
            stopping: None,
        }
    }

    /// Lives until the node stops. `completions` becomes readable as the disk completes what it does without threads.
    pub async fn live(mut self, completions: Option<OwnedFd>) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        let mut alarm = pin!(sleep_until(Instant::now()));
        // SAFETY: the descriptor is owned, and closed by no one else.
        let completions = completions.map(|completions| unsafe { AsyncFd::register(completions) });
        let completions = completions
            .transpose()
            .expect("the kernel watches a descriptor more");
        let mut at_once = true;
        loop {
            if at_once {
                while batch.len() < BATCH_MAX
                    && let Ok(input) = self.receiver.try_recv()
                {
                    batch.push(input);
                }
                tokio::task::yield_now().await;
            } else {
                let due = Instant::now() + self.wait();
                let set = alarm.deadline();
                if alarm.is_elapsed() || due + TIMER_STEP < set || due > set + TIMER_STEP {
                    alarm.as_mut().reset(due);
                }
                tokio::select! {
                    biased;
                    count = self.receiver.recv_many(&mut batch, BATCH_MAX) => {
                        if count == 0 {
                            return;
                        }
                    }
                    () = completed(completions.as_ref()) => {}
                    () = &mut alarm => {}
                }
            }
            for input in batch.drain(..) {
                self.take(input);
            }
            at_once = self.host.run(clock::now(), &mut self.outputs);
            let handed_out = self.hand_out();
            if self.host.disk_mut().is_to_start() {
                if handed_out {
                    // It goes on its way first: the peer's journal takes longer than this one.
                    tokio::task::yield_now().await;
                }
                let busy = !self.receiver.is_empty();
                self.host.disk_mut().start(busy);
            }
            self.look_at_kept_back();
            if self.is_over() {
                return;
            }
        }
    }

    /// Lets the disk do the writes that it has kept back for long enough.
    fn look_at_kept_back(&mut self) {
        let disk = self.host.disk_mut();
        if !disk.has_kept_back() {
            self.kept_back_until = None;
            return;
        }
        let now = clock::now();
        if now >= *self.kept_back_until.get_or_insert(now + KEPT_BACK) {
            disk.hurry();
            self.kept_back_until = None;
        }
    }

    fn wait(&mut self) -> Duration {
        if self.host.disk_mut().is_to_start() {
            // The kernel did not take it: soon again.
            return TIMER_STEP;
        }
        let now = clock::now();
        let stopping = self.stopping.as_ref().map(|(deadline, _)| *deadline);
        let deadlines = [self.host.deadline(), stopping, self.kept_back_until];
        let deadline = deadlines.into_iter().flatten().min();
        deadline
            .map_or(IDLE, |deadline| deadline.since(now))
            .min(IDLE)
    }

    fn take(&mut self, input: Input) {
        let (now, outputs) = (clock::now(), &mut self.outputs);
        match input {
            Input::Disk => {}
            Input::Frame {
                peer,
                session,
                lane,
                frame,
            } => self.take_frame(now, peer, session, lane, &frame),
            Input::Submit {
                volume,
                request,
                ticket,
            } => self.host.submit(now, volume, ticket, request, outputs),
            Input::SessionUp { peer, session } => {
                self.sessions.insert(peer, session);
                self.host.on_session_up(now, peer, outputs);
            }
            Input::SessionDown { peer, session } => {
                if self.sessions.get(&peer) == Some(&session) {
                    self.sessions.remove(&peer);
                    self.host.on_session_down(now, peer, outputs);
                }
            }
            Input::SlowPeers(slow) => self.host.on_slow_peers(now, &slow, outputs),
            // What came by a detour may be ahead of what kvdb brings here.
            Input::Catalog(catalog) if catalog.revision < self.catalog.revision => {}
            Input::Catalog(catalog) => {
                self.catalog = Arc::clone(&catalog);
                self.host.on_catalog(now, catalog, outputs);
                self.send_away_who_is_not_let_in();
            }
            Input::Answer { volume, done } => self.host.on_answer(now, volume, done, outputs),
            Input::Confirmed { begun, catalog } => {
                self.confirming = false;
                self.host
                    .on_confirmed(now, begun, catalog.as_deref(), outputs);
                if std::mem::take(&mut self.confirm_again) {
                    self.confirm();
                }
            }
            Input::Attach {
                volume,
                connection,
                forwarded,
                answer,
            } => self.attach(now, volume, connection, forwarded, answer),
            Input::Detach { volume, connection } => {
                let known = self
                    .clients
                    .get_mut(&volume)
                    .and_then(|clients| clients.remove(&connection));
                if known.is_some() {
                    self.host.detach(now, volume, outputs);
                }
            }
            Input::Report(answer) => {
                // Whoever asked may have gone.
                let _ = answer.send(report::state(&self.host, now, self.catalog.revision));
            }
            Input::Figures {
                after,
                count,
                answer,
            } => {
                // As above.
                let _ = answer.send(FiguresPage {
                    rows: self.host.figures(now, after, count),
                    closed: self.host.closed().len() as u64,
                });
            }
            Input::Stop { within, stopped } => {
                self.host.checkpoint_all();
                self.stopping = Some((now + within, stopped));
            }
        }
    }

    fn attach(
        &mut self,
        now: Time,
        volume: VolumeId,
        connection: Connection,
        forwarded: Option<Forwarded>,
        answer: oneshot::Sender<Attachment>,
    ) {
        if let Some(Forwarded { epoch: theirs, .. }) = forwarded {
            let record = self.catalog.volumes.get(&volume);
            let ours = record.map_or(Epoch::default(), |record| record.epoch);
            if ours != theirs {
                // Whoever asked may have gone.
                let _ = answer.send(Err(AttachError::OtherEpoch { ours, theirs }));
                return;
            }
        }
        let came_to = forwarded.map_or(self.host.me().node, |forwarded| forwarded.by);
        let client = Client {
            connection,
            came_to,
        };
        let ticket = Ticket::Attach {
            volume,
            client,
            answer,
        };
        self.host
            .attach_forwarded(now, volume, came_to, ticket, &mut self.outputs);
    }

    fn take_frame(
        &mut self,
        now: Time,
        peer: NodeId,
        session: SessionId,
        lane: isthmus_transport::Lane,
        frame: &bytes::Bytes,
    ) {
        if self.sessions.get(&peer) != Some(&session) {
            return;
        }
        let (volume, lane) = match lane {
            isthmus_transport::Lane::Control => return,
            isthmus_transport::Lane::Write(volume) => (volume, Lane::Write),
            isthmus_transport::Lane::Resync(volume) => (volume, Lane::Resync),
        };
        if let Err(error) = self
            .host
            .on_frame(now, peer, volume, lane, frame, &mut self.outputs)
        {
            tracing::warn!(%peer, %volume, %error, "a frame makes no sense and is passed over");
        }
    }

    /// Whether the node may end: nothing is served any more, or time is over.
    fn is_over(&mut self) -> bool {
        let Some((deadline, _)) = &self.stopping else {
            return false;
        };
        let now = clock::now();
        let serving = self.host.status(now).iter().any(|volume| {
            matches!(
                volume.standing,
                Standing::Promoting { .. } | Standing::Serving { .. } | Standing::Releasing
            )
        });
        if serving && now < *deadline {
            return false;
        }
        if let Some((_, stopped)) = self.stopping.take() {
            // Whoever waited may have gone.
            let _ = stopped.send(());
        }
        true
    }
}

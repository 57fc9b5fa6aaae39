//! One session: three connections that live and end together, and the tasks on them.

use crate::calls;
use crate::handler::{CallError, Lane, SendError, SessionId};
use crate::mixed::{self, End};
use crate::peer::{Connections, Link, Peer};
use crate::receiving::{self, Budget};
use crate::retransmits::Retransmits;
use crate::sending::Lanes;
use crate::tls::TlsSocket;
use crate::transport::Shared;
use crate::wire::{Class, Violation};
use bytes::Bytes;
use parking_lot::Mutex;
use quinn::{Connection, VarInt};
use std::collections::BTreeSet;
use std::mem;
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// Lanes of one kind that a peer may have open: one for each volume that the two nodes share.
const LANES_MAX: u32 = 4096;

/// Calls under way at once, in each direction.
pub(crate) const CALLS_MAX: u32 = 64;

/// Close codes, for whoever looks at packets: all is well, or the other side broke the protocol.
pub(crate) const CODE_DONE: u32 = 0;
pub(crate) const CODE_VIOLATION: u32 = 1;

/// A session with one peer.
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) peer: Arc<Peer>,
    /// Those of its connections that are QUIC's, by class; that for control always is.
    quic: [Option<Connection>; 3],
    /// The others, until they are served.
    tls: Mutex<Vec<(Class, Box<TlsSocket>)>>,
    pub(crate) lanes: Lanes,
    /// Lanes on which the peer sends.
    lanes_received: Mutex<BTreeSet<Lane>>,
    pub(crate) budget: Budget,
    pub(crate) calls_out: Semaphore,
    /// What the connections over TCP sent again, by class.
    pub(crate) retransmits: [Retransmits; 3],
    shared: Arc<Shared>,
    over: watch::Sender<bool>,
}

impl Session {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        peer: &Arc<Peer>,
        connections: Connections,
    ) -> Arc<Session> {
        let mut quic = [const { None }; 3];
        let mut tls = Vec::new();
        for (class, link) in Class::ALL.into_iter().zip(connections) {
            match link {
                Link::Quic(connection) => {
                    allow_streams(&connection, class);
                    quic[class.index()] = Some(connection);
                }
                Link::Tls(socket) => tls.push((class, socket)),
            }
        }
        let mixed = quic.each_ref().map(Option::is_none);
        Arc::new(Session {
            id: shared.next_session(),
            peer: Arc::clone(peer),
            quic,
            tls: Mutex::new(tls),
            lanes: Lanes::new(shared.queue_bytes_max, mixed),
            lanes_received: Mutex::new(BTreeSet::new()),
            budget: Budget::new(),
            calls_out: Semaphore::new(CALLS_MAX as usize),
            retransmits: Default::default(),
            shared: Arc::clone(shared),
            over: watch::Sender::new(false),
        })
    }

    /// The connection whose streams carry the lanes of this class.
    ///
    /// # Panics
    /// When that is a TLS connection; it never is for control.
    pub(crate) fn streams(&self, class: Class) -> &Connection {
        self.quic[class.index()]
            .as_ref()
            .expect("what is sent and taken on streams belongs to a QUIC connection")
    }

    pub(crate) fn queued_bytes(&self) -> usize {
        self.lanes.queued_bytes()
    }

    pub(crate) fn packets_lost(&self) -> u64 {
        self.quic
            .iter()
            .flatten()
            .map(|connection| connection.stats().path.lost_packets)
            .sum()
    }

    /// Asks the connections over TCP to look again, and gives what they saw the time before: they are in the hands of their own tasks.
    pub(crate) fn segments_retransmitted(&self) -> u64 {
        let seen = self.retransmits.iter();
        seen.map(|seen| seen.ask()).sum()
    }

    /// Queues a frame on its lane.
    pub(crate) fn send(self: &Arc<Self>, lane: Lane, parts: Vec<Bytes>) -> Result<(), SendError> {
        self.lanes.push(self, &self.shared.runtime, lane, parts)
    }

    pub(crate) async fn call(&self, service: u8, request: Bytes) -> Result<Bytes, CallError> {
        calls::call(self, service, request).await
    }

    /// Notes that the peer sends on this lane: on the right connection, and on one stream only.
    pub(crate) fn receive_on(&self, class: Class, lane: Lane) -> Result<(), Violation> {
        if lane.class() != class {
            return Err(Violation::WrongConnection);
        }
        if !self.lanes_received.lock().insert(lane) {
            return Err(Violation::LaneTwice);
        }
        Ok(())
    }

    /// Ends the session: the connections are closed and nothing more is taken for sending.
    pub(crate) fn close(&self, why: &str) {
        self.close_with(CODE_DONE, why);
    }

    /// Done when the session is over.
    pub(crate) fn over(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut over = self.over.subscribe();
        async move {
            // An error means that the session was dropped, which is its end, too.
            let _ = over.wait_for(|over| *over).await;
        }
    }

    fn close_with(&self, code: u32, why: &str) {
        self.over.send_replace(true);
        self.lanes.end();
        for connection in self.quic.iter().flatten() {
            connection.close(VarInt::from(code), why.as_bytes());
        }
    }

    /// Ends the session because the peer broke the protocol.
    pub(crate) fn fail(&self, violation: Violation) {
        self.shared.refusals.refuse(&self.peer.node, &violation);
        self.close_with(CODE_VIOLATION, &violation.to_string());
    }

    /// Serves the session, which is installed already, until one of its connections is lost, then retires it.
    pub(crate) async fn run(self: &Arc<Self>) {
        let mut tasks = JoinSet::new();
        let mut links = JoinSet::new();
        for class in Class::ALL {
            let Some(connection) = self.quic[class.index()].clone() else {
                continue;
            };
            tasks.spawn(receiving::accept_lanes(Arc::clone(self), class));
            links.spawn(async move { connection.closed().await.to_string() });
        }
        tasks.spawn(calls::accept_calls(Arc::clone(self)));
        for (class, socket) in mem::take(&mut *self.tls.lock()) {
            links.spawn(Arc::clone(self).carry(class, socket));
        }
        let lost = match links.join_next().await {
            Some(Ok(lost)) => lost,
            // There is one for each class, and none of them panics: whatever this is, it is the end.
            Some(Err(error)) => error.to_string(),
            None => String::new(),
        };
        tracing::info!(peer = %self.peer.node, session = self.id.0, %lost, "session over");
        self.peer.retire(self);
        self.close("a connection of the session was lost");
        // All of them end with their connections; waiting keeps tasks of an older session from piling up.
        while tasks.join_next().await.is_some() {}
        while links.join_next().await.is_some() {}
    }

    /// Serves a connection that carries many lanes, until it ends; gives the reason.
    async fn carry(self: Arc<Self>, class: Class, socket: Box<TlsSocket>) -> String {
        let queue = self.lanes.mixed(class);
        let queue = queue.expect("a class has a TLS connection or streams");
        let end = mixed::carry(&self, class, socket, &queue).await;
        if let End::Violation(violation) = end {
            self.fail(violation);
        }
        end.to_string()
    }
}

/// Lets the peer open what a session needs.
fn allow_streams(connection: &Connection, class: Class) {
    let (streams, calls) = match class {
        Class::Control => (1, CALLS_MAX),
        Class::Write | Class::Resync => (LANES_MAX, 0),
    };
    connection.set_max_concurrent_uni_streams(VarInt::from(streams));
    // One more for the greeting, which may not be gone yet.
    connection.set_max_concurrent_bi_streams(VarInt::from(calls + 1));
}

//! One peer: its present session, and the gate that keeps the handler's callbacks in order.

use crate::handler::{Handler, Lane, PeerStats, SessionId};
use crate::session::Session;
use crate::tls::TlsSocket;
use crate::wire::{Class, Hello, Violation};
use bytes::Bytes;
use isthmus_engine::NodeId;
use parking_lot::{Mutex, RwLock};
use quinn::{Connection, SendStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A connection of a session.
pub(crate) enum Link {
    /// Each lane is a stream.
    Quic(Connection),
    /// All lanes share it. Never the one for control.
    Tls(Box<TlsSocket>),
}

/// The three connections of a session, by the index of their class.
pub(crate) type Connections = [Link; 3];

/// A greeted connection that waits for the others of its session.
pub(crate) struct Greeted {
    pub(crate) link: Link,
    /// For the welcome, where that has a stream of its own.
    pub(crate) stream: Option<SendStream>,
}

/// The one session in the making that this peer's dialing has got to.
struct Gathering {
    process: u64,
    attempt: u64,
    slots: [Option<Greeted>; 3],
}

/// What is kept of one configured peer, whether there is a session or not.
pub(crate) struct Peer {
    pub(crate) node: NodeId,
    /// `host:port`, resolved anew at each try.
    pub(crate) address: String,
    pub(crate) handler: Arc<dyn Handler>,
    /// The session whose callbacks are let through. Written only around `session_up` and `session_down`, held for
    /// reading around `frame`: that is what orders them.
    gate: RwLock<Option<SessionId>>,
    /// The same session, for those who send. Apart, so that a callback may send.
    session: RwLock<Option<Arc<Session>>>,
    gathering: Mutex<Option<Gathering>>,
    /// The process and attempt of the newest session that this peer dialed.
    established: Mutex<Option<(u64, u64)>>,
    pub(crate) counters: Counters,
}

/// Totals since the transport's start.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) sessions: AtomicU64,
    pub(crate) frames_sent: AtomicU64,
    pub(crate) bytes_sent: AtomicU64,
    pub(crate) frames_received: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
}

impl Peer {
    pub(crate) fn new(node: NodeId, address: String, handler: Arc<dyn Handler>) -> Peer {
        Peer {
            node,
            address,
            handler,
            gate: RwLock::new(None),
            session: RwLock::new(None),
            gathering: Mutex::new(None),
            established: Mutex::new(None),
            counters: Counters::default(),
        }
    }

    /// The present session.
    pub(crate) fn session(&self) -> Option<Arc<Session>> {
        self.session.read().clone()
    }

    /// Makes `session` the present one and says so, after the one before it was said to be down.
    pub(crate) fn install(&self, session: &Arc<Session>) {
        let mut gate = self.gate.write();
        let before = self.session.write().replace(Arc::clone(session));
        if let Some(before) = before {
            assert!(
                before.id < session.id,
                "session {:?} follows {:?}",
                session.id,
                before.id
            );
            before.close("a newer session took over");
            self.handler.session_down(self.node, before.id);
        }
        *gate = Some(session.id);
        self.counters.sessions.fetch_add(1, Ordering::Relaxed);
        self.handler.session_up(self.node, session.id);
    }

    /// Says that the session is down, unless that was said already.
    pub(crate) fn retire(&self, session: &Session) {
        let mut gate = self.gate.write();
        if *gate == Some(session.id) {
            *gate = None;
            *self.session.write() = None;
            self.handler.session_down(self.node, session.id);
        }
    }

    /// The peer was reached, and is of another generation.
    pub(crate) fn met(&self, lineage: Vec<u64>) {
        self.handler.other_generation(self.node, lineage);
    }

    /// Hands a frame to the handler; false when its session is no longer the present one.
    pub(crate) fn deliver(&self, session: SessionId, lane: Lane, frame: Bytes) -> bool {
        let gate = self.gate.read();
        if *gate != Some(session) {
            return false;
        }
        self.counters
            .frames_received
            .fetch_add(1, Ordering::Relaxed);
        self.counters
            .bytes_received
            .fetch_add(frame.len() as u64, Ordering::Relaxed);
        self.handler.frame(self.node, session, lane, frame);
        true
    }

    /// Puts a greeted connection to the others of its session; gives all three when it was the last.
    /// Only the newest try is kept: at most one unfinished session for each peer.
    pub(crate) fn gather(
        &self,
        hello: Hello,
        greeted: Greeted,
    ) -> Result<Option<[Greeted; 3]>, Violation> {
        let mut established = self.established.lock();
        if established
            .is_some_and(|(process, attempt)| process == hello.process && hello.attempt <= attempt)
        {
            return Err(Violation::OutOfPlace);
        }
        let mut gathering = self.gathering.lock();
        let known = match &*gathering {
            Some(known) if known.process == hello.process => {
                if hello.attempt < known.attempt {
                    return Err(Violation::OutOfPlace);
                }
                known.attempt == hello.attempt
            }
            _ => false,
        };
        if !known {
            *gathering = None;
        }
        let present = gathering.get_or_insert_with(|| Gathering {
            process: hello.process,
            attempt: hello.attempt,
            slots: [None, None, None],
        });
        let slot = &mut present.slots[hello.class.index()];
        if slot.is_some() {
            *gathering = None;
            return Err(Violation::OutOfPlace);
        }
        *slot = Some(greeted);
        match present.slots.each_mut().map(Option::take) {
            [Some(control), Some(write), Some(resync)] => {
                *gathering = None;
                *established = Some((hello.process, hello.attempt));
                Ok(Some([control, write, resync]))
            }
            unfinished => {
                present.slots = unfinished;
                Ok(None)
            }
        }
    }

    pub(crate) fn stats(&self) -> PeerStats {
        let session = self.session();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PeerStats {
            session: session.as_ref().map(|session| session.id),
            sessions: count(&self.counters.sessions),
            round_trip: session
                .as_ref()
                .map(|session| session.streams(Class::Control).rtt()),
            queued_bytes: session.as_ref().map_or(0, |session| session.queued_bytes()),
            frames_sent: count(&self.counters.frames_sent),
            bytes_sent: count(&self.counters.bytes_sent),
            frames_received: count(&self.counters.frames_received),
            bytes_received: count(&self.counters.bytes_received),
            packets_lost: session.as_ref().map_or(0, |session| session.packets_lost()),
            segments_retransmitted: session
                .as_ref()
                .map_or(0, |session| session.segments_retransmitted()),
        }
    }
}

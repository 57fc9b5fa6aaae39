//! Clients that write as fast as they are answered, and keep a [`History`] of it.

use crate::history::{Content, History};
use crate::nbd::endpoint::Endpoint;
use crate::nbd::{OpenError, Session, request};
use crate::patience;
use crate::random::Random;
use crate::stamp::{self, SECTOR_BYTES};
use std::collections::BTreeMap;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A history that several clients write to.
pub type Shared = Arc<Mutex<History>>;

/// What clients do.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// How many connections.
    pub connections: usize,
    /// How many writes each has in flight.
    pub depth: usize,
    /// A write's length in sectors: from, to.
    pub sectors: (u64, u64),
    /// A write's length and place are multiples of this many sectors.
    pub align_sectors: u64,
    /// Where they write, in sectors.
    pub region: Range<u64>,
    /// How many of a thousand writes are zeros that are not sent.
    pub zeros_per_mille: u64,
    /// Where their random numbers come from.
    pub seed: u64,
}

#[derive(Debug, Default)]
struct Progress {
    acknowledged: u64,
    refused: u64,
    reconnections: u64,
    open: usize,
    stopping: bool,
}

#[derive(Debug, Default)]
struct Board {
    progress: Mutex<Progress>,
    changed: Condvar,
}

/// Clients at work.
#[derive(Debug)]
pub struct Load {
    board: Arc<Board>,
    handles: Vec<TcpStream>,
    threads: Vec<JoinHandle<()>>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Writes that were answered with an error.
    pub refused: u64,
}

impl Load {
    /// Opens the volume and begins to write.
    ///
    /// # Errors
    /// The volume can't be opened.
    pub fn start(
        endpoint: &Endpoint,
        export: &str,
        history: &Shared,
        pattern: &Pattern,
    ) -> Result<Load, OpenError> {
        Load::start_with(endpoint, export, history, pattern, None)
    }

    /// The same with clients that connect anew, for as long as `patience`, when their server is gone, and send again what it did
    /// not answer.
    ///
    /// # Errors
    /// The volume can't be opened.
    pub fn start_reconnecting(
        endpoint: &Endpoint,
        export: &str,
        history: &Shared,
        pattern: &Pattern,
        patience: Duration,
    ) -> Result<Load, OpenError> {
        Load::start_with(endpoint, export, history, pattern, Some(patience))
    }

    fn start_with(
        endpoint: &Endpoint,
        export: &str,
        history: &Shared,
        pattern: &Pattern,
        reconnects: Option<Duration>,
    ) -> Result<Load, OpenError> {
        let board = Arc::new(Board::default());
        board.progress().open = pattern.connections;
        let mut load = Load {
            board: Arc::clone(&board),
            handles: Vec::new(),
            threads: Vec::new(),
        };
        for number in 0..pattern.connections {
            let session = Session::open(endpoint, export)?;
            load.handles.push(session.handle()?);
            let mut client = Client {
                session,
                history: Arc::clone(history),
                pattern: pattern.clone(),
                random: Random::new(pattern.seed ^ (number as u64) << 48),
                board: Arc::clone(&board),
                flying: BTreeMap::new(),
                server: (endpoint.clone(), export.to_owned()),
                reconnects,
            };
            load.threads.push(thread::spawn(move || client.run()));
        }
        Ok(load)
    }

    /// Writes acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.board.progress().acknowledged
    }

    /// How often a client connected anew.
    #[must_use]
    pub fn reconnections(&self) -> u64 {
        self.board.progress().reconnections
    }

    /// Waits until that many writes are acknowledged.
    ///
    /// # Panics
    /// When that takes longer than `limit`, or the clients ended before.
    #[track_caller]
    pub fn until_acknowledged(&self, count: u64, limit: Duration) {
        let end = Instant::now() + limit;
        let mut progress = self.board.progress();
        while progress.acknowledged < count {
            let left = end.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "{} of {count} writes within {limit:?}",
                progress.acknowledged
            );
            assert!(
                progress.open > 0,
                "the clients ended after {} of {count} writes",
                progress.acknowledged
            );
            progress = match self.board.changed.wait_timeout(progress, left) {
                Ok((progress, _)) => progress,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    /// Waits for that many writes more than now.
    ///
    /// # Panics
    /// As [`Load::until_acknowledged`].
    #[track_caller]
    pub fn until_more(&self, count: u64, limit: Duration) {
        self.until_acknowledged(self.acknowledged() + count, limit);
    }

    /// Sends no more, waits for what is in flight, and closes.
    #[must_use]
    pub fn finish(self) -> Outcome {
        self.board.progress().stopping = true;
        self.join()
    }

    /// Breaks all connections off.
    #[must_use]
    pub fn abandon(self) -> Outcome {
        for handle in &self.handles {
            // It may be closed already.
            let _ = handle.shutdown(Shutdown::Both);
        }
        self.join()
    }

    /// Waits until all connections have ended by themselves: because their server did.
    #[must_use]
    pub fn join(self) -> Outcome {
        for thread in self.threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
        let progress = self.board.progress();
        Outcome {
            acknowledged: progress.acknowledged,
            refused: progress.refused,
        }
    }
}

impl Board {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

struct Client {
    session: Session,
    history: Shared,
    pattern: Pattern,
    random: Random,
    board: Arc<Board>,
    /// By cookie, which is the write's number.
    flying: BTreeMap<u64, Flying>,
    server: (Endpoint, String),
    reconnects: Option<Duration>,
}

/// A write that is not answered yet.
#[derive(Clone, Copy)]
struct Flying {
    first_sector: u64,
    sectors: u64,
    content: Content,
}

impl Client {
    fn run(&mut self) {
        // How it ended is seen in what was acknowledged.
        let mut ended = self.write_and_collect();
        while ended.is_err() && self.reconnect() {
            ended = self.write_and_collect();
        }
        self.board.progress().open -= 1;
        self.board.changed.notify_all();
    }

    fn write_and_collect(&mut self) -> io::Result<()> {
        loop {
            while self.flying.len() < self.pattern.depth && !self.board.progress().stopping {
                self.send()?;
            }
            if self.flying.is_empty() {
                return self.session.send(request::DISCONNECT, 0, 0, 0, 0, &[]);
            }
            self.collect()?;
        }
    }

    fn send(&mut self) -> io::Result<()> {
        let Pattern {
            sectors: (least, most),
            align_sectors,
            ref region,
            zeros_per_mille,
            ..
        } = self.pattern;
        let count = self
            .random
            .between(least, most)
            .next_multiple_of(align_sectors);
        let first = region.start
            + self
                .random
                .below((region.end - region.start - count) / align_sectors + 1)
                * align_sectors;
        let zeros = self.random.below(1000) < zeros_per_mille;
        let content = if zeros {
            Content::Zeros
        } else {
            Content::Stamps
        };
        let number = {
            let mut history = lock(&self.history);
            history.begin(first, count, content)
        };
        let flying = Flying {
            first_sector: first,
            sectors: count,
            content,
        };
        self.flying.insert(number, flying);
        self.send_flying(number, flying)
    }

    fn send_flying(&mut self, number: u64, flying: Flying) -> io::Result<()> {
        let id = lock(&self.history).id();
        let offset = flying.first_sector * SECTOR_BYTES as u64;
        let bytes = flying.sectors as usize * SECTOR_BYTES;
        if flying.content == Content::Zeros {
            return self
                .session
                .send(request::WRITE_ZEROES, 0, number, offset, bytes as u32, &[]);
        }
        let mut data = vec![0; bytes];
        stamp::fill(&mut data, id, number, flying.first_sector);
        self.session
            .send(request::WRITE, 0, number, offset, bytes as u32, &data)
    }

    /// Opens the volume again and sends again what was not answered; whether that could be done in time.
    fn reconnect(&mut self) -> bool {
        let Some(patience) = self.reconnects else {
            return false;
        };
        let (endpoint, export) = &self.server;
        let session = patience::within(patience, || Session::open(endpoint, export).ok());
        let Some(session) = session else {
            return false;
        };
        self.session = session;
        self.board.progress().reconnections += 1;
        let flying = self.flying.clone();
        // When that fails, the next reply does, too.
        let _ = flying
            .into_iter()
            .try_for_each(|(number, flying)| self.send_flying(number, flying));
        true
    }

    fn collect(&mut self) -> io::Result<()> {
        let reply = self.session.receive()?;
        if self.flying.remove(&reply.cookie).is_none() {
            return Err(io::Error::other("a reply to nothing in flight"));
        }
        if reply.error == 0 {
            lock(&self.history).acknowledge(reply.cookie);
        }
        let mut progress = self.board.progress();
        match reply.error {
            0 => progress.acknowledged += 1,
            _ => progress.refused += 1,
        }
        // After an error nothing more is sent: the rest of what is in flight is collected.
        progress.stopping |= reply.error != 0;
        self.board.changed.notify_all();
        Ok(())
    }
}

/// The history, for one step.
pub fn lock(history: &Shared) -> MutexGuard<'_, History> {
    history
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

//! Exports kept in memory, for tests and measurements.

use bytes::{Bytes, BytesMut};
use isthmus_nbd::{
    BoxFuture, Command, Connection, Errno, Export, ExportEntry, ExportInfo, Exports, Extent,
    Refusal, RefusalKind, Reply, Request,
};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

pub const BLOCK_BYTES: u64 = 4096;

/// All exports by name. What is not in the map is refused as unknown.
#[derive(Default)]
pub struct MemoryExports {
    pub memories: BTreeMap<String, Arc<Memory>>,
    /// The handles of all clients that ever opened something.
    pub clients: Mutex<Vec<Connection>>,
}

/// One export's content and manner.
pub struct Memory {
    pub info: ExportInfo,
    /// Written blocks; the others are holes.
    pub blocks: Mutex<BTreeMap<u64, Box<[u8]>>>,
    /// Why GO refuses it, if it does.
    pub refusal: Option<Refusal>,
    /// GO waits until this is true.
    pub opens: watch::Sender<bool>,
    /// Requests stay unanswered here, when there is a place for them.
    pub held: Option<Mutex<Vec<(Request, Reply)>>>,
    /// How many connections have it open, and how many opens are waiting.
    pub attached: watch::Sender<usize>,
    pub opening: watch::Sender<usize>,
    /// How many requests came, and how many of them had FUA.
    pub submitted: watch::Sender<usize>,
    pub forced: watch::Sender<usize>,
}

impl Memory {
    pub fn new(bytes: u64, block_bytes_min: u32) -> Memory {
        let info = ExportInfo {
            bytes,
            block_bytes_min,
            block_bytes_preferred: 4096,
            read_only: false,
            description: "in memory".to_owned(),
        };
        Memory {
            info,
            blocks: Mutex::default(),
            refusal: None,
            opens: watch::Sender::new(true),
            held: None,
            attached: watch::Sender::new(0),
            opening: watch::Sender::new(0),
            submitted: watch::Sender::new(0),
            forced: watch::Sender::new(0),
        }
    }

    fn read(&self, offset: u64, length: u64) -> Bytes {
        let blocks = self.blocks.lock();
        let mut data = BytesMut::zeroed(length as usize);
        for (block, within, at, count) in pieces(offset, length) {
            if let Some(content) = blocks.get(&block) {
                data[at..at + count].copy_from_slice(&content[within..within + count]);
            }
        }
        data.freeze()
    }

    fn write(&self, offset: u64, payload: &[u8]) {
        let mut blocks = self.blocks.lock();
        for (block, within, at, count) in pieces(offset, payload.len() as u64) {
            let content = blocks
                .entry(block)
                .or_insert_with(|| vec![0; BLOCK_BYTES as usize].into_boxed_slice());
            content[within..within + count].copy_from_slice(&payload[at..at + count]);
        }
    }

    fn zero(&self, offset: u64, length: u64, keep: bool) {
        let mut blocks = self.blocks.lock();
        for (block, within, _, count) in pieces(offset, length) {
            if keep || count < BLOCK_BYTES as usize {
                if let Some(content) = blocks.get_mut(&block) {
                    content[within..within + count].fill(0);
                } else if keep {
                    blocks.insert(block, vec![0; BLOCK_BYTES as usize].into_boxed_slice());
                }
            } else {
                blocks.remove(&block);
            }
        }
    }

    fn status(&self, offset: u64, length: u64) -> Vec<Extent> {
        let blocks = self.blocks.lock();
        let mut extents: Vec<Extent> = Vec::new();
        for (block, _, _, count) in pieces(offset, length) {
            let hole = !blocks.contains_key(&block);
            match extents.last_mut() {
                Some(last) if last.hole == hole => last.bytes += count as u64,
                _ => extents.push(Extent {
                    bytes: count as u64,
                    hole,
                    zero: hole,
                }),
            }
        }
        extents
    }

    pub fn answer(&self, request: Request, reply: Reply) {
        let Request {
            command,
            offset,
            length,
            ..
        } = request;
        match command {
            Command::Read => {
                let data = self.read(offset, length);
                let middle = data.len() / 2;
                // Both ways of answering, by turns.
                if (offset / BLOCK_BYTES).is_multiple_of(2) {
                    reply.data(data);
                } else {
                    reply.data_parts(vec![data.slice(..middle), data.slice(middle..)]);
                }
            }
            Command::Write { payload } => {
                assert_eq!(payload.len() as u64, length);
                self.write(offset, &payload);
                reply.done();
            }
            Command::WriteZeroes { fast: true, .. } => {
                reply.error(Errno::NotSupported, "zeroing is no faster here")
            }
            Command::WriteZeroes { no_hole, .. } => {
                self.zero(offset, length, no_hole);
                reply.done();
            }
            Command::Trim => {
                self.zero(offset, length, false);
                reply.done();
            }
            Command::BlockStatus { .. } => reply.status(self.status(offset, length)),
            Command::Flush | Command::Cache => reply.done(),
        }
    }
}

/// The blocks of a range: (block, offset within it, offset within the range, bytes).
fn pieces(offset: u64, length: u64) -> impl Iterator<Item = (u64, usize, usize, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let within = (offset + at) % BLOCK_BYTES;
        let count = (BLOCK_BYTES - within).min(length - at);
        let piece = (
            (offset + at) / BLOCK_BYTES,
            within as usize,
            at as usize,
            count as usize,
        );
        at += count;
        (count > 0).then_some(piece)
    })
}

/// A counted place; given back on drop.
struct Counted(watch::Sender<usize>);

impl Counted {
    fn new(counter: &watch::Sender<usize>) -> Counted {
        counter.send_modify(|count| *count += 1);
        Counted(counter.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

struct Opened {
    memory: Arc<Memory>,
    _attached: Counted,
}

impl Export for Opened {
    fn info(&self) -> ExportInfo {
        self.memory.info.clone()
    }

    fn submit(&self, request: Request, reply: Reply) {
        if request.fua {
            self.memory.forced.send_modify(|count| *count += 1);
        }
        match &self.memory.held {
            Some(held) => held.lock().push((request, reply)),
            None => self.memory.answer(request, reply),
        }
        self.memory.submitted.send_modify(|count| *count += 1);
    }
}

fn unknown(name: &str) -> Refusal {
    Refusal {
        kind: RefusalKind::Unknown,
        message: format!("no export is named {name:?}"),
    }
}

impl Exports for MemoryExports {
    fn list(&self) -> Vec<ExportEntry> {
        let entry = |(name, memory): (&String, &Arc<Memory>)| ExportEntry {
            name: name.clone(),
            description: memory.info.description.clone(),
        };
        self.memories.iter().map(entry).collect()
    }

    fn info<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<ExportInfo, Refusal>> {
        let info = self
            .memories
            .get(name)
            .map(|memory| memory.info.clone())
            .ok_or_else(|| unknown(name));
        Box::pin(async move { info })
    }

    fn open<'a>(
        &'a self,
        name: &'a str,
        client: Connection,
    ) -> BoxFuture<'a, Result<Arc<dyn Export>, Refusal>> {
        Box::pin(async move {
            let memory = self.memories.get(name).ok_or_else(|| unknown(name))?;
            let opening = Counted::new(&memory.opening);
            memory
                .opens
                .subscribe()
                .wait_for(|opens| *opens)
                .await
                .expect("the memory lives");
            drop(opening);
            if let Some(refusal) = &memory.refusal {
                return Err(refusal.clone());
            }
            self.clients.lock().push(client);
            let opened = Opened {
                memory: memory.clone(),
                _attached: Counted::new(&memory.attached),
            };
            Ok(Arc::new(opened) as Arc<dyn Export>)
        })
    }
}

//! A whole NBD client, from its first byte to its last: handshake options and requests.

use bytes::Bytes;
use isthmus_nbd::{
    BoxFuture, Command, Connection, Export, ExportEntry, ExportInfo, Exports, Extent, Limits,
    PAYLOAD_BYTES_MAX, Refusal, RefusalKind, Reply, Request, Server,
};
use std::io::{self, Cursor};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;
use tokio::runtime::Runtime;

use crate::random::Random;
use crate::target::{Expect, Target, Verdict};

const EXPORT_BYTES: u64 = 64 << 10;
static ZEROES: [u8; EXPORT_BYTES as usize] = [0; EXPORT_BYTES as usize];

const OPTION_REPLY: [u8; 8] = 0x0003_e889_0455_65a9_u64.to_be_bytes();
const STRUCTURED_REPLY: [u8; 4] = 0x668e_33ef_u32.to_be_bytes();
const SIMPLE_REPLY: [u8; 4] = 0x6744_6698_u32.to_be_bytes();
/// Option STRUCTURED_REPLY (8) and the answer ACK (1).
const STRUCTURED_AGREED: [u8; 8] = [0, 0, 0, 8, 0, 0, 0, 1];
const IHAVEOPT: [u8; 8] = *b"IHAVEOPT";
const REQUEST: [u8; 4] = 0x2560_9513_u32.to_be_bytes();
/// Bytes of the server's greeting.
const GREETING_BYTES: usize = 18;

/// An export that checks what it is asked.
struct Checking {
    read_only: bool,
    asked: Arc<AtomicU64>,
}

impl Checking {
    fn info(&self) -> ExportInfo {
        ExportInfo {
            bytes: EXPORT_BYTES,
            block_bytes_min: 512,
            block_bytes_preferred: 4096,
            read_only: self.read_only,
            description: "for fuzzing".to_owned(),
        }
    }
}

impl Export for Checking {
    fn info(&self) -> ExportInfo {
        Checking::info(self)
    }

    fn submit(&self, request: Request, reply: Reply) {
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        let Request {
            command,
            offset,
            length,
            ..
        } = request;
        assert!(
            offset
                .checked_add(length)
                .is_some_and(|end| end <= EXPORT_BYTES),
            "{command:?} at {offset} of {length}"
        );
        assert!(offset.is_multiple_of(512) && length.is_multiple_of(512));
        let is_flush = matches!(command, Command::Flush);
        assert_eq!(length == 0, is_flush, "{command:?} of {length}");
        match command {
            Command::Read => {
                assert!(length <= u64::from(PAYLOAD_BYTES_MAX));
                reply.data(Bytes::from_static(&ZEROES[..length as usize]));
            }
            Command::Write { payload } => {
                assert!(!self.read_only, "a write to what is read-only");
                assert_eq!(payload.len() as u64, length);
                reply.done();
            }
            Command::Trim | Command::WriteZeroes { .. } => {
                assert!(!self.read_only, "a change of what is read-only");
                reply.done();
            }
            Command::BlockStatus { .. } => reply.status(vec![Extent {
                bytes: length,
                hole: true,
                zero: true,
            }]),
            // Some are never answered: then the server answers.
            Command::Flush | Command::Cache if number % 4 == 3 => drop(reply),
            Command::Flush | Command::Cache => reply.done(),
        }
    }
}

struct Offered {
    asked: Arc<AtomicU64>,
    opened: Arc<AtomicU64>,
}

impl Offered {
    fn find(&self, name: &str) -> Result<Checking, Refusal> {
        assert!(name.len() <= 4096 && !name.contains('\0'));
        if name != "demo" && name != "frozen" {
            return Err(Refusal {
                kind: RefusalKind::Unknown,
                message: format!("no export {name}"),
            });
        }
        Ok(Checking {
            read_only: name == "frozen",
            asked: Arc::clone(&self.asked),
        })
    }
}

impl Exports for Offered {
    fn list(&self) -> Vec<ExportEntry> {
        ["demo", "frozen"]
            .map(|name| ExportEntry {
                name: name.to_owned(),
                description: "for fuzzing".to_owned(),
            })
            .into()
    }

    fn info<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<ExportInfo, Refusal>> {
        Box::pin(async move { self.find(name).map(|export| export.info()) })
    }

    fn open<'a>(
        &'a self,
        name: &'a str,
        _: Connection,
    ) -> BoxFuture<'a, Result<Arc<dyn Export>, Refusal>> {
        Box::pin(async move {
            let export = self.find(name)?;
            self.opened.fetch_add(1, Ordering::Relaxed);
            Ok(Arc::new(export) as Arc<dyn Export>)
        })
    }
}

/// Takes all that the server says.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl AsyncWrite for Output {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0
            .lock()
            .expect("nobody panics with it")
            .extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Everything that one client sends.
pub struct Clients {
    runtime: Runtime,
}

impl Clients {
    /// With a runtime of its own, on this thread.
    #[must_use]
    pub fn new() -> Clients {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        Clients {
            runtime: runtime.expect("a runtime without threads needs nothing"),
        }
    }
}

impl Default for Clients {
    fn default() -> Clients {
        Clients::new()
    }
}

impl Target for Clients {
    fn name(&self) -> &'static str {
        "nbd"
    }

    fn share(&self) -> u64 {
        16
    }

    fn seed(&mut self, random: &mut Random) -> Vec<u8> {
        let mut bytes = vec![0, 0, 0, 3];
        for _ in 0..random.below(4) {
            let (number, data) = option(random);
            put_option(&mut bytes, number, &data);
        }
        let name = if random.once_in(4) { "frozen" } else { "demo" };
        if random.once_in(8) {
            put_option(&mut bytes, 1, name.as_bytes());
        } else {
            put_option(&mut bytes, 7, &info(name, random));
        }
        for _ in 0..random.below(8) {
            put_request(&mut bytes, random);
        }
        // A client that is gone before its export is open may be served or not.
        bytes.extend(REQUEST);
        bytes.extend([0, 0, 0, 2]);
        bytes.resize(bytes.len() + 20, 0);
        bytes
    }

    fn input_bytes_max(&self) -> usize {
        16 << 10
    }

    fn memory_bytes_max(&self, input_bytes: usize) -> usize {
        // A buffer of 64 KiB, the input, and what the server says: a request of 28 bytes may read all of the export.
        let replies = input_bytes / 28 + 1;
        (1 << 20) + 8 * input_bytes + 3 * replies * (EXPORT_BYTES as usize + 512)
    }

    fn run(&mut self, input: &[u8], _: Expect) -> Verdict {
        let (asked, opened) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let exports = Arc::new(Offered {
            asked,
            opened: Arc::clone(&opened),
        });
        let output = Output::default();
        self.runtime.block_on(Server::serve_stream(
            Cursor::new(input.to_vec()),
            output.clone(),
            exports,
            Limits::default(),
        ));
        check_output(&output.0.lock().expect("nobody panics with it"));
        if opened.load(Ordering::Relaxed) > 0 {
            Verdict::Accepted
        } else {
            Verdict::Refused
        }
    }
}

fn put_option(bytes: &mut Vec<u8>, number: u32, data: &[u8]) {
    bytes.extend(IHAVEOPT);
    bytes.extend(number.to_be_bytes());
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend(data);
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u32).to_be_bytes(), text.as_bytes()].concat()
}

fn info(name: &str, random: &mut Random) -> Vec<u8> {
    let mut data = string(name);
    let wants = random.below(4) as u16;
    data.extend(wants.to_be_bytes());
    (0..wants).for_each(|want| data.extend(want.to_be_bytes()));
    data
}

fn option(random: &mut Random) -> (u32, Vec<u8>) {
    match random.below(6) {
        0 => (3, Vec::new()),
        1 => (6, info(&random.name(), random)),
        2 => {
            let name = random.name();
            (7, info(&name, random))
        }
        3 | 4 => (8, Vec::new()),
        _ => {
            let mut data = string("demo");
            data.extend(1_u32.to_be_bytes());
            data.extend(string("base:allocation"));
            (9 + random.below(2) as u32, data)
        }
    }
}

fn put_request(bytes: &mut Vec<u8>, random: &mut Random) {
    let command = random.below(8) as u16;
    let flags = if random.once_in(3) {
        1 << random.below(5)
    } else {
        0
    };
    let offset = random.below(EXPORT_BYTES / 512) * 512;
    let length = match command {
        3 => 0,
        1 => random.below(4) * 512,
        _ => random.below(16) * 512,
    };
    bytes.extend(REQUEST);
    bytes.extend((flags as u16).to_be_bytes());
    bytes.extend(command.to_be_bytes());
    bytes.extend(random.next_u64().to_be_bytes());
    bytes.extend(if command == 3 { 0 } else { offset }.to_be_bytes());
    bytes.extend((length as u32).to_be_bytes());
    if command == 1 {
        bytes.resize(bytes.len() + length as usize, 0x77);
    }
}

/// Whatever a client says, what the server says is well-formed: greeting, replies to options, and, where structured replies were
/// agreed on, whole chunks of these and simple replies without data.
fn check_output(output: &[u8]) {
    let mut rest = output
        .get(GREETING_BYTES..)
        .expect("the server greets whoever comes");
    let mut is_structured = false;
    while let Some(reply) = rest.strip_prefix(&OPTION_REPLY) {
        is_structured |= reply.starts_with(&STRUCTURED_AGREED);
        rest = skip_data(reply, 8);
    }
    // Without them the length of a reply follows from its request; after EXPORT_NAME something else comes first.
    while is_structured && !rest.is_empty() {
        if let Some(chunk) = rest.strip_prefix(&STRUCTURED_REPLY) {
            // Flags, type, cookie.
            rest = skip_data(chunk, 12);
        } else if let Some(simple) = rest.strip_prefix(&SIMPLE_REPLY) {
            rest = simple.get(12..).expect("a reply has its error and cookie");
        } else {
            // Size and flags of an export that was opened by EXPORT_NAME.
            assert_eq!(
                rest[..8],
                EXPORT_BYTES.to_be_bytes(),
                "neither reply nor export"
            );
            let zeroes = rest.get(10..134).is_some_and(|zeroes| zeroes == [0; 124]);
            rest = &rest[if zeroes { 134 } else { 10 }..];
        }
    }
}

/// What follows a header of so many bytes, a length, and that many bytes.
fn skip_data(bytes: &[u8], header: usize) -> &[u8] {
    let length = bytes
        .get(header..header + 4)
        .and_then(|length| length.try_into().ok())
        .map(u32::from_be_bytes)
        .expect("a reply has its whole header");
    bytes
        .get(header + 4 + length as usize..)
        .expect("a reply has all its data")
}

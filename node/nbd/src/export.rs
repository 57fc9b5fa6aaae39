//! The seam: what the server asks of the block devices behind it.

use crate::connection::Connection;
use crate::reply::Reply;
use bytes::Bytes;
use std::pin::Pin;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};

/// Bytes of a READ or WRITE at most (32 MiB); advertised to clients.
pub const PAYLOAD_BYTES_MAX: u32 = 32 << 20;

/// A boxed future, as trait objects need it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// All that a server offers.
pub trait Exports: Send + Sync + 'static {
    /// The exports as LIST shows them.
    fn list(&self) -> Vec<ExportEntry>;

    /// What is known of an export, for INFO. Must have no effect: it promotes nothing.
    ///
    /// The future is dropped when its client goes away or the server stops.
    fn info<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<ExportInfo, Refusal>>;

    /// Opens an export for one client (GO or EXPORT_NAME). May take seconds, and may refuse with a text for the client.
    ///
    /// `client` ends that client's connection when the owner wants it to. The future is dropped when the client goes
    /// away or the server stops: whatever it began must then undo itself.
    fn open<'a>(
        &'a self,
        name: &'a str,
        client: Connection,
    ) -> BoxFuture<'a, Result<Arc<dyn Export>, Refusal>>;
}

/// An open export, as one connection sees it. It is dropped when that connection is over (the detach);
/// requests still unanswered then are answered to nobody.
///
/// A FLUSH covers every write that was answered before it came, on any connection to the same export
/// (the server promises that to clients as CAN_MULTI_CONN).
pub trait Export: Send + Sync {
    /// Size and manner. Asked once a connection, when it is opened.
    fn info(&self) -> ExportInfo;

    /// Takes a request. Its range lies in the export, is not empty (but for FLUSH) and is aligned to
    /// `block_bytes_min`; a read-only export gets no command that changes it.
    ///
    /// Called from the connection's task: must not block. Requests may be answered in any order, from any thread.
    fn submit(&self, request: Request, reply: Reply);

    /// Where it is served instead, if not here: asked once, when the client and this server have agreed on this. From then on nothing is
    /// submitted here: the client's bytes are passed there as they are, and what comes back is passed to the client.
    fn elsewhere(&self, _agreement: Agreement) -> Option<Elsewhere> {
        None
    }
}

/// What a client and a server have agreed on besides the export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// Replies are structured.
    pub structured: bool,
    /// The client may ask BLOCK_STATUS for base:allocation.
    pub allocation: bool,
}

/// A stream of bytes, both ways. What is written may wait until it is flushed.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// The way to another server.
pub struct Elsewhere {
    /// What is connected to it.
    pub stream: Box<dyn Stream>,
    /// What is said there before the client's requests.
    pub first: Bytes,
}

/// One line of LIST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportEntry {
    /// The export's name; at most 4096 bytes.
    pub name: String,
    /// For people; may be empty. What exceeds 4096 bytes is cut.
    pub description: String,
}

/// Size and manner of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportInfo {
    /// Its size in bytes: a multiple of `block_bytes_min`.
    pub bytes: u64,
    /// What offsets and lengths must be multiples of: a power of two, at most 64 KiB.
    pub block_bytes_min: u32,
    /// What they had better be multiples of: a power of two, at least `block_bytes_min`, at most 32 MiB.
    pub block_bytes_preferred: u32,
    /// Whether everything that would change it is refused.
    pub read_only: bool,
    /// For people; may be empty. What exceeds 4096 bytes is cut.
    pub description: String,
}

impl ExportInfo {
    /// # Panics
    /// When a field breaks its bound.
    pub(crate) fn assert_sound(&self) {
        assert!(
            self.block_bytes_min.is_power_of_two() && self.block_bytes_min <= 64 << 10,
            "{self:?}"
        );
        assert!(self.block_bytes_preferred.is_power_of_two(), "{self:?}");
        assert!(
            self.block_bytes_preferred >= self.block_bytes_min,
            "{self:?}"
        );
        assert!(self.block_bytes_preferred <= PAYLOAD_BYTES_MAX, "{self:?}");
        assert!(
            self.bytes.is_multiple_of(u64::from(self.block_bytes_min)),
            "{self:?}"
        );
    }
}

/// Why an export is not opened or described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the client's program decides by.
    pub kind: RefusalKind,
    /// What its user reads. What exceeds 4096 bytes is cut.
    pub message: String,
}

/// What kind of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// There is no such export (NBD_REP_ERR_UNKNOWN).
    Unknown,
    /// It exists, but is not to be served here and now (NBD_REP_ERR_POLICY).
    Policy,
    /// The server, or the export, is being shut down (NBD_REP_ERR_SHUTDOWN).
    Shutdown,
}

/// What a client asks of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What to do.
    pub command: Command,
    /// Where it begins, in bytes; 0 for FLUSH.
    pub offset: u64,
    /// How many bytes; 0 for FLUSH. READ and WRITE stay within [`PAYLOAD_BYTES_MAX`], the others within 4 GiB.
    pub length: u64,
    /// Answer only when the effect is on stable storage.
    pub fua: bool,
}

/// What to do with a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Answer with exactly `length` bytes: [`Reply::data`].
    Read,
    /// Store the payload: [`Reply::done`].
    Write {
        /// Exactly `length` bytes.
        payload: Bytes,
    },
    /// Make what was answered so far stable: [`Reply::done`].
    Flush,
    /// The content doesn't matter any more: [`Reply::done`].
    Trim,
    /// Make it read as zeroes: [`Reply::done`].
    WriteZeroes {
        /// Keep the space allocated.
        no_hole: bool,
        /// Fail with [`crate::Errno::NotSupported`], at once, where it would be no faster than writing.
        fast: bool,
    },
    /// Tell what is allocated: [`Reply::status`].
    BlockStatus {
        /// The client wants one extent only.
        one: bool,
    },
    /// Have the range ready for reading, if that helps: [`Reply::done`].
    Cache,
}

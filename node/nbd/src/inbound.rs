//! What comes from a client: small headers out of a buffer, large payloads straight into their own memory.

use bytes::{BufMut, Bytes, BytesMut};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const BUFFER_BYTES: usize = 64 << 10;

/// Behind a payload of at least this many bytes another one is likely, so the next read takes little more than a header:
/// what is not buffered need not be copied out of the buffer. Small requests are better read many at a time.
const PAYLOAD_LARGE_BYTES: usize = 32 << 10;
const FILL_AFTER_LARGE_BYTES: usize = 512;

/// A buffered reader. All its calls but [`Inbound::ended`] leave the stream unusable when they fail or are dropped.
pub(crate) struct Inbound<R> {
    stream: R,
    buffer: Box<[u8]>,
    /// The unread bytes are `buffer[start..end]`.
    start: usize,
    end: usize,
    /// How much the next read may bring.
    fill_bytes: usize,
}

impl<R: AsyncRead + Unpin> Inbound<R> {
    pub(crate) fn new(stream: R) -> Inbound<R> {
        Inbound {
            stream,
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            fill_bytes: BUFFER_BYTES,
        }
    }

    /// The next `N` bytes; none when the stream ended right before them.
    pub(crate) async fn header<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        const {
            assert!(
                N <= FILL_AFTER_LARGE_BYTES,
                "a header fits the smallest read"
            )
        };
        while self.end - self.start < N {
            let before = self.end - self.start;
            if self.fill().await? == 0 {
                return if before == 0 {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
        let mut header = [0; N];
        header.copy_from_slice(&self.buffer[self.start..self.start + N]);
        self.start += N;
        Ok(Some(header))
    }

    /// The next `length` bytes, in memory of exactly that size. The caller bounds `length`.
    pub(crate) async fn payload(&mut self, length: usize) -> io::Result<Bytes> {
        let mut payload = BytesMut::with_capacity(length);
        let buffered = length.min(self.end - self.start);
        payload.extend_from_slice(&self.buffer[self.start..self.start + buffered]);
        self.start += buffered;
        let mut rest = payload.limit(length - buffered);
        while rest.has_remaining_mut() {
            if self.stream.read_buf(&mut rest).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let payload = rest.into_inner();
        assert_eq!(payload.len(), length, "a payload is as long as announced");
        self.fill_bytes = if length >= PAYLOAD_LARGE_BYTES {
            FILL_AFTER_LARGE_BYTES
        } else {
            BUFFER_BYTES
        };
        Ok(payload.freeze())
    }

    /// Throws the next `length` bytes away, in constant memory.
    pub(crate) async fn discard(&mut self, mut length: u64) -> io::Result<()> {
        self.fill_bytes = BUFFER_BYTES;
        loop {
            let buffered = self.end - self.start;
            let taken = usize::try_from(length).map_or(buffered, |length| buffered.min(length));
            self.start += taken;
            length -= taken as u64;
            if length == 0 {
                return Ok(());
            }
            if self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Passes all that comes to `there`, until the stream's end.
    pub(crate) async fn pass_on<W: AsyncWrite + Unpin>(&mut self, there: &mut W) -> io::Result<()> {
        self.fill_bytes = BUFFER_BYTES;
        loop {
            if self.start == self.end && self.fill().await? == 0 {
                return Ok(());
            }
            there.write_all(&self.buffer[self.start..self.end]).await?;
            self.start = self.end;
            there.flush().await?;
        }
    }

    /// Waits for the stream's end, as long as the client sends nothing. What it sends is kept, and ends the watch:
    /// then this never returns. May be dropped at any time without loss.
    pub(crate) async fn ended(&mut self) {
        if self.start == self.end && self.fill().await.unwrap_or(0) == 0 {
            return;
        }
        std::future::pending::<()>().await;
    }

    /// One read. Gives 0 at the stream's end.
    async fn fill(&mut self) -> io::Result<usize> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == BUFFER_BYTES {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let until = BUFFER_BYTES.min(self.end + self.fill_bytes);
        assert!(self.end < until, "a fill has room: {} of {until}", self.end);
        let count = self.stream.read(&mut self.buffer[self.end..until]).await?;
        self.end += count;
        Ok(count)
    }
}

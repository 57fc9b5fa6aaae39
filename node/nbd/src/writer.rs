//! The writer of a connection: gathers all replies that are ready into as few vectored writes as possible.

use crate::connection::Connection;
use crate::reply::{Answer, Body, Errno, Extent};
use crate::window::Window;
use crate::wire::{self, bounded, chunk, meta_context};
use bytes::Bytes;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::UnboundedReceiver;

/// Replies gathered at once. Each has one header and, with data in one part, one payload.
const ANSWERS_GATHERED_MAX: usize = 128;
/// Header bytes kept for the next round; more, after many long replies, is given back.
const HEADERS_KEPT_BYTES: usize = 64 << 10;
/// Slices handed to one vectored write.
const SLICES_MAX: usize = 256;

/// Writes answers until there are none to come and the last is out, or the socket fails.
pub(crate) async fn run<W: AsyncWrite + Unpin>(
    mut write: W,
    mut answers: UnboundedReceiver<Answer>,
    window: Arc<Window>,
    structured: bool,
    connection: Connection,
) {
    let mut ready = Vec::with_capacity(ANSWERS_GATHERED_MAX);
    let mut gathered = Gathered::default();
    while answers.recv_many(&mut ready, ANSWERS_GATHERED_MAX).await > 0 {
        let requests = ready.len();
        let bytes = ready.iter().map(|answer| answer.window_bytes).sum();
        let closing = ready.iter().any(Answer::is_shutdown) && connection.is_closing();
        for answer in ready.drain(..) {
            if closing && answer.is_shutdown() {
                continue;
            }
            gathered.push(answer, structured);
        }
        let written = async {
            gathered.write_to(&mut write).await?;
            write.flush().await
        };
        if let Err(error) = written.await {
            tracing::debug!(?connection, %error, "NBD replies not written");
            return;
        }
        window.release(requests, bytes);
    }
    // Fails when the client is gone: then it needs no good-bye.
    let _ = write.shutdown().await;
}

/// Replies on their way out: headers, encoded one behind the other, and payloads between them.
#[derive(Default)]
struct Gathered {
    headers: Vec<u8>,
    segments: Vec<Segment>,
}

/// A run of bytes to write.
enum Segment {
    Headers(Range<usize>),
    Payload(Bytes),
}

impl Gathered {
    fn push(&mut self, answer: Answer, structured: bool) {
        let start = self.headers.len();
        match answer.body {
            Body::Done => self.simple(answer.cookie, 0),
            Body::Error { errno, message } if structured => {
                self.error_chunk(answer.cookie, errno, &message)
            }
            Body::Error { errno, .. } => self.simple(answer.cookie, errno as u32),
            Body::Status { extents } => self.status_chunk(answer.cookie, &extents),
            Body::Data {
                offset,
                first,
                more,
            } => {
                if structured {
                    let bytes = more.iter().fold(first.len(), |sum, part| sum + part.len());
                    self.chunk(answer.cookie, chunk::OFFSET_DATA, size_of::<u64>() + bytes);
                    self.headers.extend(offset.to_be_bytes());
                } else {
                    self.simple(answer.cookie, 0);
                }
                self.headers_from(start);
                self.payload(first);
                more.into_iter().for_each(|part| self.payload(part));
                return;
            }
        }
        self.headers_from(start);
    }

    fn simple(&mut self, cookie: u64, error: u32) {
        self.headers.extend(wire::SIMPLE_REPLY_MAGIC.to_be_bytes());
        self.headers.extend(error.to_be_bytes());
        self.headers.extend(cookie.to_be_bytes());
    }

    /// The header of a reply's only chunk.
    fn chunk(&mut self, cookie: u64, kind: u16, length: usize) {
        let length = u32::try_from(length).expect("a chunk holds 32 MiB and its header at most");
        self.headers
            .extend(wire::STRUCTURED_REPLY_MAGIC.to_be_bytes());
        self.headers.extend(chunk::FLAG_DONE.to_be_bytes());
        self.headers.extend(kind.to_be_bytes());
        self.headers.extend(cookie.to_be_bytes());
        self.headers.extend(length.to_be_bytes());
    }

    fn error_chunk(&mut self, cookie: u64, errno: Errno, message: &str) {
        let message = bounded(message);
        self.chunk(
            cookie,
            chunk::ERROR,
            size_of::<u32>() + size_of::<u16>() + message.len(),
        );
        self.headers.extend((errno as u32).to_be_bytes());
        self.headers.extend((message.len() as u16).to_be_bytes());
        self.headers.extend(message.as_bytes());
    }

    fn status_chunk(&mut self, cookie: u64, extents: &[Extent]) {
        self.chunk(
            cookie,
            chunk::BLOCK_STATUS,
            size_of::<u32>() + 2 * size_of::<u32>() * extents.len(),
        );
        self.headers
            .extend(meta_context::BASE_ALLOCATION_ID.to_be_bytes());
        for extent in extents {
            let bytes = u32::try_from(extent.bytes)
                .expect("a status was cut to its request, which is below 4 GiB");
            let hole = if extent.hole {
                meta_context::STATE_HOLE
            } else {
                0
            };
            let zero = if extent.zero {
                meta_context::STATE_ZERO
            } else {
                0
            };
            self.headers.extend(bytes.to_be_bytes());
            self.headers.extend((hole | zero).to_be_bytes());
        }
    }

    /// Makes the headers from `start` on the next to be written.
    fn headers_from(&mut self, start: usize) {
        match self.segments.last_mut() {
            Some(Segment::Headers(range)) => range.end = self.headers.len(),
            _ => self
                .segments
                .push(Segment::Headers(start..self.headers.len())),
        }
    }

    fn payload(&mut self, payload: Bytes) {
        if !payload.is_empty() {
            self.segments.push(Segment::Payload(payload));
        }
    }

    fn bytes_of<'a>(&'a self, segment: &'a Segment) -> &'a [u8] {
        match segment {
            Segment::Headers(range) => &self.headers[range.clone()],
            Segment::Payload(payload) => payload,
        }
    }

    /// Writes all of it, and is empty again.
    async fn write_to<W: AsyncWrite + Unpin>(&mut self, write: &mut W) -> io::Result<()> {
        // What was written of the segment `first`; those before it are out.
        let (mut first, mut written) = (0, 0);
        while first < self.segments.len() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let mut count = 0;
            for segment in self.segments[first..].iter().take(SLICES_MAX) {
                let skip = if count == 0 { written } else { 0 };
                slices[count] = IoSlice::new(&self.bytes_of(segment)[skip..]);
                count += 1;
            }
            let mut sent = write.write_vectored(&slices[..count]).await?;
            if sent == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            while sent > 0 {
                let left = self.bytes_of(&self.segments[first]).len() - written;
                if sent < left {
                    written += sent;
                    break;
                }
                sent -= left;
                first += 1;
                written = 0;
            }
        }
        self.headers.clear();
        self.headers.shrink_to(HEADERS_KEPT_BYTES);
        self.segments.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::sync::{mpsc, watch};

    #[tokio::test]
    async fn replies_come_out_whole_through_a_socket_that_takes_a_few_bytes_at_a_time() {
        for structured in [false, true] {
            let (mut client, server) = tokio::io::duplex(7);
            let (answers, answered) = mpsc::unbounded_channel();
            let window = Arc::new(Window::new(2 * SLICES_MAX, usize::MAX));
            let mut expected = Vec::new();
            for cookie in 0..SLICES_MAX as u64 {
                window.admit(0).await;
                let parts = [
                    vec![cookie as u8; 5],
                    vec![],
                    vec![!cookie as u8; cookie as usize % 9],
                ];
                let data = parts.concat();
                if structured {
                    expected.extend(0x668e_33ef_0001_0001_u64.to_be_bytes());
                    expected.extend(cookie.to_be_bytes());
                    expected.extend((8 + data.len() as u32).to_be_bytes());
                    expected.extend((cookie * 10).to_be_bytes());
                } else {
                    expected.extend(0x6744_6698_0000_0000_u64.to_be_bytes());
                    expected.extend(cookie.to_be_bytes());
                }
                expected.extend(data);
                let [first, more @ ..] = parts.map(Bytes::from);
                let body = Body::Data {
                    offset: cookie * 10,
                    first,
                    more: more.to_vec(),
                };
                answers
                    .send(Answer {
                        cookie,
                        window_bytes: 0,
                        body,
                    })
                    .unwrap();
            }
            drop(answers);
            let connection = Connection::new(1, "test".to_owned(), watch::channel(false).1);
            let writer = tokio::spawn(run(server, answered, window, structured, connection));
            let mut received = Vec::new();
            client.read_to_end(&mut received).await.unwrap();
            assert!(received == expected);
            writer.await.unwrap();
        }
    }

    #[test]
    fn errors_and_extents_have_the_documented_layout() {
        let mut gathered = Gathered::default();
        let error = Body::Error {
            errno: Errno::NoSpace,
            message: "full".into(),
        };
        gathered.push(
            Answer {
                cookie: 1,
                window_bytes: 0,
                body: error,
            },
            true,
        );
        let extents = vec![
            Extent {
                bytes: 4096,
                hole: true,
                zero: true,
            },
            Extent {
                bytes: 8192,
                hole: false,
                zero: false,
            },
        ];
        gathered.push(
            Answer {
                cookie: 2,
                window_bytes: 0,
                body: Body::Status { extents },
            },
            true,
        );
        let words: Vec<u32> = [
            &[0x668e_33ef, 0x0001_8001, 0, 1, 10, 28][..],
            &[0x0004_6675, 0x6c6c_668e],
        ]
        .concat();
        let begin: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        assert_eq!(gathered.headers[..32], begin);
        let rest = [0x33ef_0001_u32, 0x0005_0000, 0, 0x0002_0000, 0x0014_0000];
        let rest: Vec<u8> = rest.iter().flat_map(|word| word.to_be_bytes()).collect();
        assert_eq!(gathered.headers[32..52], rest);
        let tail: Vec<u8> = [1u32, 4096, 3, 8192, 0]
            .iter()
            .flat_map(|word| word.to_be_bytes())
            .collect();
        assert_eq!(gathered.headers[50..], tail);
        assert_eq!(gathered.segments.len(), 1, "headers in a row are one slice");
    }
}

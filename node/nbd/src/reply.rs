//! The answer to one request: a one-shot that any thread may use without blocking.

use bytes::Bytes;
use std::borrow::Cow;
use tokio::sync::mpsc::UnboundedSender;

/// Extents in one reply at most (32 KiB on the wire); a client asks again for the rest.
const EXTENTS_MAX: usize = 4096;

/// What went wrong, in the protocol's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Errno {
    /// Not permitted, such as writing to a read-only export.
    Permission = 1,
    /// The storage failed.
    Io = 5,
    /// Out of memory.
    NoMemory = 12,
    /// The request makes no sense.
    Invalid = 22,
    /// No space left, or a write past the end.
    NoSpace = 28,
    /// A READ too long for one chunk.
    Overflow = 75,
    /// Not supported, such as zeroing faster than writing.
    NotSupported = 95,
    /// The server or export is being shut down.
    Shutdown = 108,
}

/// A run of bytes of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// How many bytes: not 0, a multiple of the export's smallest block.
    pub bytes: u64,
    /// Nothing is allocated for it.
    pub hole: bool,
    /// It reads as zeroes.
    pub zero: bool,
}

/// The one answer to a request. Dropped unanswered, it answers EIO.
#[must_use = "a dropped reply is an I/O error at the client"]
pub struct Reply {
    answers: UnboundedSender<Answer>,
    cookie: u64,
    /// The payload bytes that the request has taken of its connection's window.
    window_bytes: usize,
    expects: Expects,
    answered: bool,
}

/// What kind of answer a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expects {
    /// That it is done.
    Done,
    /// The bytes of this range.
    Data { offset: u64, length: u64 },
    /// Extents from the start of a range of this length; one, or as many as there are.
    Status { length: u64, one: bool },
}

/// An answer on its way to the connection's writer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) cookie: u64,
    pub(crate) window_bytes: usize,
    pub(crate) body: Body,
}

impl Answer {
    /// Whether it only says that nothing is served here any more.
    pub(crate) fn is_shutdown(&self) -> bool {
        matches!(
            self.body,
            Body::Error {
                errno: Errno::Shutdown,
                ..
            }
        )
    }
}

/// What an answer says.
#[derive(Debug)]
pub(crate) enum Body {
    Done,
    Data {
        offset: u64,
        first: Bytes,
        more: Vec<Bytes>,
    },
    Status {
        extents: Vec<Extent>,
    },
    Error {
        errno: Errno,
        message: Cow<'static, str>,
    },
}

impl Reply {
    pub(crate) fn new(
        answers: UnboundedSender<Answer>,
        cookie: u64,
        window_bytes: usize,
        expects: Expects,
    ) -> Reply {
        Reply {
            answers,
            cookie,
            window_bytes,
            expects,
            answered: false,
        }
    }

    /// The request is done: the answer to all but READ and BLOCK_STATUS.
    ///
    /// # Panics
    /// When the request wants data or extents.
    pub fn done(self) {
        assert_eq!(
            self.expects,
            Expects::Done,
            "this request wants more than to be done"
        );
        self.send(Body::Done);
    }

    /// The bytes that a READ asked for.
    ///
    /// # Panics
    /// When they are not exactly as many as asked for, or it was no READ.
    pub fn data(self, data: Bytes) {
        self.send_data(data, Vec::new());
    }

    /// The bytes that a READ asked for, in parts one behind the other; they are gathered, not copied.
    ///
    /// # Panics
    /// As [`Reply::data`].
    pub fn data_parts(self, mut parts: Vec<Bytes>) {
        let first = if parts.is_empty() {
            Bytes::new()
        } else {
            parts.remove(0)
        };
        self.send_data(first, parts);
    }

    /// Extents from the start of the asked range on, at least one. What lies past the range's end is cut off,
    /// so are extents past the first where the client wanted one, or past 4096; fewer than the range holds is fine.
    ///
    /// # Panics
    /// When there is none, one is empty, or it was no BLOCK_STATUS.
    pub fn status(self, mut extents: Vec<Extent>) {
        let Expects::Status { length, one } = self.expects else {
            panic!("extents for a request that wants {:?}", self.expects);
        };
        assert!(!extents.is_empty(), "a status has at least one extent");
        extents.truncate(if one { 1 } else { EXTENTS_MAX });
        let mut left = length;
        let mut within = 0;
        for extent in &mut extents {
            assert!(extent.bytes > 0, "no extent is empty");
            if left == 0 {
                break;
            }
            extent.bytes = extent.bytes.min(left);
            left -= extent.bytes;
            within += 1;
        }
        extents.truncate(within);
        self.send(Body::Status { extents });
    }

    /// The request failed. `message` reaches clients that negotiated structured replies; past 4096 bytes it is cut.
    pub fn error(self, errno: Errno, message: impl Into<Cow<'static, str>>) {
        self.send(Body::Error {
            errno,
            message: message.into(),
        });
    }

    fn send_data(self, first: Bytes, more: Vec<Bytes>) {
        let Expects::Data { offset, length } = self.expects else {
            panic!("data for a request that wants {:?}", self.expects);
        };
        let bytes = more.iter().fold(first.len(), |sum, part| sum + part.len()) as u64;
        assert_eq!(
            bytes, length,
            "a READ is answered with as many bytes as it asked for"
        );
        self.send(Body::Data {
            offset,
            first,
            more,
        });
    }

    fn send(mut self, body: Body) {
        self.answer(body);
    }

    fn answer(&mut self, body: Body) {
        self.answered = true;
        // Fails when the connection is over: then there is nobody to answer.
        let _ = self.answers.send(Answer {
            cookie: self.cookie,
            window_bytes: self.window_bytes,
            body,
        });
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.answered {
            self.answer(Body::Error {
                errno: Errno::Io,
                message: Cow::Borrowed("the request was given up"),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    fn reply(expects: Expects) -> (Reply, UnboundedReceiver<Answer>) {
        let (answers, answered) = unbounded_channel();
        (Reply::new(answers, 7, 0, expects), answered)
    }

    fn extents(bytes: &[u64]) -> Vec<Extent> {
        bytes
            .iter()
            .map(|&bytes| Extent {
                bytes,
                hole: true,
                zero: true,
            })
            .collect()
    }

    #[test]
    fn a_status_is_cut_to_what_was_asked() {
        for (length, one, given, sent) in [
            (10, false, vec![4, 20, 5], vec![4, 6]),
            (10, false, vec![10, 1], vec![10]),
            (10, false, vec![3], vec![3]),
            (10, true, vec![4, 6], vec![4]),
            (10, true, vec![40], vec![10]),
        ] {
            let (reply, mut answered) = reply(Expects::Status { length, one });
            reply.status(extents(&given));
            let Some(Answer {
                body: Body::Status { extents: body },
                ..
            }) = answered.blocking_recv()
            else {
                panic!("a status was sent");
            };
            assert_eq!(body, extents(&sent));
            assert!(answered.blocking_recv().is_none(), "one answer, no more");
        }
    }

    #[test]
    #[should_panic(expected = "as many bytes as it asked for")]
    fn a_read_answered_with_too_little_is_our_own_mistake() {
        reply(Expects::Data {
            offset: 0,
            length: 10,
        })
        .0
        .data(Bytes::from_static(b"123456789"));
    }

    #[test]
    #[should_panic(expected = "wants more than to be done")]
    fn a_read_is_not_just_done() {
        reply(Expects::Data {
            offset: 0,
            length: 10,
        })
        .0
        .done();
    }
}

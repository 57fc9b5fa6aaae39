//! The transmission phase: requests in, replies out, until one side ends it.

use crate::connection::Connection;
use crate::export::{Command, Export, Request};
use crate::inbound::Inbound;
use crate::reply::{Answer, Expects, Reply};
use crate::request::{
    Accepted, HEADER_BYTES, Kind, PAYLOAD_DISCARDED_BYTES_MAX, RequestHeader, Rules, Verdict,
};
use crate::server::Limits;
use crate::window::Window;
use crate::writer;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Why a transmission phase ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransmissionEnd {
    #[error("the client disconnected")]
    Disconnected,
    #[error("the client left without disconnecting")]
    Left,
    #[error("{0}")]
    Nonsense(&'static str),
    #[error("{0}")]
    Closed(String),
    #[error("the socket took no more replies")]
    Unwritable,
    #[error("socket: {0}")]
    Socket(#[from] io::Error),
}

/// Stops the writer when its connection's task is dropped.
struct Writer(JoinHandle<()>);

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Serves requests until the client or the owner ends it, then sends what is answered within [`Limits::drain`].
pub(crate) async fn run<R, W>(
    inbound: &mut Inbound<R>,
    write: W,
    export: &Arc<dyn Export>,
    rules: Rules,
    limits: &Limits,
    connection: &Connection,
) -> TransmissionEnd
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let window = Arc::new(Window::new(
        limits.requests_in_flight,
        limits.payload_bytes_in_flight,
    ));
    let (answers, answered) = mpsc::unbounded_channel();
    let mut writer = Writer(tokio::spawn(writer::run(
        write,
        answered,
        window.clone(),
        rules.structured,
        connection.clone(),
    )));
    let end = tokio::select! {
        end = read_requests(inbound, &**export, answers, &rules, &window) => end,
        reason = connection.closed() => TransmissionEnd::Closed(reason),
        _ = &mut writer.0 => return TransmissionEnd::Unwritable,
    };
    // The reader's sender is gone: the writer ends once every request in flight is answered. A broken socket takes no
    // more replies, so there the wait would only delay the detach.
    if !matches!(end, TransmissionEnd::Socket(_))
        && timeout(limits.drain, &mut writer.0).await.is_err()
    {
        tracing::debug!(
            ?connection,
            "NBD replies still missing when the connection was over"
        );
    }
    end
}

async fn read_requests<R: AsyncRead + Unpin>(
    inbound: &mut Inbound<R>,
    export: &dyn Export,
    answers: UnboundedSender<Answer>,
    rules: &Rules,
    window: &Window,
) -> TransmissionEnd {
    loop {
        match read_request(inbound, export, &answers, rules, window).await {
            Ok(None) => {}
            Ok(Some(end)) => return end,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return TransmissionEnd::Left;
            }
            Err(error) => return TransmissionEnd::Socket(error),
        }
    }
}

/// Reads one request and hands it to the export, or refuses it.
async fn read_request<R: AsyncRead + Unpin>(
    inbound: &mut Inbound<R>,
    export: &dyn Export,
    answers: &UnboundedSender<Answer>,
    rules: &Rules,
    window: &Window,
) -> io::Result<Option<TransmissionEnd>> {
    let Some(header) = inbound.header::<HEADER_BYTES>().await? else {
        return Ok(Some(TransmissionEnd::Left));
    };
    let Some(header) = RequestHeader::decode(&header) else {
        return Ok(Some(TransmissionEnd::Nonsense(
            "a request without its magic",
        )));
    };
    match header.check(rules) {
        Verdict::Disconnect => return Ok(Some(TransmissionEnd::Disconnected)),
        Verdict::Accepted(accepted) => {
            let window_bytes = accepted.window_bytes();
            window.admit(window_bytes).await;
            let payload_bytes = header.payload_bytes() as usize;
            let command = match accepted.kind {
                Kind::Read => Command::Read,
                Kind::Write => Command::Write {
                    payload: inbound.payload(payload_bytes).await?,
                },
                Kind::Flush => Command::Flush,
                Kind::Trim => Command::Trim,
                Kind::WriteZeroes { no_hole, fast } => Command::WriteZeroes { no_hole, fast },
                Kind::BlockStatus { one } => Command::BlockStatus { one },
                Kind::Cache => Command::Cache,
            };
            // Made after the payload is whole: a client that broke off gets no answer.
            let reply = Reply::new(
                answers.clone(),
                header.cookie,
                window_bytes,
                accepted.expects(),
            );
            let (offset, length) = (accepted.offset, u64::from(accepted.length));
            export.submit(
                Request {
                    command,
                    offset,
                    length,
                    fua: accepted.fua,
                },
                reply,
            );
        }
        Verdict::Refused(errno, message) => {
            window.admit(0).await;
            let payload_bytes = header.payload_bytes();
            let too_long = payload_bytes > PAYLOAD_DISCARDED_BYTES_MAX;
            if !too_long {
                inbound.discard(u64::from(payload_bytes)).await?;
            }
            Reply::new(answers.clone(), header.cookie, 0, Expects::Done).error(errno, message);
            if too_long {
                return Ok(Some(TransmissionEnd::Nonsense("a WRITE far too long")));
            }
        }
    }
    Ok(None)
}

impl Accepted {
    /// What the request takes of its connection's window: the payload that comes with it, or with its reply.
    fn window_bytes(&self) -> usize {
        match self.kind {
            Kind::Read | Kind::Write => self.length as usize,
            Kind::Flush
            | Kind::Trim
            | Kind::WriteZeroes { .. }
            | Kind::BlockStatus { .. }
            | Kind::Cache => 0,
        }
    }

    fn expects(&self) -> Expects {
        let length = u64::from(self.length);
        match self.kind {
            Kind::Read => Expects::Data {
                offset: self.offset,
                length,
            },
            Kind::BlockStatus { one } => Expects::Status { length, one },
            Kind::Write | Kind::Flush | Kind::Trim | Kind::WriteZeroes { .. } | Kind::Cache => {
                Expects::Done
            }
        }
    }
}

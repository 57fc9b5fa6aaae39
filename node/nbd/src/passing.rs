//! A client whose export is served elsewhere: after the handshake its bytes are passed on as they are, both ways. Nothing is looked at, and
//! no more is kept than one buffer for each way: who does not take holds up who sends.

use crate::connection::Connection;
use crate::export::Elsewhere;
use crate::inbound::Inbound;
use crate::server::Limits;
use crate::transmission::TransmissionEnd;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf};
use tokio::time::timeout;

/// The buffer for what comes back.
const BUFFER_BYTES: usize = 128 << 10;

/// Passes bytes until one side ends it. When the client or the owner does, what is still answered within [`Limits::drain`] is passed back;
/// when the other server does, that is the end at once.
pub(crate) async fn run<R, W>(
    inbound: &mut Inbound<R>,
    mut write: W,
    elsewhere: Elsewhere,
    limits: &Limits,
    connection: &Connection,
) -> TransmissionEnd
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let Elsewhere { stream, first } = elsewhere;
    let (from_there, mut to_there) = tokio::io::split(stream);
    let mut back = std::pin::pin!(pass_back(from_there, &mut write));
    let there = async {
        to_there.write_all(&first).await?;
        to_there.flush().await?;
        inbound.pass_on(&mut to_there).await
    };
    let end = tokio::select! {
        // First what was answered: a close that comes with it costs no reply.
        biased;
        ended = &mut back => return ended,
        passed = there => match passed {
            Ok(()) => TransmissionEnd::Left,
            Err(error) => TransmissionEnd::Socket(error),
        },
        reason = connection.closed() => TransmissionEnd::Closed(reason),
    };
    let rest = async {
        // Fails when the other server is gone: then nothing comes back, either.
        let _ = to_there.shutdown().await;
        back.await
    };
    if timeout(limits.drain, rest).await.is_err() {
        tracing::debug!(
            ?connection,
            "NBD replies still missing when the connection was over"
        );
    }
    end
}

/// Passes back what comes, and then that nothing does any more.
async fn pass_back<S, W>(mut from_there: ReadHalf<S>, write: &mut W) -> TransmissionEnd
where
    S: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER_BYTES];
    let ended = loop {
        match from_there.read(&mut buffer).await {
            Ok(0) => break None,
            Ok(bytes) => {
                if let Err(error) = write.write_all(&buffer[..bytes]).await {
                    tracing::debug!(%error, "NBD replies not passed back");
                    return TransmissionEnd::Unwritable;
                }
            }
            Err(error) => break Some(error),
        }
    };
    // Fails when the client is gone: then it needs no good-bye.
    let _ = write.shutdown().await;
    let reason = ended.map_or_else(
        || "the server that it was forwarded to ended it".to_owned(),
        |error: io::Error| format!("the way to the server that it was forwarded to: {error}"),
    );
    TransmissionEnd::Closed(reason)
}

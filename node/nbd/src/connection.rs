//! A client's connection as its owner sees it, and the life of a connection from greeting to end.

use crate::export::{Agreement, Export, Exports, Stream};
use crate::handshake::{self, Agreed, HandshakeEnd};
use crate::inbound::Inbound;
use crate::passing;
use crate::request::Rules;
use crate::server::{Adopted, Limits};
use crate::transmission;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::timeout;

/// After the last byte was sent, input is thrown away for so long and so much, because closing a socket with unread
/// input resets it, which may cost the client the last replies.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: u64 = 4 << 20;

/// One client's connection: a handle that any thread may keep, also after the connection is over.
#[derive(Clone)]
pub struct Connection {
    shared: Arc<Shared>,
}

struct Shared {
    number: u64,
    peer: String,
    closed: watch::Sender<Option<String>>,
    server_stops: watch::Receiver<bool>,
}

impl Connection {
    pub(crate) fn new(
        number: u64,
        peer: String,
        server_stops: watch::Receiver<bool>,
    ) -> Connection {
        Connection {
            shared: Arc::new(Shared {
                number,
                peer,
                closed: watch::Sender::new(None),
                server_stops,
            }),
        }
    }

    /// The connection's number: unique in its server.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.shared.number
    }

    /// Who is at the other end, for people: a socket address, or `unix`.
    #[must_use]
    pub fn peer(&self) -> &str {
        &self.shared.peer
    }

    /// Ends the connection: no request is read any more, replies already given and those given within
    /// [`Limits::drain`] are still sent, except for `Errno::Shutdown`: that the connection ends says the same, and a client that
    /// connects anew asks again for what was not answered, where an error would be final. `reason` goes to the log. Never blocks; once is enough.
    pub fn close(&self, reason: impl Into<String>) {
        self.shared.closed.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                *current = Some(reason.into());
            }
            first
        });
    }

    /// Whether the owner has closed this connection, or the server stops.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.shared.closed.borrow().is_some() || *self.shared.server_stops.borrow()
    }

    /// Waits until the owner closes this connection or the server stops; gives the reason.
    pub(crate) async fn closed(&self) -> String {
        let mut own = self.shared.closed.subscribe();
        let mut server = self.shared.server_stops.clone();
        tokio::select! {
            reason = own.wait_for(Option::is_some) => {
                reason.ok().and_then(|reason| reason.clone()).unwrap_or_default()
            }
            // A server that was dropped without being stopped is as gone as a stopped one.
            _ = server.wait_for(|stops| *stops) => "the server stops".to_owned(),
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "Connection({} from {})",
            self.shared.number, self.shared.peer
        )
    }
}

/// Serves one client from the greeting to the end.
pub(crate) async fn serve<R, W>(
    read: R,
    mut write: W,
    exports: Arc<dyn Exports>,
    limits: Limits,
    connection: Connection,
) where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let mut inbound = Inbound::new(read);
    let agreed = tokio::select! {
        agreed = handshake::run(&mut inbound, &mut write, &*exports, &limits, &connection) => agreed,
        reason = connection.closed() => Err(HandshakeEnd::Closed(reason)),
    };
    let agreed = match agreed {
        Ok(agreed) => agreed,
        Err(end) => {
            tracing::debug!(?connection, %end, "NBD handshake ended");
            // The client may be gone already: nothing is lost when this fails.
            let _ = timeout(limits.drain, write.shutdown()).await;
            linger(&mut inbound).await;
            return;
        }
    };
    tracing::debug!(?connection, name = %agreed.name, "NBD client attached");
    let Agreed {
        name,
        export,
        rules,
    } = agreed;
    let agreement = Agreement {
        structured: rules.structured,
        allocation: rules.allocation,
    };
    let end = match export.elsewhere(agreement) {
        Some(elsewhere) => passing::run(&mut inbound, write, elsewhere, &limits, &connection).await,
        None => transmission::run(&mut inbound, write, &export, rules, &limits, &connection).await,
    };
    detach(export);
    tracing::debug!(?connection, %name, %end, "NBD client detached");
    linger(&mut inbound).await;
}

/// Serves a client whose handshake another server has made.
pub(crate) async fn adopt<S: Stream + 'static>(
    opening: impl Future<Output = Option<Adopted<S>>>,
    limits: Limits,
    connection: Connection,
) {
    let adopted = tokio::select! {
        adopted = opening => adopted,
        _ = connection.closed() => None,
    };
    let Some(Adopted {
        stream,
        export,
        agreement,
    }) = adopted
    else {
        return;
    };
    let info = export.info();
    info.assert_sound();
    let rules = Rules {
        info,
        structured: agreement.structured,
        allocation: agreement.allocation,
    };
    let (read, write) = tokio::io::split(stream);
    let mut inbound = Inbound::new(read);
    let end = transmission::run(&mut inbound, write, &export, rules, &limits, &connection).await;
    detach(export);
    tracing::debug!(?connection, %end, "forwarded NBD client detached");
    linger(&mut inbound).await;
}

/// The end of an export's use by one connection: before the linger, which only concerns the socket.
fn detach(export: Arc<dyn Export>) {
    drop(export);
}

async fn linger<R: AsyncRead + Unpin>(inbound: &mut Inbound<R>) {
    // Ends early by an error as soon as the client has closed its side.
    let _ = timeout(LINGER, inbound.discard(LINGER_BYTES_MAX)).await;
}

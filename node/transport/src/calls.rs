//! Calls: a request and its answer on a two-way stream of the control connection.
//!
//! A stream that is given up half way looks finished to the other side, so that each body comes with its length.

use crate::handler::CallError;
use crate::session::Session;
use crate::wire::{
    CALL_BYTES_MAX, CALL_HEADER_BYTES, Class, Violation, decode_call_header, encode_call_header,
};
use bytes::{Bytes, BytesMut};
use quinn::{RecvStream, SendStream, VarInt};
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;

/// The buffer for a body grows by what comes, from this on.
const FIRST_BYTES: usize = 4096;

/// Stream code: the answer would be too long.
const CODE_TOO_LONG: u32 = 2;

enum Body {
    Whole(u8, Bytes),
    /// The stream ended before its body did.
    Cut,
}

/// Calls the peer.
pub(crate) async fn call(
    session: &Session,
    service: u8,
    request: Bytes,
) -> Result<Bytes, CallError> {
    let bytes = request.len();
    if bytes > CALL_BYTES_MAX {
        return Err(CallError::TooLong { bytes });
    }
    let _one_of_the_calls = session
        .calls_out
        .acquire()
        .await
        .map_err(|_| CallError::Broken)?;
    let streams = session.streams(Class::Control).open_bi().await;
    let (mut send, mut receive) = streams.map_err(|_| CallError::Broken)?;
    write(&mut send, service, request)
        .await
        .map_err(|_| CallError::Broken)?;
    match read(session, &mut receive).await {
        Ok(Body::Whole(0, answer)) => Ok(answer),
        Ok(_) => Err(CallError::Broken),
        Err(violation) => {
            session.fail(violation);
            Err(CallError::Broken)
        }
    }
}

/// Takes the peer's calls until the connection ends.
pub(crate) async fn accept_calls(session: Arc<Session>) {
    let mut answering = JoinSet::new();
    loop {
        let streams = tokio::select! {
            streams = session.streams(Class::Control).accept_bi() => streams,
            Some(_) = answering.join_next() => continue,
        };
        let Ok((send, receive)) = streams else { return };
        let session = Arc::clone(&session);
        answering.spawn(async move {
            if let Err(violation) = answer(&session, send, receive).await {
                session.fail(violation);
            }
        });
    }
}

async fn answer(
    session: &Session,
    mut send: SendStream,
    mut receive: RecvStream,
) -> Result<(), Violation> {
    let Body::Whole(service, request) = read(session, &mut receive).await? else {
        // The caller gave up.
        return Ok(());
    };
    let answer = session
        .peer
        .handler
        .call(session.peer.node, service, request)
        .await;
    if answer.len() > CALL_BYTES_MAX {
        tracing::error!(
            service,
            bytes = answer.len(),
            "an answer is too long to be sent"
        );
        // Fails only when the stream is gone already.
        let _ = send.reset(VarInt::from(CODE_TOO_LONG));
        return Ok(());
    }
    // An error means that the caller or the connection is gone: nobody waits for the answer.
    let _ = write(&mut send, 0, answer).await;
    Ok(())
}

async fn write(stream: &mut SendStream, service: u8, body: Bytes) -> Result<(), quinn::WriteError> {
    let header = Bytes::copy_from_slice(&encode_call_header(service, body.len()));
    stream.write_all_chunks(&mut [header, body]).await?;
    // Can't fail: the stream was neither finished nor reset.
    let _ = stream.finish();
    Ok(())
}

async fn read(session: &Session, stream: &mut RecvStream) -> Result<Body, Violation> {
    let mut header = [0; CALL_HEADER_BYTES];
    if stream.read_exact(&mut header).await.is_err() {
        return Ok(Body::Cut);
    }
    let (service, length) = decode_call_header(&header)?;
    let _unfinished = session.budget.take(length)?;
    let mut body = BytesMut::with_capacity(length.min(FIRST_BYTES));
    while body.len() < length {
        let missing = (length - body.len()) as u64;
        match AsyncReadExt::take(&mut *stream, missing)
            .read_buf(&mut body)
            .await
        {
            Ok(count) if count > 0 => {}
            _ => return Ok(Body::Cut),
        }
    }
    Ok(Body::Whole(service, body.freeze()))
}

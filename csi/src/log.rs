//! Runs what a call asks for, and says of each call how it ended and how long it took: one log line, and metrics. Nothing of what
//! a request carries is said but the volume's name: the rest may be secret.

use metrics::{counter, histogram};
use std::time::Instant;
use tonic::{Code, Response, Status};
use tracing::{info, warn};

/// Runs `act`, which blocks, to its end, also when the caller goes away.
pub async fn answer<T, F>(call: &'static str, volume: &str, act: F) -> Result<Response<T>, Status>
where
    F: FnOnce() -> Result<T, Status> + Send + 'static,
    T: Send + 'static,
{
    let volume = volume.to_owned();
    let task = tokio::task::spawn_blocking(move || {
        let begun = Instant::now();
        let result = act();
        note(call, &volume, begun, result.as_ref().err());
        result
    });
    match task.await {
        Ok(result) => result.map(Response::new),
        Err(error) => Err(Status::internal(format!("{call} ended early: {error}"))),
    }
}

fn note(call: &'static str, volume: &str, begun: Instant, error: Option<&Status>) {
    let code = error.map_or(Code::Ok, Status::code);
    let took = begun.elapsed();
    let name = code_name(code);
    counter!("isthmus_csi_calls_total", "call" => call, "code" => name).increment(1);
    histogram!("isthmus_csi_call_seconds", "call" => call).record(took.as_secs_f64());
    let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    // An id is the caller's text: shown escaped and cut.
    let volume: String = volume
        .chars()
        .take(crate::names::SUGGESTED_BYTES_MAX)
        .collect();
    match error {
        None => info!(call, volume = ?volume, code = name, ms, "answered"),
        Some(error) => {
            warn!(call, volume = ?volume, code = name, ms, reason = %error.message(), "refused");
        }
    }
}

/// The code's name in the interface's specification.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

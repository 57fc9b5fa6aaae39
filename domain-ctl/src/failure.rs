//! Why a command did not do what was asked.

use isthmus_api::ApiError;
use std::fmt;
use std::process::ExitCode;

/// Why a command did not do what was asked. Its text is what the user reads after `error: `.
#[derive(Debug)]
pub enum Failure {
    /// The command line makes no sense.
    Usage(String),
    /// The cluster refused, failed, or did not answer.
    Refused(ApiError),
    /// A text of its own, printed as it is.
    Plain(String),
}

impl Failure {
    /// 2 for wrong usage, 1 for all else.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Usage(_) => ExitCode::from(2),
            Failure::Refused(_) | Failure::Plain(_) => ExitCode::from(1),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(text) => write!(out, "error: {text}"),
            Failure::Refused(error) => write!(out, "error: {error}"),
            Failure::Plain(text) => out.write_str(text),
        }
    }
}

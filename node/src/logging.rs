//! Logs: one line a change of state, on standard error; of lines that are alike, one a minute ([`limit`]).

mod format;
mod limit;

use clap::ValueEnum;
use format::Limited;
use tracing_subscriber::EnvFilter;

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// The word that the flag takes.
    pub fn as_str(self) -> &'static str {
        match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
    }
}

/// Starts logging; `RUST_LOG` selects what is written (by default what Isthmus says from `info` up).
///
/// # Errors
/// When `RUST_LOG` makes no sense.
pub fn start(format: LogFormat) -> anyhow::Result<()> {
    let text = std::env::var("RUST_LOG")
        .ok()
        .filter(|text| !text.is_empty());
    let text = text
        .as_deref()
        .unwrap_or("info,openraft=error,quinn=warn,rustls=warn");
    let filter =
        EnvFilter::try_new(text).map_err(|error| anyhow::anyhow!("RUST_LOG '{text}': {error}"))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Where it can't be written, because the disk that it goes to is full, say, saying so there would end the node.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => lines
            .with_ansi(false)
            .map_event_format(Limited::text)
            .init(),
        LogFormat::Json => lines.json().map_event_format(Limited::json).init(),
    }
    Ok(())
}

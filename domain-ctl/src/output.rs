//! Where text goes: results to standard output, complaints to standard error; a reader that went away is no fault.

use crate::arguments::Format;
use crate::failure::Failure;
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether standard output could not be written any more.
static UNHEARD: AtomicBool = AtomicBool::new(false);

/// Writes to standard output at once. When nobody reads any more, there is nobody to tell: errors are passed over, since what was
/// begun has to be gone on with.
pub fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    if out
        .write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .is_err()
    {
        UNHEARD.store(true, Ordering::Relaxed);
    }
}

/// Whether somebody still reads: what goes on without end ends when nobody does.
pub fn is_heard() -> bool {
    !UNHEARD.load(Ordering::Relaxed)
}

/// On a terminal, begins a new screen; elsewhere one result follows the other.
pub fn clear() {
    if std::io::stdout().is_terminal() {
        say("\x1b[H\x1b[2J\x1b[3J");
    }
}

/// Writes a line to standard error.
pub fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Prints a result in the format that was asked for; `table` makes the text for people.
///
/// # Errors
/// When the value can't be written in that format.
pub fn print<T: Serialize>(
    format: Format,
    value: &T,
    table: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    let text = match format {
        Format::Table => table(value),
        Format::Json => {
            let mut text = serde_json::to_string_pretty(value)
                .map_err(|error| Failure::Plain(format!("error: {error}")))?;
            text.push('\n');
            text
        }
        Format::Yaml => serde_saphyr::to_string(value)
            .map_err(|error| Failure::Plain(format!("error: {error}")))?,
    };
    say(&text);
    Ok(())
}

/// A colour for a word on a terminal.
#[derive(Clone, Copy)]
pub enum Colour {
    /// All is well.
    Green,
    /// Something is at risk.
    Red,
    /// Something is under way.
    Yellow,
}

/// The word in that colour where standard output is a terminal and `NO_COLOR` is not set; else the word.
pub fn coloured(word: &str, colour: Colour) -> String {
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if !wanted || !std::io::stdout().is_terminal() {
        return word.to_owned();
    }
    let code = match colour {
        Colour::Green => 32,
        Colour::Red => 31,
        Colour::Yellow => 33,
    };
    format!("\x1b[{code}m{word}\x1b[0m")
}

//! Writes a line, or leaves it out.

use super::limit::{Limit, PERIOD};
use crate::metrics::events;
use parking_lot::Mutex;
use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Fields that say what a line is about. With the epoch among them, each change of a volume's state has its line.
const ABOUT: [&str; 9] = [
    "volume", "epoch", "peer", "node", "update", "step", "domain", "service", "from",
];

/// A format whose lines are limited. What is below `info` somebody has asked for, and gets.
pub struct Limited<F> {
    inner: F,
    is_json: bool,
    limit: Mutex<Limit>,
}

impl<F> Limited<F> {
    /// Around one for people.
    pub fn text(inner: F) -> Limited<F> {
        Limited {
            inner,
            is_json: false,
            limit: Mutex::new(Limit::default()),
        }
    }

    /// Around one that writes an object a line.
    pub fn json(inner: F) -> Limited<F> {
        Limited {
            is_json: true,
            ..Limited::text(inner)
        }
    }

    fn admit(&self, event: &Event<'_>) -> Option<u64> {
        if *event.metadata().level() > Level::INFO {
            return Some(0);
        }
        self.limit.lock().admit(kind(event), Instant::now())
    }
}

impl<S, N, F> FormatEvent<S, N> for Limited<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        match self.admit(event) {
            None => {
                events::note_line_left_out();
                Ok(())
            }
            Some(0) => self.inner.format_event(context, writer, event),
            Some(left_out) => {
                let mut line = String::new();
                self.inner
                    .format_event(context, Writer::new(&mut line), event)?;
                writer.write_str(&counted(&line, left_out, self.is_json))
            }
        }
    }
}

/// The line with how many like it were left out.
fn counted(line: &str, left_out: u64, is_json: bool) -> String {
    let line = line.trim_end();
    match line.strip_suffix('}') {
        Some(object) if is_json => format!("{object},\"left_out\":{left_out}}}\n"),
        _ => format!(
            "{line} ({left_out} lines like this were left out, one in {} s is written)\n",
            PERIOD.as_secs()
        ),
    }
}

/// What the line is about, in a number: lines with the same one are alike.
fn kind(event: &Event<'_>) -> u64 {
    let mut about = About(DefaultHasher::new());
    event.metadata().callsite().hash(&mut about.0);
    event.record(&mut about);
    about.0.finish()
}

struct About(DefaultHasher);

impl Visit for About {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let is_message = field.name() == "message";
        if is_message || ABOUT.contains(&field.name()) {
            let mut words = Words {
                hasher: &mut self.0,
                numbers_count: !is_message,
                was_digit: false,
            };
            // Hashing does not fail.
            let _ = write!(words, "{}:{value:?};", field.name());
        }
    }
}

/// Hashes words; numbers among them are all the same where they don't count.
struct Words<'a> {
    hasher: &'a mut DefaultHasher,
    numbers_count: bool,
    was_digit: bool,
}

impl fmt::Write for Words<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            let is_digit = byte.is_ascii_digit() && !self.numbers_count;
            if !is_digit {
                self.hasher.write_u8(byte);
            } else if !self.was_digit {
                self.hasher.write_u8(b'#');
            }
            self.was_digit = is_digit;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::Arc;
    use tracing_subscriber::fmt::MakeWriter;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Lines {
        type Writer = Lines;

        fn make_writer(&'a self) -> Lines {
            self.clone()
        }
    }

    fn storm() {
        for number in 0..1000 {
            for volume in ["vol1", "vol2"] {
                tracing::info!(%volume, "promoted under epoch {number}");
            }
        }
        tracing::info!(volume = %"vol1", "primary no more");
        for number in 0..3 {
            tracing::debug!(number, "asked for");
        }
    }

    fn written(run: impl FnOnce(Lines)) -> Vec<String> {
        let lines = Lines::default();
        run(lines.clone());
        let bytes = lines.0.lock().clone();
        String::from_utf8(bytes)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn a_storm_leaves_one_line_for_each_volume_and_each_thing_said() {
        let said = written(|lines| {
            let format = tracing_subscriber::fmt()
                .with_max_level(Level::DEBUG)
                .with_ansi(false)
                .with_writer(lines)
                .map_event_format(Limited::text);
            tracing::subscriber::with_default(format.finish(), storm);
        });
        assert_eq!(said.len(), 6, "{said:#?}");
        assert!(said[0].contains("promoted under epoch 0"), "{said:#?}");
        assert!(said[1].contains("vol2"), "{said:#?}");
        assert!(said[2].contains("primary no more"), "{said:#?}");
        assert!(said[5].contains("asked for"), "{said:#?}");
    }

    #[test]
    fn as_json_each_line_is_an_object_with_its_fields() {
        let said = written(|lines| {
            let format = tracing_subscriber::fmt()
                .json()
                .with_writer(lines)
                .map_event_format(Limited::json);
            tracing::subscriber::with_default(format.finish(), storm);
        });
        assert_eq!(said.len(), 3, "{said:#?}");
        for line in said {
            let object: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert!(object["fields"]["volume"].is_string(), "{line}");
        }
    }

    #[test]
    fn a_line_says_how_many_were_left_out() {
        assert_eq!(
            counted("{\"a\":{}}\n", 5, true),
            "{\"a\":{},\"left_out\":5}\n"
        );
        let text = counted("INFO it\n", 5, false);
        assert!(text.starts_with("INFO it (5 lines"), "{text}");
        assert!(text.ends_with(")\n"), "{text}");
    }
}

//! Log lines, as text for people or as one JSON object per line for programs.
//!
//! Each line at info and above has the field `event`, which names what happened. Messages may be reworded; the names
//! stay. docs/operating.md lists all of them.

mod queue;

use std::fmt;
use std::io::{self, IsTerminal, Stderr, Write};
use std::panic::PanicHookInfo;

use env_logger::Target;
use env_logger::fmt::{Formatter, WriteStyle};
use log::kv::{self, VisitSource, VisitValue};
use log::{Level, Record};
use serde_json::{Map, Value, json};

pub use self::queue::{LastLines, LineWriter, QUEUE_BYTES_MAX};
use super::printable::Printable;

/// The field that names what happened.
const EVENT: &str = "event";

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl LogFormat {
    /// Each format there is.
    pub const ALL: [Self; 2] = [Self::Text, Self::Json];
}

impl fmt::Display for LogFormat {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => out.write_str("text"),
            Self::Json => out.write_str("json"),
        }
    }
}

/// Starts logging to standard error, through a thread that `start_thread` starts. The returned value must be dropped
/// before the process ends. `filter` must be valid.
pub fn start(
    format: Option<LogFormat>,
    filter: &str,
    start_thread: impl FnOnce(LineWriter<Stderr>) -> io::Result<()>,
) -> io::Result<LastLines> {
    let (queue, writer, last) = queue::queue(io::stderr());
    start_thread(writer)?;
    let format = format.unwrap_or(match io::stderr().is_terminal() {
        true => LogFormat::Text,
        false => LogFormat::Json,
    });
    let mut builder = env_logger::Builder::new();
    builder.parse_filters(filter);
    // env_logger does not find out whether a `Target::Pipe` is a terminal.
    if io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty()) {
        builder.write_style(WriteStyle::Always);
    }
    builder.target(Target::Pipe(Box::new(queue)));
    match format {
        LogFormat::Text => builder.format(text),
        LogFormat::Json => builder.format(json),
    };
    builder.init();
    std::panic::set_hook(Box::new(log_panic));
    Ok(last)
}

/// Logs a panic, which is a bug of hakaru. The server is notified of the end of the thread, and ends the process.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic
        .location()
        .map_or_else(|| "?".to_owned(), ToString::to_string);
    let text = panic.payload_as_str().unwrap_or("no message");
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("a thread");
    log::error!(event = "panic", thread; "panic in {thread} at {place}: {text}");
}

/// Formats a line as text. Message and fields can hold names from senders and texts from a database, so their
/// control characters are escaped: they must not be able to forge a line.
fn text(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let level = out.default_level_style(record.level());
    let time = out.timestamp_millis();
    write!(
        out,
        "{time} {level}{:<5}{level:#} {}",
        record.level(),
        Printable(record.args())
    )?;
    for (key, value) in fields(record) {
        match value.as_str() {
            Some(word) if is_word(word) => write!(out, " {key}={word}")?,
            _ => write!(out, " {key}={}", Printable(value))?,
        }
    }
    if let Some(place) = place(record) {
        write!(out, " ({place})")?;
    }
    writeln!(out)
}

/// Whether a value can be written without quotes.
fn is_word(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'=' | b'\\');
    !text.is_empty() && text.bytes().all(is_plain)
}

fn json(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let mut line = Map::new();
    line.insert("time".to_owned(), json!(out.timestamp_millis().to_string()));
    line.insert(
        "level".to_owned(),
        json!(record.level().as_str().to_ascii_lowercase()),
    );
    let mut fields = fields(record);
    if let Some(event) = fields.shift_remove(EVENT) {
        line.insert(EVENT.to_owned(), event);
    }
    line.insert("message".to_owned(), json!(record.args().to_string()));
    line.insert("target".to_owned(), json!(record.target()));
    if let Some(place) = place(record) {
        line.insert("place".to_owned(), json!(place));
    }
    line.append(&mut fields);
    writeln!(out, "{}", Value::Object(line))
}

/// The source file and line of a warning or an error.
fn place(record: &Record<'_>) -> Option<String> {
    (record.level() <= Level::Warn)
        .then(|| record.file().zip(record.line()))
        .flatten()
        .map(|(file, line)| format!("{file}:{line}"))
}

/// The fields of a line. Fields without a value are left out, such as the code of an error that has none.
fn fields(record: &Record<'_>) -> Map<String, Value> {
    let mut fields = Fields(Map::new());
    // Collecting into a map cannot fail.
    drop(record.key_values().visit(&mut fields));
    fields.0
}

struct Fields(Map<String, Value>);

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: kv::Key<'kvs>, value: kv::Value<'kvs>) -> Result<(), kv::Error> {
        let mut field = Field(Value::Null);
        value.visit(&mut field)?;
        if !field.0.is_null() {
            self.0.insert(key.to_string(), field.0);
        }
        Ok(())
    }
}

/// A value. Numbers stay numbers.
struct Field(Value);

impl<'kvs> VisitValue<'kvs> for Field {
    fn visit_any(&mut self, value: kv::Value<'_>) -> Result<(), kv::Error> {
        self.0 = json!(value.to_string());
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), kv::Error> {
        self.0 = Value::Null;
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), kv::Error> {
        self.0 = json!(value);
        Ok(())
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), kv::Error> {
        self.0 = json!(value);
        Ok(())
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), kv::Error> {
        self.0 = json!(value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use log::Log;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The line of a warning in this format.
    fn written(format: LogFormat, message: &str, fields: &[(&str, kv::Value<'_>)]) -> String {
        let out = Written::default();
        let mut builder = env_logger::Builder::new();
        builder
            .filter_level(log::LevelFilter::Warn)
            .target(Target::Pipe(Box::new(out.clone())));
        match format {
            LogFormat::Text => builder.format(text),
            LogFormat::Json => builder.format(json),
        };
        let logger = builder.build();
        let record = |message| {
            let record = Record::builder()
                .level(Level::Warn)
                .target("hakaru")
                .file(Some("src/a.rs"))
                .line(Some(7))
                .key_values(&fields)
                .args(message)
                .build();
            logger.log(&record);
        };
        record(format_args!("{message}"));
        String::from_utf8(out.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_line_of_text_has_its_fields_after_the_message() {
        let fields = [
            ("event", kv::Value::from("rows_refused")),
            ("events", kv::Value::from(3_u64)),
            ("code", kv::Value::from(-5_i64)),
            ("seconds", kv::Value::from(1.5)),
            ("words", kv::Value::from("two words")),
            ("none", kv::Value::null()),
        ];
        let line = written(LogFormat::Text, "3 events", &fields);
        let (_, rest) = line.split_once(' ').unwrap();
        let expected = "WARN  3 events event=rows_refused events=3 code=-5 seconds=1.5 words=\"two words\" \
                        (src/a.rs:7)\n";
        assert_eq!(rest, expected);
    }

    #[test]
    fn a_line_of_json_has_the_event_before_the_message() {
        let fields = [
            ("events", kv::Value::from(3_u64)),
            ("event", kv::Value::from("rows_refused")),
            ("none", kv::Value::null()),
        ];
        let line = written(LogFormat::Json, "a\nb", &fields);
        let (_, rest) = line.split_once(',').unwrap();
        let expected = r#""level":"warn","event":"rows_refused","message":"a\nb","target":"hakaru","place":"src/a.rs:7","events":3}"#;
        assert_eq!(rest, format!("{expected}\n"));
    }

    #[test]
    fn a_logged_name_cannot_forge_a_line() {
        let name = "a\n2026-01-31T08:00:00.000Z ERROR forged\u{1b}[2J\u{85}\u{2028}\u{202e}\u{7f}";
        let fields = [("name", kv::Value::from(name))];
        let line = written(LogFormat::Text, name, &fields);
        let (text, end) = line.split_at(line.len() - 1);
        assert_eq!(end, "\n");
        assert!(!text.contains(|c: char| c.is_control()), "{text:?}");
        assert!(!text.contains(['\u{2028}', '\u{202e}']), "{text:?}");
        assert!(text.contains(" WARN  a\\n2026"), "{text}");
        assert!(text.contains(" name=\"a\\n2026"), "{text}");
    }
}

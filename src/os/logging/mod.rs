//! Log lines: text for people, one JSON object a line for programs.

mod queue;

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::panic::PanicHookInfo;

use env_logger::Target;
use env_logger::fmt::{Formatter, WriteStyle};
use log::kv::{self, VisitSource};
use log::{Level, Record};
use serde_json::{Map, Value, json};

pub use self::queue::LastLines;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
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

/// Sends log lines to standard error, by a thread of their own, until the process ends; before it does,
/// what is given back must be dropped. `filter` has been checked before.
pub fn start(format: Option<LogFormat>, filter: &str) -> io::Result<LastLines> {
    let (queue, last) = queue::start(io::stderr())?;
    let format = format.unwrap_or(match io::stderr().is_terminal() {
        true => LogFormat::Text,
        false => LogFormat::Json,
    });
    let mut builder = env_logger::Builder::new();
    builder.parse_filters(filter);
    // What stands before a pipe is not asked whether it is a terminal.
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

/// A panic is a fault of ours: it is logged like any other, and the thread's owner ends the process.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic
        .location()
        .map_or_else(|| "?".to_owned(), ToString::to_string);
    let text = panic.payload_as_str().unwrap_or("no message");
    let thread = std::thread::current();
    log::error!(
        "panic in {} at {place}: {text}",
        thread.name().unwrap_or("a thread")
    );
}

fn text(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let level = out.default_level_style(record.level());
    let time = out.timestamp_millis();
    write!(
        out,
        "{time} {level}{:<5}{level:#} {}",
        record.level(),
        record.args()
    )?;
    let mut fields = Fields::default();
    // Collecting into a map cannot fail.
    drop(record.key_values().visit(&mut fields));
    for (key, value) in fields.0 {
        write!(out, " {key}={value}")?;
    }
    if let Some(place) = place(record) {
        write!(out, " ({place})")?;
    }
    writeln!(out)
}

fn json(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let mut line = Map::new();
    line.insert("time".to_owned(), json!(out.timestamp_millis().to_string()));
    line.insert(
        "level".to_owned(),
        json!(record.level().as_str().to_ascii_lowercase()),
    );
    line.insert("message".to_owned(), json!(record.args().to_string()));
    line.insert("target".to_owned(), json!(record.target()));
    if let Some(place) = place(record) {
        line.insert("place".to_owned(), json!(place));
    }
    let mut fields = Fields::default();
    drop(record.key_values().visit(&mut fields));
    line.append(&mut fields.0);
    writeln!(out, "{}", Value::Object(line))
}

/// Where a warning or an error comes from.
fn place(record: &Record<'_>) -> Option<String> {
    (record.level() <= Level::Warn)
        .then(|| record.file().zip(record.line()))
        .flatten()
        .map(|(file, line)| format!("{file}:{line}"))
}

/// The fields of a line, numbers as numbers.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: kv::Key<'kvs>, value: kv::Value<'kvs>) -> Result<(), kv::Error> {
        let value = match (value.to_u64(), value.to_f64()) {
            (Some(number), _) => json!(number),
            (None, Some(number)) => json!(number),
            (None, None) => json!(value.to_string()),
        };
        self.0.insert(key.to_string(), value);
        Ok(())
    }
}

//! `hakaru check`: tries the whole configuration without serving, and reports a level for each thing that it checks.
//!
//! It changes nothing except the next id of `eventlog`. Inserted rows are rolled back. Missing tables and directories
//! are not made. Files that are written to measure the disk are removed.

mod disk;
mod kernel;
mod machine;
mod mysql;
mod sqlite;

use std::io::{self, Write};

use serde_json::json;

use crate::commands::journal::Output;
use crate::os::printable::Printable;
use crate::os::process_list;
use crate::server::config::Config;
use crate::server::writers;
use crate::sink::dsn::DataSource;
use machine::Machine;

/// Advice for a table that refuses trial rows.
const TAKES_NO_ROW: &str = "nothing is stored until the table takes a row with another name and value: see its \
    triggers and constraints, its partitions and its ids";

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    /// Nothing needs to change.
    Ok,
    /// hakaru works, but slower or less safely than it could.
    Warning,
    /// hakaru does not start, or stores nothing, until this is fixed.
    Error,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// What was found about a thing, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Observation {
    level: Level,
    text: String,
    advice: Option<String>,
}

impl Observation {
    /// At the level [`Level::Ok`].
    fn new(text: impl Into<String>) -> Self {
        Self {
            level: Level::Ok,
            text: text.into(),
            advice: None,
        }
    }

    fn warning(self, advice: impl Into<String>) -> Self {
        self.with_advice(Level::Warning, advice.into())
    }

    fn error(self, advice: impl Into<String>) -> Self {
        self.with_advice(Level::Error, advice.into())
    }

    fn with_advice(self, level: Level, advice: String) -> Self {
        Self {
            level,
            advice: Some(advice),
            ..self
        }
    }
}

/// A thing that was checked, and what was found.
type Finding = (&'static str, Observation);

/// Why a check has not succeeded.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The number of findings that keep hakaru from serving or storing.
    #[error("errors that must be fixed: {0}")]
    Errors(usize),
    /// The output cannot be written.
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

/// Checks everything and writes a line for each finding. Fails if one of them is an error.
pub fn run(config: &Config, output: Output, out: &mut dyn Write) -> Result<(), CheckError> {
    let mut errors = 0;
    let mut write = |findings: Vec<Finding>| -> io::Result<()> {
        for (thing, found) in findings {
            errors += usize::from(found.level == Level::Error);
            write_line(output, thing, &found, out)?;
        }
        // The next check may take some time.
        out.flush()
    };
    write(process_list().into_iter().collect())?;
    let machine = Machine::new(config);
    let found = Observation::new(config.datasource.to_string());
    write(vec![("datasource", found)])?;
    write(match &config.datasource {
        DataSource::MySql(target) => mysql::check(target, writers::count(config, machine.shards())),
        DataSource::Sqlite(path) => sqlite::check(path),
    })?;
    write(disk::check(config, machine.shards()))?;
    write(machine.check(config))?;
    write(kernel::check(config))?;
    match errors {
        0 => Ok(()),
        errors => Err(CheckError::Errors(errors)),
    }
}

/// Hides a password from the process list, as serving does. A finding if that fails.
fn process_list() -> Option<Finding> {
    let fault = process_list::hide_passwords().err()?;
    let text = format!("a password given as a flag cannot be hidden: {fault}");
    let found = Observation::new(text);
    let advice = "give the datasource by the variable HAKARU_DATASOURCENAME";
    Some(("process list", found.warning(advice)))
}

fn write_line(
    output: Output,
    thing: &str,
    found: &Observation,
    out: &mut dyn Write,
) -> io::Result<()> {
    let level = found.level.name();
    if output == Output::Json {
        let mut line = json!({"level": level, "thing": thing, "found": found.text});
        if let Some(advice) = &found.advice {
            line["advice"] = json!(advice);
        }
        return writeln!(out, "{line}");
    }
    let mut line = format!("{level:<8} {thing}: {}", found.text);
    if let Some(advice) = &found.advice {
        line.push_str(" -> ");
        line.push_str(advice);
    }
    // Escaped, since it may quote a database: each finding is one line.
    writeln!(out, "{}", Printable(line))
}

/// Bytes as text for people: in the largest binary unit that gives at least 1, rounded down.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut amount, mut unit) = (bytes, 0);
    while amount >= 1024 && unit + 1 < UNITS.len() {
        amount /= 1024;
        unit += 1;
    }
    format!("{amount} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_level_finding_and_advice() {
        let found = Observation::new("two\nlines\x1b[2J").warning("do this");
        let text = |output| {
            let mut line = Vec::new();
            write_line(output, "a thing", &found, &mut line).unwrap();
            String::from_utf8(line).unwrap()
        };
        assert_eq!(
            text(Output::Text),
            "warning  a thing: two\\nlines\\u{1b}[2J -> do this\n"
        );
        let line: serde_json::Value = serde_json::from_str(&text(Output::Json)).unwrap();
        let expected = json!({"level": "warning", "thing": "a thing", "found": "two\nlines\u{1b}[2J", "advice": "do this"});
        assert_eq!(line, expected);
    }

    #[test]
    fn sizes_are_rounded_down() {
        let sizes = [0, 1023, 1024, (5 << 30) - 1, 3 << 50].map(size);
        assert_eq!(sizes, ["0 B", "1023 B", "1 KiB", "4 GiB", "3072 TiB"]);
    }
}

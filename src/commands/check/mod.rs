//! Tries the whole configuration without serving, and says of each thing whether it will do.
//!
//! Changes nothing but the next id of `eventlog`: what is inserted is rolled back, tables and directories that are missing stay so, files
//! that are written to measure the disk are removed.

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

/// How much is wrong with a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    /// It will do.
    Ok,
    /// hakaru serves, but worse or less safely than it could.
    Warning,
    /// hakaru does not start, or stores nothing, until this is put right.
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

/// What was found of a thing, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Observation {
    level: Level,
    text: String,
    advice: Option<String>,
}

impl Observation {
    /// Something that will do.
    fn new(text: impl Into<String>) -> Self {
        Self {
            level: Level::Ok,
            text: text.into(),
            advice: None,
        }
    }

    fn warning(self, advice: impl Into<String>) -> Self {
        self.but(Level::Warning, advice.into())
    }

    fn error(self, advice: impl Into<String>) -> Self {
        self.but(Level::Error, advice.into())
    }

    fn but(self, level: Level, advice: String) -> Self {
        Self {
            level,
            advice: Some(advice),
            ..self
        }
    }
}

/// A thing, and what was found of it.
type Finding = (&'static str, Observation);

/// Why a check has not succeeded.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// So many things keep hakaru from serving or storing.
    #[error("{0} of the things that were looked at must be put right")]
    Errors(usize),
    /// What was found cannot be written.
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

/// Looks at everything and writes a line for each thing; an error where one of them will not do.
pub fn run(config: &Config, output: Output, out: &mut dyn Write) -> Result<(), CheckError> {
    let mut errors = 0;
    let mut say = |findings: Vec<Finding>| -> io::Result<()> {
        for (thing, found) in findings {
            errors += usize::from(found.level == Level::Error);
            write_line(output, thing, &found, out)?;
        }
        // What comes next may take its time.
        out.flush()
    };
    say(process_list().into_iter().collect())?;
    let machine = Machine::new(config);
    let found = Observation::new(config.datasource.to_string());
    say(vec![("datasource", found)])?;
    say(match &config.datasource {
        DataSource::MySql(target) => mysql::look(target, writers::count(config, machine.shards())),
        DataSource::Sqlite(path) => sqlite::look(path),
    })?;
    say(disk::look(config, machine.shards()))?;
    say(machine.look(config))?;
    say(kernel::look(config))?;
    match errors {
        0 => Ok(()),
        errors => Err(CheckError::Errors(errors)),
    }
}

/// Takes a password off the process list, as serving does.
fn process_list() -> Option<Finding> {
    let fault = process_list::hide_passwords().err()?;
    let found = Observation::new(format!("a password given as a flag can be seen: {fault}"));
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
    // One line a thing, whatever a database says.
    writeln!(out, "{}", Printable(line))
}

/// Bytes for people to read: the largest binary unit of which there is at least one, rounded down.
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
    fn a_line_says_what_to_do() {
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

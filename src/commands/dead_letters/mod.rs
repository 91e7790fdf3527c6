//! `hakaru dead-letters`: events that the database refused, for a person to look at, to store again or to drop.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use serde_json::json;

use crate::commands::journal::Output;
use crate::commands::query::moment::{TimeRange, TimeSpan};
use crate::os::printable::Printable;
use crate::sink::dead_letters::FILE_NAME;
use crate::sink::dead_letters::file::Letters;
use crate::sink::dead_letters::letter::{Letter, rfc3339};
use crate::sink::dead_letters::replay::{self, Moved, ReplayError, WithoutDatabase};

/// What is done with the letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LetterAction {
    /// They are shown.
    List,
    /// They are stored again.
    Replay(WithoutDatabase),
    /// They are removed.
    Drop,
}

/// Which letters, and what is done with them.
#[derive(Debug)]
pub struct LetterRequest {
    /// Where the letters are.
    pub data_dir: PathBuf,
    /// What is done.
    pub action: LetterAction,
    /// Those that were received then; a time without a zone is UTC.
    pub span: TimeSpan,
    /// Those of these names; all where there is none.
    pub names: Vec<String>,
    /// Those that were refused with these error numbers; all where there is none.
    pub codes: Vec<i32>,
    /// How the answer is written.
    pub output: Output,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum LetterError {
    /// There is no data directory, so none of a server.
    #[error("{}: there is no such data directory; --data-dir names that of the server", .0.display())]
    NoDataDir(PathBuf),
    /// The letters cannot be read.
    #[error("{}: {fault}", path.display())]
    Read {
        /// The file of letters.
        path: PathBuf,
        /// What the system said.
        fault: io::Error,
    },
    /// They cannot be replayed or dropped.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The answer cannot be written.
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

impl LetterRequest {
    /// Does it and says what was done.
    pub fn run(&self, out: impl Write) -> Result<(), LetterError> {
        let mut out = BufWriter::new(out);
        if matches!(self.data_dir.try_exists(), Ok(false)) {
            return Err(LetterError::NoDataDir(self.data_dir.clone()));
        }
        let range = TimeRange {
            from: self.span.from.map(|from| from.ceiling().in_utc()),
            to: self.span.to.map(|to| to.ceiling().in_utc()),
        };
        let is_wanted = |letter: &Letter| self.is_wanted(letter, &range);
        match self.action {
            LetterAction::List => {
                let letters = Letters::read(&self.data_dir).map_err(|fault| LetterError::Read {
                    path: self.data_dir.join(FILE_NAME),
                    fault,
                })?;
                self.list(&letters, is_wanted, &mut out)?;
                if replay::is_unfinished(&self.data_dir)? {
                    self.warn_of_unfinished(&mut out)?;
                }
            }
            LetterAction::Replay(without_database) => {
                let moved = replay::replay(&self.data_dir, without_database, is_wanted)?;
                self.report("replayed", &moved, &mut out)?;
            }
            LetterAction::Drop => {
                let moved = replay::discard(&self.data_dir, is_wanted)?;
                self.report("dropped", &moved, &mut out)?;
            }
        }
        Ok(out.flush()?)
    }

    fn is_wanted(&self, letter: &Letter, range: &TimeRange) -> bool {
        let seconds = i64::try_from(letter.received_at.seconds()).unwrap_or(i64::MAX);
        let is_code = |code: &i32| letter.code == Some(*code);
        range.holds(seconds)
            && (self.names.is_empty() || self.names.contains(&letter.name))
            && (self.codes.is_empty() || self.codes.iter().any(is_code))
    }

    fn list(
        &self,
        letters: &Letters,
        is_wanted: impl Fn(&Letter) -> bool,
        out: &mut impl Write,
    ) -> io::Result<()> {
        if self.output == Output::Text {
            writeln!(
                out,
                "{:24}  {:>10}  {:>6}  NAME  ERROR",
                "RECEIVED AT", "VALUE", "CODE"
            )?;
        }
        for letter in letters.letters.iter().filter(|letter| is_wanted(letter)) {
            match self.output {
                Output::Json => writeln!(out, "{letter}")?,
                Output::Text => {
                    let at = rfc3339(letter.received_at).unwrap_or_default();
                    let code = letter
                        .code
                        .map_or_else(String::new, |code| code.to_string());
                    let error = Printable(&letter.error);
                    let (name, value) = (&letter.name, letter.value);
                    write!(out, "{at:24}  {value:10}  {code:>6}  {name:?}  ")?;
                    if let Some(id) = &letter.id {
                        write!(out, "id {id:?}  ")?;
                    }
                    writeln!(out, "{error}")?;
                }
            }
        }
        let unreadable = letters.unreadable();
        match self.output {
            _ if unreadable == 0 => Ok(()),
            Output::Text => writeln!(out, "{unreadable} lines are no letters"),
            Output::Json => writeln!(out, "{}", json!({ "unreadable": unreadable })),
        }
    }

    fn warn_of_unfinished(&self, out: &mut impl Write) -> io::Result<()> {
        match self.output {
            Output::Text => writeln!(
                out,
                "a replay is under way or was cut short: its letters may be listed no more and not be stored yet; the \
                 next `hakaru dead-letters replay` or `drop`, or the next start of the server, finishes it"
            ),
            Output::Json => writeln!(out, "{}", json!({ "unfinished_replay": true })),
        }
    }

    fn report(&self, done: &str, moved: &Moved, out: &mut impl Write) -> io::Result<()> {
        let (letters, left) = (moved.letters, moved.left);
        if self.output == Output::Json {
            return writeln!(out, "{}", report_line(done, moved));
        }
        writeln!(out, "{letters} letters {done}, {left} are left")?;
        if moved.unreadable > 0 {
            writeln!(out, "{} lines are no letters, and stay", moved.unreadable)?;
        }
        for lane in &moved.lanes {
            let (id, letters) = (lane.id, lane.letters);
            match lane.database {
                Some(database) => writeln!(
                    out,
                    "{letters} are in lane {id} of the journal, for the database {database} that refused them; the \
                     server of that database that runs, or its next one, stores them"
                )?,
                None => writeln!(
                    out,
                    "{letters} are in lane {id} of the journal; the server that runs, or the next one, stores them, \
                     whatever its database is"
                )?,
            }
        }
        if moved.without_database > 0 {
            writeln!(
                out,
                "{} letters of an earlier version do not say which database refused them, and stay; `hakaru \
                 dead-letters replay --any-database` stores them in the database that is served",
                moved.without_database
            )?;
        }
        Ok(())
    }
}

fn report_line(done: &str, moved: &Moved) -> serde_json::Value {
    let lanes = moved.lanes.iter().map(|lane| {
        json!({
            "lane": lane.id.to_string(),
            "database": lane.database.map(|database| database.to_string()),
            "letters": lane.letters,
        })
    });
    json!({
        done: moved.letters, "left": moved.left, "unreadable": moved.unreadable,
        "without_database": moved.without_database, "lanes": lanes.collect::<Vec<_>>(),
    })
}

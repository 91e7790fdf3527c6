//! `hakaru reconcile`: compares a number or a list of expected events with the rows, the dead letters and the events
//! that are still in the journal.
//!
//! All queries see one snapshot of the database. The journal and the dead letters are read after it was taken. The
//! events of a lane before its checkpoint in the snapshot are rows or dead letters, and the events after it are no rows.

mod answer;
mod expected;
mod tally;
mod unstored;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

pub use self::expected::{Expectation, ListError};

use self::answer::{Answer, Kind, Listed};
use self::tally::{RowKind, Tally};
use self::unstored::{UnstoredEvents, UnstoredKind};
use crate::commands::journal::{InspectError, Output};
use crate::commands::query::dialect::Rows;
use crate::commands::query::moment::TimeSpan;
use crate::commands::query::terminal::{Progress, Screen};
use crate::commands::query::{QueryError, QuerySession};
use crate::sink::dsn::DataSource;

/// If a list has at most this many names, only rows with these names are selected.
const NAMES_SELECTED_MAX: usize = 64;

/// A comparison to be made.
#[derive(Debug, Clone)]
pub struct Reconciliation {
    /// The database.
    pub datasource: DataSource,
    /// The directory of dead letters and journal.
    pub data_dir: PathBuf,
    /// The events that should be there.
    pub expected: Expectation,
    /// When they were received.
    pub span: TimeSpan,
    /// An event is late if the time of its row is more than this before or after its own.
    pub late: Duration,
    /// Whether rows with names that no expected event has are unexpected.
    pub is_strict: bool,
    /// The largest surplus that unread answers of a load generator explain.
    pub connections: u64,
    /// Most events of each kind that are listed.
    pub listed_max: usize,
    /// The format of the output.
    pub output: Output,
    /// Longest time that the database may take for each query.
    pub limit: Duration,
}

/// Why a comparison could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The expected events cannot be read.
    #[error(transparent)]
    List(#[from] ListError),
    /// The database cannot be queried.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] InspectError),
    /// The dead letters cannot be read.
    #[error("{}: {fault}", path.display())]
    DeadLetters {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        fault: std::io::Error,
    },
    /// A note of the journal cannot be read.
    #[error("what is noted beside a lane cannot be read: {}: {fault}", path.display())]
    Note {
        /// The directory in which it is.
        path: PathBuf,
        /// What is wrong with it.
        fault: std::io::Error,
    },
}

impl ReconcileError {
    /// Whether the command line is wrong.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::List(_) | Self::Query(QueryError::Usage(_)))
    }
}

impl Reconciliation {
    /// Compares and writes the result. Returns whether everything agrees.
    pub fn run(&self, out: &mut dyn Write) -> Result<bool, ReconcileError> {
        let answer = match &self.expected {
            Expectation::Count(count) => self.compare_count(*count)?,
            Expectation::List(source) => {
                let mut tally = Tally::default();
                expected::read(source.as_ref(), &mut tally)?;
                self.compare_list(tally)?
            }
        };
        match self.output {
            Output::Json => answer.write_json(out)?,
            Output::Text => answer.write_text(out, Screen::of_stdout())?,
        }
        out.flush().map_err(QueryError::from)?;
        Ok(answer.agrees())
    }

    /// Opens the database. The answer has its address and the range.
    fn open(&self) -> Result<(QuerySession, Answer), ReconcileError> {
        let mut session = QuerySession::open(&self.datasource, self.limit)?;
        let answer = Answer {
            place: session.place().to_owned(),
            range: session.range(&self.span)?,
            zone: session.zone()?,
            late_seconds: self.late.as_secs_f64(),
            ..Answer::default()
        };
        Ok((session, answer))
    }

    fn compare_count(&self, expected: u64) -> Result<Answer, ReconcileError> {
        let progress = Progress::new();
        progress.show("querying the database");
        let (mut session, mut answer) = self.open()?;
        let unstored = UnstoredEvents::of_snapshot(&mut session, &self.data_dir)?;
        let condition = session.dialect().condition(&Rows {
            range: answer.range.clone(),
            ..Rows::default()
        });
        let sql = format!("SELECT COUNT(*) FROM eventlog {condition}");
        session.rows(&sql, |[count]| {
            answer.rows = count.count()?;
            Ok(())
        })?;
        drop(session);
        let (mut dead_letters, mut pending) = (0, 0);
        answer.unread = unstored.find(&answer.range, |kind, _, _| match kind {
            UnstoredKind::DeadLetter => dead_letters += 1,
            UnstoredKind::Pending => pending += 1,
        })?;
        let found = answer.rows + dead_letters + pending;
        answer.expected = expected;
        (answer.dead_letters, answer.pending) = (dead_letters, pending);
        answer.lost = expected.saturating_sub(found);
        let surplus = found.saturating_sub(expected);
        answer.surplus = Some(surplus);
        answer.is_surplus_explained = surplus <= self.connections;
        Ok(answer)
    }

    fn compare_list(&self, mut tally: Tally) -> Result<Answer, ReconcileError> {
        let (mut session, mut answer) = self.open()?;
        let unstored = UnstoredEvents::of_snapshot(&mut session, &self.data_dir)?;
        let mut unexpected = Vec::new();
        let names = if self.is_strict {
            Vec::new()
        } else {
            tally.names(NAMES_SELECTED_MAX).unwrap_or_default()
        };
        let rows = Rows {
            range: answer.range.clone(),
            names: &names,
            like: None,
        };
        read_rows(&mut session, &rows, |name, value, at| {
            match tally.row(name, value, at) {
                RowKind::Expected => answer.rows += 1,
                RowKind::OtherName if !self.is_strict => {}
                RowKind::OtherValue | RowKind::OtherName => {
                    answer.unexpected += 1;
                    if unexpected.len() < self.listed_max {
                        unexpected.push(Listed {
                            value,
                            received: at,
                            ..Listed::new(Kind::Unexpected, name)
                        });
                    }
                }
            }
        })?;
        drop(session);
        answer.unread = unstored.find(&answer.range, |kind, name, value| match kind {
            UnstoredKind::DeadLetter => tally.dead_letter(name, value),
            UnstoredKind::Pending => tally.pending(name, value),
        })?;
        let late = i64::try_from(self.late.as_millis()).unwrap_or(i64::MAX / 4);
        tally.compare(&mut answer, late, self.listed_max);
        answer.listed.extend(unexpected);
        Ok(answer)
    }
}

/// Calls `each` with the name, the value, and the seconds since 1970 of every row.
fn read_rows(
    session: &mut QuerySession,
    rows: &Rows<'_>,
    mut each: impl FnMut(&str, Option<u32>, Option<i64>),
) -> Result<(), QueryError> {
    let dialect = session.dialect();
    let condition = dialect.condition(rows);
    let (name, value, at) = (dialect.name(), dialect.value(), dialect.unix_seconds());
    let sql = format!("SELECT {name}, {value}, {at} FROM eventlog {condition}");
    let mut progress = Progress::new();
    progress.show("querying the database");
    session.rows(&sql, |[name, value, at]| {
        let value = value.integer()?.and_then(|value| u32::try_from(value).ok());
        let at = at.integer()?.and_then(|at| i64::try_from(at).ok());
        each(&name.text(), value, at);
        progress.step("rows read");
        Ok(())
    })
}

//! Whether what was promised is there: an answered count, or a list of events, against the rows, with the dead
//! letters and what the journal still holds beside them.
//!
//! All questions to the database see one moment, and the journal and the dead letters are read after it: an event
//! beyond a lane's checkpoint of that moment is no row of that moment, and the other way round.

mod answer;
mod elsewhere;
mod expected;
mod tally;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

pub use self::expected::{Expectation, ListError};

use self::answer::{Answer, Kind, Listed};
use self::elsewhere::{Elsewhere, Whereabouts};
use self::tally::{RowKind, Tally};
use crate::commands::journal::{InspectError, Output};
use crate::commands::query::dialect::Rows;
use crate::commands::query::moment::TimeSpan;
use crate::commands::query::terminal::{Progress, Screen};
use crate::commands::query::{QueryError, QuerySession};
use crate::sink::dsn::DataSource;

/// Up to so many names of a list are named to the database, which then sends only their rows.
const NAMES_ASKED_MAX: usize = 64;

/// What is compared.
#[derive(Debug, Clone)]
pub struct Reconciliation {
    /// Where rows are.
    pub datasource: DataSource,
    /// Where dead letters and the journal are.
    pub data_dir: PathBuf,
    /// What should be there.
    pub expected: Expectation,
    /// When it was received.
    pub span: TimeSpan,
    /// An event is late if its row's time is further than this from its own.
    pub late: Duration,
    /// Whether rows of names that no expected event has are unexpected.
    pub is_strict: bool,
    /// A surplus of so many is explained by answers that nobody read.
    pub connections: u64,
    /// How many of each kind are listed.
    pub listed_max: usize,
    /// How the answer is written.
    pub output: Output,
    /// Longest time that the database may take for each question.
    pub limit: Duration,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The expected events cannot be read.
    #[error(transparent)]
    List(#[from] ListError),
    /// The database cannot be asked.
    #[error(transparent)]
    QuerySession(#[from] QueryError),
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] InspectError),
    /// The dead letters cannot be read.
    #[error("{}: {fault}", path.display())]
    DeadLetters {
        /// The file.
        path: PathBuf,
        /// What the system said.
        fault: std::io::Error,
    },
}

impl ReconcileError {
    /// Whether another command line would do better.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::List(_) | Self::QuerySession(QueryError::Question(_))
        )
    }
}

impl Reconciliation {
    /// Compares, writes the answer, and says whether everything agrees.
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

    /// Opens the database, and says where it is and what is asked for.
    fn open(&self) -> Result<(QuerySession, Answer), ReconcileError> {
        let mut reading = QuerySession::open(&self.datasource, self.limit)?;
        let answer = Answer {
            place: reading.place().to_owned(),
            range: reading.range(&self.span)?,
            zone: reading.zone()?,
            late_seconds: self.late.as_secs_f64(),
            ..Answer::default()
        };
        Ok((reading, answer))
    }

    fn compare_count(&self, expected: u64) -> Result<Answer, ReconcileError> {
        let progress = Progress::new();
        progress.say("asking the database");
        let (mut reading, mut answer) = self.open()?;
        let elsewhere = Elsewhere::of_snapshot(&mut reading, &self.data_dir)?;
        let condition = reading.dialect().condition(&Rows {
            range: answer.range.clone(),
            ..Rows::default()
        });
        let sql = format!("SELECT COUNT(*) FROM eventlog {condition}");
        reading.rows(&sql, |[count]| {
            answer.rows = count.count()?;
            Ok(())
        })?;
        drop(reading);
        let (mut dead_letters, mut pending) = (0, 0);
        answer.unread = elsewhere.find(&answer.range, |place, _, _| match place {
            Whereabouts::DeadLetter => dead_letters += 1,
            Whereabouts::Journal => pending += 1,
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
        let (mut reading, mut answer) = self.open()?;
        let elsewhere = Elsewhere::of_snapshot(&mut reading, &self.data_dir)?;
        let mut unexpected = Vec::new();
        let names = if self.is_strict {
            Vec::new()
        } else {
            tally.names(NAMES_ASKED_MAX).unwrap_or_default()
        };
        let rows = Rows {
            range: answer.range.clone(),
            names: &names,
            like: None,
        };
        read_rows(&mut reading, &rows, |name, value, at| {
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
        drop(reading);
        answer.unread = elsewhere.find(&answer.range, |place, name, value| match place {
            Whereabouts::DeadLetter => tally.dead_letter(name, value),
            Whereabouts::Journal => tally.pending(name, value),
        })?;
        let late = i64::try_from(self.late.as_millis()).unwrap_or(i64::MAX / 4);
        tally.judge(&mut answer, late, self.listed_max);
        answer.listed.extend(unexpected);
        Ok(answer)
    }
}

/// Passes on name, value and seconds since 1970 of each row.
fn read_rows(
    reading: &mut QuerySession,
    rows: &Rows<'_>,
    mut each: impl FnMut(&str, Option<u32>, Option<i64>),
) -> Result<(), QueryError> {
    let dialect = reading.dialect();
    let condition = dialect.condition(rows);
    let (name, value, at) = (dialect.name(), dialect.value(), dialect.unix_seconds());
    let sql = format!("SELECT {name}, {value}, {at} FROM eventlog {condition}");
    let mut progress = Progress::new();
    progress.say("asking the database");
    reading.rows(&sql, |[name, value, at]| {
        let value = value.integer()?.and_then(|value| u32::try_from(value).ok());
        let at = at.integer()?.and_then(|at| i64::try_from(at).ok());
        each(&name.text(), value, at);
        progress.step("rows read");
        Ok(())
    })
}

//! What landed: events by name and over time, grouped by the database in one snapshot of the table.
//!
//! Memory: the names that are listed; all others are summed as they arrive.

mod figures;
mod formats;
mod table;
mod timeline;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::Write;
use std::time::Duration;

use self::figures::{Figures, Named};
use self::timeline::Timeline;
use crate::commands::query::dialect::Rows;
use crate::commands::query::moment::{TimeRange, TimeSpan};
use crate::commands::query::terminal::{Progress, Screen};
use crate::commands::query::{QueryError, QuerySession};
use crate::sink::dsn::DataSource;

/// How the answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A table for people; on a terminal with bars.
    Text,
    /// One document.
    Json,
    /// Rows, quoted as RFC 4180 says.
    Csv,
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct Report {
    /// Where rows are.
    pub datasource: DataSource,
    /// When they were received.
    pub span: TimeSpan,
    /// Only these names; empty: every one.
    pub names: Vec<String>,
    /// Only names that fit this pattern of SQL.
    pub like: Option<String>,
    /// Most names that are listed.
    pub top: usize,
    /// How the answer is written.
    pub format: Format,
    /// Longest time that the database may take for each question.
    pub limit: Duration,
}

/// What was found.
struct Findings {
    place: String,
    zone: String,
    range: TimeRange,
    /// The largest, largest first.
    listed: Vec<Named>,
    /// How many names are not listed.
    others_count: u64,
    others: Figures,
    names_count: u64,
    total: Figures,
    /// Without any event there is none.
    timeline: Option<Timeline>,
}

impl Report {
    /// Asks the database and writes the answer.
    pub fn run(&self, out: &mut dyn Write) -> Result<(), QueryError> {
        let findings = self.find()?;
        match self.format {
            Format::Text => table::write(out, &findings, Screen::of_stdout()),
            Format::Json => formats::write_json(out, &findings),
            Format::Csv => formats::write_csv(out, &findings),
        }?;
        Ok(out.flush()?)
    }

    fn find(&self) -> Result<Findings, QueryError> {
        let progress = Progress::new();
        progress.say("asking the database");
        let mut reading = QuerySession::open(&self.datasource, self.limit)?;
        let range = reading.range(&self.span)?;
        let rows = Rows {
            range: range.clone(),
            names: &self.names,
            like: self.like.as_deref(),
        };
        let mut findings = Findings {
            place: reading.place().to_owned(),
            zone: reading.zone()?,
            range,
            listed: Vec::new(),
            others_count: 0,
            others: Figures::default(),
            names_count: 0,
            total: Figures::default(),
            timeline: None,
        };
        self.group_by_name(&mut reading, &rows, &mut findings)?;
        // A table of names has no place for it.
        if self.format != Format::Csv {
            progress.say("asking the database once more");
            findings.timeline = Timeline::find(&mut reading, &rows, &findings.total)?;
        }
        Ok(findings)
    }

    fn group_by_name(
        &self,
        reading: &mut QuerySession,
        rows: &Rows<'_>,
        findings: &mut Findings,
    ) -> Result<(), QueryError> {
        let dialect = reading.dialect();
        let (name, condition) = (dialect.name(), dialect.condition(rows));
        let columns = figures::columns(dialect);
        // In no order: whoever sorts millions of names should not be the live database.
        let sql =
            format!("SELECT {name}, {columns} FROM eventlog {condition} GROUP BY 1 ORDER BY NULL");
        let mut largest = BinaryHeap::new();
        let mut leave_out = |named: Named| {
            findings.others_count += 1;
            findings.others.add(&named.figures);
        };
        reading.rows(
            &sql,
            |[
                name,
                events,
                times,
                values,
                sum,
                minimum,
                maximum,
                first,
                last,
            ]| {
                let cells = [events, times, values, sum, minimum, maximum, first, last];
                let figures = Figures::read(cells)?;
                findings.names_count += 1;
                findings.total.add(&figures);
                let name = name.text().into_owned();
                largest.push(Reverse(Named { figures, name }));
                if largest.len() > self.top
                    && let Some(Reverse(smallest)) = largest.pop()
                {
                    leave_out(smallest);
                }
                Ok(())
            },
        )?;
        findings.listed = largest
            .into_sorted_vec()
            .into_iter()
            .map(|Reverse(named)| named)
            .collect();
        Ok(())
    }
}

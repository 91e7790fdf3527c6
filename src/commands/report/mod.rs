//! `hakaru report`: the stored events by name and over time, grouped by the database in one snapshot of the table.
//!
//! Only the listed names are kept in memory. All others are summed as they arrive.

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

/// The format of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A table for people. On a terminal it has bars.
    Text,
    /// One JSON document.
    Json,
    /// CSV, as in RFC 4180.
    Csv,
}

/// A report to be made.
#[derive(Debug, Clone)]
pub struct Report {
    /// The database.
    pub datasource: DataSource,
    /// When they were received.
    pub span: TimeSpan,
    /// Only these names; all names if empty.
    pub names: Vec<String>,
    /// Only names that match this `LIKE` pattern of SQL.
    pub like: Option<String>,
    /// Most names that are listed.
    pub top: usize,
    /// The format of the report.
    pub format: Format,
    /// Longest time that the database may take for each query.
    pub limit: Duration,
}

/// The figures of a report.
struct Findings {
    place: String,
    zone: String,
    range: TimeRange,
    /// The names with the most events, in descending order.
    listed: Vec<Named>,
    /// How many names are not listed.
    others_count: u64,
    others: Figures,
    names_count: u64,
    total: Figures,
    /// `None` without events.
    timeline: Option<Timeline>,
}

impl Report {
    /// Queries the database and writes the report.
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
        progress.show("querying the database");
        let mut session = QuerySession::open(&self.datasource, self.limit)?;
        let range = session.range(&self.span)?;
        let rows = Rows {
            range: range.clone(),
            names: &self.names,
            like: self.like.as_deref(),
        };
        let mut findings = Findings {
            place: session.place().to_owned(),
            zone: session.zone()?,
            range,
            listed: Vec::new(),
            others_count: 0,
            others: Figures::default(),
            names_count: 0,
            total: Figures::default(),
            timeline: None,
        };
        self.group_by_name(&mut session, &rows, &mut findings)?;
        // The CSV format has no timeline.
        if self.format != Format::Csv {
            progress.show("querying the database again");
            findings.timeline = Timeline::find(&mut session, &rows, &findings.total)?;
        }
        Ok(findings)
    }

    fn group_by_name(
        &self,
        session: &mut QuerySession,
        rows: &Rows<'_>,
        findings: &mut Findings,
    ) -> Result<(), QueryError> {
        let dialect = session.dialect();
        let (name, condition) = (dialect.name(), dialect.condition(rows));
        let columns = figures::columns(dialect);
        // Without an order: the live database should not sort millions of names.
        let sql =
            format!("SELECT {name}, {columns} FROM eventlog {condition} GROUP BY 1 ORDER BY NULL");
        let mut largest = BinaryHeap::new();
        let mut leave_out = |named: Named| {
            findings.others_count += 1;
            findings.others.add(&named.figures);
        };
        session.rows(
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

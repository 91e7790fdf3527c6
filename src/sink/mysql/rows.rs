//! Rows as prepared inserts: how many per statement, their parameters, and which row of a statement was refused.

use std::ops::Range;
use std::time::Instant;

use mysql::prelude::Queryable;
use mysql::{Params, Statement, Value};

use super::at::At;
use super::classify::{self, Verdict, sink_error, verdict};
use super::connect;
use super::statement_size::{self, StatementSize};
use super::trial;
use super::{PLACEHOLDERS_PER_ROW, Session};
use crate::event::batch::{BATCH_NAME_BYTES_MAX, Batch, BatchEvents};
use crate::sink::trial::{Content, Suspect, Suspects, takes_no_row};
use crate::sink::{Fault, InsertTimes, Refused, SinkError};

/// Bytes of a row in an EXECUTE without its name: two integers of 8, three types of 2, the length of
/// the name, and its part of the NULL bitmap.
const ROW_BYTES: usize = 8 + 8 + 3 * 2 + 3 + 1;

/// Most memory for binding and sending one statement, in bytes: a value for each placeholder, a copy of each
/// name with the overhead of its allocation, and the packet, of which two copies may exist while it grows.
pub fn statement_bytes_max(events: BatchEvents) -> usize {
    const ALLOCATION_BYTES: usize = 32;
    let rows = events.get().min(statement_size::ROWS_MAX);
    let values = rows * (PLACEHOLDERS_PER_ROW * size_of::<Value>() + ALLOCATION_BYTES);
    values + 5 * BATCH_NAME_BYTES_MAX + 4 * rows * ROW_BYTES
}

/// The rows of one transaction.
pub(super) struct Insertion<'a> {
    session: &'a mut Session,
    batch: &'a Batch,
    /// A row that was inserted before.
    known: Option<Content>,
    /// The last row that was inserted.
    last: Option<usize>,
    suspects: Suspects<At>,
    /// The table still has transactions. It may have been altered since the columns were last read.
    is_transactional: bool,
    times: InsertTimes,
}

impl<'a> Insertion<'a> {
    pub(super) fn new(session: &'a mut Session, batch: &'a Batch, known: Option<Content>) -> Self {
        Self {
            session,
            batch,
            known,
            last: None,
            suspects: Suspects::default(),
            is_transactional: false,
            times: InsertTimes::default(),
        }
    }

    /// Inserts `rows`. If the server refuses a row of a statement, tries its halves until the row is found.
    pub(super) fn insert(
        &mut self,
        rows: Range<usize>,
        refused: &mut Refused,
    ) -> Result<(), SinkError> {
        let connection = &mut self.session.connection;
        let runs = self.session.late_times.runs(connection, self.batch, rows)?;
        for (at, rows) in runs {
            self.insert_run(at, rows, refused)?;
        }
        Ok(())
    }

    fn insert_run(
        &mut self,
        at: At,
        rows: Range<usize>,
        refused: &mut Refused,
    ) -> Result<(), SinkError> {
        // Ranges to be inserted, the next one last. A statement that fails because of a row leaves the transaction
        // as it was before, so that its halves can be tried.
        let mut to_do = vec![rows];
        while let Some(rows) = to_do.pop() {
            if rows.is_empty() {
                continue;
            }
            let size = self.session.size_for(self.batch, &rows);
            let now = rows.start..rows.start + size.rows();
            to_do.push(now.end..rows.end);
            let times = &mut self.times;
            match self
                .session
                .execute(self.batch, at, now.clone(), size, times)
            {
                Ok(()) => self.last = Some(now.end - 1),
                Err(Verdict::RefusesRow(fault) | Verdict::RepeatsPrimaryKey(fault))
                    if size.rows() == 1 =>
                {
                    self.check_transactions()?;
                    let seconds = self.batch.event(now.start).received_at.seconds();
                    let suspect = Suspect { seconds, at, fault };
                    if self.suspects.add(now.start, suspect) {
                        self.try_rows(refused)?;
                    }
                }
                Err(Verdict::RefusesRow(_) | Verdict::RepeatsPrimaryKey(_)) => {
                    self.check_transactions()?;
                    let middle = now.start + size.rows() / 2;
                    to_do.push(middle..now.end);
                    to_do.push(now.start..middle);
                }
                Err(Verdict::Ends(fault)) => return Err(fault),
            }
        }
        Ok(())
    }

    /// Makes sure, once, that a statement that fails leaves no rows behind and that a trial row can be removed.
    fn check_transactions(&mut self) -> Result<(), SinkError> {
        if self.is_transactional {
            return Ok(());
        }
        connect::has_transactions(&mut self.session.connection, "eventlog")?;
        self.is_transactional = true;
        Ok(())
    }

    /// Proves that the table takes rows where it has refused some.
    fn try_rows(&mut self, refused: &mut Refused) -> Result<(), SinkError> {
        let session = &mut *self.session;
        let one = session.sizes.fitting(1);
        let known = match self.last {
            Some(row) => Some(Content::of(self.batch.event(row))),
            None => self.known.clone(),
        };
        for suspect in self.suspects.by_second() {
            let insert = session.prepared(suspect.at, one)?;
            let (seconds, rule) = (suspect.seconds, session.event_rule);
            let connection = &mut session.connection;
            let refusal = trial::refusal(connection, &insert, seconds, rule, known.clone())?;
            if refusal.is_some() {
                return Err(takes_no_row(suspect.fault.clone()));
            }
        }
        self.suspects.prove(refused);
        Ok(())
    }

    /// Proves the last refusals. Returns the times, and a row that was inserted.
    pub(super) fn finish(
        mut self,
        refused: &mut Refused,
    ) -> Result<(InsertTimes, Option<Content>), SinkError> {
        self.try_rows(refused)?;
        let last = self.last.map(|row| Content::of(self.batch.event(row)));
        Ok((self.times, last.or(self.known)))
    }
}

impl Session {
    /// The largest statement of at most `rows` that fits into a packet.
    fn size_for(&self, batch: &Batch, rows: &Range<usize>) -> StatementSize {
        let mut size = self.sizes.fitting(rows.len());
        while size.rows() > 1 {
            let bytes = batch.name_bytes_of(rows.start..rows.start + size.rows());
            if bytes + size.rows() * ROW_BYTES <= self.packet_bytes_max {
                break;
            }
            size = self.sizes.below(size);
        }
        size
    }

    fn execute(
        &mut self,
        batch: &Batch,
        at: At,
        rows: Range<usize>,
        size: StatementSize,
        times: &mut InsertTimes,
    ) -> Result<(), Verdict> {
        let start = Instant::now();
        let statement = self.prepared(at, size).map_err(Verdict::Ends)?;
        times.prepare += start.elapsed();

        let start = Instant::now();
        let executed = self
            .connection
            .exec_drop(&statement, bind(batch, rows.clone()));
        times.execute += start.elapsed();
        match executed.map_err(verdict) {
            Err(Verdict::RepeatsPrimaryKey(fault)) => {
                let events = rows.map(|row| batch.event(row));
                Err(trial::repeated_primary_key(
                    &mut self.connection,
                    events,
                    fault,
                ))
            }
            Err(fault) => Err(fault),
            Ok(()) => {
                // Of an INSERT of many rows it is the id of the first.
                let id = self.connection.last_insert_id();
                self.inserted = (id > 0).then_some((rows.start, id));
                self.check_rows(rows.len())
            }
        }
    }

    /// Checks that every row was inserted and none was altered.
    fn check_rows(&mut self, rows: usize) -> Result<(), Verdict> {
        // Read first: the next query overwrites it.
        let affected = self.connection.affected_rows();
        if self.connection.warnings() > 0 {
            let found: Vec<(String, i32, String)> =
                self.connection.query("SHOW WARNINGS").map_err(verdict)?;
            let altered = found.into_iter().find(|(level, code, _)| {
                level != "Note" && u16::try_from(*code).is_ok_and(classify::is_about_a_row)
            });
            if let Some((_, code, text)) = altered {
                // In strict mode the server refuses such a row. A trigger or a proxy may have left that mode.
                let text = format!("the server would alter a row: {text}");
                return Err(Verdict::Ends(SinkError::Stop(Fault::numbered(code, text))));
            }
        }
        if affected == rows as u64 {
            return Ok(());
        }
        let text = format!("{rows} rows were sent, but the server reports {affected} as inserted");
        Err(Verdict::Ends(SinkError::Stop(Fault::new(text))))
    }

    fn prepared(&mut self, at: At, size: StatementSize) -> Result<Statement, SinkError> {
        let statements = &mut self.statements[at.index()];
        if let Some(statement) = &statements[size.index()] {
            return Ok(statement.clone());
        }
        let rows = vec![at.row(); size.rows()].join(",");
        let text = format!("INSERT INTO eventlog (at, name, value) VALUES {rows}");
        let statement = self.connection.prep(text).map_err(sink_error)?;
        statements[size.index()] = Some(statement.clone());
        Ok(statement)
    }
}

/// The parameters of the statement that inserts `rows` of `batch`: three per row: time, name, value.
pub fn bind(batch: &Batch, rows: Range<usize>) -> Params {
    let mut values = Vec::with_capacity(rows.len() * PLACEHOLDERS_PER_ROW);
    for event in rows.map(|index| batch.event(index)) {
        values.push(Value::UInt(event.received_at.seconds()));
        values.push(Value::Bytes(event.name.as_bytes().to_vec()));
        values.push(Value::UInt(u64::from(event.value)));
    }
    Params::Positional(values)
}

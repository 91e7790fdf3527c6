//! Rows as prepared inserts: how many per statement, their parameters, and which row of a statement was refused.

use std::ops::Range;
use std::time::Instant;

use mysql::prelude::Queryable;
use mysql::{Params, Statement, Value};

use super::at::At;
use super::classify::{self, Verdict, sink_error, verdict};
use super::connect;
use super::id_column::{self, FoundColumn, IdColumn};
use super::statement_kind::{Columns, OTHER_KEY_REPEATED, StatementKind};
use super::statement_size::{self, StatementSize};
use super::trial::{self, TrialId, Tried};
use super::{PLACEHOLDERS_PER_ROW_MAX, Session};
use crate::event::Event;
use crate::event::batch::{BATCH_NAME_BYTES_MAX, Batch, BatchEvents};
use crate::sink::trial::{Content, Suspect, Suspects, takes_no_row};
use crate::sink::{Fault, InsertTimes, InsertedRows, Refused, SinkError};

/// Most bytes of a row in an EXECUTE without its name and its id: two integers of 8, four types of 2, the lengths of
/// the name and of the id, and its part of the NULL bitmap.
const ROW_BYTES: usize = 8 + 8 + 4 * 2 + 3 + 1 + 1;

/// Most memory for binding and sending one statement, in bytes: a value for each placeholder, a copy of each
/// name and id with the overhead of its allocation, and the packet, of which two copies may exist while it grows.
pub fn statement_bytes_max(events: BatchEvents) -> usize {
    const ALLOCATION_BYTES: usize = 32;
    let rows = events.get().min(statement_size::ROWS_MAX);
    let values = rows * (PLACEHOLDERS_PER_ROW_MAX * size_of::<Value>() + 2 * ALLOCATION_BYTES);
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
    suspects: Suspects<StatementKind>,
    /// The table still has transactions. It may have been altered since the columns were last read.
    is_transactional: bool,
    done: InsertedRows,
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
            done: InsertedRows::default(),
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
            let columns = self.session.columns_for(self.batch, now.clone());
            let kind = StatementKind { at, columns };
            let times = &mut self.done.times;
            match self
                .session
                .execute(self.batch, kind, now.clone(), size, times)
            {
                Ok(0) => self.last = Some(now.end - 1),
                // Which of them made no row is not known.
                Ok(duplicates) => self.done.duplicates += duplicates,
                Err(Verdict::RefusesRow(fault) | Verdict::RepeatsPrimaryKey(fault))
                    if size.rows() == 1 =>
                {
                    self.check_transactions()?;
                    let seconds = self.batch.event(now.start).received_at.seconds();
                    let at = kind;
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
            let id = match suspect.at.columns {
                Columns::Plain => TrialId::None,
                Columns::WithId => TrialId::OfChance,
            };
            let (seconds, rule) = (suspect.seconds, session.event_rule);
            let connection = &mut session.connection;
            let tried = trial::try_rows(connection, &insert, seconds, (rule, id), known.clone())?;
            match tried {
                Tried::Refused(_) => return Err(takes_no_row(suspect.fault.clone())),
                Tried::TakenWithoutId => session.check_id_column(&suspect.fault)?,
                Tried::Taken => {}
            }
        }
        self.suspects.prove(refused);
        Ok(())
    }

    /// Proves the last refusals. Returns what was inserted, and a row of it.
    pub(super) fn finish(
        mut self,
        refused: &mut Refused,
    ) -> Result<(InsertedRows, Option<Content>), SinkError> {
        self.try_rows(refused)?;
        let last = self.last.map(|row| Content::of(self.batch.event(row)));
        Ok((self.done, last.or(self.known)))
    }
}

impl Session {
    /// Makes sure that the column for ids is as it was read: one that was made shorter takes no id, and its events are not
    /// to be refused for that. Where it differs, it is read before the next attempt, which comes at once.
    fn check_id_column(&mut self, fault: &Fault) -> Result<(), SinkError> {
        let column = match id_column::find(&mut self.connection)? {
            FoundColumn::Usable(column) => Some(column),
            FoundColumn::Missing | FoundColumn::Unusable(_) => None,
        };
        if column == self.ids {
            return Ok(());
        }
        self.columns_read_at = None;
        Err(SinkError::Retry(fault.clone()))
    }

    /// The largest statement of at most `rows` that fits into a packet.
    fn size_for(&self, batch: &Batch, rows: &Range<usize>) -> StatementSize {
        let mut size = self.sizes.fitting(rows.len());
        while size.rows() > 1 {
            let part = rows.start..rows.start + size.rows();
            let padding = self
                .ids
                .map_or(0, |column| column.padding_bytes(batch.ids_of(part.clone())));
            let bytes = batch.name_bytes_of(part) + padding + size.rows() * ROW_BYTES;
            if bytes <= self.packet_bytes_max {
                break;
            }
            size = self.sizes.below(size);
        }
        size
    }

    /// Which columns the statement for these rows gives.
    fn columns_for(&self, batch: &Batch, rows: Range<usize>) -> Columns {
        match self.ids {
            Some(_) if batch.ids_of(rows) > 0 => Columns::WithId,
            _ => Columns::Plain,
        }
    }

    /// Inserts rows. Returns how many of them made no row, since the table has their ids.
    fn execute(
        &mut self,
        batch: &Batch,
        kind: StatementKind,
        rows: Range<usize>,
        size: StatementSize,
        times: &mut InsertTimes,
    ) -> Result<u64, Verdict> {
        let start = Instant::now();
        let statement = self.prepared(kind, size).map_err(Verdict::Ends)?;
        times.prepare += start.elapsed();

        let start = Instant::now();
        let parameters = self.bind(batch, kind, rows.clone());
        let mut executed = self.connection.exec_drop(&statement, parameters);
        let mut may_repeat = kind.columns == Columns::WithId;
        if may_repeat && rows.len() == 1 && repeats_other_key(&executed) {
            // Which key it is decides whose fault that is.
            executed = self.execute_plainly(batch, kind, rows.clone());
            may_repeat = false;
        }
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
                let with_ids = if may_repeat {
                    batch.ids_of(rows.clone())
                } else {
                    0
                };
                let duplicates = self.check_rows(rows.len(), with_ids)?;
                if duplicates == 0 {
                    self.inserted = (id > 0).then_some((rows.start, id));
                }
                Ok(duplicates)
            }
        }
    }

    /// Inserts one row without regard to what it repeats.
    fn execute_plainly(
        &mut self,
        batch: &Batch,
        kind: StatementKind,
        rows: Range<usize>,
    ) -> mysql::Result<()> {
        let parameters = self.bind(batch, kind, rows);
        let statement = self.connection.prep(kind.plain_with_id())?;
        let executed = self.connection.exec_drop(&statement, parameters);
        self.connection.close(statement)?;
        executed
    }

    fn bind(&self, batch: &Batch, kind: StatementKind, rows: Range<usize>) -> Params {
        match (kind.columns, self.ids) {
            (Columns::WithId, Some(column)) => bind_with_ids(batch, rows, column),
            _ => bind(batch, rows),
        }
    }

    /// Checks that every row was inserted and none was altered. Of those with an id, the table may have had it. Returns
    /// how many were not inserted.
    fn check_rows(&mut self, rows: usize, with_ids: usize) -> Result<u64, Verdict> {
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
        match (rows as u64).checked_sub(affected) {
            Some(duplicates) if duplicates <= with_ids as u64 => Ok(duplicates),
            _ => {
                let text =
                    format!("{rows} rows were sent, but the server reports {affected} as inserted");
                Err(Verdict::Ends(SinkError::Stop(Fault::new(text))))
            }
        }
    }

    /// Closes all statements. They are prepared again when they are needed.
    pub(super) fn close_statements(&mut self) -> Result<(), SinkError> {
        for statement in self.statements.iter_mut().flatten() {
            if let Some(statement) = statement.take() {
                self.connection.close(statement).map_err(sink_error)?;
            }
        }
        Ok(())
    }

    pub(super) fn prepared(
        &mut self,
        kind: StatementKind,
        size: StatementSize,
    ) -> Result<Statement, SinkError> {
        let statements = &mut self.statements[kind.index()];
        if let Some(statement) = &statements[size.index()] {
            return Ok(statement.clone());
        }
        let text = kind.text(size.rows());
        let statement = self.connection.prep(text).map_err(sink_error)?;
        statements[size.index()] = Some(statement.clone());
        Ok(statement)
    }
}

/// Whether a row repeats another key than an id, or an id that is only the same to the collation of the column.
fn repeats_other_key(executed: &mysql::Result<()>) -> bool {
    matches!(executed, Err(mysql::Error::MySqlError(reported)) if i32::from(reported.code) == OTHER_KEY_REPEATED)
}

/// The parameters of the statement that inserts `rows` of `batch`: three per row: time, name, value.
pub fn bind(batch: &Batch, rows: Range<usize>) -> Params {
    let mut values = Vec::with_capacity(rows.len() * 3);
    for event in rows.map(|index| batch.event(index)) {
        values.extend(columns_of(event));
    }
    Params::Positional(values)
}

/// The same with a fourth: the id, or NULL.
fn bind_with_ids(batch: &Batch, rows: Range<usize>, column: IdColumn) -> Params {
    let mut values = Vec::with_capacity(rows.len() * PLACEHOLDERS_PER_ROW_MAX);
    for event in rows.map(|index| batch.event(index)) {
        values.extend(columns_of(event));
        values.push(event.id.map_or(Value::NULL, |id| column.stored(id)));
    }
    Params::Positional(values)
}

fn columns_of(event: Event<'_>) -> [Value; 3] {
    [
        Value::UInt(event.received_at.seconds()),
        Value::Bytes(event.name.as_bytes().to_vec()),
        Value::UInt(u64::from(event.value)),
    ]
}
